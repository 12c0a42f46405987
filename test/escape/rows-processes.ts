/** Rows 20 to 30, 52: processes of others. */
import { readFileSync } from 'node:fs'
import { type Args, type Attempt, inside, native, type Options, type Place, steps } from './attempt.ts'
import { alive, until } from './sidecar.ts'

type Target = 'sidecar' | 'supervisor' | 'victim'
const targets: readonly Target[] = ['sidecar', 'supervisor', 'victim']
/** Harmless to everybody who does not ask for it: ignored by default. */
const SIGURG = 23
const SIGUSR1 = 10
const SIGUSR2 = 12

const nothingToDo = 'the sidecar alone has it'
const bystander = 'that would end a bystander'

/** The same attempt on each; only the victim has what is seen of it. */
function each(
  row: number,
  title: string,
  args: (pid: number, place: Place) => Args,
  held: string | readonly string[],
  options: Options = {},
  on: readonly Target[] = targets,
): Attempt[] {
  return on.map((target) =>
    native(row, `${title} the ${target}`, (place) => args(place.pids[target], place), held, {
      ...options,
      seen: options.seen === true && target === 'victim',
    }),
  )
}

const everywhere: Options = { profiles: ['main', 'none', 'proc', 'full'] }
const kinds = ['kill', 'tkill', 'tgkill', 'sigqueue', 'tgsigqueue', 'pidfd-signal']
const procFiles = [
  'environ',
  'mem',
  'maps',
  'smaps',
  'auxv',
  'io',
  'stack',
  'syscall',
  'exe',
  'fd/0',
  'root/etc/hostname',
]

