import { execFileSync } from 'node:child_process'
import { linkSync, mkdirSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { fileFacts } from '../../src/sandbox/file-facts.ts'
import { isLinkedElsewhere, ownCode } from '../../src/sandbox/own-code.ts'
import { checkPaths, exposedBy, followed, hiddenPaths, readonlyPaths } from '../../src/sandbox/profile.ts'
import { profile } from '../support/profiles.ts'

interface Grants {
  /** Below the folder of the test. */
  readonly read?: readonly string[]
  readonly write?: readonly string[]
  readonly optional?: boolean
  readonly own?: readonly string[]
  /** What is kept from being changed. */
  readonly kept?: readonly string[]
}

/** What is wrong, with the folder of the test written as DIR. */
function problems(
  t: Test,
  { read = [], write = [], optional = false, own = [], kept = [] }: Grants,
): string[] {
  const at = (path: string): string => (path.startsWith('/') ? path : join(t.testdirName, path))
  const filesystem = {
    scope: 'granted',
    read: read.map((path) => ({ path: at(path), optional, execute: true })),
    write: write.map((path) => ({ path: at(path), optional })),
    proc: 'self',
  } as const
  const found = checkPaths(profile({ filesystem }), fileFacts(), own.map(at), kept.map(at))
  return found.map(({ path, message }) => `${path.join('.')}: ${message.replaceAll(t.testdirName, 'DIR')}`)
}

function link(t: Test, target: string, path: string): void {
  symlinkSync(
    target.startsWith('.') || target.startsWith('/') ? target : join(t.testdirName, target),
    join(t.testdirName, path),
  )
}

t.test('what exists is granted: folders, files, and other profiles with none', async (t) => {
  t.testdir({ app: {}, data: { deep: {} }, 'a.conf': '' })
  t.same(problems(t, { read: ['app', 'a.conf'], write: ['data', 'data/deep'] }), [])
  t.same(problems(t, {}), [])
})

t.test('what does not exist is wrong, unless it is optional', async (t) => {
  t.testdir({ 'a.conf': '', app: {} })
  link(t, 'nowhere', 'dangling')
  const missing = ['none', 'app/none', 'a.conf/none', 'dangling']
  t.same(
    problems(t, { read: ['app', ...missing] }),
    missing.map(
      (path, index) =>
        `filesystem.read.${index + 1}: DIR/${path} does not exist: create it, or say optional: true for this path`,
    ),
  )
  t.same(problems(t, { read: ['app', ...missing], optional: true }), [])
})

t.test('what is neither a file nor a folder is refused, and so are loops', async (t) => {
  t.testdir({})
  execFileSync('mkfifo', [join(t.testdirName, 'pipe')])
  link(t, './loop', 'loop')
  t.same(problems(t, { read: ['/dev/null', 'pipe', 'loop'], optional: true }), [
    'filesystem.read.0: /dev/null is neither a file nor a folder',
    'filesystem.read.1: DIR/pipe is neither a file nor a folder',
    'filesystem.read.2: DIR/loop cannot be looked at: a part of it is closed to this user, or links go in circles',
  ])
})

t.test('nothing of the sidecar is granted: not above it, not it, not below it', async (t) => {
  t.testdir({ etc: { sidecar: { 'c.yaml': '', keys: { a: '' } }, other: {}, 'sidecar-not': {} } })
  const own = ['etc/sidecar/c.yaml', 'etc/sidecar/keys', 'etc/later']
  const belongs = 'which belongs to the sidecar: grant something beside it'
  t.same(
    problems(t, { read: ['etc', 'etc/sidecar', 'etc/sidecar/keys/a', 'etc/other', 'etc/sidecar-not'], own }),
    [
      `filesystem.read.0: DIR/etc opens DIR/etc/sidecar/c.yaml, ${belongs}`,
      `filesystem.read.1: DIR/etc/sidecar opens DIR/etc/sidecar/c.yaml, ${belongs}`,
      `filesystem.read.2: DIR/etc/sidecar/keys/a opens DIR/etc/sidecar/keys, ${belongs}`,
    ],
  )
  t.same(problems(t, { write: ['etc/sidecar/c.yaml'], own }), [
    `filesystem.write.0: DIR/etc/sidecar/c.yaml opens DIR/etc/sidecar/c.yaml, ${belongs}`,
  ])
  t.same(
    problems(t, { write: ['etc/later'], own, optional: true }),
    [`filesystem.write.0: DIR/etc/later opens DIR/etc/later, ${belongs}`],
    'nor where it is yet to come',
  )
})

t.test('links hide nothing: neither in the grant nor in what is protected', async (t) => {
  t.testdir({ run: { secrets: { token: '' } }, etc: {} })
  link(t, 'run', 'var-run')
  link(t, 'run/secrets', 'etc/link')
  const belongs = 'which belongs to the sidecar: grant something beside it'
  t.same(problems(t, { read: ['run', 'etc/link', 'var-run'], own: ['var-run/secrets'] }), [
    `filesystem.read.0: DIR/run opens DIR/var-run/secrets, ${belongs}`,
    `filesystem.read.1: DIR/etc/link opens DIR/var-run/secrets, ${belongs}`,
    `filesystem.read.2: DIR/var-run opens DIR/var-run/secrets, ${belongs}`,
  ])
  t.same(problems(t, { read: ['run'], own: ['var-run/not-yet/deep'] }), [
    `filesystem.read.0: DIR/run opens DIR/var-run/not-yet/deep, ${belongs}`,
  ])
})

t.test('a link is followed as long as it stays, else it is refused with its target', async (t) => {
  t.testdir({ usr: { bin: {} }, app: { v1: {}, v2: {} }, srv: { data: {} } })
  link(t, 'usr/bin', 'bin')
  link(t, './v2', 'app/current')
  link(t, 'srv', 'alias')
  t.same(
    problems(t, { read: ['bin'] }),
    [
      'filesystem.read.0: DIR/bin is a symbolic link to DIR/usr/bin: name that instead, or the folder around both',
    ],
    'into another folder',
  )
  t.same(problems(t, { read: ['bin', 'usr'] }), [], 'what it leads to is granted, too')
  t.same(problems(t, { read: ['app/current'] }), [], 'to something beside it')
  t.same(problems(t, { read: ['/bin'] }).length, realpathSync('/bin') === '/bin' ? 0 : 1, 'at the top, too')
  t.same(problems(t, { read: ['alias/data'] }), [], 'a link on the way is no link at the end')
  const target = checkPaths(
    profile({
      filesystem: {
        scope: 'granted',
        read: [{ path: join(t.testdirName, 'bin'), optional: false, execute: true }],
        write: [],
        proc: 'self',
      },
    }),
    fileFacts(),
    [],
  )
  t.same(
    target.map((each) => each.target),
    [join(t.testdirName, 'usr/bin')],
  )
})

t.test('a link that the server may have put there gets it nothing at its next start', async (t) => {
  t.testdir({ data: { cache: {}, deep: {} }, secret: { inner: {} } })
  const grants = { write: ['data', 'data/cache', 'data/deep/inner'], optional: true }
  t.same(problems(t, grants), [])
  rmSync(join(t.testdirName, 'data/cache'), { recursive: true })
  rmSync(join(t.testdirName, 'data/deep'), { recursive: true })
  link(t, 'secret', 'data/cache')
  link(t, 'secret', 'data/deep')
  const out = 'out of DIR/data, which the server may write'
  const found = problems(t, grants)
  t.same(found, [
    `filesystem.write.1: DIR/data/cache leads to DIR/secret, ${out}: name DIR/secret itself, if that is meant`,
    `filesystem.write.2: DIR/data/deep/inner leads to DIR/secret/inner, ${out}: name DIR/secret/inner itself, if that is meant`,
  ])
  t.equal(
    problems(t, { ...grants, read: ['data/cache', 'secret'] }).length,
    3,
    'not even where another grant has it',
  )
})

t.test('folders of the sidecar may be asked for alone', async (t) => {
  t.testdir({ bin: { server: '', 'c.yaml': '' } })
  const own = [join(t.testdirName, 'bin/c.yaml')]
  t.equal(exposedBy(join(t.testdirName, 'bin'), fileFacts(), own), own[0])
  t.equal(exposedBy('/', fileFacts(), own), own[0])
  t.equal(exposedBy(join(t.testdirName, 'lib'), fileFacts(), own), undefined)
})

t.test('to hide a file is to hide what its links lead to', async (t) => {
  t.testdir({ etc: { 'plain.yaml': '' }, real: { key: '' }, mounted: { '..2026_1': { token: 'x' } } })
  link(t, 'real/key', 'etc/key')
  link(t, './..2026_1', 'mounted/..data')
  link(t, './..data/token', 'mounted/token')
  t.match(problems(t, { read: ['mounted/token'] }), [/token is a symbolic link to .*the folder around both$/])
  const dir = t.testdirName
  const own = ['etc/plain.yaml', 'etc/key', 'mounted/token', 'etc/none'].map((path) => join(dir, path))
  t.same(
    hiddenPaths(fileFacts(), own).map((path) => path.replace(dir, 'DIR')),
    ['DIR/etc/plain.yaml', 'DIR/etc/key', 'DIR/real/key', 'DIR/mounted', 'DIR/etc/none'],
  )
  mkdirSync(join(dir, 'mounted/..2026_2'))
  writeFileSync(join(dir, 'mounted/..2026_2/token'), 'y')
  t.ok(hiddenPaths(fileFacts(), own).includes(join(dir, 'mounted')), 'whatever is mounted next')
})

t.test('a link to all files, processes or devices is none to grant', async (t) => {
  t.testdir({})
  for (const [name, target] of [
    ['a', '/'],
    ['p', '/proc'],
    ['s', '/proc/1'],
    ['d', '/dev'],
  ] as const) {
    link(t, target, name)
    t.same(problems(t, { read: [name] }), [
      `filesystem.read.0: DIR/${name} leads to ${target}, which is no path to grant`,
    ])
  }
})

t.test(
  'what is kept from being changed may be read, and not be written: not above it, not it, not below',
  async (t) => {
    t.testdir({ opt: { sidecar: { dist: { deep: {} }, data: {} } }, 'opt-not': {} })
    link(t, 'opt/sidecar/dist', 'alias')
    const kept = ['opt/sidecar/dist']
    t.same(problems(t, { read: ['opt', 'opt/sidecar/dist', 'opt/sidecar/dist/deep'], kept }), [])
    t.same(problems(t, { write: ['opt/sidecar/data', 'opt-not'], kept }), [])
    const changes = 'would let the server change DIR/opt/sidecar/dist, which the sidecar runs or goes by'
    const write = [
      'opt',
      'opt/sidecar',
      'opt/sidecar/dist',
      'opt/sidecar/dist/deep',
      'alias',
      'opt/sidecar/dist/later',
    ]
    t.same(
      problems(t, { write, kept, optional: true }),
      write.map(
        (path, index) => `filesystem.write.${index}: DIR/${path} ${changes}: grant a folder beside it`,
      ),
    )
  },
)

t.test(
  'the sidecar keeps its own program from being changed, and every link that leads to what is its own',
  async (t) => {
    t.testdir({ real: { conf: { 'c.yaml': '' } }, links: {}, etc: {} })
    link(t, 'real/conf', 'links/conf')
    link(t, 'links/conf', 'etc/conf')
    const [config] = [join(t.testdirName, 'etc/conf/c.yaml')]
    const kept = readonlyPaths(fileFacts(), [config], [])
    t.same(
      kept.map((path) => path.replace(t.testdirName, 'DIR')),
      ['DIR/etc/conf', 'DIR/links/conf'],
    )
    t.match(problems(t, { write: ['links'], kept }), [/would let the server change DIR\/links\/conf/])
    const root = fileURLToPath(new URL('../..', import.meta.url))
    const own = readonlyPaths(fileFacts(), [], ownCode(join(root, 'dist/launcher/mcp-sidecar-launcher')))
    for (const path of ['package.json', 'src', 'bin', 'node_modules', 'dist/launcher/mcp-sidecar-launcher'])
      t.ok(own.includes(realpathSync(join(root, path))), path)
    t.ok(own.includes(realpathSync(process.execPath)))
    for (const path of [
      root.slice(0, -1),
      dirname(root),
      join(root, 'src/sandbox'),
      dirname(process.execPath),
    ])
      t.match(problems(t, { write: [path], kept: own }), [/would let the server change/], path)
  },
)

t.test(
  'what is made of a file of the sidecar is its own, too: rotated logs, the whole of a mounted Secret',
  async (t) => {
    t.testdir({
      log: { 'audit.jsonl': '', 'audit.jsonl.1': '', audit: '' },
      mounted: { '..2026_1': { token: 'x', other: 'y' } },
    })
    link(t, './..2026_1', 'mounted/..data')
    link(t, './..data/token', 'mounted/token')
    const own = ['log/audit.jsonl', 'mounted/token']
    t.same(problems(t, { read: ['log/audit'], own }), [])
    const belongs = 'which belongs to the sidecar: grant something beside it'
    t.same(
      problems(t, {
        read: ['log/audit.jsonl.1', 'log/audit.jsonl.2', 'mounted/..2026_1/other'],
        optional: true,
        own,
      }),
      [
        `filesystem.read.0: DIR/log/audit.jsonl.1 opens DIR/log/audit.jsonl, ${belongs}`,
        `filesystem.read.1: DIR/log/audit.jsonl.2 opens DIR/log/audit.jsonl, ${belongs}`,
        `filesystem.read.2: DIR/mounted/..2026_1/other opens DIR/mounted/token, ${belongs}`,
      ],
    )
  },
)

t.test('links on the way to a path, as the kernel follows them', async (t) => {
  t.testdir({ a: { b: { file: '' } }, c: {} })
  link(t, './../a', 'c/up')
  link(t, './b/../b', 'a/loose')
  link(t, './loop', 'loop')
  const at = (path: string): string => join(t.testdirName, path)
  t.same(fileFacts().links(at('a/b/file')), [])
  t.same(fileFacts().links(at('c/up/loose/file')), [at('c/up'), at('a/loose')])
  t.same(fileFacts().links(at('none/at/all')), [])
  t.ok(fileFacts().links(at('loop')).length <= 40)
})

t.test('what does not exist yet is where the links on the way to it lead', async (t) => {
  t.testdir({ run: {} })
  link(t, 'run', 'var-run')
  const at = (path: string): string => join(t.testdirName, path)
  t.equal(followed(at('var-run/later/deep'), fileFacts()), at('run/later/deep'))
  t.equal(followed(at('var-run'), fileFacts()), at('run'))
  t.equal(followed(at('none/at/all'), fileFacts()), at('none/at/all'))
})

t.test('files of the program with names elsewhere are seen', async (t) => {
  t.testdir({ one: '', two: '' })
  const [one, two, three] = ['one', 'two', 'three'].map((name) => join(t.testdirName, name)) as [
    string,
    string,
    string,
  ]
  t.notOk(isLinkedElsewhere([one, two, three]))
  linkSync(two, three)
  t.ok(isLinkedElsewhere([one, two]))
  t.notOk(isLinkedElsewhere([one]))
})
