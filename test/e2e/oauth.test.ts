import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import {
  Client,
  ClientCredentialsProvider,
  extractWWWAuthenticateParams,
  StreamableHTTPClientTransport,
} from '@modelcontextprotocol/client'
import t from 'tap'
import { configFile } from '../support/config-file.ts'
import { official } from '../support/everything.ts'
import { forwardClock } from '../support/forward-clock.ts'
import { identityProvider, type TokenWish } from '../support/identity-provider.ts'
import { ask, said, tool } from '../support/modern.ts'
import { Application, connectTo } from '../support/oauth-client.ts'
import { folder } from '../support/processes.ts'
import { refused } from '../support/refusal.ts'
import { explained } from '../support/refusals.ts'
import { startTestSidecar, type TestSidecar, until } from '../support/sidecar.ts'
import { openSocket, openSse } from '../support/streams.ts'
import { bearerTokens } from '../support/tokens.ts'
import { waysInto } from '../support/ways-in.ts'
import { call, follow, initialize, open, openSession, post, type RawResponse, send } from '../support/wire.ts'

const idp = await identityProvider(t, { scopes: ['mcp:read', 'mcp:write', 'mcp:admin', 'mcp:audit'] })
const clock = forwardClock()
const files = { secret: `${idp.client.secret}\n` }
const auth = {
  fetching: { allowHttp: true, allowPrivateAddresses: true },
  oidc: {
    issuer: idp.issuer,
    clientId: idp.client.id,
    clientSecretFile: 'secret',
    scopes: ['mcp:read'],
  },
}
const authorization = {
  scopes: [
    { tools: ['get-sum', 'echo'], scopes: ['mcp:write'] },
    { methods: ['tools/call'], tools: ['get-*', 'ec*'], scopes: ['mcp:audit'] },
  ],
  impliedScopes: { 'mcp:admin': ['mcp:read', 'mcp:write'] },
}
const origin = 'https://app.example'
const auditFile = join(folder(t), 'audit.log')
const everything = await startTestSidecar(t, {
  command: official('server-everything'),
  flags: configFile(t, { auth, authorization }, files),
  clock,
})
const sidecar = await startTestSidecar(t, {
  flags: configFile(
    t,
    {
      auth,
      authorization,
      audit: { destination: auditFile, includeRequestData: true, includeResponseData: true },
      listen: { webSocket: true, allowedOrigins: [origin] },
    },
    files,
  ),
  clock,
})
const { url, base, logs } = sidecar

/** Every token of these tests, for the last of them. */
const tokens = new Set<string>([idp.client.secret, idp.worker.secret])
async function tokenOf(wish: Partial<TokenWish> = {}): Promise<string> {
  const token = await idp.authorizationCode({ resource: url, scope: 'mcp:read', ...wish })
  tokens.add(token)
  return token
}
async function opaque(wish: Partial<TokenWish> = {}): Promise<string> {
  idp.format = 'opaque'
  try {
    return await tokenOf(wish)
  } finally {
    idp.format = 'jwt'
  }
}
const bearer = (token: string): Record<string, string> => ({ Authorization: `Bearer ${token}` })

/** `in`, or what the log says of the refusal. */
async function knock(token: string, { url, logs }: TestSidecar = sidecar): Promise<unknown> {
  const asked = (): Promise<RawResponse> => send(url, 'DELETE', bearer(token))
  const first = [await asked()]
  // Past the door a session is missed.
  if (first[0]?.status === 400) return 'in'
  const { answer, why } = await explained(logs, async () => first.pop() ?? (await asked()))
  return `${answer.status} ${why}`
}

const challengeOf = ({ headers }: RawResponse) =>
  extractWWWAuthenticateParams(
    new Response(null, { headers: { 'WWW-Authenticate': headers['www-authenticate'] ?? '' } }),
  )
const metadataUrl = (at: string): string => at.replace('/mcp', '/.well-known/oauth-protected-resource/mcp')

