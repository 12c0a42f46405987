/** Rows 1 to 12, 39, 73, 74: files. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { type Attempt, inside, native, type Place, steps } from './attempt.ts'
import { stray } from './world.ts'

const granted = ['main', 'none'] as const
const denied = ['EACCES', 'EPERM']

const secrets: readonly (readonly [string, (place: Place) => string])[] = [
  ['a secret of the same user', ({ world }) => world.secret],
  ['the key in the home directory', ({ world }) => world.key],
  ['the configuration of the sidecar', ({ world }) => world.config],
  ['/etc/passwd', () => '/etc/passwd'],
]

/** Paths that lead to the secret by a detour, from inside grants. */
const detours: readonly (readonly [number, string, (place: Place) => string])[] = [
  [3, 'a symlink in a read path', ({ world }) => join(world.shown, 'link')],
  [3, 'a symlinked folder in a write path', ({ world }) => join(world.data, 'folder-link', 'secret')],
  [6, '/proc/self/root', ({ world }) => `/proc/self/root${world.secret}`],
  [6, '/proc/self/cwd and up', ({ world }) => `/proc/self/cwd/../../../../../..${world.secret}`],
  [6, '/proc/thread-self/root', ({ world }) => `/proc/thread-self/root${world.secret}`],
  [8, 'dots behind a granted path', ({ world }) => `${world.data}/../secrets/secret`],
  [8, 'dots and slashes', ({ world }) => `${world.data}//.././/secrets/./secret`],
]

const rows = {
  read: secrets.flatMap(([what, path]) => [
    native(1, `reads ${what}`, (p) => ['open-read', path(p)], 'EACCES', { profiles: granted }),
    inside(
      1,
      `reads ${what} with Node`,
      (p) => `require('fs').readFileSync(${JSON.stringify(path(p))}); return 'ok'`,
      'EACCES',
      { profiles: granted },
    ),
  ]),
  detours: detours.flatMap(([row, what, path]) => [
    native(row, `reads through ${what}`, (p) => ['open-read', path(p)], 'EACCES'),
    inside(
      row,
      `reads through ${what} with Node`,
      (p) => `require('fs').readFileSync(${JSON.stringify(path(p))}); return 'ok'`,
      'EACCES',
    ),
  ]),
}

const writing: readonly (readonly [string, (place: Place) => readonly string[]])[] = [
  ['creates in /tmp', ({ world }) => ['create', stray(world.base, world.uid)]],
  ['creates beside its folders', ({ world }) => ['create', join(world.base, 'new')]],
  ['creates in a read path', ({ world }) => ['create', join(world.shown, 'new')]],
  ['makes a folder in a read path', ({ world }) => ['mkdir', join(world.shown, 'folder')]],
  ['makes a symlink in a read path', ({ world }) => ['symlink', '/', join(world.shown, 'new-link')]],
  ['opens for writing in a read path', ({ world }) => ['open-write', join(world.shown, 'file')]],
  ['appends in a read path', ({ world }) => ['append', join(world.shown, 'file')]],
  ['truncates in a read path', ({ world }) => ['truncate', join(world.shown, 'file')]],
  ['truncates with O_RDONLY | O_TRUNC', ({ world }) => ['open-truncate', join(world.shown, 'file')]],
  ['truncates a secret', ({ world }) => ['truncate', join(world.secrets, 'lookups')]],
  ['overwrites a program', ({ world }) => ['open-write', join(world.program, 'probes.mjs')]],
  ['removes from a read path', ({ world }) => ['unlink', join(world.shown, 'file')]],
]

const metadata: readonly (readonly [string, readonly string[]])[] = [
  ...['chmod', 'fchmodat', 'chown', 'utime', 'removexattr'].map((name) => [name, ['ok']] as const),
  ['setxattr', ['ok']],
  // Newer than some kernels.
  ['fchmodat2', ['ok', 'ENOSYS']],
  ['file-setattr', ['ok', 'ENOSYS', 'EOPNOTSUPP', 'EINVAL', 'E2BIG']],
  ['setflags', ['ok', 'ENOTTY', 'EOPNOTSUPP', 'EPERM']],
]

