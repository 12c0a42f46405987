import {
  Client as ClientV2,
  StreamableHTTPClientTransport as StreamableV2,
} from '@modelcontextprotocol/client'
import { Client as ClientV1 } from '@modelcontextprotocol/sdk/client/index.js'
import { SSEClientTransport as SseV1 } from '@modelcontextprotocol/sdk/client/sse.js'
import { StreamableHTTPClientTransport as StreamableV1 } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import type { Transport as TransportV1 } from '@modelcontextprotocol/sdk/shared/transport.js'
import t, { type Test } from 'tap'
import { startReport } from '../../src/report.ts'
import { startCli } from '../support/cli.ts'
import { configFile } from '../support/config-file.ts'
import { forwardClock } from '../support/forward-clock.ts'
import { signingKey } from '../support/jwt-keys.ts'
import { listenTo, streamed } from '../support/modern.ts'
import {
  type Authority,
  authority,
  type CertificateOptions,
  type Issued,
  selfSigned,
} from '../support/pki.ts'
import { RawConnection } from '../support/raw.ts'
import { refused } from '../support/refusal.ts'
import { explained, shapeOf } from '../support/refusals.ts'
import { secretVolume } from '../support/secret-volume.ts'
import {
  startTestSidecar,
  type TestOptions,
  type TestSidecar,
  testConfig,
  until,
} from '../support/sidecar.ts'
import { openSocket, openSse } from '../support/streams.ts'
import {
  type ClientTls,
  handshake,
  oneConnection,
  secureFetch,
  type Tunnel,
  tunnel,
} from '../support/tls-clients.ts'
import { openVoices } from '../support/voices.ts'
import { waysInto } from '../support/ways-in.ts'
import { WebSocketTransport } from '../support/web-socket-transport.ts'
import { call, follow, initialize, open, openSession, post, send } from '../support/wire.ts'

type Headers = Record<string, string>

const day = 86_400_000
const servers = authority('Servers')
const clients = authority('Clients')
const teams = clients.subordinate('Teams')
const strangers = authority('Clients')
const serverOf = (by: Authority = servers): Issued =>
  by.issue({ cn: 'mcp', dns: ['localhost'], ips: ['127.0.0.1'], usage: 'server' })
const own = serverOf()
const spiffe = (path: string): CertificateOptions => ({ uris: [`spiffe://example.org/ns/${path}`] })
const revoked = clients.issue(spiffe('revoked'))
const lists = (...gone: Issued[]): string =>
  clients.revocationList({ revoked: gone }) + teams.revocationList({ revoked: gone })

const signer = signingKey('k')
const issuer = 'https://issuer.example'
const resource = 'https://mcp.example/mcp'
const jwt = { issuer, jwksFile: 'jwks.json', audiences: [resource] }
const token = (sub: string): Headers => ({
  Authorization: `Bearer ${signer.token({ iss: issuer, aud: resource, sub, exp: Math.floor(Date.now() / 1000) + 600 })}`,
})
const others = {
  'jwks.json': JSON.stringify({ keys: [signer.jwk] }),
  tokens: 'robot:robot-token-0123456789\n',
}
const robot = { Authorization: 'Bearer robot-token-0123456789' }

/** What a client with this certificate connects with; without one it is nobody. */
const tlsOf = (client?: Issued, ca: Authority = servers): ClientTls => ({
  ca: ca.certificate,
  ...(client === undefined ? {} : { cert: client.chain, key: client.key }),
})

interface Setup {
  readonly certificate?: object
  readonly tls?: object
  readonly auth?: object
  readonly more?: object
  readonly files?: Readonly<Record<string, string>>
  readonly options?: TestOptions
}

interface Secured extends TestSidecar {
  readonly port: number
  /** A way in for every client of the tests, with this certificate. */
  as(client?: Issued, ca?: Authority): Promise<Tunnel>
  /** Other files through the `..data` link, then what SIGHUP does. */
  replace(files: Readonly<Record<string, string>>): Promise<void>
}

