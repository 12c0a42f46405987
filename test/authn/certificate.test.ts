import { X509Certificate } from 'node:crypto'
import t from 'tap'
import { certificatesOf, readCertificate } from '../../src/authn/certificate.ts'
import * as der from '../support/der.ts'
import { authority, type CertificateOptions, extension } from '../support/pki.ts'

const root = authority('Root', { pathLength: 1 })
const read = (options: CertificateOptions): ReturnType<typeof readCertificate> =>
  readCertificate(root.issue(options).x509)

t.test('a certificate is read as Node.js reads it, and more', async (t) => {
  const notAfter = Date.UTC(2060, 5, 1)
  const { x509, ...found } = read({ cn: 'alice', serial: '00ff10', notAfter, digest: 'sha384' })
  t.equal(found.notAfter, notAfter)
  t.equal(found.notAfter, Date.parse(x509.validTo))
  t.equal(found.notBefore, Date.parse(x509.validFrom))
  t.equal(found.serial, '00ff10')
  t.equal(found.fingerprint, x509.fingerprint256.replaceAll(':', '').toLowerCase())
  t.equal(found.signature, '1.2.840.10045.4.3.3')
  t.equal(found.ca, false)
  t.equal(found.keyUsage, 0x80)
  t.same(found.extendedKeyUsage, ['1.3.6.1.5.5.7.3.2'])
  t.ok(found.issuer.equals(readCertificate(root.x509).subject))
  t.notOk(found.issuer.equals(found.subject))
})

t.test('what an authority may do', async (t) => {
  t.match(readCertificate(root.x509), {
    ca: true,
    pathLength: 1,
    keyUsage: 0x06,
    extendedKeyUsage: undefined,
  })
  t.match(readCertificate(authority('Free').x509), { ca: true, pathLength: undefined })
})

t.test('an extension that stands twice is refused: each reader would believe another one', async (t) => {
  const again = extension('2.5.29.37', der.sequence(der.oid('1.3.6.1.5.5.7.3.1')))
  t.throws(() => read({ extensions: [again] }), {
    name: 'DerError',
    message: 'the extension 2.5.29.37 stands twice',
  })
})

t.test('what is beyond measure is refused', async (t) => {
  t.throws(() => read({ serial: '11'.repeat(33) }), /serial number beyond measure/)
  const many = Array.from({ length: 64 }, (_, i) => extension(`1.2.3.${i}`, der.nothing()))
  t.throws(() => read({ extensions: many }), /more than 64 extensions/)
})

t.test('a bundle is read in its order, and one that is damaged is refused as a whole', async (t) => {
  const two = root.certificate + authority('Second').certificate
  t.same(
    certificatesOf(`# ours\n${two}`).map(({ x509 }) => x509.subject),
    ['CN=Root', 'CN=Second'],
  )
  t.same(certificatesOf('nothing'), [])
  t.throws(() => certificatesOf(two.replace('-----END', '----END')), /does not end/)
  t.throws(
    () => certificatesOf(root.certificate + root.certificate.replace('MII', 'AAA')),
    /^certificate 2 cannot be read: it is not X\.509/,
  )
})

t.test('version 1 knows no restrictions, so that its certificates are refused', async (t) => {
  const [body, algorithm, signature] = parts(root.x509.raw)
  const fields = parts(body as Buffer).slice(1, -1)
  const old = der.sequence(der.sequence(...fields), algorithm as Buffer, signature as Buffer)
  t.throws(() => readCertificate(new X509Certificate(old)), /version 1/)
})

/** The elements of a sequence, read by nothing that is under test. */
function parts(sequence: Buffer): Buffer[] {
  const found: Buffer[] = []
  const head = (at: number): number =>
    (sequence[at + 1] ?? 0) < 128 ? 2 : 2 + ((sequence[at + 1] ?? 0) - 128)
  for (let at = head(0); at < sequence.length; ) {
    const size = head(at)
    const length = size === 2 ? (sequence[at + 1] ?? 0) : sequence.readUIntBE(at + 2, size - 2)
    found.push(sequence.subarray(at, at + size + length))
    at += size + length
  }
  return found
}
