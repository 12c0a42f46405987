import { createPrivateKey } from 'node:crypto'
import { renameSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:https'
import { type AddressInfo, connect as connectPlain, type Socket } from 'node:net'
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls'
import t, { type Test } from 'tap'
import { certificateOf, loadTls, type TlsSettings } from '../../src/listen/tls.ts'
import {
  type Authority,
  authority,
  type CertificateOptions,
  type Issued,
  selfSigned,
} from '../support/pki.ts'

const day = 86_400_000
const root = authority('Root')
const server = root.issue({ cn: 'localhost', dns: ['localhost'], ips: ['127.0.0.1'], usage: 'server' })

interface Given {
  readonly cert?: string
  readonly key?: string
  readonly ca?: string | readonly string[] | undefined
  readonly crl?: string | undefined
  readonly minVersion?: TlsSettings['minVersion']
}

/** The files of a listener, and its settings. */
function files(
  t: Test,
  given: Given = {},
): TlsSettings & { readonly write: (name: string, text: string) => string } {
  const folder = t.testdir({})
  const write = (name: string, text: string): string => {
    const path = `${folder}/${name}`
    writeFileSync(`${path}.new`, text)
    renameSync(`${path}.new`, path)
    return path
  }
  const bundles = typeof given.ca === 'string' ? [given.ca] : given.ca
  return {
    certFile: write('tls.crt', given.cert ?? server.chain),
    keyFile: write('tls.key', given.key ?? server.key),
    minVersion: given.minVersion ?? 'TLSv1.2',
    handshakeTimeoutMs: 60_000,
    client: bundles && {
      caFiles: bundles.map((text, i) => write(`ca${i}.crt`, text)),
      crlFiles: given.crl === undefined ? [] : [write('list.crl', given.crl)],
    },
    write,
  }
}

interface Running {
  readonly server: Server
  readonly port: number
  /** What connects, and the connection as the server sees it. */
  readonly open: (options?: ConnectionOptions) => Promise<{ client: TLSSocket; accepted: TLSSocket }>
}

async function running(t: Test, settings: TlsSettings): Promise<Running> {
  const listener = createServer({ ...loadTls(settings, Date.now()).options, keepAliveTimeout: 60_000 })
  listener.on('request', (request, response) => {
    const shown = certificateOf(request.socket)
    response.end(shown === undefined ? 'none' : (shown.refusal ?? shown.x509.subject))
  })
  listener.on('tlsClientError', () => {})
  const sockets = new Set<Socket>()
  listener.on('connection', (socket: Socket) => sockets.add(socket))
  await new Promise<void>((listening) => listener.listen(0, '127.0.0.1', listening))
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    listener.close()
  })
  const { port } = listener.address() as AddressInfo
  const open: Running['open'] = (options = {}) =>
    new Promise((resolve, reject) => {
      let accepted: TLSSocket | undefined
      const done = (): void => {
        if (accepted !== undefined && client.getProtocol() !== null && secure) resolve({ client, accepted })
      }
      let secure = false
      listener.once('secureConnection', (socket: TLSSocket) => {
        accepted = socket
        done()
      })
      const client = connect({
        host: '127.0.0.1',
        port,
        ca: root.certificate,
        servername: 'localhost',
        ...options,
      })
      client.on('error', reject)
      client.on('secureConnect', () => {
        secure = true
        done()
      })
      t.teardown(() => client.destroy())
    })
  return { server: listener, port, open }
}

/** One request on a connection that stays. */
function ask(client: TLSSocket): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = ''
    const onData = (chunk: Buffer): void => {
      text += chunk.toString()
      const length = /content-length: (\d+)/i.exec(text)?.[1]
      const body = text.split('\r\n\r\n')[1]
      if (length === undefined || body === undefined || body.length < Number(length)) return
      client.off('data', onData)
      resolve(body)
    }
    client.on('data', onData)
    client.once('error', reject)
    client.once('close', () => reject(new Error('closed')))
    client.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
  })
}

const asClient = ({ chain, key }: Issued): ConnectionOptions => ({ cert: chain, key })

