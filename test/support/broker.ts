/** The launcher's connect broker without the rest of the launcher: compiled here, below a proxy that the test plays. */
import { execFileSync, type SpawnOptions, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'

const fixtures = fileURLToPath(new URL('../fixtures/launcher/', import.meta.url))
const sources = fileURLToPath(new URL('../../src/launcher/', import.meta.url))

const compiler = process.env['CC'] ?? 'cc'

/** Why nothing can be compiled here; undefined when it can. */
export const noCompiler: string | undefined = (() => {
  if (process.platform !== 'linux') return 'the launcher is for Linux'
  try {
    execFileSync(compiler, ['--version'], { stdio: 'ignore' })
    return undefined
  } catch {
    return `there is no C compiler: ${compiler}`
  }
})()

/** Whether it takes these flags, and can link with them. */
export function compiles(flags: readonly string[]): boolean {
  const input = 'int main(void) { return 0; }'
  const options = [...flags, '-x', 'c', '-o', '/dev/null', '-']
  return spawnSync(compiler, options, { input, stdio: ['pipe', 'ignore', 'ignore'] }).status === 0
}

/** The python3 itself, not a script that looks for one. */
export const python: string | undefined = (() => {
  try {
    return execFileSync('python3', ['-c', 'import sys; print(sys.executable)'], { encoding: 'utf8' }).trim()
  } catch {
    return undefined
  }
})()

export interface Programs {
  readonly driver: string
  readonly child: string
  readonly signals: string
}

const warnings = ['-Wall', '-Wextra', '-Werror', '-Wconversion', '-Wsign-conversion', '-Wshadow']

const brokerParts = 'broker broker_thread target hand_over endpoint dial tunnel bind signals'.split(' ')

/** Compiles driver and children, each when it is asked for, into a folder that is gone when this process ends. */
export function compile(flags: readonly string[] = ['-O2', '-static']): Programs {
  const folder = mkdtempSync(join(tmpdir(), 'mcp-sidecar-broker-'))
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
  chmodSync(folder, 0o755)
  const parts = brokerParts.map((name) => `${sources}${name}.c`)
  const build = (name: string, more: readonly string[]): string => {
    const program = join(folder, name)
    const source = `${fixtures}${name}.c`
    execFileSync(compiler, ['-std=gnu11', '-o', program, source, ...more], {
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    return program
  }
  const built = new Map<string, string>()
  const once = (name: string, more: readonly string[]): string => {
    const program = built.get(name) ?? build(name, more)
    built.set(name, program)
    return program
  }
  return {
    get driver() {
      return once('broker-driver', [...flags, ...warnings, `-I${sources}`, ...parts])
    },
    get child() {
      return once('broker-child', ['-O2', '-static', '-lpthread'])
    },
    get signals() {
      return once('broker-signals', ['-O2', '-static', '-lpthread'])
    },
  }
}

/** What the driver says at the end. */
export interface DriverReport {
  readonly code: number
  /** Open ones of the broker's process: before COMMAND, within twenty seconds after it, after broker_close. */
  readonly descriptors: readonly [number, number, number]
  readonly residentKiB: readonly [number, number]
  /** Longest broker_run; a broker with a thread does nothing in it. */
  readonly longestRunUs: number
}

export interface Outcome {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
  /** Of lines `NAME NUMBER`. */
  readonly values: Readonly<Record<string, number>>
  readonly report: DriverReport
}

/** Runs a command below the broker until it has ended. */
export async function run(
  t: Test,
  driver: string,
  options: readonly string[],
  command: readonly string[],
  spawning: SpawnOptions = {},
): Promise<Outcome> {
  const child = spawn(driver, [...options, '--report', '3', '--', ...command], {
    ...spawning,
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
  })
  t.teardown(() => child.kill('SIGKILL'))
  const texts = [1, 2, 3].map((number) => {
    const parts: string[] = []
    ;(child.stdio[number] as Readable).setEncoding('utf8').on('data', (part: string) => parts.push(part))
    return parts
  })
  const [code] = (await once(child, 'close')) as [number | null]
  const [stdout = '', stderr = '', report = ''] = texts.map((parts) => parts.join(''))
  if (report === '') throw new Error(`the driver ended with ${code} and no report: ${stderr}`)
  const lines = stdout.matchAll(/^(\S+) (-?\d+)$/gm)
  const values = Object.fromEntries([...lines].map(([, name, value]) => [name, Number(value)]))
  return { code: code ?? -1, stdout, stderr, values, report: JSON.parse(report) }
}

/** Nothing is left open, and nothing under way. */
export function clean(t: Pick<Test, 'equal' | 'ok'>, { report }: Outcome): void {
  const [before, after, closed] = report.descriptors
  t.equal(after, before, 'no descriptor is left')
  t.ok(closed === before - 2 || closed === before - 3, 'broker_close closes the listener and its own')
}

/** One request that reached the proxy. */
export interface Asked {
  /** `192.0.2.1:80`. */
  readonly target: string
  /** The whole head. */
  readonly head: string
  readonly early: boolean
  readonly socket: Socket
}

export interface PlayedProxy {
  readonly port: number
  readonly asked: readonly Asked[]
  /** Everything that came in, in the order of connections. */
  readonly sockets: readonly Socket[]
}

export const consent = 'HTTP/1.1 200 Connection established\r\n\r\n'

/** A proxy that answers as the test says. What is not HTTP is left alone. */
export async function playProxy(
  t: Test,
  answer: (asked: Asked) => void,
  host = '127.0.0.1',
): Promise<PlayedProxy> {
  const asked: Asked[] = []
  const sockets: Socket[] = []
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.push(socket)
    socket.on('error', () => {})
    let head = ''
    const read = (part: Buffer): void => {
      head += part.toString('latin1')
      if (!head.includes('\r\n\r\n')) return
      socket.off('data', read)
      const target = /^CONNECT (\S+) HTTP\/1\.1\r\n/.exec(head)?.[1] ?? ''
      const request = { target, head, early: /^Mcp-Sidecar-Broker: early\r$/m.test(head), socket }
      asked.push(request)
      answer(request)
    }
    socket.on('data', read)
  })
  server.listen(0, host)
  await once(server, 'listening')
  t.teardown(async () => {
    for (const socket of sockets) socket.destroy()
    server.close()
    await once(server, 'close')
  })
  return { port: (server.address() as AddressInfo).port, asked, sockets }
}