for (const era of ['legacy', 'modern'] as const) {
  t.test(
    `a stock client of the ${era} era goes from a URL to a tool call, and on to a further scope`,
    async (t) => {
      const application = new Application(idp.visit)
      const { client, loggedIn } = await connectTo(everything.url, application, era)
      t.equal(client.getProtocolEra(), era)
      t.equal(application.asked.length, 1, 'logged in once')
      const { origin } = new URL(everything.url)
      t.match(
        application.asked[0]?.searchParams.get('resource'),
        new RegExp(`^${origin}/?$`),
        'of all endpoints',
      )
      t.equal(application.asked[0]?.searchParams.get('code_challenge_method'), 'S256')
      t.equal(application.asked[0]?.searchParams.get('scope'), 'mcp:read')
      const { tools } = await client.listTools()
      t.ok(tools.some(({ name }) => name === 'get-sum'))
      t.match(
        await client.callTool({
          name: 'trigger-long-running-operation',
          arguments: { duration: 0, steps: 1 },
        }),
        {
          content: [{ type: 'text' }],
        },
      )
      t.equal(application.asked.length, 1, 'what needs no further scope asks for none')
      const sum = () => client.callTool({ name: 'get-sum', arguments: { a: 1, b: 41 } })
      t.match(await loggedIn(sum), { content: [{ text: /42/ }] })
      t.same(application.asked[1]?.searchParams.get('scope')?.split(' ').toSorted(), [
        ...['mcp:audit', 'mcp:read', 'mcp:write'],
      ])
      t.equal(application.asked.length, 2, 'one step for both scopes')
      t.equal(application.had.length, 2)
      t.match(await sum(), { content: [{ text: /42/ }] }, 'and no further one')
      for (const token of application.had) tokens.add(token)
      await client.close()
    },
  )
}

t.test('a stock client goes from a URL to a tool call over HTTP+SSE', async (t) => {
  const application = new Application(idp.visit)
  const { client } = await connectTo(`${base}/sse`, application, 'HTTP+SSE')
  t.match(await client.callTool({ name: 'pid' }), { content: [{ text: /^\d+$/ }] })
  for (const token of application.had) tokens.add(token)
  await client.close()
})

t.test('with the origin as the resource a stock client gets along on every endpoint', async (t) => {
  const { sidecar, base, config } = await startTestSidecar(t, { flags: configFile(t, { auth }, files) })
  const { policy } = config
  // The port is known only now.
  await sidecar.reload({ ...config, policy: { ...policy, auth: { ...policy.auth, resource: base } } })
  for (const [path, over] of [
    ['/sse', 'HTTP+SSE'],
    ['/mcp', 'legacy'],
    ['/mcp', 'modern'],
  ] as const) {
    const application = new Application(idp.visit)
    const { client } = await connectTo(`${base}${path}`, application, over)
    t.match(await client.callTool({ name: 'pid' }), { content: [{ text: /^\d+$/ }] }, over)
    for (const token of application.had) tokens.add(token)
    await client.close()
  }
})

t.test('a stock client on its own behalf gets its tokens with client credentials', async (t) => {
  const authProvider = new ClientCredentialsProvider({
    clientId: idp.worker.id,
    clientSecret: idp.worker.secret,
    expectedIssuer: idp.issuer,
  })
  const client = new Client({ name: 'oauth-test', version: '1' })
  await client.connect(new StreamableHTTPClientTransport(new URL(everything.url), { authProvider }))
  t.match(await client.callTool({ name: 'get-sum', arguments: { a: 1, b: 41 } }), {
    content: [{ text: /42/ }],
  })
  tokens.add(authProvider.tokens()?.access_token ?? '')
  await client.close()
})

t.test('the metadata is where clients look for it, for everybody', async (t) => {
  const challenge = challengeOf(await post(url, initialize()))
  const root = `${base}/.well-known/oauth-protected-resource`
  t.equal(challenge.resourceMetadataUrl?.href, root)
  const document = {
    resource: base,
    authorization_servers: [idp.issuer],
    scopes_supported: ['mcp:read'],
    bearer_methods_supported: ['header'],
  }
  for (const place of [root, `${root}/mcp`, `${root}/sse`, `${root}/ws`]) {
    const answer = await send(place, 'GET', { Origin: origin })
    t.equal(answer.status, 200)
    t.equal(answer.headers['content-type'], 'application/json')
    t.same(answer.json, document)
    t.equal(answer.headers['access-control-allow-origin'], origin)
    t.match(answer.headers.vary, /origin/i)
    t.equal((await send(place, 'HEAD')).body, '')
    refused(t, await send(place, 'POST'), 405, 'ERR_METHOD')
    refused(t, await send(place, 'GET', { Origin: 'https://evil.example' }), 403, 'ERR_ORIGIN')
  }
  for (const other of [
    '/.well-known/oauth-protected-resource/other',
    '/.well-known/oauth-authorization-server',
  ]) {
    refused(t, await send(base + other, 'GET'), 404, 'ERR_NOT_FOUND')
  }
})

