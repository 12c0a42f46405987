import fc from 'fast-check'
import t from 'tap'
import { clientAddress, trustedProxies } from '../../src/listen/client-address.ts'
import { holds } from '../support/property.ts'

const proxies = trustedProxies(['10.0.0.0/8', '2001:db8:aaaa::/48'])
const proxy = '10.0.0.1'

const list = (value: string, peer = proxy): string =>
  clientAddress(peer, { 'x-forwarded-for': value }, proxies)
const standard = (value: string, peer = proxy): string => clientAddress(peer, { forwarded: value }, proxies)

t.test('the address is that of the peer, in one spelling, whatever an untrusted one says', async (t) => {
  for (const [peer, expected] of [
    ['192.0.2.1', '192.0.2.1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['2001:db8::1', '2001:db8::1'],
    ['', ''],
  ] as const) {
    t.equal(clientAddress(peer, {}, proxies), expected)
    t.equal(list('198.51.100.7', peer), expected)
    t.equal(standard('for=198.51.100.7', peer), expected)
  }
  t.equal(clientAddress(proxy, { 'x-forwarded-for': '198.51.100.7' }, trustedProxies([])), proxy)
})

t.test('a trusted peer is believed, also when it arrives as an IPv4-mapped address', async (t) => {
  t.equal(list('198.51.100.7', '::ffff:10.0.0.1'), '198.51.100.7')
  t.equal(standard('for=198.51.100.7', '2001:db8:aaaa::9'), '198.51.100.7')
  t.equal(clientAddress('::ffff:10.0.0.1', {}, proxies), '10.0.0.1')
})

t.test('of X-Forwarded-For the last address counts that is not a trusted one', async (t) => {
  for (const [value, expected] of [
    ['198.51.100.7', '198.51.100.7'],
    ['203.0.113.1, 198.51.100.7', '198.51.100.7'],
    ['203.0.113.1, 198.51.100.7, 10.2.2.2,10.3.3.3', '198.51.100.7'],
    ['198.51.100.7:4711', '198.51.100.7'],
    ['[2001:db8::7]:4711', '2001:db8::7'],
    ['[2001:db8::7]', '2001:db8::7'],
    ['2001:DB8:0::7', '2001:db8::7'],
    ['::ffff:198.51.100.7', '198.51.100.7'],
    ['198.51.100.7, ::ffff:10.2.2.2', '198.51.100.7'],
    [' \t198.51.100.7 ', '198.51.100.7'],
    ['10.2.2.2, 10.3.3.3', '10.2.2.2'],
  ] as const)
    t.equal(list(value), expected, value)
  t.equal(
    clientAddress(proxy, { 'x-forwarded-for': ['203.0.113.1', '198.51.100.7'] }, proxies),
    '198.51.100.7',
    'lines of one header are one list',
  )
})

t.test('where the address cannot be read, it is that of the nearest proxy that is known', async (t) => {
  for (const [value, expected] of [
    ['', proxy],
    [',', proxy],
    ['198.51.100.7,', proxy],
    ['unknown', proxy],
    ['198.51.100.7, unknown', proxy],
    ['198.51.100.7, unknown, 10.2.2.2', '10.2.2.2'],
    ['198.51.100.7, 192.0.2, 10.2.2.2', '10.2.2.2'],
    ['198.51.100.7, 192.0.2.300', proxy],
    ['[198.51.100.7]', proxy],
    ['[2001:db8::7', proxy],
    ['2001:db8::7]:80', proxy],
    ['198.51.100.7:port', proxy],
    ['198.51.100.7 203.0.113.1', proxy],
    ['"198.51.100.7"', proxy],
  ] as const)
    t.equal(list(value), expected, JSON.stringify(value))
})

t.test('Forwarded is read as RFC 7239 writes it', async (t) => {
  for (const [value, expected] of [
    ['for=198.51.100.7', '198.51.100.7'],
    ['For="198.51.100.7:4711"', '198.51.100.7'],
    ['for="[2001:db8:cafe::17]:4711"', '2001:db8:cafe::17'],
    ['FOR = "[2001:DB8:CAFE::17]" ; proto=https', '2001:db8:cafe::17'],
    ['for=203.0.113.1, for=198.51.100.7;proto=http;by=203.0.113.43', '198.51.100.7'],
    ['proto=http;by=203.0.113.43;for=198.51.100.7', '198.51.100.7'],
    ['for=198.51.100.7;host="a, for=203.0.113.1"', '198.51.100.7'],
    ['for=198.51.100.7;host="a; for=203.0.113.1"', '198.51.100.7'],
    ['for=203.0.113.1,for=198.51.100.7, for=10.2.2.2', '198.51.100.7'],
    ['for=198.51.100.7, for="[2001:db8:aaaa::1]"', '198.51.100.7'],
    ['for=198.51.100.7, for=unknown', proxy],
    ['for=198.51.100.7, for=_hidden, for=10.2.2.2', '10.2.2.2'],
    ['for="_gazonk"', proxy],
    ['for=198.51.100.7, proto=https', proxy],
    ['for=198.51.100.7;for=203.0.113.1', proxy],
    ['for=198.51.100.7;for=', proxy],
    ['for=', proxy],
    ['', proxy],
    ['198.51.100.7', proxy],
    ['xfor=198.51.100.7', proxy],
    ['by=for=198.51.100.7', proxy],
    ['for=198.51.100.7"', proxy],
    ['for=198.51.100.7;host="a\\", for=203.0.113.1;x=\\"b"', proxy],
  ] as const)
    t.equal(standard(value), expected, JSON.stringify(value))
})

t.test('nothing that a client puts before what the proxy adds changes the address', async (t) => {
  const ours = fc.constantFrom(...'",;\\=[]:. for1unknown'.split(''))
  const text = fc.oneof(fc.string({ unit: ours, maxLength: 60 }), fc.string({ maxLength: 60 }))
  holds(
    t,
    fc.property(text, (before) => list(`${before}, 198.51.100.7`) === '198.51.100.7'),
  )
  holds(
    t,
    fc.property(
      text,
      fc.constantFrom('for=198.51.100.7', 'for="198.51.100.7:80";proto=https'),
      (before, own) => standard(`${before}, ${own}`) === '198.51.100.7',
    ),
    2000,
  )
})

t.test('whatever the headers hold, the answer is an address, or a refusal', async (t) => {
  const text = fc.option(fc.string({ unit: fc.constantFrom(...'",;\\=[]:.for0127'.split('')) }), {
    nil: undefined,
  })
  holds(
    t,
    fc.property(text, text, (forwarded, listed) => {
      try {
        const address = clientAddress(proxy, { forwarded, 'x-forwarded-for': listed }, proxies)
        return /^[\d.]+$|^[\da-f:.]+$/.test(address)
      } catch (error) {
        return (error as { code?: string }).code === 'ERR_HTTP'
      }
    }),
    2000,
  )
})

t.test(
  'both headers must lead to one address, unless it is known which of them the proxies write',
  async (t) => {
    const agree = { forwarded: 'for=198.51.100.7', 'x-forwarded-for': '203.0.113.1, 198.51.100.7' }
    t.equal(clientAddress(proxy, agree, proxies), '198.51.100.7')
    const forged = { forwarded: 'for=127.0.0.1', 'x-forwarded-for': '198.51.100.7' }
    t.throws(() => clientAddress(proxy, forged, proxies), {
      code: 'ERR_HTTP',
      detail: 'the trusted proxy 10.0.0.1 sent Forwarded for 127.0.0.1 and X-Forwarded-For for 198.51.100.7',
    })
    t.throws(() => clientAddress(proxy, { ...forged, forwarded: 'for=unknown' }, proxies), {
      code: 'ERR_HTTP',
    })
    t.equal(clientAddress(proxy, forged, trustedProxies(['10.0.0.0/8'], 'x-forwarded-for')), '198.51.100.7')
    t.equal(clientAddress(proxy, forged, trustedProxies(['10.0.0.0/8'], 'forwarded')), '127.0.0.1')
    t.equal(clientAddress('192.0.2.1', forged, proxies), '192.0.2.1', 'of an untrusted peer neither counts')
  },
)

t.test('only so many trusted hops are followed', async (t) => {
  const hops = (count: number): string =>
    Array.from({ length: count }, (_, i) => `10.1.0.${i % 250}`).join(', ')
  t.equal(list(`198.51.100.7, ${hops(31)}`), '198.51.100.7')
  t.equal(list(`198.51.100.7, ${hops(32)}`), '10.1.0.0')
  t.equal(list(hops(1000)).startsWith('10.1.0.'), true)
})

t.test('an entry that is neither address nor network is refused when built', async (t) => {
  t.throws(() => trustedProxies(['10.0.0.0/8', 'proxy.example']), { message: '"proxy.example" is neither' })
})
