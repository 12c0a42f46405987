import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import t from 'tap'
import { runCli } from '../../src/cli.ts'
import { ConfigError } from '../../src/config/load.ts'
import { StartError } from '../../src/main.ts'
import { RawConnection, rawAnswers } from '../support/raw.ts'
import { refused } from '../support/refusal.ts'
import { scriptedServer, startTestSidecar, testConfig, until } from '../support/sidecar.ts'
import { awaited, openSocket, openSse, upgradeAnswer } from '../support/streams.ts'
import {
  accept,
  call,
  collect,
  follow,
  held,
  initialize,
  open,
  openSession,
  post,
  type RawResponse,
  released,
  send,
} from '../support/wire.ts'

type Headers = Record<string, string>

const tokens = {
  alice: 'alice-0123456789-ABCDEF',
  bob: 'bob-~._+/0123456789==',
  carol: 'carol-0123456789-abcdef',
}
const bearer = (token: string): Headers => ({ Authorization: `Bearer ${token}` })
const alice = bearer(tokens.alice)
const bob = bearer(tokens.bob)

const folder = t.testdir()
const tokenFile = join(folder, 'tokens')
const fileOf = (...names: (keyof typeof tokens)[]): string =>
  `# names and tokens\n\n${names.map((name) => `${name}:${tokens[name]}`).join('\n')}\n`
writeFileSync(tokenFile, fileOf('alice', 'bob', 'carol'))
const options = {
  server: ['--env'],
  flags: { bearerTokenFile: tokenFile, allowOrigin: ['https://app.example'] },
  config: { listen: { webSocket: true }, limits: { inFlightPerPrincipal: 5 } },
  env: {
    PATH: process.env['PATH'] ?? '',
    MCP_SIDECAR_BEARER_TOKEN_FILE: tokenFile,
    A_SECRET: 'do-not-pass-me-on',
    NODE_OPTIONS: '',
  },
}
const { sidecar, url, base, logs, metrics, metric } = await startTestSidecar(t, options)
const port = Number(new URL(url).port)
const session = await openSession(url, { headers: alice })

