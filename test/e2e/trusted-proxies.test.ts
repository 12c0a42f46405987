import { request as httpRequest } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { TLSSocket } from 'node:tls'
import t, { type Test } from 'tap'
import type { ConfigError } from '../../src/config/load.ts'
import { configFile } from '../support/config-file.ts'
import { authority, type CertificateOptions, type Issued, selfSigned } from '../support/pki.ts'
import { RawConnection } from '../support/raw.ts'
import { refused } from '../support/refusal.ts'
import { explained, shapeOf } from '../support/refusals.ts'
import { startTestSidecar, type TestOptions, type TestSidecar } from '../support/sidecar.ts'
import { tunnel } from '../support/tls-clients.ts'
import { openVoices } from '../support/voices.ts'
import { waysInto } from '../support/ways-in.ts'
import { call, initialize, openSession, post, type RawResponse, send } from '../support/wire.ts'

type Headers = Record<string, string>

const clients = authority('Clients')
const servers = authority('Servers')
const spiffe = (path: string): CertificateOptions => ({ uris: [`spiffe://example.org/ns/${path}`] })
const alice = clients.issue(spiffe('alice'))
const bob = clients.issue(spiffe('bob'))
const revoked = clients.issue(spiffe('revoked'))
const files = {
  'ca.crt': clients.certificate,
  'ca.crl': clients.revocationList({ revoked: [revoked] }),
  tokens: 'robot:robot-token-0123456789\n',
}
const robot = { Authorization: 'Bearer robot-token-0123456789' }
const envoyHeader = 'x-forwarded-client-cert'

const escaped = ({ certificate }: Issued): string => encodeURIComponent(certificate)
const element = (client: Issued, more = ''): string =>
  `By=spiffe://example.org/proxy;Hash=${'ab'.repeat(32)};Cert="${escaped(client)}";URI=spiffe://example.org/ns/alice${more}`
const envoy = (client: Issued): Headers => ({ [envoyHeader]: element(client) })

const method = { from: 'forwarded', caFile: 'ca.crt', crlFile: 'ca.crl' }
const behind = (t: Test, document: object, options: TestOptions = {}): Promise<TestSidecar> =>
  startTestSidecar(t, {
    config: { server: { warmSpares: 0 } },
    ...options,
    flags: configFile(t, document, files),
  })
const listen = { webSocket: true, trustedProxies: ['127.0.0.1'] }
/** What each of these says of certificates and addresses is believed; the tests connect from 127.0.0.1. */
const trusting = await behind(t, { listen, auth: { clientCertificate: method } })
const distrusting = await behind(t, {
  listen: { ...listen, trustedProxies: ['192.0.2.1'] },
  auth: { clientCertificate: method },
})

const letIn = 400
const knock = async (url: string, headers: Headers = {}): Promise<number> =>
  (await send(url, 'DELETE', headers)).status
const lastPrincipal = ({ logs }: TestSidecar): unknown =>
  logs.findLast(({ fields }) => fields['principal'] !== undefined)?.fields['principal']

