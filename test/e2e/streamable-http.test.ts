import t from 'tap'
import { refused } from '../support/refusal.ts'
import { startTestSidecar, until } from '../support/sidecar.ts'
import { awaited } from '../support/streams.ts'
import {
  accept,
  call,
  type Following,
  follow,
  initialize,
  open,
  openSession,
  post,
  type SseEvent,
  send,
} from '../support/wire.ts'

type Headers = Record<string, string>

const keepAliveMs = 100
const { url, metric, logs } = await startTestSidecar(t, {
  config: { listen: { keepAliveMs }, limits: { batch: 5 } },
})
const session = await openSession(url)
const old = await openSession(url, { version: '2025-03-26' })

const versions = ['2024-11-05', '2025-03-26', '2025-06-18', '2025-11-25']
const token = (value: unknown) => ({ progressToken: value })
// biome-ignore lint/suspicious/noExplicitAny: answers of any shape
const textOf = (answer: any): any => {
  const text = answer.result.content[0].text
  return /^[[{]/.test(text) ? JSON.parse(text) : text
}
const get = (headers: Headers) => open(url, 'GET', { Accept: 'text/event-stream', ...headers })
const posting = async (message: unknown, headers: Headers): Promise<Following> =>
  follow(
    await open(
      url,
      'POST',
      { 'Content-Type': 'application/json', Accept: accept, ...headers },
      JSON.stringify(message),
    ),
  )
/** A GET stream; an old one that was cut may take a moment to be noticed. */
const listen = async (headers: Headers): Promise<Following> => {
  let response = await get(headers)
  await until(async () => {
    if (response.statusCode !== 409) return true
    response.resume()
    response = await get(headers)
    return false
  }, 'the place of the GET stream is free')
  if (response.statusCode !== 200) throw new Error(`no GET stream: ${response.statusCode}`)
  return follow(response)
}
/** Waits until the server has a call of this tool. */
const arrived = (tool: string, headers: Headers): Promise<void> =>
  until(async () => {
    const lines: string[] = textOf((await post(url, call('lines', 'lines'), headers)).json)
    return lines.some((line) => JSON.parse(line).params?.name === tool)
  }, `a call of ${tool} is at the server`)
/** A call that makes progress when it is told to, and answers with one step more: none of it depends on the time. */
const stepping = async (id: string, count: number, headers: Headers) => {
  const steps = Array(count).fill('progress')
  const opening = posting(call(id, 'script', { owner: 'o', call: id, steps }, token('t')), headers)
  const underWay = async (): Promise<boolean> => {
    const { json } = await post(url, { jsonrpc: '2.0', id: 'scripts', method: 'x/scripts' }, headers)
    return json.result.calls.includes(id)
  }
  await until(underWay, 'the call is at the server')
  const step = async (times = 1): Promise<void> => {
    for (let i = 0; i < times; i++)
      await post(url, { jsonrpc: '2.0', method: 'notifications/step', params: { call: id } }, headers)
  }
  // The stream begins with what comes first on it.
  await step()
  return { stream: await opening, step }
}
const isGone = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return false
  } catch {
    return true
  }
}

t.test('initialize opens a session whose id is long, visible ASCII and never the same', async (t) => {
  const ids = new Set<unknown>()
  for (const version of versions) {
    const answer = await post(url, initialize(version))
    t.equal(answer.status, 200)
    t.equal(answer.headers['content-type'], 'application/json')
    t.match(answer.json, { jsonrpc: '2.0', id: 0, result: { protocolVersion: version } })
    const id = answer.headers['mcp-session-id'] as string
    t.match(id, /^[\x21-\x7e]{22,}$/)
    ids.add(id)
    t.equal((await send(url, 'DELETE', { 'Mcp-Session-Id': id })).status, 200)
  }
  t.equal(ids.size, versions.length)
})

t.test('an initialize that the server refuses opens no session', async (t) => {
  const { url } = await startTestSidecar(t, { server: ['--refuse'], config: { server: { warmSpares: 0 } } })
  const answer = await post(url, initialize())
  t.equal(answer.status, 200)
  t.match(answer.json, { id: 0, error: { code: -32602, message: 'refused' } })
  t.equal(answer.headers['mcp-session-id'], undefined)
})

t.test('an answer with nothing before it is JSON, with its length and the id of the request', async (t) => {
  const answer = await post(url, call('own id', 'echo', { text: 'hello' }), session)
  t.equal(answer.status, 200)
  t.equal(answer.headers['content-type'], 'application/json')
  t.equal(Number(answer.headers['content-length']), Buffer.byteLength(answer.body))
  t.type(answer.headers['x-request-id'], 'string')
  t.same(answer.json, {
    jsonrpc: '2.0',
    id: 'own id',
    result: { content: [{ type: 'text', text: 'hello' }] },
  })
})

