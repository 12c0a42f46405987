import tap, { type Test } from 'tap'
import { startSidecar } from '../../src/main.ts'
import { createLogger } from '../../src/observe/logger.ts'
import { configFile } from '../support/config-file.ts'
import { startTestSidecar, testConfig, until } from '../support/sidecar.ts'
import { openSocket, openSse } from '../support/streams.ts'
import { bearerTokens } from '../support/tokens.ts'
import { accept, call, follow, initialize, open, openSession, post, send } from '../support/wire.ts'

tap.jobs = 3
const test = (name: string, run: (t: Test) => Promise<void>) => tap.test(name, { buffered: true }, run)

const rpc = (id: string | number, method: string, params: object = {}) => ({
  jsonrpc: '2.0',
  id,
  method,
  params,
})
const readyz = async (adminUrl: string) => send(`${adminUrl}/readyz`, 'GET')
// With a given era no process is started to find it out.
const onlySessions = { server: { warmSpares: 0, era: 'legacy' } } as const

test('/healthz is true while the sidecar runs, whatever the server does', async (t) => {
  const { adminUrl, url } = await startTestSidecar(t, { server: ['--exit=1'] })
  const health = await send(`${adminUrl}/healthz`, 'GET')
  t.equal(health.status, 200)
  t.strictSame(health.json, { status: 'ok' })
  t.equal((await send(`${adminUrl}/healthz?verbose`, 'GET')).status, 200)
  const head = await send(`${adminUrl}/healthz`, 'HEAD')
  t.equal(head.status, 200)
  t.equal(head.body, '')
  t.equal((await send(`${adminUrl}/healthz`, 'POST')).status, 405)
  t.equal((await send(`${adminUrl}/mcp`, 'GET')).status, 404, 'clients are not served here')
  const base = url.replace('/mcp', '')
  for (const path of ['/healthz', '/readyz', '/metrics']) {
    t.equal((await send(`${base}${path}`, 'GET')).status, 404, `${path} is not for clients`)
  }
})

for (const topology of ['per-session', 'shared']) {
  test(`${topology}: /readyz is true as soon as the server answers, without any client`, async (t) => {
    const { adminUrl } = await startTestSidecar(t, { server: ['--init-delay=2000'], flags: { topology } })
    const before = await readyz(adminUrl)
    t.equal(before.status, 503)
    t.match(before.json, { ready: false, reason: 'the MCP server does not answer' })
    await until(async () => (await readyz(adminUrl)).status === 200, 'it is ready')
    t.match((await readyz(adminUrl)).json, { ready: true })
  })
}

test('/readyz is false from the moment the sidecar is told to stop', async (t) => {
  const { sidecar, url, adminUrl, metric } = await startTestSidecar(t, {
    config: { shutdownGraceMs: 20_000 },
  })
  const session = await openSession(url)
  t.equal((await readyz(adminUrl)).status, 200)
  const calling = post(url, call(1, 'sleep', { ms: 2000 }), session)
  await until(async () => (await metric('mcp_sidecar_calls_in_flight ')) === 1, 'a call is in flight')
  const stopping = sidecar.stop()
  const answer = await readyz(adminUrl)
  t.equal(answer.status, 503)
  t.match(answer.json, { ready: false, reason: 'shutting down' })
  t.equal((await calling).status, 200)
  await stopping
})

test('shared: /readyz is false while a crashed server is being restarted', async (t) => {
  const { url, adminUrl } = await startTestSidecar(t, {
    server: ['--init-delay=1500'],
    flags: { topology: 'shared' },
  })
  const session = await openSession(url)
  t.equal((await readyz(adminUrl)).status, 200)
  await post(url, call(1, 'crash'), session)
  t.equal((await readyz(adminUrl)).status, 503)
  await until(async () => (await readyz(adminUrl)).status === 200, 'it is ready again')
})

