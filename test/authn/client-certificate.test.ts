import { writeFileSync } from 'node:fs'
import { createServer, request as httpsRequest } from 'node:https'
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import type { Authenticator } from '../../src/authn/authenticator.ts'
import { certificateAuthenticator } from '../../src/authn/client-certificate.ts'
import { SidecarError } from '../../src/core/errors.ts'
import type { CertificateMethod } from '../../src/core/policy.ts'
import type { Clock, Identity, PresentedCertificate, Trusted } from '../../src/core/types.ts'
import { certificateOf, loadTls } from '../../src/listen/tls.ts'
import { systemClock } from '../../src/observe/clock.ts'
import { testAttempt, trusted } from '../support/attempts.ts'
import { authority, type CertificateOptions, type Issued, selfSigned } from '../support/pki.ts'

const day = 86_400_000
const root = authority('Root')
const middle = root.subordinate('Middle')
const id = 'spiffe://example.org/ns/team-a/sa/reader'
const proxy = '10.0.0.1'

interface Given extends Partial<Omit<CertificateMethod, 'method' | 'caFile' | 'crlFile'>> {
  readonly ca?: string
  readonly crl?: string
  readonly clock?: Clock
}

function authenticator({
  ca = root.certificate,
  crl,
  clock = systemClock,
  ...given
}: Given = {}): Authenticator {
  const method: CertificateMethod = {
    ...{ method: 'clientCertificate', from: 'tls', caFile: '/ca.crt' },
    crlFile: crl === undefined ? undefined : '/list.crl',
    ...{ names: ['spiffe', 'dns', 'email'], trustDomains: [], allow: [], header: 'x-forwarded-client-cert' },
    ...given,
  }
  const readText = (file: string): string => (file === '/ca.crt' ? ca : (crl ?? ''))
  return certificateAuthenticator(method, { clock, readText, trustsPeer: (address) => address === proxy })
}

/** The same times as the certificates have, moved by a test. */
function movedClock(): Clock & { shift: number } {
  const clock = { ...systemClock, shift: 0, epoch: () => Date.now() + clock.shift }
  return clock
}

/** The identity, or why there is none. */
function judged(
  method: Authenticator,
  request: Trusted,
  attempt = testAttempt(),
): Identity | string | undefined {
  try {
    const answer = method.authenticate(request, attempt)
    if (answer instanceof Promise) throw new Error('nothing here has to be waited for')
    return answer
  } catch (error) {
    if (!(error instanceof SidecarError)) throw error
    return `${error.code}: ${error.detail}`
  }
}

const idOf = (answer: Identity | string | undefined): string | undefined =>
  typeof answer === 'object' ? answer.id : answer

const presented = ({ x509 }: Issued, refusal?: string): Trusted =>
  trusted({}, { certificate: { x509, refusal } })

const forwarded = (issued: Issued, remoteAddress = proxy): Trusted =>
  trusted(
    {
      'x-forwarded-client-cert': `Cert="${encodeURIComponent(issued.certificate)}";Chain="${encodeURIComponent(issued.chain)}"`,
    },
    { remoteAddress },
  )

/** Certificates as our own listener hands them over after a real handshake. */
async function handshakes(
  t: Test,
): Promise<(client: Issued | undefined) => Promise<PresentedCertificate | undefined>> {
  const folder = t.testdir({})
  const own = root.issue({ cn: 'localhost', dns: ['localhost'], usage: 'server' })
  for (const [name, text] of Object.entries({ crt: own.chain, key: own.key, ca: root.certificate }))
    writeFileSync(`${folder}/${name}`, text)
  const { options } = loadTls(
    {
      ...{
        certFile: `${folder}/crt`,
        keyFile: `${folder}/key`,
        minVersion: 'TLSv1.2',
        handshakeTimeoutMs: 5000,
      },
      client: { caFiles: [`${folder}/ca`], crlFiles: [] },
    },
    Date.now(),
  )
  let seen: PresentedCertificate | undefined
  const server = createServer(options, (request, response) => {
    seen = certificateOf(request.socket)
    response.end()
  })
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  t.teardown(() => new Promise((closed) => server.close(closed)))
  const { port } = server.address() as AddressInfo
  return (client) =>
    new Promise((resolve, reject) => {
      const identity = client === undefined ? {} : { cert: client.chain, key: client.key }
      const tls = {
        host: '127.0.0.1',
        port,
        servername: 'localhost',
        ca: root.certificate,
        agent: false as const,
        ...identity,
      }
      httpsRequest(tls, (response) => response.resume().on('end', () => resolve(seen)))
        .on('error', reject)
        .end()
    })
}