t.test('the listener speaks TLS 1.2 and 1.3, with ciphers of today, and HTTP/1.1 alone', async (t) => {
  const { open } = await running(t, files(t))
  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    const { client } = await open({
      minVersion: version,
      maxVersion: version,
      ALPNProtocols: ['h2', 'http/1.1'],
    })
    t.equal(client.getProtocol(), version)
    t.equal(client.alpnProtocol, 'http/1.1')
    t.equal(await ask(client), 'none')
  }
  await t.rejects(open({ minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' }))
  await t.rejects(
    open({ maxVersion: 'TLSv1.2', ciphers: 'ECDHE-ECDSA-AES128-SHA' }),
    'no cipher without authentication',
  )
  await t.rejects(open({ ALPNProtocols: ['h2'] }), 'nothing else than HTTP/1.1 is offered')
})

t.test('TLS 1.2 can be ruled out', async (t) => {
  const { open } = await running(t, files(t, { minVersion: 'TLSv1.3' }))
  t.equal((await open()).client.getProtocol(), 'TLSv1.3')
  await t.rejects(open({ maxVersion: 'TLSv1.2' }))
})

t.test('whoever does not finish the handshake is cut off', async (t) => {
  const { port } = await running(t, { ...files(t), handshakeTimeoutMs: 500 })
  const silent = connectPlain(port, '127.0.0.1')
  t.teardown(() => silent.destroy())
  await new Promise((closed) => silent.on('close', closed).on('error', () => {}))
  t.pass('within the time of the settings')
})

t.test('without client certificates none is asked for', async (t) => {
  const { open } = await running(t, files(t))
  const { client, accepted } = await open(asClient(root.issue({ cn: 'alice' })))
  t.equal(await ask(client), 'none')
  t.equal(certificateOf(accepted), undefined)
})

t.test('a client may present a certificate or none, and is answered either way', async (t) => {
  const team = root.subordinate('Team')
  const { open } = await running(t, files(t, { ca: root.certificate }))
  t.equal(await ask((await open()).client), 'none')
  for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
    const { client, accepted } = await open({ ...asClient(team.issue({ cn: 'alice' })), maxVersion })
    t.equal(await ask(client), 'CN=alice')
    const shown = certificateOf(accepted)
    t.equal(shown?.refusal, undefined)
    t.equal(shown?.x509.issuerCertificate?.subject, 'CN=Team', 'with what it sent along')
    t.equal(certificateOf(accepted), shown, 'looked at once')
  }
})

t.test(
  'a certificate that is not accepted comes with the reason of OpenSSL, not with a failed handshake',
  async (t) => {
    const other = authority('Other')
    const settings = files(t, { ca: root.certificate, crl: root.revocationList({ revoked: ['4242'] }) })
    const { open } = await running(t, settings)
    const options: Record<string, [CertificateOptions, Authority, string]> = {
      good: [{ cn: 'good' }, root, 'CN=good'],
      expired: [{ notAfter: Date.now() - 1000 }, root, 'CERT_HAS_EXPIRED'],
      'not yet valid': [{ notBefore: Date.now() + day }, root, 'CERT_NOT_YET_VALID'],
      'for servers': [{ usage: 'server' }, root, 'INVALID_PURPOSE'],
      revoked: [{ serial: '4242' }, root, 'CERT_REVOKED'],
      'of another authority': [{}, other, 'UNABLE_TO_VERIFY_LEAF_SIGNATURE'],
      'of an authority without a list': [{}, root.subordinate('No list'), 'UNABLE_TO_GET_CRL'],
    }
    for (const [name, [wanted, by, expected]] of Object.entries(options)) {
      const { client } = await open(asClient(by.issue({ cn: name, ...wanted })))
      t.equal(await ask(client), expected, name)
    }
    const without = await running(t, files(t, { ca: root.certificate }))
    const { client } = await without.open(asClient(selfSigned({ cn: 'mallory' })))
    t.equal(await ask(client), 'DEPTH_ZERO_SELF_SIGNED_CERT')
  },
)

t.test('no session is resumed: a verdict is of the handshake of its own connection', async (t) => {
  const settings = files(t, { ca: root.certificate })
  const alice = root.issue({ cn: 'alice' })
  const { open } = await running(t, settings)
  for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
    const first = await open({ ...asClient(alice), maxVersion })
    let session: Buffer | undefined
    first.client.on('session', (given: Buffer) => {
      session = given
    })
    t.equal(await ask(first.client), 'CN=alice')
    session ??= first.client.getSession()
    const again = await open({
      ...asClient(alice),
      maxVersion,
      ...(session === undefined ? {} : { session }),
    })
    t.equal(again.client.isSessionReused(), false, maxVersion)
    t.equal(await ask(again.client), 'CN=alice')
    // Nor does somebody get in with the session of another and no certificate.
    const without = await open({ maxVersion, ...(session === undefined ? {} : { session }) })
    t.equal(await ask(without.client), 'none')
  }
})

