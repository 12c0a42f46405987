/** Row 83: the launcher's own socket, where each connection starts a server of the connecting one's choice. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { chmodSync, chownSync, copyFileSync, existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { fixtures } from './build.ts'
import { endWithUs, plainly } from './children.ts'
import type { Finding } from './run.ts'
import { launcher, until } from './sidecar.ts'
import type { World } from './world.ts'

interface Said {
  /** `exit` of the server, `closed` by the launcher, `open` after 8 s, or an errno. */
  readonly how: string
  readonly frames: readonly (readonly [type: string, text: string])[]
}

interface Served {
  readonly world: World
  readonly socket: string
  readonly client: string
  /** As whoever the sidecar runs. */
  say(...frames: readonly string[]): Promise<Said>
}

interface ServeRow {
  readonly title: string
  /** Further flags of the launcher. */
  readonly flags: readonly string[]
  readonly act: (served: Served) => Promise<string>
  readonly held: readonly string[]
}

/** `|` is NUL. */
const policy = (...records: readonly string[]): string => `P${records.map((record) => `${record}|`).join('')}`
const bare = ['v 1', 'fs open', 'net open', 'filter off'] as const
const command = (...words: readonly string[]): readonly string[] => words.map((word) => `arg ${word}`)
const confined = ({ world }: Served): readonly string[] => [
  ...['v 1', 'fs confined', 'net none', 'filter on', 'proc self'],
  ...['/usr', '/lib', '/lib64', '/bin', '/etc/ssl', '/etc/ld.so.cache'].map((path) => `fs.rx? ${path}`),
  ...[
    `fs.rx ${world.program}`,
    'fs.dev /dev/null',
    'fs.dev /dev/urandom',
    `fs.r? ${join(world.base, 'serve')}`,
  ],
]

/** Tells what came of it, from the point of view of somebody who should get nothing. */
const outcomeOf = ({ how, frames }: Said): string =>
  frames.some(([type]) => type === 'O' || type === 'X') && how !== 'closed' ? 'ok' : how

const shared = '--shared-pid-namespace'

export const serveRows: readonly ServeRow[] = [
  {
    title: 'the sidecar is served',
    flags: [shared],
    act: async ({ say }) =>
      (await say(policy(...bare, ...command('/bin/echo', 'fine')))).frames.find(
        ([type]) => type === 'O',
      )?.[1] ?? 'nothing',
    held: ['fine\n'],
  },
  {
    title: 'a process of the same namespace has a server started',
    flags: [],
    act: async ({ say }) => outcomeOf(await say(policy(...bare, ...command('/bin/echo', 'fine')))),
    held: ['closed', 'ECONNRESET', 'EPIPE'],
  },
  {
    title: 'an unconfined server has another one started',
    flags: [shared],
    act: async ({ say, world, socket, client }) => {
      const inner = policy(...bare, ...command('/bin/echo', 'fine')).replaceAll('|', '~')
      const { frames } = await say(policy(...bare, ...command(process.execPath, client, socket, '~', inner)))
      return fromInside(frames, world)
    },
    held: ['closed', 'ECONNRESET', 'EPIPE'],
  },
  {
    title: 'a confined server connects to the socket of the launcher',
    flags: [shared],
    act: async (served) => {
      const { world, socket, say } = served
      const { frames } = await say(
        policy(...confined(served), ...command(world.attempts, '83', 'unix-connect', socket, '1')),
      )
      return /"errno":"(\w+)"/.exec(frames.map(([, text]) => text).join(''))?.[1] ?? JSON.stringify(frames)
    },
    held: ['EACCES'],
  },
  {
    title: 'a second policy',
    flags: [shared],
    act: async ({ say }) =>
      outcomeOf(
        await say(
          policy(...bare, ...command('/bin/sleep', '20')),
          policy(...bare, ...command('/bin/echo', 'fine')),
        ),
      ),
    held: ['closed', 'ECONNRESET', 'EPIPE'],
  },
  {
    title: 'a frame larger than there may be',
    flags: [shared],
    act: async ({ say }) => outcomeOf(await say('P=65537')),
    held: ['closed', 'ECONNRESET', 'EPIPE'],
  },
  {
    title: 'a frame larger than a number with a sign',
    flags: [shared],
    act: async ({ say }) => outcomeOf(await say('P=4294967295')),
    held: ['closed', 'ECONNRESET', 'EPIPE'],
  },
  {
    title: 'stdin before a policy',
    flags: [shared],
    act: async ({ say }) => outcomeOf(await say('Ihello', policy(...bare, ...command('/bin/echo', 'fine')))),
    held: ['closed', 'ECONNRESET', 'EPIPE'],
  },
  {
    title: 'less than the launcher requires',
    flags: [shared, '--require', 'landlock,seccomp'],
    act: async ({ say }) => outcomeOf(await say(policy(...bare, ...command('/bin/echo', 'fine')))),
    held: ['closed', 'ECONNRESET', 'EPIPE'],
  },
  {
    title: 'a policy that nobody can read',
    flags: [shared],
    act: async ({ say }) =>
      outcomeOf(await say(policy('v 1', 'nonsense 1', ...command('/bin/echo', 'fine')))),
    held: ['closed', 'ECONNRESET', 'EPIPE'],
  },
]