t.test('the certificate of a handshake names the caller', async (t) => {
  const shake = await handshakes(t)
  const method = authenticator()
  const notAfter = Math.floor(Date.now() / 1000) * 1000 + 5 * day
  const client = middle.issue({
    cn: 'reader',
    uris: [id],
    dns: ['reader.example'],
    emails: ['r@example.org'],
    notAfter,
  })
  const certificate = await shake(client)
  t.equal(certificate?.refusal, undefined)
  const identity = judged(method, trusted({}, { certificate })) as Identity
  t.match(identity, {
    id: `certificate:spiffe:${id}`,
    method: 'clientCertificate',
    kind: 'user',
    subject: id,
    groups: [],
    scopes: undefined,
    claims: {
      issuer: 'CN=Middle',
      serial: client.x509.serialNumber,
      fingerprint256: client.x509.fingerprint256.replaceAll(':', '').toLowerCase(),
      uris: [id],
      dns: ['reader.example'],
      emails: ['r@example.org'],
      commonName: 'reader',
    },
    expiresAt: notAfter,
  })
  t.ok(method.vouchesFor(identity))
})

t.test('who presents none is not recognised; nothing is worked for', async (t) => {
  const shake = await handshakes(t)
  const attempt = testAttempt()
  t.equal(judged(authenticator(), trusted({}, { certificate: await shake(undefined) }), attempt), undefined)
  t.equal(
    judged(authenticator({ from: 'forwarded' }), trusted({}, { remoteAddress: proxy }), attempt),
    undefined,
  )
  const empty = trusted({ 'x-forwarded-client-cert': '' }, { remoteAddress: proxy })
  t.equal(
    judged(authenticator({ from: 'forwarded' }), empty, attempt),
    undefined,
    'a proxy whose client has none',
  )
  t.equal(attempt.work, 0)
})

t.test('a certificate that the handshake did not accept is refused with its reason', async (t) => {
  const shake = await handshakes(t)
  const cases: [string, Issued][] = [
    ['CERT_HAS_EXPIRED', root.issue({ dns: ['a'], notAfter: Date.now() - 1000 })],
    ['INVALID_PURPOSE', root.issue({ dns: ['a'], usage: 'server' })],
    ['DEPTH_ZERO_SELF_SIGNED_CERT', selfSigned({ cn: 'a', dns: ['a'] })],
    ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', authority('Other').issue({ dns: ['a'] })],
  ]
  for (const [reason, client] of cases) {
    const answer = judged(authenticator(), trusted({}, { certificate: await shake(client) }))
    t.equal(
      answer,
      `ERR_AUTH_INVALID: the client certificate was not accepted in the TLS handshake: ${reason}`,
    )
  }
})

t.test('a connection that is older than the files is judged by the files', async (t) => {
  const client = root.issue({ uris: [id] })
  const certificate = { x509: client.x509, refusal: undefined }
  const request = trusted({}, { certificate })
  const before = judged(authenticator({ crl: root.revocationList() }), request) as Identity
  t.equal(before.id, `certificate:spiffe:${id}`)

  const after = authenticator({ crl: root.revocationList({ revoked: [client] }) })
  t.match(judged(after, request), /^ERR_AUTH_INVALID: the client certificate is not accepted: CERT_REVOKED/)
  t.notOk(after.vouchesFor(before), 'and what it has opened ends')
  const others = authenticator({ ca: authority('Other').certificate })
  t.match(judged(others, request), /UNABLE_TO_GET_ISSUER_CERT_LOCALLY/)
  t.notOk(others.vouchesFor(before))
})

