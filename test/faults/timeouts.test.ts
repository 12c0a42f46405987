import tap, { type Test } from 'tap'
import { type ForwardClock, forwardClock } from '../support/forward-clock.ts'
import { startTestSidecar, type TestSidecar, until } from '../support/sidecar.ts'
import { openSocket, openSse } from '../support/streams.ts'
import { accept, call, type Following, follow, open, openSession, post, send } from '../support/wire.ts'

// Much of this is waiting.
tap.jobs = 4
const test = (name: string, run: (t: Test) => Promise<void>) => tap.test(name, { buffered: true }, run)

type Session = Record<string, string>

interface Started extends TestSidecar {
  readonly clock: ForwardClock
  inFlight(count: number): Promise<void>
}

// biome-ignore lint/suspicious/noExplicitAny: answers of any shape
type Json = any

const textOf = (message: Json): string => message.result.content[0].text
const timedOut = { code: -32603, data: { source: 'mcp-sidecar', reason: 'ERR_TIMEOUT' } }
/** Minutes that are put forward: what real time a test takes does not matter beside them. */
const minute = 60_000
const limits = {
  requestTimeoutMs: 5 * minute,
  maxRequestTimeoutMs: 25 * minute,
  clientInputMs: 25 * minute,
}

/** A call whose event stream is read as it comes; resolves with the first event. */
async function streaming(url: string, session: Session, message: object): Promise<Following> {
  const headers = { ...session, 'Content-Type': 'application/json', Accept: accept }
  return follow(await open(url, 'POST', headers, JSON.stringify(message)))
}

/** Lets a call of the tool `script` take its next step, or all that are left. */
const step = (name: string, all = false) => ({
  jsonrpc: '2.0',
  method: 'notifications/step',
  params: { call: name, all },
})

const ping = { jsonrpc: '2.0', id: 'ping', method: 'ping' }

const cancel = (requestId: unknown, reason?: string) => ({
  jsonrpc: '2.0',
  method: 'notifications/cancelled',
  params: { requestId, ...(reason === undefined ? {} : { reason }) },
})

/** What the server was told to cancel, as the name of the tool, that of a script, and the params it got. */
async function cancelledAtServer(
  url: string,
  session: Session,
): Promise<{ tool: string; name: unknown; params: Json }[]> {
  const lines = JSON.parse(textOf((await post(url, call('lines', 'lines'), session)).json)) as string[]
  const messages = lines.map((line) => JSON.parse(line) as Json)
  return messages
    .filter(({ method }) => method === 'notifications/cancelled')
    .map(({ params }) => {
      const [cancelled] = messages.filter(({ id }) => id === params.requestId)
      const { name = 'nothing it knows', arguments: args } = cancelled?.params ?? {}
      return { tool: name, name: args?.call, params }
    })
}

