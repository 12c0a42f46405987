import { join } from 'node:path'
import t from 'tap'
import { auditLog } from '../support/audited.ts'
import { configFile } from '../support/config-file.ts'
import {
  ask,
  everything,
  type Json,
  listenTo,
  modern,
  type Request,
  retry,
  said,
  serverCommand,
  streamed,
  tool,
} from '../support/modern.ts'
import { type Credential, namesakes } from '../support/namesakes.ts'
import { folder } from '../support/processes.ts'
import { scriptedCommand, startTestSidecar, type TestSidecar, until } from '../support/sidecar.ts'
import { awaited, openSocket, openSse } from '../support/streams.ts'
import { call, follow, open, openSession, post, type RawResponse, send } from '../support/wire.ts'

/*
 * Whatever one principal has opened is useless to every other, however alike their names are: to them it does not exist.
 * Its owner goes on with it under the next token.
 */

const { settings, alice, renewed, strangers } = await namesakes(t)
const auditFile = join(folder(t), 'audit.jsonl')
const audit = auditLog(auditFile)

const start = (command: readonly string[], more: object = {}): Promise<TestSidecar> =>
  startTestSidecar(t, { command, flags: configFile(t, { ...settings, ...more }) })

const [legacy, modernOne, tasks, interviews] = await Promise.all([
  start(scriptedCommand, { audit: { destination: auditFile } }),
  start(serverCommand('modern-server.mjs')),
  start(serverCommand('tasks-server.mjs')),
  start(serverCommand('../support/interview-server.mjs')),
])

const forEachStranger = async (
  check: (headers: Credential, name: string, id: string) => Promise<void>,
): Promise<void> => {
  for (const [name, { headers, id }] of Object.entries(strangers)) await check(headers, name, id)
}

