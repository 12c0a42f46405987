/** Rows 13 to 19, 71, 72, 75: what a server is born with, and what it can make of itself. */
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { type Attempt, inside, native, type Options, type Place, steps } from './attempt.ts'
import { outcomeOf } from './session.ts'
import { alive, type EscapeSidecar, until } from './sidecar.ts'

const nothingToDo = 'the sidecar alone has it'
const everywhere: Options = { profiles: ['main', 'none', 'proc', 'full'] }

export const ownRows: readonly Attempt[] = [
  native(13, 'a grandchild reads', ({ world }) => ['grandchild', 'open-read', world.secret], 'EACCES'),
  native(
    13,
    'a process of another session reads',
    ({ world }) => ['session', 'open-read', world.secret],
    'EACCES',
  ),
  inside(
    13,
    'a child of a shell in the background reads',
    ({ world }) =>
      `return require('child_process').execSync('(setsid cat ${world.secret} 2>&1; true) & wait').toString().includes('canary') ? 'ok' : 'EACCES'`,
    'EACCES',
  ),
  steps(
    13,
    'a daemon outlives its session',
    ({ world, session, sidecar }) => daemon(world.data, session, sidecar),
    'ended',
    {
      free: ['stayed'],
    },
  ),
  native(14, 'a thread reads', ({ world }) => ['thread', 'open-read', world.secret], 'EACCES'),
  inside(
    14,
    'a worker thread of Node reads',
    ({ world }) =>
      `const { Worker } = require('worker_threads')
       const code = "try { require('fs').readFileSync(" + ${JSON.stringify(JSON.stringify(world.secret))} + "); p('ok') } catch (e) { p(e.code) }; function p(x) { require('worker_threads').parentPort.postMessage(x) }"
       return new Promise((resolve) => new Worker(code, { eval: true }).once('message', resolve))`,
    'EACCES',
  ),
  ...(['main', 'none', 'full', 'off'] as const).map((profile) =>
    native(15, `has a privilege under ${profile}`, () => ['privilege'], 'EPERM', {
      profiles: [profile],
      root: true,
    }),
  ),
  steps(
    15,
    'gains one by a setuid program',
    ({ world, session }) => byProgram(session, world.setuid, '15'),
    'EPERM',
    {
      profiles: ['main', 'none', 'full', 'off'],
      varies: 'the file system may ignore the bit',
    },
  ),
  native(15, 'becomes root', () => ['setuid', 0], 'EPERM', {
    profiles: ['main', 'full'],
    root: true,
    gap: 'uid-0',
  }),
  native(15, 'takes a capability', () => ['regain-capability'], 'EPERM', { ...everywhere, root: true }),
  steps(
    16,
    'gains one by a file capability',
    ({ world, session }) => byProgram(session, world.capable, '16'),
    'EPERM',
    {
      profiles: ['main', 'none', 'full', 'off'],
      varies: 'the file system may have no attributes',
    },
  ),
  inside(
    18,
    'finds a descriptor of the parent',
    ({ world }) =>
      `const fs = require('fs')
       const open = fs.readdirSync('/proc/self/fd').map((fd) => { try { return fs.readlinkSync('/proc/self/fd/' + fd) } catch { return '' } })
       return open.some((path) => path.includes(${JSON.stringify(world.base)})) ? 'ok' : 'EBADF'`,
    'EBADF',
    { profiles: ['main', 'none', 'full', 'off'] },
  ),
  steps(19, 'leaves a descriptor with the sidecar over stdout', sendDescriptor, 'ignored', {
    never: nothingToDo,
  }),
  native(71, 'outlives its parent', () => ['clear-pdeathsig'], 'EPERM', everywhere),
  inside(
    72,
    'finds secrets of the sidecar in its environment',
    () =>
      `return Object.values(process.env).some((value) => value.includes('canary')) || 'LD_LIBRARY_PATH' in process.env ? 'ok' : 'none'`,
    'none',
    { profiles: ['main', 'none', 'full', 'off'] },
  ),
  native(75, 'dumps core', ({ world }) => ['dump-core', world.data], 'EPERM', {
    varies: 'limits and core_pattern of the machine',
    profiles: ['main', 'full', 'off'],
  }),
]

async function byProgram(session: Place['session'], program: string, row: string): Promise<string> {
  return outcomeOf(await session.run(program, [row, 'privilege'])).outcome
}

async function daemon(
  data: string,
  attacker: Place['session'],
  sidecar: EscapeSidecar | undefined,
): Promise<string> {
  const session = (await sidecar?.open()) ?? attacker
  const file = join(data, `daemon-${process.pid}-${Math.random()}`)
  await session.attempt(13, ['daemonise', file])
  const pids = await until(
    () => existsSync(file) && readFileSync(file, 'utf8').trim().split('\n').map(Number),
    'it started',
  )
  const [pid = 0] = pids
  if (!alive(pid)) return 'ended'
  if (sidecar === undefined) {
    process.kill(pid, 'SIGKILL')
    return 'stayed'
  }
  await session.close()
  try {
    await until(() => !alive(pid), 'the daemon ended', 30_000)
    return 'ended'
  } catch {
    process.kill(pid, 'SIGKILL')
    return 'stayed'
  }
}

async function sendDescriptor({ session, sidecar, world }: Place): Promise<string> {
  const file = join(world.shown, 'file')
  const sent = outcomeOf(await session.run(world.attempts, [19, 'send-descriptor', 3, file], { shared: [1] }))
  if (sent.outcome !== 'ok') return sent.outcome
  if (sidecar === undefined) return 'ok'
  await session.eval('return 1')
  const fds = readdirSync(`/proc/${sidecar.pid}/fd`).map((fd) => {
    try {
      return readlinkSync(`/proc/${sidecar.pid}/fd/${fd}`)
    } catch {
      return ''
    }
  })
  return fds.includes(file) ? 'ok' : 'ignored'
}