for (const topology of ['per-session', 'shared']) {
  const start = async (t: Test, own: object = {}): Promise<Started> => {
    const clock = forwardClock()
    const sidecar = await startTestSidecar(t, {
      flags: { topology, webSocket: true },
      config: { server: { warmSpares: 0 }, limits: { ...limits, ...own } },
      clock,
    })
    const inFlight = (count: number): Promise<void> =>
      until(
        async () => (await sidecar.metric('mcp_sidecar_calls_in_flight ')) === count,
        `${count} calls in flight`,
      )
    return { ...sidecar, clock, inFlight }
  }

  test(`${topology}: a call without an answer fails in band and is cancelled at the server`, async (t) => {
    const { url, clock, inFlight } = await start(t)
    const session = await openSession(url)
    let over = false
    const calling = post(url, call('mine', 'hang'), session).finally(() => {
      over = true
    })
    await inFlight(1)
    clock.forward(3 * minute)
    await post(url, ping, session)
    t.notOk(over, 'not before the timeout')
    clock.forward(6 * minute)
    const answer = await calling
    t.equal(answer.status, 200)
    t.match(answer.json, { jsonrpc: '2.0', id: 'mine', error: timedOut })
    const cancelled = await cancelledAtServer(url, session)
    t.match(cancelled, [{ tool: 'hang', params: { requestId: Number } }])
    t.equal(cancelled.length, 1)
    t.equal((await post(url, call('mine', 'echo', { text: 'next' }), session)).status, 200)
  })

  test(`${topology}: a call that has begun to stream ends its stream with the timeout`, async (t) => {
    const { url, clock } = await start(t)
    const session = await openSession(url)
    const progress = call(7, 'progress', { count: 2, ms: 50_000 }, { progressToken: 1 })
    const stream = await streaming(url, session, progress)
    t.equal(stream.response.statusCode, 200)
    await until(() => stream.messages.length === 1, 'it streams')
    clock.forward(6 * minute)
    await stream.closed
    t.match(stream.messages, [
      { method: 'notifications/progress', params: { progressToken: 1, progress: 1 } },
      { id: 7, error: timedOut },
    ])
    t.equal(stream.messages.length, 2)
  })

  test(`${topology}: each progress starts the timeout anew`, async (t) => {
    const { url, clock, inFlight } = await start(t)
    const session = await openSession(url)
    const script = { owner: 'me', call: 'c', steps: ['progress', 'progress', 'progress'] }
    const calling = streaming(url, session, call(1, 'script', script, { progressToken: 't' }))
    await inFlight(1)
    for (let i = 1; i <= 3; i++) {
      await post(url, step('c'), session)
      const stream = await calling
      await until(() => stream.messages.length === i, `progress ${i}`)
      clock.forward(3 * minute)
    }
    await post(url, step('c'), session)
    const stream = await calling
    await stream.closed
    t.equal(stream.messages.length, 4)
    t.match(stream.messages.at(-1), { id: 1, result: {} })
  })

  test(`${topology}: progress does not keep a call beyond the longest time, nor is it cut short before`, async (t) => {
    const { url, clock, inFlight } = await start(t, { maxRequestTimeoutMs: 8 * minute })
    const session = await openSession(url)
    const steps = Array(10).fill('progress')
    const script = { owner: 'me', call: 'c', steps }
    const calling = streaming(url, session, call(1, 'script', script, { progressToken: 't' }))
    await inFlight(1)
    // The last progress is heard after six minutes: it would be good for eleven.
    for (let i = 1; i <= 3; i++) {
      if (i > 1) clock.forward(3 * minute)
      await post(url, step('c'), session)
      const stream = await calling
      await until(() => stream.messages.length === i, `progress ${i}`)
    }
    clock.forward(3 * minute)
    const stream = await calling
    await stream.closed
    t.match(stream.messages.at(-1), { id: 1, error: timedOut })
    t.equal(stream.messages.length, 4, 'it had all its time')
    t.match(await cancelledAtServer(url, session), [{ tool: 'script' }])
  })

  test(`${topology}: progress of one call does not keep another one`, async (t) => {
    const { url, clock, inFlight } = await start(t)
    const session = await openSession(url)
    const script = { owner: 'me', call: 'c', steps: ['progress', 'progress'] }
    const calling = streaming(url, session, call(1, 'script', script, { progressToken: 1 }))
    const other = post(url, call(2, 'hang', {}, { progressToken: 2 }), session)
    await inFlight(2)
    for (let i = 1; i <= 2; i++) {
      await post(url, step('c'), session)
      const stream = await calling
      await until(() => stream.messages.length === i, `progress ${i}`)
      clock.forward(3 * minute)
    }
    t.match((await other).json, { error: timedOut })
    await post(url, step('c'), session)
    const stream = await calling
    await stream.closed
    t.match(stream.messages.at(-1), { id: 1, result: {} })
  })

  test(`${topology}: a call that waits for its client is not timed out, and goes on with the answer`, async (t) => {
    const { url, clock } = await start(t)
    const session = await openSession(url, { capabilities: { sampling: {} } })
    const asking = await streaming(url, session, call(1, 'ask', { method: 'sampling/createMessage' }))
    await until(() => asking.messages.length > 0, 'the client is asked')
    // The user thinks.
    clock.forward(15 * minute)
    await post(url, ping, session)
    t.notOk(asking.isClosed())
    await post(url, { jsonrpc: '2.0', id: asking.messages[0].id, result: { role: 'assistant' } }, session)
    await asking.closed
    t.match(JSON.parse(textOf(asking.messages.at(-1))), { result: { role: 'assistant' } })
  })

  test(`${topology}: after the client's answer the timeout runs again`, async (t) => {
    const { url, clock, inFlight } = await start(t)
    const session = await openSession(url, { capabilities: { sampling: {} } })
    const script = { owner: 'me', call: 'c', steps: ['sampling'] }
    const asking = streaming(url, session, call(1, 'script', script))
    await inFlight(1)
    await post(url, step('c'), session)
    const stream = await asking
    await until(() => stream.messages.length > 0, 'the client is asked')
    await post(url, { jsonrpc: '2.0', id: stream.messages[0].id, result: {} }, session)
    clock.forward(6 * minute)
    await stream.closed
    t.match(stream.messages.at(-1), { id: 1, error: timedOut })
  })

  test(`${topology}: a client that leaves a question open makes it fail, not the call`, async (t) => {
    const { url, metric, clock } = await start(t, { clientInputMs: 12 * minute })
    const session = await openSession(url, { capabilities: { sampling: {} } })
    const stream = await streaming(url, session, call(1, 'ask', { method: 'sampling/createMessage' }))
    await until(() => stream.messages.length > 0, 'the client is asked')
    clock.forward(8 * minute)
    await post(url, ping, session)
    t.equal(stream.messages.length, 1, 'not before the time for input')
    clock.forward(8 * minute)
    await stream.closed
    const { messages } = stream
    const [question, withdrawn] = messages
    t.match(withdrawn, { method: 'notifications/cancelled', params: { requestId: question.id } })
    t.match(messages.at(-1), { id: 1, result: { content: [{ text: /"code":-32603.*ERR_NO_CLIENT/ }] } })
    const late = await post(url, { jsonrpc: '2.0', id: question.id, result: { late: true } }, session)
    t.equal(late.status, 202)
    await until(
      async () => (await metric('mcp_sidecar_dropped_messages_total{reason="unexpected_response"}')) === 1,
      'the late answer is dropped',
    )
    t.notMatch(textOf((await post(url, call(9, 'lines'), session)).json), /"late/)
  })

  test(`${topology}: waiting for the client ends with the longest time of a call too`, async (t) => {
    const { url, clock } = await start(t, { maxRequestTimeoutMs: 12 * minute })
    const session = await openSession(url, { capabilities: { sampling: {} } })
    const asking = await streaming(url, session, call(1, 'ask', { method: 'sampling/createMessage' }))
    await until(() => asking.messages.length > 0, 'the client is asked')
    clock.forward(8 * minute)
    await post(url, ping, session)
    t.notOk(asking.isClosed())
    clock.forward(8 * minute)
    await asking.closed
    t.match(asking.messages.at(-1), { id: 1, error: timedOut })
  })

  test(`${topology}: a cancellation reaches the server with the id it knows, and ends the response`, async (t) => {
    const { url, metric, inFlight } = await start(t)
    const session = await openSession(url)
    const waiting = (name: string): object => ({ owner: 'me', call: name, steps: [] })
    const plain = post(url, call('1', 'script', waiting('plain')), session)
    const other = post(url, call(1, 'script', waiting('other')), session)
    const script = { owner: 'me', call: 'c', steps: ['progress', 'progress', 'log'] }
    const calling = streaming(url, session, call(2, 'script', script, { progressToken: 't' }))
    await inFlight(3)
    await post(url, step('c'), session)
    const stream = await calling
    await until(() => stream.messages.length === 1, 'it streams')
    t.equal((await post(url, cancel('1', 'enough'), session)).status, 202)
    t.equal((await post(url, cancel(2), session)).status, 202)
    for (const name of ['c', 'plain', 'other']) await post(url, step(name, true), session)
    t.equal((await plain).body, '', 'nothing is answered')
    await stream.closed
    t.equal(stream.messages.length, 1, 'nothing follows on the stream')
    const answered = JSON.parse(textOf((await other).messages.at(-1)))
    t.equal(answered.call, 'other', 'the call with the number 1 was not meant')
    t.match(await cancelledAtServer(url, session), [
      { name: 'plain', params: { requestId: Number } },
      { name: 'c', params: { requestId: Number } },
    ])
    const dropped = (what: string) => metric(`mcp_sidecar_dropped_messages_total{reason="late_${what}"}`)
    await until(async () => (await dropped('answer')) === 2, 'late answers are dropped')
    t.equal(await dropped('progress'), 1)
    t.equal(await metric('mcp_sidecar_calls_total{method="tools/call",outcome="cancelled"}'), 2)
    t.equal(await metric('mcp_sidecar_calls_in_flight '), 0)
  })

  test(`${topology}: cancelling what is not in flight is accepted and does nothing`, async (t) => {
    const { url } = await start(t)
    const session = await openSession(url)
    await post(url, call(1, 'echo'), session)
    for (const id of [1, 99, 'x', null, undefined, { a: 1 }]) {
      t.equal((await post(url, cancel(id), session)).status, 202)
    }
    t.strictSame(await cancelledAtServer(url, session), [])
  })

  test(`${topology}: over WebSocket and HTTP+SSE nothing more comes for a cancelled call`, async (t) => {
    const { base } = await start(t)
    const socket = await openSocket(base, { version: '2025-11-25' })
    const sse = await openSse(base, { version: '2024-11-05' })
    for (const client of [socket, sse]) {
      const count = client.messages.length
      await client.send(call('c', 'progress', { count: 3, ms: 250 }, { progressToken: 't' }))
      await until(() => client.messages.length > count, 'it streams')
      await client.send(cancel('c'))
      await client.request({ jsonrpc: '2.0', id: 'after', method: 'ping' } as never)
      const seen = client.messages.length
      const answer = await client.request(call('d', 'sleep', { ms: 800 }))
      t.equal(textOf(answer), 'slept 800')
      t.equal(client.messages.length, seen + 1, 'only the answer of the other call')
    }
    socket.close()
    sse.cut()
  })

  test(`${topology}: an answer that comes after the timeout is dropped`, async (t) => {
    const { url, metric, clock, inFlight } = await start(t)
    const session = await openSession(url)
    const waiting = (name: string): object => ({ owner: 'me', call: name, steps: [] })
    const first = post(url, call(1, 'script', waiting('c')), session)
    await inFlight(1)
    // Its round trip takes the call to the server before the time is over.
    await post(url, call('after it', 'echo'), session)
    clock.forward(6 * minute)
    t.match((await first).json, { id: 1, error: timedOut })
    const next = post(url, call(1, 'script', waiting('next')), session)
    await inFlight(1)
    await post(url, step('c'), session)
    const late = () => metric('mcp_sidecar_dropped_messages_total{reason="late_answer"}')
    await until(async () => (await late()) === 1, 'the late answer is counted')
    await post(url, step('next'), session)
    t.match((await next).json, { id: 1, result: { content: [{ text: /"call":"next"/ }] } })
  })

  test(`${topology}: a client that disconnects has not cancelled; the rest waits for it`, async (t) => {
    const { url, metric } = await start(t)
    const session = await openSession(url)
    const script = { owner: 'me', call: 'c', steps: ['progress', 'progress', 'progress'] }
    const calling = streaming(url, session, call(1, 'script', script, { progressToken: 't' }))
    await until(async () => (await metric('mcp_sidecar_calls_in_flight ')) === 1, 'the call is in flight')
    await post(url, step('c'), session)
    const stream = await calling
    await until(() => stream.messages.length === 1, 'it streams')
    const { id } = stream.events.findLast((event) => event.id !== undefined) as { id: string }
    stream.cut()
    await post(url, step('c'), session)
    await post(url, step('c', true), session)
    await until(async () => (await metric('mcp_sidecar_calls_in_flight ')) === 0, 'the call is done')
    t.strictSame(await cancelledAtServer(url, session), [])
    const headers = { ...session, Accept: 'text/event-stream', 'Last-Event-ID': id }
    const rest = await send(url, 'GET', headers)
    t.match(rest.messages, [
      { method: 'notifications/progress', params: { progressToken: 't', progress: 2 } },
      { method: 'notifications/progress', params: { progressToken: 't', progress: 3 } },
      { id: 1, result: {} },
    ])
  })

  test(`${topology}: a question goes to a call whose connection still stands`, async (t) => {
    const { url, metric } = await start(t)
    const session = await openSession(url, { capabilities: { sampling: {} } })
    const calling = async (count: number): Promise<void> =>
      until(async () => (await metric('mcp_sidecar_calls_in_flight ')) === count, `${count} calls in flight`)
    const script = { owner: 'me', call: 'c', steps: ['sampling'] }
    const asking = streaming(url, session, call(1, 'script', script))
    await calling(1)
    const stop = new AbortController()
    const headers = { ...session, 'Content-Type': 'application/json', Accept: accept }
    const body = JSON.stringify(call(2, 'script', { owner: 'me', call: 'lost', steps: [] }))
    const lost = fetch(url, { method: 'POST', headers, body, signal: stop.signal })
    await calling(2)
    stop.abort()
    await t.rejects(lost)
    // Until the sidecar has noticed.
    await post(url, { jsonrpc: '2.0', id: 3, method: 'ping' }, session)
    await post(url, step('c'), session)
    const asked = await Promise.race([asking, calling(1)])
    t.ok(asked, 'the client is asked before the lost call ends')
    await post(url, step('lost'), session)
    await post(url, { jsonrpc: '2.0', id: 0, result: {} }, session)
    await post(url, step('c', true), session)
    await (await asking).closed
  })

  test(`${topology}: a client that disconnects before anything was streamed has not cancelled`, async (t) => {
    const { url, inFlight } = await start(t)
    const session = await openSession(url)
    const stop = new AbortController()
    const calling = fetch(url, {
      method: 'POST',
      headers: { ...session, 'Content-Type': 'application/json', Accept: accept },
      body: JSON.stringify(call(1, 'script', { owner: 'me', call: 'c', steps: [] })),
      signal: stop.signal,
    })
    await inFlight(1)
    stop.abort()
    await t.rejects(calling)
    await post(url, step('c'), session)
    await inFlight(0)
    t.strictSame(await cancelledAtServer(url, session), [])
    t.equal((await post(url, call(1, 'echo'), session)).status, 200, 'the session and the id go on')
  })
}

test('shared: a session that ends cancels its calls at the server, whichever way it ends', async (t) => {
  const { url, base } = await startTestSidecar(t, { flags: { topology: 'shared', webSocket: true } })
  const witness = await openSession(url)
  const session = await openSession(url)
  const plain = post(url, call(1, 'hang', { how: 'delete' }), session)
  const socket = await openSocket(base, { version: '2025-11-25' })
  socket.send(call(1, 'hang', { how: 'socket' }))
  const sse = await openSse(base, { version: '2024-11-05' })
  await sse.send(call(1, 'hang', { how: 'sse' }))
  const hanging = async () =>
    textOf((await post(url, call('w', 'lines'), witness)).json).match(/\\"how\\":\\"\w+/g)?.length
  await until(async () => (await hanging()) === 3, 'all calls have reached the server')
  t.equal((await send(url, 'DELETE', session)).status, 200)
  t.equal((await plain).status, 404)
  socket.close()
  sse.cut()
  await until(async () => (await cancelledAtServer(url, witness)).length === 3, 'all are cancelled')
  t.match(await cancelledAtServer(url, witness), [{ tool: 'hang' }, { tool: 'hang' }, { tool: 'hang' }])
})