/** A proxy that ends the TLS of clients, takes any certificate, and says which it was. */
async function proxy(t: Test, to: string): Promise<number> {
  const { chain, key } = servers.issue({ dns: ['localhost'], ips: ['127.0.0.1'], usage: 'server' })
  const tls = { cert: chain, key, ca: clients.certificate, requestCert: true, rejectUnauthorized: false }
  const server = createServer(tls, (request, response) => {
    const x509 = (request.socket as TLSSocket).getPeerX509Certificate()
    const { [envoyHeader]: _, ...headers } = request.headers
    const said = x509 === undefined ? {} : { [envoyHeader]: `Cert="${encodeURIComponent(x509.toString())}"` }
    const { port, hostname } = new URL(to)
    const options = { port, hostname, method: request.method, path: request.url, agent: false }
    const onward = httpRequest({ ...options, headers: { ...headers, ...said } }, (answer) => {
      response.writeHead(answer.statusCode ?? 500, answer.headers)
      response.flushHeaders()
      answer.pipe(response)
    })
    onward.on('error', () => response.destroy())
    response.on('close', () => onward.destroy())
    request.pipe(onward)
  })
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

t.test('a proxy that ends TLS says whose certificate it was, and is believed', async (t) => {
  const port = await proxy(t, trusting.base)
  const ca = servers.certificate
  const there = await tunnel(t, port, { ca, cert: alice.chain, key: alice.key })
  for (const voice of await openVoices(there, {}, ['Streamable HTTP', 'HTTP+SSE', 'modern HTTP'])) {
    const { json } = await voice.ask('tools/call', { name: 'echo', arguments: { text: voice.name } })
    t.match(json, { result: { content: [{ text: voice.name }] } })
    t.equal(lastPrincipal(trusting), 'certificate:spiffe:spiffe://example.org/ns/alice')
  }
  const nobody = await tunnel(t, port, { ca })
  t.equal(await knock(nobody.url), 401, 'without a certificate')
  t.equal(await knock(nobody.url, envoy(alice)), 401, 'with one that it only claims')
  const own = selfSigned(spiffe('alice'))
  const forged = await tunnel(t, port, { ca, cert: own.chain, key: own.key })
  t.equal(await knock(forged.url), 401, 'with one that the proxy takes and we do not')
})

t.test('the forwarded certificate names the caller on every transport and in both eras', async (t) => {
  for (const voice of await openVoices(trusting, envoy(bob))) {
    const { json } = await voice.ask('tools/call', { name: 'pid', arguments: {} }, envoy(bob))
    t.type(json.result, 'object', voice.name)
    t.equal(lastPrincipal(trusting), 'certificate:spiffe:spiffe://example.org/ns/bob', 'not its URI field')
  }
  const session = await openSession(trusting.url, { headers: envoy(alice) })
  t.equal((await post(trusting.url, call(1, 'pid'), session)).status, 200)
  const foreign = { ...session, ...envoy(bob) }
  refused(t, await post(trusting.url, call(1, 'pid'), foreign), 404, 'ERR_SESSION_UNKNOWN', 1)
})

t.test('it may come as URL-encoded PEM or as base64 in another header', async (t) => {
  const header = 'x-client-cert'
  const { url } = await behind(t, { listen, auth: { clientCertificate: { ...method, header } } })
  t.equal(await knock(url, { [header]: escaped(alice) }), letIn)
  t.equal(await knock(url, { [header]: `:${alice.x509.raw.toString('base64')}:` }), letIn)
  t.equal(await knock(url, envoy(alice)), 401, 'the header of Envoy is another')
})

t.test('of several proxies the nearest is believed, not what a client wrote before it', async (t) => {
  const chain = (...elements: string[]): Headers => ({ [envoyHeader]: elements.join(',') })
  t.equal(await knock(trusting.url, chain(element(selfSigned(spiffe('alice'))), element(alice))), letIn)
  t.equal(await knock(trusting.url, chain(element(alice), element(selfSigned(spiffe('alice'))))), 401)
  t.equal(await knock(trusting.url, chain(element(alice), 'URI=spiffe://example.org/ns/alice')), 401)
  t.equal(await knock(trusting.url, chain(`Cert="`, element(alice))), letIn, 'an open quote hides nothing')
})

const wrong: Record<string, [Headers, RegExp]> = {
  nothing: [{}, /no credential for clientCertificate/],
  'an empty header': [{ [envoyHeader]: '' }, /no credential for clientCertificate/],
  'names alone': [{ [envoyHeader]: 'URI=spiffe://example.org/ns/alice' }, /has no Cert/],
  'a self-signed certificate': [envoy(selfSigned(spiffe('alice'))), /not accepted/],
  'one of another CA': [envoy(authority('Others').issue(spiffe('alice'))), /not accepted/],
  'one of a CA of the same name': [envoy(authority('Clients').issue(spiffe('alice'))), /not accepted/],
  'an expired one': [envoy(clients.issue({ ...spiffe('a'), notAfter: Date.now() - 1000 })), /EXPIRED/],
  'a revoked one': [envoy(revoked), /revoked/i],
  'one of a server': [envoy(clients.issue({ ...spiffe('a'), usage: 'server' })), /not accepted/],
  'the CA itself': [envoy(clients), /./],
  'no certificate at all': [{ [envoyHeader]: 'Cert="x"' }, /./],
  'a malformed header': [{ [envoyHeader]: ';;;' }, /malformed/],
  'a wrong escape': [{ [envoyHeader]: 'Cert="%zz"' }, /cannot be read/],
}

t.test('what a trusted proxy forwards is verified again, and every failure looks the same', async (t) => {
  const shapes = new Set<string>()
  for (const [what, [headers, reason]] of Object.entries(wrong)) {
    const { answer, why } = await explained(trusting.logs, () => post(trusting.url, initialize(), headers))
    refused(t, answer, 401, 'ERR_AUTH')
    t.match(why, reason, what)
    for (const way of Object.values(waysInto(trusting.base))) shapes.add(shapeOf(await way(headers)))
  }
  const { answer, why } = await explained(distrusting.logs, () =>
    post(distrusting.url, initialize(), envoy(alice)),
  )
  t.match(why, /x-forwarded-client-cert was sent by 127\.0\.0\.1, which is not a trusted proxy/)
  shapes.add(shapeOf(answer))
  for (const way of Object.values(waysInto(distrusting.base))) shapes.add(shapeOf(await way(envoy(alice))))
  t.equal(shapes.size, 1, [...shapes].join('\n'))
})

t.test('a header that stands twice is refused', async (t) => {
  const line = `${envoyHeader}: ${element(alice)}\r\n`
  const head = 'DELETE /mcp HTTP/1.1\r\nHost: localhost\r\n'
  const port = Number(new URL(trusting.url).port)
  t.equal((await new RawConnection(port).write(`${head}${line}\r\n`).answer()).status, letIn)
  t.equal((await new RawConnection(port).write(`${head}${line}${line}\r\n`).answer()).status, 401)
})

t.test('without a trusted proxy there are no forwarded certificates, and that is said at load', async (t) => {
  const thrown = await behind(t, { auth: { clientCertificate: method } }).catch((error: unknown) => error)
  t.match((thrown as ConfigError).problems, [{ where: /config\.yaml:\d+:\d+$/, message: /trustedProxies/ }])
})

const rules = [
  {
    principals: ['*'],
    permissions: [{ tools: ['echo'], actions: ['tools/call'] }],
    conditions: [{ type: 'IPAddress', value: '203.0.113.0/24, 2001:db8::/32', operator: 'In' }],
  },
]
const bearer = { bearer: { tokenFile: 'tokens' } }

t.test('a condition on the address is about the client behind the proxies', async (t) => {
  const proxies = ['127.0.0.1', '10.0.0.0/8']
  // One caller opens all sessions here.
  const limits = { processesPerPrincipal: 32 }
  const settings = { auth: bearer, authorization: { rules }, limits }
  const there = await behind(t, { ...settings, listen: { webSocket: true, trustedProxies: proxies } })
  const unbelieved = await behind(t, { ...settings, listen: { webSocket: true } })
  const may: [Headers, boolean][] = [
    [{}, false],
    [{ 'X-Forwarded-For': '203.0.113.9' }, true],
    [{ 'X-Forwarded-For': '198.51.100.1, 203.0.113.9, 10.1.2.3' }, true],
    [{ 'X-Forwarded-For': '203.0.113.9, 198.51.100.1' }, false],
    [{ 'X-Forwarded-For': '203.0.113.9, unknown' }, false],
    [{ 'X-Forwarded-For': '2001:db8::7' }, true],
    [{ 'X-Forwarded-For': '::ffff:203.0.113.9' }, true],
    [{ Forwarded: 'for=203.0.113.9;proto=https' }, true],
    [{ Forwarded: 'for="[2001:db8::7]:4711"' }, true],
    [{ Forwarded: 'for=203.0.113.9, for=198.51.100.1' }, false],
    [{ Forwarded: 'for=_hidden' }, false],
    [{ 'X-Real-IP': '203.0.113.9' }, false],
    [{ Forwarded: 'for=203.0.113.9', 'X-Forwarded-For': '203.0.113.9' }, true],
  ]
  for (const [headers, permitted] of may) {
    const all = { ...robot, ...headers }
    for (const voice of await openVoices(there, all)) {
      const { json } = await voice.ask('tools/call', { name: 'echo', arguments: {} }, all)
      t.equal('result' in json, permitted, `${voice.name}: ${JSON.stringify(headers)}`)
    }
    const [voice] = await openVoices(unbelieved, all, ['modern HTTP'])
    const told = await voice?.ask('tools/call', { name: 'echo', arguments: {} }, all)
    t.equal(told?.status, 403, 'nobody is believed who is not trusted')
  }
  const contradiction = { Forwarded: 'for=203.0.113.9', 'X-Forwarded-For': '198.51.100.1' }
  for (const way of Object.values(waysInto(there.base)))
    refused(t, await way({ ...robot, ...contradiction }), 400, 'ERR_HTTP')
})

t.test('a limit for each address counts clients apart, and those that lie in vain as one', async (t) => {
  const rateLimits = [{ per: 'ip', requests: 2, window: '1h' }]
  const there = await behind(t, { listen, auth: bearer, rateLimits })
  const unbelieved = await behind(t, { auth: bearer, rateLimits })
  const asked = async ({ base, url }: TestSidecar, address: string): Promise<number | undefined> => {
    const headers = { ...robot, 'X-Forwarded-For': address }
    const [voice] = await openVoices({ base, url }, headers, ['modern HTTP'])
    return (await voice?.ask('tools/call', { name: 'echo', arguments: {} }))?.status
  }
  for (const address of ['203.0.113.1', '203.0.113.2', '2001:db8:0:1::1'])
    t.same(
      [await asked(there, address), await asked(there, address), await asked(there, address)],
      [200, 200, 429],
    )
  t.equal(await asked(there, '2001:db8:0:1::2'), 429, 'the same /64')
  t.equal(await asked(there, '2001:db8:0:2::1'), 200, 'another')
  const tries = ['203.0.113.1', '203.0.113.2', '203.0.113.3']
  const got = []
  for (const address of tries) got.push(await asked(unbelieved, address))
  t.same(got, [200, 200, 429])
})

t.test('failed attempts are those of the client behind the proxy, not of the proxy', async (t) => {
  const there = await behind(t, { listen, auth: bearer }, { failedAttempts: 2 })
  const wrong = (address: string): Promise<RawResponse> =>
    post(there.url, initialize(), { Authorization: 'Bearer wrong-0123456789', 'X-Forwarded-For': address })
  for (const status of [401, 401, 429]) t.equal((await wrong('203.0.113.1')).status, status)
  t.equal((await wrong('203.0.113.2')).status, 401)
})