t.test('a sidecar with one endpoint names that, and so does its challenge', async (t) => {
  const flags = configFile(t, { auth, listen: { httpSse: false } }, files)
  const { url, base } = await startTestSidecar(t, { flags })
  t.equal(challengeOf(await post(url, initialize())).resourceMetadataUrl?.href, metadataUrl(url))
  for (const place of [metadataUrl(url), `${base}/.well-known/oauth-protected-resource`]) {
    t.equal((await send(place, 'GET')).json.resource, url)
  }
})

t.test('pages of an allowed origin may read the challenge', async (t) => {
  const answer = await post(url, initialize(), { Origin: origin })
  t.equal(answer.status, 401)
  t.equal(answer.headers['access-control-allow-origin'], origin)
  t.match(answer.headers['access-control-expose-headers'], /www-authenticate/i)
})

t.test('without OAuth there is no metadata: 404 as JSON, and a challenge that names none', async (t) => {
  const { of, flags } = bearerTokens(t, 'alice')
  const { url, base } = await startTestSidecar(t, { flags })
  for (const path of ['', '/mcp']) {
    const answer = await send(`${base}/.well-known/oauth-protected-resource${path}`, 'GET', of('alice'))
    refused(t, answer, 404, 'ERR_NOT_FOUND')
  }
  t.equal((await post(url, initialize())).headers['www-authenticate'], 'Bearer')
})

t.test('challenges say what is wanted in the words that the SDK reads', async (t) => {
  const resourceMetadataUrl = new URL(metadataUrl(url))
  const stranger = await post(url, initialize())
  t.same(challengeOf(stranger), {
    ...{ resourceMetadataUrl, scope: 'mcp:read', error: undefined, errorDescription: undefined },
  })
  t.match(challengeOf(await post(url, initialize(), bearer('x'))), {
    ...{ resourceMetadataUrl, scope: 'mcp:read', error: 'invalid_token', errorDescription: /\w/ },
  })
  const bare = await post(url, initialize(), bearer(await tokenOf({ scope: 'mcp:audit' })))
  refused(t, bare, 403, 'ERR_SCOPE')
  t.match(challengeOf(bare), { resourceMetadataUrl, scope: 'mcp:read', error: 'insufficient_scope' })
})

const allScopes = ['mcp:audit', 'mcp:read', 'mcp:write']

t.test('one challenge names all scopes of the operation, whichever of them the token has', async (t) => {
  for (const scope of ['mcp:read', 'mcp:read mcp:write', 'mcp:read mcp:audit']) {
    const headers = bearer(await tokenOf({ scope }))
    const session = await openSession(url, { headers })
    const echo = call(1, 'echo', { text: 'x' })
    for (const answer of [await post(url, echo, session), await ask(url, tool(1, 'echo'), headers)]) {
      refused(t, answer, 403, 'ERR_SCOPE', 1)
      const { scope, error, resourceMetadataUrl } = challengeOf(answer)
      t.same(scope?.split(' ').toSorted(), allScopes)
      t.same(answer.json.error.data.scopes.toSorted(), allScopes)
      t.equal(error, 'insufficient_scope')
      t.equal(resourceMetadataUrl?.href, `${base}/.well-known/oauth-protected-resource`)
    }
  }
})

t.test('scopes are asked for on HTTP+SSE and WebSocket, too', async (t) => {
  const headers = bearer(await tokenOf())
  const sse = await openSse(base, { headers, version: '2024-11-05' })
  const answer = await sse.send(call(1, 'echo'))
  t.equal(answer.status, 202, 'answers come on the stream, refusals too')
  await until(() => sse.messages.some(({ id }) => id === 1), 'the refusal')
  const told = sse.messages.find(({ id }) => id === 1)
  t.match(told, { error: { code: 403, data: { reason: 'ERR_SCOPE' } } })
  t.same(told.error.data.scopes.toSorted(), allScopes)
  const socket = await openSocket(base, { headers, version: '2025-06-18' })
  const refusal = await socket.request(call(2, 'echo'))
  t.match(refusal, { error: { code: 403, data: { reason: 'ERR_SCOPE' } } })
  t.same(refusal.error.data.scopes.toSorted(), allScopes)
  t.match(await socket.request(call(3, 'pid')), { result: {} })
  sse.cut()
  socket.close()
})

