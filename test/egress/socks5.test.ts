import t from 'tap'
import type { EgressChild } from '../../src/core/sandbox.ts'
import {
  allow,
  closedPort,
  echo,
  startEgress,
  startTcp,
  type TestEgress,
  toLoopback,
  Wire,
} from './support.ts'

const greeting = Buffer.from([5, 1, 2])

function login(token: string, user = 'child'): Buffer {
  return Buffer.concat([
    Buffer.from([1, user.length]),
    Buffer.from(user),
    Buffer.from([token.length]),
    Buffer.from(token),
  ])
}

function request(type: number, address: Buffer | number[], port: number, command = 1): Buffer {
  return Buffer.concat([
    Buffer.from([5, command, 0, type]),
    Buffer.from(address),
    Buffer.from([port >> 8, port & 255]),
  ])
}

const byName = (name: string | Buffer, port: number, command = 1): Buffer => {
  const bytes = Buffer.from(name)
  return request(3, [bytes.length, ...bytes], port, command)
}

/** Logs in and asks; the code of the answer. */
async function ask(
  { egress }: TestEgress,
  child: EgressChild,
  what: Buffer,
): Promise<{ wire: Wire; code: number }> {
  const wire = new Wire(egress.port).write(greeting)
  t.same([...(await wire.take(2))], [5, 2])
  wire.write(login(child.token.reveal()))
  t.same([...(await wire.take(2))], [1, 0])
  wire.write(what)
  const [version, code = -1] = await wire.take(10)
  t.equal(version, 5)
  return { wire, code }
}

async function codeOf(proxy: TestEgress, child: EgressChild, what: Buffer): Promise<number> {
  const { wire, code } = await ask(proxy, child, what)
  wire.close()
  return code
}

t.test(
  'names and addresses that are allowed are reached, in whatever pieces the client writes',
  async (t) => {
    const port = await startTcp(t, echo)
    const proxy = await startEgress(t)
    proxy.names.set('db.example.com', ['127.0.0.1'])
    const child = proxy.egress.admit(allow({ hosts: ['db.example.com'], cidrs: toLoopback }), { name: 'p' })
    for (const what of [
      byName('db.example.com', port),
      byName('DB.Example.com.', port),
      byName('127.0.0.1', port),
      byName('0x7f.1', port),
      request(1, [127, 0, 0, 1], port),
      request(4, [...Buffer.alloc(10), 0xff, 0xff, 127, 0, 0, 1], port),
    ]) {
      const { wire, code } = await ask(proxy, child, what)
      t.equal(code, 0)
      wire.write('hello')
      t.equal((await wire.take(5)).toString(), 'hello')
      wire.close()
    }
    t.ok(
      proxy.verdicts.every(
        ({ allowed, protocol, address }) => allowed && protocol === 'socks5' && address === '127.0.0.1',
      ),
    )

    const slow = new Wire(proxy.egress.port)
    for (const byte of Buffer.concat([
      greeting,
      login(child.token.reveal()),
      byName('db.example.com', port),
      Buffer.from('early'),
    ])) {
      slow.write(Buffer.from([byte]))
      await new Promise((resolve) => setImmediate(resolve))
    }
    const all = await slow.take(4 + 10 + 5)
    t.equal(all.toString('latin1', 14), 'early')
    slow.close()
  },
)

t.test('what is not allowed is refused by rule, what is not there as unreachable', async (t) => {
  const port = await startTcp(t, echo)
  const proxy = await startEgress(t)
  proxy.names.set('inner.example.com', ['10.0.0.1'])
  const child = proxy.egress.admit(allow({ hosts: ['*.example.com'], cidrs: toLoopback }), { name: 'p' })
  const codes: [Buffer, number][] = [
    [byName('evil.com', port), 2],
    [byName('example.com', port), 2],
    [byName('inner.example.com', port), 2],
    [byName('169.254.169.254', 80), 2],
    [byName('::1', port), 2],
    [byName('0.0.0.0', port), 2],
    [request(1, [169, 254, 169, 254], 80), 2],
    [request(1, [0, 0, 0, 0], port), 2],
    [request(4, [...Buffer.alloc(15), 1], port), 2],
    [request(4, [...Buffer.alloc(10), 255, 255, 169, 254, 169, 254], 80), 2],
    [byName('a.example.com@evil.com', port), 2],
    [byName('a.example.com\0.evil.com', port), 2],
    [byName('%61.example.com', port), 2],
    [byName(Buffer.from([0xff, 0xfe]), port), 2],
    [byName('a.example.com', 0), 2],
    [byName('', port), 2],
    [byName('127.0.0.1', proxy.egress.port), 2],
    [byName('gone.example.com', port), 5],
    [request(1, [127, 0, 0, 1], await closedPort()), 5],
  ]
  for (const [what, code] of codes) t.equal(await codeOf(proxy, child, what), code, what.toString('latin1'))
  t.same(proxy.asked, ['inner.example.com', 'gone.example.com'])
})

t.test('BIND, UDP ASSOCIATE and other address types do not exist', async (t) => {
  const proxy = await startEgress(t)
  const child = proxy.egress.admit(allow({ hosts: ['*'], cidrs: ['0.0.0.0/0'] }), { name: 'p' })
  t.equal(await codeOf(proxy, child, byName('example.com', 80, 2)), 7)
  t.equal(await codeOf(proxy, child, byName('example.com', 80, 3)), 7)
  t.equal(await codeOf(proxy, child, byName('example.com', 80, 0xf0)), 7)
  t.equal(await codeOf(proxy, child, request(2, [1, 2, 3, 4], 80)), 8)
  t.equal(await codeOf(proxy, child, Buffer.from([5, 1, 1, 1, 8, 8, 8, 8, 0, 80])), 1)
  t.equal(await codeOf(proxy, child, Buffer.from([4, 1, 0, 1, 8, 8, 8, 8, 0, 80])), 1)
})

t.test('without the token there is no method, or no login', async (t) => {
  const proxy = await startEgress(t)
  const child = proxy.egress.admit(allow({ cidrs: toLoopback }), { name: 'p' })
  for (const methods of [
    [5, 0],
    [5, 1, 0],
    [5, 2, 0, 1],
  ]) {
    const wire = new Wire(proxy.egress.port).write(Buffer.from(methods))
    t.same([...(await wire.take(2))], [5, 255])
    t.equal(await wire.end(), 'end')
    wire.close()
  }
  const token = child.token.reveal()
  for (const wrong of [
    login('wrong'),
    login(''),
    login(token.slice(1)),
    Buffer.concat([Buffer.from([5]), login(token).subarray(1)]),
  ]) {
    const wire = new Wire(proxy.egress.port).write(Buffer.concat([greeting, wrong]))
    t.same([...(await wire.take(4))], [5, 2, 1, 1])
    t.equal(await wire.end(), 'end')
    wire.close()
  }
  t.ok(
    proxy.verdicts.every(
      ({ allowed, rule, protocol }) => !allowed && rule === 'token' && protocol === 'socks5',
    ),
  )
})