/** The values of an exposition, by name and labels. */
function parse(t: Test, text: string): Map<string, number> {
  const values = new Map<string, number>()
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith('#')) continue
    const sample = /^([a-zA-Z_:][\w:]*(?:\{[^}]*\})?) ([-+.\w]+)$/.exec(line)
    if (sample === null) t.fail(`no sample: ${line}`)
    else values.set(sample[1] as string, Number(sample[2]))
  }
  return values
}

/** Little time for the tool that never answers; what answers has enough, however slow the machine is. */
const hangTimesOut = { timeouts: [{ tools: ['hang'], timeout: '300ms' }] }

test('/metrics counts calls by method and outcome, with their durations', async (t) => {
  const { url, metrics, adminUrl } = await startTestSidecar(t, {
    flags: configFile(t, hangTimesOut),
    config: onlySessions,
  })
  const session = await openSession(url)
  await post(url, call(1, 'echo'), session)
  await post(url, call(2, 'echo'), session)
  await post(url, call(3, 'no-such-tool'), session)
  await post(url, call(4, 'hang'), session)
  await post(url, rpc(5, 'tools/list'), session)
  await post(url, rpc(6, 'x/first-of-a-kind'), session)
  await post(url, rpc(7, 'x/second-of-a-kind'), session)
  const cancelled = post(url, call(8, 'sleep', { ms: 60_000 }), session)
  const values = async (): Promise<Map<string, number>> => parse(t, await metrics())
  await until(async () => (await values()).get('mcp_sidecar_calls_in_flight') === 1, 'it is in flight')
  await post(url, { jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 8 } }, session)
  await cancelled
  await post(url, call(9, 'crash'), session)
  await post(url, call(10, 'echo'), session)

  const found = await values()
  const of = (method: string, outcome: string): number | undefined =>
    found.get(`mcp_sidecar_calls_total{method="${method}",outcome="${outcome}"}`)
  t.equal(of('initialize', 'ok'), 1)
  t.equal(of('tools/list', 'ok'), 1)
  t.equal(of('tools/call', 'ok'), 2)
  t.equal(of('tools/call', 'error'), 1)
  t.equal(of('tools/call', 'cancelled'), 1)
  t.equal(of('tools/call', 'ERR_TIMEOUT'), 1)
  t.equal(of('tools/call', 'ERR_UPSTREAM_EXIT'), 1)
  t.equal(of('tools/call', 'ERR_SESSION_UNKNOWN'), 1)
  t.equal(of('other', 'error'), 2)
  t.equal(found.get('mcp_sidecar_call_duration_seconds_count{method="tools/call"}'), 7)
  const seconds = found.get('mcp_sidecar_call_duration_seconds_sum{method="tools/call"}') ?? 0
  t.ok(seconds >= 0.3 && seconds < 20, `${seconds} s`)
  t.equal(found.get('mcp_sidecar_call_duration_seconds_bucket{le="+Inf",method="tools/call"}'), 7)
  t.equal(found.get('mcp_sidecar_calls_in_flight'), 0)
  t.ok((found.get('process_resident_memory_bytes') ?? 0) > 0, 'and how the process itself is')
  t.notMatch(await metrics(), /of-a-kind|no-such-tool|echo/, 'no label is chosen by a client')
  t.match((await send(`${adminUrl}/metrics`, 'GET')).headers['content-type'], /^text\/plain; version=0\.0\.4/)
})