t.test('notifications and responses get 202 without a body', async (t) => {
  for (const message of [
    { jsonrpc: '2.0', method: 'notifications/roots/list_changed' },
    { jsonrpc: '2.0', method: 'x/whatever', params: {} },
    { jsonrpc: '2.0', id: 77, result: {} },
    { jsonrpc: '2.0', id: 'none', error: { code: -1, message: 'no' } },
  ]) {
    const answer = await post(url, message, session)
    t.same([answer.status, answer.body], [202, ''])
    t.equal(answer.headers['content-type'], undefined)
  }
})

t.test('errors of the server pass as they are, with status 200', async (t) => {
  const unknown = await post(url, { jsonrpc: '2.0', id: 5, method: 'no/such' }, session)
  t.equal(unknown.status, 200)
  t.same(unknown.json, { jsonrpc: '2.0', id: 5, error: { code: -32601, message: 'Method not found' } })
  const failed = await post(url, call(6, 'fail'), session)
  t.match(failed.json, { id: 6, result: { isError: true } })
})

t.test(
  'progress makes the answer an event stream: every step in order, then the result, then the end',
  async (t) => {
    const answer = await post(url, call('p', 'progress', { count: 300 }, token('my token')), session)
    t.equal(answer.status, 200)
    t.equal(answer.headers['content-type'], 'text/event-stream')
    t.equal(answer.headers['cache-control'], 'no-store')
    t.equal(answer.headers['x-accel-buffering'], 'no')
    t.equal(answer.messages.length, 301)
    const steps = answer.messages.slice(0, 300)
    t.same(
      steps.map(({ params }) => [params.progressToken, params.progress]),
      steps.map((_, i) => ['my token', i + 1]),
    )
    t.match(answer.messages[300], { id: 'p', result: { content: [{ text: 'made 300' }] } })
  },
)

