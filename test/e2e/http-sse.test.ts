import t from 'tap'
import { isRefusal, refused } from '../support/refusal.ts'
import { startTestSidecar, until } from '../support/sidecar.ts'
import { awaited, openSse } from '../support/streams.ts'
import { call, held, initialize, open, openSession, post, released, send } from '../support/wire.ts'

const { base, url, logs, metric } = await startTestSidecar(t, {
  config: { listen: { keepAliveMs: 100 }, limits: { requestBodyBytes: 100_000 } },
})
const shared = await openSse(base, { version: '2024-11-05' })
const messages = `${base}/messages`

const token = (value: unknown) => ({ progressToken: value })
// biome-ignore lint/suspicious/noExplicitAny: answers of any shape
const textOf = (answer: any): any => {
  const text = answer.result.content[0].text
  return /^[[{]/.test(text) ? JSON.parse(text) : text
}
const isGone = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return false
  } catch {
    return true
  }
}

t.test('the stream starts with an endpoint event: a relative URI with an unguessable session', async (t) => {
  const { response, events, endpoint, cut } = await openSse(base)
  t.equal(response.statusCode, 200)
  t.equal(response.headers['content-type'], 'text/event-stream')
  t.equal(response.headers['cache-control'], 'no-store')
  t.equal(response.headers['x-accel-buffering'], 'no')
  t.equal(response.headers['mcp-session-id'], undefined)
  t.equal(events[0]?.event, 'endpoint')
  t.match(events[0]?.data, /^\/messages\?sessionId=[\w-]{22,}$/)
  t.not(endpoint, shared.endpoint)
  cut()
})

t.test('every version of the handshake era is served', async (t) => {
  for (const version of ['2024-11-05', '2025-03-26', '2025-06-18', '2025-11-25']) {
    const client = await openSse(base)
    const answer = await client.request(initialize(version))
    t.match(answer, { id: 0, result: { protocolVersion: version } })
    client.cut()
  }
})

t.test('a POST gets 202 without a body, and its answer comes on the stream as a message event', async (t) => {
  const before = shared.events.length
  const posted = await shared.send(call('own', 'echo', { text: 'é😀' }))
  t.same([posted.status, posted.body], [202, ''])
  t.type(posted.headers['x-request-id'], 'string')
  t.equal(posted.headers['mcp-session-id'], undefined)
  const answer = await awaited(() => shared.messages, 'own')
  t.same(answer, { jsonrpc: '2.0', id: 'own', result: { content: [{ type: 'text', text: 'é😀' }] } })
  t.same(
    shared.events.slice(before).map(({ event, id }) => [event, id]),
    [['message', undefined]],
    'no event id: there is no resumption here',
  )
})

t.test('a POST need not accept anything', async (t) => {
  const posted = await shared.send(call('a', 'echo', { text: 'x' }), { Accept: 'text/plain' })
  t.equal(posted.status, 202)
  t.match(await awaited(() => shared.messages, 'a'), { result: {} })
})

t.test('progress, in order, precedes the result, on the one stream', async (t) => {
  const before = shared.messages.length
  await shared.request(call('p', 'progress', { count: 100 }, token(5)))
  const came = shared.messages.slice(before)
  t.equal(came.length, 101)
  t.same(
    came.slice(0, 100).map(({ params }) => [params.progressToken, params.progress]),
    came.slice(0, 100).map((_, i) => [5, i + 1]),
  )
})

t.test('a question of the server comes on the stream, and the answer to it reaches the server', async (t) => {
  const before = shared.messages.length
  await shared.send(call('q', 'ask', { method: 'roots/list' }))
  await until(() => shared.messages.length > before, 'the question')
  const { id } = shared.messages[before]
  const posted = await shared.send({ jsonrpc: '2.0', id, result: { roots: [] } })
  t.same([posted.status, posted.body], [202, ''])
  t.match(textOf(await awaited(() => shared.messages, 'q')), { id, result: { roots: [] } })
})

t.test('what the server says outside of calls comes at once', async (t) => {
  const before = shared.messages.length
  await shared.request(call('n', 'notify-later', { method: 'notifications/tools/list_changed', ms: 5 }))
  await until(() => shared.messages.length === before + 2, 'the notification')
  t.match(shared.messages.at(-1), { method: 'notifications/tools/list_changed' })
})

t.test('a cancelled call is not answered, and the server is told', async (t) => {
  await shared.send(call('c', 'hang'))
  const params = { requestId: 'c', reason: 'no' }
  const posted = await shared.send({ jsonrpc: '2.0', method: 'notifications/cancelled', params })
  t.same([posted.status, posted.body], [202, ''])
  t.equal(textOf(await shared.request(call('d', 'cancelled'))).length, 1)
  t.notOk(shared.messages.some(({ id }) => id === 'c'))
})

