import t from 'tap'
import { readTrust } from '../../src/authn/certificate-trust.ts'
import type { CertificateMethod } from '../../src/core/policy.ts'
import * as der from '../support/der.ts'
import { authority, extension } from '../support/pki.ts'

const root = authority('Root')

interface Given {
  readonly from?: CertificateMethod['from']
  readonly ca: string
  readonly crl?: string
}

function trust({ from = 'tls', ca, crl }: Given): ReturnType<typeof readTrust> {
  const method: CertificateMethod = {
    ...{
      method: 'clientCertificate',
      from,
      caFile: '/ca.crt',
      crlFile: crl === undefined ? undefined : '/list.crl',
    },
    ...{ names: ['cn'], trustDomains: [], allow: [], header: 'x-forwarded-client-cert' },
  }
  const files: Record<string, string | undefined> = { '/ca.crt': ca, '/list.crl': crl }
  return readTrust(method, {
    readText: (file) => {
      const text = files[file]
      if (text === undefined) throw new Error('ENOENT')
      return text
    },
  })
}

t.test('authorities and their lists are read', async (t) => {
  const second = authority('Second')
  const { anchors, revocations } = trust({
    ca: root.certificate + second.certificate,
    crl: root.revocationList() + second.revocationList() + root.subordinate('Below').revocationList(),
  })
  t.equal(anchors.length, 2)
  t.equal(revocations?.length, 3)
  t.equal(trust({ ca: root.certificate }).revocations, undefined)
})

t.test('files that cannot be used are refused when the method is built, with what is wrong', async (t) => {
  const constrained = authority('Constrained', { extensions: [extension('2.5.29.30', der.sequence())] })
  const cases: [Given, RegExp][] = [
    [{ ca: '' }, /^the CA file \/ca\.crt holds no certificate in PEM$/],
    [
      { ca: root.certificate.slice(0, -20) },
      /^the CA file \/ca\.crt: a block -----BEGIN CERTIFICATE----- does not end$/,
    ],
    [{ ca: root.certificate.replace('MII', 'AAA') }, /^the CA file \/ca\.crt: certificate 1 cannot be read/],
    [
      { ca: root.issue({ cn: 'leaf' }).chain + root.certificate },
      /^certificate 1 of the CA file \/ca\.crt \(CN=leaf\) is not one of an authority/,
    ],
    [
      { ca: constrained.certificate, from: 'forwarded' },
      /\(CN=Constrained\) has name constraints, which are not evaluated/,
    ],
    [{ ca: root.certificate, crl: '' }, /^the CRL file \/list\.crl holds no revocation list/],
    [
      { ca: root.certificate, crl: authority('Root').revocationList() },
      /^list 1 of the CRL file \/list\.crl is not signed by CN=Root/,
    ],
    [
      { ca: root.certificate, crl: root.revocationList({ digest: 'sha1' }) },
      /^the CRL file \/list\.crl: revocation list 1 cannot be used/,
    ],
  ]
  for (const [given, message] of cases) t.throws(() => trust(given), { name: 'TokenMethodError', message })
  t.doesNotThrow(() => trust({ ca: constrained.certificate, from: 'tls' }), 'OpenSSL evaluates them')
})