test('/metrics counts sessions by transport, processes, their ends and restarts', async (t) => {
  const { url, base, metrics } = await startTestSidecar(t, {
    flags: { webSocket: true },
    config: onlySessions,
  })
  await until(
    async () => (await metrics()).includes('process_exits_total{reason="stopped"} 1'),
    'the trial is over',
  )
  const session = await openSession(url)
  const crashing = await openSession(url)
  const socket = await openSocket(base, { version: '2025-11-25' })
  const sse = await openSse(base, { version: '2024-11-05' })
  const values = async (): Promise<Map<string, number>> => parse(t, await metrics())
  let found = await values()
  t.equal(found.get('mcp_sidecar_sessions'), 4)
  t.equal(found.get('mcp_sidecar_processes'), 4)
  t.equal(found.get('mcp_sidecar_process_starts_total'), 5)
  t.equal(found.get('mcp_sidecar_sessions_opened_total{transport="streamable-http"}'), 2)
  t.equal(found.get('mcp_sidecar_sessions_opened_total{transport="websocket"}'), 1)
  t.equal(found.get('mcp_sidecar_sessions_opened_total{transport="http-sse"}'), 1)
  await post(url, call(1, 'crash'), crashing)
  await send(url, 'DELETE', session)
  socket.close()
  sse.cut()
  await until(async () => (await values()).get('mcp_sidecar_processes') === 0, 'all processes are gone')
  found = await values()
  t.equal(found.get('mcp_sidecar_sessions'), 0)
  t.equal(found.get('mcp_sidecar_sessions_closed_total{transport="streamable-http"}'), 2)
  t.equal(found.get('mcp_sidecar_sessions_closed_total{transport="websocket"}'), 1)
  t.equal(found.get('mcp_sidecar_sessions_closed_total{transport="http-sse"}'), 1)
  t.equal(found.get('mcp_sidecar_process_exits_total{reason="exit"}'), 1)
  t.equal(found.get('mcp_sidecar_process_exits_total{reason="stopped"}'), 4)
  t.equal(found.get('mcp_sidecar_process_restarts_total'), 0)
})

test('/metrics shows what a client has not read', async (t) => {
  const { url, metric } = await startTestSidecar(t, { config: { ...onlySessions, shutdownGraceMs: 0 } })
  const session = await openSession(url)
  const headers = { ...session, 'Content-Type': 'application/json', Accept: accept }
  const flood = JSON.stringify(call(1, 'flood', { count: 400, bytes: 50_000 }))
  const response = await open(url, 'POST', headers, flood)
  response.pause()
  const queued = () => metric('mcp_sidecar_queue_bytes{reader="client"}')
  await until(async () => (await queued()) > 1_000_000, 'bytes wait for the client')
  response.resume()
  await new Promise((resolve) => response.once('close', resolve))
  await until(async () => (await queued()) === 0, 'nothing waits any more')
  t.equal(await metric('mcp_sidecar_queue_bytes{reader="server"}'), 0)
})

test('/metrics counts refusals by code', async (t) => {
  const all = bearerTokens(t, 'alice')
  const { url, metric } = await startTestSidecar(t, { flags: all.flags })
  const refusals: [string, Promise<unknown>][] = [
    ['ERR_AUTH_MISSING', post(url, initialize())],
    ['ERR_AUTH_INVALID', post(url, initialize(), { Authorization: 'Bearer not-the-right-token' })],
    ['ERR_ORIGIN', post(url, initialize(), { ...all.of('alice'), Origin: 'https://evil.example' })],
    ['ERR_PARSE', post(url, '{', { ...all.of('alice') })],
    ['ERR_SESSION_UNKNOWN', post(url, call(1, 'echo'), { ...all.of('alice'), 'Mcp-Session-Id': 'x' })],
    ['ERR_SESSION_MISSING', post(url, call(1, 'echo'), all.of('alice'))],
  ]
  for (const [code, refused] of refusals) {
    await refused
    t.equal(await metric(`mcp_sidecar_refusals_total{code="${code}"}`), 1, code)
  }
  t.equal(await metric('mcp_sidecar_refusals_total'), refusals.length, 'and nothing else')
})

