import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { createServer, get as httpGet } from 'node:http'
import { connect as connectTcp, Socket } from 'node:net'
import fc from 'fast-check'
import t from 'tap'
import { forwardClock } from '../support/forward-clock.ts'
import { ManualClock } from '../support/modern-calls.ts'
import {
  allow,
  basic,
  closedPort,
  connectHead,
  echo,
  startEgress,
  startTcp,
  statusOf,
  toLoopback,
  tunnelTo,
  Wire,
} from './support.ts'

const somaxconn = '/proc/sys/net/core/somaxconn'
const backlogTooShort =
  !existsSync(somaxconn) || Number(readFileSync(somaxconn, 'latin1')) < 1500
    ? 'this kernel lets fewer connections wait'
    : false

t.test('an allowed name is reached through a tunnel, at the address that was checked', async (t) => {
  const port = await startTcp(t, echo)
  const proxy = await startEgress(t)
  proxy.names.set('db.example.com', ['127.0.0.1'])
  const child = proxy.egress.admit(allow({ hosts: ['db.example.com'], cidrs: toLoopback }), {
    name: 'reader',
  })
  const { wire, status } = await tunnelTo(proxy, child, `DB.example.com.:${port}`)
  t.equal(status, 200)
  wire.write('hello')
  t.equal((await wire.take(5)).toString(), 'hello')
  t.same(proxy.verdicts, [
    {
      child: 'reader',
      process: 1,
      allowed: true,
      protocol: 'connect',
      host: 'db.example.com',
      port,
      rule: 'host:db.example.com',
      address: '127.0.0.1',
      outcome: 'connected',
    },
  ])
  wire.socket.end()
  t.equal(await wire.end(), 'end')
  await wire.when(() => proxy.ends.length > 0, 'the end is told').catch(() => {})
  t.match(proxy.ends, [{ child: 'reader', host: 'db.example.com', port, sent: 5, received: 5 }])
})

t.test('whatever no rule allows is refused, and nobody is asked or dialled for it', async (t) => {
  let dialled = 0
  const port = await startTcp(t, () => void dialled++)
  const proxy = await startEgress(t)
  proxy.names.set('evil-example.com', ['127.0.0.1'])
  const child = proxy.egress.admit(
    allow({ hosts: ['example.com', '*.api.example.com'], cidrs: toLoopback, ports: [port] }),
    { name: 'p' },
  )
  for (const target of [
    ...[
      `evil-example.com:${port}`,
      `example.com.evil.com:${port}`,
      `api.example.com:${port}`,
      'example.com:1',
    ],
    ...[
      `127.0.0.2:${port}`,
      `[::1]:${port}`,
      `0.0.0.0:${port}`,
      '169.254.169.254:80',
      '10.0.0.1:443',
      '8.8.8.8:53',
    ],
    ...[`2130706434:${port}`, `0177.2:${port}`, `0x7f.2:${port}`, '[::ffff:169.254.169.254]:80'],
    ...[`198.18.0.1:${port}`, `localhost:${port}`],
  ]) {
    t.equal(await statusOf(proxy, child, target), 403, target)
  }
  t.same(proxy.asked, [])
  t.equal(dialled, 0)
  t.ok(proxy.verdicts.every(({ allowed }) => !allowed))
})

t.test(
  'a name that resolves to a denied address is refused, and of several the allowed ones are dialled',
  async (t) => {
    const port = await startTcp(t, echo)
    const dialled: string[] = []
    const proxy = await startEgress(t, {
      dial: (address, at) => {
        dialled.push(address)
        return connectTcp({ host: address, port: at, allowHalfOpen: true })
      },
    })
    const child = proxy.egress.admit(allow({ hosts: ['*'], cidrs: ['127.0.0.1/32'] }), { name: 'p' })
    for (const address of [
      '10.0.0.1',
      '169.254.169.254',
      '192.168.1.1',
      '::1',
      'fd00:ec2::254',
      '127.0.0.2',
      '0.0.0.0',
    ]) {
      proxy.names.set('a.example.com', [address])
      t.equal(await statusOf(proxy, child, `a.example.com:${port}`), 403, address)
    }
    t.same(dialled, [])
    proxy.names.set('a.example.com', ['10.0.0.1', '::1', '::ffff:127.0.0.1', '192.168.0.1'])
    t.equal(await statusOf(proxy, child, `a.example.com:${port}`), 200)
    t.same(dialled, ['127.0.0.1'])
  },
)

