/** Rows 31 to 38, 40, 78, 81: what the kernel offers beside files, processes and the network. */
import { type Args, type Attempt, native, type Options, type Place } from './attempt.ts'

const namespaces: Readonly<Record<string, number>> = {
  user: 0x10000000,
  mount: 0x20000,
  pid: 0x20000000,
  net: 0x40000000,
  ipc: 0x8000000,
  uts: 0x4000000,
  cgroup: 0x2000000,
}

/** Under each profile, the open one too. */
const all: Options = { profiles: ['main', 'none', 'full'] }

const of = (
  row: number,
  title: string,
  args: Args | ((place: Place) => Args),
  held: string | readonly string[] = 'EPERM',
  options: Options = {},
): Attempt => native(row, title, typeof args === 'function' ? args : () => args, held, { ...all, ...options })

/** What they answer to these arguments where they are not forbidden, for root. */
const administration: Readonly<Record<string, readonly string[]>> = {
  'init-module': ['EFAULT', 'EINVAL', 'ENOEXEC', 'ENOSYS'],
  'finit-module': ['EBADF', 'ENOSYS'],
  'delete-module': ['ENOENT', 'ENOSYS'],
  'kexec-load': ['EINVAL', 'ENOSYS'],
  'kexec-file-load': ['EINVAL', 'EBADF', 'ENOSYS'],
  swapon: ['ENOENT', 'ENOSYS'],
  swapoff: ['ENOENT', 'ENOSYS'],
  reboot: ['EINVAL'],
  settimeofday: ['EINVAL'],
  'clock-settime': ['EINVAL'],
  'clock-adjtime': ['EINVAL'],
  quotactl: ['EINVAL', 'ENODEV', 'ENOSYS', 'EFAULT', 'ENOTBLK'],
  syslog: ['ok'],
  acct: ['ENOENT', 'ENOSYS'],
  sethostname: ['EINVAL'],
  setdomainname: ['EINVAL'],
  vhangup: ['ok'],
}

const surface = [
  ...[
    'io-uring-setup',
    'io-uring-enter',
    'io-uring-register',
    'bpf',
    'perf-event-open',
    'userfaultfd',
    'keyctl',
  ],
  ...['add-key', 'request-key', 'fanotify-init', 'lookup-dcookie'],
]

const sysV: readonly (readonly [string, keyof Place['victim'] | undefined])[] = [
  ['shmget', undefined],
  ['shmat', 'memory'],
  ['shmctl', 'memory'],
  ['shmctl-info', undefined],
  ['msgget', undefined],
  ['msgsnd', 'queue'],
  ['msgctl', 'queue'],
  ['msgrcv', 'queue'],
  ['semget', undefined],
  ['semop', 'semaphore'],
  ['semtimedop', 'semaphore'],
  ['semctl', 'semaphore'],
]

const x86 = process.arch === 'x64'