t.test('a quiet stream gets comments', async (t) => {
  const comments = () => (shared.text().match(/^:/gm) ?? []).length
  const before = comments()
  await until(() => comments() >= before + 2, 'two comments')
  t.pass()
})

t.test('two streams are two sessions with processes of their own', async (t) => {
  const other = await openSse(base, { version: '2025-06-18' })
  const [a, b] = await Promise.all([shared.request(call('x', 'pid')), other.request(call('x', 'pid'))])
  t.not(textOf(a), textOf(b))
  other.cut()
})

t.test('closing the stream ends the session and its process', async (t) => {
  const client = await openSse(base, { version: '2024-11-05' })
  const pid = Number(textOf(await client.request(call(1, 'pid'))))
  await client.send(call(2, 'hang'))
  client.cut()
  await until(async () => (await client.send(call(3, 'echo'))).status === 404, 'the session is gone')
  refused(t, await client.send(call(3, 'echo')), 404, 'ERR_SESSION_UNKNOWN')
  await until(() => isGone(pid), 'the process is gone')
})

t.test('a server that crashes fails the call and ends the stream', async (t) => {
  const client = await openSse(base, { version: '2024-11-05' })
  await client.send(call('h', 'hang'))
  await client.send(call('c', 'crash'))
  await client.closed
  isRefusal(t, await awaited(() => client.messages, 'h'), 'ERR_UPSTREAM_EXIT', 'h')
  isRefusal(t, await awaited(() => client.messages, 'c'), 'ERR_UPSTREAM_EXIT', 'c')
  t.equal((await client.send(call(3, 'echo'))).status, 404)
})

t.test('a request before initialize, and a second initialize, are refused on the stream', async (t) => {
  const client = await openSse(base)
  isRefusal(t, await client.request(call('early', 'echo')), 'ERR_SESSION_MISSING', 'early')
  refused(
    t,
    await client.send({ jsonrpc: '2.0', method: 'notifications/initialized' }),
    400,
    'ERR_SESSION_MISSING',
  )
  t.match(await client.request(initialize('2024-11-05')), { id: 0, result: {} })
  isRefusal(t, await client.request(initialize('2024-11-05', {}, 'again')), 'ERR_INVALID_REQUEST', 'again')
  t.match(await client.request(call('late', 'echo', { text: 'x' })), { result: {} })
  client.cut()
})

t.test('an initialize that the server refuses ends the stream after the answer', async (t) => {
  const { base } = await startTestSidecar(t, { server: ['--refuse'] })
  const client = await openSse(base)
  const answer = await client.request(initialize('2024-11-05'))
  t.match(answer, { id: 0, error: { message: 'refused' } })
  await client.closed
})

t.test('the session must be named, known and of this transport', async (t) => {
  refused(t, await post(messages, call(1, 'echo')), 400, 'ERR_SESSION_MISSING')
  for (const id of ['', 'x', '../../etc/passwd', '%00', 'a'.repeat(4000)]) {
    const answer = await post(`${messages}?sessionId=${id}`, call(1, 'echo'))
    refused(t, answer, 404, 'ERR_SESSION_UNKNOWN')
  }
  const streamable = await openSession(url)
  const id = streamable['Mcp-Session-Id'] as string
  refused(t, await post(`${messages}?sessionId=${id}`, call(1, 'echo')), 404, 'ERR_SESSION_UNKNOWN')
  await send(url, 'DELETE', streamable)
})

t.test('the session of a stream cannot be used through the other transport', async (t) => {
  const client = await openSse(base, { version: '2025-03-26' })
  const id = new URL(client.endpoint).searchParams.get('sessionId') as string
  const headers = { 'Mcp-Session-Id': id }
  refused(t, await post(url, call(1, 'echo'), headers), 404, 'ERR_SESSION_UNKNOWN', 1)
  refused(t, await send(url, 'GET', { ...headers, Accept: 'text/event-stream' }), 404, 'ERR_SESSION_UNKNOWN')
  refused(t, await send(url, 'DELETE', headers), 404, 'ERR_SESSION_UNKNOWN')
  t.notOk(client.isClosed(), 'the stream is still open')
  client.cut()
})

t.test('what a POST must be is checked before anything else', async (t) => {
  const { endpoint } = shared
  const type = { 'Content-Type': 'text/plain' }
  refused(t, await post(endpoint, call(1, 'echo'), type), 415, 'ERR_CONTENT_TYPE')
  refused(t, await post(endpoint, '{"jsonrpc":'), 400, 'ERR_PARSE')
  refused(t, await post(endpoint, ''), 400, 'ERR_PARSE')
  refused(t, await post(endpoint, '[]'), 400, 'ERR_BATCH')
  refused(t, await post(endpoint, '{}'), 400, 'ERR_INVALID_REQUEST')
  refused(t, await post(endpoint, call(1, 'echo', { text: 'x'.repeat(200_000) })), 413, 'ERR_TOO_LARGE')
  t.match(await shared.request(call('still', 'echo', { text: 'x' })), { result: {} })
})