t.test('without client certificates sessions may be resumed, which spares a handshake', async (t) => {
  const { open } = await running(t, files(t))
  const first = await open({ maxVersion: 'TLSv1.2' })
  await ask(first.client)
  const session = first.client.getSession() as Buffer
  t.equal((await open({ maxVersion: 'TLSv1.2', session })).client.isSessionReused(), true)
})

t.test('a client cannot renegotiate', async (t) => {
  const { open } = await running(t, files(t, { ca: root.certificate }))
  const { client } = await open({ maxVersion: 'TLSv1.2' })
  await new Promise<void>((done) => {
    client.on('close', () => done())
    client.off('error', () => {})
    const asked = client.renegotiate({ rejectUnauthorized: true }, (error) => {
      t.type(error, Error)
      done()
    })
    t.equal(asked, true)
  })
})

t.test('files that change serve the connections to come; those that are open stay', async (t) => {
  const settings = files(t, { ca: root.certificate, crl: root.revocationList() })
  const { server: listener, open } = await running(t, settings)
  const alice = root.issue({ cn: 'alice' })
  const before = await open(asClient(alice))
  t.equal(await ask(before.client), 'CN=alice')

  const next = root.issue({ cn: 'next', dns: ['localhost'], usage: 'server', keyType: 'rsa' })
  settings.write('tls.crt', next.chain)
  settings.write('tls.key', next.key)
  settings.write('list.crl', root.revocationList({ revoked: [alice] }))
  listener.setSecureContext(loadTls(settings, Date.now()).options)

  t.equal(await ask(before.client), 'CN=alice', 'the connection lives on')
  const after = await open(asClient(alice))
  t.equal(after.client.getPeerX509Certificate()?.subject, 'CN=next')
  t.equal(await ask(after.client), 'CERT_REVOKED')
  t.equal(await ask((await open(asClient(root.issue({ cn: 'bob' })))).client), 'CN=bob')

  const other = authority('Other')
  settings.write('ca0.crt', root.certificate + other.certificate)
  settings.write('list.crl', root.revocationList() + other.revocationList())
  listener.setSecureContext(loadTls(settings, Date.now()).options)
  t.equal(await ask((await open(asClient(other.issue({ cn: 'carol' })))).client), 'CN=carol')
})

t.test('whether clients are asked for a certificate is settled when the listener is made', async (t) => {
  const without = files(t)
  const { server: listener, open } = await running(t, without)
  const caFiles = [without.write('ca.crt', root.certificate)]
  listener.setSecureContext(loadTls({ ...without, client: { caFiles, crlFiles: [] } }, Date.now()).options)
  t.equal(await ask((await open(asClient(root.issue({ cn: 'alice' })))).client), 'none')
})

t.test('a file that stands in the settings twice counts once', async (t) => {
  const settings = files(t, { ca: root.certificate, crl: root.revocationList() })
  const { caFiles = [], crlFiles = [] } = settings.client ?? {}
  const client = { caFiles: [...caFiles, ...caFiles], crlFiles: [...crlFiles, ...crlFiles] }
  const { options } = loadTls({ ...settings, client }, Date.now())
  t.same(
    [options.ca, options.crl].map((each) => Array.isArray(each) && each.length),
    [1, 1],
  )
})

