import fc from 'fast-check'
import t from 'tap'
import type { EgressChild } from '../../src/core/sandbox.ts'
import { parseQuery } from '../../src/egress/dns-message.ts'
import { SyntheticAddresses } from '../../src/egress/synthetic.ts'
import { forwardClock } from '../support/forward-clock.ts'
import { ManualClock } from '../support/modern-calls.ts'
import { holds } from '../support/property.ts'
import {
  allow,
  echo,
  startEgress,
  startTcp,
  statusOf,
  type TestEgress,
  toLoopback,
  tunnelTo,
  type Wire,
} from './support.ts'

const types = { A: 1, NS: 2, CNAME: 5, TXT: 16, AAAA: 28, HTTPS: 65, AXFR: 252, ANY: 255 }

function question(name: string, type: number = types.A, kind = 1): Buffer {
  const labels =
    name === ''
      ? []
      : name.split('.').map((label) => Buffer.from([label.length, ...Buffer.from(label, 'latin1')]))
  return Buffer.concat([...labels, Buffer.from([0, type >> 8, type & 255, kind >> 8, kind & 255])])
}

function message(body: Buffer, { id = 0x1234, flags = 0x0100, counts = [1, 0, 0, 0] } = {}): Buffer {
  const header = Buffer.alloc(12)
  for (const [i, value] of [id, flags, ...counts].entries()) header.writeUInt16BE(value, i * 2)
  return Buffer.concat([header, body])
}

function framed(bytes: Buffer): Buffer {
  return Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 255]), bytes])
}

interface Answer {
  readonly id: number
  readonly rcode: number
  readonly address: string | undefined
  readonly raw: Buffer
}

async function answer(wire: Wire): Promise<Answer> {
  const raw = await wire.take((await wire.take(2)).readUInt16BE())
  const [id, flags, , answers] = [0, 2, 4, 6].map((at) => raw.readUInt16BE(at)) as [
    number,
    number,
    number,
    number,
  ]
  t.ok((flags & 0x8000) !== 0, 'a response')
  return { id, rcode: flags & 15, address: answers === 1 ? [...raw.subarray(-4)].join('.') : undefined, raw }
}

/** A connection to the stub as this child. */
async function stub(proxy: TestEgress, child: EgressChild): Promise<Wire> {
  const { wire, status } = await tunnelTo(proxy, child, 'dns:53', 'wait')
  t.equal(status, 200)
  return wire
}

async function query(wire: Wire, name: string, type = types.A): Promise<Answer> {
  wire.write(framed(message(question(name, type))))
  return answer(wire)
}

t.test('an allowed name gets an address of its own, which the broker can connect to', async (t) => {
  const port = await startTcp(t, echo)
  const proxy = await startEgress(t)
  proxy.names.set('db.example.com', ['127.0.0.1'])
  const child = proxy.egress.admit(allow({ hosts: ['db.example.com'], cidrs: toLoopback, ports: [port] }), {
    name: 'p',
  })
  const wire = await stub(proxy, child)
  const { id, rcode, address = '', raw } = await query(wire, 'DB.Example.COM')
  t.match({ id, rcode, address }, { id: 0x1234, rcode: 0, address: /^198\.1[89]\./ })
  t.same(raw.subarray(12, 12 + 20), question('DB.Example.COM'), 'the question as it was asked')
  t.same(
    raw.subarray(-16, -4),
    Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]),
    'one A record with a TTL of 5 s',
  )
  t.same(proxy.asked, [], 'a lookup alone leaks nothing')
  t.equal((await query(wire, 'db.example.com')).address, address)
  for (const broker of ['wait', 'early'] as const) {
    const connected = await tunnelTo(proxy, child, `${address}:${port}`, broker)
    t.equal(connected.status, 200)
    connected.wire.write('hello')
    t.equal((await connected.wire.take(5)).toString(), 'hello')
    connected.wire.close()
  }
  t.match(proxy.verdicts.at(-1), {
    allowed: true,
    protocol: 'broker',
    host: 'db.example.com',
    rule: 'host:db.example.com',
    address: '127.0.0.1',
  })
  t.equal(await statusOf(proxy, child, `${address}:1`, 'wait'), 403, 'its name is judged, with the port')
  wire.close()
})

t.test('a synthetic address means nothing to another child, nor one that nobody was given', async (t) => {
  const port = await startTcp(t, echo)
  const proxy = await startEgress(t)
  proxy.names.set('db.example.com', ['127.0.0.1'])
  const policy = allow({ hosts: ['db.example.com'], cidrs: [...toLoopback, '0.0.0.0/0'] })
  const [one, two] = [
    proxy.egress.admit(policy, { name: 'one' }),
    proxy.egress.admit(policy, { name: 'two' }),
  ]
  const { address } = await query(await stub(proxy, one), 'db.example.com')
  t.equal(await statusOf(proxy, two, `${address}:${port}`, 'wait'), 403)
  t.match(proxy.verdicts.at(-1), { rule: 'denied-range:198.18.0.0/15' })
  t.equal(await statusOf(proxy, one, `198.19.255.255:${port}`, 'wait'), 403)
  t.equal(await statusOf(proxy, one, `${address}:${port}`, 'wait'), 200)
})