export const processRows: readonly Attempt[] = [
  ...each(20, 'attaches to', (pid) => ['ptrace-attach', pid], 'EPERM', everywhere),
  ...each(20, 'seizes', (pid) => ['ptrace-seize', pid], 'EPERM', everywhere),
  ...each(
    21,
    'reads the memory of',
    (pid, { victim }) => ['vm-read', pid, victim.address],
    'EPERM',
    everywhere,
    ['victim'],
  ),
  ...each(
    21,
    'writes the memory of',
    (pid, { victim }) => ['vm-write', pid, victim.address],
    'EPERM',
    everywhere,
    ['victim'],
  ),
  ...each(
    21,
    'reads at a guessed address in',
    (pid) => ['vm-read', pid, '0x400000'],
    'EPERM',
    { ...everywhere, free: ['EFAULT', 'ok'] },
    ['sidecar', 'supervisor'],
  ),
  ...procFiles.flatMap((file) =>
    each(
      22,
      `opens ${file} of`,
      (pid) => ['open-read', `/proc/${pid}/${file}`],
      ['EACCES', 'EPERM', 'ENOENT'],
      {
        profiles: ['main', 'none', 'proc'],
        varies: 'some are for root, and bystanders have not all of them',
      },
    ),
  ),
  ...each(
    22,
    'reads the environment of',
    (pid) => ['open-read', `/proc/${pid}/environ`],
    ['EACCES', 'EPERM'],
    { profiles: ['main', 'proc', 'full'] },
    ['sidecar', 'victim'],
  ),
  ...each(22, 'lists the descriptors of', (pid) => ['list', `/proc/${pid}/fd`], ['EACCES', 'EPERM'], {
    profiles: ['main', 'none'],
  }),
  ...each(
    22,
    'changes into the folder of',
    (pid) => ['open-directory', `/proc/${pid}/cwd`],
    ['EACCES', 'EPERM'],
    { profiles: ['main', 'none', 'proc'] },
  ),
  ...each(23, 'reads the arguments of', (pid) => ['open-read', `/proc/${pid}/cmdline`], 'EACCES', {
    profiles: ['main', 'none'],
  }),
  ...each(
    23,
    'reads, with all of /proc, the arguments of',
    (pid) => ['open-read', `/proc/${pid}/cmdline`],
    'EACCES',
    { profiles: ['proc'], gap: 'proc-all' },
  ),
  steps(23, 'finds a secret in the arguments of the sidecar', secretInArguments, 'none', {
    never: nothingToDo,
  }),
  ...each(
    24,
    'takes a descriptor of',
    (pid, { victim }) => ['pidfd-getfd', pid, victim.file],
    'EPERM',
    everywhere,
    ['victim'],
  ),
  ...each(24, 'takes stdin of', (pid) => ['pidfd-getfd', pid, 1], 'EPERM', everywhere, [
    'sidecar',
    'supervisor',
  ]),
  ...each(24, 'compares itself with', (pid) => ['kcmp', pid], 'EPERM', {
    ...everywhere,
    varies: 'the kernel may not have it',
  }),
  ...each(
    24,
    'advises on the memory of',
    (pid, { victim }) => ['process-madvise', pid, victim.address],
    'EPERM',
    { ...everywhere, varies: 'it depends on the kernel' },
  ),
  ...each(24, 'releases the memory of', (pid) => ['process-mrelease', pid], 'EPERM', {
    ...everywhere,
    free: ['EINVAL', 'ESRCH'],
  }),
  ...each(24, 'moves pages of', (pid, { victim }) => ['move-pages', pid, victim.address], 'EPERM', {
    ...everywhere,
    varies: 'the kernel may not have it',
  }),
  ...each(24, 'migrates the pages of', (pid) => ['migrate-pages', pid], 'EPERM', {
    ...everywhere,
    varies: 'the kernel may not have it',
  }),
  ...kinds.flatMap((kind) => [
    ...each(25, `asks with ${kind} for`, (pid) => [kind, pid, 0], 'EPERM', everywhere),
    ...each(
      25,
      `signals with ${kind}`,
      (pid) => [kind, pid, SIGUSR1],
      'EPERM',
      { ...everywhere, seen: true },
      ['victim'],
    ),
    ...each(25, `stops with ${kind}`, (pid) => [kind, pid, 19], 'EPERM', { never: bystander }, [
      'sidecar',
      'supervisor',
      'victim',
    ]),
    ...each(25, `terminates with ${kind}`, (pid) => [kind, pid, 15], 'EPERM', { never: bystander }, [
      'sidecar',
      'supervisor',
      'victim',
    ]),
    ...each(
      25,
      `kills with ${kind}`,
      (pid) => [kind, pid, 9],
      'EPERM',
      { never: bystander, profiles: ['main', 'none', 'full'] },
      ['sidecar', 'supervisor', 'victim'],
    ),
  ]),
  native(26, 'signals everybody', () => ['kill', -1, SIGURG], ['ok', 'EPERM', 'ESRCH'], {
    seen: true,
    profiles: ['main', 'none', 'full'],
    never: 'everybody is more than the suite started',
  }),
  native(26, 'signals the group of the victim', ({ pids }) => ['kill', -pids.victim, SIGUSR1], 'EPERM', {
    ...everywhere,
    seen: true,
  }),
  native(26, 'asks for the group of the sidecar', ({ pids }) => ['kill', -pids.sidecar, 0], 'EPERM', {
    profiles: ['main', 'none', 'full'],
  }),
  steps(26, 'kills its own group', killOwnGroup, 'the sidecar lives', {
    profiles: ['main', 'none', 'full', 'off'],
    never: nothingToDo,
  }),
  ...each(
    27,
    'has SIGUSR2 sent by F_SETOWN to',
    (pid) => ['setown', pid, SIGUSR2],
    ['ok', 'EPERM'],
    { ...everywhere, seen: true },
    ['victim'],
  ),
  ...each(
    27,
    'has SIGUSR2 sent by F_SETOWN_EX to',
    (pid) => ['setown-ex', pid, SIGUSR2],
    ['ok', 'EPERM'],
    { ...everywhere, seen: true },
    ['victim'],
  ),
  ...each(27, 'has SIGIO sent to', (pid) => ['setown', pid, 0], ['ok', 'EPERM'], { never: bystander }, [
    'sidecar',
    'supervisor',
  ]),
  ...each(28, 'limits', (pid) => ['prlimit-set', pid], 'EPERM', everywhere),
  ...each(28, 'reads the limits of', (pid) => ['prlimit-get', pid], 'EPERM', everywhere),
  ...each(29, 'slows', (pid) => ['setpriority', pid], 'EPERM', everywhere),
  ...each(
    29,
    'slows the group of',
    (pid) => ['setpriority-group', pid],
    ['EPERM', 'ESRCH'],
    { profiles: ['main', 'full'] },
    ['victim'],
  ),
  native(29, 'slows all of a user', () => ['setpriority-user'], 'EPERM', { free: ['ESRCH'] }),
  ...each(29, 'pins', (pid) => ['sched-setaffinity', pid], 'EPERM', everywhere),
  ...each(29, 'puts into the batch class', (pid) => ['sched-setscheduler', pid], 'EPERM', everywhere),
  ...each(29, 'sets the parameters of', (pid) => ['sched-setparam', pid], 'EPERM', everywhere),
  ...each(29, 'sets the attributes of', (pid) => ['sched-setattr', pid], 'EPERM', everywhere),
  ...each(29, 'sets the io class of', (pid) => ['ioprio-set', pid], 'EPERM', everywhere),
  ...each(
    30,
    'exposes to the out-of-memory killer',
    (pid) => ['open-write', `/proc/${pid}/oom_score_adj`],
    ['EACCES', 'EPERM'],
    { profiles: ['main', 'none', 'proc', 'full'], gap: 'fs-open' },
  ),
  inside(
    30,
    'hides itself from the out-of-memory killer',
    () => `require('fs').writeFileSync('/proc/self/oom_score_adj', '-999'); return 'ok'`,
    ['EACCES', 'EPERM'],
    { profiles: ['main', 'none', 'proc'], varies: 'less than before takes a capability' },
  ),
  ...['kernel/hostname', 'kernel/core_pattern', 'vm/drop_caches', 'fs/suid_dumpable'].map((name) =>
    native(30, `opens ${name}`, () => ['open-write', `/proc/sys/${name}`], ['EACCES', 'EROFS'], {
      profiles: ['main', 'none', 'proc'],
      root: true,
    }),
  ),
  native(30, 'opens sysrq-trigger', () => ['open-write', '/proc/sysrq-trigger'], ['EACCES', 'ENOENT'], {
    profiles: ['main', 'none', 'proc'],
    varies: 'the kernel may not have it',
  }),
]

async function secretInArguments({ sidecar, pids }: Place): Promise<string> {
  if (sidecar === undefined) return 'none'
  const shown = [sidecar.pid, pids.supervisor]
    .map((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8'))
    .join('\0')
  return /canary|Bearer|token=/i.test(shown) ? 'ok' : 'none'
}

async function killOwnGroup({ sidecar }: Place): Promise<string> {
  if (sidecar === undefined) return 'ok'
  const session = await sidecar.open()
  const { value: own } = await session.eval('return process.pid')
  // Where the kernel cannot tell whom it would reach, it is refused.
  const { outcome } = await session.attempt(26, ['kill', 0, 9])
  if (outcome !== 'EPERM') await until(() => !alive(Number(own)), 'the server is gone')
  await session.close()
  return (await sidecar.serves()) ? 'the sidecar lives' : 'ok'
}