t.test('the progress token comes back as it was spelled', async (t) => {
  for (const spelled of ['"p1"', '7', '"7"', '9007199254740993', '1.50', '-0', '"\\u00e9"', '""']) {
    const body = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"progress","arguments":{"count":1},"_meta":{"progressToken":${spelled}}}}`
    const answer = await post(url, body, session)
    t.ok(answer.body.includes(`"progressToken":${spelled},`), spelled)
  }
})

t.test('a progress token of null asks for no progress', async (t) => {
  const answer = await post(url, call(1, 'progress', { count: 2 }, token(null)), session)
  t.equal(answer.headers['content-type'], 'application/json')
  t.match(answer.json, { id: 1, result: {} })
})

t.test('only clients of 2025-11-25 get a priming event and a retry time', async (t) => {
  for (const version of versions) {
    const headers = await openSession(url, { version })
    const stream = await posting(call(1, 'progress', { count: 1 }, token(1)), headers)
    await stream.closed
    const [first] = stream.events
    if (version === '2025-11-25') {
      t.equal(first?.data, '', 'no data')
      t.type(first?.id, 'string')
      t.match(first?.retry, /^[1-9]\d{2,4}$/)
      t.notOk(first?.event)
    } else {
      t.not(first?.data, '', `${version}: a message comes first`)
      t.notMatch(stream.text(), 'retry')
    }
    t.equal(stream.messages.length, 2)
    await send(url, 'DELETE', headers)
  }
})

t.test('event ids are unique in the session, whatever stream they are on', async (t) => {
  const headers = await openSession(url)
  const listening = await listen(headers)
  await post(url, call(1, 'notify', { method: 'notifications/tools/list_changed' }), headers)
  const streams = await Promise.all(
    [1, 2, 3].map((id) => posting(call(id, 'progress', { count: 5 }, token(id)), headers)),
  )
  await Promise.all(streams.map(({ closed }) => closed))
  await until(() => listening.messages.length === 1, 'the notification')
  const ids = [listening, ...streams].flatMap(({ events }) => events.map(({ id }) => id))
  t.equal(ids.length, 1 + 3 * 7)
  t.notOk(ids.includes(undefined), 'every event has one')
  t.equal(new Set(ids).size, ids.length)
  await send(url, 'DELETE', headers)
})

t.test(
  'what belongs to a call is on its stream, what does not on the GET stream, nothing on both',
  async (t) => {
    const listening = await listen(session)
    const log = await post(url, call(1, 'log', { level: 'info', data: 'about the call' }), session)
    const notify = call(2, 'notify', { method: 'notifications/resources/list_changed' })
    const changed = await post(url, notify, session)
    t.match(log.messages, [
      { method: 'notifications/message', params: { data: 'about the call' } },
      { id: 1 },
    ])
    t.same(changed.json.id, 2)
    t.equal(changed.headers['content-type'], 'application/json')
    await until(() => listening.messages.length > 0, 'the notification')
    t.same(
      listening.messages.map(({ method }) => method),
      ['notifications/resources/list_changed'],
    )
    listening.cut()
  },
)

t.test(
  'a question of the server comes on the stream of the call, and the answer to it reaches the server',
  async (t) => {
    const stream = await posting(call('asking', 'ask', { method: 'roots/list' }), session)
    await until(() => stream.messages.length > 0, 'the question')
    const [question] = stream.messages
    t.match(question, { jsonrpc: '2.0', method: 'roots/list' })
    const roots = [{ uri: 'file:///x', name: 'é' }]
    const reply = await post(url, { jsonrpc: '2.0', id: question.id, result: { roots } }, session)
    t.same([reply.status, reply.body], [202, ''])
    await stream.closed
    t.match(textOf(stream.messages[1]), { id: question.id, result: { roots } })
    t.equal(stream.messages[1].id, 'asking')
  },
)

t.test('an error of the client is an answer too', async (t) => {
  const stream = await posting(call(1, 'ask', { method: 'elicitation/create' }), session)
  await until(() => stream.messages.length > 0, 'the question')
  const error = { code: -1, message: 'User rejected', data: { why: 'no' } }
  await post(url, { jsonrpc: '2.0', id: stream.messages[0].id, error }, session)
  t.match(textOf(await awaited(() => stream.messages, 1)), { error })
})

t.test('a question that the client leaves open is refused for it, and the call goes on', async (t) => {
  const { url } = await startTestSidecar(t, { config: { limits: { clientInputMs: 300 } } })
  const session = await openSession(url)
  const answer = await post(url, call(1, 'ask', { method: 'sampling/createMessage' }), session)
  t.match(textOf(answer.messages.at(-1)), {
    error: { code: -32603, data: { source: 'mcp-sidecar', reason: 'ERR_NO_CLIENT' } },
  })
  const { id } = answer.messages[0]
  t.match(
    answer.messages[1],
    { method: 'notifications/cancelled', params: { requestId: id } },
    'it is withdrawn',
  )
  const late = await post(url, { jsonrpc: '2.0', id, result: {} }, session)
  t.equal(late.status, 202, 'a late answer is dropped')
})

t.test('what the server says outside of calls waits until a GET stream opens', async (t) => {
  const headers = await openSession(url)
  const said = () => logs.filter(({ fields }) => fields['stderr'] === 'all said').length
  const before = said()
  const messages = [{ ask: true, method: 'roots/list' }, { method: 'notifications/tools/list_changed' }]
  await post(url, call(1, 'say-later', { messages, ms: 50 }), headers)
  await until(() => said() > before, 'the server has said it')
  const listening = await listen(headers)
  await until(() => listening.messages.length === 2, 'both messages')
  t.same(
    listening.messages.map(({ method }) => method),
    ['roots/list', 'notifications/tools/list_changed'],
    'in order',
  )
  const { id } = listening.messages[0]
  await post(url, { jsonrpc: '2.0', id, result: { roots: [] } }, headers)
  let heard: unknown[] = []
  await until(async () => {
    heard = textOf((await post(url, call(4, 'notifications'), headers)).json)
    return heard.some((each) => Object.hasOwn(each as object, 'response'))
  }, 'the answer reaches the server')
  t.match(heard.at(-1), { response: { id, result: { roots: [] } } })
  await send(url, 'DELETE', headers)
})

t.test('what was delivered on one GET stream is not delivered again on the next', async (t) => {
  const headers = await openSession(url)
  const notify = (n: number) =>
    post(
      url,
      call(n, 'notify', { method: 'notifications/resources/updated', params: { uri: `x:${n}` } }),
      headers,
    )
  const first = await listen(headers)
  await notify(1)
  await until(() => first.messages.length === 1, 'the first')
  first.cut()
  await notify(2)
  const second = await listen(headers)
  await notify(3)
  await until(() => second?.messages.at(-1)?.params.uri === 'x:3', 'the third')
  t.notOk(second?.messages.some(({ params }) => params.uri === 'x:1'))
  await send(url, 'DELETE', headers)
})

t.test('a second GET stream is refused, and the first goes on', async (t) => {
  const first = await listen(session)
  refused(t, await send(url, 'GET', { ...session, Accept: 'text/event-stream' }), 409, 'ERR_STREAM_CONFLICT')
  await post(url, call(1, 'notify', { method: 'notifications/prompts/list_changed' }), session)
  await until(() => first.messages.length > 0, 'a message on the first')
  first.cut()
  const next = await listen(session)
  t.equal(next.response.statusCode, 200, 'the place is free again')
  next.cut()
})

t.test('a quiet stream gets comments, a JSON answer none', async (t) => {
  const listening = await listen(session)
  await until(() => (listening.text().match(/^:/gm) ?? []).length >= 2, 'two comments on GET')
  t.equal(listening.events.length, 0, 'a comment is no event')
  listening.cut()
  const { stream, step } = await stepping('quiet', 1, session)
  await until(() => /\n:\n\n/.test(stream.text()), 'a comment between progress and answer')
  await step()
  await stream.closed
  t.equal(stream.messages.length, 2)
  const json = await post(url, call(2, 'sleep', { ms: keepAliveMs * 1.5 }), session)
  t.equal(json.headers['content-type'], 'application/json')
  t.ok(json.body.startsWith('{'))
})

t.test('a cancelled call ends without an answer, and the server is told with its own id', async (t) => {
  const headers = await openSession(url)
  const waiting = post(url, call('c', 'hang'), headers)
  await arrived('hang', headers)
  const streaming = await posting(call('d', 'ask', { method: 'roots/list' }), headers)
  await until(() => streaming.messages.length === 1, 'the stream is open')
  for (const requestId of ['c', 'd', 'unknown']) {
    const params = { requestId, reason: 'changed my mind' }
    const answer = await post(url, { jsonrpc: '2.0', method: 'notifications/cancelled', params }, headers)
    t.same([answer.status, answer.body], [202, ''])
  }
  await streaming.closed
  t.equal(streaming.messages.length, 1, 'no answer on the stream')
  const ended = await waiting
  t.equal(ended.body, '', 'no answer as JSON')
  const cancelled = textOf((await post(url, call(1, 'cancelled'), headers)).json)
  const lines: string[] = textOf((await post(url, call(2, 'lines'), headers)).json)
  const own = lines
    .map((line) => JSON.parse(line))
    .filter(({ params }) => ['hang', 'ask'].includes(params?.name))
  t.same(
    cancelled.map(({ requestId }: { requestId: unknown }) => requestId),
    own.map(({ id }) => id),
  )
  await send(url, 'DELETE', headers)
})

t.test(
  'a call can be cancelled by its id spelled in another way, but not by one of another type',
  async (t) => {
    const headers = await openSession(url)
    const waiting = post(url, call(7, 'hang'), headers)
    await arrived('hang', headers)
    let done = false
    void waiting.then(() => {
      done = true
    })
    const cancel = (id: string) =>
      post(url, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":${id}}}`, headers)
    await cancel('"7"')
    await cancel('70')
    t.same(textOf((await post(url, call(8, 'cancelled'), headers)).json), [])
    t.notOk(done)
    await cancel('7.0')
    await waiting
    t.equal(textOf((await post(url, call(9, 'cancelled'), headers)).json).length, 1)
    await send(url, 'DELETE', headers)
  },
)

