import { domainToASCII } from 'node:url'
import fc from 'fast-check'
import t from 'tap'
import { hostEntry, hostRule } from '../../../src/config/permissions/hosts.ts'

const exact = (name: string) => ({ rule: { kind: 'exact', name } })
const below = (name: string) => ({ rule: { kind: 'below', name } })

t.test('names, wildcards and addresses become one canonical form', async (t) => {
  const cases: [written: string, wanted: unknown][] = [
    ['example.com', exact('example.com')],
    ['Example.COM', exact('example.com')],
    ['example.com.', exact('example.com')],
    ['db', exact('db')],
    ['localhost', exact('localhost')],
    ['_dns.example.com', exact('_dns.example.com')],
    ['xn--bcher-kva.example', exact('xn--bcher-kva.example')],
    ['1password.com', exact('1password.com')],
    ['*.example.com', below('example.com')],
    ['*.Example.com.', below('example.com')],
    ['*', { rule: { kind: 'any' } }],
    ['9.1.2.3', { cidr: '9.1.2.3/32' }],
    ['2606:4700:0::1', { cidr: '2606:4700::1/128' }],
    ['[2606:4700::1]', { cidr: '2606:4700::1/128' }],
    ['::ffff:9.1.2.3', { cidr: '9.1.2.3/32' }],
  ]
  for (const [written, value] of cases) t.same(hostEntry.parse(written), { ok: true, value }, written)
})

t.test('what is no host is refused, with what would be right', async (t) => {
  const cases: [written: unknown, wanted: string][] = [
    ['', 'is empty: give it a value or leave it out'],
    [null, 'is empty: give it a value or leave it out'],
    [443, 'must be text, not a number'],
    ['a\0b', 'must not contain a NUL character'],
    [
      'api*.example.com',
      '"api*.example.com" has a * that is not its whole first label: write *.example.com, or * for any public name',
    ],
    [
      'a.*.com',
      '"a.*.com" has a * that is not its whole first label: write *.example.com, or * for any public name',
    ],
    [
      '*.*.com',
      '"*.*.com" has a * that is not its whole first label: write *.example.com, or * for any public name',
    ],
    ['**', '"**" has a * that is not its whole first label: write *.example.com, or * for any public name'],
    ['*.', '"*." is not the name of a host'],
    [
      '.example.com',
      '".example.com" begins with a dot: write example.com for that name, *.example.com for those below it',
    ],
    ['..', '".." is not the name of a host'],
    ['a..b', '"a..b" is not the name of a host'],
    ['-a.example', '"-a.example" is not the name of a host'],
    ['https://example.com', '"https://example.com" has a scheme: write only the name of the host'],
    [
      'example.com/a',
      '"example.com/a" has a / in it: write only the name of the host; networks go into allowCIDR',
    ],
    ['10.0.0.0/8', '"10.0.0.0/8" has a / in it: write only the name of the host; networks go into allowCIDR'],
    ['example.com:443', '"example.com:443" has a port in it: write the name alone, ports go into allowPort'],
    ['[::1]:443', '"[::1]:443" has a port in it: write the name alone, ports go into allowPort'],
    ['me@example.com', 'this text has credentials in it: write only the name of the host'],
    ['a%41.com', '"a%41.com" has a % in it: write the plain name'],
    ['fe80::1%eth0', '"fe80::1%eth0" has a % in it: write the plain name'],
    ['a b', '"a b" has a blank or a control character in it'],
    ['bücher.example', '"bücher.example" is not in ASCII: write xn--bcher-kva.example'],
    ['*.bücher.example', '"*.bücher.example" is not in ASCII: write xn--bcher-kva.example'],
    ['ｅxample.com', '"ｅxample.com" is not in ASCII: write example.com'],
    ['127.1', '"127.1" is another spelling of the address 127.0.0.1: write that, if it is meant'],
    ['0x7f.1', '"0x7f.1" is another spelling of the address 127.0.0.1: write that, if it is meant'],
    ['2130706433', '"2130706433" is another spelling of the address 127.0.0.1: write that, if it is meant'],
    ['0177.0.0.1', '"0177.0.0.1" is another spelling of the address 127.0.0.1: write that, if it is meant'],
    ['*.10.1.2.3', '"*.10.1.2.3" is an address: it has no names below it'],
    ['999.1.1.1', '"999.1.1.1" is not the name of a host'],
    ['a.1', '"a.1" is not the name of a host'],
    ['xn--a.example', '"xn--a.example" is not the name of a host'],
    [`${'a'.repeat(64)}.com`, 'this text is not the name of a host'],
    [`${'a.'.repeat(127)}com`, 'this text is not the name of a host'],
  ]
  for (const [written, message] of cases)
    t.same(hostEntry.parse(written), { ok: false, faults: [{ path: [], message }] }, String(written))
})