// biome-ignore lint/suspicious/noExplicitAny: answers of any shape
const textOf = (answer: any): any => {
  const text = answer.result.content[0].text
  return /^[[{]/.test(text) ? JSON.parse(text) : text
}
/** A body without what is different in every answer. */
const anonymized = ({ body, json }: RawResponse): string =>
  body.replace(json?.error?.data?.requestId, 'REQUEST')

const waysIn: Record<string, (headers: Headers, query?: string) => Promise<RawResponse>> = {
  'POST /mcp': (headers, query = '') => post(url + query, initialize(), headers),
  'GET /mcp': (headers, query = '') => send(url + query, 'GET', { Accept: 'text/event-stream', ...headers }),
  'DELETE /mcp': (headers, query = '') => send(url + query, 'DELETE', headers),
  'GET /sse': async (headers, query = '') => {
    const response = await open(`${base}/sse${query}`, 'GET', { Accept: 'text/event-stream', ...headers })
    if (response.statusCode !== 200) return collect(response)
    response.destroy()
    return { status: 200, headers: response.headers, body: '', json: undefined, messages: [] }
  },
  'POST /messages': (headers, query = '') =>
    post(`${base}/messages${query || '?sessionId=x'}`, initialize(), headers),
  'a WebSocket upgrade': (headers, query = '') => upgradeAnswer(base, headers, { path: `/ws${query}` }),
  'an unknown path': (headers, query = '') => send(`${base}/nothing${query}`, 'GET', headers),
  'OPTIONS without a preflight': (headers, query = '') => send(url + query, 'OPTIONS', headers),
}

const presented: Record<string, Headers> = {
  'a wrong token': bearer('wrong-0123456789-wrong'),
  'a token and one character more': bearer(`${tokens.alice}x`),
  'a token without its last character': bearer(tokens.alice.slice(0, -1)),
  'a token in another letter case': bearer(tokens.alice.toLowerCase()),
  'a name and its token': bearer(`alice:${tokens.alice}`),
  'two tokens': bearer(`${tokens.alice}, ${tokens.bob}`),
  'a token and a blank inside': bearer(`${tokens.alice} x`),
  'a very long token': bearer('x'.repeat(10_000)),
  'a token of unusual characters': { Authorization: 'Bearer \u00e9\u00ff"\\' },
  'the word undefined': bearer('undefined'),
}
const notPresented: Record<string, Headers> = {
  nothing: {},
  'an empty header': { Authorization: '' },
  'the scheme alone': { Authorization: 'Bearer' },
  'the scheme and blanks': { Authorization: 'Bearer   ' },
  'the token without a scheme': { Authorization: tokens.alice },
  'another scheme': { Authorization: `Basic ${Buffer.from(`alice:${tokens.alice}`).toString('base64')}` },
  'a scheme that only starts so': { Authorization: `BearerX ${tokens.alice}` },
  'the token in other headers': {
    'Proxy-Authorization': `Bearer ${tokens.alice}`,
    'X-API-Key': tokens.alice,
    Cookie: `token=${tokens.alice}; Authorization=${tokens.alice}`,
    'X-Forwarded-Authorization': `Bearer ${tokens.alice}`,
  },
}

t.test('without a good token nothing is served on any way in, and all refusals look alike', async (t) => {
  const bodies = new Set<string>()
  for (const [name, knock] of Object.entries(waysIn)) {
    for (const [what, headers] of Object.entries({ ...presented, ...notPresented })) {
      const answer = await knock(headers)
      t.equal(answer.status, 401, `${name} with ${what}`)
      t.equal(answer.headers['content-type'], 'application/json')
      t.match(answer.headers['www-authenticate'], /^Bearer( |$)/, 'a challenge')
      t.match(answer.json, { jsonrpc: '2.0', error: { code: 401, data: { source: 'mcp-sidecar' } } })
      bodies.add(anonymized(answer))
    }
  }
  t.equal(bodies.size, 1, `one body for all: ${[...bodies].join(' or ')}`)
})

t.test('the challenge says whether a token was presented (RFC 6750), and nothing else', async (t) => {
  for (const headers of Object.values(presented)) {
    t.equal(
      (await post(url, initialize(), headers)).headers['www-authenticate'],
      'Bearer error="invalid_token", error_description="The access token is not valid here."',
    )
  }
  t.equal((await post(url, initialize())).headers['www-authenticate'], 'Bearer')
})

t.test('a token in the query is none', async (t) => {
  for (const [name, knock] of Object.entries(waysIn)) {
    for (const key of ['access_token', 'token', 'authorization', 'bearer']) {
      t.equal((await knock({}, `?${key}=${encodeURIComponent(tokens.alice)}`)).status, 401, `${name}, ${key}`)
    }
  }
})

t.test('each name of the file opens sessions of its own, however the scheme is spelled', async (t) => {
  for (const [name, token] of Object.entries(tokens)) {
    for (const scheme of ['Bearer', 'bearer', 'BEARER']) {
      const headers = { Authorization: `${scheme} ${token}` }
      t.equal((await send(url, 'DELETE', headers)).status, 400, `${scheme} of ${name}: past the door`)
    }
    const opened = await openSession(url, { headers: bearer(token) })
    t.match((await post(url, call(1, 'echo', { text: name }), opened)).json, {
      result: { content: [{ text: name }] },
    })
    await send(url, 'DELETE', opened)
  }
})

t.test('a request of a stranger is refused before any of its body is there', async (t) => {
  const head = `POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nAccept: ${accept}\r\n`
  for (const rest of [
    'Content-Length: 1000\r\n\r\n',
    'Transfer-Encoding: chunked\r\n\r\n',
    'Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n',
    'Content-Length: 99999999999\r\n\r\n',
    `Content-Length: 1000\r\nAuthorization: Bearer ${'x'.repeat(20)}\r\n\r\n`,
  ]) {
    const connection = new RawConnection(port).write(head + rest)
    const answer = await connection.answer()
    t.equal(answer.status, 401)
    t.notMatch(connection.text, '100 Continue', 'nor is it invited')
    await until(() => connection.ended || connection.closed, 'the connection ends')
    connection.close()
  }
})

t.test('Host and Origin come first, type, size and session after', async (t) => {
  refused(t, await post(url, initialize(), { ...alice, Host: 'evil.example' }), 403, 'ERR_HOST')
  refused(t, await post(url, initialize(), { ...alice, Origin: 'https://evil.example' }), 403, 'ERR_ORIGIN')
  t.equal((await post(url, 'x', { 'Content-Type': 'text/plain' })).status, 401)
  t.equal((await post(url, Buffer.alloc(5_000_000))).status, 401)
  t.equal((await post(url, initialize(), { Accept: 'text/html' })).status, 401)
  t.equal((await post(url, 'x', { ...alice, 'Content-Type': 'text/plain' })).status, 415)
})

t.test("another principal's session is an unknown session, whatever is done with it", async (t) => {
  const id = session['Mcp-Session-Id'] as string
  const pid = textOf((await post(url, call(1, 'pid'), session)).json)
  const progress = follow(
    await open(
      url,
      'POST',
      { 'Content-Type': 'application/json', Accept: accept, ...session },
      JSON.stringify(call('p', 'ask', { method: 'roots/list' })),
    ),
  )
  await until(() => progress.messages.length === 1, 'the question to alice')
  const stream = { Accept: 'text/event-stream' }
  const attempts: Record<string, (headers: Headers) => Promise<RawResponse>> = {
    'a request': (headers) => post(url, call(1, 'crash'), headers),
    'an initialize': (headers) => post(url, initialize(), headers),
    'a notification': (headers) =>
      post(url, { jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 'p' } }, headers),
    'an answer to its question': (headers) =>
      post(url, { jsonrpc: '2.0', id: progress.messages[0].id, result: { roots: ['stolen'] } }, headers),
    'a batch': (headers) => post(url, [call(1, 'crash')], headers),
    'a GET stream': (headers) => send(url, 'GET', { ...stream, ...headers }),
    'a resumed stream': (headers) =>
      send(url, 'GET', { ...stream, 'Last-Event-ID': progress.events[0]?.id ?? '', ...headers }),
    'a DELETE': (headers) => send(url, 'DELETE', headers),
  }
  for (const [name, attempt] of Object.entries(attempts)) {
    const foreign = await attempt({ ...bob, 'Mcp-Session-Id': id })
    const unknown = await attempt({ ...bob, 'Mcp-Session-Id': 'x'.repeat(id.length) })
    t.equal(foreign.status, name === 'a batch' ? unknown.status : 404, `${name}: ${foreign.body}`)
    t.equal(anonymized(foreign), anonymized(unknown), `${name}: as if it did not exist`)
  }
  const roots = [{ uri: 'file:///own' }]
  await post(url, { jsonrpc: '2.0', id: progress.messages[0].id, result: { roots } }, session)
  t.match(textOf(await awaited(() => progress.messages, 'p')), { result: { roots } }, 'alice answers herself')
  t.equal(textOf((await post(url, call(2, 'pid'), session)).json), pid)
})

t.test("another principal's HTTP+SSE session takes no message", async (t) => {
  const client = await openSse(base, { headers: alice, version: '2024-11-05' })
  const foreign = await post(client.endpoint, call(1, 'crash'), bob)
  refused(t, foreign, 404, 'ERR_SESSION_UNKNOWN')
  const unknown = await post(`${base}/messages?sessionId=${'x'.repeat(32)}`, call(1, 'crash'), bob)
  t.equal(anonymized(foreign), anonymized(unknown))
  t.equal((await post(client.endpoint, call(1, 'crash'))).status, 401, 'the id alone proves nothing')
  t.match(await client.request(call(2, 'echo', { text: 'x' })), { result: {} })
  client.cut()
})

t.test('a WebSocket is a session of its own, whatever session its upgrade names', async (t) => {
  const pid = textOf((await post(url, call(1, 'pid'), session)).json)
  const client = await openSocket(base, {
    headers: { ...bob, ...{ 'Mcp-Session-Id': session['Mcp-Session-Id'] ?? '' } },
    version: '2025-06-18',
  })
  t.not(textOf(await client.request(call(1, 'pid'))), pid)
  client.close()
})

t.test('every request needs the token, also within a session', async (t) => {
  const { Authorization: _, ...without } = session
  t.equal((await post(url, call(1, 'echo'), without as Headers)).status, 401)
  t.equal((await send(url, 'GET', { ...(without as Headers), Accept: 'text/event-stream' })).status, 401)
  t.equal((await send(url, 'DELETE', without as Headers)).status, 401)
  t.equal((await post(url, call(1, 'echo'), session)).status, 200)
})

t.test('a connection on which someone was let in lets nobody else in', async (t) => {
  const body = JSON.stringify(initialize())
  const request = (headers: string): string =>
    `POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n${headers}Content-Length: ${body.length}\r\n\r\n${body}`
  const mine = request(
    `Authorization: Bearer ${tokens.alice}\r\nMcp-Session-Id: ${session['Mcp-Session-Id']}\r\nAccept: ${accept}\r\n`,
  ).replace('text/plain', 'application/json')
  const answers = await rawAnswers(port, mine + request(''), 2)
  t.same(
    answers.map(({ status }) => status),
    [400, 401],
  )
})

t.test('the calls of one principal do not use up what another may have in flight', async (t) => {
  const ids = Array.from({ length: 5 }, (_, i) => `w${i}`)
  const waiting = ids.map((id) => post(url, held(id), session))
  await until(async () => (await metric('mcp_sidecar_calls_in_flight')) === 5, 'five are in flight')
  refused(t, await post(url, call('sixth', 'echo'), session), 503, 'ERR_OVERLOADED', 'sixth')
  const other = await openSession(url, { headers: bob })
  t.equal((await post(url, call(1, 'echo'), other)).status, 200)
  for (const id of ids) await post(url, released(id), session)
  for (const { status } of await Promise.all(waiting)) t.equal(status, 200)
  await send(url, 'DELETE', other)
})

t.test('at the limit a principal gives up an old session of its own, never of another', async (t) => {
  const { url } = await startTestSidecar(t, {
    flags: { bearerTokenFile: tokenFile },
    config: { limits: { sessions: 3 }, server: { warmSpares: 0 } },
  })
  const ofBob = await openSession(url, { headers: bob })
  const first = await openSession(url, { headers: alice })
  const second = await openSession(url, { headers: alice })
  const third = await openSession(url, { headers: alice })
  refused(t, await post(url, call(1, 'echo'), first), 404, 'ERR_SESSION_UNKNOWN', 1)
  for (const each of [ofBob, second, third]) t.equal((await post(url, call(1, 'echo'), each)).status, 200)
  const carol = await post(url, initialize(), bearer(tokens.carol))
  refused(t, carol, 503, 'ERR_OVERLOADED', 0)
  t.match(carol.headers['retry-after'], /^\d+$/)
})

t.test('a page of a configured origin gets its preflight answered without credentials', async (t) => {
  for (const path of ['/mcp', '/sse', '/messages?sessionId=x']) {
    const answer = await send(base + path, 'OPTIONS', {
      Origin: 'https://app.example',
      'Access-Control-Request-Method': 'POST',
      'Access-Control-Request-Headers': 'authorization,content-type,mcp-protocol-version,mcp-session-id',
    })
    t.equal(answer.status, 204)
    t.equal(answer.body, '')
    t.equal(answer.headers['access-control-allow-origin'], 'https://app.example')
    t.equal(answer.headers['access-control-allow-credentials'], undefined)
    t.match(answer.headers.vary, /\bOrigin\b/i)
    const methods = String(answer.headers['access-control-allow-methods']).split(/, */)
    t.same(methods.toSorted(), ['DELETE', 'GET', 'POST'])
    const allowed = String(answer.headers['access-control-allow-headers']).toLowerCase().split(/, */)
    for (const name of [
      'authorization',
      'content-type',
      'accept',
      'last-event-id',
      'mcp-protocol-version',
      'mcp-session-id',
    ]) {
      t.ok(allowed.includes(name), name)
    }
    t.notOk(allowed.includes('*'))
  }
})

t.test('a preflight of another origin is refused, and so is one that is none', async (t) => {
  for (const Origin of ['https://evil.example', 'null', 'http://app.example']) {
    const headers = { Origin, 'Access-Control-Request-Method': 'POST' }
    const answer = await send(url, 'OPTIONS', headers)
    refused(t, answer, 403, 'ERR_ORIGIN')
    t.equal(answer.headers['access-control-allow-origin'], undefined)
  }
  t.equal((await send(url, 'OPTIONS', { Origin: 'https://app.example' })).status, 401)
  t.equal((await send(url, 'OPTIONS', { 'Access-Control-Request-Method': 'POST' })).status, 401)
})

t.test('a page of a configured origin may read answers, refusals and the headers it needs', async (t) => {
  const Origin = 'https://app.example'
  const opened = await post(url, initialize(), { ...alice, Origin })
  for (const answer of [
    opened,
    await post(url, initialize(), { Origin }),
    await post(url, 'x', { ...alice, Origin }),
    await post(url, call(1, 'echo'), { ...alice, Origin, 'Mcp-Session-Id': 'x' }),
    await send(`${base}/nothing`, 'GET', { ...alice, Origin }),
  ]) {
    t.equal(answer.headers['access-control-allow-origin'], Origin, String(answer.status))
    t.match(answer.headers.vary, /\bOrigin\b/i)
    const exposed = String(answer.headers['access-control-expose-headers']).toLowerCase().split(/, */)
    for (const name of ['mcp-session-id', 'www-authenticate', 'retry-after', 'x-request-id'])
      t.ok(exposed.includes(name), name)
  }
  const id = opened.headers['mcp-session-id'] as string
  const stream = await open(url, 'GET', {
    ...alice,
    Origin,
    Accept: 'text/event-stream',
    'Mcp-Session-Id': id,
  })
  t.equal(stream.headers['access-control-allow-origin'], Origin)
  stream.destroy()
  await send(url, 'DELETE', { ...alice, 'Mcp-Session-Id': id })
  t.equal(
    (await post(url, initialize())).headers['access-control-allow-origin'],
    undefined,
    'without Origin nothing',
  )
})

t.test('the server is told nothing of tokens, nor of the environment of the sidecar', async (t) => {
  const environment = textOf((await post(url, call(1, 'env'), session)).json)
  t.notOk(Object.keys(environment).some((name) => name.startsWith('MCP_SIDECAR_') || name === 'A_SECRET'))
  const told = JSON.stringify([environment, (await post(url, call(2, 'lines'), session)).body])
  for (const token of Object.values(tokens)) t.notOk(told.includes(token))
  t.notOk(told.includes('Authorization'))
  t.notOk(told.includes(tokenFile))
})

t.test(
  'a changed token file takes effect at a reload: new tokens in, old ones out, their streams closed',
  async (t) => {
    const file = join(t.testdir(), 'tokens')
    writeFileSync(file, fileOf('alice', 'bob'))
    const options = { flags: { bearerTokenFile: file }, config: { listen: { webSocket: true } } }
    const { sidecar, url, base } = await startTestSidecar(t, options)
    const ofAlice = await openSession(url, { headers: alice })
    const ofBob = await openSession(url, { headers: bob })
    const listening = follow(await open(url, 'GET', { ...ofAlice, Accept: 'text/event-stream' }))
    const inFlight = post(url, call('f', 'hang'), ofAlice)
    const sse = await openSse(base, { headers: alice, version: '2024-11-05' })
    const socket = await openSocket(base, { headers: alice, version: '2025-06-18' })
    const stays = await openSocket(base, { headers: bob, version: '2025-06-18' })
    t.equal((await post(url, initialize(), bearer(tokens.carol))).status, 401, 'not yet')

    writeFileSync(file, fileOf('bob', 'carol'))
    await sidecar.reload(await testConfig(options))

    t.equal((await post(url, call(1, 'echo'), ofAlice)).status, 401, 'also within a session')
    await Promise.all([listening.closed, sse.closed])
    await until(() => socket.closed() !== undefined, 'the WebSocket is closed')
    t.equal(socket.closed()?.code, 4401)
    t.ok((await inFlight).status >= 400)
    t.equal((await post(url, call(1, 'echo'), ofBob)).status, 200, 'others notice nothing')
    t.match(await stays.request(call(1, 'echo', { text: 'x' })), { result: {} })
    t.equal((await post(url, initialize(), bearer(tokens.carol))).status, 200)
    stays.close()
  },
)

t.test('a token file that cannot be used changes nothing', async (t) => {
  const file = join(t.testdir(), 'tokens')
  writeFileSync(file, fileOf('alice'))
  const options = { flags: { bearerTokenFile: file }, config: { server: { warmSpares: 0 } } }
  const { sidecar, url } = await startTestSidecar(t, options)
  for (const content of [
    '',
    '# nothing\n',
    'alice:short\n',
    `alice:${tokens.alice}\nalice:${tokens.bob}\n`,
    'alice:sp ace sp ace sp ace\n',
  ]) {
    writeFileSync(file, content)
    const config = await testConfig(options)
    try {
      await sidecar.reload(config)
      t.fail(`${JSON.stringify(content)} was taken`)
    } catch (thrown) {
      t.ok(thrown instanceof StartError)
      const { message } = thrown as Error
      t.match(message, file, 'it names the file')
      for (const secret of [tokens.alice, tokens.bob, 'short\n', 'sp ace']) t.notOk(message.includes(secret))
    }
    t.equal((await send(url, 'DELETE', alice)).status, 400, 'the old token is still good')
  }
})

t.test('no token is in any log line or metric, wrong ones neither', async (t) => {
  const everything = JSON.stringify(logs) + (await metrics())
  t.ok(logs.length > 100)
  for (const token of [
    ...Object.values(tokens),
    'wrong-0123456789',
    'alice-0123456789',
    'do-not-pass-me-on',
  ]) {
    t.notOk(everything.includes(token), token)
  }
  t.notOk(everything.includes(session['Mcp-Session-Id'] as string), 'nor is a session id')
  t.ok(
    logs.some(({ fields }) => fields['principal'] === 'bearer:alice'),
    'but the name is',
  )
})

t.test('an address that others can reach is refused without a choice of authentication', async (t) => {
  for (const address of ['0.0.0.0', '::', '10.1.2.3', 'fe80::1', '::ffff:10.0.0.1']) {
    const bad = testConfig({ flags: { host: address, permissions: 'none' } })
    await t.rejects(bad, ConfigError)
    await bad.catch(({ problems }: ConfigError) =>
      t.match(problems[0]?.message, /--bearer-token-file.*--auth none/),
    )
    await t.resolves(
      testConfig({ flags: { host: address, permissions: 'none', bearerTokenFile: tokenFile } }),
    )
    await t.resolves(testConfig({ flags: { host: address, permissions: 'none', auth: 'none' } }))
  }
  for (const address of ['127.0.0.1', 'localhost', '::1', '127.9.9.9']) {
    await t.resolves(testConfig({ flags: { host: address } }))
  }
  await t.rejects(
    testConfig({ flags: { auth: 'none', bearerTokenFile: tokenFile } }),
    ConfigError,
    'both at once',
  )
})

/** The program itself, the only reader of files and variables, in this process. */
function run(args: readonly string[], env: Record<string, string> = {}) {
  let output = ''
  const write = (text: string): void => {
    output += text
  }
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
  const before = signals.map((signal) => process.listeners(signal))
  const own = () =>
    signals.flatMap((signal, i) =>
      process
        .listeners(signal)
        .flatMap((listener) => (before[i]?.includes(listener) ? [] : { signal, listener })),
    )
  const exited = runCli({
    stdin: Readable.from([]),
    argv: [
      ...args,
      '--port',
      '0',
      '--admin-port',
      '0',
      '--log-format',
      'pretty',
      '--',
      process.execPath,
      scriptedServer,
    ],
    env: { PATH: process.env['PATH'], ...env },
    cwd: process.cwd(),
    stdout: { write },
    stderr: { write },
  })
  const stop = async (): Promise<void> => {
    own()
      .find(({ signal }) => signal === 'SIGINT')
      ?.listener('SIGINT')
    await exited
    for (const { signal, listener } of own()) process.off(signal, listener)
  }
  return { output: () => output, exited, stop }
}

t.test('the program refuses such an address with exit code 2 and says what to do', async (t) => {
  const { output, exited } = run(['--host', '0.0.0.0', '--permissions', 'none'])
  t.equal(await exited, 2)
  t.match(output(), /--bearer-token-file FILE.*--auth none/)
  t.notMatch(output(), /\n\s+at /)
})

t.test('the program takes a changed token file by itself', async (t) => {
  const file = join(t.testdir(), 'tokens')
  writeFileSync(file, fileOf('alice'))
  const { output, stop } = run([], { MCP_SIDECAR_BEARER_TOKEN_FILE: file })
  t.teardown(stop)
  const found = () => /Streamable HTTP +(http:\S+)/.exec(output())?.[1]
  await until(() => found() !== undefined, 'it listens')
  const url = found() as string
  t.equal((await post(url, initialize(), bob)).status, 401)
  const opened = await openSession(url, { headers: alice })
  writeFileSync(file, fileOf('bob'))
  await until(async () => (await send(url, 'DELETE', bob)).status === 400, 'bob is let in')
  t.equal((await post(url, call(1, 'echo'), opened)).status, 401, 'alice is not any more')
  writeFileSync(file, 'nonsense: x\n')
  await until(() => output().includes('was not taken'), 'a bad file is reported')
  t.equal((await send(url, 'DELETE', bob)).status, 400, 'and changes nothing')
  for (const token of Object.values(tokens)) t.notOk(output().includes(token))
})

t.test('the file was read only', async (t) => {
  t.equal(readFileSync(tokenFile, 'utf8'), fileOf('alice', 'bob', 'carol'))
  t.equal((await rawAnswers(port, 'GET /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n'))[0]?.status, 401)
  t.ok(sidecar.ready)
})