t.test('the authorities of a method are its own, whatever else the listener accepts', async (t) => {
  const other = authority('Other')
  const client = other.issue({ dns: ['a'] })
  t.match(judged(authenticator(), presented(client)), /UNABLE_TO_GET_ISSUER_CERT_LOCALLY/)
  t.equal(idOf(judged(authenticator({ ca: other.certificate }), presented(client))), 'certificate:dns:a')
})

t.test('a proxy that is trusted forwards certificates, which are verified here', async (t) => {
  const method = authenticator({
    from: 'forwarded',
    crl: root.revocationList() + middle.revocationList({ revoked: ['66'] }),
  })
  t.same(method.headers, ['x-forwarded-client-cert'])
  const identity = judged(method, forwarded(middle.issue({ uris: [id] }))) as Identity
  t.match(identity, {
    id: `certificate:spiffe:${id}`,
    method: 'clientCertificate',
    kind: 'user',
    subject: id,
  })
  t.ok(method.vouchesFor(identity))
  const cases: [Issued, RegExp][] = [
    [root.issue({ dns: ['a'], notAfter: Date.now() - 1000 }), /CERT_HAS_EXPIRED/],
    [root.issue({ dns: ['a'], usage: 'server' }), /INVALID_PURPOSE/],
    [middle.issue({ dns: ['a'], serial: '66' }), /CERT_REVOKED/],
    [selfSigned({ cn: 'a', dns: ['a'] }), /DEPTH_ZERO_SELF_SIGNED_CERT/],
    [authority('Root').issue({ dns: ['a'] }), /UNABLE_TO_GET_ISSUER_CERT_LOCALLY/],
    [root.issue({ cn: 'a' }), /no name of these kinds: spiffe, dns, email/],
    [root.issue({ dns: ['a\0b'] }), /cannot be read: a subjectAltName of type dns that is no plain text/],
  ]
  for (const [client, why] of cases) {
    const answer = judged(method, forwarded(client))
    t.match(answer, /^ERR_AUTH_INVALID: /)
    t.match(answer, why)
  }
})

t.test('the header of anybody else is forged', async (t) => {
  const method = authenticator({ from: 'forwarded' })
  const attempt = testAttempt()
  t.equal(
    judged(method, forwarded(root.issue({ uris: [id] }), '192.0.2.1'), attempt),
    'ERR_AUTH_INVALID: x-forwarded-client-cert was sent by 192.0.2.1, which is not a trusted proxy',
  )
  t.equal(attempt.work, 0, 'and nothing of it is read')
  const names = trusted({ 'x-forwarded-client-cert': `URI=${id}` }, { remoteAddress: proxy })
  t.match(judged(method, names), /has no Cert/)
})

t.test('another header holds the certificate alone', async (t) => {
  const method = authenticator({ from: 'forwarded', header: 'x-ssl-client-cert', names: ['cn'] })
  const client = root.issue({ cn: 'alice' })
  const request = trusted(
    { 'X-SSL-Client-Cert': encodeURIComponent(client.certificate) },
    { remoteAddress: proxy },
  )
  t.equal(idOf(judged(method, request)), 'certificate:cn:alice')
})

t.test('what was verified once is not verified again, as long as it holds', async (t) => {
  for (const from of ['tls', 'forwarded'] as const) {
    const clock = movedClock()
    const nextUpdate = Date.now() + 2 * day
    const method = authenticator({ from, clock, crl: root.revocationList({ nextUpdate }) })
    const client = root.issue({ uris: [id], notAfter: Date.now() + 5 * day })
    const request = from === 'tls' ? presented(client) : forwarded(client)
    const attempt = testAttempt()
    const first = judged(method, request, attempt)
    t.equal(attempt.work, 1)
    t.equal(judged(method, request, attempt), first, 'the same identity')
    t.equal(attempt.work, 1)
    clock.shift = 3 * day
    t.match(judged(method, request, attempt), /CRL_HAS_EXPIRED/, 'a list that ends ends it')
    t.equal(attempt.work, 2)
    clock.shift = 6 * day
    t.match(judged(method, request, attempt), /CERT_HAS_EXPIRED/)
  }
})