/** A sidecar behind TLS, its files in a volume as the kubelet mounts them. */
async function secured(
  t: Test,
  { certificate, tls, auth, more, files, options }: Setup = {},
): Promise<Secured> {
  const volume = secretVolume(t, {
    ...{ 'tls.crt': own.chain, 'tls.key': own.key, 'ca.crt': clients.certificate, 'ca.crl': lists(revoked) },
    ...files,
  })
  const document = {
    listen: {
      webSocket: true,
      tls: { certFile: volume.path('tls.crt'), keyFile: volume.path('tls.key'), ...tls },
    },
    auth: {
      ...(certificate === undefined
        ? {}
        : {
            clientCertificate: {
              caFile: volume.path('ca.crt'),
              crlFile: volume.path('ca.crl'),
              ...certificate,
            },
          }),
      ...auth,
    },
    ...more,
  }
  const flags = configFile(t, document, others)
  const all: TestOptions = { flags, config: { server: { warmSpares: 0 } }, ...options }
  const started = await startTestSidecar(t, all)
  const port = Number(new URL(started.url).port)
  return {
    ...started,
    port,
    as: (client, ca) => tunnel(t, port, tlsOf(client, ca)),
    replace: async (changed) => {
      volume.replace(changed)
      await started.sidecar.reload(await testConfig(all))
    },
  }
}

/** What a caller says to nothing but the door: past it, a session is missing. */
const knock = async (url: string, headers: Headers = {}): Promise<number> =>
  (await send(url, 'DELETE', headers)).status
const letIn = 400

const allow = [
  ...['spiffe://example.org/ns/*', 'https://clients.example/*', 'urn:x'],
  ...['*.clients.example', '*@clients.example'],
]
const mutual = await secured(t, { certificate: { trustDomains: ['example.org'], allow } })
const principals = ({ logs }: TestSidecar): unknown[] => [
  ...new Set(logs.flatMap(({ fields }) => fields['principal'] ?? [])),
]

t.test('the start report says https and wss, and what is asked for', async (t) => {
  const { fields } = startReport(mutual.sidecar)
  const base = `https://127.0.0.1:${mutual.port}`
  t.match(fields, {
    url: `${base}/mcp`,
    sseUrl: `${base}/sse`,
    webSocketUrl: `wss://127.0.0.1:${mutual.port}/ws`,
    clientConfig: { mcpServers: { sidecar: { type: 'http', url: `${base}/mcp` } } },
  })
  const enforced = fields['enforced'] as string[]
  t.ok(enforced.includes('authentication: client certificates'))
  t.ok(enforced.includes('TLS, TLSv1.2 or newer'))
})

t.test('every kind of name makes a principal, on every transport and in both eras', async (t) => {
  const named: Record<string, CertificateOptions> = {
    'certificate:spiffe:spiffe://example.org/ns/a/sa/b': spiffe('a/sa/b'),
    'certificate:uri:https://clients.example/x': {
      uris: ['https://clients.example/x'],
      dns: ['x.clients.example'],
    },
    'certificate:dns:a.clients.example': { dns: ['other.example', 'A.clients.example'] },
    'certificate:email:Ann@clients.example': { emails: ['Ann@Clients.Example'] },
  }
  for (const [id, options] of Object.entries(named)) {
    const there = await mutual.as(teams.issue({ cn: 'nobody', ...options }))
    for (const voice of await openVoices(there, {})) {
      const { json } = await voice.ask('tools/call', { name: 'echo', arguments: { text: voice.name } })
      t.match(json, { result: { content: [{ text: voice.name }] } }, `${id}, ${voice.name}`)
    }
    t.ok(principals(mutual).includes(id), `${id}, not ${principals(mutual).join(' ')}`)
  }
})