t.test('a POST that drops is no cancellation', async (t) => {
  const headers = await openSession(url)
  const stream = await posting(call(1, 'progress', { count: 2, ms: 100 }, token(1)), headers)
  stream.cut()
  t.same(textOf((await post(url, call(2, 'cancelled'), headers)).json), [])
  await send(url, 'DELETE', headers)
})

t.test('DELETE ends the session, what is in flight, its GET stream and its process', async (t) => {
  const headers = await openSession(url)
  const pid = Number(textOf((await post(url, call(1, 'pid'), headers)).json))
  const listening = await listen(headers)
  const inFlight = post(url, call('f', 'hang'), headers)
  await arrived('hang', headers)
  const asking = await posting(call('g', 'ask', { method: 'roots/list' }), headers)
  await until(() => asking.messages.length === 1, 'the question')
  const deleted = await send(url, 'DELETE', headers)
  t.same([deleted.status, deleted.body], [200, ''])
  refused(t, await inFlight, 404, 'ERR_SESSION_UNKNOWN', 'f')
  await Promise.all([listening.closed, asking.closed])
  t.match(asking.messages[1], { id: 'g', error: { data: { reason: 'ERR_SESSION_UNKNOWN' } } })
  refused(t, await post(url, call(2, 'echo'), headers), 404, 'ERR_SESSION_UNKNOWN', 2)
  refused(t, await post(url, { jsonrpc: '2.0', method: 'x/y' }, headers), 404, 'ERR_SESSION_UNKNOWN')
  refused(t, await send(url, 'GET', { ...headers, Accept: 'text/event-stream' }), 404, 'ERR_SESSION_UNKNOWN')
  refused(t, await send(url, 'DELETE', headers), 404, 'ERR_SESSION_UNKNOWN')
  await until(() => isGone(pid), 'the process is gone')
})

