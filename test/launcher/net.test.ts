import { type AddressInfo, createServer, type Socket } from 'node:net'
import { constants } from 'node:os'
import t, { type Test } from 'tap'
import { compiled, confined, launched, mechanism, noLauncher, outcomes, uids } from '../support/launcher.ts'

if (noLauncher !== undefined) {
  t.plan(0, noLauncher)
  process.exit(0)
}

const { EACCES, EPERM } = constants.errno
const token = 'token-of-the-test'

interface Proxy {
  readonly port: number
  /** Heads of the CONNECT requests. */
  readonly heads: readonly string[]
}

/** Says yes to 198.51.100.1 and greets, no to all else. */
async function proxy(t: Test): Promise<Proxy> {
  const heads: string[] = []
  const server = createServer((socket: Socket) => {
    let text = ''
    socket.on('error', () => {})
    socket.on('data', (bytes) => {
      text += bytes.toString('latin1')
      const end = text.indexOf('\r\n\r\n')
      if (end < 0) return
      heads.push(text.slice(0, end))
      socket.end(
        text.startsWith('CONNECT 198.51.100.1:')
          ? 'HTTP/1.1 200 OK\r\n\r\nhello'
          : 'HTTP/1.1 403 Forbidden\r\n\r\n',
      )
      text = ''
    })
  })
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  t.teardown(() => server.close())
  return { port: (server.address() as AddressInfo).port, heads }
}

const python = (script: string): string[] => ['/usr/bin/env', 'python3', '-c', script]
const connects = `
import socket
def attempt(host, port):
    try:
        with socket.create_connection((host, port), 5) as s: print(s.makefile().read(), flush=True)
    except OSError as e: print(e.errno, flush=True)
`

for (const uid of uids) {
  const command = uid === 0 ? python : (script: string) => ['/usr/bin/python3', '-c', script]
  for (const abi of [undefined, 3])
    t.test(
      `a program reaches what the proxy allows and nothing else, as uid ${uid}${abi === undefined ? '' : `, Landlock ABI ${abi}`}`,
      async (t) => {
        const { port, heads } = await proxy(t)
        const records = [
          ...confined,
          'net broker',
          `proxy 127.0.0.1:${port}`,
          `token ${token}`,
          ...(abi === undefined ? [] : [`test.abi ${abi}`]),
        ]
        const { out, err, status } = await launched(
          t,
          records,
          command(
            `${connects}attempt('198.51.100.1', 80)\nattempt('198.51.100.2', 80)\nattempt('127.0.0.1', ${(process.pid % 1000) + 20})`,
          ),
          { uid },
        )
        t.equal(out, `hello\n${EACCES}\n${EACCES}\n`, err)
        t.match(heads[0], /^CONNECT 198\.51\.100\.1:80 HTTP\/1\.1\r\n/)
        t.match(heads[0], `Bearer ${token}`)
        t.match(mechanism(status[0], 'broker'), { requested: true, active: true, selfTest: 'pass', gaps: [] })
        t.match(
          mechanism(status[0], 'landlock.net'),
          abi === undefined
            ? { active: true, selfTest: 'pass' }
            : { active: false, gaps: ['net-second-lock'] },
        )
        t.notMatch(JSON.stringify(status), token)
      },
    )

  t.test(`calls around connect() are refused under an allow-list, as uid ${uid}`, async (t) => {
    const { port } = await proxy(t)
    const program = compiled(t, 'attempts')
    for (const abi of [7, 3]) {
      const records = [
        ...confined,
        'net broker',
        `proxy 127.0.0.1:${port}`,
        `token ${token}`,
        `fs.rx ${program}`,
        `test.abi ${abi}`,
      ]
      const names = [
        'udp',
        'udp6',
        'mptcp',
        'sctp',
        'unix',
        'raw',
        'listen',
        'bind',
        'fast-open-sendto',
        'fast-open-sendmsg',
        'fast-open-sendmmsg',
        'tcp',
        'tcp6',
        'netlink-route',
      ]
      const { out } = await launched(t, records, [program, ...names], { uid })
      t.same(outcomes(out), {
        ...Object.fromEntries(names.slice(0, 8).map((name) => [name, EACCES])),
        ...Object.fromEntries(names.slice(8, 11).map((name) => [name, EPERM])),
        ...{ tcp: 0, tcp6: 0, 'netlink-route': 0 },
      })
    }
  })

  t.test(
    `interfaces are listed under an allow-list, also where the broker binds, as uid ${uid}`,
    async (t) => {
      const { port } = await proxy(t)
      for (const abi of [7, 3]) {
        const records = [
          ...confined,
          'net broker',
          `proxy 127.0.0.1:${port}`,
          `token ${token}`,
          `test.abi ${abi}`,
        ]
        const { out, err } = await launched(
          t,
          records,
          command('import socket; print(socket.if_nameindex()[0][1])'),
          { uid },
        )
        t.equal(out, 'lo\n', err)
        const addresses = await launched(
          t,
          [...records, `fs.rx ${process.execPath}`],
          [
            '/usr/bin/env',
            '-u',
            'NODE_OPTIONS',
            process.execPath,
            '-e',
            'console.log(require("node:os").networkInterfaces().lo[0].address)',
          ],
          { uid },
        )
        t.match(addresses.out, /^127\.0\.0\.1\n$/, addresses.err)
      }
    },
  )

  t.test(`with ports alone only the proxy's port is open, and that is told, as uid ${uid}`, async (t) => {
    const { port } = await proxy(t)
    const { out, status } = await launched(
      t,
      [...confined, 'net port-only', `proxy 127.0.0.1:${port}`],
      command(
        `${connects}attempt('127.0.0.1', 9)\ns = socket.create_connection(('127.0.0.1', ${port}), 5); print('proxy')`,
      ),
      { uid },
    )
    t.equal(out, `${EACCES}\nproxy\n`)
    t.equal(status[0].verdict, 'weakened')
    t.match(mechanism(status[0], 'landlock.net'), { active: true, selfTest: 'pass', gaps: ['port-only'] })
  })
}

t.test('a proxy that is not there is a refusal, with what to look at', async (t) => {
  const { code, status, out } = await launched(
    t,
    [...confined, 'net broker', 'proxy 127.0.0.1:1', `token ${token}`],
    ['/bin/echo', 'ran'],
  )
  t.same([code, out], [126, ''])
  t.match(status, [
    {
      event: 'refused',
      mechanism: 'broker',
      reason: /^self-test: connect\(\) to the proxy: expected success, got Connection refused$/,
    },
  ])
})

t.test('a broker or a second lock that fails its own test is a refusal', async (t) => {
  const { port } = await proxy(t)
  for (const name of ['broker', 'landlock.net']) {
    const records = [
      ...confined,
      'net broker',
      `proxy 127.0.0.1:${port}`,
      `token ${token}`,
      `test.fail-self-test ${name}`,
    ]
    const { code, out, status } = await launched(t, records, ['/bin/echo', 'ran'])
    t.same([code, out], [126, ''])
    t.match(status, [{ event: 'refused', mechanism: name, reason: /^self-test: / }])
  }
})