t.test('SDK clients connect over https and wss with the CA and a certificate', async (t) => {
  const tls = tlsOf(teams.issue(spiffe('sdk')))
  const fetch = secureFetch(tls)
  const base = `https://127.0.0.1:${mutual.port}`
  const echo = { name: 'echo', arguments: { text: 'from the SDK' } }
  const said = { content: [{ type: 'text', text: 'from the SDK' }] }
  const v1: Record<string, TransportV1> = {
    // biome-ignore lint/suspicious/noExplicitAny: the SDK's types do not go with exactOptionalPropertyTypes
    'Streamable HTTP': new StreamableV1(new URL(`${base}/mcp`), { fetch }) as any,
    'HTTP+SSE': new SseV1(new URL(`${base}/sse`), { fetch, eventSourceInit: { fetch } }),
  }
  for (const [name, transport] of Object.entries(v1)) {
    const client = new ClientV1({ name: 'test', version: '1' })
    await client.connect(transport)
    t.match(await client.callTool(echo), said, `SDK v1, ${name}`)
    await client.close()
  }
  const socket = (): WebSocketTransport =>
    new WebSocketTransport(new URL(`${base.replace('http', 'ws')}/ws`), tls)
  for (const [name, transport, mode] of [
    ['Streamable HTTP', new StreamableV2(new URL(`${base}/mcp`), { fetch }), { pin: '2026-07-28' }],
    ['Streamable HTTP', new StreamableV2(new URL(`${base}/mcp`), { fetch }), 'auto'],
    ['WebSocket', socket(), { pin: '2026-07-28' }],
    ['WebSocket', socket(), 'auto'],
  ] as const) {
    const client = new ClientV2({ name: 'test', version: '1' }, { versionNegotiation: { mode } })
    await client.connect(transport)
    t.match(await client.callTool(echo), said, `SDK v2, ${name}, ${JSON.stringify(mode)}`)
    await client.close()
  }
})

t.test('plain HTTP on the TLS port gets no answer and harms nobody', async (t) => {
  const connection = new RawConnection(mutual.port).write('POST /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n')
  await until(() => connection.ended || connection.closed, 'the connection ends')
  t.notMatch(connection.text, /HTTP\/|mcp/, 'nothing of HTTP in the clear')
  connection.close()
  await until(
    () => mutual.logs.some(({ fields }) => /^TLS: ERR_SSL_HTTP_REQUEST/.test(String(fields['detail']))),
    'the log says why',
  )
  const { url } = await mutual.as(teams.issue(spiffe('a')))
  t.equal(await knock(url), letIn)
})

t.test('old protocols and weak ciphers are not spoken', async (t) => {
  const weak = { ciphers: 'DEFAULT@SECLEVEL=0' }
  const only = (version: 'TLSv1.1' | 'TLSv1.2' | 'TLSv1.3'): ClientTls => ({
    ...tlsOf(),
    ...{ minVersion: version, maxVersion: version },
  })
  t.match(
    await handshake(mutual.port, { ...only('TLSv1.1'), ...weak }),
    /PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL/,
  )
  t.equal(await handshake(mutual.port, only('TLSv1.2')), 'TLSv1.2')
  t.equal(await handshake(mutual.port, only('TLSv1.3')), 'TLSv1.3')
  for (const ciphers of ['AES128-GCM-SHA256', 'ECDHE-ECDSA-AES128-SHA', 'NULL'])
    t.match(
      await handshake(mutual.port, { ...only('TLSv1.2'), ciphers: `${ciphers}@SECLEVEL=0` }),
      /HANDSHAKE_FAILURE|NO_CIPHER|closed|ECONNRESET/,
      ciphers,
    )
})

t.test(
  'a listener without client certificates speaks what it was told to, and waits for no handshake',
  async (t) => {
    const setup: Setup = { tls: { minVersion: 'TLSv1.3' }, auth: { bearer: { tokenFile: 'tokens' } } }
    const strict = await secured(t, setup)
    t.ok((startReport(strict.sidecar).fields['enforced'] as string[]).includes('TLS, TLSv1.3 or newer'))
    t.match(await handshake(strict.port, { ...tlsOf(), maxVersion: 'TLSv1.2' }), /PROTOCOL_VERSION/)
    const { url } = await strict.as()
    t.equal(await knock(url, robot), letIn)
    t.equal(
      await knock((await strict.as(teams.issue(spiffe('a')))).url),
      401,
      'a certificate is nothing here',
    )
    const limits = { headerTimeoutMs: 300 }
    const hasty = await secured(t, { ...setup, options: { config: { limits, server: { warmSpares: 0 } } } })
    const silent = new RawConnection(hasty.port)
    await until(() => silent.ended || silent.closed, 'who says nothing is left')
    const half = new RawConnection(hasty.port).write(Buffer.from('160301020001', 'hex'))
    await until(() => half.ended || half.closed, 'who stops in the middle, too')
    for (const each of [silent, half]) each.close()
    const there = await hasty.as()
    // On a busy machine an honest handshake may take longer than that, too.
    await until(
      async () => (await knock(there.url, robot).catch(() => undefined)) === letIn,
      'others are let in',
    )
  },
)