t.test('an address that has failed too often gets no signature verified', async (t) => {
  for (const from of ['tls', 'forwarded'] as const) {
    const client = root.issue({ uris: [id] })
    const attempt = Object.assign(testAttempt(), { limited: true })
    const request = from === 'tls' ? presented(client) : forwarded(client)
    t.match(judged(authenticator({ from }), request, attempt), /^ERR_RATE_LIMITED/)
  }
})

t.test('an authenticator that is built anew vouches for what its files still allow', async (t) => {
  const client = middle.issue({ uris: [id], notAfter: Date.now() + 5 * day })
  const given = authenticator({ from: 'forwarded' })
  const identity = judged(given, forwarded(client)) as Identity
  const lists = (options: { revoked?: (string | Issued)[] } = {}): string =>
    root.revocationList() + middle.revocationList(options)
  const vouches = (options: Given, other: Partial<Identity> = {}): boolean =>
    authenticator(options).vouchesFor({ ...identity, ...other })
  t.ok(vouches({}))
  t.ok(
    vouches({
      crl: lists({ revoked: ['1234'] }),
      trustDomains: ['example.org'],
      allow: ['spiffe://*/reader'],
    }),
  )
  t.ok(
    vouches({ ca: authority('New').certificate + root.certificate }),
    'an authority that is added changes nothing',
  )
  t.notOk(vouches({ crl: lists({ revoked: [client] }) }), 'revoked')
  t.notOk(vouches({ crl: root.revocationList({ revoked: [middle] }) }), 'its authority is revoked')
  t.ok(
    vouches({ crl: authority('New').revocationList({ revoked: [client] }) }),
    'by an authority that did not issue it',
  )
  t.notOk(vouches({ ca: authority('Root').certificate }), 'the anchor is gone')
  t.notOk(vouches({ names: ['dns'] }), 'the kind of name')
  t.notOk(vouches({ trustDomains: ['example.com'] }), 'the trust domain')
  t.notOk(vouches({ allow: ['spiffe://*/writer'] }), 'the name')
  const clock = movedClock()
  clock.shift = 6 * day
  t.notOk(vouches({ clock }), 'the end')
  t.notOk(vouches({}, { method: 'jwt' }), 'an identity of another method')
  t.notOk(vouches({}, { proof: 'abc' }))
  t.notOk(vouches({}, { id: 'jwt:x' }))
})

t.test('neither identity nor proof holds anything that proves it', async (t) => {
  const client = root.issue({ uris: [id] })
  const identity = judged(authenticator(), presented(client)) as Identity
  const body = client.certificate.split('\n')[3] as string
  t.notMatch(JSON.stringify(identity), body)
  const renewed = judged(authenticator(), presented(root.issue({ uris: [id] }))) as Identity
  t.equal(renewed.id, identity.id)
  t.not(renewed.proof, identity.proof, 'another certificate of the same name is another credential')
})

t.test('what no certificate could meet is refused when it is built', async (t) => {
  t.throws(() => authenticator({ names: [] }), { name: 'TokenMethodError', message: /^names is empty/ })
  for (const header of ['', 'X-Cert', 'a b', 'a\r\n'])
    t.throws(() => authenticator({ from: 'forwarded', header }), /is not the name of a header/)
  t.throws(() => authenticator({ ca: '' }), /holds no certificate/)
})

t.test('it challenges nobody and asks for no scopes', async (t) => {
  for (const from of ['tls', 'forwarded'] as const)
    t.match(authenticator({ from }), {
      name: 'clientCertificate',
      scheme: undefined,
      scopes: [],
      authorizationServers: [],
    })
  t.same(authenticator().headers, [])
})

const unreadable: CertificateOptions = { dns: Array.from({ length: 101 }, (_, i) => `a${i}.example`) }

t.test(
  'a certificate that Node.js accepts and that is beyond measure is refused, not an error',
  async (t) => {
    t.match(
      judged(authenticator(), presented(root.issue(unreadable))),
      /^ERR_AUTH_INVALID: .*more than 100 names/,
    )
  },
)
