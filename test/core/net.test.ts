import { BlockList, isIP } from 'node:net'
import fc from 'fast-check'
import t from 'tap'
import { addressGroup, addressSet, hostOf, isLoopback, plainAddress, urlHost } from '../../src/core/net.ts'
import { cpuMs } from '../support/cost.ts'
import { holds, shown } from '../support/property.ts'

t.test('loopback is 127.0.0.0/8, ::1 and the name localhost, and nothing that resembles them', async (t) => {
  for (const host of [
    '127.0.0.1',
    '127.255.255.254',
    '127.1.2.3',
    '::1',
    '[::1]',
    'localhost',
    '::ffff:127.0.0.1',
    '::FFFF:127.0.0.1',
    '[::ffff:127.0.0.1]',
  ])
    t.ok(isLoopback(host), host)
  const others = [
    ...['', '0.0.0.0', '::', '[::]', '10.0.0.1', '128.0.0.1', '::2', '::ffff:10.0.0.1', '::ffff:0:127.0.0.1'],
    ...['127.1', '127', '0x7f.0.0.1', '2130706433', '127.0.0.1.', '127.0.0.256', '127.0.0.1.evil.example'],
    ...[
      '127.evil.example',
      'localhost.evil.example',
      'evil-localhost',
      'localhost.',
      ' localhost',
      '127.0.0.1:80',
    ],
    ...[
      '[::1',
      '::1]',
      '[[::1]]',
      '::1%lo',
      'fe80::1',
      '::ffff:localhost',
      '::ffff:::1',
      '::ffff:[::1]',
      '[]',
    ],
  ]
  for (const host of others) t.notOk(isLoopback(host), shown(host))
})

t.test('of all addresses only those of 127.0.0.0/8 and ::1 are loopback', async (t) => {
  holds(
    t,
    fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), (address) => {
      fc.pre(!/^(0*:)*0*:?:0*1$/.test(address) && !/ffff/i.test(address))
      return isLoopback(address) === (isIP(address) === 4 && address.startsWith('127.'))
    }),
  )
  holds(
    t,
    fc.property(fc.ipV4(), (address) => isLoopback(`::ffff:${address}`) === isLoopback(address)),
  )
})

t.test('what is neither an address nor localhost is never loopback', async (t) => {
  const text = fc.oneof(
    fc.string(),
    fc
      .array(fc.constantFrom('127', '.', '0', '1', ':', '::1', '::ffff:', '[', ']', 'localhost', '%'), {
        maxLength: 8,
      })
      .map((parts) => parts.join('')),
  )
  holds(
    t,
    fc.property(text, (host) => {
      const bare = /^\[(.*)\]$/s.exec(host)?.[1] ?? host
      return !isLoopback(host) || bare === 'localhost' || isIP(bare) > 0
    }),
    1000,
  )
})

t.test('a host stands in a URL as RFC 3986 wants it', async (t) => {
  t.equal(urlHost('127.0.0.1'), '127.0.0.1')
  t.equal(urlHost('::1'), '[::1]')
  t.equal(urlHost('example.com'), 'example.com')
  holds(
    t,
    fc.property(fc.oneof(fc.ipV4(), fc.ipV6(), fc.domain()), (host) =>
      URL.canParse(`http://${urlHost(host)}:80/`),
    ),
  )
})

t.test('the host of an authority is without port, in lower case, without the dot of the root', async (t) => {
  const table: [string, string][] = [
    ['localhost', 'localhost'],
    ['LocalHost:8080', 'localhost'],
    ['example.com.', 'example.com'],
    ['example.com.:80', 'example.com'],
    ['[::1]:8080', '[::1]'],
    ['[FE80::1]', '[fe80::1]'],
    ['my_service:1', 'my_service'],
    ['10.0.0.1:65535', '10.0.0.1'],
  ]
  for (const [authority, host] of table) t.equal(hostOf(authority), host, authority)
})