t.test('pages of this machine may come over https, others may not', async (t) => {
  const { url } = await mutual.as(teams.issue(spiffe('page')))
  for (const Origin of ['https://localhost:3000', `https://127.0.0.1:${mutual.port}`])
    t.equal(await knock(url, { Origin }), letIn, Origin)
  refused(t, await send(url, 'DELETE', { Origin: 'https://evil.example' }), 403, 'ERR_ORIGIN')
  refused(t, await send(url, 'DELETE', { Host: 'evil.example' }), 403, 'ERR_HOST')
})

const wrong: Record<string, [Issued | undefined, RegExp]> = {
  'no certificate': [undefined, /^auth: no credential for clientCertificate$/],
  'a self-signed one': [selfSigned(spiffe('a')), /SELF_SIGNED|UNABLE_TO_GET_CRL/],
  'one of another CA': [
    authority('Others').issue(spiffe('a')),
    /UNABLE_TO_GET_ISSUER|UNABLE_TO_VERIFY|SELF_SIGNED/,
  ],
  'one of a CA of the same name': [strangers.issue(spiffe('a')), /SIGNATURE|UNABLE_TO|SELF_SIGNED/],
  'an expired one': [clients.issue({ ...spiffe('a'), notAfter: Date.now() - 1000 }), /EXPIRED/],
  'one of tomorrow': [clients.issue({ ...spiffe('a'), notBefore: Date.now() + day }), /NOT_YET_VALID/],
  'a revoked one': [revoked, /REVOKED/],
  'one of a server': [clients.issue({ ...spiffe('a'), usage: 'server' }), /PURPOSE/],
  'another trust domain': [
    clients.issue({ uris: ['spiffe://example.com/ns/a'] }),
    /trust domain example\.com/,
  ],
  'a trust domain as a prefix': [clients.issue({ uris: ['spiffe://example.org.evil/ns/a'] }), /trust domain/],
  'a name that is not allowed': [
    clients.issue({ uris: ['https://other.example/'] }),
    /not one of those allowed/,
  ],
  'a SPIFFE ID beside another': [
    clients.issue({ uris: ['spiffe://example.org/ns/a', 'https://clients.example/x'] }),
    /beside another URI/,
  ],
  'a malformed SPIFFE ID': [clients.issue({ uris: ['spiffe://example.org/ns/../a'] }), /malformed SPIFFE ID/],
  'a wildcard': [clients.issue({ dns: ['*.clients.example'] }), /wildcard/],
  'a common name alone': [clients.issue({ cn: 'a.clients.example' }), /no name of these kinds/],
  'an authority itself': [clients, /./],
}

t.test('every certificate that does not hold gets the same 401 on every way in', async (t) => {
  const shapes = new Set<string>()
  for (const [what, [client, reason]] of Object.entries(wrong)) {
    const { base, url } = await mutual.as(client)
    const { answer, why } = await explained(mutual.logs, () => post(url, initialize()))
    refused(t, answer, 401, 'ERR_AUTH')
    t.match(why, reason, what)
    shapes.add(shapeOf(answer))
    for (const way of Object.values(waysInto(base))) shapes.add(shapeOf(await way({})))
  }
  t.equal(shapes.size, 1, [...shapes].join('\n'))
})

t.test('a session of one certificate is useless to another, and goes on with a renewed one', async (t) => {
  const [alice, renewed, bob] = [
    await mutual.as(teams.issue(spiffe('alice'))),
    await mutual.as(clients.issue(spiffe('alice'))),
    await mutual.as(teams.issue(spiffe('bob'))),
  ]
  const session = await openSession(alice.url)
  refused(t, await post(bob.url, call(1, 'pid'), session), 404, 'ERR_SESSION_UNKNOWN', 1)
  refused(t, await send(bob.url, 'DELETE', session), 404, 'ERR_SESSION_UNKNOWN')
  refused(
    t,
    await send(bob.url, 'GET', { ...session, Accept: 'text/event-stream' }),
    404,
    'ERR_SESSION_UNKNOWN',
  )
  const { url } = await mutual.as()
  t.equal((await post(url, call(1, 'pid'), session)).status, 401)
  const pid = (await post(alice.url, call(1, 'pid'), session)).body
  t.equal((await post(renewed.url, call(1, 'pid'), session)).body, pid)
})

