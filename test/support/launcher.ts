/** Starts the built launcher as the sidecar does: policy on descriptor 3, status on 4. */
import { type ChildProcessByStdio, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'

const built = fileURLToPath(new URL('../../dist/launcher/', import.meta.url))

/** The released one, and the one that knows the `test.` records. */
export const launcher = join(built, 'mcp-sidecar-launcher')
export const seamedLauncher = join(built, 'mcp-sidecar-launcher-test')

/** Why the tests of the launcher cannot run here; undefined: they can. */
export const noLauncher: string | undefined =
  process.platform !== 'linux'
    ? 'the launcher is for Linux'
    : existsSync(seamedLauncher)
      ? undefined
      : 'there is no launcher: no C compiler when it was built'

/** Root is tried as root and as an unprivileged uid; everybody else only as what they are. */
export const uids: readonly number[] = process.getuid?.() === 0 ? [0, 65534] : [process.getuid?.() ?? 0]

/** What a dynamically linked program needs, and nothing of anybody's data. */
export const confined: readonly string[] = [
  'v 1',
  'fs confined',
  'net none',
  'filter on',
  'proc self',
  ...['/usr', '/lib', '/lib64', '/bin', '/sbin', '/root/.pyenv'].map((path) => `fs.rx? ${path}`),
  ...['/etc/ld.so.cache', '/etc/ssl'].map((path) => `fs.r? ${path}`),
  ...['/dev/null', '/dev/urandom'].map((path) => `fs.dev ${path}`),
]

/** No profile: only the process is kept in order. */
export const bare: readonly string[] = ['v 1', 'fs open', 'net open', 'filter off']

export interface Launch {
  readonly uid?: number
  /** The launcher with the seams; default: where a record asks for it. */
  readonly seams?: boolean
  readonly env?: Readonly<Record<string, string>>
  /** Bytes instead of records. */
  readonly policy?: Buffer
  /** A shell script that runs before the launcher, in a mount namespace of its own; root only. */
  readonly mounts?: string
}

// biome-ignore lint/suspicious/noExplicitAny: the launcher's own words, looked at by tests
export type Status = any

export interface Launched {
  readonly child: ChildProcessByStdio<Writable, Readable, Readable>
  /** The launcher's process: the supervisor. */
  readonly pid: number
  readonly status: readonly Status[]
  /** The first status line. */
  first(): Promise<Status>
  /** Until so much was written to stdout; a function tells of all that was whether it is enough. */
  said(what: string | ((out: string) => boolean)): Promise<string>
  /** The end of the launcher and of its pipes. */
  done(): Promise<{
    code: number | null
    signal: string | null
    out: string
    err: string
    status: readonly Status[]
  }>
  /** Closes the sidecar's end of the status pipe. */
  abandon(): void
}

export function launch(
  t: Test,
  records: readonly string[],
  command: readonly string[],
  how: Launch = {},
): Launched {
  const { uid, seams, env, mounts } = how
  const binary = (seams ?? records.some((each) => each.startsWith('test.'))) ? seamedLauncher : launcher
  const own = mounts === undefined ? [] : ['unshare', '-m', '/bin/sh', '-ec', `${mounts}\nexec "$@"`, 'sh']
  const words = [...own, binary, 'exec', '--', ...command]
  const child = spawn(words[0] ?? '', words.slice(1), {
    stdio: ['pipe', 'pipe', 'pipe', 'pipe', 'pipe'],
    detached: true,
    env: { PATH: process.env['PATH'] ?? '', ...env },
    cwd: '/',
    ...(uid === undefined || uid === process.getuid?.() ? {} : { uid, gid: uid }),
  })
  const policy = child.stdio[3] as Writable
  const statusPipe = child.stdio[4] as Readable
  const status: Status[] = []
  let out = ''
  let err = ''
  let rest = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    err += text
  })
  statusPipe.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) status.push(JSON.parse(line))
  })
  for (const stream of [policy, child.stdin]) stream.on('error', () => {})
  const closed = once(child, 'close') as Promise<[number | null, string | null]>
  closed.catch(() => {})
  policy.end(how.policy ?? Buffer.from(records.map((record) => `${record}\0`).join('')))
  t.teardown(() => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGQUIT')
  })
  /** Looks again whenever `stream` had something; the end of everything is the last look. */
  const when = async <T>(stream: Readable, look: () => T | undefined): Promise<T> => {
    for (;;) {
      const found = look()
      if (found !== undefined) return found
      const ended = await Promise.race([once(stream, 'data').then(() => false), closed.then(() => true)])
      const last = look()
      if (last !== undefined) return last
      if (ended) throw new Error(`the launcher ended: ${JSON.stringify({ out, err, status })}`)
    }
  }
  return {
    child: child as ChildProcessByStdio<Writable, Readable, Readable>,
    pid: child.pid ?? 0,
    status,
    first: () => when(statusPipe, () => status[0]),
    said: (what) => {
      const enough = typeof what === 'string' ? (): boolean => out.includes(what) : what
      return when(child.stdout, () => (enough(out) ? out : undefined))
    },
    done: async () => {
      const [code, signal] = await closed
      return { code, signal, out, err, status }
    },
    abandon: () => {
      statusPipe.destroy()
    },
  }
}

