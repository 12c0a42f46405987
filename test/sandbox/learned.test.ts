import fc from 'fast-check'
import t from 'tap'
import { readProfile } from '../../src/config/permissions/read.ts'
import type { EgressVerdict } from '../../src/core/sandbox.ts'
import { type LearnedProfile, learnedProfile, type Surroundings } from '../../src/sandbox/learned.ts'
import { learnedText } from '../../src/sandbox/learned-text.ts'
import { type FileAccess, fileAccesses, Observed } from '../../src/sandbox/observed.ts'
import { checkPaths, type FileFact, type FileFacts } from '../../src/sandbox/profile.ts'
import { readStatus } from '../../src/sandbox/status.ts'
import { holds } from '../support/property.ts'

type Use = readonly [path: string, ...accesses: FileAccess[]]

const program: Use = ['/opt/server/bin/server', 'execute']

/** A disk of these files, with the folders around them; paths that end with a slash are folders. */
function disk(paths: readonly string[], links: Readonly<Record<string, string>> = {}): FileFacts {
  const kinds = new Map<string, FileFact>([['/', { kind: 'folder', real: '/' }]])
  const base = ['/usr/', '/usr/lib/', '/etc/ssl/', '/etc/hosts', '/tmp/', '/root/', '/home/me/', '/var/lib/']
  for (const path of [...base, ...paths]) {
    const parts = path.split('/').filter((part) => part !== '')
    parts.forEach((_, index) => {
      const real = `/${parts.slice(0, index + 1).join('/')}`
      if (index < parts.length - 1 || path.endsWith('/')) kinds.set(real, { kind: 'folder', real })
      else if (!kinds.has(real)) kinds.set(real, { kind: 'file', real })
    })
  }
  for (const [path, real] of Object.entries(links)) kinds.set(path, { kind: 'folder', real })
  return { at: (path) => kinds.get(path) ?? { kind: 'missing' }, links: () => [] }
}

function seenOf(uses: readonly Use[], verdicts: readonly Partial<EgressVerdict>[] = []): Observed {
  const observed = new Observed()
  const take = observed.start()
  for (const [path, ...accesses] of [program, ...uses])
    for (const access of accesses) take({ event: 'file', access, path })
  for (const verdict of verdicts)
    observed.connected({
      ...{ child: 'learn', allowed: true, protocol: 'broker', host: 'db.example', port: 5432 },
      ...{ rule: 'open', address: '192.0.43.7' },
      ...verdict,
    })
  return observed
}

function around(more: Partial<Surroundings> = {}): Surroundings {
  return {
    files: disk([]),
    protectedPaths: [],
    home: '/home/me',
    homes: ['/home/me'],
    ownAddresses: new Set(),
    ...more,
  }
}

/** What is learned from files that are all there. */
function learnedFrom(uses: readonly Use[], more: Partial<Surroundings> = {}): LearnedProfile {
  const files = disk(uses.map(([path, ...accesses]) => (accesses.includes('list') ? `${path}/` : path)))
  return learnedProfile(seenOf(uses), around({ files, ...more }))
}

t.test(
  'lines of the launcher about a watched server are read, and nothing that only resembles them',
  async (t) => {
    const lines: readonly (readonly [object, object])[] = [
      [
        { event: 'file', access: 'read', path: '/a' },
        { event: 'file', access: 'read', path: '/a' },
      ],
      [
        { event: 'tried', what: 'bind', port: 80 },
        { event: 'tried', what: 'bind', port: 80 },
      ],
      [
        { event: 'tried', what: 'udp' },
        { event: 'tried', what: 'udp', port: undefined },
      ],
      [
        { event: 'size', rss: 1, processes: 2 },
        { event: 'size', rssBytes: 1, processes: 2 },
      ],
      [{ event: 'lost' }, { event: 'lost' }],
    ]
    for (const [line, read] of lines) t.strictSame(readStatus(JSON.stringify(line)), read)
    const wrong = [
      { event: 'file', access: 'look', path: '/a' },
      { event: 'file', access: 'read' },
      { event: 'tried', what: 'x' },
      { event: 'size', rss: '1', processes: 2 },
    ]
    for (const line of wrong) t.throws(() => readStatus(JSON.stringify(line)), Error, JSON.stringify(line))
  },
)

const paths = (entries: readonly { readonly path: string }[]): string[] => entries.map(({ path }) => path)