t.test('a name that is rebound between check and dial does not lead anywhere else', async (t) => {
  let secret = 0
  const allowed = await startTcp(t, (socket) => void socket.end('allowed'))
  await startTcp(t, () => void secret++, '127.0.0.2', allowed)
  const proxy = await startEgress(t)
  let answers = 0
  proxy.names.set('rebind.example.com', () => [answers++ % 2 === 0 ? '127.0.0.1' : '127.0.0.2'])
  const child = proxy.egress.admit(allow({ hosts: ['rebind.example.com'], cidrs: toLoopback }), { name: 'p' })
  const statuses: number[] = []
  for (let i = 0; i < 20; i++) statuses.push(await statusOf(proxy, child, `rebind.example.com:${allowed}`))
  t.same(
    statuses,
    Array.from({ length: 20 }, (_, i) => (i % 2 === 0 ? 200 : 403)),
  )
  t.equal(answers, 20, 'each connection asks once')
  t.equal(secret, 0)
})

t.test('without the token of a child nothing is said but 407', async (t) => {
  const port = await startTcp(t, echo)
  const proxy = await startEgress(t)
  const policy = allow({ cidrs: toLoopback })
  const child = proxy.egress.admit(policy, { name: 'a' })
  const gone = proxy.egress.admit(policy, { name: 'b' })
  gone.close()
  const token = child.token.reveal()
  const tries: Record<string, string> = {
    none: '',
    empty: 'Proxy-Authorization: \r\n',
    'a wrong one': 'Proxy-Authorization: Bearer wrong\r\n',
    'one character less': `Proxy-Authorization: Bearer ${token.slice(0, -1)}\r\n`,
    'of a child that is gone': `Proxy-Authorization: Bearer ${gone.token.reveal()}\r\n`,
    'another scheme': `Proxy-Authorization: Digest ${token}\r\n`,
    'another user': `Proxy-Authorization: Basic ${Buffer.from(`root:${token}`).toString('base64')}\r\n`,
    'for the origin': `Authorization: Bearer ${token}\r\n`,
  }
  for (const [what, header] of Object.entries(tries)) {
    const wire = new Wire(proxy.egress.port).write(
      `CONNECT 127.0.0.1:${port} HTTP/1.1\r\nHost: a\r\n${header}\r\n`,
    )
    t.match(await wire.until('\r\n\r\n'), /^HTTP\/1\.1 407 .*\r\nProxy-Authenticate: Basic /s, what)
    t.equal(await wire.end(), 'end', what)
    wire.close()
  }
  const twice = `Proxy-Authorization: ${basic(child)}\r\n`.repeat(2)
  const wire = new Wire(proxy.egress.port).write(
    `CONNECT 127.0.0.1:${port} HTTP/1.1\r\nHost: a\r\n${twice}\r\n`,
  )
  t.equal(await wire.status(), 400)
  wire.close()
  t.ok(
    proxy.verdicts.every(
      ({ allowed, rule, child }) =>
        !allowed && ['token', 'bad-request'].includes(rule) && child === 'unknown',
    ),
  )
  t.notMatch(JSON.stringify([proxy.verdicts, child]), token)
})