t.test(
  'a server that crashes fails what is in flight and ends the session, and a new one can be opened',
  async (t) => {
    const headers = await openSession(url)
    const inFlight = post(url, call('f', 'hang'), headers)
    await arrived('hang', headers)
    const crash = await post(url, call('c', 'crash', {}), headers)
    t.equal(crash.status, 200, 'the id is known')
    t.match(crash.json, {
      id: 'c',
      error: { code: -32603, data: { source: 'mcp-sidecar', reason: 'ERR_UPSTREAM_EXIT' } },
    })
    t.match((await inFlight).json, {
      id: 'f',
      error: { code: -32603, data: { reason: 'ERR_UPSTREAM_EXIT' } },
    })
    refused(t, await post(url, call(1, 'echo'), headers), 404, 'ERR_SESSION_UNKNOWN', 1)
    const again = await openSession(url)
    t.match((await post(url, call(2, 'echo', { text: 'again' }), again)).json, {
      result: { content: [{ text: 'again' }] },
    })
    await send(url, 'DELETE', again)
  },
)

t.test(
  'the version header may be absent, or any version spoken here, also not the negotiated one',
  async (t) => {
    const { 'MCP-Protocol-Version': _, ...without } = session
    for (const version of [undefined, ...versions]) {
      const headers = {
        ...without,
        ...(version === undefined ? {} : { 'MCP-Protocol-Version': version }),
      } as Headers
      const answer = await post(url, call(1, 'echo', { text: 'x' }), headers)
      t.equal(answer.status, 200, `POST with ${version}`)
      const response = await get(headers)
      response.destroy()
      t.ok([200, 409].includes(response.statusCode ?? 0), `GET with ${version}`)
    }
  },
)

t.test(
  'another version header is refused with 400, whatever is asked for, and the session lives on',
  async (t) => {
    const headers = await openSession(url)
    for (const version of ['2024-10-07', '2025-11-26', '1', '', '2025-11-25, 2025-06-18', ' x']) {
      const bad = { ...headers, 'MCP-Protocol-Version': version }
      refused(t, await post(url, call(1, 'echo'), bad), 400, 'ERR_VERSION', 1)
      refused(t, await post(url, { jsonrpc: '2.0', method: 'x/y' }, bad), 400, 'ERR_VERSION')
      refused(t, await send(url, 'GET', { ...bad, Accept: 'text/event-stream' }), 400, 'ERR_VERSION')
      refused(t, await send(url, 'DELETE', bad), 400, 'ERR_VERSION')
    }
    t.equal((await post(url, call(1, 'echo'), headers)).status, 200)
    await send(url, 'DELETE', headers)
  },
)

t.test('a batch of 2025-03-26 is answered with one array of all answers', async (t) => {
  const answer = await post(
    url,
    [
      call(1, 'echo', { text: 'one' }),
      { jsonrpc: '2.0', method: 'x/notification' },
      call('2', 'fail'),
      { jsonrpc: '2.0', id: 3, method: 'no/such' },
      { jsonrpc: '2.0', id: 99, result: {} },
    ],
    old,
  )
  t.equal(answer.status, 200)
  t.equal(answer.headers['content-type'], 'application/json')
  t.ok(Array.isArray(answer.json))
  const byId = new Map(answer.messages.map((message) => [message.id, message]))
  t.equal(answer.messages.length, 3)
  t.match(byId.get(1), { result: { content: [{ text: 'one' }] } })
  t.match(byId.get('2'), { result: { isError: true } })
  t.match(byId.get(3), { error: { code: -32601 } })
})

t.test('a batch of one is answered with an array of one', async (t) => {
  const answer = await post(url, [call(1, 'echo', { text: 'only' })], old)
  t.match(answer.json, [{ id: 1, result: {} }])
})

t.test(
  'a batch with an answer beyond 64 KiB and with unusual characters is still one JSON array',
  async (t) => {
    const text = 'é😀\u2028'
    const answer = await post(url, [call(1, 'blob', { bytes: 200_000 }), call(2, 'echo', { text })], old)
    t.equal(Number(answer.headers['content-length']), Buffer.byteLength(answer.body))
    const byId = new Map(answer.messages.map((message) => [message.id, message]))
    t.equal(textOf(byId.get(1)).length, 200_000)
    t.equal(textOf(byId.get(2)), text)
  },
)