/** What a client that ran as the server printed. */
function fromInside(frames: Said['frames'], world: World): string {
  const text = frames.flatMap(([type, part]) => (type === 'O' ? [part] : [])).join('')
  if (!text.startsWith('{')) return `${world.uid}: ${JSON.stringify(frames)}`
  return outcomeOf(JSON.parse(text) as Said)
}

export async function served(world: World, found: (finding: Finding) => void): Promise<void> {
  const folder = join(world.base, 'serve')
  mkdirSync(folder, { mode: 0o755 })
  if (process.getuid?.() !== world.uid) chownSync(folder, world.uid, world.uid)
  const [env, ...plain] = plainly
  const client = join(folder, 'client.mjs')
  copyFileSync(join(fixtures, 'serve-client.mjs'), client)
  chmodSync(client, 0o755)
  for (const [index, { title, flags, act, held }] of serveRows.entries()) {
    const begun = performance.now()
    const socket = join(folder, `${index}.sock`)
    const child = await start(world, socket, flags)
    const say = (...frames: readonly string[]): Promise<Said> =>
      new Promise((resolve, reject) => {
        const options = { ...world.identity, env: { PATH: '/usr/bin:/bin' }, timeout: 30_000 }
        execFile(
          env,
          [...plain, process.execPath, client, socket, '|', ...frames],
          options,
          (error, stdout) => {
            if (error === null) resolve(JSON.parse(stdout) as Said)
            else reject(error)
          },
        )
      })
    const outcome = await act({ world, socket, client, say }).catch(
      (error: unknown) => `failed: ${String(error)}`,
    )
    const lives = child.exitCode === null && child.signalCode === null
    child.kill('SIGTERM')
    const verdict = held.includes(outcome) && lives ? 'held' : 'escaped'
    found({
      row: 83,
      title: `serve: ${title}`,
      verdict,
      outcome: lives ? outcome : 'the launcher ended',
      ms: performance.now() - begun,
    })
  }
}

async function start(world: World, socket: string, flags: readonly string[]): Promise<ChildProcess> {
  const [env, ...plain] = plainly
  const child = spawn(env, [...plain, launcher, 'serve', '--socket', socket, ...flags], {
    ...world.identity,
    env: { PATH: '/usr/bin:/bin' },
    stdio: ['ignore', 'ignore', 'ignore'],
    detached: true,
  })
  endWithUs(child)
  await until(() => existsSync(socket), 'the launcher listens')
  return child
}