t.test('what is no authority has no host', async (t) => {
  const texts = [
    ...[
      '',
      ':80',
      'a b',
      'a:',
      'a:b',
      'a:123456',
      'a:80:80',
      'user@a',
      'user:pass@localhost',
      'a/b',
      'a?b',
      'a#b',
    ],
    ...[
      'a\\b',
      'a%2eb',
      '[::1',
      '::1',
      '[]',
      '[::1]x',
      '[::1]:',
      '[fe80::1%25eth0]',
      'a,b',
      'a\nb',
      'a\n',
      'a\0',
      '*',
    ],
    ...['\u00e9.example', 'localhost\u3002', 'loc\u017fthost', 'a;b', "a'b", '[localhost]'],
  ]
  for (const text of texts) t.equal(hostOf(text), undefined, shown(text))
  t.equal(hostOf('.'), undefined, 'the root alone is no host')
})

t.test('any port, or none, gives the same host', async (t) => {
  holds(
    t,
    fc.property(
      fc.oneof(
        fc.domain(),
        fc.ipV4(),
        fc.ipV6().map((address) => `[${address}]`),
      ),
      fc.integer({ min: 0, max: 65_535 }),
      (host, port) => {
        const found = hostOf(host)
        return (
          found === host.toLowerCase() &&
          hostOf(`${host}:${port}`) === found &&
          hostOf(host.toUpperCase()) === found
        )
      },
    ),
  )
})

t.test('the host found is the one a URL parser finds', async (t) => {
  const authority = fc
    .array(
      fc.constantFrom(
        'a',
        'B',
        '.',
        '-',
        ':',
        '80',
        '@',
        '[',
        ']',
        '::1',
        '/',
        '\\',
        '?',
        '#',
        '%',
        ' ',
        'localhost',
        '127.0.0.1',
      ),
      { maxLength: 6 },
    )
    .map((parts) => parts.join(''))
  holds(
    t,
    fc.property(authority, (text) => {
      const host = hostOf(text)
      if (host === undefined || !URL.canParse(`http://${text}/`)) return true
      const { hostname } = new URL(`http://${text}/`)
      // Browsers read 80 as the address 0.0.0.80, and send that.
      return isIP(hostname) === 4 || hostname.replace(/\.$/, '') === host
    }),
    1000,
  )
})

t.test('a hostile authority costs no more than its length', async (t) => {
  for (const hostile of [`${'a.'.repeat(50_000)}!`, `[${':'.repeat(100_000)}!`]) {
    t.equal(hostOf(hostile), undefined)
    t.ok(cpuMs(() => hostOf(hostile)) < 250)
  }
})

t.test('an address has one spelling, whichever way it arrives', async (t) => {
  for (const [text, plain] of [
    ['192.0.2.1', '192.0.2.1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['::FFFF:192.0.2.1', '192.0.2.1'],
    ['::ffff:c000:201', '192.0.2.1'],
    ['0:0:0:0:0:ffff:c000:0201', '192.0.2.1'],
    ['2001:DB8:0:0:0::1', '2001:db8::1'],
    ['fe80::1%eth0', 'fe80::1'],
    ['::', '::'],
    ['::1', '::1'],
    ['64:ff9b::192.0.2.1', '64:ff9b::c000:201'],
  ] as const)
    t.equal(plainAddress(text), plain, text)
  for (const text of [
    '',
    '192.0.2',
    '0x7f.0.0.1',
    '192.0.2.01',
    '[::1]',
    '::1/64',
    'localhost',
    ' 192.0.2.1',
  ])
    t.equal(plainAddress(text), undefined, text)
})

t.test('hosts of one IPv6 network of 64 bits are one group, IPv4 addresses are each their own', async (t) => {
  for (const [address, group] of [
    ['192.0.2.1', '192.0.2.1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['2001:db8:1:2::1', '2001:db8:1:2::/64'],
    ['2001:db8::1', '2001:db8:0:0::/64'],
    ['2001:0db8:0000::', '2001:db8:0:0::/64'],
    ['::1', '0:0:0:0::/64'],
    ['::', '0:0:0:0::/64'],
    ['::1.2.3.4', '0:0:0:0::/64'],
    ['1:2:3:4:5:6:7::', '1:2:3:4::/64'],
    ['::2:3:4:5:6:7:8', '0:2:3:4::/64'],
    ['unknown', 'unknown'],
  ] as const)
    t.equal(addressGroup(address), group, address)
})

t.test(
  'whatever the last 64 bits are, the group is the same; and another for other first 64 bits',
  async (t) => {
    const part = fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 0xffff }))
    // All zeros could be an IPv4 address in another form.
    const head = fc.tuple(fc.integer({ min: 1, max: 0xffff }), part, part, part)
    const four = fc.tuple(part, part, part, part)
    const text = (groups: readonly number[]): string => groups.map((one) => one.toString(16)).join(':')
    holds(
      t,
      fc.property(head, four, four, (head, one, other) => {
        const group = `${text(head)}::/64`
        return [one, other].every((rest) => addressGroup(text([...head, ...rest])) === group)
      }),
    )
  },
)

