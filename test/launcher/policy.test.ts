import t from 'tap'
import { bare, confined, launched, noLauncher } from '../support/launcher.ts'

if (noLauncher !== undefined) {
  t.plan(0, noLauncher)
  process.exit(0)
}

const bad: Readonly<Record<string, readonly [records: readonly string[], problem: string]>> = {
  'an unknown key': [[...bare, 'fs.rwx /tmp'], 'unknown key: fs.rwx'],
  'a record of the test build': [[...bare, 'test.abi 3'], 'unknown key: test.abi'],
  'no version': [bare.slice(1), 'the first record is not `v 1`'],
  'another version': [['v 2', ...bare.slice(1)], 'the first record is not `v 1`'],
  'a second version': [[...bare, 'v 1'], 'v: a second one'],
  'a relative path': [[...confined, 'fs.r etc'], 'fs.r: not an absolute, normalised path: etc'],
  'a path with ..': [
    [...confined, 'fs.rw /tmp/../etc'],
    'fs.rw: not an absolute, normalised path: /tmp/../etc',
  ],
  'a relative path to keep': [
    [...confined, 'fs.readonly dist'],
    'fs.readonly: not an absolute, normalised path: dist',
  ],
  'a relative path of the program': [
    [...confined, 'fs.program? dist'],
    'fs.program?: not an absolute, normalised path: dist',
  ],
  'a path with a slash at its end': [
    [...confined, 'fs.rw /tmp/'],
    'fs.rw: not an absolute, normalised path: /tmp/',
  ],
  'a path with //': [[...confined, 'fs.rw //tmp'], 'fs.rw: not an absolute, normalised path: //tmp'],
  'no fs': [['v 1', 'net open', 'filter off'], 'missing: fs'],
  'no net': [['v 1', 'fs open', 'filter off'], 'missing: net'],
  'no filter': [['v 1', 'fs open', 'net open'], 'missing: filter'],
  'no filter over granted paths': [
    ['v 1', 'fs confined', 'net open', 'filter off'],
    'filter off: only with fs open and net open',
  ],
  'a broker without a proxy': [
    ['v 1', 'fs open', 'net broker', 'filter on', 'token x'],
    'net broker: needs proxy and token',
  ],
  'a broker without a token': [
    ['v 1', 'fs open', 'net broker', 'filter on', 'proxy 127.0.0.1:1'],
    'net broker: needs proxy and token',
  ],
  'a proxy by name': [[...bare, 'proxy localhost:80'], 'proxy: not ADDRESS:PORT'],
  'a proxy without a port': [[...bare, 'proxy 127.0.0.1:0'], 'proxy: not ADDRESS:PORT'],
  'a token that is no header': [[...bare, 'token a b'], 'token: not 1 to 256 visible ASCII characters'],
  'a limit with a sign': [[...bare, 'limit.nofile -1'], 'limit.nofile: not a number in its range: -1'],
  'a limit above its range': [
    [...bare, 'limit.nproc 99999999999'],
    'limit.nproc: not a number in its range: 99999999999',
  ],
  'a limit that is not one': [[...bare, 'limit.stack 1'], 'unknown key: limit.stack'],
  'a word of a socket policy': [[...bare, 'env A=b'], 'env: only a policy that comes over a socket has it'],
  'a wrong word': [['v 1', 'fs some', 'net open', 'filter off'], 'fs: not confined, all or open: some'],
}

for (const [name, [records, problem]] of Object.entries(bad))
  t.test(`${name} is refused with 125 and the problem`, async (t) => {
    const { code, err, out, status } = await launched(t, records, ['/bin/echo', 'ran'], { seams: false })
    t.same([code, err, out, status], [125, `mcp-sidecar-launcher: policy: ${problem}\n`, '', []])
  })

t.test('bytes that are no records are refused without being repeated', async (t) => {
  const policies: readonly (readonly [bytes: string, problem: string])[] = [
    ['', 'empty policy'],
    ['v 1\0fs open\0net open\0filter off', 'the last record has no NUL at its end'],
    ['v 1\0fs open\0\0net open\0', 'record 3 is not `key value`'],
    ['v 1\0token\0secret\0', 'record 2 is not `key value`'],
    ['v 1\0secret\0', 'record 2 is not `key value`'],
    [`v 1\0name ${'x'.repeat(65536)}\0`, 'policy above 65536 bytes'],
  ]
  for (const [bytes, problem] of policies) {
    const { code, err, status } = await launched(t, [], ['/bin/echo'], { policy: Buffer.from(bytes) })
    t.same([code, err, status], [125, `mcp-sidecar-launcher: policy: ${problem}\n`, []])
  }
})

t.test('a policy of nearly 64 KiB is read whole', async (t) => {
  const { code, status } = await launched(t, [...bare, `name ${'x'.repeat(60_000)}`], ['/bin/true'])
  t.equal(code, 0)
  t.equal(status[0].event, 'report')
})

t.test('without its words or its descriptors it explains itself', async (t) => {
  const { spawnSync } = await import('node:child_process')
  const { launcher } = await import('../support/launcher.ts')
  for (const words of [[], ['exec'], ['exec', '/bin/true'], ['exec', '--'], ['other']]) {
    const { status, stderr } = spawnSync(launcher, words, { encoding: 'utf8' })
    t.equal(status, 125)
    t.match(stderr, /^mcp-sidecar-launcher: usage: [^\n]+\n$/)
  }
  const { status, stderr } = spawnSync(launcher, ['exec', '--', '/bin/true'], { encoding: 'utf8' })
  t.same(
    [status, stderr],
    [
      125,
      "mcp-sidecar-launcher: descriptor 3 is not open: 0 to 2 are the server's, 3 is the policy, 4 the status\n",
    ],
  )
  t.match(
    spawnSync(launcher, ['--version'], { encoding: 'utf8' }).stdout,
    /^mcp-sidecar-launcher \d+ (x86_64|arm64)\n$/,
  )
})