test('the log names each request by the id that the client was told', async (t) => {
  const { url, base, logs } = await startTestSidecar(t, { flags: { webSocket: true } })
  const session = await openSession(url)
  const linesOf = (id: unknown) => logs.filter(({ fields }) => fields['requestId'] === id)
  const answered = await post(url, call(1, 'echo'), session)
  const streamed = await post(url, call(2, 'progress', { count: 1 }, { progressToken: 1 }), session)
  for (const [{ headers }, method] of [
    [answered, 'tools/call'],
    [streamed, 'tools/call'],
  ] as const) {
    t.match(linesOf(headers['x-request-id']), [
      { level: 'info', text: 'call', fields: { method, outcome: 'ok', principal: 'anonymous', ms: Number } },
    ])
  }
  const unknown = await post(url, call(3, 'echo'), { ...session, 'Mcp-Session-Id': 'x' })
  t.equal(unknown.json.error.data.requestId, unknown.headers['x-request-id'])
  t.match(
    linesOf(unknown.headers['x-request-id']).find(({ text }) => text === 'request refused'),
    { level: 'warn', fields: { code: 'ERR_SESSION_UNKNOWN', remoteAddress: '127.0.0.1' } },
  )
  const evil = await send(url, 'GET', { Origin: 'https://evil.example' })
  t.match(linesOf(evil.headers['x-request-id']), [
    { text: 'request refused', fields: { code: 'ERR_ORIGIN' } },
  ])
  const gone = await send(`${base}/nothing-here`, 'GET')
  t.match(linesOf(gone.headers['x-request-id']), [{ fields: { code: 'ERR_NOT_FOUND' } }])
  const listening = follow(await open(url, 'GET', { ...session, Accept: 'text/event-stream' }))
  t.type(listening.response.headers['x-request-id'], 'string')
  listening.cut()
  const ids = logs.flatMap(({ fields, text }) => (text === 'call' ? [fields['requestId']] : []))
  t.equal(new Set(ids).size, ids.length, 'no id is used twice')
  const socket = await openSocket(base, { version: '2025-11-25' })
  socket.close()
})

test('tokens, session ids and payloads stand in no log line', async (t) => {
  const marker = 'MARKER-b7f3'
  const all = bearerTokens(t, 'alice')
  const { url, base, logs } = await startTestSidecar(t, {
    flags: { ...configFile(t, hangTimesOut), ...all.flags, webSocket: true, logLevel: 'trace' },
  })
  const alice = all.of('alice')
  const session = await openSession(url, { headers: alice, capabilities: { sampling: {} } })
  const ask = (message: object, headers: Record<string, string> = session) => post(url, message, headers)

  // Arguments, results, errors, progress, messages.
  await ask(call(1, 'echo', { text: marker }))
  await ask(call(2, `tool ${marker}`))
  await ask(rpc(3, 'resources/read', { uri: `test://${marker}` }))
  await ask(call(`id ${marker}`, 'progress', { count: 2 }, { progressToken: marker, [marker]: marker }))
  await ask(call(4, 'log', { level: 'error', data: marker }))
  await ask(call(5, 'hang', { text: marker }))
  await ask({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: marker } })
  const body = { ...session, 'Content-Type': 'application/json', Accept: accept }
  const question = call(6, 'ask', { method: 'sampling/createMessage', params: { text: marker } })
  const asking = follow(await open(url, 'POST', body, JSON.stringify(question)))
  await until(() => asking.messages.length === 1, 'a question is open')
  await ask({ jsonrpc: '2.0', id: asking.messages[0].id, result: { text: marker } })
  await asking.closed
  // What is refused, at either end.
  await ask({ jsonrpc: '2.0', id: 99, result: { text: marker } })
  for (const text of [
    `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":${marker}}`,
    `"${marker}"`,
    `${marker}`,
    `{"jsonrpc":"2.0","id":8,"${marker}":1}`,
    `{"jsonrpc":"${marker}","id":8,"method":"ping"}`,
    `[{"jsonrpc":"2.0","id":8,"method":"ping","params":"${marker}"}]`,
  ]) {
    await send(url, 'POST', body, text)
  }
  await ask(
    call(9, 'garbage', { lines: [marker, `{"a":${marker}`, `{"jsonrpc":"2.0","id":77,"x":"${marker}"}`] }),
  )
  await ask(call(9, 'garbage', { lines: [`{"jsonrpc":"2.0","id":"${marker}","result":{"a":"${marker}"}}`] }))
  await send(`${base}/mcp?token=${marker}`, 'GET', { ...alice, Accept: 'text/event-stream' })
  await send(`${base}/messages?sessionId=${marker}`, 'POST', { ...body, ...alice }, '{}')
  await ask(initialize(), { Authorization: `Bearer ${marker}-0123456789` })
  await ask(initialize(), { Authorization: `Basic ${Buffer.from(`a:${marker}`).toString('base64')}` })
  await ask(call(10, 'echo'), { ...session, 'Mcp-Session-Id': marker, Cookie: `sid=${marker}` })
  // The other transports.
  const socket = await openSocket(base, { headers: alice, version: '2025-11-25' })
  await socket.request(call(1, 'echo', { text: marker }))
  socket.send(`{"${marker}`)
  const sse = await openSse(base, { headers: alice, version: '2024-11-05' })
  await sse.request(call(1, 'echo', { text: marker }))
  await ask(call(11, 'crash', { text: marker }))
  socket.close()
  sse.cut()

  await until(() => logs.filter(({ text }) => text === 'session ended').length >= 3, 'all have ended')
  for (const line of logs) {
    const text = JSON.stringify(line)
    if (text.includes(marker)) t.fail(`a payload is logged: ${text.slice(0, 300)}`)
    if (text.includes(all.token('alice'))) t.fail(`a token is logged: ${text.slice(0, 300)}`)
    if (text.includes(session['Mcp-Session-Id'] as string)) t.fail(`a session id is logged: ${text}`)
    if (text.includes(sse.endpoint.split('=')[1] as string)) t.fail(`a session id is logged: ${text}`)
  }
  t.ok(logs.length > 20, `${logs.length} lines were looked at`)
})

