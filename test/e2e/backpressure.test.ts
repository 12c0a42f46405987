import type { IncomingMessage } from 'node:http'
import t, { type Test } from 'tap'
import { isRefusal, refused } from '../support/refusal.ts'
import { startTestSidecar, type TestSidecar, until } from '../support/sidecar.ts'
import { awaited, openSocket, openSse } from '../support/streams.ts'
import { accept, call, follow, open, openSession, post, type RawResponse, send } from '../support/wire.ts'

type Headers = Record<string, string>

const queueBytes = 256 * 1024
/** On top of what is counted: one read of a pipe, a few messages. */
const slackBytes = 512 * 1024
const mebibyte = 1024 * 1024
const limits = { sessionQueueBytes: queueBytes }
const own = await startTestSidecar(t, {
  config: { listen: { webSocket: true }, limits: { ...limits, replayBufferBytes: 64 * 1024 } },
})
const shared = await startTestSidecar(t, {
  config: { server: { topology: 'shared', era: 'legacy' }, listen: { webSocket: true }, limits },
})
/** Shared, with the default limits. */
const roomy = await startTestSidecar(t, { config: { server: { topology: 'shared' } } })
const session = await openSession(own.url)

// biome-ignore lint/suspicious/noExplicitAny: answers of any shape
const textOf = (answer: any): any => {
  const text = answer.result.content[0].text
  return /^[[{]/.test(text) ? JSON.parse(text) : text
}
const posting = (url: string, message: unknown, headers: Headers): Promise<IncomingMessage> =>
  open(
    url,
    'POST',
    { 'Content-Type': 'application/json', Accept: accept, ...headers },
    JSON.stringify(message),
  )
/** Sockets of this process: the sidecars' and ours. */
const openSockets = (): number =>
  process.getActiveResourcesInfo().filter((type) => type === 'TCPSocketWrap').length
const unread = ({ metric }: TestSidecar) => metric('mcp_sidecar_queue_bytes{reader="client"}')
const unreadByServer = ({ metric }: TestSidecar) => metric('mcp_sidecar_queue_bytes{reader="server"}')

/** How many there are when none is closing any more. */
const quietSockets = (): Promise<number> => settled(async () => openSockets())

/** Waits until a value that was going up has stopped to. */
async function settled(read: () => Promise<number>): Promise<number> {
  let last = -1
  let same = 0
  await until(async () => {
    const now = await read()
    same = now === last ? same + 1 : 0
    last = now
    return same === 6
  }, 'the value settles')
  return last
}

// Fifteen megabytes of log messages, then the answer.
const steps = 1500
const heavy = (id: string | number) => call(id, 'flood', { count: steps, bytes: 10_000 })
const listing = (id: string | number) => ({ jsonrpc: '2.0', id, method: 'tools/list' })

function inOrder(t: Test, messages: readonly { params?: { data?: string } }[]): void {
  t.equal(messages.length, steps + 1)
  t.ok(messages.slice(0, steps).every(({ params }, i) => params?.data?.startsWith(`${i} `) === true))
}

t.test(
  'who does not read a POST stream holds up the own server process, and gets everything when reading again',
  async (t) => {
    const slow = await openSession(own.url)
    const response = await posting(own.url, heavy('slow'), slow)
    await until(async () => (await unread(own)) > queueBytes, 'the limit is reached')
    const held = await settled(() => unread(own))
    t.ok(held < queueBytes + slackBytes, `${held} bytes are held`)
    t.equal(await own.metric('mcp_sidecar_calls_in_flight'), 1, 'the server is not through')
    const started = performance.now()
    for (let i = 0; i < 20; i++) t.equal((await post(own.url, call(i, 'echo'), session)).status, 200)
    t.ok(performance.now() - started < 15_000, 'another session is served at full speed')
    const stream = follow(response)
    await stream.closed
    inOrder(t, stream.messages)
    await until(async () => (await unread(own)) === 0, 'nothing is held any more')
    await send(own.url, 'DELETE', slow)
  },
)

t.test('who does not read the GET stream holds up the own server process', async (t) => {
  const slow = await openSession(own.url)
  const response = await open(own.url, 'GET', { ...slow, Accept: 'text/event-stream' })
  const data = 'x'.repeat(100_000)
  const params = { method: 'notifications/resources/updated', params: { uri: data } }
  const count = 150
  let answered = 0
  const sending = (async () => {
    for (; answered < count; answered++) await post(own.url, call(answered, 'notify', params), slow)
  })()
  const reached = async () => (await unread(own)) > queueBytes || answered === count
  await until(reached, 'the limit is reached')
  const held = await settled(() => unread(own))
  t.ok(answered < count, `the server stands still after ${answered} calls`)
  t.ok(held < queueBytes + slackBytes, `${held} bytes are held`)
  const stream = follow(response)
  await sending
  await until(() => stream.messages.length === count, 'every message')
  t.ok(stream.messages.every(({ params }) => params.uri === data))
  await send(own.url, 'DELETE', slow)
})

t.test('who does not read an HTTP+SSE stream holds up the own server process', async (t) => {
  const client = await openSse(own.base, { version: '2024-11-05' })
  client.response.pause()
  await client.send(heavy('slow'))
  await until(async () => (await unread(own)) > queueBytes, 'the limit is reached')
  const held = await settled(() => unread(own))
  t.ok(held < queueBytes + slackBytes, `${held} bytes are held`)
  t.equal((await post(own.url, call(1, 'echo'), session)).status, 200, 'another session is served')
  const before = client.messages.length
  client.response.resume()
  await awaited(() => client.messages.slice(-1), 'slow')
  inOrder(t, client.messages.slice(before))
  client.cut()
})

t.test('who does not read a WebSocket holds up the own server process', async (t) => {
  const client = await openSocket(own.base, { version: '2025-06-18' })
  const before = client.messages.length
  client.socket.pause()
  client.send(heavy('slow'))
  await until(async () => (await unread(own)) > queueBytes, 'the limit is reached')
  const held = await settled(() => unread(own))
  t.ok(held < queueBytes + slackBytes, `${held} bytes are held`)
  t.equal((await post(own.url, call(1, 'echo'), session)).status, 200, 'another session is served')
  client.socket.resume()
  await awaited(() => client.messages.slice(-1), 'slow')
  inOrder(t, client.messages.slice(before))
  client.close()
})

t.test('a long progress token does not multiply what is held', async (t) => {
  const slow = await openSession(own.url)
  const progressToken = 'x'.repeat(500_000)
  // One write of the server, read in one piece.
  const step =
    '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":$TOKEN,"progress":1}}'
  const line = `${`${step}\n`.repeat(400)}{"jsonrpc":"2.0","id":$ID,"result":{}}`
  const response = await posting(own.url, call(1, 'raw', { line }, { progressToken }), slow)
  let most = 0
  const look = async (): Promise<number> => {
    const now = await unread(own)
    most = Math.max(most, now)
    return now
  }
  if (response.statusCode === 200) await settled(look)
  t.ok(most < queueBytes + 4 * mebibyte, `${most} bytes are held`)
  response.destroy()
  await send(own.url, 'DELETE', slow)
})

t.test('many slow readers hold no more than their share each', async (t) => {
  const count = 5
  const sessions = await Promise.all(Array.from({ length: count }, () => openSession(own.url)))
  const responses = await Promise.all(sessions.map((each) => posting(own.url, heavy('slow'), each)))
  await until(async () => (await unread(own)) > count * queueBytes, 'all are at the limit')
  const held = await settled(() => unread(own))
  t.ok(held < count * (queueBytes + slackBytes), `${held} bytes are held`)
  for (const response of responses) response.destroy()
  await until(async () => (await unread(own)) === 0, 'nothing is held for who has gone')
  await Promise.all(sessions.map((each) => send(own.url, 'DELETE', each)))
})

t.test('what the client of an ended session left unread is not kept, nor is its connection', async (t) => {
  const slow = await openSession(own.url)
  const before = await quietSockets()
  const count = 1
  const response = await posting(own.url, call(1, 'blob', { bytes: 12 * mebibyte }), slow)
  t.equal(response.statusCode, 200)
  await send(own.url, 'DELETE', slow)
  const kept = (): number => openSockets() - before - count
  try {
    await until(() => kept() <= 0, 'the connections are closed')
    t.pass('closed')
  } catch {
    t.fail(`${kept()} connection with an unread answer is kept`)
  }
  response.destroy()
})

t.test('on a shared process only the session of the slow reader ends', async (t) => {
  const slow = await openSession(shared.url)
  const other = await openSession(shared.url)
  const response = await posting(shared.url, heavy('slow'), slow)
  const meanwhile: RawResponse[] = []
  await until(async () => {
    meanwhile.push(await post(shared.url, listing(meanwhile.length), other))
    return (await post(shared.url, { jsonrpc: '2.0', method: 'x/y' }, slow)).status === 404
  }, 'the session of the slow reader has ended')
  t.ok(meanwhile.every(({ status, json }) => status === 200 && json.result.tools.length > 0))
  refused(t, await post(shared.url, call(1, 'echo'), slow), 404, 'ERR_SESSION_UNKNOWN', 1)
  t.equal(await shared.metric('mcp_sidecar_dropped_messages_total{reason="slow_reader"}'), 1)
  t.ok((await unread(shared)) < queueBytes + slackBytes)
  t.equal((await post(shared.url, call(1, 'echo'), other)).status, 200)
  t.equal(await shared.metric('mcp_sidecar_process_starts_total'), 1, 'the process is the same')
  response.destroy()
})

t.test('slow readers whose sessions have ended cost nothing any more', async (t) => {
  const before = await quietSockets()
  const count = 3
  const posts: IncomingMessage[] = []
  for (let i = 0; i < count; i++) {
    const slow = await openSession(shared.url)
    posts.push(await posting(shared.url, call('big', 'blob', { bytes: 12 * mebibyte }), slow))
    await until(
      async () => (await post(shared.url, listing(i), slow)).status === 404,
      'its session has ended',
    )
  }
  const kept = (): number => openSockets() - before - count
  try {
    await until(() => kept() <= 0, 'their connections are closed')
    t.pass('closed')
  } catch {
    t.fail(`${kept()} of ${count} connections are kept, with what their clients do not read`)
  }
  for (const response of posts) response.destroy()
})

t.test('a slow WebSocket on a shared process is closed, and does not linger', async (t) => {
  const client = await openSocket(shared.base, { version: '2025-06-18' })
  const sessions = await shared.metric('mcp_sidecar_sessions ')
  client.socket.pause()
  client.send(heavy('slow'))
  await until(async () => (await shared.metric('mcp_sidecar_sessions ')) < sessions, 'the session has ended')
  client.socket.resume()
  await until(() => client.closed() !== undefined, 'the socket is closed')
  t.ok([1006, 1008].includes(client.closed()?.code ?? 0), `with ${client.closed()?.code}`)
})

t.test('who reads all the time is no slow reader, however much there is to read', async (t) => {
  const reading = await openSession(roomy.url)
  inOrder(t, (await post(roomy.url, heavy('fast'), reading)).messages)
  t.equal((await post(roomy.url, listing('after'), reading)).status, 200, 'the session lives on')
})

t.test('an answer beyond the queue is no slow reader, whatever else the client asks meanwhile', async (t) => {
  const reading = await openSession(roomy.url)
  const [big, ...small] = await Promise.all([
    post(roomy.url, call('big', 'blob', { bytes: 12 * mebibyte }), reading),
    ...Array.from({ length: 40 }, (_, i) => post(roomy.url, call(i, 'echo', { text: 'x' }), reading)),
  ])
  t.equal(big?.status, 200)
  t.equal(textOf(big?.json).length, 12 * mebibyte)
  t.ok(small.every(({ status }) => status === 200))
  t.equal((await post(roomy.url, call('after', 'echo'), reading)).status, 200, 'the session lives on')
})

t.test('nor is it on one stream for all', async (t) => {
  const client = await openSse(roomy.base, { version: '2024-11-05' })
  await client.send(call('big', 'blob', { bytes: 12 * mebibyte }))
  for (let i = 0; i < 20; i++) await client.send(call(i, 'echo', { text: 'x' }))
  try {
    await until(() => client.isClosed() || client.messages.some(({ id }) => id === 19), 'the last answer')
  } finally {
    t.notOk(client.isClosed(), 'the stream is open')
    t.equal(textOf(client.messages.find(({ id }) => id === 'big')).length, 12 * mebibyte)
    client.cut()
  }
})

// From here on with a small limit, so that too much is made quickly.
const small = await startTestSidecar(t, { config: { limits: { serverMessageBytes: 100_000 } } })
const smallSession = await openSession(small.url)

t.test('a longer answer fails that call alone', async (t) => {
  const other = post(small.url, call('other', 'sleep', { ms: 100 }), smallSession)
  for (const bytes of [100_000, 1_000_000, 20_000_000]) {
    const failed = await post(small.url, call('big', 'blob', { bytes }), smallSession)
    t.equal(failed.status, 200, 'the id is known')
    isRefusal(t, failed.json, 'ERR_UPSTREAM_MESSAGE', 'big')
  }
  t.equal(textOf((await other).json), 'slept 100')
  t.equal(
    textOf((await post(small.url, call(1, 'blob', { bytes: 90_000 }), smallSession)).json).length,
    90_000,
  )
  t.equal(await small.metric('mcp_sidecar_dropped_messages_total{reason="overlong_line"}'), 3)
})

t.test('it does so wherever in the message its id stands', async (t) => {
  const pad = JSON.stringify({ id: 1, deep: [{ id: '"id":7' }], text: 'x'.repeat(120_000) })
  for (const line of [
    `{"jsonrpc":"2.0","result":${pad},"id":$ID}`,
    `{"result":${pad},"x":"\\"id\\":1","id" : $ID ,"jsonrpc":"2.0"}`,
  ]) {
    const answer = post(small.url, call('raw', 'raw', { line }), smallSession)
    const timeout = new Promise<undefined>((resolve) => setTimeout(resolve, 20_000, undefined).unref())
    isRefusal(t, (await Promise.race([answer, timeout]))?.json, 'ERR_UPSTREAM_MESSAGE', 'raw')
  }
})

t.test('a question that is too long fails no call of the same number', async (t) => {
  const session = await openSession(small.url)
  // The server counts its questions from 0, the sidecar its calls from 1, initialize being the first.
  let innocent: RawResponse | undefined
  void post(small.url, call('innocent', 'hang'), session).then((answer) => {
    innocent = answer
  })
  for (const id of ['a', 'b']) {
    const asking = follow(await posting(small.url, call(id, 'ask', { method: 'roots/list' }), session))
    await until(() => asking.messages.length === 1, 'a question')
    await post(small.url, { jsonrpc: '2.0', id: asking.messages[0].id, result: {} }, session)
    await asking.closed
  }
  const overlong = () => small.metric('mcp_sidecar_dropped_messages_total{reason="overlong_line"}')
  const before = await overlong()
  const params = { pad: 'x'.repeat(200_000) }
  const asking = call('c', 'ask', { method: 'sampling/createMessage', params })
  const refusedForIt = post(small.url, asking, session)
  await until(async () => (await overlong()) > before, 'the question is dropped')
  t.equal((await post(small.url, call('d', 'echo'), session)).status, 200)
  t.equal(innocent, undefined, 'the other call is still in flight')
  const timeout = new Promise<undefined>((resolve) => setTimeout(resolve, 20_000, undefined).unref())
  const answer = await Promise.race([refusedForIt, timeout])
  t.match(answer && textOf(answer.json), { error: {} }, 'the server is told that nobody will answer')
  await send(small.url, 'DELETE', session)
})

t.test('garbage on stdout is dropped, counted and reported, and nothing of it is in the log', async (t) => {
  // A process of its own: how many lines about one process the log takes in a second is limited.
  const session = await openSession(small.url)
  const dropped = () => small.metric('mcp_sidecar_dropped_messages_total{reason="stdout_garbage"}')
  const before = await dropped()
  const lines = [
    'hello, a-secret-word',
    '{"a-secret-word":1}',
    '{"jsonrpc":"2.0"}',
    '{"jsonrpc":"2.0","id":1',
    'null',
    '42',
    '\u001b[31mred\u001b[0m',
    '[{"jsonrpc":"1.0"}]',
    `${'['.repeat(1000)}${']'.repeat(1000)}`,
  ]
  const answer = await post(small.url, call('g', 'garbage', { lines: ['', ' ', '\r', ...lines] }), session)
  t.equal(textOf(answer.json), 'littered')
  // Not UTF-8, a NUL, CR LF at the end of a good line.
  const good = Buffer.from(
    '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"good"}}\r\n',
  )
  const hex = `fffe80220a00000a${good.toString('hex')}`
  const second = await post(small.url, call('h', 'bytes', { hex }), session)
  t.match(second.messages, [{ params: { data: 'good' } }, { id: 'h' }])
  t.ok((await dropped()) - before >= lines.length + 1, 'counted')
  t.ok(
    small.logs.some(({ level, text }) => level === 'warn' && /stdout/.test(text)),
    'reported',
  )
  t.notOk(JSON.stringify(small.logs).includes('a-secret-word'))
})

t.test('answers to nothing, and second answers, are dropped', async (t) => {
  const line = '{"jsonrpc":"2.0","id":$ID,"result":{"content":[{"type":"text","text":"first"}]}}'
  const lines = `{"jsonrpc":"2.0","id":99999,"result":{}}\n${line}\n${line.replace('first', 'second')}`
  const answer = await post(small.url, call('r', 'raw', { line: lines }), smallSession)
  t.equal(textOf(answer.json), 'first')
  for (const id of ['"1"', 'null', '"x"', '-1', '1.5', '{}']) {
    await post(
      small.url,
      call('s', 'garbage', { lines: [`{"jsonrpc":"2.0","id":${id},"result":{}}`] }),
      smallSession,
    )
  }
  t.equal((await post(small.url, call('t', 'echo'), smallSession)).status, 200)
})

t.test('a server that does not read is sent no more than the limit, others are served', async (t) => {
  const deaf = await openSession(own.url)
  await post(own.url, call('deafen', 'deafen'), deaf)
  const text = 'x'.repeat(50_000)
  const waiting: Promise<RawResponse>[] = []
  let refusal: RawResponse | undefined
  for (let i = 0; i < 60 && refusal === undefined; i++) {
    const answer = post(own.url, call(i, 'echo', { text }), deaf)
    waiting.push(answer)
    // An answer now can only be a refusal.
    await Promise.race([
      answer.then((it) => {
        refusal = it
      }),
      post(own.url, call(`other ${i}`, 'echo', { text: 'y' }), session),
    ])
  }
  t.ok(refusal !== undefined, 'at some point it is enough')
  if (refusal !== undefined) {
    refused(t, refusal, 503, 'ERR_OVERLOADED', refusal.json.id)
    t.match(refusal.headers['retry-after'], /^\d+$/)
  }
  refused(
    t,
    await post(own.url, { jsonrpc: '2.0', method: 'x/y', params: { text } }, deaf),
    503,
    'ERR_OVERLOADED',
  )
  const held = await unreadByServer(own)
  t.ok(held < queueBytes + slackBytes, `${held} bytes are held`)
  t.equal((await post(own.url, call('other', 'echo'), session)).status, 200)
  await send(own.url, 'DELETE', deaf)
  for (const { status } of await Promise.all(waiting)) t.ok(status >= 400)
})

t.test('no kind of message gets around that limit', async (t) => {
  const deaf = await openSession(own.url)
  const asking = follow(
    await posting(
      own.url,
      call('q', 'ask', { method: 'roots/list', params: { _meta: { progressToken: 'tok' } } }),
      deaf,
    ),
  )
  await until(() => asking.messages.length === 1, 'the question')
  await post(own.url, call('deafen', 'deafen'), deaf)
  const pad = 'x'.repeat(mebibyte)
  const params = { progressToken: 'tok', progress: 1, message: pad }
  let last: RawResponse | undefined
  for (let i = 0; i < 20; i++) {
    last = await post(own.url, { jsonrpc: '2.0', method: 'notifications/progress', params }, deaf)
    if (last.status !== 202) break
  }
  const held = await unreadByServer(own)
  t.ok(held < queueBytes + 3 * mebibyte, `${held} bytes wait for the server`)
  await send(own.url, 'DELETE', deaf)
})

t.test('a flood on stderr is read, and shortened in the log', async (t) => {
  const session = await openSession(small.url)
  const lines = Array.from({ length: 3000 }, (_, i) => `line ${i}`)
  t.equal(textOf((await post(small.url, call(1, 'stderr', { lines }), session)).json), 'said')
  await until(
    async () => (await small.metric('mcp_sidecar_dropped_messages_total{reason="stderr_line"}')) > 0,
    'some are dropped',
  )
  const logged = small.logs.filter(({ fields }) => String(fields['stderr']).startsWith('line '))
  t.ok(logged.length >= 100 && logged.length < 3000, `${logged.length} are logged`)
  await send(small.url, 'DELETE', session)
})

t.test('after all this nothing is left in any queue', async (t) => {
  for (const each of [own, shared, roomy, small]) {
    await until(async () => (await unread(each)) + (await unreadByServer(each)) === 0, 'empty queues')
    t.equal(await each.metric('mcp_sidecar_refusals_total{code="ERR_INTERNAL"}'), 0)
  }
})