t.test('a scope stands for those that it implies, for every token and for single operations', async (t) => {
  const admin = bearer(await tokenOf({ scope: 'mcp:admin' }))
  t.equal((await ask(url, tool(1, 'pid'), admin)).status, 200, 'mcp:admin is mcp:read')
  const both = bearer(await tokenOf({ scope: 'mcp:admin mcp:audit' }))
  t.match((await ask(url, tool(1, 'echo', { text: 'x' }), both)).json, {
    result: { content: [{ text: 'x' }] },
  })
  refused(t, await ask(url, tool(1, 'echo'), admin), 403, 'ERR_SCOPE', 1)
})

t.test('an opaque token is what its issuer says of it', async (t) => {
  const good = await opaque()
  t.notMatch(good, /\..*\./, 'no JWT')
  t.equal(await knock(good), 'in')
  t.match(await knock(`${good}x`), /^401 .*not active/)
  t.match(
    await knock(await opaque({ resource: 'https://other.example/mcp' })),
    /^401 its audience is "https:\/\/other/,
  )
  t.match(await knock(await opaque({ scope: 'mcp:audit' })), /^403 the token lacks the scope mcp:read/)
  const session = await openSession(url, { headers: bearer(good) })
  t.equal((await post(url, call(1, 'pid'), session)).status, 200)
  const asked = idp.asked('/token/introspection')
  t.equal((await post(url, call(1, 'pid'), session)).status, 200)
  t.equal(idp.asked('/token/introspection'), asked, 'its answer is believed for a while')
  await idp.revoke(good)
  clock.forward(61_000)
  t.equal((await post(url, call(1, 'pid'), session)).status, 401)
  t.match(await knock(good), /^401 .*not active/)
})

t.test('an opaque token ends when its issuer said that it would', async (t) => {
  const ahead = forwardClock()
  const other = await startTestSidecar(t, { flags: configFile(t, { auth }, files), clock: ahead })
  const token = await opaque({ resource: other.url })
  t.equal(await knock(token, other), 'in')
  ahead.forward(3_600_000 + 31_000)
  t.match(await knock(token, other), /^401 .*it expired \d+ s ago/)
})

t.test('sessions outlive the keys of the issuer', async (t) => {
  idp.user = 'rotating'
  const before = await tokenOf()
  const session = await openSession(url, { headers: bearer(before) })
  const stream = follow(await open(url, 'GET', { Accept: 'text/event-stream', ...session }))
  // Keys were fetched just now, for this key.
  idp.rotate({ keepOld: true })
  clock.forward(31_000)
  t.equal(await knock(await tokenOf()), 'in', 'a new key is fetched at once')
  t.equal(await knock(before), 'in', 'the old one is still good')
  idp.rotate()
  const after = await tokenOf()
  t.match(await knock(after), /^401 there is no key with kid/, 'but not twice in 30 seconds')
  t.equal(await knock(before), 'in', 'the keys are those of before')
  clock.forward(31_000)
  t.equal(await knock(after), 'in')
  t.match(await knock(before), /^401 there is no key with kid/, 'a key that was withdrawn is good no more')
  const renewed = { ...session, ...bearer(after) }
  t.equal((await post(url, call(1, 'pid'), renewed)).status, 200, 'the session goes on with a new token')
  await post(url, call(2, 'notify', { method: 'notifications/tools/list_changed' }), renewed)
  t.notOk(stream.isClosed(), 'its stream was not touched')
  stream.cut()
  idp.user = 'alice'
})