export const kernelRows: readonly Attempt[] = [
  ...Object.entries(namespaces).flatMap(([name, flag]) => [
    of(31, `unshares its ${name} namespace`, ['unshare', flag], 'EPERM', { root: name !== 'user' }),
    of(31, `clones into a ${name} namespace`, ['clone', flag], 'EPERM', { root: name !== 'user' }),
    of(31, `clones into a ${name} namespace with clone3`, ['clone3', flag], 'ENOSYS', {
      root: name !== 'user',
    }),
  ]),
  of(31, 'clones with every flag', ['clone', 0x7e020000], 'EPERM', { root: true }),
  of(31, 'enters a network namespace', ['setns', '/proc/self/ns/net', 0x40000000], 'EPERM', { root: true }),
  of(31, 'enters a user namespace', ['setns', '/proc/self/ns/user', 0x10000000], 'EPERM', {
    free: ['EINVAL'],
  }),
  of(32, 'mounts', ({ world }) => ['mount', world.data], 'EPERM', { root: true }),
  of(32, 'mounts a secret elsewhere', ({ world }) => ['mount-bind', world.secrets, world.data], 'EPERM', {
    root: true,
  }),
  of(32, 'unmounts', ['umount', '/nonexistent'], 'EPERM', { free: ['ENOENT', 'EPERM'] }),
  of(32, 'pivots the root', ({ world }) => ['pivot-root', world.data], 'EPERM', {
    free: ['EINVAL', 'EPERM', 'EBUSY'],
  }),
  of(32, 'changes the root', ({ world }) => ['chroot', world.data], 'EPERM', { root: true }),
  of(32, 'clones a mount tree', ({ world }) => ['open-tree', world.data], 'EPERM', { root: true }),
  of(32, 'opens a file system', ['fsopen'], 'EPERM', { root: true }),
  of(32, 'configures a file system', ['fsconfig'], 'EPERM', { free: ['EBADF', 'EINVAL'] }),
  of(32, 'mounts a file system', ['fsmount'], 'EPERM', { free: ['EBADF', 'EPERM'] }),
  of(32, 'picks a file system', ({ world }) => ['fspick', world.data], 'EPERM', {
    free: ['EINVAL', 'EPERM', 'ok'],
  }),
  of(32, 'moves a mount', ({ world }) => ['move-mount', world.data], 'EPERM', {
    free: ['EINVAL', 'EPERM', 'ENOENT'],
  }),
  of(32, 'changes a mount', ({ world }) => ['mount-setattr', world.data], 'EPERM', {
    free: ['EINVAL', 'EPERM', 'ok'],
  }),
  ...surface.map((name) =>
    of(name.startsWith('io-uring') ? 33 : 34, name, [name], 'EPERM', {
      varies: 'it depends on the kernel and its settings',
    }),
  ),
  ...Object.entries(administration).map(([name, free]) =>
    of(35, name, [name], 'EPERM', { free, root: true }),
  ),
  ...(x86
    ? [
        of(34, 'iopl', ['iopl'], 'EPERM', { varies: 'it depends on the kernel' }),
        of(34, 'ioperm', ['ioperm'], 'EPERM', { varies: 'it depends on the kernel' }),
        of(34, 'modify-ldt', ['modify-ldt'], 'EPERM', { varies: 'it depends on the kernel' }),
        of(34, 'uselib', ['uselib'], 'EPERM', { varies: 'it depends on the kernel' }),
        of(34, 'ustat', ['ustat'], 'EPERM', { varies: 'it depends on the kernel' }),
        of(34, 'sysfs', ['sysfs'], 'EPERM', { varies: 'it depends on the kernel' }),
        // A kernel without the 32-bit interface has no such interrupt.
        of(36, 'calls the kernel as a 32-bit program', ['int80'], ['SIGSYS', 'SIGSEGV'], {
          free: ['ok', 'SIGSEGV'],
        }),
        of(36, 'calls the kernel by the x32 interface', ['x32'], 'ENOSYS', { free: ['ok', 'ENOSYS'] }),
      ]
    : []),
  of(37, 'installs a listener of its own', ['seccomp', 8], ['EPERM']),
  of(37, 'installs a listener that can be killed', ['seccomp', 8 | 32], ['EPERM'], {
    free: ['ok', 'EINVAL'],
  }),
  of(37, 'installs a filter with a flag nobody knows', ['seccomp', 64], 'EPERM', { free: ['EINVAL'] }),
  of(37, 'installs a filter with many flags nobody knows', ['seccomp', 0xf0000000], 'EPERM', {
    free: ['EINVAL'],
  }),
  ...sysV.flatMap(([name, object]) => [
    of(38, name, ({ victim }) => [name, object === undefined ? 0 : Number(victim[object])], 'EPERM'),
    ...(object === undefined
      ? []
      : [
          of(
            81,
            `${name} on an identifier that it guessed`,
            ({ victim }) => [name, Number(victim[object])],
            'EPERM',
            { free: ['ok', 'ENOMSG'] },
          ),
        ]),
  ]),
  of(38, 'opens a message queue of another', ({ victim }) => ['mq-open', victim.posixQueue], 'EPERM', {
    varies: 'the kernel may have none',
  }),
  of(38, 'makes a message queue', ({ world }) => ['mq-create', `escape-new-${world.uid}`], 'EPERM', {
    varies: 'the kernel may have none',
  }),
  of(38, 'removes a message queue of another', ['mq-unlink', 'escape-nobody-has-this'], 'EPERM', {
    varies: 'the kernel may have none',
  }),
  of(40, 'types into its stdin', ['tiocsti', 0], 'EPERM', { free: ['ENOTTY'] }),
  of(40, 'types into a terminal of its own', ['tiocsti-own'], 'EPERM', {
    varies: 'the kernel may have it switched off',
  }),
  of(40, 'pastes into the console', ['tioclinux', 0], 'EPERM', { free: ['ENOTTY'] }),
  ...[600, 1000, 0x3fffffff].map((number) =>
    // Nothing to win: it is the answer of a kernel that has none, and of a filter that does not know it.
    of(78, `makes system call ${number}`, ['syscall', number], 'ENOSYS', { free: ['ENOSYS'] }),
  ),
]