t.test('what every program gets is not granted again', async (t) => {
  const { filesystem, review } = learnedFrom([
    ['/usr/lib/libc.so', 'read'],
    ['/usr/bin/git', 'execute', 'read'],
    ['/etc/ssl/openssl.cnf', 'read'],
    ['/etc/hosts', 'read'],
    ['/opt/server/bin/helper', 'execute', 'read'],
    ['/opt/server/bin/plugins', 'list'],
    ['/dev/null', 'read'],
    ['/sys/fs/cgroup/memory.max', 'read'],
    ['/proc/meminfo', 'read'],
  ])
  t.match(filesystem, { read: [], write: [], proc: 'self' })
  t.strictSame(review, [])
})

t.test('a link that leads into what every program gets is nothing more', async (t) => {
  const files = disk(['/run/resolver/stub.conf'], { '/etc/resolv.conf': '/run/resolver/stub.conf' })
  const { filesystem } = learnedProfile(seenOf([['/run/resolver/stub.conf', 'read']]), around({ files }))
  t.strictSame(filesystem.read, [])
})

t.test('single files stay single, many of one folder become the folder', async (t) => {
  const several = (count: number): Use[] =>
    Array.from({ length: count }, (_, index): Use => [`/srv/data/${index}.json`, 'read'])
  t.strictSame(paths(learnedFrom(several(2)).filesystem.read), ['/srv/data/0.json', '/srv/data/1.json'])
  t.match(learnedFrom(several(9)).filesystem.read, [
    { path: '/srv/data', execute: false, why: '9 files read, first /srv/data/0.json' },
  ])
})

t.test('a folder that was listed is granted as a whole, with what was read in it', async (t) => {
  const { filesystem } = learnedFrom([
    ['/srv/data', 'list'],
    ['/srv/data/deep/a', 'read'],
    ['/srv/other/b', 'read'],
  ])
  t.match(filesystem.read, [
    { path: '/srv/data', execute: false },
    { path: '/srv/other/b', execute: false },
  ])
})

t.test('files of packages are their folder of packages, files of a checkout the checkout', async (t) => {
  const { filesystem } = learnedFrom([
    ['/srv/app/node_modules/a/index.js', 'read'],
    ['/srv/app/node_modules/b/node_modules/c/index.js', 'read'],
    ['/srv/venv/lib/python3.11/site-packages/x/y.py', 'read'],
    ...['a', 'b', 'c', 'd'].map((name): Use => [`/srv/repo/src/${name}/x.ts`, 'read']),
    ['/srv/repo/.git/HEAD', 'read'],
  ])
  t.strictSame(paths(filesystem.read), [
    '/srv/app/node_modules',
    '/srv/repo',
    '/srv/venv/lib/python3.11/site-packages',
  ])
})

t.test('what was made, renamed or removed opens its folder, and reading there needs no more', async (t) => {
  for (const access of ['create', 'remove'] as const) {
    const { filesystem } = learnedFrom([
      ['/srv/data/new.txt', access],
      ['/srv/data', 'list'],
      ['/srv/data/old.txt', 'read', 'write'],
    ])
    t.strictSame(paths(filesystem.write), ['/srv/data'], access)
    t.strictSame(filesystem.read, [], access)
  }
})

t.test('a file that was only written opens itself', async (t) => {
  const { filesystem } = learnedFrom([['/srv/data/state.db', 'write', 'read']])
  t.strictSame(paths(filesystem.write), ['/srv/data/state.db'])
  t.strictSame(filesystem.read, [])
})

t.test('what was executed may be executed, and nothing beside it', async (t) => {
  const { filesystem } = learnedFrom([
    ['/srv/tools/run', 'execute', 'read'],
    ['/srv/tools/data', 'read'],
    ['/srv/work/made', 'create', 'execute'],
  ])
  t.match(filesystem.read, [
    { path: '/srv/tools/data', execute: false },
    { path: '/srv/tools/run', execute: true },
    { path: '/srv/work/made', execute: true },
  ])
  t.strictSame(paths(filesystem.write), ['/srv/work'])
})

t.test('folders of everybody are not granted as a whole', async (t) => {
  const files = ['/etc', '/home', '/home/me', '/root', '/var/lib', '/opt'].flatMap((folder): Use[] => [
    [folder, 'list'],
    ...Array.from({ length: 20 }, (_, index): Use => [`${folder}/file${index}`, 'read']),
  ])
  const { filesystem, review } = learnedFrom([...files, ['/', 'list'], ['/home/me/.history', 'create']])
  t.equal(filesystem.read.length, 120)
  t.ok(filesystem.read.every(({ path }) => /\/file\d+$/.test(path)))
  t.match(filesystem.write, [{ path: '/home/me/.history', optional: true }])
  for (const folder of ['/', '/etc', '/home', '/home/me', '/root', '/var/lib', '/opt'])
    t.ok(review.includes(`it listed ${folder}, which is not granted as a whole`), folder)
})

