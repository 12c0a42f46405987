import fc from 'fast-check'
import t from 'tap'
import type { NetworkPolicy } from '../../src/core/sandbox.ts'
import { isPublicAddress } from '../../src/core/special-addresses.ts'
import { EgressRules, type OwnMachine } from '../../src/egress/rules.ts'
import { holds } from '../support/property.ts'
import { allow } from './support.ts'

const own: OwnMachine = {
  ports: () => [8080, 9090],
  has: (address) => ['10.1.2.3', '203.0.114.9', 'fd00::9'].includes(address),
  reaches: (address) =>
    ['10.1.2.3', '203.0.114.9', 'fd00::9', '::1', '::', '0.0.0.0'].includes(address) ||
    address.startsWith('127.'),
}

const rules = (policy: NetworkPolicy): EgressRules => new EgressRules(policy, own)
const brief = (ruling: { allowed: boolean; rule: string } | undefined): string | undefined =>
  ruling && `${ruling.allowed ? '+' : '-'}${ruling.rule}`

t.test('names are allowed by exact rules and by wildcards below, never at the apex', async (t) => {
  const policy = rules(
    allow({ hosts: ['db.example.com', '*.api.example.com', '*.example.org', '*.b.example.org'] }),
  )
  const verdicts: Record<string, string> = {
    'db.example.com': '+host:db.example.com',
    'a.api.example.com': '+host:*.api.example.com',
    'a.b.api.example.com': '+host:*.api.example.com',
    'x.b.example.org': '+host:*.b.example.org',
    'b.example.org': '+host:*.example.org',
    'api.example.com': '-no-rule',
    'evil-db.example.com': '-no-rule',
    'evilapi.example.com': '-no-rule',
    'db.example.com.evil.com': '-no-rule',
    'a.db.example.com': '-no-rule',
    'example.com': '-no-rule',
    com: '-no-rule',
    'xapi.example.com': '-no-rule',
    '.api.example.com': '-no-rule',
  }
  for (const [name, verdict] of Object.entries(verdicts))
    t.equal(brief(policy.name(name, 443)), verdict, name)
})

t.test('a port that is not listed is refused, for names and addresses alike', async (t) => {
  const policy = rules(allow({ hosts: ['db.example.com'], cidrs: ['8.8.8.0/24'], ports: [443, 5432] }))
  t.equal(brief(policy.name('db.example.com', 5432)), '+host:db.example.com')
  t.equal(brief(policy.name('db.example.com', 80)), '-port')
  t.equal(brief(policy.literal('8.8.8.8', 443)), '+cidr:8.8.8.0/24')
  t.equal(brief(policy.literal('8.8.8.8', 53)), '-port')
})

t.test('ports alone allow nothing, and no policy but `open` allows anything by itself', async (t) => {
  const portsOnly = rules(allow({ ports: [443] }))
  t.equal(brief(portsOnly.name('example.com', 443)), '-no-rule')
  t.equal(brief(portsOnly.literal('8.8.8.8', 443)), '-no-rule')
  const nothing = rules({
    mode: 'none',
    hosts: [{ kind: 'any' }],
    cidrs: ['0.0.0.0/0'],
    ports: [],
    checkSni: false,
  })
  t.equal(brief(nothing.name('example.com', 443)), '-no-rule')
  t.equal(brief(nothing.literal('8.8.8.8', 443)), '-no-rule')
  const open = rules({ mode: 'open', hosts: [], cidrs: [], ports: [], checkSni: false })
  t.equal(brief(open.name('example.com', 1)), '+open')
  t.equal(brief(open.literal('169.254.169.254', 80)), '+open')
  t.equal(brief(open.literal('127.0.0.1', 8080)), '-own-port')
})

t.test('an address needs a CIDR of its own, whatever names resolve to it', async (t) => {
  const policy = rules(allow({ hosts: ['*'], cidrs: ['8.8.8.0/24', '2606:4700::/32'] }))
  t.equal(brief(policy.literal('8.8.8.8', 443)), '+cidr:8.8.8.0/24')
  t.equal(brief(policy.literal('::ffff:8.8.8.8', 443)), '+cidr:8.8.8.0/24')
  t.equal(brief(policy.literal('2606:4700::1', 443)), '+cidr:2606:4700::/32')
  t.equal(brief(policy.literal('8.8.4.4', 443)), '-no-rule')
  t.equal(brief(policy.literal('2606:4701::1', 443)), '-no-rule')
  t.equal(policy.resolved('8.8.4.4', 443), undefined)
})

