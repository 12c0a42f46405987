/** Rows 65 to 70, 79, and the sibling of row 80: as much as a server can take, and what others notice of it. */
import { join } from 'node:path'
import { type Attempt, native, type Options, type Place, steps } from './attempt.ts'
import { alive, until } from './sidecar.ts'

const bomb: Options = { profiles: ['bomb'] }
const own: Options = { ...bomb, never: 'the machine is not ours to fill' }

export const limitRows: readonly Attempt[] = [
  // The supervisor ends a tree that has too many where the kernel does not count them.
  steps(65, 'forks without end', (place) => alone(place, ['fork-bomb', 400]), ['EAGAIN', 'gone'], {
    ...bomb,
    free: ['ok'],
  }),
  native(66, 'opens files without end', () => ['exhaust-descriptors', 4000], 'EMFILE', bomb),
  steps(
    67,
    'takes memory without end',
    (place) => alone(place, ['take-memory', 1200]),
    ['ENOMEM', 'SIGKILL', 'gone'],
    { ...bomb, free: ['ok'] },
  ),
  steps(
    67,
    'takes memory in many processes',
    (place) => alone(place, ['take-memory-tree', 5, 240]),
    ['gone', 'SIGKILL', 'ENOMEM'],
    { ...bomb, free: ['ok'] },
  ),
  steps(67, 'takes memory in Node', memoryInNode, ['ended', 'Array buffer allocation failed', 'gone'], own),
  native(
    68,
    'writes a file without end',
    ({ world }) => ['fill-file', join(world.data, 'big'), 64],
    'EFBIG',
    bomb,
  ),
  native(79, 'hides memory in a file without a name', () => ['fill-memfd', 64], 'EFBIG', bomb),
  native(79, 'stretches a file without a name', () => ['stretch-memfd', 1024], 'EFBIG', bomb),
  steps(69, 'spins, and ignores SIGTERM', stubborn, 'ended', own),
  steps(
    70,
    'writes a line without end',
    (place) =>
      nuisance(
        place,
        `const part = 'x'.repeat(1 << 20); for (let i = 0; i < 128; i++) { if (!process.stdout.write(part)) await new Promise((go) => process.stdout.once('drain', go)) } return 1`,
      ),
    'the sidecar serves',
    own,
  ),
  steps(
    70,
    'floods stderr',
    (place) =>
      nuisance(
        place,
        `for (let i = 0; i < 20000; i++) process.stderr.write('noise '.repeat(40) + '\\n'); return 1`,
      ),
    'the sidecar serves',
    own,
  ),
  steps(70, 'never reads its stdin', deaf, 'the sidecar serves', own),
  ...(['kill', 'tgkill', 'pidfd-signal'] as const).map((kind) =>
    steps(80, `ends a sibling with ${kind}`, (place) => onSibling(place, (pid) => [kind, pid, 9]), 'EPERM', {
      never: 'there is none',
    }),
  ),
  steps(80, 'attaches to a sibling', (place) => onSibling(place, (pid) => ['ptrace-attach', pid]), 'EPERM', {
    never: 'there is none',
  }),
  ...['environ', 'mem', 'maps', 'fd/0', 'cwd/secrets/secret', 'root/etc/hostname'].map((file) =>
    steps(
      80,
      `opens ${file} of a sibling`,
      (place) => onSibling(place, (pid) => ['open-read', `/proc/${pid}/${file}`]),
      ['EACCES', 'EPERM', 'ENOENT'],
      { profiles: ['main', 'proc'], never: 'there is none' },
    ),
  ),
]

/** In a session of its own, which may not live through it. */
async function alone({ sidecar, session }: Place, args: readonly (string | number)[]): Promise<string> {
  const attacker = sidecar === undefined ? session : await sidecar.open()
  // Long enough for somebody to look.
  const heldMs = sidecar === undefined ? 0 : 10_000
  const { outcome } = await attacker.attempt(0, [...args, heldMs], { timeoutMs: 40_000 })
  if (sidecar !== undefined) await attacker.close()
  return outcome
}

async function memoryInNode({ sidecar }: Place): Promise<string> {
  if (sidecar === undefined) return 'ok'
  const session = await sidecar.open()
  const outcome = await session.outcome(
    // Held for much longer than the second between two looks of the watchdog.
    `const all = []; for (let i = 0; i < 30; i++) all.push(new Uint8Array(50e6).fill(1));
     await new Promise((go) => setTimeout(go, 10_000)); return all.length === 30 ? 'ok' : 'lost'`,
  )
  await session.close()
  return outcome
}

async function stubborn({ sidecar }: Place): Promise<string> {
  if (sidecar === undefined) return 'no sidecar'
  const session = await sidecar.open()
  const { value } = await session.eval(
    `process.on('SIGTERM', () => {}); process.on('SIGINT', () => {}); process.stdin.pause(); setInterval(() => {}, 1000)
     setTimeout(() => { for (;;); }, 50); return process.pid`,
  )
  await session.close()
  await until(() => !alive(Number(value)), 'the server ended', 30_000)
  return (await sidecar.serves()) ? 'ended' : 'the sidecar does not serve'
}

/** The server does what it likes; others are not to notice, and the sidecar keeps little of it. */
async function nuisance({ sidecar }: Place, code: string): Promise<string> {
  if (sidecar === undefined) return 'no sidecar'
  const session = await sidecar.open()
  const making = session.eval(code)
  const serves = await sidecar.serves()
  await Promise.race([making, new Promise((resolve) => setTimeout(resolve, 5000))])
  const resident = sidecar.residentBytes
  await session.close()
  await making
  if (resident > 600 * 2 ** 20) return `the sidecar takes ${resident} bytes`
  return serves && (await sidecar.serves()) ? 'the sidecar serves' : 'the sidecar does not serve'
}

async function deaf(place: Place): Promise<string> {
  const { sidecar } = place
  if (sidecar === undefined) return 'no sidecar'
  const session = await sidecar.open()
  await session.eval('setTimeout(() => process.stdin.pause(), 20); return 1')
  await new Promise((resolve) => setTimeout(resolve, 100))
  const calls = Array.from({ length: 30 }, () =>
    session.eval(`return ${JSON.stringify('x'.repeat(200_000))}.length`),
  )
  const serves = await sidecar.serves()
  await session.close()
  await Promise.all(calls)
  return serves && (await sidecar.serves()) ? 'the sidecar serves' : 'the sidecar does not serve'
}

async function onSibling(
  { sidecar, session }: Place,
  args: (pid: number) => readonly (string | number)[],
): Promise<string> {
  if (sidecar === undefined) return 'no sidecar'
  const sibling = await sidecar.open()
  try {
    const { value } = await sibling.eval('return process.pid')
    const { outcome } = await session.attempt(80, args(Number(value)))
    const { value: lives } = await sibling.eval('return process.pid')
    return lives === value ? outcome : 'ok'
  } finally {
    await sibling.close()
  }
}