export const fileRows: readonly Attempt[] = [
  ...rows.read,
  native(1, 'opens /etc/shadow', () => ['open-only', '/etc/shadow'], 'EACCES', {
    profiles: granted,
    root: true,
  }),
  native(
    1,
    "reads the victim's file",
    ({ world }) => ['open-read', join(world.base, 'victim', 'held')],
    'EACCES',
  ),
  ...writing.map(([what, args]) =>
    native(2, what, args, ['EACCES', 'EROFS'], {
      // Each would be in the way of the next.
      ...(what.startsWith('removes') ? { never: 'the file is needed' } : {}),
    }),
  ),
  native(
    2,
    'makes a device in a write path',
    ({ world }) => ['mknod-device', join(world.data, 'null')],
    denied,
    {
      root: true,
    },
  ),
  native(
    2,
    'makes a socket in a write path',
    ({ world }) => ['mknod-socket', join(world.data, 'socket')],
    denied,
  ),
  ...rows.detours,
  native(
    3,
    'makes a symlink in a write path',
    ({ world }) => ['through-symlink', world.secret, join(world.data, 'link')],
    'EACCES',
  ),
  native(
    4,
    'links a secret into a write path',
    ({ world }) => ['link', world.secret, join(world.data, 'linked')],
    ['EXDEV', 'EACCES'],
  ),
  native(
    4,
    'links a shown file into a write path',
    ({ world }) => ['link', join(world.shown, 'file'), join(world.data, 'linked-file')],
    ['EXDEV', 'EACCES'],
  ),
  native(
    5,
    'renames out of a read path',
    ({ world }) => ['rename', join(world.shown, 'file'), join(world.data, 'renamed')],
    ['EACCES', 'EXDEV'],
    { never: 'the file is needed' },
  ),
  native(
    5,
    'renames a secret into a write path',
    ({ world }) => ['rename', world.secret, join(world.data, 'renamed')],
    ['EACCES', 'EXDEV'],
    { never: 'the file is needed' },
  ),
  native(
    5,
    'renames into a read path',
    ({ world }) => ['rename', join(world.data, 'file'), join(world.shown, 'renamed')],
    ['EACCES', 'EXDEV'],
    { never: 'the file is needed' },
  ),
  native(
    5,
    'exchanges two files',
    ({ world }) => ['exchange', join(world.data, 'file'), world.secret],
    ['EACCES', 'EXDEV', 'EINVAL'],
    { never: 'the files are needed' },
  ),
  native(
    6,
    'changes into the folder and reads',
    ({ world }) => ['chdir-open', world.secrets, 'secret'],
    'EACCES',
  ),
  native(7, 'reopens a path descriptor', ({ world }) => ['path-descriptor', world.secret], [
    'EACCES',
    'ENOENT',
  ]),
  inside(
    7,
    'reopens a path descriptor in the first process, which has /proc/self',
    ({ world }) =>
      `const fs = require('fs'); const fd = fs.openSync(${JSON.stringify(world.secret)}, 0o10000000);
       try { fs.readFileSync('/proc/self/fd/' + fd) } finally { fs.closeSync(fd) }; return 'ok'`,
    'EACCES',
  ),
  native(8, 'climbs with openat', ({ world }) => ['openat', world.data, '../secrets/secret'], 'EACCES'),
  native(
    8,
    'climbs with openat to the root',
    ({ world }) => ['openat', world.data, `../../../../../..${world.secret}`],
    'EACCES',
  ),
  ...[0, 1, 2, 4, 0x20].map((flags) =>
    native(
      8,
      `climbs with openat2, flags ${flags}`,
      ({ world }) => ['openat2', world.data, '../secrets/secret', flags],
      ['EACCES', 'EXDEV', 'ENOSYS', 'EAGAIN'],
      {
        free: flags === 0x20 ? ['EAGAIN', 'ok'] : ['ok'],
      },
    ),
  ),
  native(9, 'names a handle', ({ world }) => ['name-to-handle', world.secret], 'EPERM', {
    profiles: ['main', 'none', 'full'],
    free: ['ok', 'EOPNOTSUPP'],
  }),
  native(9, 'opens by handle', ({ world }) => ['open-by-handle', world.secret], 'EPERM', {
    profiles: ['main', 'none', 'full'],
    varies: 'it takes a capability, and a file system that has handles',
  }),
  native(
    10,
    'executes a program from a write path',
    ({ world }) => ['exec-copy', join(world.data, 'dropped')],
    'EACCES',
  ),
  native(
    10,
    'executes a program from a read path without execute',
    ({ world }) => ['exec', join(world.shown, 'program'), '10', 'nothing'],
    'EACCES',
  ),
  native(11, 'reads from a program in memory', ({ world }) => ['exec-memory', world.secret], 'EACCES'),
  steps(12, 'reads through the dynamic linker and a program from a write path', throughLinker, 'EACCES'),
  steps(12, 'reads through a script from a write path', throughScript, 'EACCES'),
  native(39, 'reads the shared memory of another', ({ victim }) => ['open-read', victim.shared], 'EACCES', {
    profiles: ['main', 'none', 'proc'],
  }),
  native(39, 'writes the shared memory of another', ({ victim }) => ['open-write', victim.shared], 'EACCES', {
    profiles: ['main', 'none', 'proc'],
  }),
  native(
    39,
    'creates in /dev/shm',
    ({ world }) => ['create', `/dev/shm/escape-new-${world.uid}-${process.pid}`],
    'EACCES',
    { never: 'it would stay' },
  ),
  ...metadata.flatMap(([name, free]) => [
    native(
      73,
      `${name} under a profile without a write path`,
      ({ world }) => [name, join(world.shown, 'file')],
      ['EPERM', ...(name.includes('flags') ? ['EACCES', 'ENOTTY'] : [])],
      {
        profiles: ['none'],
        free,
      },
    ),
    native(
      73,
      `${name} on the server's own program under a profile without a write path`,
      ({ world }) => [name, join(world.program, 'attacker.py')],
      ['EPERM', ...(name.includes('flags') ? ['ENOTTY'] : [])],
      {
        profiles: ['none'],
        free,
      },
    ),
    native(
      73,
      `${name} outside a write path`,
      ({ world }) => [name, world.secret],
      ['EPERM', 'EACCES', 'ENOSYS', 'ENOTTY', 'EOPNOTSUPP'],
      { gap: 'metadata', free },
    ),
  ]),
  native(74, 'learns that a secret exists', ({ world }) => ['stat', world.secret], [], { gap: 'metadata' }),
  native(74, 'lists the secrets', ({ world }) => ['list', world.secrets], 'EACCES', {
    profiles: ['main', 'none'],
  }),
  native(74, 'lists the root', () => ['list', '/'], 'EACCES', { profiles: ['main', 'none'] }),
]

