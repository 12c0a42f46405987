/** The built `mcp-sidecar learn`, and the built sidecar under what it wrote: processes of their own, under a uid of choice. */
import { spawn } from 'node:child_process'
import { chmodSync, chownSync, mkdtempSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import type { Test } from 'tap'
import { until } from './sidecar.ts'
import { call, openSession, post } from './wire.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const built = join(root, 'dist', 'bin', 'mcp-sidecar.js')

/** The uids to try as: an unprivileged one, too, where this one may become it. */
export const uids: readonly number[] = process.getuid?.() === 0 ? [0, 65_534] : [process.getuid?.() ?? 65_534]

export interface Place {
  readonly uid: number
  /** Belongs to the uid, as do the folders made by {@link Place.own}. */
  readonly folder: string
  own(path: string): string
}

export function placeFor(t: Test, uid: number): Place {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'mcp-sidecar-learn-')))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const own = (path: string): string => {
    if (process.getuid?.() === 0) chownSync(path, uid, uid)
    return path
  }
  chmodSync(folder, 0o755)
  return { uid, folder: own(folder), own }
}

export interface Started {
  readonly url: string
  /** Standard error so far. */
  readonly stderr: () => string
  /** Sends SIGINT and resolves with the exit code and standard output. */
  stop(): Promise<{ readonly code: number | null; readonly stdout: string }>
}

export interface StartOptions {
  /** Names below .test, and their addresses. */
  readonly names?: Readonly<Record<string, readonly string[]>>
  /** A program that starts it. */
  readonly below?: string
  /** The program of the sidecar. Default: what was built. */
  readonly program?: string
}

/** Runs a command to its end. */
export async function run(place: Place, args: readonly string[], options: StartOptions = {}) {
  const { child, output, closed } = begin(place, args, options)
  child.stdin.end()
  const code = await closed
  return { code, stdout: output.stdout, stderr: output.stderr }
}

/** Starts a sidecar, learning or not, and waits until it listens. It is killed when the test ends. */
export async function start(
  t: Test,
  place: Place,
  args: readonly string[],
  options: StartOptions = {},
): Promise<Started> {
  const { child, output, closed } = begin(place, args, options)
  let ended = false
  void closed.then(() => {
    ended = true
  })
  t.teardown(async () => {
    child.kill('SIGKILL')
    await closed
  })
  const url = (): string | undefined =>
    /connect a client to (http:\S+mcp)/.exec(output.stderr)?.[1] ??
    /"url":"(http:[^"]+mcp)"/.exec(output.stdout)?.[1]
  await until(() => ended || url() !== undefined, 'that it listens', 20_000)
  const found = url()
  if (found === undefined) throw new Error(`it does not listen: ${output.stderr}${output.stdout}`)
  return {
    url: found,
    stderr: () => output.stderr,
    stop: async () => {
      child.kill('SIGINT')
      const code = await closed
      return { code, stdout: output.stdout }
    },
  }
}

function begin(
  { uid, folder }: Place,
  args: readonly string[],
  { names = {}, below, program: sidecar = built }: StartOptions,
) {
  const preload = pathToFileURL(join(root, 'test', 'fixtures', 'escape', 'resolver.mjs'))
  preload.searchParams.set('names', JSON.stringify(names))
  preload.searchParams.set('log', join(folder, 'lookups'))
  const identity = process.getuid?.() === uid ? {} : { uid, gid: uid }
  // Without the hooks that the test runner puts into every process.
  const node = ['/usr/bin/env', '-u', 'NODE_OPTIONS', process.execPath, '--import', preload.href, sidecar]
  const [program = '', ...words] = [...(below === undefined ? [] : [below]), ...node, ...args]
  const child = spawn(program, words, {
    ...identity,
    cwd: folder,
    env: { PATH: '/usr/local/bin:/usr/bin:/bin', HOME: folder },
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  const output = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const)
    child[name].setEncoding('utf8').on('data', (part: string) => {
      output[name] += part
    })
  const closed = new Promise<number | null>((resolve) => {
    child.once('close', resolve)
  })
  return { child, output, closed }
}

/** One tool call of a client: its text, with `error: ` before what the server calls an error. */
export type Call = (tool: string, args: object) => Promise<string>

export async function client(url: string): Promise<Call> {
  const session = await openSession(url)
  let id = 0
  return async (tool, args) => {
    const answer = await post(url, call(++id, tool, args), session)
    const found = answer.messages.find((message) => message.id === id)
    const text = found?.result?.content?.[0]?.text ?? JSON.stringify(found?.error ?? answer.body)
    return found?.result?.isError === true || found?.error !== undefined ? `error: ${text}` : text
  }
}