t.test('a network opens of a denied range what lies inside it', async (t) => {
  const everything = rules(allow({ hosts: ['*'], cidrs: ['0.0.0.0/0', '::/0', '8.0.0.0/5', 'f000::/4'] }))
  const denied: Record<string, string> = {
    '0.0.0.0': '-denied-range:0.0.0.0/8',
    '10.0.0.1': '-denied-range:10.0.0.0/8',
    '100.64.0.1': '-denied-range:100.64.0.0/10',
    '127.0.0.1': '-denied-range:127.0.0.0/8',
    '169.254.1.1': '-denied-range:169.254.0.0/16',
    '172.31.255.255': '-denied-range:172.16.0.0/12',
    '192.168.0.1': '-denied-range:192.168.0.0/16',
    '198.19.0.1': '-denied-range:198.18.0.0/15',
    '192.0.2.1': '-denied-range:192.0.2.0/24',
    '224.0.0.1': '-denied-range:224.0.0.0/4',
    '255.255.255.255': '-denied-range:240.0.0.0/4',
    '::': '-denied-range:::/128',
    '::1': '-denied-range:::1/128',
    'fe80::1': '-denied-range:fe80::/10',
    'fd12::1': '-denied-range:fc00::/7',
    'ff02::1': '-denied-range:ff00::/8',
    '2001:db8::1': '-denied-range:2001:db8::/32',
    '::10.0.0.1': '-denied-range:::/3',
    '64:ff9b:1::1': '-denied-range:64:ff9b:1::/48',
    '169.254.169.254': '-metadata:169.254.169.254/32',
    '168.63.129.16': '-metadata:168.63.129.16/32',
    '100.100.100.200': '-metadata:100.100.100.200/32',
    'fd00:ec2::254': '-metadata:fd00:ec2::/32',
  }
  for (const [address, verdict] of Object.entries(denied)) {
    t.equal(brief(everything.literal(address, 443)), verdict, address)
    t.equal(brief(everything.resolved(address, 443)), verdict, `${address} by name`)
  }
  t.equal(brief(everything.literal('8.8.8.8', 443)), '+cidr:8.0.0.0/5')

  const opened = rules(
    allow({ cidrs: ['10.20.0.0/16', '169.254.0.0/16', '10.0.0.0/8', 'fd00::/8', '127.0.0.1/32'] }),
  )
  t.equal(brief(opened.literal('10.20.1.1', 443)), '+cidr:10.20.0.0/16')
  t.equal(brief(opened.literal('10.21.1.1', 443)), '+cidr:10.0.0.0/8')
  t.equal(opened.resolved('10.20.1.1', 443), undefined)
  t.equal(brief(opened.literal('169.254.20.10', 53)), '+cidr:169.254.0.0/16')
  t.equal(brief(opened.literal('169.254.169.254', 80)), '-metadata:169.254.169.254/32')
  t.equal(brief(opened.literal('fd00:ec2::254', 80)), '-metadata:fd00:ec2::/32')
  t.equal(brief(opened.literal('fd01::1', 80)), '+cidr:fd00::/8')
  t.equal(brief(opened.literal('127.0.0.1', 5432)), '+cidr:127.0.0.1/32')
  t.equal(brief(opened.literal('127.0.0.2', 5432)), '-denied-range:127.0.0.0/8')
  const exact = rules(allow({ cidrs: ['169.254.169.254/32', 'fd00:ec2::254/128'] }))
  t.equal(brief(exact.literal('169.254.169.254', 80)), '+cidr:169.254.169.254/32')
  t.equal(brief(exact.literal('fd00:ec2::254', 80)), '+cidr:fd00:ec2::254/128')
})