t.test('no child reaches the ports of the sidecar, not even with a rule for them', async (t) => {
  let reached = 0
  const own = await startTcp(t, () => void reached++, '0.0.0.0')
  const proxy = await startEgress(t, { ownPorts: () => [own] })
  const everywhere = ['127.0.0.0/8', '127.0.0.1/32', '127.9.9.9/32', '0.0.0.0/32', '::1/128', '::/128']
  const child = proxy.egress.admit(allow({ hosts: ['*'], cidrs: everywhere }), { name: 'p' })
  proxy.names.set('me.example.com', ['127.0.0.1'])
  for (const port of [own, proxy.egress.port]) {
    for (const host of [
      '127.0.0.1',
      '127.9.9.9',
      '0.0.0.0',
      '[::1]',
      '[::]',
      '[::ffff:127.0.0.1]',
      '2130706433',
      '0x7f.1',
      'me.example.com',
    ]) {
      t.equal(await statusOf(proxy, child, `${host}:${port}`), 403, `${host}:${port}`)
    }
  }
  t.ok(proxy.verdicts.every(({ rule }) => rule === 'own-port'))
  const open = proxy.egress.admit({ ...allow(), mode: 'open' }, { name: 'open' })
  t.equal(await statusOf(proxy, open, `127.0.0.1:${own}`), 403, 'not even with everything allowed')
  t.equal(reached, 0)
})

t.test('an address that this machine has just got is known by where the connection ends', async (t) => {
  // As if the list of interfaces were old: the proxy learns of it from the connection.
  const port = await startTcp(t, echo)
  const here = (address: string, at: number): Socket => {
    const socket = connectTcp({ host: '127.0.0.1', port: at, allowHalfOpen: true })
    Object.defineProperty(socket, 'remoteAddress', { get: () => address })
    Object.defineProperty(socket, 'localAddress', { get: () => address })
    return socket
  }
  const proxy = await startEgress(t, { dial: here, ownAddresses: () => [] })
  const child = proxy.egress.admit(allow({ hosts: ['*'], cidrs: ['10.0.0.0/8', '10.0.0.7/32'] }), {
    name: 'p',
  })
  t.equal(await statusOf(proxy, child, `10.9.9.9:${port}`), 403)
  t.match(proxy.verdicts.at(-1), { allowed: false, rule: 'own-address:10.9.9.9', address: '10.9.9.9' })
  t.equal(await statusOf(proxy, child, `10.0.0.7:${port}`), 200, 'unless a rule names it')
})

t.test('own addresses are read anew', async (t) => {
  const clock = forwardClock()
  let addresses = ['10.0.0.1']
  const proxy = await startEgress(t, {
    clock,
    ownAddresses: () => addresses,
    dial: () => connectTcp({ host: '127.0.0.1', port: 9 }),
  })
  const child = proxy.egress.admit(allow({ cidrs: ['10.0.0.0/8'] }), { name: 'p' })
  t.equal(await statusOf(proxy, child, '10.0.0.1:80'), 403)
  t.not(await statusOf(proxy, child, '10.0.0.2:80'), 403)
  addresses = ['10.0.0.2']
  clock.forward(10_000)
  t.equal(await statusOf(proxy, child, '10.0.0.2:80'), 403)
  t.not(await statusOf(proxy, child, '10.0.0.1:80'), 403)
})

t.test('a target that cannot be reached gets 502, with the broker as without', async (t) => {
  const port = await closedPort()
  const proxy = await startEgress(t)
  const child = proxy.egress.admit(allow({ hosts: ['*.example.com'], cidrs: toLoopback }), { name: 'p' })
  t.equal(await statusOf(proxy, child, `127.0.0.1:${port}`), 502)
  t.equal(await statusOf(proxy, child, `127.0.0.1:${port}`, 'wait'), 502)
  t.match(proxy.verdicts.at(-1), {
    ...{ allowed: true, protocol: 'broker', outcome: 'failed', reason: /ECONNREFUSED/ },
  })
  t.equal(await statusOf(proxy, child, `no.example.com:${port}`), 502)
  t.match(proxy.verdicts.at(-1), {
    allowed: true,
    rule: 'host:*.example.com',
    outcome: 'failed',
    reason: /could not be resolved/,
  })
})