t.test('a batch without requests gets 202', async (t) => {
  const notification = { jsonrpc: '2.0', method: 'x/y' }
  const answer = await post(url, [notification, notification], old)
  t.same([answer.status, answer.body], [202, ''])
})

t.test('a batch in which something precedes an answer is answered on one stream', async (t) => {
  const stream = await posting(
    [
      call(1, 'echo', { text: 'fast' }),
      call(2, 'progress', { count: 3 }, token('t')),
      call(3, 'sleep', { ms: 30 }),
    ],
    old,
  )
  await stream.closed
  t.equal(stream.messages.filter(({ method }) => method === 'notifications/progress').length, 3)
  t.same(stream.messages.flatMap(({ id }) => id ?? []).toSorted(), [1, 2, 3])
})

t.test('what is wrong in a batch is refused in its place', async (t) => {
  const answer = await post(
    url,
    [call(1, 'sleep', { ms: 30 }), call(1, 'echo'), call(2, 'echo', { text: 'x' })],
    old,
  )
  t.equal(answer.status, 200)
  const [wrong] = answer.messages.filter(({ error }) => error !== undefined)
  t.match(wrong, { id: 1, error: { code: -32600, data: { reason: 'ERR_INVALID_REQUEST' } } })
  t.same(answer.messages.map(({ id }) => id).toSorted(), [1, 1, 2])
})

t.test(
  'batches are refused when empty, too long, with initialize in them, or with what is no message',
  async (t) => {
    const many = Array.from({ length: 6 }, (_, id) => call(id, 'echo'))
    refused(t, await post(url, [], old), 400, 'ERR_INVALID_REQUEST')
    refused(t, await post(url, many, old), 400, 'ERR_INVALID_REQUEST')
    refused(t, await post(url, [initialize('2025-03-26')], old), 400, 'ERR_INVALID_REQUEST')
    refused(t, await post(url, [call(1, 'echo'), 1], old), 400, 'ERR_INVALID_REQUEST')
    refused(t, await post(url, [[call(1, 'echo')]], old), 400, 'ERR_INVALID_REQUEST')
    refused(t, await post(url, '[{"jsonrpc":"2.0","id":1,"method":"ping"},]', old), 400, 'ERR_PARSE')
  },
)

t.test('batches belong to the negotiated version, whatever the header says', async (t) => {
  const batch = [call(1, 'echo')]
  refused(t, await post(url, batch, session), 400, 'ERR_BATCH')
  refused(t, await post(url, batch, { ...session, 'MCP-Protocol-Version': '2025-03-26' }), 400, 'ERR_BATCH')
  refused(t, await post(url, batch), 400, 'ERR_BATCH')
  refused(t, await post(url, [initialize('2025-03-26')]), 400, 'ERR_BATCH')
  for (const version of ['2024-11-05', '2025-06-18']) {
    const headers = await openSession(url, { version })
    refused(t, await post(url, batch, headers), 400, 'ERR_BATCH')
    await send(url, 'DELETE', headers)
  }
  t.match((await post(url, batch, { ...old, 'MCP-Protocol-Version': '2025-11-25' })).json, [{ id: 1 }])
})

t.test('a server of 2025-03-26 may write batches too', async (t) => {
  const progress = '{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}'
  const line = `[${progress},{"jsonrpc":"2.0","id":$ID,"result":{"content":[]}}]`
  t.match((await post(url, call('b', 'raw', { line }), old)).json, { id: 'b', result: { content: [] } })
})

t.test('a POST stream that is cut in the middle goes on where it was, live', async (t) => {
  const count = 12
  const { stream: first, step } = await stepping('long', count, session)
  await step(2)
  await until(() => first.messages.length >= 3, 'three steps')
  const seen = first.messages.length
  const lastEventId = first.events.at(-1)?.id as string
  first.cut()
  await step(4)
  const response = await get({ ...session, 'Last-Event-ID': lastEventId })
  t.equal(response.statusCode, 200)
  t.equal(response.headers['content-type'], 'text/event-stream')
  const rest = follow(response)
  await until(() => rest.messages.length >= 4, 'what was missed')
  t.notOk(rest.isClosed(), 'it is live')
  await step(6)
  await rest.closed
  const steps = [...first.messages.slice(0, seen), ...rest.messages]
  t.same(
    steps.slice(0, count).map(({ params }) => params?.progress),
    Array.from({ length: count }, (_, i) => i + 1),
    'each step once',
  )
  t.match(steps[count], { id: 'long', result: {} })
  t.equal(steps.length, count + 1)
})

