import t, { type Test } from 'tap'
import { readCertificate } from '../../src/authn/certificate.ts'
import {
  type CertificateNames,
  type NameKind,
  NameRules,
  namesOf,
  trustDomainOf,
} from '../../src/authn/certificate-names.ts'
import type { SidecarError } from '../../src/core/errors.ts'
import * as der from '../support/der.ts'
import { alternativeNames, authority, type CertificateOptions, distinguishedName } from '../support/pki.ts'

const root = authority('Root')
const names = (options: CertificateOptions): CertificateNames =>
  namesOf(readCertificate(root.issue(options).x509))
const general = (
  ...all: readonly (readonly [tag: number, content: string | Uint8Array])[]
): CertificateNames => names({ extensions: [alternativeNames(...all)] })

t.test('names are read by their kind, in their order', async (t) => {
  const found = names({
    cn: 'Alice Example',
    uris: ['spiffe://example.org/a', 'https://example.org/'],
    dns: ['b.example', 'a.example'],
    emails: ['alice@example.org'],
    ips: ['127.0.0.1', '::1'],
  })
  t.same(found, {
    uri: ['spiffe://example.org/a', 'https://example.org/'],
    dns: ['b.example', 'a.example'],
    email: ['alice@example.org'],
    cn: ['Alice Example'],
  })
  t.same(names({}), { uri: [], dns: [], email: [], cn: [] })
})

t.test('a name that holds what looks like others is one name (CVE-2021-44532)', async (t) => {
  t.same(general([0x86, 'http://evil/,URI:spiffe://example.org/admin']).uri, [
    'http://evil/,URI:spiffe://example.org/admin',
  ])
  t.same(general([0x82, 'evil.example,DNS:admin.example']).dns, ['evil.example,DNS:admin.example'])
  t.same(general([0x82, 'evil"\\u002c']).dns, ['evil"\\u002c'])
  t.same(
    names({ cn: 'evil/CN=admin, subjectAltName=DNS:admin' }).cn,
    ['evil/CN=admin, subjectAltName=DNS:admin'],
    'nor is a common name a further attribute',
  )
})

t.test('names that are no plain text are refused: what reads them next may end at the NUL', async (t) => {
  for (const text of ['admin.example\0.evil.example', 'a b', 'a\n', '\x7f', 'ä.example', ''])
    t.throws(
      () => general([0x82, text]),
      { name: 'DerError', message: /dns that is no plain text/ },
      JSON.stringify(text),
    )
  t.throws(() => general([0x86, `https://${'a'.repeat(2048)}`]), /no plain text/)
  t.throws(() => general(...Array.from({ length: 101 }, () => [0x82, 'a'] as const)), /more than 100 names/)
})

t.test('other kinds of names count for nothing', async (t) => {
  const directory = der.tagged(4, distinguishedName(['2.5.4.3', der.utf8('admin')]))
  t.same(general([0xa0, der.sequence()], [0xa4, directory.subarray(2)], [0x88, '*'], [0x82, 'a']), {
    uri: [],
    dns: ['a'],
    email: [],
    cn: [],
  })
})

t.test('a common name counts when there is one, and it is plain text', async (t) => {
  const cn = (...values: Uint8Array[]): readonly string[] =>
    names({ subject: distinguishedName(...values.map((value) => ['2.5.4.3', value] as const)) }).cn
  t.same(cn(der.utf8('Jörg')), ['Jörg'])
  t.same(cn(der.tlv(0x13, Buffer.from('printable'))), ['printable'])
  t.same(cn(der.tlv(0x16, Buffer.from('a@b'))), ['a@b'])
  t.same(cn(der.utf8('one'), der.utf8('two')), [], 'two')
  t.same(cn(der.utf8('a\0b')), [], 'a NUL')
  t.same(cn(der.utf8('')), [], 'empty')
  t.same(cn(der.utf8('a'.repeat(257))), [], 'too long')
  t.same(cn(der.tlv(0x13, Buffer.from([0x61, 0xe4]))), [], 'not ASCII')
  t.same(cn(der.tlv(0x1e, Buffer.from('\0a'))), [], 'of another encoding')
})

interface Rules {
  readonly names?: readonly NameKind[]
  readonly trustDomains?: readonly string[]
  readonly allow?: readonly string[]
}

function rules(given: Rules): NameRules {
  return new NameRules({
    names: ['spiffe', 'uri', 'dns', 'email', 'cn'],
    trustDomains: [],
    allow: [],
    ...given,
  })
}

const none: CertificateNames = { uri: [], dns: [], email: [], cn: [] }

function refused(t: Test, given: Rules, found: Partial<CertificateNames>, why: RegExp): void {
  try {
    t.fail(`chose ${rules(given).choose({ ...none, ...found }).name}`)
  } catch (error) {
    t.equal((error as SidecarError).code, 'ERR_AUTH_INVALID')
    t.match((error as SidecarError).detail, why)
  }
}

