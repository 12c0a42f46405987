import fc from 'fast-check'
import t from 'tap'
import { envoyHeader, readForwarded } from '../../src/authn/forwarded-certificate.ts'
import { SidecarError } from '../../src/core/errors.ts'
import { authority } from '../support/pki.ts'
import { holds } from '../support/property.ts'

const root = authority('Root')
const middle = root.subordinate('Middle')
const alice = middle.issue({ cn: 'alice' })
const eve = middle.issue({ cn: 'eve' })

const encoded = (pem: string): string => encodeURIComponent(pem)
const base64 = (pem: string): string => pem.replace(/-----[^-]*-----|\s/g, '')
const envoy = (certificate: string, more = ''): string =>
  `By=spiffe://example.org/ns/a;Hash=${'ab'.repeat(32)};Cert="${encoded(certificate)}"${more}`

/** Subjects, that of the client first; or why there are none. */
function read(value: string, header = envoyHeader): string {
  try {
    const { leaf, given } = readForwarded(header, value)
    return [leaf, ...given].map(({ x509 }) => x509.subject.replace('CN=', '')).join(', ')
  } catch (error) {
    if (!(error instanceof SidecarError) || error.code !== 'ERR_AUTH_INVALID') throw error
    return error.detail ?? ''
  }
}

t.test('of x-forwarded-client-cert the certificate of the last element counts', async (t) => {
  t.equal(read(envoy(alice.certificate)), 'alice')
  t.equal(read(`${envoy(eve.certificate)},${envoy(alice.certificate)}`), 'alice')
  t.equal(read(`${envoy(eve.certificate)}, ${envoy(alice.certificate)}`), 'alice')
  t.equal(read(`cert=${encoded(alice.certificate)}`), 'alice', 'without quotes, whatever the letter case')
  const chain = `;Chain="${encoded(alice.chain)}"`
  t.equal(read(envoy(alice.certificate, chain)), 'alice, Middle')
  const names = ';Subject="CN=alice,O=\\"A, Inc;\\"";URI=spiffe://a/b;URI=;DNS=a;DNS=b'
  t.equal(read(envoy(alice.certificate, names)), 'alice', 'with names, which are not looked at')
})

t.test('names without a certificate are nothing that could be verified', async (t) => {
  for (const value of [
    'URI=spiffe://example.org/admin',
    'Hash=abcd;Subject="CN=admin";URI=spiffe://example.org/admin',
  ])
    t.equal(
      read(value),
      'the last element of x-forwarded-client-cert has no Cert: without it nothing can be verified',
    )
  t.match(read(`${envoy(alice.certificate)},URI=spiffe://example.org/admin`), /has no Cert/)
  t.match(read(`Chain="${encoded(alice.chain)}"`), /has no Cert/)
})

t.test('what a client puts in front takes nothing of the last element along', async (t) => {
  for (const before of [
    `Subject="`,
    `${envoy(eve.certificate)};Subject="`,
    `${envoy(eve.certificate)};Subject="a\\`,
    `${envoy(eve.certificate)},Subject="\\"`,
  ])
    t.equal(read(`${before},${envoy(alice.certificate)}`), 'alice', before.slice(-20))
  const text = fc.string({ unit: fc.constantFrom(...'",;=\\ aCert'.split('')), maxLength: 40 })
  holds(
    t,
    fc.property(
      text,
      (before) => read(`${envoy(eve.certificate)}${before},${envoy(alice.certificate)}`) === 'alice',
    ),
  )
})

t.test('an element that is malformed is refused', async (t) => {
  for (const value of [
    ',',
    ';',
    `${envoy(alice.certificate)},`,
    `${envoy(alice.certificate)};`,
    `${envoy(alice.certificate)};Subject="open`,
    `${envoy(alice.certificate)}x`,
    `${envoy(alice.certificate)};Cert="${encoded(eve.certificate)}"`,
    `${envoy(alice.certificate)};cert="${encoded(eve.certificate)}"`,
    `Cert="${alice.certificate}`,
  ])
    t.match(read(value), /malformed|quote that does not end/, value.slice(-30))
  t.match(read('Cert="%zz"'), /Cert of x-forwarded-client-cert cannot be read: URI malformed/)
  t.match(read('Cert="none"'), /is not one certificate/)
  t.match(read(`Cert="${encoded(alice.chain)}"`), /is not one certificate/)
  t.match(
    read(envoy(alice.certificate.replace('MII', 'AAA'))),
    /certificate 1 cannot be read: it is not X\.509/,
  )
})

t.test('any other header holds PEM, URL-encoded, as nginx writes it', async (t) => {
  t.equal(read(encoded(alice.certificate), 'ssl-client-cert'), 'alice')
  t.equal(read(encoded(alice.chain), 'ssl-client-cert'), 'alice, Middle')
  t.match(read('alice', 'ssl-client-cert'), /ssl-client-cert holds no certificate/)
  t.match(read('%', 'ssl-client-cert'), /cannot be read/)
  t.match(read(encoded(alice.certificate.repeat(11)), 'ssl-client-cert'), /more than 10 certificates/)
})

t.test('or the DER between colons, as RFC 9440 has it', async (t) => {
  t.equal(read(`:${base64(alice.certificate)}:`, 'client-cert'), 'alice')
  t.match(read(':AAAA:', 'client-cert'), /client-cert cannot be read/)
  t.match(read('::', 'client-cert'), /holds no certificate/)
  t.match(read(`:${base64(alice.certificate)}:, :AAAA:`, 'client-cert'), /holds no certificate/)
})

t.test('whatever a header holds, it is read or refused', async (t) => {
  const unit = fc.constantFrom(...'",;=\\ :%Cert'.split(''), 'Cert="', encoded(alice.certificate))
  holds(
    t,
    fc.property(
      fc.string({ unit, maxLength: 40 }),
      fc.constantFrom(envoyHeader, 'client-cert'),
      (value, header) => {
        read(value, header)
      },
    ),
    1000,
  )
})
