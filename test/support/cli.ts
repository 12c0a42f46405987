/** The command line as a process of its own, for tests of signals and exit codes. */
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import { alive } from './processes.ts'
import { scriptedCommand, until } from './sidecar.ts'

const program = fileURLToPath(new URL('../../bin/mcp-sidecar.ts', import.meta.url))

export interface CliLine {
  readonly level: string
  readonly msg: string
  readonly [member: string]: unknown
}

export interface CliProcess {
  readonly pid: number
  /** Of the client endpoint and of the admin endpoints, once it listens. */
  readonly url: string
  readonly adminUrl: string
  /** The JSON log lines so far. */
  readonly lines: readonly CliLine[]
  readonly stderr: string
  /** Its exit code, or the name of the signal that ended it. */
  readonly exited: Promise<number | string>
  signal(name: NodeJS.Signals): void
  /** Waits for a log line. */
  logged(msg: string, match?: (line: CliLine) => boolean): Promise<CliLine>
}

/** Starts `mcp-sidecar` on free ports and waits until it listens; it is killed when the test ends. */
export async function startCli(
  t: Test,
  flags: readonly string[],
  server: readonly string[] = scriptedCommand,
): Promise<CliProcess> {
  const command = server.length === 0 ? [] : ['--', ...server]
  const started = spawnCli(t, ['--port', '0', '--admin-port', '0', ...flags, ...command])
  const listening = await started.logged('listening')
  return Object.assign(started, {
    url: String(listening['url'] ?? ''),
    adminUrl: String(listening['adminUrl']),
  })
}

/** The same without waiting, for starts that are refused. */
export function spawnCli(t: Test, args: readonly string[]): CliProcess {
  const child = spawn(process.execPath, [...process.execArgv, program, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const pid = child.pid as number
  const lines: CliLine[] = []
  let stderr = ''
  let rest = ''
  child.stdout.setEncoding('utf8').on('data', (part: string) => {
    const parts = `${rest}${part}`.split('\n')
    rest = parts.pop() ?? ''
    for (const line of parts) if (line.startsWith('{')) lines.push(JSON.parse(line) as CliLine)
  })
  child.stderr.setEncoding('utf8').on('data', (part: string) => {
    stderr += part
  })
  const exited = new Promise<number | string>((resolve) => {
    child.once('close', (code, signal) => resolve(code ?? signal ?? ''))
  })
  t.teardown(() => {
    if (alive(pid)) child.kill('SIGKILL')
  })
  const find = (msg: string, match: (line: CliLine) => boolean): CliLine | undefined =>
    lines.find((line) => line.msg === msg && match(line))
  return {
    pid,
    url: '',
    adminUrl: '',
    lines,
    get stderr() {
      return stderr
    },
    exited,
    signal: (name) => child.kill(name),
    logged: async (msg, match = () => true) => {
      const ended = (): boolean => child.exitCode !== null || child.signalCode !== null
      await until(() => find(msg, match) !== undefined || ended(), `"${msg}" was logged`, 30_000)
      const found = find(msg, match)
      if (found === undefined) throw new Error(`it ended without having logged "${msg}": ${stderr}`)
      return found
    },
  }
}