/** The linker is readable and executable; what it maps is not checked, so that what runs is still confined. */
async function throughLinker({ world, session }: Place): Promise<string> {
  const linker = ['/lib64/ld-linux-x86-64.so.2', '/lib/ld-linux-aarch64.so.1'].find((path) =>
    existsSync(path),
  )
  if (linker === undefined) return 'EACCES'
  const copy = join(world.data, 'cat')
  await session.eval(`require('fs').copyFileSync('/bin/cat', ${JSON.stringify(copy)}); return 1`)
  const ran = await session.run(linker, [copy, world.secret])
  return readBy(ran)
}

async function throughScript({ world, session }: Place): Promise<string> {
  const script = join(world.data, 'script')
  const text = JSON.stringify(`#!/bin/sh\ncat ${world.secret}\n`)
  await session.eval(
    `require('fs').writeFileSync(${JSON.stringify(script)}, ${text}, { mode: 0o755 }); return 1`,
  )
  return readBy(await session.run('/bin/sh', [script]))
}

function readBy({
  exit,
  signal,
  stdout = '',
  stderr = '',
}: Awaited<ReturnType<Place['session']['run']>>): string {
  if (stdout.includes('canary')) return 'ok'
  return /ermission denied/.test(stderr) ? 'EACCES' : `${signal ?? `exit ${exit}`}: ${stderr}`
}