t.test('a name that no rule allows does not exist, and nobody is asked', async (t) => {
  const proxy = await startEgress(t)
  const child = proxy.egress.admit(allow({ hosts: ['db.example.com', '*.api.example.com'] }), { name: 'p' })
  const wire = await stub(proxy, child)
  for (const name of [
    ...[
      'evil.com',
      'example.com',
      'api.example.com',
      'db.example.com.evil.com',
      'c2VjcmV0.evil.com',
      'localhost',
      '',
    ],
    ...[
      'db.example.com.default.svc.cluster.local',
      'a b.example.com',
      'db\0.example.com',
      '127.0.0.1',
      '1.0.0.127.in-addr.arpa',
    ],
  ]) {
    for (const type of [types.A, types.AAAA, types.TXT, types.AXFR]) {
      t.match(await query(wire, name, type), { rcode: 3, address: undefined }, `${name} ${type}`)
    }
  }
  t.same(proxy.asked, [])
  t.ok(proxy.verdicts.every(({ allowed, protocol }) => !allowed && protocol === 'dns'))
  wire.close()
})

t.test('a dot inside a label does not make a name an allowed one', async (t) => {
  const proxy = await startEgress(t)
  const child = proxy.egress.admit(allow({ hosts: ['db.example.com'] }), { name: 'p' })
  const wire = await stub(proxy, child)
  const whole = Buffer.from([14, ...Buffer.from('db.example.com'), 0, 0, 1, 0, 1])
  wire.write(framed(message(whole)))
  t.equal((await answer(wire)).rcode, 3)
  wire.close()
})

t.test('other types of an allowed name are empty, zone transfers too', async (t) => {
  const proxy = await startEgress(t)
  const child = proxy.egress.admit(allow({ hosts: ['db.example.com'] }), { name: 'p' })
  const wire = await stub(proxy, child)
  for (const type of Object.values(types).filter((each) => each !== types.A)) {
    t.match(await query(wire, 'db.example.com', type), { rcode: 0, address: undefined }, String(type))
  }
  t.same(proxy.asked, [])
  wire.close()
})

t.test('a name that only a wildcard allows must exist, so that search lists work', async (t) => {
  const clock = forwardClock()
  const proxy = await startEgress(t, { clock })
  proxy.names.set('db.example.com', ['10.0.0.1'])
  proxy.names.set('broken.example.com', () => {
    throw new Error('SERVFAIL')
  })
  const child = proxy.egress.admit(allow({ hosts: ['*'] }), { name: 'p' })
  const wire = await stub(proxy, child)
  t.match(await query(wire, 'db.example.com.ns.svc.cluster.local'), { rcode: 3 })
  t.match(await query(wire, 'db.example.com'), { rcode: 0, address: /^198/ })
  t.match(await query(wire, 'broken.example.com'), { rcode: 2 })
  t.same(
    proxy.asked,
    ['db.example.com.ns.svc.cluster.local.', 'db.example.com.', 'broken.example.com.'],
    'each as it is, without the search list of the sidecar',
  )
  await query(wire, 'db.example.com', types.AAAA)
  t.match(await query(wire, 'db.example.com.ns.svc.cluster.local', types.AAAA), { rcode: 3 })
  t.equal(proxy.asked.length, 3, 'what is known is not asked for again')
  // An idle connection does not last so long.
  wire.close()
  clock.forward(60_000)
  const later = await stub(proxy, child)
  await query(later, 'db.example.com.ns.svc.cluster.local')
  t.equal(proxy.asked.length, 4, 'for a while')
  later.close()
})

t.test('many queries on one connection are answered in turn, in whatever pieces they come', async (t) => {
  const proxy = await startEgress(t)
  const child = proxy.egress.admit(allow({ hosts: ['a.example.com', 'b.example.com'] }), { name: 'p' })
  const wire = await stub(proxy, child)
  const queries = Array.from({ length: 60 }, (_, id) =>
    framed(message(question(`${id % 2 === 0 ? 'a' : 'b'}.example.com`), { id })),
  )
  const all = Buffer.concat(queries)
  for (let at = 0; at < all.length; at += 7) wire.write(all.subarray(at, at + 7))
  const answers: Answer[] = []
  for (const _ of queries) answers.push(await answer(wire))
  t.same(
    answers.map(({ id }) => id),
    queries.map((_, id) => id),
  )
  t.equal(new Set(answers.map(({ address }) => address)).size, 2)
  wire.close()
})