t.test('a request whose id is in flight is refused, and the first is answered', async (t) => {
  const client = await openSse(base, { version: '2024-11-05' })
  await client.send(held(1))
  await client.send(call(1, 'echo', { text: 'second' }))
  const about = () => client.messages.filter(({ id }) => id === 1)
  await until(() => about().length === 1, 'the refusal')
  await client.send(released(1))
  await until(() => about().length === 2, 'both')
  isRefusal(t, about()[0], 'ERR_INVALID_REQUEST', 1)
  t.match(textOf(about()[1]), { call: '1' })
  client.cut()
})

t.test('batches are for 2025-03-26 alone', async (t) => {
  const client = await openSse(base, { version: '2025-03-26' })
  const posted = await client.send([call('b1', 'echo', { text: '1' }), call('b2', 'echo', { text: '2' })])
  t.same([posted.status, posted.body], [202, ''])
  t.equal(textOf(await awaited(() => client.messages.flat(), 'b1')), '1')
  t.equal(textOf(await awaited(() => client.messages.flat(), 'b2')), '2')
  refused(t, await shared.send([call('b3', 'echo')]), 400, 'ERR_BATCH')
  client.cut()
})

t.test('other methods are refused with the allowed one', async (t) => {
  for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS']) {
    const answer = await send(`${base}/sse`, method, { Accept: 'text/event-stream' })
    refused(t, answer, 405, 'ERR_METHOD')
    t.equal(answer.headers.allow, 'GET')
  }
  for (const method of ['GET', 'PUT', 'DELETE', 'OPTIONS']) {
    const answer = await send(shared.endpoint, method)
    refused(t, answer, 405, 'ERR_METHOD')
    t.equal(answer.headers.allow, 'POST')
  }
})

t.test('a client that accepts no event stream is refused', async (t) => {
  const plain = await send(`${base}/sse`, 'GET', { Accept: 'application/json' })
  refused(t, plain, 406, 'ERR_ACCEPT')
  const any = await open(`${base}/sse`, 'GET', { Accept: '*/*' })
  t.equal(any.statusCode, 200)
  any.destroy()
})

t.test('a Last-Event-ID changes nothing', async (t) => {
  const client = await openSse(base, { headers: { 'Last-Event-ID': '0-1' }, version: '2024-11-05' })
  t.match(await client.request(call(1, 'echo', { text: 'x' })), { result: {} })
  client.cut()
})

t.test('an answer of more than 64 KiB is one event', async (t) => {
  const text = textOf(await shared.request(call('big', 'blob', { bytes: 300_000 })))
  t.equal(text.length, 300_000)
})

t.test('a stream that asks for nothing costs no process', async (t) => {
  const { base, metric } = await startTestSidecar(t, { config: { server: { warmSpares: 0 } } })
  await until(async () => (await metric('mcp_sidecar_process_starts_total')) === 1, 'the probe')
  const clients = await Promise.all(Array.from({ length: 20 }, () => openSse(base)))
  t.equal(await metric('mcp_sidecar_sessions '), 20)
  t.equal(await metric('mcp_sidecar_process_starts_total'), 1, 'only the probe')
  for (const client of clients) client.cut()
  await until(async () => (await metric('mcp_sidecar_sessions ')) === 0, 'no session is left')
})

t.test('the operator is told that a client uses a deprecated transport', async (t) => {
  t.ok(
    logs.some(({ level, text }) => level === 'warn' && /deprecated/i.test(text)),
    'a warning in the log',
  )
})

t.test('it can be switched off, and then there is nothing at its paths', async (t) => {
  const { base } = await startTestSidecar(t, { config: { listen: { httpSse: false } } })
  refused(t, await send(`${base}/sse`, 'GET', { Accept: 'text/event-stream' }), 404, 'ERR_NOT_FOUND')
  refused(t, await post(`${base}/messages?sessionId=x`, call(1, 'echo')), 404, 'ERR_NOT_FOUND')
  t.equal((await post(`${base}/mcp`, initialize())).status, 200)
})

t.test('after all this no call is in flight and no session is left but the one still open', async (t) => {
  await until(async () => (await metric('mcp_sidecar_calls_in_flight')) === 0, 'no call')
  await until(async () => (await metric('mcp_sidecar_sessions ')) === 1, 'one session')
  t.equal(await metric('mcp_sidecar_refusals_total{code="ERR_INTERNAL"}'), 0)
})