t.test('a stream can be resumed again and again, and from any of its events', async (t) => {
  const first = await posting(call(1, 'progress', { count: 8, ms: 30 }, token('t')), session)
  await until(() => first.messages.length >= 1, 'a step')
  const [priming] = first.events
  first.cut()
  const second = await listen({ ...session, 'Last-Event-ID': priming?.id as string })
  await until(() => second.messages.length >= 2, 'two steps')
  const at = second.events[1]?.id as string
  second.cut()
  const third = await listen({ ...session, 'Last-Event-ID': at })
  await third.closed
  t.equal(third.messages.length, 8 - 2 + 1)
  const again = await listen({ ...session, 'Last-Event-ID': priming?.id as string })
  await again.closed
  t.equal(again.messages.length, 9, 'all of it, after the call has ended')
  t.match(again.messages[8], { id: 1, result: {} })
  const last = await listen({ ...session, 'Last-Event-ID': again.events.at(-1)?.id as string })
  await last.closed
  t.equal(last.messages.length, 0, 'nothing after the last')
})

t.test('a client before 2025-11-25 can resume too', async (t) => {
  const first = await posting(call(1, 'progress', { count: 6, ms: 30 }, token('t')), old)
  await until(() => first.messages.length >= 1, 'a step')
  const { events } = first
  first.cut()
  const rest = await listen({ ...old, 'Last-Event-ID': events.at(-1)?.id as string })
  await rest.closed
  t.equal(events.length + rest.messages.length, 7)
})

t.test(
  'a stream resumed while its old connection is still open has each message on one of them only',
  async (t) => {
    const { stream: first, step } = await stepping('one', 8, session)
    await step()
    await until(() => first.messages.length >= 2, 'two steps')
    const second = await listen({ ...session, 'Last-Event-ID': first.events.at(-1)?.id as string })
    await step(7)
    await Promise.all([second.closed, first.closed])
    t.equal(first.messages.length, 2, 'nothing more on the first')
    t.equal(second.messages.length, 7)
    t.match(second.messages.at(-1), { id: 'one', result: {} })
  },
)

t.test('a resumed stream repeats its own messages only', async (t) => {
  const streams = await Promise.all(
    ['a', 'b'].map((id) => posting(call(id, 'progress', { count: 4, ms: 20 }, token(id)), session)),
  )
  const [a] = streams as [Following, Following]
  await until(() => a.messages.length >= 1, 'a step')
  a.cut()
  const rest = await listen({ ...session, 'Last-Event-ID': a.events[0]?.id as string })
  await rest.closed
  t.same([...new Set(rest.messages.flatMap(({ params }) => params?.progressToken ?? []))], ['a'])
  t.equal(rest.messages.at(-1).id, 'a')
})

t.test('a question asked while the client was away reaches it when it resumes', async (t) => {
  const first = await posting(call(1, 'ask', { method: 'roots/list' }), session)
  await until(() => first.messages.length === 1, 'the question')
  const [priming] = first.events
  first.cut()
  const second = await listen({ ...session, 'Last-Event-ID': priming?.id as string })
  await until(() => second.messages.length === 1, 'the question again')
  await post(url, { jsonrpc: '2.0', id: second.messages[0].id, result: { roots: [] } }, session)
  await second.closed
  t.match(textOf(second.messages[1]), { result: { roots: [] } })
})

t.test(
  'the GET stream can be resumed, and takes over from an old connection nobody noticed was gone',
  async (t) => {
    const headers = await openSession(url)
    const notify = (n: number) =>
      post(
        url,
        call(n, 'notify', { method: 'notifications/resources/updated', params: { uri: `x:${n}` } }),
        headers,
      )
    const first = await listen(headers)
    await notify(1)
    await notify(2)
    await until(() => first.messages.length === 2, 'two messages')
    const second = await listen({ ...headers, 'Last-Event-ID': first.events[0]?.id as string })
    await first.closed
    await notify(3)
    await until(() => second.messages.length === 2, 'the second and the third')
    t.same(
      second.messages.map(({ params }) => params.uri),
      ['x:2', 'x:3'],
    )
    t.equal(first.messages.length, 2)
    await send(url, 'DELETE', headers)
  },
)

t.test('an event id that is not known in this session is refused', async (t) => {
  for (const id of ['99999-1', 'x', '0', '-1--1', '0-1;DROP', '1e3-1', '99999999999999999999-1']) {
    const answer = await send(url, 'GET', { ...session, Accept: 'text/event-stream', 'Last-Event-ID': id })
    refused(t, answer, 400, 'ERR_EVENT_UNKNOWN')
  }
  const listening = await listen(session)
  t.equal(listening.response.statusCode, 200)
})