t.test('a set of addresses knows those in its networks, in every spelling, and no others', async (t) => {
  const set = addressSet([
    '192.0.2.0/24',
    '198.51.100.7',
    '2001:db8::/32',
    '::ffff:203.0.113.0/120',
    'fe80::1',
  ])
  for (const address of [
    ...['192.0.2.0', '192.0.2.255', '::ffff:192.0.2.9', '::ffff:c000:209', '198.51.100.7'],
    ...['2001:db8:ffff::1', '2001:DB8::', '203.0.113.5', '::ffff:203.0.113.5', 'fe80::1%eth0'],
  ])
    t.ok(set.has(address), address)
  for (const address of [
    ...['192.0.3.0', '198.51.100.8', '2001:db9::', '203.0.114.0', 'fe80::2', '::1', '::c000:209', '', 'x'],
    ...['192.0.2', '192.0.2.0/24', '[2001:db8::1]', '64:ff9b::192.0.2.1'],
  ])
    t.notOk(set.has(address), address)
  t.notOk(addressSet([]).has('127.0.0.1'))
})

t.test('all of IPv6 is not all of IPv4, nor the other way round', async (t) => {
  t.notOk(addressSet(['::/0']).has('192.0.2.1'))
  t.notOk(addressSet(['::/0']).has('::ffff:192.0.2.1'))
  t.ok(addressSet(['::/0']).has('2001:db8::1'))
  t.notOk(addressSet(['0.0.0.0/0']).has('2001:db8::1'))
  t.ok(addressSet(['0.0.0.0/0']).has('::ffff:192.0.2.1'))
})

t.test('an entry that is neither address nor network is refused with its text', async (t) => {
  for (const entry of [
    ...['', 'example.com', '10.0.0.0/33', '10.0.0.0/', '10.0.0.0/-1', '10.0.0.0/8/8', '10.0.0/8', '::/129'],
    ...['fe80::1%eth0', '10.0.0.1 ', '*', '/8', '::ffff:10.0.0.0/95', '10.0.0.0/0x8'],
  ])
    t.throws(() => addressSet(['10.0.0.1', entry]), { message: JSON.stringify(entry) }, entry)
})

t.test('a network of IPv4 holds what a block list of Node.js holds', async (t) => {
  holds(
    t,
    fc.property(
      fc.ipV4(),
      fc.integer({ min: 0, max: 32 }),
      fc.ipV4(),
      fc.nat(32),
      (base, prefix, other, shared) => {
        const list = new BlockList()
        list.addSubnet(base, prefix, 'ipv4')
        // An address that begins like the network, so that both answers occur.
        const bits = (address: string): string =>
          address
            .split('.')
            .map((byte) => Number(byte).toString(2).padStart(8, '0'))
            .join('')
        const near = (bits(base).slice(0, shared) + bits(other).slice(shared)).match(/.{8}/g) ?? []
        const address = near.map((byte) => Number.parseInt(byte, 2)).join('.')
        return addressSet([`${base}/${prefix}`]).has(address) === list.check(address, 'ipv4')
      },
    ),
    2000,
  )
})