t.test('the first kind of the configuration that is there names the caller', async (t) => {
  const all = {
    uri: ['https://a.example/x'],
    dns: ['Host.Example.'],
    email: ['Alice@Example.org'],
    cn: ['alice'],
  }
  for (const [wanted, expected] of [
    [['spiffe', 'uri'], { kind: 'uri', name: 'https://a.example/x' }],
    [['spiffe', 'dns'], { kind: 'dns', name: 'host.example' }],
    [['email', 'dns'], { kind: 'email', name: 'Alice@example.org' }],
    [['cn'], { kind: 'cn', name: 'alice' }],
  ] as const)
    t.same(rules({ names: wanted }).choose(all), expected)
  refused(
    t,
    { names: ['spiffe', 'dns'] },
    { cn: ['alice'], email: ['a@b'] },
    /no name of these kinds: spiffe, dns/,
  )
})

t.test('of several names of a kind the first that is allowed counts', async (t) => {
  const found = { ...none, dns: ['svc', 'svc.team-a', 'svc.team-a.cluster.local'] }
  t.equal(rules({}).choose(found).name, 'svc')
  t.equal(rules({ allow: ['*.team-a', '*.cluster.local'] }).choose(found).name, 'svc.team-a')
  refused(t, { allow: ['*.team-b'] }, found, /"svc" \(dns\), which is not one of those allowed/)
})

t.test('a name that is not allowed does not make room for a weaker kind', async (t) => {
  refused(t, { allow: ['alice'] }, { dns: ['evil.example'], cn: ['alice'] }, /not one of those allowed/)
})

t.test('a wildcard is nobody', async (t) => {
  refused(t, { names: ['dns'] }, { dns: ['*.example.org'] }, /wildcard/)
  refused(t, { names: ['dns'] }, { dns: ['a.example.org', '*.example.org'] }, /wildcard/)
})

t.test('a SPIFFE ID is the only URI, of a trust domain of ours, with a path', async (t) => {
  const id = 'spiffe://example.org/ns/team-a/sa/reader'
  const ours = { names: ['spiffe', 'dns'], trustDomains: ['example.org'] } as const
  t.same(rules(ours).choose({ ...none, uri: [id], dns: ['a'] }), { kind: 'spiffe', name: id })
  t.equal(
    rules({ names: ['spiffe'] }).choose({ ...none, uri: ['spiffe://other/x'] }).name,
    'spiffe://other/x',
  )
  t.equal(rules(ours).choose({ ...none, uri: ['https://a'], dns: ['a'] }).kind, 'dns', 'no SPIFFE ID at all')
  const dns = ['a.example']
  refused(t, ours, { uri: [id, 'https://a'], dns }, /beside another URI/)
  refused(t, ours, { uri: [id, id], dns }, /beside another URI/)
  refused(
    t,
    ours,
    { uri: ['spiffe://evil.example/ns/a'], dns },
    /trust domain evil\.example is not one of ours/,
  )
  refused(t, ours, { uri: ['spiffe://example.org'], dns }, /malformed/)
  refused(t, ours, { uri: ['SPIFFE://example.org/a'], dns }, /malformed/)
  refused(
    t,
    { ...ours, allow: ['spiffe://example.org/ns/team-b/*'] },
    { uri: [id], dns },
    /not one of those allowed/,
  )
})

t.test('what a SPIFFE ID is', async (t) => {
  for (const id of [
    'spiffe://a/b',
    'spiffe://example.org/ns/A_b-c.d/sa/x',
    'spiffe://a_b.c-d/1',
    'spiffe://a/...',
  ])
    t.ok(trustDomainOf(id), id)
  for (const id of [
    ...[
      '',
      'spiffe://',
      'spiffe:///a',
      'spiffe://a',
      'spiffe://a/',
      'spiffe://a/b/',
      'spiffe://a//b',
      'spiffe://A/b',
    ],
    ...[
      'spiffe://a:80/b',
      'spiffe://u@a/b',
      'spiffe://a/b?c',
      'spiffe://a/b#c',
      'spiffe://a/b%2fc',
      'spiffe://a/ä',
    ],
    ...[
      'spiffe://a/./b',
      'spiffe://a/../b',
      'spiffe://a/..',
      'https://a/b',
      ' spiffe://a/b',
      'spiffe://a/b\n',
    ],
    ...[`spiffe://${'a'.repeat(256)}/b`, `spiffe://a/${'b'.repeat(2048)}`],
  ])
    t.equal(trustDomainOf(id), undefined, id.slice(0, 40))
})

t.test('whether a name would still be accepted under other rules', async (t) => {
  const name = { kind: 'spiffe', name: 'spiffe://example.org/a' } as const
  t.ok(rules({}).accepts(name))
  t.ok(rules({ trustDomains: ['example.org'], allow: ['spiffe://*/a'] }).accepts(name))
  t.notOk(rules({ names: ['dns'] }).accepts(name))
  t.notOk(rules({ trustDomains: ['other'] }).accepts(name))
  t.notOk(rules({ allow: ['spiffe://*/b'] }).accepts(name))
})