t.test('while the issuer is away, tokens are known by the keys that it had', async (t) => {
  const [known, unseen] = [await tokenOf(), await tokenOf()]
  const [known2, unseen2] = [await opaque(), await opaque()]
  t.equal(await knock(known), 'in')
  t.equal(await knock(known2), 'in')
  idp.down = true
  t.equal(await knock(unseen), 'in', 'a new token of a known key')
  t.equal(await knock(known2), 'in', 'an opaque one that was asked about just now')
  t.match(await knock(unseen2), /^401 the issuer cannot be asked about it: POST /)
  clock.forward(6 * 60_000)
  t.equal(await knock(known), 'in', 'keys that cannot be renewed stay good')
  await until(
    () => logs.some(({ text }) => /cannot be had: the last ones are used meanwhile/.test(text)),
    'a warning',
  )
  t.match(
    await knock(known2),
    /^401 the issuer cannot be asked about it/,
    'its answer is not believed so long',
  )
  idp.down = false
  clock.forward(31_000)
  t.equal(await knock(unseen2), 'in')
  t.equal(await knock(known), 'in')
  await until(
    () => logs.some(({ text }) => /can be had again/.test(text)),
    'the end of the outage in the log',
  )
})

t.test('a sidecar that starts before its issuer lets callers in when it is there', async (t) => {
  idp.down = true
  const early = forwardClock()
  const other = await startTestSidecar(t, { flags: configFile(t, { auth }, files), clock: early })
  await until(() => other.logs.some(({ text }) => /its tokens are refused/.test(text)), 'a warning')
  idp.down = false
  const token = await tokenOf({ resource: other.url })
  idp.down = true
  t.match(await knock(token, other), /^401 the (keys|metadata) of .* cannot be had/)
  idp.down = false
  early.forward(31_000)
  t.equal(await knock(token, other), 'in')
})

t.test('a token in the query is refused on every way in, a good one beside it or not', async (t) => {
  const token = await tokenOf()
  for (const [name, way] of Object.entries(waysInto(base))) {
    for (const key of ['access_token', 'Access_Token', '%61ccess_token']) {
      for (const headers of [{}, bearer(token)]) {
        const answer = await way(headers, `?sessionId=x&${key}=${token}`)
        t.equal(answer.status, 401, `${name}, ${key}`)
        t.notMatch(answer.body, token)
      }
    }
    t.not((await way(bearer(token))).status, 401, `${name}, in the header`)
  }
  t.match(
    logs.findLast(({ fields }) => fields['code'] === 'ERR_AUTH_INVALID')?.fields['detail'],
    /query of the URL/,
  )
})

t.test('no token reaches the server, its environment, the logs, the audit log or the metrics', async (t) => {
  const seen: Record<string, string> = {}
  for (const token of [await tokenOf({ scope: 'mcp:read mcp:write mcp:audit' }), await opaque()]) {
    const kind = token.includes('.') ? 'JWT' : 'opaque'
    const headers = bearer(token)
    const session = await openSession(url, { headers })
    const sse = await openSse(base, { headers, version: '2024-11-05' })
    const socket = await openSocket(base, { headers, version: '2025-06-18' })
    for (const name of ['env', 'lines', 'params']) {
      seen[`${kind}, session, ${name}`] = (await post(url, call(name, name), session)).body
      seen[`${kind}, modern, ${name}`] = JSON.stringify(
        said((await ask(url, tool(name, name), headers)).json),
      )
      seen[`${kind}, HTTP+SSE, ${name}`] = JSON.stringify(await sse.request(call(name, name)))
      seen[`${kind}, WebSocket, ${name}`] = JSON.stringify(await socket.request(call(name, name)))
    }
    sse.cut()
    socket.close()
    await send(url, 'DELETE', session)
  }
  t.match(seen['JWT, session, lines'], /tools\/call/, 'the server did write down what it read')
  t.match(seen['JWT, session, env'], /PATH/)
  for (const each of [sidecar, everything]) seen[`log of ${each.url}`] = JSON.stringify(each.logs)
  seen['metrics'] = await sidecar.metrics()
  const written = (): string => readFileSync(auditFile, 'utf8')
  await until(() => /"WebSocket|"websocket/i.test(written()), 'the audit log')
  seen['audit log'] = written()
  t.match(seen['audit log'], /"event_type"|"type"/)
  for (const [where, text] of Object.entries(seen)) {
    t.notMatch(text, /bearer [A-Za-z0-9_-]{20}/i, where)
    for (const token of tokens) {
      for (const part of token.split('.'))
        if (text.includes(part)) t.fail(`${where}: ${part.slice(0, 20)}...`)
    }
  }
  t.ok(tokens.size > 15)
})