t.test('queries are limited in number', async (t) => {
  const clock = new ManualClock()
  const proxy = await startEgress(t, { clock })
  const child = proxy.egress.admit(allow({ hosts: ['a.example.com'] }), {
    name: 'p',
    limits: { queriesPerSecond: 2 },
  })
  const wire = await stub(proxy, child)
  const codes: number[] = []
  for (let i = 0; i < 40; i++) codes.push((await query(wire, 'a.example.com')).rcode)
  t.equal(codes[0], 0)
  t.equal(codes.at(-1), 5)
  t.match(proxy.verdicts.at(-1), { allowed: false, rule: 'limit:queries' })
  clock.pass(5000)
  t.equal((await query(wire, 'a.example.com')).rcode, 0)
  wire.close()
})

t.test('messages that are wrong get FORMERR or nothing, and the stub lives', async (t) => {
  const proxy = await startEgress(t)
  const child = proxy.egress.admit(allow({ hosts: ['a.example.com'] }), { name: 'p' })
  const good = question('a.example.com')
  const codes: [string, Buffer, number][] = [
    ['no question', message(Buffer.alloc(0), { counts: [0, 0, 0, 0] }), 1],
    ['two questions', message(Buffer.concat([good, good]), { counts: [2, 0, 0, 0] }), 1],
    ['an answer in the query', message(good, { counts: [1, 1, 0, 0] }), 1],
    ['an authority in the query', message(good, { counts: [1, 0, 1, 0] }), 1],
    ['65535 of everything', message(good, { counts: [65_535, 65_535, 65_535, 65_535] }), 1],
    ['a pointer to itself', message(Buffer.from([0xc0, 12, 0, 1, 0, 1])), 1],
    ['a pointer behind a label', message(Buffer.from([1, 97, 0xc0, 12, 0, 1, 0, 1])), 1],
    ['a label of a type that does not exist', message(Buffer.from([0x40, 0, 0, 1, 0, 1])), 1],
    ['a label that is cut off', message(Buffer.from([60, 97, 98])), 1],
    ['no type', message(Buffer.from([1, 97, 0])), 1],
    [
      'an endless name',
      message(
        Buffer.concat([
          ...Array<Buffer>(100).fill(Buffer.from([5, 97, 97, 97, 97, 97])),
          Buffer.from([0, 0, 1, 0, 1]),
        ]),
      ),
      1,
    ],
    ['another class', message(question('a.example.com', 1, 3)), 5],
    ['an update', message(good, { flags: 5 << 11 }), 4],
    ['a status request', message(good, { flags: 2 << 11 }), 4],
    [
      'EDNS',
      message(Buffer.concat([good, Buffer.from([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0])]), {
        counts: [1, 0, 0, 1],
      }),
      0,
    ],
  ]
  const wire = await stub(proxy, child)
  for (const [what, bytes, rcode] of codes) {
    wire.write(framed(bytes))
    t.match(await answer(wire), { id: 0x1234, rcode }, what)
  }
  wire.close()
  for (const [what, bytes] of [
    ['a response', framed(message(good, { flags: 0x8100 }))],
    ['an empty message', Buffer.from([0, 0])],
    ['half a header', framed(Buffer.alloc(11))],
    ['an oversized message', Buffer.concat([Buffer.from([0xff, 0xff]), Buffer.alloc(1000)])],
  ] as const) {
    const bad = await stub(proxy, child)
    bad.write(bytes)
    t.ok(await bad.end(), `${what} ends the connection`)
    bad.close()
  }
  t.equal((await query(await stub(proxy, child), 'a.example.com')).rcode, 0)
  t.same(proxy.warnings, [])
})

t.test('the stub is for children alone', async (t) => {
  const proxy = await startEgress(t)
  t.equal(await statusOf(proxy, { token: { reveal: () => 'x' } } as never, 'dns:53', 'wait'), 407)
})

t.test('no message makes the parser fail', async (t) => {
  holds(
    t,
    fc.property(fc.uint8Array({ maxLength: 600 }), (bytes) => {
      const whole = parseQuery(Buffer.from(bytes))
      return whole === undefined || 'rcode' in whole || whole.question.bytes.length >= 5
    }),
    2000,
  )
  holds(
    t,
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      const query = parseQuery(message(Buffer.from(bytes)))
      return query === undefined || 'rcode' in query || !(query.question.name ?? '').includes('..')
    }),
    2000,
  )
})

t.test('addresses are kept while they may be in use, and there are only so many', async (t) => {
  const clock = forwardClock()
  const addresses = new SyntheticAddresses(clock, 100)
  const given = Array.from({ length: 100 }, (_, i) => addresses.addressOf(`n${i}`))
  t.equal(new Set(given).size, 100)
  t.ok(given.every((address) => /^198\.1[89]\.\d+\.\d+$/.test(address ?? '')))
  t.equal(addresses.addressOf('one more'), undefined)
  t.equal(addresses.nameOf(given[7] as string), 'n7')
  clock.forward(9 * 60_000)
  t.equal(addresses.addressOf('n0'), given[0], 'used again')
  clock.forward(2 * 60_000)
  t.ok(addresses.addressOf('one more'), 'the one that was used longest ago makes room')
  t.equal(addresses.nameOf(given[0] as string), 'n0')
  t.equal(addresses.nameOf(given[1] as string), undefined)
})