t.test('a reload that fails changes nothing', async (t) => {
  const settings = files(t, { ca: root.certificate })
  const { server: listener, open } = await running(t, settings)
  settings.write('tls.key', root.issue({ cn: 'another' }).key)
  t.throws(() => listener.setSecureContext(loadTls(settings, Date.now()).options), /does not belong/)
  t.equal((await open()).client.getPeerX509Certificate()?.subject, 'CN=localhost')
})

t.test('files of which no listener can be made are refused by name', async (t) => {
  const { certificate, key } = server
  const encrypted = createPrivateKey(key).export({
    type: 'pkcs8',
    format: 'pem',
    cipher: 'aes-256-cbc',
    passphrase: 'x',
  })
  const middle = root.subordinate('Middle')
  const cases: [string, Given, RegExp][] = [
    ['another key', { key: root.key }, /tls\.key does not belong to the first certificate of .*tls\.crt/],
    ['an encrypted key', { key: encrypted as string }, /tls\.key is encrypted/],
    ['no key', { key: certificate }, /tls\.key holds no private key/],
    ['no certificate', { cert: key }, /tls\.crt holds no certificate/],
    ['an empty file', { cert: '' }, /tls\.crt holds no certificate/],
    ['no authority', { ca: [] }, /no CA file/],
    ['a CA file without a certificate', { ca: key }, /ca0\.crt holds nothing of the kind BEGIN CERTIFICATE/],
    [
      'a CA file that is damaged',
      { ca: certificate.replace(/M/g, 'A') },
      /ca0\.crt holds a certificate that cannot be read/,
    ],
    [
      'an authority without its root',
      { ca: [root.certificate, middle.chain, root.subordinate('X').subordinate('Y').certificate] },
      /ca2\.crt holds CN=Y without the authority above it/,
    ],
    [
      'no revocation list',
      { ca: root.certificate, crl: certificate },
      /list\.crl holds nothing of the kind BEGIN X509 CRL/,
    ],
    [
      'a damaged one',
      { ca: root.certificate, crl: root.revocationList().replace(/M/g, 'A') },
      /cannot be set up with .*list\.crl/,
    ],
  ]
  for (const [name, given, message] of cases)
    t.throws(() => loadTls(files(t, given), Date.now()), { name: 'TlsError', message }, name)
  const missing = { ...files(t), certFile: '/nowhere/tls.crt' }
  t.throws(() => loadTls(missing, 0), /the TLS certificate \/nowhere\/tls\.crt cannot be read: ENOENT/)
})

t.test('no message of a refusal holds anything of a key', async (t) => {
  const secret = server.key.split('\n')[1] as string
  for (const given of [
    { cert: server.key },
    { key: server.key.replace('PRIVATE', 'PUBLIC') },
    { ca: server.key },
  ]) {
    try {
      loadTls(files(t, given), Date.now())
      t.fail('must be refused')
    } catch (error) {
      t.notMatch(`${(error as Error).message} ${(error as Error & { cause?: Error }).cause?.message}`, secret)
    }
  }
})

t.test('a certificate that has ended or is about to is a warning: clients may not mind', async (t) => {
  const now = Date.now()
  const of = (options: CertificateOptions): ReturnType<typeof loadTls> => {
    const { certificate: cert, key } = root.issue({ usage: 'server', ...options })
    return loadTls(files(t, { cert, key }), now)
  }
  t.same(of({}).warnings, [])
  t.match(of({ notAfter: now - 1000 }).warnings, [/tls\.crt has expired at 20/])
  t.match(of({ notAfter: now + day / 2 }).warnings, [/tls\.crt expires at 20/])
  t.match(of({ notBefore: now + day }).warnings, [/tls\.crt is not valid before 20/])
  t.equal(of({ notAfter: now + 30 * day }).expiresAt, Math.floor((now + 30 * day) / 1000) * 1000)
})

t.test('a connection without TLS has no certificate', async (t) => {
  t.equal(certificateOf(connectPlain({ port: 1, host: '127.0.0.1' }).on('error', () => {})), undefined)
})