/** One of every long way to a client. */
async function longWays({ base, url }: Tunnel) {
  const session = await openSession(url)
  const get = follow(await open(url, 'GET', { ...session, Accept: 'text/event-stream' }))
  const sse = await openSse(base, { version: '2024-11-05' })
  const socket = await openSocket(base, { version: '2025-06-18' })
  const listening = await streamed(url, listenTo('l', { toolsListChanged: true }))
  const all = { session, get, sse, socket, listening }
  const isOpen = (): boolean[] => [
    ...[!get.isClosed(), !sse.isClosed(), socket.closed() === undefined, !listening.isClosed()],
  ]
  await until(() => listening.messages.length > 0, 'the subscription begins')
  return { ...all, isOpen }
}
const allOpen = [true, true, true, true]

t.test('a renewed server certificate is for new connections; those that are open go on', async (t) => {
  const sidecar = await secured(t, { certificate: {} })
  const alice = teams.issue(spiffe('alice'))
  const before = await sidecar.as(alice)
  const ways = await longWays(before)
  const kept = oneConnection(t, sidecar.url, tlsOf(alice))
  t.equal((await kept.send('DELETE')).status, letIn)
  const shown = (): string => kept.socket.getPeerCertificate().serialNumber.toLowerCase()
  t.equal(shown(), own.serial)

  const newServers = authority('New servers')
  const renewed = serverOf(newServers)
  await sidecar.replace({ 'tls.crt': renewed.chain, 'tls.key': renewed.key })

  t.equal((await kept.send('DELETE')).status, letIn, 'the same connection')
  t.same(ways.isOpen(), allOpen)
  t.match(await ways.socket.request(call(1, 'echo', { text: 'x' })), { result: {} })
  t.match(
    await handshake(sidecar.port, tlsOf(alice)),
    /SELF_SIGNED|UNABLE_TO/,
    'the old CA is not enough now',
  )
  const after = await sidecar.as(alice, newServers)
  const { 'Mcp-Session-Id': id = '' } = ways.session
  const session = { 'Mcp-Session-Id': id, 'MCP-Protocol-Version': '2025-11-25' }
  t.equal((await post(after.url, call(1, 'echo'), session)).status, 200, 'the session goes on, too')
})

t.test('a revocation list and other authorities take effect on connections that are open', async (t) => {
  const sidecar = await secured(t, { certificate: {} })
  const [alice, bob] = [teams.issue(spiffe('alice')), clients.issue(spiffe('bob'))]
  const ways = { alice: await longWays(await sidecar.as(alice)), bob: await longWays(await sidecar.as(bob)) }
  const kept = {
    alice: oneConnection(t, sidecar.url, tlsOf(alice)),
    bob: oneConnection(t, sidecar.url, tlsOf(bob)),
  }
  for (const each of Object.values(kept)) t.equal((await each.send('DELETE')).status, letIn)

  await sidecar.replace({ 'ca.crl': lists(revoked, alice) })
  const { answer, why } = await explained(sidecar.logs, () => kept.alice.send('DELETE'))
  refused(t, answer, 401, 'ERR_AUTH')
  t.match(why, /revoked/i)
  await until(() => !ways.alice.isOpen().includes(true), 'what was opened with it ends')
  t.match(ways.alice.socket.closed(), { code: 4401 })
  t.equal((await kept.bob.send('DELETE')).status, letIn, 'nobody else is')
  t.same(ways.bob.isOpen(), allOpen)

  const next = authority('Next clients')
  await sidecar.replace({ 'ca.crt': next.certificate, 'ca.crl': next.revocationList() })
  refused(t, await kept.bob.send('DELETE'), 401, 'ERR_AUTH')
  await until(() => !ways.bob.isOpen().includes(true), 'their streams end')
  t.equal(await knock((await sidecar.as(next.issue(spiffe('carol')))).url), letIn)
})