t.test(
  'a stream that has outgrown the replay buffer is complete live, and its answer can still be had',
  async (t) => {
    const { url } = await startTestSidecar(t, { config: { limits: { replayBufferBytes: 4096 } } })
    const headers = await openSession(url)
    const stream = follow(
      await open(
        url,
        'POST',
        { 'Content-Type': 'application/json', Accept: accept, ...headers },
        JSON.stringify(call(1, 'progress', { count: 200 }, token('t'))),
      ),
    )
    await stream.closed
    t.equal(stream.messages.length, 201, 'live it is complete')
    const resume = (event: SseEvent | undefined) =>
      send(url, 'GET', { ...headers, Accept: 'text/event-stream', 'Last-Event-ID': event?.id as string })
    const left = await resume(stream.events[0])
    t.ok(left.messages.length < 100, `only ${left.messages.length} messages are left`)
    t.match(left.messages.at(-1), { id: 1, result: {} }, 'with the answer')
    const late = await resume(stream.events.at(-2))
    t.match(late.messages, [{ id: 1, result: {} }])
  },
)

t.test('texts of every kind and size survive both directions byte for byte', async (t) => {
  const texts = [
    'é 中文 😀 \u2028\u2029 \u0000 \u001f " \\ / \ud800',
    '\n\r\n\t',
    `${'x'.repeat(70_000)}😀`,
    '日本語'.repeat(100_000),
  ]
  for (const text of texts) {
    const answer = await post(url, call('ключ', 'echo', { text }), session)
    t.equal(answer.json.id, 'ключ')
    t.ok(answer.json.result.content[0].text === text, `${text.length} characters`)
    const streamed = await posting(call(1, 'progress', { count: 1 }, token(`${text.slice(0, 50)}`)), session)
    await streamed.closed
    t.ok(streamed.messages[0].params.progressToken === text.slice(0, 50))
  }
})

t.test('an event of more than 64 KiB is one event', async (t) => {
  const data = 'ö'.repeat(100_000)
  const answer = await post(url, call(1, 'log', { level: 'info', data }), session)
  t.equal(answer.messages.length, 2)
  t.ok(answer.messages[0].params.data === data)
})

t.test('what the server writes on a stream is relayed to the byte, but for the token', async (t) => {
  const rest = '"big":12345678901234567890,"f":1.0,"__proto__":{"x":"\\u0041\u2028"},"X":null'
  const note = (token: string) =>
    `{"z":[1,{"a":2.50}],"jsonrpc":"2.0","params":{"progress":0.10,"progressToken":${token},${rest}},"method":"notifications/progress","n":"é"}`
  const line = `${note('$TOKEN')}\n{"jsonrpc":"2.0","id":$ID,"result":{}}`
  const answer = await post(url, call('r', 'raw', { line }, token('own')), session)
  t.ok(answer.body.includes(`data: ${note('"own"')}\n\n`))
})

t.test('a line break between the tokens of a message does not break the event', async (t) => {
  const note =
    '{"jsonrpc":"2.0",\r"method":"notifications/message",\r\r"params":{"level":"info","data":"one"}\r}'
  const line = `${note}\r\n{"jsonrpc":"2.0",\r"id":$ID,"result":{"content":[]}}`
  const answer = await post(url, call('r', 'raw', { line }), session)
  t.match(answer.messages, [{ params: { data: 'one' } }, { id: 'r', result: {} }])
  t.notMatch(answer.body, '\r')
})

t.test('any other HTTP method is refused with the allowed ones', async (t) => {
  for (const method of ['PUT', 'PATCH', 'OPTIONS', 'TRACE', 'PROPFIND']) {
    const answer = await send(url, method, session)
    refused(t, answer, 405, 'ERR_METHOD')
    t.equal(answer.headers.allow, 'GET, POST, DELETE')
  }
  const head = await send(url, 'HEAD', session)
  t.same([head.status, head.body], [405, ''])
})

t.test('calls of one session run side by side and each answer finds its own request', async (t) => {
  const answers = await Promise.all(
    Array.from({ length: 60 }, (_, id) => post(url, call(id, 'echo', { text: `t${id}` }), session)),
  )
  t.same(
    answers.map(({ json }) => [json.id, textOf(json)]),
    answers.map((_, id) => [id, `t${id}`]),
  )
})

t.test('after all this no call is in flight and no session is left but those still open', async (t) => {
  await until(async () => (await metric('mcp_sidecar_calls_in_flight')) === 0, 'no call')
  await until(async () => (await metric('mcp_sidecar_sessions ')) === 2, 'two sessions')
  t.equal(await metric('mcp_sidecar_refusals_total{code="ERR_INTERNAL"}'), 0)
})