/** To its end, with nothing on stdin. */
export function launched(t: Test, records: readonly string[], command: readonly string[], how: Launch = {}) {
  const running = launch(t, records, command, how)
  running.child.stdin.end()
  return running.done()
}

/** A C program of test/fixtures/launcher, compiled into a folder that everybody may read. */
export function compiled(t: Test, name: string): string {
  const folder = openFolder(t)
  const program = join(folder, name)
  const source = fileURLToPath(new URL(`../fixtures/launcher/${name}.c`, import.meta.url))
  const result = spawnSync(process.env['CC'] || 'cc', ['-O1', '-static', '-o', program, source], {
    encoding: 'utf8',
  })
  if (result.status !== 0) throw new Error(`cc: ${result.stderr}`)
  return program
}

/** An empty folder that an unprivileged uid can read; `uid` owns it. */
export function openFolder(t: Test): string {
  const path = mkdtempSync(join(tmpdir(), 'mcp-sidecar-launcher-'))
  chmodSync(path, 0o777)
  t.teardown(() => rmSync(path, { recursive: true, force: true }))
  return path
}

/** `name errno` lines as an object. */
export function outcomes(out: string): Record<string, number> {
  const lines = out.trim().split('\n').filter(Boolean)
  return Object.fromEntries(
    lines.map((line) => {
      const [name = '', number] = line.split(' ')
      return [name, Number(number)]
    }),
  )
}

export function mechanism(report: Status, name: string): Status {
  return report.mechanisms.find((each: Status) => each.mechanism === name)
}

/** The process table without the whole sidecar that `processes.ts` brings along. */
function stat(pid: number): { readonly state: string; readonly parent: number } | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const [state = '', parent] = text.slice(text.lastIndexOf(')') + 2).split(' ')
    return { state, parent: Number(parent) }
  } catch {
    return undefined
  }
}

/** Runs, and is no zombie. */
export function alive(pid: number): boolean {
  const found = stat(pid)
  return found !== undefined && !found.state.startsWith('Z')
}

export function childrenOf(pid: number): number[] {
  const pids = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
  return pids.filter((each) => stat(each)?.parent === pid)
}

export async function until(
  check: () => boolean | Promise<boolean>,
  what: string,
  ms = 20_000,
): Promise<void> {
  const end = performance.now() + ms
  while (!(await check())) {
    if (performance.now() > end) throw new Error(`waited ${ms} ms in vain: ${what}`)
    await new Promise((resolve) => {
      setTimeout(resolve, 10)
    })
  }
}