t.test('the program takes what cert-manager writes, and of a bad key it says why it does not', async (t) => {
  const volume = secretVolume(t, { 'tls.crt': own.chain, 'tls.key': own.key, 'ca.crt': clients.certificate })
  const { config } = configFile(t, {
    listen: { tls: { certFile: volume.path('tls.crt'), keyFile: volume.path('tls.key') } },
    auth: { clientCertificate: { caFile: volume.path('ca.crt') } },
  })
  const cli = await startCli(t, ['--config', config])
  const port = Number(new URL(cli.url).port)
  t.match(cli.url, /^https:/)
  const alice = teams.issue(spiffe('alice'))
  const kept = oneConnection(t, cli.url, tlsOf(alice))
  t.equal((await kept.send('DELETE')).status, letIn)
  const serves = async (by: Authority): Promise<boolean> =>
    (await handshake(port, { ...tlsOf(alice, by) })).startsWith('TLS')

  const [second, third] = [authority('Second servers'), authority('Third servers')]
  const renewed = serverOf(second)
  volume.replace({ 'tls.crt': renewed.chain, 'tls.key': renewed.key })
  await until(() => serves(second), 'the second certificate is served', 10_000)

  const bad = serverOf(third)
  const notTaken = 'the new configuration was not taken; the old one stays in force'
  const badFiles: [Record<string, string>, RegExp][] = [
    [{ 'tls.crt': bad.chain }, /the TLS key \S+tls\.key does not belong to the first certificate/],
    [{ 'tls.crt': renewed.chain, 'tls.key': 'no key' }, /the TLS key \S+tls\.key holds no private key/],
    [
      { 'tls.key': renewed.key, 'ca.crt': teams.certificate },
      /ca\.crt holds CN=Teams without the authority above/,
    ],
  ]
  for (const [files, reason] of badFiles) {
    volume.replace(files)
    await cli.logged(notTaken, (line) => reason.test(String(line['reason'])))
    t.ok(await serves(second), 'the last good one is served')
    t.equal((await kept.send('DELETE')).status, letIn, 'to those who were let in')
  }
  volume.replace({ 'tls.crt': bad.chain, 'tls.key': bad.key, 'ca.crt': clients.certificate })
  await until(() => serves(third), 'a good one is taken again', 10_000)
  t.equal((await kept.send('DELETE')).status, letIn)
  t.notMatch(JSON.stringify(cli.lines), /PRIVATE KEY/)
})

t.test('with any, a certificate or a token lets in; a bad one of either does not', async (t) => {
  const sidecar = await secured(t, { certificate: {}, auth: { bearer: { tokenFile: 'tokens' } } })
  const [alice, nobody, gone] = [
    await sidecar.as(teams.issue(spiffe('alice'))),
    await sidecar.as(),
    await sidecar.as(revoked),
  ]
  t.equal(await knock(alice.url), letIn)
  t.equal(await knock(nobody.url, robot), letIn)
  t.equal(await knock(alice.url, robot), letIn)
  t.equal(await knock(gone.url, robot), letIn, 'the token is the first that is recognised')
  const shapes = new Set<string>()
  for (const [url, headers] of [
    [nobody.url, {}],
    [gone.url, {}],
  ] as const)
    shapes.add(shapeOf(await post(url, initialize(), headers)))
  t.equal(shapes.size, 1)
  t.equal(await knock(nobody.url, { Authorization: 'Bearer wrong-0123456789abc' }), 401)
  const session = await openSession(alice.url)
  refused(t, await post(nobody.url, call(1, 'pid'), { ...session, ...robot }), 404, 'ERR_SESSION_UNKNOWN', 1)
})

t.test('with all, a certificate and a token have to come together', async (t) => {
  const sidecar = await secured(t, { certificate: {}, auth: { jwt, require: 'all' } })
  const [alice, bob, nobody, gone] = [
    await sidecar.as(teams.issue(spiffe('alice'))),
    await sidecar.as(teams.issue(spiffe('bob'))),
    await sidecar.as(),
    await sidecar.as(revoked),
  ]
  const good = token('carol')
  for (const voice of await openVoices(alice, good)) {
    const { json } = await voice.ask('tools/call', { name: 'echo', arguments: { text: 'both' } })
    t.match(json, { result: { content: [{ text: 'both' }] } }, voice.name)
  }
  const both = `all:jwt:${issuer}|carol & certificate:spiffe:spiffe://example.org/ns/alice`
  t.ok(principals(sidecar).includes(both), 'both name the principal')
  for (const [what, url, headers] of [
    ['no token', alice.url, {}],
    ['no certificate', nobody.url, good],
    ['neither', nobody.url, {}],
    ['a revoked certificate', gone.url, good],
    ['a bad token', alice.url, { Authorization: `${good['Authorization']}x` }],
  ] as const) {
    const answer = await post(url, initialize(), headers)
    t.equal(answer.status, 401, what)
    refused(t, answer, 401, 'ERR_AUTH')
  }
  const session = await openSession(alice.url, { headers: good })
  refused(
    t,
    await post(alice.url, call(1, 'pid'), { ...session, ...token('eve') }),
    404,
    'ERR_SESSION_UNKNOWN',
    1,
  )
  refused(t, await post(bob.url, call(1, 'pid'), session), 404, 'ERR_SESSION_UNKNOWN', 1)
})