t.test('a target that does not answer gets 504, a resolver that does not answer too', async (t) => {
  const clock = forwardClock()
  let waiting = (): void => {}
  const proxy = await startEgress(t, {
    clock,
    dial: () => {
      waiting()
      return new Socket()
    },
  })
  const never: Promise<string[]> = new Promise(() => {})
  proxy.names.set('slow.example.com', () => {
    waiting()
    return never
  })
  const child = proxy.egress.admit(allow({ hosts: ['slow.example.com'], cidrs: ['10.0.0.0/8'] }), {
    name: 'p',
  })
  const slow = statusOf(proxy, child, 'slow.example.com:80')
  await new Promise<void>((resolve) => {
    waiting = resolve
  })
  clock.forward(6000)
  t.equal(await slow, 504)
  const silentDial = await startEgress(t, {
    clock,
    dial: () => {
      setImmediate(() => waiting())
      return new Socket()
    },
  })
  const other = silentDial.egress.admit(allow({ cidrs: ['10.0.0.0/8'] }), { name: 'p' })
  const dialling = statusOf(silentDial, other, '10.0.0.1:80')
  await new Promise<void>((resolve) => {
    waiting = resolve
  })
  clock.forward(10_000)
  t.equal(await dialling, 504)
})

t.test('to the broker a verdict that is early comes before the dial', async (t) => {
  let release = (): void => {}
  const port = await startTcp(t, echo)
  const gate = new Promise<void>((resolve) => {
    release = resolve
  })
  const dead = await closedPort()
  const proxy = await startEgress(t)
  proxy.names.set('slow.example.com', async () => {
    await gate
    return ['127.0.0.1']
  })
  proxy.names.set('inner.example.com', ['10.0.0.1'])
  proxy.names.set('late.example.com', async () => {
    await gate
    return ['10.0.0.1']
  })
  const child = proxy.egress.admit(allow({ hosts: ['*.example.com'], cidrs: toLoopback }), { name: 'p' })
  t.equal(await statusOf(proxy, child, `127.0.0.2:${port}`, 'early'), 403)
  t.equal(await statusOf(proxy, child, `inner.example.com:${port}`, 'early'), 403)

  const refused = await tunnelTo(proxy, child, `127.0.0.1:${dead}`, 'early')
  t.equal(refused.status, 200, 'the rules allow it')
  t.equal(await refused.wire.end(), 'ECONNRESET', 'but nobody is there')

  const slow = await tunnelTo(proxy, child, `slow.example.com:${port}`, 'early')
  t.equal(slow.status, 200, 'while the resolver is at it')
  const late = await tunnelTo(proxy, child, `late.example.com:${port}`, 'early')
  t.equal(late.status, 200)
  slow.wire.write('sent before the dial')
  release()
  t.equal((await slow.wire.take(20)).toString(), 'sent before the dial')
  t.equal(await late.wire.end(), 'ECONNRESET', 'what the rules refuse after all is reset')
  t.match(
    proxy.verdicts.find(({ host }) => host === 'late.example.com'),
    { allowed: false, rule: 'denied-range:10.0.0.0/8' },
  )
  slow.wire.close()
})

t.test('bytes behind a CONNECT wait for the verdict', async (t) => {
  const seen: string[] = []
  const port = await startTcp(t, (socket) =>
    socket.on('data', (data) => seen.push(data.toString())).pipe(socket),
  )
  const proxy = await startEgress(t)
  let release = (_: string[]): void => {}
  const resolved = new Promise<string[]>((resolve) => {
    release = resolve
  })
  proxy.names.set('slow.example.com', () => resolved)
  const child = proxy.egress.admit(allow({ hosts: ['slow.example.com'], cidrs: toLoopback }), { name: 'p' })
  const early = new Wire(proxy.egress.port).write(
    `${connectHead(child, `slow.example.com:${port}`)}GET / secret`,
  )
  const refused = new Wire(proxy.egress.port).write(`${connectHead(child, `127.0.0.2:${port}`)}GET / secret`)
  t.equal(await refused.status(), 403)
  t.same(seen, [])
  release(['127.0.0.1'])
  t.equal(await early.status(), 200)
  t.equal((await early.take(12)).toString(), 'GET / secret')
  t.same(seen, ['GET / secret'])
  early.close()
})

