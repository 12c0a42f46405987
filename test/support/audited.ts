/** What tests of the audit log need: its lines, and sidecars in processes of their own whose output nobody touches. */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import type { Test } from 'tap'
import { cliCommand } from './cli.ts'
import type { Json } from './modern.ts'
import { alive } from './processes.ts'
import { scriptedCommand, until } from './sidecar.ts'
import { send } from './wire.ts'

export interface AuditLog {
  readonly file: string
  /** All that is in it. */
  readonly text: () => string
  readonly lines: () => Json[]
  /** Waits for a line that fits. */
  one(fits: (line: Json) => boolean, what: string): Promise<Json>
  /** The lines that this adds. */
  added(act: () => Promise<unknown>): Promise<Json[]>
}

/** @param mark makes a call with this id, which then stands between what was there and what comes */
export function auditLog(file: string, mark: (id: string) => Promise<unknown> = async () => {}): AuditLog {
  let marks = 0
  const text = (): string => (existsSync(file) ? readFileSync(file, 'utf8') : '')
  const lines = (): Json[] =>
    text()
      .split('\n')
      .slice(0, -1)
      .flatMap((line) => parsed(line))
  const marked = async (): Promise<number> => {
    const id = `mark ${++marks}`
    const find = (): number => lines().findIndex((line) => line.jsonrpc_id === JSON.stringify(id))
    await mark(id)
    await until(() => find() >= 0, 'the mark is there')
    return find()
  }
  return {
    file,
    text,
    lines,
    one: async (fits, what) => {
      await until(() => lines().some(fits), `the audit log holds ${what}`)
      return lines().find(fits)
    },
    added: async (act) => {
      const before = await marked()
      await act()
      const after = await marked()
      return lines().slice(before + 1, after)
    },
  }
}

/** Nothing for what a crash left of a line. */
function parsed(line: string): Json[] {
  try {
    return [JSON.parse(line)]
  } catch {
    return []
  }
}

export interface Program {
  readonly pid: number
  readonly url: string
  readonly adminUrl: string
  /** Everything on its standard output so far. */
  readonly output: () => string
  /** Nobody reads its standard output from now on. */
  pause(): void
  resume(): void
  kill(signal: NodeJS.Signals): void
  readonly exited: Promise<number | string>
}

/** Starts `mcp-sidecar` on free ports; it is killed when the test ends. */
export async function startProgram(t: Test, flags: readonly string[]): Promise<Program> {
  const [command, ...args] = cliCommand() as [string, ...string[]]
  const own = ['--port', '0', '--admin-port', '0', '--topology', 'shared', ...flags]
  const child = spawn(command, [...args, ...own, '--', ...scriptedCommand], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const pid = child.pid as number
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (part: string) => {
    output += part
  })
  const exited = new Promise<number | string>((resolve) => {
    child.once('close', (code, signal) => resolve(code ?? signal ?? ''))
  })
  t.teardown(async () => {
    if (alive(pid)) child.kill('SIGKILL')
    child.stdout.resume()
    await exited
  })
  const listening = (): Json =>
    output.split('\n').flatMap((line) => (line.includes('"msg":"listening"') ? [JSON.parse(line)] : []))[0]
  await until(() => listening() !== undefined || child.exitCode !== null, 'it listens', 30_000)
  return {
    ...{ pid, exited, url: listening()?.url, adminUrl: listening()?.adminUrl, output: () => output },
    pause: () => child.stdout.pause(),
    resume: () => child.stdout.resume(),
    kill: (signal) => child.kill(signal),
  }
}

export interface Ran {
  readonly code: number | string
  readonly stdout: string
  readonly stderr: string
}

/** Runs one command of `mcp-sidecar` to its end. */
export function runProgram(args: readonly string[], input = ''): Promise<Ran> {
  const [command, ...own] = cliCommand() as [string, ...string[]]
  return new Promise((resolve) => {
    const options = { timeout: 60_000, maxBuffer: 64 * 1024 * 1024 }
    const child = execFile(command, [...own, ...args], options, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : (error.code ?? error.signal ?? ''), stdout, stderr }),
    )
    child.stdin?.on('error', () => {})
    child.stdin?.end(input)
  })
}

/**
 * The same where nothing can be written to standard output: its device is full. As it cannot say where it listens, the
 * ports are chosen for it.
 */
export async function startMute(
  t: Test,
  flags: readonly string[],
): Promise<Pick<Program, 'url' | 'adminUrl'>> {
  const [command, ...args] = cliCommand() as [string, ...string[]]
  const [port, adminPort] = [await freePort(), await freePort()]
  const full = openSync('/dev/full', 'w')
  const ports = ['--port', String(port), '--admin-port', String(adminPort), '--topology', 'shared']
  const child = spawn(command, [...args, ...ports, ...flags, '--', ...scriptedCommand], {
    stdio: ['ignore', full, 'inherit'],
  })
  closeSync(full)
  const gone = once(child, 'exit')
  t.teardown(async () => {
    child.kill('SIGKILL')
    await gone
  })
  const adminUrl = `http://127.0.0.1:${adminPort}`
  const ready = (): Promise<boolean> =>
    send(`${adminUrl}/readyz`, 'GET').then(
      ({ status }) => status === 200,
      () => false,
    )
  await until(ready, 'it is ready', 30_000)
  return { url: `http://127.0.0.1:${port}/mcp`, adminUrl }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}