t.test('temporary files open the folder for them, and that is said', async (t) => {
  const { filesystem, env, review } = learnedFrom([['/tmp/x-8f3k2', 'create', 'remove', 'read']])
  t.strictSame(paths(filesystem.write), ['/tmp'])
  t.match(env, [{ name: 'TMPDIR', value: '/tmp' }])
  t.match(review, [/everywhere in \/tmp/])
})

t.test('what is gone is left out', async (t) => {
  const seen = seenOf([
    ['/srv/data/gone', 'read', 'write'],
    ['/srv/gone/made', 'create'],
    ['/srv/gone/run', 'execute'],
  ])
  const { filesystem } = learnedProfile(seen, around())
  t.match(filesystem, { read: [], write: [] })
})

t.test('what belongs to the sidecar is never granted, nor what is around it', async (t) => {
  const uses: Use[] = [
    ['/srv/data/key.pem', 'read'],
    ['/srv/data', 'list'],
    ['/srv/data/a', 'create', 'read'],
    ['/srv/secrets/token', 'read'],
    ...Array.from({ length: 20 }, (_, index): Use => [`/srv/data/${index}`, 'read']),
  ]
  const { filesystem, review } = learnedFrom(uses, { protectedPaths: ['/srv/data/key.pem', '/srv/secrets'] })
  const granted = [...paths(filesystem.read), ...paths(filesystem.write)]
  t.notOk(granted.includes('/srv/data') || granted.includes('/srv'))
  t.notOk(granted.some((path) => path === '/srv/data/key.pem' || path.startsWith('/srv/secrets')))
  t.ok(review.some((each) => each.startsWith('it used /srv/secrets/token, which belongs to the sidecar')))
})

t.test('processes of others need all of proc, the own ones of its children are mentioned', async (t) => {
  t.match(learnedFrom([['/proc/PID/stat', 'read']]), { filesystem: { proc: 'all' }, review: [/proc: all/] })
  t.match(learnedFrom([['/proc/self/status', 'read']]), {
    filesystem: { proc: 'self' },
    review: [/only its first process can/],
  })
})

t.test(
  'hosts are named, with the ports, and with the networks they lead into where names do not',
  async (t) => {
    const seen = seenOf(
      [],
      [
        {},
        {},
        { host: 'api.example', port: 443, address: '10.1.2.3' },
        { host: 'mine.example', port: 443, address: '192.0.43.9' },
        { host: '192.0.43.8', port: 80, address: '192.0.43.8' },
        { host: '2001:4860::8', port: 80, address: '2001:4860::8', protocol: 'connect' },
        { host: 'down.example', reason: 'it could not be dialled: ECONNREFUSED' },
        { host: '127.0.0.1', port: 8080, allowed: false, rule: 'own-port', address: undefined },
        { host: 'asked.example', port: 53, protocol: 'dns', address: undefined },
        { host: 'db.example', port: 53, protocol: 'dns', address: undefined },
      ],
    )
    const { hosts, cidrs, ports, review } = learnedProfile(
      seen,
      around({ ownAddresses: new Set(['192.0.43.9']) }),
    )
    t.strictSame(
      hosts.map(({ value, why }) => [value, why]),
      [
        ['api.example', '1 connection to port 443'],
        ['db.example', '2 connections to port 5432'],
        ['mine.example', '1 connection to port 443'],
      ],
    )
    t.strictSame(
      cidrs.map(({ value }) => value),
      ['10.1.2.3/32', '192.0.43.8/32', '192.0.43.9/32', '2001:4860::8/128'],
    )
    t.strictSame(
      ports.map(({ value }) => value),
      [80, 443, 5432],
    )
    const said = review.join('\n')
    t.match(said, 'it did not reach down.example:5432 (it could not be dialled: ECONNREFUSED)')
    t.match(said, 'it did not reach 127.0.0.1:8080 (it belongs to the sidecar)')
    t.match(said, 'it looked up asked.example')
    t.notMatch(said, 'it looked up db.example')
  },
)

t.test('three names below one domain suggest a wildcard, two do not', async (t) => {
  const verdicts = ['a', 'b', 'c'].map((label) => ({ host: `${label}.api.example` }))
  const said = (count: number): string =>
    learnedProfile(seenOf([], verdicts.slice(0, count)), around()).review.join('\n')
  t.match(said(3), '"*.api.example" would cover them')
  t.notMatch(said(2), '*.')
})