t.test('what the server says first comes right behind the 200', async (t) => {
  const port = await startTcp(t, (socket) => void socket.end('220 ready\r\n'))
  const proxy = await startEgress(t)
  const child = proxy.egress.admit(allow({ cidrs: toLoopback }), { name: 'p' })
  const { wire } = await tunnelTo(proxy, child, `127.0.0.1:${port}`, 'wait')
  t.equal(await wire.until('\r\n'), '220 ready\r\n')
  t.equal(await wire.end(), 'end')
  wire.close()
})

t.test('each half of a tunnel ends for itself, and a reset is passed on as one', async (t) => {
  const ended = await startTcp(t, (socket) => {
    let text = ''
    socket.on('data', (data) => {
      text += data.toString()
    })
    socket.on('end', () => socket.end(`you said ${text}`))
  })
  const proxy = await startEgress(t)
  const child = proxy.egress.admit(allow({ cidrs: toLoopback }), { name: 'p' })
  const half = await tunnelTo(proxy, child, `127.0.0.1:${ended}`)
  half.wire.write('all')
  half.wire.socket.end()
  t.equal(await half.wire.until('all'), 'you said all')
  t.equal(await half.wire.end(), 'end')

  const resetting = await startTcp(t, (socket) => socket.once('data', () => socket.resetAndDestroy()))
  const cut = await tunnelTo(proxy, child, `127.0.0.1:${resetting}`)
  cut.wire.write('x')
  t.equal(await cut.wire.end(), 'ECONNRESET')

  const outcome = new Promise<string>((resolve) => {
    startTcp(t, (socket) => {
      socket.on('error', (cause: NodeJS.ErrnoException) => resolve(cause.code ?? ''))
      socket.on('end', () => resolve('end'))
      socket.write('hello')
      socket.resume()
    }).then(async (port) => {
      const { wire } = await tunnelTo(proxy, child, `127.0.0.1:${port}`)
      await wire.take(5)
      wire.socket.resetAndDestroy()
    }, resolve)
  })
  t.equal(await outcome, 'ECONNRESET')
})

