import { isIP } from 'node:net'
import fc from 'fast-check'
import t from 'tap'
import { addressSet } from '../../src/core/net.ts'
import { embeddedIPv4, isPublicAddress, specialRangeOf } from '../../src/core/special-addresses.ts'
import { holds } from '../support/property.ts'

t.test('addresses of the public internet are public', async (t) => {
  for (const address of [
    '8.8.8.8',
    '1.1.1.1',
    '100.63.255.255',
    '172.32.0.1',
    '2606:4700:4700::1111',
    '2a00::1',
  ]) {
    t.ok(isPublicAddress(address), address)
  }
})

t.test('addresses of this machine, of private networks and for special purposes are not', async (t) => {
  const local = [
    '127.0.0.1',
    '127.9.9.9',
    '0.0.0.0',
    '::1',
    '::',
    'fe80::1',
    'fe80::1%eth0',
    '169.254.169.254',
  ]
  const own = [
    '10.0.0.1',
    '172.16.0.1',
    '172.31.255.255',
    '192.168.1.1',
    '100.64.0.1',
    'fd00::1',
    'fc00:ec2::254',
  ]
  const hidden = [
    '::ffff:10.0.0.1',
    '::ffff:8.8.8.8',
    '::ffff:a00:1',
    '64:ff9b::a00:1',
    '2002:a00:1::',
    '2001:0:1::1',
  ]
  const other = [
    '224.0.0.1',
    '255.255.255.255',
    '240.0.0.1',
    '192.0.2.1',
    '198.18.0.1',
    'ff02::1',
    '2001:db8::1',
  ]
  for (const address of [...local, ...own, ...hidden, ...other]) t.notOk(isPublicAddress(address), address)
})

t.test('what is no address is not a public one', async (t) => {
  for (const text of [
    '',
    'localhost',
    'example.com',
    '0x7f.1',
    '127.1',
    '2130706433',
    '[::1]',
    '8.8.8.8:80',
    ' 8.8.8.8',
  ]) {
    t.notOk(isPublicAddress(text), text)
  }
})

t.test('an IPv4 address inside an IPv6 one is never public', async (t) => {
  holds(
    t,
    fc.property(fc.ipV4(), fc.constantFrom('::ffff:', '64:ff9b::', '::'), (v4, prefix) => {
      return isIP(prefix + v4) === 6 && !isPublicAddress(prefix + v4)
    }),
  )
})

t.test('a special address is in the narrowest range that is known', async (t) => {
  const expected: Record<string, [cidr: string, metadata: boolean] | undefined> = {
    '8.8.8.8': undefined,
    '2606:4700::1': undefined,
    'not an address': undefined,
    '10.255.255.255': ['10.0.0.0/8', false],
    '::ffff:10.0.0.1': ['10.0.0.0/8', false],
    '11.0.0.0': undefined,
    '172.15.255.255': undefined,
    '172.16.0.0': ['172.16.0.0/12', false],
    '223.255.255.255': undefined,
    '239.255.255.255': ['224.0.0.0/4', false],
    '255.255.255.255': ['240.0.0.0/4', false],
    '169.254.169.253': ['169.254.0.0/16', false],
    '169.254.169.254': ['169.254.169.254/32', true],
    '169.254.170.2': ['169.254.170.2/32', true],
    '168.63.129.16': ['168.63.129.16/32', true],
    '168.63.129.17': undefined,
    '::': ['::/128', false],
    '::1': ['::1/128', false],
    'fd00:ec2::254': ['fd00:ec2::/32', true],
    'fd00:ec3::1': ['fc00::/7', false],
    '2001::1': ['2001::/32', false],
    '2001:1ff::1': ['2001::/23', false],
    '4000::1': ['4000::/2', false],
  }
  for (const [address, range] of Object.entries(expected)) {
    const found = specialRangeOf(address)
    t.same(found && [found.cidr, found.metadata], range, address)
  }
})

t.test('ranges of IPv4 are those that a block list has', async (t) => {
  holds(
    t,
    fc.property(fc.ipV4(), (address) => {
      const range = specialRangeOf(address)
      return range === undefined ? isPublicAddress(address) : addressSet([range.cidr]).has(address)
    }),
    2000,
  )
})

t.test('an IPv4 address that an IPv6 one leads to is found', async (t) => {
  const expected: Record<string, string[]> = {
    '64:ff9b::a00:1': ['10.0.0.1'],
    '64:ff9b::169.254.169.254': ['169.254.169.254'],
    '64:ff9b:0:0:0:0:0:1': ['0.0.0.1'],
    '64:ff9b::1:0:0': [],
    '64:ff9b:1::a00:1': [],
    '2002:7f00:1::': ['127.0.0.1'],
    '2002:c0a8:101:1::2': ['192.168.1.1'],
    '2001:0:a00:1::f5ff:fffe': ['10.0.0.1', '10.0.0.1'],
    '2001:db8::1': [],
    '::ffff:10.0.0.1': [],
    '10.0.0.1': [],
    'fe80::1%eth0': [],
    '': [],
  }
  for (const [address, inside] of Object.entries(expected)) t.same(embeddedIPv4(address), inside, address)
  holds(
    t,
    fc.property(fc.ipV4(), (address) => embeddedIPv4(`64:ff9b::${address}`)[0] === address),
  )
})
