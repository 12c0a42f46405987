import t from 'tap'
import { policyRecords, type RecordOptions } from '../../src/sandbox/records.ts'
import { profile } from '../support/profiles.ts'

const plain: RecordOptions = {
  profile: undefined,
  hidden: [],
  proxy: undefined,
  broker: true,
  requireContainerSeccomp: false,
  graceMs: 3000,
}
const proxy = { address: '127.0.0.1:4000', token: { reveal: () => 'secret-of-the-child' } }

function records(options: Partial<RecordOptions>): string[] {
  const text = policyRecords({ ...plain, ...options }).toString()
  t.ok(text.endsWith('\0'), 'each record ends with a NUL')
  return text.slice(0, -1).split('\0')
}

t.test('without a profile nothing is confined', async (t) => {
  t.strictSame(records({}), ['v 1', 'grace 3000', 'fs open', 'net open', 'filter off'])
})

t.test('a profile without anything still lets programs start', async (t) => {
  const all = records({ profile: profile() })
  t.strictSame(all.slice(0, 7), [
    ...[
      'v 1',
      'grace 3000',
      'name p',
      `sha256 ${'0'.repeat(64)}`,
      'proc self',
      'fs confined',
      'fs.command 1',
    ],
  ])
  t.ok(
    all.includes('fs.rx? /usr') &&
      all.includes('fs.r? /etc/resolv.conf') &&
      all.includes('fs.dev? /dev/null'),
  )
  t.notOk(
    all.some((record) => record.startsWith('fs.rw')),
    'nothing may be written',
  )
  t.strictSame(
    all.filter((record) => /^(?:net|filter|limit|watch|proxy|token|require)/.test(record)),
    ['net none', 'filter on'],
  )
})

t.test('grants go in as they are written', async (t) => {
  const all = records({
    profile: profile({
      filesystem: {
        scope: 'granted',
        read: [
          { path: '/app', execute: true, optional: false },
          { path: '/srv/data file', execute: false, optional: true },
        ],
        write: [{ path: '/data', optional: false }],
        proc: 'all',
      },
    }),
  })
  for (const record of ['fs.rx /app', 'fs.r? /srv/data file', 'fs.rw /data', 'proc all'])
    t.ok(all.includes(record), record)
})

t.test('the program takes the place of the folder of the command', async (t) => {
  const all = records({ profile: profile(), program: ['/srv/app', '/home/me/tool'] })
  t.ok(all.includes('fs.program? /srv/app') && all.includes('fs.program? /home/me/tool'))
  t.notOk(all.includes('fs.command 1'))
  t.notOk(
    records({ profile: profile(), program: [] }).includes('fs.command 1'),
    'even where it is all given anyway',
  )
})

t.test('what every program needs is left out where it is hidden', async (t) => {
  const follow = (path: string): string => (path === '/etc/ssl' ? '/mnt/ssl' : path)
  const base = records({ profile: profile(), follow })
  t.ok(base.includes('fs.r? /mnt/ssl') && base.includes('fs.r? /etc/hosts'))
  const all = records({ profile: profile(), hidden: ['/mnt', '/etc/hosts'], follow })
  t.notOk(all.some((record) => record.endsWith('/mnt/ssl') || record === 'fs.r? /etc/hosts'))
  t.ok(all.includes('fs.r? /etc/resolv.conf'))
})

t.test('what is kept from being changed', async (t) => {
  const filesystem = { scope: 'all', read: [], write: [], proc: 'self' } as const
  for (const each of [profile(), profile({ filesystem })])
    t.ok(
      records({ profile: each, readonly: ['/opt/sidecar/dist'] }).includes('fs.readonly /opt/sidecar/dist'),
    )
})

t.test('all files but those of the sidecar', async (t) => {
  const filesystem = { scope: 'all', read: [], write: [], proc: 'self' } as const
  const all = records({ profile: profile({ filesystem }), hidden: ['/etc/mcp-sidecar'] })
  t.ok(all.includes('fs all') && all.includes('fs.hide /etc/mcp-sidecar'))
  t.notOk(all.some((record) => record.startsWith('fs.r')))
})

t.test(
  'an allow-list goes through the broker, or through a port where that is accepted and nothing else works',
  async (t) => {
    const network = { mode: 'allowlist', hosts: [], cidrs: [], ports: [], checkSni: false } as const
    const net = (options: Partial<RecordOptions>): string[] =>
      records(options).filter((record) => /^(?:net|proxy|token) /.test(record))
    const broker = ['net broker', 'proxy 127.0.0.1:4000', 'token secret-of-the-child']
    t.strictSame(net({ profile: profile({ network }), proxy }), broker)
    t.strictSame(
      net({ profile: profile({ network }), proxy, broker: false }),
      broker,
      'which is then refused',
    )
    const accepting = profile({ network, allowDegraded: ['net-port-only'] })
    t.strictSame(net({ profile: accepting, proxy }), broker, 'where it works')
    t.match(net({ profile: accepting, proxy, broker: false }), ['net port-only'])
    t.throws(() => records({ profile: profile({ network }) }), /needs the proxy/)
    t.strictSame(net({ profile: profile({ network: { ...network, mode: 'open' } }) }), ['net open'])
  },
)

t.test('limits', async (t) => {
  const limits = { memoryBytes: 1024, processes: 8, openFiles: 64, fileSizeBytes: 4096, cpuSeconds: 9 }
  t.strictSame(
    records({ profile: profile({ limits }) }).filter((record) => /^(?:limit|watch)/.test(record)),
    [
      ...['watch.rss 1024', 'limit.data 1073742848', 'watch.processes 8', 'limit.nproc 1032'],
      ...['limit.nofile 64', 'limit.fsize 4096', 'limit.cpu 9'],
    ],
  )
})

t.test('a filter of the container is asked for unless it is accepted to go without', async (t) => {
  const required = 'require-container-seccomp 1'
  t.ok(records({ profile: profile(), requireContainerSeccomp: true }).includes(required))
  const accepting = profile({ allowDegraded: ['container-seccomp-off'] })
  t.notOk(records({ profile: accepting, requireContainerSeccomp: true }).includes(required))
})

t.test('no value becomes a record of its own', async (t) => {
  const hidden = ['/a\0net open']
  const filesystem = { scope: 'all', read: [], write: [], proc: 'self' } as const
  t.throws(() => records({ profile: profile({ filesystem }), hidden }), /NUL/)
})