t.test('where hosts are names, an address is refused, with where it belongs', async (t) => {
  const cases: [written: string, network: string][] = [
    ['9.1.2.3', '9.1.2.3/32'],
    ['169.254.169.254', '169.254.169.254/32'],
    ['[2606:4700::1]', '2606:4700::1/128'],
    ['::ffff:127.0.0.1', '127.0.0.1/32'],
  ]
  for (const [written, network] of cases) {
    const message = `"${written}" is an address, not a name: write ${network} under allowCIDR`
    t.same(hostRule.parse(written), { ok: false, faults: [{ path: [], message }] }, written)
  }
  t.same(hostRule.parse('*.Example.com'), { ok: true, value: below('example.com').rule })
})

t.test('where hosts may be addresses, only a public one is', async (t) => {
  const cases: [written: string, range: string, network: string][] = [
    ['169.254.169.254', '169.254.169.254/32', '169.254.169.254/32'],
    ['::ffff:169.254.169.254', '169.254.169.254/32', '169.254.169.254/32'],
    ['64:ff9b::a9fe:a9fe', '64:ff9b::/96', '64:ff9b::a9fe:a9fe/128'],
    ['10.1.2.3', '10.0.0.0/8', '10.1.2.3/32'],
    ['127.0.0.1', '127.0.0.0/8', '127.0.0.1/32'],
    ['169.254.1.1', '169.254.0.0/16', '169.254.1.1/32'],
    ['[::1]', '::1/128', '::1/128'],
    ['fe80::1', 'fe80::/10', 'fe80::1/128'],
    ['fd00:ec2::254', 'fd00:ec2::/32', 'fd00:ec2::254/128'],
  ]
  for (const [written, range, network] of cases) {
    const message = `"${written}" is in ${range}, which no list of hosts opens: write ${network} under allowCIDR (ToolHive's notation has none: write the profile in the sidecar's own)`
    t.same(hostEntry.parse(written), { ok: false, faults: [{ path: [], message }] }, written)
  }
})

const label = fc.stringMatching(/^[a-z]([a-z0-9-]{0,8}[a-z0-9])?$/).filter((text) => !/^..--/.test(text))
const name = fc.array(label, { minLength: 1, maxLength: 5 }).map((labels) => labels.join('.'))

t.test('property: a plain name stands for itself, however its letters are written', async () => {
  fc.assert(
    fc.property(name, fc.boolean(), fc.boolean(), (text, upper, dot) => {
      const written = `${upper ? text.toUpperCase() : text}${dot ? '.' : ''}`
      const [one, all] = [hostEntry.parse(written), hostEntry.parse(`*.${written}`)]
      return (
        JSON.stringify(one) === JSON.stringify({ ok: true, value: exact(text) }) &&
        JSON.stringify(all) === JSON.stringify({ ok: true, value: below(text) })
      )
    }),
  )
})

t.test('property: whatever is accepted is canonical, and reads as itself', async () => {
  const character = fc.constantFrom(...'aZ019.-*_:[]/%@ \\ü。０x', '\u00ad', '\u200d')
  const anything = fc.oneof(
    fc.string({ unit: 'grapheme' }),
    fc.string({ unit: character }),
    fc.ipV4Extended(),
    fc.ipV6(),
    fc.domain(),
  )
  fc.assert(
    fc.property(anything, (written) => {
      const first = hostEntry.parse(written)
      if (!first.ok) return true
      const shown = hostEntry.show(first.value)
      if ('cidr' in first.value) return /^[0-9.]+\/32$|^[0-9a-f:.]+\/128$/.test(shown)
      const again = hostEntry.parse(shown)
      const { rule } = first.value
      return (
        JSON.stringify(again) === JSON.stringify(first) &&
        (rule.kind === 'any' || (domainToASCII(rule.name) === rule.name && /^[a-z0-9._-]+$/.test(rule.name)))
      )
    }),
    { numRuns: 3000 },
  )
})