test('a client cannot make a log line long', async (t) => {
  const { url, logs } = await startTestSidecar(t)
  const session = await openSession(url)
  const long = 'x'.repeat(1_000_000)
  await post(url, rpc(1, long), session)
  await post(url, rpc(2, long))
  await send(`${url}/${'y'.repeat(8000)}`, 'GET')
  const lengths = logs.map((line) => JSON.stringify(line).length)
  t.ok(Math.max(...lengths) < 20_000, `the longest line has ${Math.max(...lengths)} characters`)
})

test('neither server nor client can control the terminal of a readable log', async (t) => {
  let written = ''
  const write = (text: string): void => {
    written += text
  }
  const log = createLogger({ level: 'debug', format: 'pretty' }, { write })
  const config = await testConfig()
  const env = { PATH: process.env['PATH'] ?? '' }
  const sidecar = await startSidecar(config, { env, cwd: process.cwd(), log, version: 'test' })
  t.teardown(() => sidecar.stop())
  const session = await openSession(sidecar.url)
  const esc = '\u001b'
  const lines = [
    `${esc}[2J${esc}[1;1Hcleared`,
    `${esc}]0;title\u0007`,
    'over\rwritten',
    'back\b\b\bspace',
    '\u009b31mred',
    '\u007f',
    'tab\there',
  ]
  await post(sidecar.url, call(1, 'stderr', { lines }), session)
  await post(sidecar.url, rpc(2, `evil${esc}[2J\n00:00:00 info  forged`), session)
  await send(`${sidecar.url}%1b[2J`, 'GET')
  await send(sidecar.url, 'GET', { Origin: 'https://\u009b31m.example' })
  await until(() => written.includes('tab\\x09here'), 'everything is written')
  await until(() => written.includes('forged'), 'the method is written')
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  t.notMatch(written.replaceAll('\n', ''), /[\u0000-\u001f\u007f-\u009f]/)
  t.match(written, /server: \\x1b\[2J\\x1b\[1;1Hcleared\n/, 'they are shown instead')
  for (const line of written.trimEnd().split('\n')) {
    t.match(line, /^\d\d:\d\d:\d\d (debug|info|warn|error) /, 'every line is one of ours')
    if (line.startsWith('00:00:00')) t.notMatch(line, /forged/)
  }
})