t.test('rules are about the name of the certificate', async (t) => {
  const id = 'spiffe://example.org/ns/alice'
  const rules = [
    { principals: [`user:${id}`], permissions: [{ tools: ['echo'], actions: ['tools/call'] }] },
    { principals: ['user:bob@example.org'], permissions: [{ tools: ['pid'], actions: ['tools/call'] }] },
  ]
  const sidecar = await secured(t, { certificate: {}, more: { authorization: { rules } } })
  const alice = await sidecar.as(teams.issue(spiffe('alice')))
  const bob = await sidecar.as(teams.issue({ emails: ['bob@EXAMPLE.org'] }))
  const other = await sidecar.as(teams.issue(spiffe('alice/other')))
  for (const [who, there, may] of [
    ['alice', alice, ['echo']],
    ['bob', bob, ['pid']],
    ['another', other, []],
  ] as const)
    for (const voice of await openVoices(there, {}))
      for (const name of ['echo', 'pid']) {
        const { json } = await voice.ask('tools/call', { name, arguments: { text: 'x' } })
        t.equal('result' in json, (may as readonly string[]).includes(name), `${who}, ${voice.name}, ${name}`)
      }
})

t.test('with all, rules may be about the certificate beside the token, of each request', async (t) => {
  const rules = [{ principals: ['user:spiffe://example.org/ns/alice'], tools: ['echo'] }]
  const auth = { jwt, require: 'all' }
  const sidecar = await secured(t, { certificate: {}, auth, more: { authorization: { rules } } })
  const alice = await sidecar.as(teams.issue(spiffe('alice')))
  const bob = await sidecar.as(teams.issue(spiffe('bob')))
  const headers = token('carol')
  const params = { name: 'echo', arguments: { text: 'x' } }
  for (const [there, may] of [
    [alice, true],
    [bob, false],
  ] as const)
    for (const voice of await openVoices(there, headers)) {
      const { json } = await voice.ask('tools/call', params)
      t.equal('result' in json, may, `${voice.name}, ${may}`)
    }
  const session = await openSession(alice.url, { headers })
  t.equal((await post(alice.url, call(1, 'echo'), session)).status, 200)
  t.equal((await post(bob.url, call(1, 'echo'), session)).status, 403, 'not by the session, but by who asks')
  const sse = await openSse(alice.base, { headers, version: '2024-11-05' })
  const foreign = await post(sse.endpoint.replace(alice.base, bob.base), call('b', 'echo'), headers)
  t.equal(foreign.status, 404, 'it is not his')
  sse.cut()
})

t.test('what a certificate opened ends with it, and no earlier', async (t) => {
  const clock = forwardClock()
  const sidecar = await secured(t, { certificate: {}, options: { clock } })
  const short = teams.issue({ ...spiffe('short'), notAfter: Date.now() + 120_000 })
  const kept = oneConnection(t, sidecar.url, tlsOf(short))
  t.equal((await kept.send('DELETE')).status, letIn)
  const ends = await longWays(await sidecar.as(short))
  const stays = await longWays(await sidecar.as(teams.issue(spiffe('long'))))
  clock.forward(60_000)
  t.same(ends.isOpen(), allOpen, 'not before')
  clock.forward(61_000)
  await until(() => !ends.isOpen().includes(true), `all are closed, not ${ends.isOpen()}`)
  t.match(ends.socket.closed(), { code: 4401 })
  const { answer, why } = await explained(sidecar.logs, () => kept.send('DELETE'))
  refused(t, answer, 401, 'ERR_AUTH')
  t.match(why, /CERT_HAS_EXPIRED/)
  t.same(stays.isOpen(), allOpen, 'those of one that lasts go on')
})
