import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import fc from 'fast-check'
import t from 'tap'
import { readCertificate } from '../../src/authn/certificate.ts'
import { revocationListsOf } from '../../src/authn/revocation.ts'
import * as der from '../support/der.ts'
import { authority, extension, type RevocationOptions } from '../support/pki.ts'
import { holds } from '../support/property.ts'

const now = Math.floor(Date.now() / 1000) * 1000
const root = authority('Root')
const rootCertificate = readCertificate(root.x509)

t.test('a list says what is revoked, from when to when, and by whom', async (t) => {
  const alice = root.issue({ cn: 'alice' })
  const text = root.revocationList({ revoked: [alice, '80'], thisUpdate: now, nextUpdate: now + 60_000 })
  const [list] = revocationListsOf(`# from the authority\n${text}`)
  t.match(list, { thisUpdate: now, nextUpdate: now + 60_000 })
  t.same(list?.revoked, new Set([readCertificate(alice.x509).serial, '0080']))
  t.ok(list?.issuer.equals(rootCertificate.subject))
  t.equal(list?.isBy(rootCertificate), true)
})

t.test('a list without entries revokes nothing', async (t) => {
  for (const options of [{}, { extensions: [] }] as RevocationOptions[])
    t.equal(revocationListsOf(root.revocationList(options))[0]?.revoked.size, 0)
})

t.test('every key an authority may have can sign one', async (t) => {
  for (const keyType of ['ec', 'rsa', 'ed25519'] as const) {
    for (const digest of ['sha256', 'sha384', 'sha512'] as const) {
      const by = authority('A', { keyType })
      const [list] = revocationListsOf(by.revocationList({ digest }))
      t.equal(list?.isBy(readCertificate(by.x509)), true, `${keyType} ${digest}`)
      t.equal(list?.isBy(rootCertificate), false)
    }
  }
})

t.test(
  'a list is not that of another authority of the same name, nor of one that may sign none',
  async (t) => {
    const [list] = revocationListsOf(root.revocationList())
    t.equal(list?.isBy(readCertificate(authority('Root').x509)), false)
    t.equal(
      list?.isBy(readCertificate(authority('Root', { keyType: 'ed25519' }).x509)),
      false,
      'of another kind of key',
    )
    const certifying = authority('B', { keyUsage: 0x04 })
    t.equal(revocationListsOf(certifying.revocationList())[0]?.isBy(readCertificate(certifying.x509)), false)
  },
)

t.test('a list that may not be complete is refused: a delta, a part, entries of others', async (t) => {
  for (const id of ['2.5.29.27', '2.5.29.28', '1.2.3.4']) {
    const text = root.revocationList({ extensions: [extension(id, der.integer(1), true)] })
    t.throws(() => revocationListsOf(text), {
      message: `revocation list 1 cannot be used: it has the critical extension ${id}`,
    })
  }
})

t.test('a list that never ends, or is signed with something weak, is refused', async (t) => {
  t.throws(() => revocationListsOf(root.revocationList({ nextUpdate: undefined })), /does not say until when/)
  t.throws(
    () => revocationListsOf(root.revocationList({ digest: 'sha1' })),
    /signed with 1\.2\.840\.10045\.4\.1/,
  )
})

t.test('several lists are read in their order, and one that is damaged is named', async (t) => {
  const two = root.revocationList() + authority('Other').revocationList()
  t.equal(revocationListsOf(two).length, 2)
  t.same(revocationListsOf('none'), [])
  t.throws(() => revocationListsOf(root.revocationList() + der.pem('X509 CRL', Buffer.from('3003', 'hex'))), {
    message: 'revocation list 2 cannot be used: it ends too early',
  })
  t.throws(() => revocationListsOf(two.slice(0, -20)), /does not end/)
})

t.test('a list with any byte changed is refused, or is not by its authority', async (t) => {
  const text = root.revocationList({ revoked: ['42', '43'] })
  const raw = Buffer.from(text.replace(/-----[^-]*-----/g, ''), 'base64')
  holds(
    t,
    fc.property(fc.nat(raw.length - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
      const damaged = Buffer.from(raw)
      damaged[at] = (damaged[at] as number) ^ change
      try {
        return revocationListsOf(der.pem('X509 CRL', damaged))[0]?.isBy(rootCertificate) === false
      } catch (error) {
        return /^revocation list 1 cannot be used/.test((error as Error).message)
      }
    }),
    1000,
  )
})

t.test('lists that OpenSSL makes are read', async (t) => {
  const folder = t.testdir({})
  const openssl = (...args: string[]): void =>
    void execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' })
  try {
    openssl('version')
  } catch {
    t.comment('skipped: there is no openssl on this machine')
    return
  }
  mkdirSync(`${folder}/db`)
  const alice = root.issue({ cn: 'alice' })
  const files = { 'ca.crt': root.certificate, 'ca.key': root.key, 'alice.crt': alice.certificate }
  for (const [name, text] of Object.entries(files)) writeFileSync(`${folder}/${name}`, text)
  writeFileSync(`${folder}/db/index.txt`, '')
  writeFileSync(`${folder}/db/number`, '01\n')
  const section = 'database = db/index.txt\ncrlnumber = db/number\ndefault_md = sha256\ndefault_crl_days = 30'
  writeFileSync(`${folder}/ca.conf`, `[ca]\ndefault_ca = own\n[own]\n${section}\n`)
  const ca = ['ca', '-config', 'ca.conf', '-cert', 'ca.crt', '-keyfile', 'ca.key']
  openssl(...ca, '-revoke', 'alice.crt', '-crl_reason', 'keyCompromise')
  openssl(...ca, '-gencrl', '-out', 'list.pem')
  const [list] = revocationListsOf(readFileSync(`${folder}/list.pem`, 'utf8'))
  t.same(list?.revoked, new Set([readCertificate(alice.x509).serial]))
  t.equal(list?.isBy(rootCertificate), true)
})
