/** The built launcher in mode `serve`, as it runs in the container of a server; and a bare client of it. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { connect } from 'node:net'
import type { Test } from 'tap'
import { launcher } from './launcher.ts'
import { frameOf, socketPath } from './scripted-launcher.ts'
import { until } from './sidecar.ts'

export interface ServeOptions {
  readonly path?: string
  /** Default: the sidecar of the test lives among the same processes. */
  readonly args?: readonly string[]
  /** The environment of its container. */
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
  readonly uid?: number
  readonly gid?: number
  /** Before the launcher: what starts it. */
  readonly within?: readonly string[]
}

export interface Serving {
  readonly path: string
  readonly pid: number
  /** What it said on stderr. */
  readonly said: string
  kill(signal: NodeJS.Signals): Promise<void>
}

/** Starts one and waits until it listens; it is ended with the test. */
export async function serve(t: Test, options: ServeOptions = {}): Promise<Serving> {
  const { path = socketPath(t), args = ['--shared-pid-namespace'], within = [], cwd = '/' } = options
  const [file, ...words] = [...within, launcher, 'serve', '--socket', path, ...args] as [string, ...string[]]
  const env = options.env ?? { PATH: process.env['PATH'] ?? '', HOME: process.env['HOME'] ?? '' }
  const who = options.uid === undefined ? {} : { uid: options.uid, gid: options.gid ?? options.uid }
  const child = spawn(file, words, { stdio: ['ignore', 'inherit', 'pipe'], env, cwd, ...who })
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text
  })
  const kill = async (signal: NodeJS.Signals): Promise<void> => {
    if (hasEnded(child)) return
    const ended = once(child, 'exit')
    child.kill(signal)
    await ended
  }
  t.teardown(async () => {
    const late = setTimeout(() => child.kill('SIGKILL'), 8000)
    // What starts it may not pass a signal on.
    await kill(within.length === 0 ? 'SIGTERM' : 'SIGKILL')
    clearTimeout(late)
  })
  await until(() => existsSync(path) || hasEnded(child), 'it listens')
  if (hasEnded(child)) throw new Error(`the launcher ended: ${said}`)
  return {
    path,
    pid: child.pid as number,
    get said() {
      return said
    },
    kill,
  }
}

function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null
}

/** Everything that came on one connection until it ended. */
export interface Talk {
  /** Payloads by type, in their order; each as text. */
  readonly frames: readonly (readonly [type: string, text: string])[]
  readonly reset: boolean
}

/** Sends bytes, without any of the care that the sidecar takes, and reads to the end. */
export function talk(
  path: string,
  bytes: Buffer,
  after?: (type: string) => Buffer | undefined,
): Promise<Talk> {
  return new Promise((resolve) => {
    const frames: [string, string][] = []
    let rest = Buffer.alloc(0)
    let reset = false
    const socket = connect(path)
    socket.on('error', () => {
      reset = true
    })
    socket.on('data', (chunk: Buffer) => {
      rest = Buffer.concat([rest, chunk])
      while (rest.length >= 5 && rest.length >= 5 + rest.readUInt32BE(1)) {
        const end = 5 + rest.readUInt32BE(1)
        const type = rest.toString('latin1', 0, 1)
        frames.push([type, rest.toString('utf8', 5, end)])
        rest = rest.subarray(end)
        const more = after?.(type)
        if (more !== undefined) socket.write(more)
      }
    })
    socket.once('close', () => resolve({ frames, reset }))
    socket.write(bytes)
  })
}

/** The frame that has a server started with no rules at all. */
export function bareStart(command: readonly string[], more: readonly string[] = []): Buffer {
  const path = `env PATH=${process.env['PATH']}`
  const records = ['v 1', 'fs open', 'net open', 'filter off', path, ...more]
  const words = command.map((word) => `arg ${word}`)
  return frameOf('P', [...records, ...words].map((record) => `${record}\0`).join(''))
}