t.test('a side that reads nothing holds up the other, not the memory', async (t) => {
  let sent = 0
  let flooding: Socket | undefined
  const port = await startTcp(t, (socket) => {
    flooding = socket
    const chunk = Buffer.alloc(1 << 20)
    const more = (): void => {
      while (sent < 512 << 20) {
        sent += chunk.length
        if (!socket.write(chunk)) break
      }
    }
    socket.on('drain', more)
    more()
  })
  const proxy = await startEgress(t)
  const child = proxy.egress.admit(allow({ cidrs: toLoopback }), { name: 'p' })
  const { wire } = await tunnelTo(proxy, child, `127.0.0.1:${port}`)
  wire.socket.pause()
  // Until the kernel's buffers are full and nothing moves any more.
  for (let before = -1; before !== sent; ) {
    before = sent
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  t.ok(sent < 64 << 20, `${sent >> 20} MiB were taken`)
  flooding?.destroy()
  wire.close()
})

t.test('a child that has ended loses its connections, and its siblings keep theirs', async (t) => {
  const port = await startTcp(t, echo)
  const proxy = await startEgress(t)
  const [one, two] = ['one', 'two'].map((name) => proxy.egress.admit(allow({ cidrs: toLoopback }), { name }))
  if (one === undefined || two === undefined) throw new Error('no children')
  const first = await tunnelTo(proxy, one, `127.0.0.1:${port}`)
  const second = await tunnelTo(proxy, two, `127.0.0.1:${port}`)
  one.close()
  t.not(await first.wire.end(), undefined)
  t.equal(await statusOf(proxy, one, `127.0.0.1:${port}`), 407)
  second.wire.write('still')
  t.equal((await second.wire.take(5)).toString(), 'still')
  second.wire.close()
})

t.test('a child has so many connections and no more, and siblings do not pay for it', async (t) => {
  const port = await startTcp(t, echo)
  const proxy = await startEgress(t)
  const greedy = proxy.egress.admit(allow({ cidrs: toLoopback }), {
    name: 'greedy',
    limits: { connections: 5 },
  })
  const other = proxy.egress.admit(allow({ cidrs: toLoopback }), { name: 'other' })
  const open = await Promise.all(
    Array.from({ length: 8 }, () => tunnelTo(proxy, greedy, `127.0.0.1:${port}`)),
  )
  t.same(open.map(({ status }) => status).toSorted(), [200, 200, 200, 200, 200, 503, 503, 503])
  t.match(proxy.verdicts.at(-1), { allowed: false, rule: 'limit:connections', child: 'greedy' })
  t.equal(await statusOf(proxy, other, `127.0.0.1:${port}`), 200)
  for (const { wire } of open) wire.close()
  await new Promise((resolve) => setImmediate(resolve))
  let status = 503
  for (let i = 0; i < 100 && status === 503; i++) status = await statusOf(proxy, greedy, `127.0.0.1:${port}`)
  t.equal(status, 200, 'closed ones do not count')
})

t.test('a connection on which nothing happens ends, one that shows no token soon', async (t) => {
  const clock = forwardClock()
  const port = await startTcp(t, echo)
  const proxy = await startEgress(t, { clock })
  const child = proxy.egress.admit(allow({ cidrs: toLoopback }), { name: 'p' })
  const { wire } = await tunnelTo(proxy, child, `127.0.0.1:${port}`)
  const stranger = new Wire(proxy.egress.port).write('CONNECT ')
  const mute = new Wire(proxy.egress.port)
  await Promise.all([once(stranger.socket, 'connect'), once(mute.socket, 'connect')])
  await statusOf(proxy, child, `127.0.0.1:${port}`)
  clock.forward(11_000)
  t.ok(await stranger.end())
  t.ok(await mute.end())
  clock.forward(8 * 60_000)
  wire.write('x')
  await wire.take(1)
  clock.forward(8 * 60_000)
  wire.write('y')
  t.equal((await wire.take(1)).toString(), 'y', 'each byte starts the wait anew')
  clock.forward(11 * 60_000)
  t.ok(await wire.end())
})

t.test(
  'connects wait for a proxy that is busy, as many as there may be',
  { skip: backlogTooShort },
  async (t) => {
    const { egress } = await startEgress(t)
    // Nothing is accepted meanwhile: this process waits for the other one.
    const script = `
    const { connect } = require('node:net')
    let connected = 0
    const done = () => { console.log(connected); process.exit() }
    setTimeout(done, 30_000)
    for (let i = 0; i < 1500; i++)
      connect(${egress.port}, '127.0.0.1').on('error', () => {}).once('connect', () => ++connected === 1500 && done())`
    const { stdout } = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8', env: {} })
    t.equal(Number(stdout), 1500)
  },
)

t.test('strangers without a token make room for each other', async (t) => {
  const port = await startTcp(t, echo)
  const proxy = await startEgress(t)
  const child = proxy.egress.admit(allow({ cidrs: toLoopback }), { name: 'p' })
  const held = await tunnelTo(proxy, child, `127.0.0.1:${port}`)
  const strangers = Array.from({ length: 700 }, () => new Wire(proxy.egress.port))
  await Promise.all(strangers.map(({ socket }) => once(socket, 'connect')))
  t.equal(await statusOf(proxy, child, `127.0.0.1:${port}`), 200)
  t.ok(await (strangers[0] as Wire).end(), 'the oldest went first')
  held.wire.write('mine')
  t.equal((await held.wire.take(4)).toString(), 'mine')
  for (const stranger of strangers) stranger.close()
  held.wire.close()
})

t.test('a slow resolver of one child does not hold up another', async (t) => {
  const port = await startTcp(t, echo)
  const proxy = await startEgress(t)
  proxy.names.set('slow.example.com', () => new Promise(() => {}))
  proxy.names.set('fast.example.com', ['127.0.0.1'])
  const slow = proxy.egress.admit(allow({ hosts: ['*.example.com'], cidrs: toLoopback }), { name: 'slow' })
  const fast = proxy.egress.admit(allow({ hosts: ['*.example.com'], cidrs: toLoopback }), { name: 'fast' })
  const stuck = Array.from({ length: 20 }, () =>
    new Wire(proxy.egress.port).write(connectHead(slow, `slow.example.com:${port}`)),
  )
  t.equal(await statusOf(proxy, fast, `fast.example.com:${port}`), 200)
  t.equal(proxy.asked.filter((name) => name === 'slow.example.com').length, 2, 'its share of the resolver')
  for (const wire of stuck) wire.close()
})

for (const hosts of ['*.example.com', '*']) {
  t.test(`names that ${hosts} allows are limited in length and number, exact ones are not`, async (t) => {
    const port = await startTcp(t, echo)
    // No time passes in which new names could be had again.
    const proxy = await startEgress(t, { clock: new ManualClock() })
    const long = `${'a'.repeat(60)}.${'b'.repeat(60)}.${'c'.repeat(20)}.example.com`
    proxy.names.set(long, ['127.0.0.1'])
    const wild = proxy.egress.admit(allow({ hosts: [hosts], cidrs: toLoopback }), {
      name: 'wild',
      limits: { newNamesPerSecond: 1 },
    })
    const exact = proxy.egress.admit(allow({ hosts: [long, '*'], cidrs: toLoopback }), { name: 'exact' })
    t.equal(await statusOf(proxy, wild, `${long}:${port}`), 403)
    t.match(proxy.verdicts.at(-1), { rule: 'limit:name-length' })
    t.equal(await statusOf(proxy, exact, `${long}:${port}`), 200)
    const statuses = new Map<number, number>()
    for (let i = 0; i < 30; i++) {
      const status = await statusOf(proxy, wild, `leak${i >> 1}.example.com:${port}`)
      statuses.set(status, (statuses.get(status) ?? 0) + 1)
    }
    t.ok((statuses.get(503) ?? 0) > 5, 'after a burst of ten no more new ones pass')
    t.ok(proxy.asked.length <= 25, 'those that do not pass are not asked for')
  })
}

t.test('a redirect to a forbidden host is a second request, and is refused', async (t) => {
  const server = createServer((_, response) =>
    response.writeHead(302, { location: 'http://evil.example.com/' }).end(),
  ).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const { port } = server.address() as { port: number }
  const proxy = await startEgress(t)
  proxy.names.set('ok.example.com', ['127.0.0.1'])
  const child = proxy.egress.admit(allow({ hosts: ['ok.example.com'], cidrs: toLoopback }), { name: 'p' })
  const { wire } = await tunnelTo(proxy, child, `ok.example.com:${port}`)
  const response = await new Promise<{ location: string | undefined }>((resolve, reject) => {
    httpGet({ createConnection: () => wire.socket, path: '/', host: 'ok.example.com' }, ({ headers }) =>
      resolve({ location: headers.location }),
    ).on('error', reject)
  })
  t.equal(response.location, 'http://evil.example.com/')
  t.equal(await statusOf(proxy, child, 'evil.example.com:80'), 403)
  wire.close()
})

t.test('a tunnel is transparent, whatever is sent and in which pieces', async (t) => {
  const port = await startTcp(t, echo)
  const proxy = await startEgress(t)
  const child = proxy.egress.admit(allow({ cidrs: toLoopback }), { name: 'p' })
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.uint8Array({ minLength: 1, maxLength: 70_000 }), { maxLength: 5 }),
      async (pieces) => {
        const whole = Buffer.concat(pieces)
        const { wire } = await tunnelTo(proxy, child, `127.0.0.1:${port}`)
        for (const piece of pieces) wire.write(Buffer.from(piece))
        const back = await wire.take(whole.length)
        wire.close()
        return back.equals(whole)
      },
    ),
    { numRuns: 30 },
  )
  t.same(proxy.warnings, [])
})