t.test('what no profile allows is told', async (t) => {
  const observed = new Observed()
  const take = observed.start()
  for (const what of ['unix', 'udp', 'listen', 'socket'] as const)
    take({ event: 'tried', what, port: undefined })
  take({ event: 'tried', what: 'bind', port: 8080 })
  take({ event: 'lost' })
  const { review } = learnedProfile(observed, around())
  t.equal(review.length, 6)
  t.match(review.join('\n'), 'listen on a port, which no profile allows (8080)')
  t.match(review.join('\n'), 'something is missing here')
})

t.test('the largest size is in the comments, rounded up', async (t) => {
  const observed = new Observed()
  const take = observed.start()
  take({ event: 'size', rssBytes: 100 * 2 ** 20, processes: 3 })
  take({ event: 'size', rssBytes: 10, processes: 40 })
  const text = learnedText(learnedProfile(observed, around()), [])
  t.match(text, '# seen at once at most: 100Mi of memory; processes: 40.')
  t.match(text, '#   memory: 256Mi\n  #   processes: 640\n')
})

const part = fc.oneof(
  fc.constantFrom(
    'srv',
    'etc',
    'home',
    'me',
    'root',
    'tmp',
    'data',
    'node_modules',
    '.git',
    'var',
    'lib',
    'usr',
  ),
  fc.stringMatching(/^[ -~]{1,8}$/).filter((text) => !text.includes('/') && text !== '.' && text !== '..'),
  fc.constantFrom('ü', '\u2028', ': #', '"', '\n- x', '{a', "'", '*', '&x', '!y', '\u0085'),
)
const anyPath = fc.array(part, { minLength: 1, maxLength: 5 }).map((parts) => `/${parts.join('/')}`)
const anyUse = fc.tuple(anyPath, fc.uniqueArray(fc.constantFrom(...fileAccesses), { minLength: 1 }))
const below = (path: string, folder: string): boolean => path === folder || path.startsWith(`${folder}/`)

t.test(
  'whatever is seen: the file reads back as what was learned, and is no more than allowed',
  async (t) => {
    const neverWhole = ['/', '/etc', '/home', '/root', '/home/me', '/usr', '/var']
    holds(
      t,
      fc.property(fc.array(anyUse, { maxLength: 30 }), fc.array(anyPath, { maxLength: 3 }), (uses, own) => {
        const all = uses.map(([path, accesses]): Use => [path, ...accesses])
        const files = disk(all.map(([path, ...accesses]) => (accesses.includes('list') ? `${path}/` : path)))
        const surroundings = around({ files, protectedPaths: own })
        const learned = learnedProfile(seenOf(all), surroundings)
        const { profile } = readProfile(learnedText(learned, ['a\nserver']), 'learned.yaml', 'learned')
        const { read, write } = learned.filesystem
        const plain = (entries: readonly { path: string; optional: boolean; execute?: boolean }[]) =>
          entries.map(({ path, optional }) => [path, optional])
        if (JSON.stringify(plain(profile.filesystem.read)) !== JSON.stringify(plain(read))) return false
        if (JSON.stringify(plain(profile.filesystem.write)) !== JSON.stringify(plain(write))) return false
        if (checkPaths(profile, files, own).length > 0) return false
        const granted = [...read, ...write].map(({ path }) => path)
        if (granted.some((path) => neverWhole.includes(path))) return false
        // Nothing is granted but what was used, or is around what was used.
        return granted.every((path) => all.some(([used]) => below(used, path)))
      }),
      500,
    )
  },
)

t.test('whatever is seen and may be granted is covered', async (t) => {
  const inside = fc.array(part, { minLength: 1, maxLength: 3 }).map((parts) => `/srv/work/${parts.join('/')}`)
  holds(
    t,
    fc.property(
      fc.array(fc.tuple(inside, fc.constantFrom('read', 'write', 'create', 'execute')), { maxLength: 30 }),
      (uses) => {
        const all = uses.map(([path, access]): Use => [path, access as FileAccess])
        const files = disk(all.map(([path]) => path))
        const { filesystem } = learnedProfile(seenOf(all), around({ files }))
        const { read, write } = filesystem
        return all.every(([path, access]) => {
          if (files.at(path).kind !== 'file') return true
          if (access === 'execute') return read.some((each) => each.execute && below(path, each.path))
          const writable = write.some((each) => below(path, each.path))
          return access === 'read' ? writable || read.some((each) => below(path, each.path)) : writable
        })
      },
    ),
    500,
  )
})
