import { BlockList, isIP } from 'node:net'
import fc from 'fast-check'
import t from 'tap'
import { addressOf, cidr, single } from '../../../src/config/permissions/networks.ts'

t.test('networks without host bits are taken, in one spelling', async (t) => {
  const cases: [written: string, wanted: string][] = [
    ['10.0.0.0/8', '10.0.0.0/8'],
    ['0.0.0.0/0', '0.0.0.0/0'],
    ['192.168.1.7/32', '192.168.1.7/32'],
    ['::/0', '::/0'],
    ['2001:DB8:0:0::/32', '2001:db8::/32'],
    ['::ffff:10.0.0.0/104', '10.0.0.0/8'],
    ['::ffff:a00:1/128', '10.0.0.1/32'],
    ['64:ff9b::1.2.3.4/128', '64:ff9b::102:304/128'],
    ['::1.2.3.4/128', '::1.2.3.4/128'],
  ]
  for (const [written, value] of cases) t.same(cidr.parse(written), { ok: true, value }, written)
})

t.test('what is none is refused, with what would be right', async (t) => {
  const neither = (text: string): string =>
    `${text} is neither an IP address nor a network such as 10.0.0.0/8`
  const cases: [written: unknown, wanted: string][] = [
    ['10.0.0.1', '"10.0.0.1" has no prefix length: write 10.0.0.1/32'],
    ['::1', '"::1" has no prefix length: write ::1/128'],
    ['10.0.0.1/8', '"10.0.0.1/8" has bits behind its prefix: write 10.0.0.0/8, or 10.0.0.1/32'],
    ['10.20.30.40/12', '"10.20.30.40/12" has bits behind its prefix: write 10.16.0.0/12, or 10.20.30.40/32'],
    [
      '2001:db8::1/32',
      '"2001:db8::1/32" has bits behind its prefix: write 2001:db8::/32, or 2001:db8::1/128',
    ],
    ['1.2.3.4/0', '"1.2.3.4/0" has bits behind its prefix: write 0.0.0.0/0, or 1.2.3.4/32'],
    ['::ffff:0.0.0.0/90', '"::ffff:0.0.0.0/90" holds more than the IPv4-mapped addresses: write 0.0.0.0/0'],
    ['10.0.0.0/33', neither('"10.0.0.0/33"')],
    ['10.0.0.0/08', neither('"10.0.0.0/08"')],
    ['10.0.0.0/', neither('"10.0.0.0/"')],
    ['10.0.0.0/8/8', neither('"10.0.0.0/8/8"')],
    ['10.0.0/8', neither('"10.0.0/8"')],
    ['010.0.0.0/8', neither('"010.0.0.0/8"')],
    ['[::1]/128', neither('"[::1]/128"')],
    ['fe80::%1/64', neither('"fe80::%1/64"')],
    ['::/129', neither('"::/129"')],
    ['example.com/8', neither('"example.com/8"')],
    [8, 'must be text, not a number'],
  ]
  for (const [written, message] of cases)
    t.same(cidr.parse(written), { ok: false, faults: [{ path: [], message }] }, String(written))
})

const address = fc.oneof(fc.ipV4(), fc.ipV6())

t.test('property: the network that is advised holds the address, is taken, and reads as itself', async () => {
  fc.assert(
    fc.property(address, fc.nat(128), (written, length) => {
      const plain = addressOf(written)
      if (plain === undefined) return false
      const bits = isIP(plain) === 4 ? 32 : 128
      const prefix = length % (bits + 1)
      const parsed = cidr.parse(`${plain}/${prefix}`)
      const advised = parsed.ok
        ? parsed.value
        : / write (\S+), or /.exec(parsed.faults[0]?.message ?? '')?.[1]
      if (advised === undefined) return false
      const again = cidr.parse(advised)
      const [network = ''] = advised.split('/')
      const family = bits === 32 ? 'ipv4' : 'ipv6'
      const list = new BlockList()
      list.addSubnet(network, prefix, family)
      const one = cidr.parse(single(plain))
      return again.ok && again.value === advised && list.check(plain, family) && one.ok
    }),
    { numRuns: 2000 },
  )
})

t.test('property: a network is taken exactly when none of its last bits is set', async () => {
  fc.assert(
    fc.property(fc.nat(0xffffffff), fc.nat(32), (number, prefix) => {
      const text = [24, 16, 8, 0].map((shift) => (number >>> shift) & 255).join('.')
      const clean = BigInt(number) % (1n << BigInt(32 - prefix)) === 0n
      return cidr.parse(`${text}/${prefix}`).ok === clean
    }),
    {
      numRuns: 2000,
      examples: [
        [0, 0],
        [0x0a000000, 8],
        [1, 31],
        [0xffffffff, 32],
      ],
    },
  )
})