t.test('addresses that carry an IPv4 address are judged by it', async (t) => {
  const open = rules(allow({ hosts: ['*'], cidrs: ['::/0'] }))
  t.equal(brief(open.literal('64:ff9b::808:808', 443)), '+cidr:::/0', 'NAT64 of a public address')
  t.equal(brief(open.literal('64:ff9b::a00:1', 443)), '-denied-range:10.0.0.0/8', 'NAT64 of a private one')
  t.equal(brief(open.resolved('64:ff9b::a9fe:a9fe', 80)), '-metadata:169.254.169.254/32', 'NAT64 of metadata')
  t.equal(brief(open.literal('2002:7f00:1::1', 443)), '-denied-range:127.0.0.0/8', '6to4')
  t.equal(brief(open.literal('2001:0:808:808::f5ff:fffe', 443)), '-denied-range:10.0.0.0/8', 'Teredo client')
  t.equal(brief(open.literal('2001:0:a00:1::f7f7:f7f7', 443)), '-denied-range:10.0.0.0/8', 'Teredo server')
  t.equal(brief(open.literal('64:ff9b::7f00:1', 8080)), '-own-port', 'NAT64 of this machine')
  const nat64 = rules(allow({ hosts: ['*'], cidrs: ['10.0.0.0/8'] }))
  t.equal(nat64.resolved('64:ff9b::a00:1', 5432), undefined, 'a name behind DNS64')
  t.equal(brief(nat64.literal('64:ff9b::a00:1', 5432)), '-no-rule', 'but not as a literal')
})

t.test('addresses of this machine need a rule for the address itself', async (t) => {
  const wide = rules(allow({ hosts: ['*'], cidrs: ['10.0.0.0/8', '203.0.114.0/24', 'fd00::/16'] }))
  t.equal(brief(wide.literal('10.1.2.3', 5432)), '-own-address:10.1.2.3')
  t.equal(brief(wide.resolved('203.0.114.9', 443)), '-own-address:203.0.114.9', 'a public one, too')
  t.equal(brief(wide.literal('fd00::9', 443)), '-own-address:fd00::9')
  t.equal(brief(wide.resolved('64:ff9b::a01:203', 443)), '-own-address:10.1.2.3')
  t.equal(brief(rules(allow({ cidrs: ['10.1.2.3/32'] })).literal('10.1.2.3', 5432)), '+cidr:10.1.2.3/32')
})

t.test('no rule opens the ports of the sidecar itself', async (t) => {
  const all = [
    '127.0.0.0/8',
    '127.0.0.1/32',
    '::1/128',
    '10.1.2.3/32',
    '0.0.0.0/32',
    '::/128',
    '203.0.114.9/32',
  ]
  const policy = rules(allow({ hosts: ['*'], cidrs: all }))
  for (const address of [
    '127.0.0.1',
    '127.9.9.9',
    '::1',
    '0.0.0.0',
    '::',
    '10.1.2.3',
    '203.0.114.9',
    '::ffff:127.0.0.1',
  ]) {
    for (const port of own.ports()) {
      t.equal(brief(policy.literal(address, port)), '-own-port', `${address} ${port}`)
      t.equal(brief(policy.resolved(address, port)), '-own-port', `${address} ${port} by name`)
    }
  }
  t.equal(brief(policy.literal('127.0.0.1', 8081)), '+cidr:127.0.0.1/32')
})

t.test('any public name means public addresses, of all addresses', async (t) => {
  const policy = rules(allow({ hosts: ['*'], cidrs: ['0.0.0.0/0', '::/0'] }))
  holds(
    t,
    fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), fc.integer({ min: 1, max: 65_535 }), (address, port) => {
      fc.pre(!own.has(address) && !/^(2002|2001:0?0?0?0?:|64:ff9b)/i.test(address))
      const mapped = /ffff/i.test(address) && address.startsWith('::')
      return mapped || (policy.resolved(address, port) === undefined) === isPublicAddress(address)
    }),
    2000,
  )
})

t.test(
  'what one network allows, a policy of that network alone allows, and what lies outside it never',
  async (t) => {
    holds(
      t,
      fc.property(fc.ipV4(), fc.integer({ min: 0, max: 32 }), fc.ipV4(), (base, prefix, address) => {
        const bits = (ip: string): number => ip.split('.').reduce((sum, byte) => sum * 256 + Number(byte), 0)
        const inside =
          Math.floor(bits(base) / 2 ** (32 - prefix)) === Math.floor(bits(address) / 2 ** (32 - prefix))
        const ruling = rules(allow({ cidrs: [`${base}/${prefix}`] })).literal(address, 443)
        return inside ? ruling.allowed || ruling.rule !== 'no-rule' : !ruling.allowed
      }),
      1000,
    )
  },
)