/** Everything that a client can see of an answer, but for what differs each time. */
const seen = ({ status, headers, body }: RawResponse): unknown => {
  const { date: _, 'x-request-id': __, 'content-length': ___, ...rest } = headers
  return { status, rest, body: body.replace(/"requestId":"[^"]*"/, '') }
}

const sampling = { capabilities: { sampling: {} } }
const asks = (id: string): object => call(id, 'ask', { method: 'sampling/createMessage', params: {} })
const answerTo = (id: unknown, from: string): object => ({
  jsonrpc: '2.0',
  id,
  result: { role: 'assistant', model: 'm', content: { type: 'text', text: from } },
})
const cancel = (requestId: unknown): object => ({
  jsonrpc: '2.0',
  method: 'notifications/cancelled',
  params: { requestId },
})

for (const [server, sidecar] of [
  ['a legacy', legacy],
  ['a modern', modernOne],
] as const) {
  t.test(`a session on ${server} server is an unknown one to all but its owner`, async (t) => {
    const { url } = sidecar
    const session = await openSession(url, { headers: alice })
    const listening = follow(await open(url, 'GET', { ...session, Accept: 'text/event-stream' }))
    const attempts = (headers: Record<string, string>): Promise<RawResponse>[] => [
      post(url, call(1, 'echo'), headers),
      post(url, cancel(1), headers),
      post(url, answerTo(0, 'stranger'), headers),
      send(url, 'GET', { ...headers, Accept: 'text/event-stream' }),
      send(url, 'GET', { ...headers, Accept: 'text/event-stream', 'Last-Event-ID': '0-0' }),
      send(url, 'GET', { ...headers, Accept: 'text/event-stream', 'Last-Event-ID': '1-1' }),
      send(url, 'DELETE', headers),
    ]
    const { Authorization: _, ...named } = session
    await forEachStranger(async (headers, name) => {
      const stolen = await Promise.all(attempts({ ...named, ...headers }))
      const id = named['Mcp-Session-Id']?.replace(/.$/, (last) => (last === 'A' ? 'B' : 'A')) as string
      const unknown = await Promise.all(attempts({ ...named, ...headers, 'Mcp-Session-Id': id }))
      t.ok(
        stolen.every(({ status }) => status === 404),
        name,
      )
      t.strictSame(stolen.map(seen), unknown.map(seen), `${name} cannot tell it from one that never was`)
    })
    const again = await post(url, call(2, 'echo', { text: 'mine' }), { ...session, ...renewed })
    t.equal(again.status, 200, 'its owner goes on with the next token')
    t.notOk(listening.isClosed(), 'and nobody has taken the stream')
    t.equal((await send(url, 'DELETE', { ...session, ...renewed })).status, 200)
    await listening.closed
  })
}

t.test('what was sent on a stream is replayed to its owner alone', async (t) => {
  const { url } = legacy
  const session = await openSession(url, { headers: alice, ...sampling })
  const begun = follow(
    await open(
      url,
      'POST',
      { ...session, 'Content-Type': 'application/json', Accept: 'application/json, text/event-stream' },
      JSON.stringify(asks('q')),
    ),
  )
  await until(() => begun.messages.length > 0, 'the question')
  const last = begun.events.find(({ id }) => id !== undefined)?.id as string
  const question = begun.messages[0].id
  begun.cut()
  const { Authorization: _, ...named } = session
  const resume = (headers: Record<string, string>) => ({
    ...named,
    ...headers,
    Accept: 'text/event-stream',
    'Last-Event-ID': last,
  })
  await forEachStranger(async (headers, name) => {
    t.equal((await send(url, 'GET', resume(headers))).status, 404, name)
    t.equal((await post(url, answerTo(question, name), { ...named, ...headers })).status, 404, name)
    const own = await openSession(url, { headers: { ...headers }, ...sampling })
    const there = await send(url, 'GET', { ...own, Accept: 'text/event-stream', 'Last-Event-ID': '7-1' })
    t.equal(
      there.json?.error?.data?.reason,
      'ERR_EVENT_UNKNOWN',
      `${name}: no stream of that name in a session of its own`,
    )
    t.equal((await post(url, answerTo(question, name), own)).status, 202, `${name}: dropped`)
  })
  const resumed = follow(await open(url, 'GET', resume(renewed)))
  await post(url, answerTo(question, 'alice'), { ...session, ...renewed })
  const answer = await awaited(() => resumed.messages, 'q')
  t.match(said(answer).result.content.text, 'alice', 'the server has heard nobody else')
  resumed.cut()
})

t.test('the endpoint of an HTTP+SSE stream takes messages of its owner alone', async (t) => {
  for (const { base } of [legacy, modernOne]) {
    const stream = await openSse(base, { headers: alice, version: '2024-11-05' })
    const unknown = `${stream.endpoint.slice(0, -4)}AAAA`
    await forEachStranger(async (headers, name) => {
      for (const message of [call('theirs', 'echo'), cancel('mine'), answerTo(0, name)]) {
        const answer = await post(stream.endpoint, message, headers)
        t.equal(answer.status, 404, name)
        t.strictSame(seen(answer), seen(await post(unknown, message, headers)), `${name}: as if unknown`)
      }
    })
    t.equal((await stream.send(call('mine', 'echo'), { ...renewed })).status, 202)
    await awaited(() => stream.messages, 'mine')
    t.notOk(
      stream.messages.some(({ id }) => id === 'theirs'),
      'nothing of others came on it',
    )
    stream.cut()
  }
})

t.test('on other connections nobody can cancel or answer what goes on in one', async (t) => {
  for (const over of ['openSocket', 'openSse'] as const) {
    const connect = { openSocket, openSse }[over]
    const options = { version: over === 'openSse' ? '2024-11-05' : '2025-11-25', ...sampling }
    const owner = await connect(legacy.base, { headers: { ...alice }, ...options })
    await owner.send(asks('asking'))
    await until(
      () => owner.messages.some(({ method }) => method === 'sampling/createMessage'),
      'the question',
    )
    const { id } = owner.messages.find(({ method }) => method === 'sampling/createMessage')
    await forEachStranger(async (headers, name) => {
      const stranger = await connect(legacy.base, { headers: { ...headers }, ...options })
      await stranger.send(cancel('asking'))
      await stranger.send(answerTo(id, name))
      const heard: Json = await stranger.request(call('after', 'notifications') as { id: string })
      t.notOk(heard.error, `${name} has been heard out`)
      if ('cut' in stranger) stranger.cut()
      else stranger.close()
    })
    await owner.send(answerTo(id, 'alice'))
    const answer = await awaited(() => owner.messages, 'asking')
    t.match(said(answer).result.content.text, 'alice', over)
    if ('cut' in owner) owner.cut()
    else owner.close()
  }
})

const form = {
  method: 'elicitation/create',
  params: { mode: 'form', message: 'm', requestedSchema: { type: 'object', properties: {} } },
}
const states: Readonly<Record<string, readonly [TestSidecar, Request]>> = {
  'that wraps one of a modern server': [
    modernOne,
    tool(1, 'ask', { inputRequests: { q1: form }, requestState: 's' }, { capabilities: everything }),
  ],
  'of a call that waits in a legacy server': [
    interviews,
    tool(
      1,
      'interview',
      { owner: 'alice', call: 'c', rounds: [['elicitation']] },
      { capabilities: everything },
    ),
  ],
}
for (const [what, [{ url, base }, first]] of Object.entries(states)) {
  t.test(`a requestState ${what} is refused from everybody else like a forged one`, async (t) => {
    const { json } = await ask(url, first, alice)
    const state = json.result?.requestState
    t.type(state, 'string')
    const [question] = Object.keys(json.result.inputRequests)
    const answers = { [question as string]: { action: 'accept', content: { by: 'x' } } }
    await forEachStranger(async (headers, name) => {
      const taken = await ask(url, retry(first, 2, answers, state), headers)
      const forged = await ask(url, retry(first, 2, answers, `${state.slice(0, -4)}AAAA`), headers)
      t.equal(taken.json.error?.data?.reason, 'ERR_REQUEST_STATE', name)
      t.strictSame(seen(taken), seen(forged), name)
      const socket = await openSocket(base, { headers: { ...headers } })
      const there = await socket.request(retry(first, 3, answers, state))
      t.equal(there.error?.data?.reason, 'ERR_REQUEST_STATE', `${name}, over WebSocket`)
      socket.close()
    })
    const done = await ask(url, retry(first, 4, answers, state), renewed)
    t.equal(done.json.result?.resultType, 'complete', 'it is good for its owner with the next token')
  })
}

t.test('a task is unknown to all but its owner, whatever is asked of it', async (t) => {
  const { url } = tasks
  const extensions = { 'io.modelcontextprotocol/tasks': {} }
  const options = { capabilities: { ...everything, extensions } }
  const confirm = tool(1, 'confirm_delete', { filename: 'f' }, options)
  const { taskId } = (await ask(url, confirm, alice)).json.result
  const state = async (): Promise<Json> =>
    (await ask(url, modern(2, 'tasks/get', { taskId }, options), renewed)).json.result
  await until(async () => (await state()).status === 'input_required', 'the task asks')
  const accepted = { action: 'accept', content: { confirm: true } }
  const inputResponses = Object.fromEntries(
    Object.keys((await state()).inputRequests).map((each) => [each, accepted]),
  )
  const attempts = (id: string): Request[] => [
    modern(3, 'tasks/get', { taskId: id }, options),
    modern(3, 'tasks/update', { taskId: id, inputResponses }, options),
    modern(3, 'tasks/cancel', { taskId: id }, options),
    modern(3, 'tasks/result', { taskId: id }, options),
    modern(3, 'subscriptions/listen', { notifications: { taskIds: [id] } }, options),
  ]
  await forEachStranger(async (headers, name) => {
    const of = (id: string): Promise<RawResponse[]> =>
      Promise.all(attempts(id).map((each) => ask(url, each, headers)))
    const theirs = await of(taskId)
    t.ok(
      theirs.every(({ json }) => json.error !== undefined),
      name,
    )
    t.strictSame(theirs.map(seen), (await of('00000000-0000')).map(seen), `${name}: as if there were none`)
  })
  t.equal((await state()).status, 'input_required', 'nobody has answered or cancelled it')
  await ask(url, modern(4, 'tasks/update', { taskId, inputResponses }, options), renewed)
  await until(async () => (await state()).status === 'completed', 'its owner does')
})

t.test('each principal has legacy processes of its own, under every token', async (t) => {
  const pid = async (headers: Credential): Promise<string> =>
    String(said((await ask(legacy.url, tool('pid', 'pid'), headers)).json))
  const own = await pid(alice)
  t.equal(await pid(renewed), own, 'the next token leads to the same process')
  const pids = [own]
  await forEachStranger(async (headers) => void pids.push(await pid(headers)))
  t.equal(new Set(pids).size, pids.length, 'no process serves two of them')
})

t.test('what the server of one announces reaches the subscriptions of no other', async (t) => {
  const changed = 'notifications/tools/list_changed'
  const everybody: [string, Credential][] = [['alice', alice]]
  await forEachStranger(async (headers, name) => void everybody.push([name, headers]))
  const streams = await Promise.all(
    everybody.map(async ([name, headers]) => {
      const stream = await streamed(interviews.url, listenTo(name, { toolsListChanged: true }), {
        ...headers,
      })
      await until(() => stream.messages.length === 1, `${name} listens`)
      return { name, headers, stream }
    }),
  )
  for (const [i, { name, headers, stream }] of streams.entries()) {
    await ask(interviews.url, tool('n', 'notify', { method: changed }), headers)
    await until(() => stream.messages.length > 1, `${name} is told`)
    // Each has been told once by its own, and those whose turn is yet to come have heard nothing.
    t.same(
      streams.map((each) => each.stream.messages.filter(({ method }) => method === changed).length),
      streams.map((_, at) => (at <= i ? 1 : 0)),
      name,
    )
  }
  for (const { stream } of streams) stream.cut()
})

t.test('on a modern server each subscription is told under its own name, and ends alone', async (t) => {
  const { url } = modernOne
  const names = ['alice', ...Object.keys(strangers)]
  const headersOf = (name: string): Credential => strangers[name]?.headers ?? alice
  // The same id for all: it is the client's choice.
  const streams = await Promise.all(
    names.map((name) => streamed(url, listenTo('same', { toolsListChanged: true }), { ...headersOf(name) })),
  )
  await until(() => streams.every(({ messages }) => messages.length === 1), 'all listen')
  streams[0]?.cut()
  await ask(url, tool('p', 'push', { method: 'notifications/tools/list_changed', params: {} }), renewed)
  const others = streams.slice(1)
  await until(() => others.every(({ messages }) => messages.length === 2), 'all others are told once')
  t.ok(others.every(({ isClosed }) => !isClosed()))
  for (const stream of others) stream.cut()
})

t.test('the audit log names who has tried, not whose it was', async (t) => {
  const { url } = legacy
  const session = await openSession(url, { headers: alice })
  const { Authorization: _, ...named } = session
  await forEachStranger(async (headers, name, id) => {
    const mark = `audited ${name}`
    await post(url, call(mark, 'echo'), { ...named, ...headers })
    const line = await audit.one(
      ({ jsonrpc_id }) => jsonrpc_id === JSON.stringify(mark),
      `the attempt of ${name}`,
    )
    t.match(
      line,
      { outcome: 'failure', subjects: { user_id: id }, result: { code: 'ERR_SESSION_UNKNOWN' } },
      name,
    )
  })
})
