/** What hostile clients and hostile servers of either era can do to the sidecar, and to others behind it. */
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import t, { type Test, test } from 'tap'
import {
  ask,
  begin,
  everything,
  type Json,
  listenTo,
  modern,
  retry,
  streamed,
  tool,
} from '../support/modern.ts'
import { startTestSidecar, type TestOptions, type TestSidecar, until } from '../support/sidecar.ts'
import { bearerTokens } from '../support/tokens.ts'
import { accept, initialize, openSession, post } from '../support/wire.ts'

/** What servers have in common. `request` and `other` are the body of the handlers of one message. */
const common = `
import { createInterface } from 'node:readline'
const send = (message) => process.stdout.write(JSON.stringify({ jsonrpc: '2.0', ...message }) + '\\n')
const raw = (line) => process.stdout.write(line + '\\n')
const text = (value) => ({ content: [{ type: 'text', text: JSON.stringify(value) ?? '' }] })
const deep = (levels) => '{"a":'.repeat(levels) + '1' + '}'.repeat(levels)
const answers = (methods) => {
  createInterface({ input: process.stdin }).on('line', (line) => {
    const message = JSON.parse(line)
    if (message.method !== undefined) methods[message.method]?.(message)
    else methods.response?.(message)
  }).on('close', () => process.exit(0))
}
const legacy = (methods, capabilities = { tools: {}, resources: { subscribe: true } }) => answers({
  initialize: ({ id }) => send({ id, result: { protocolVersion: '2025-11-25', capabilities, serverInfo: { name: 'x', version: '1' } } }),
  'server/discover': ({ id }) => send({ id, error: { code: -32601, message: 'no' } }),
  ping: ({ id }) => send({ id, result: {} }),
  'tools/list': ({ id }) => send({ id, result: { tools: [] } }),
  ...methods,
})
const modern = (methods, capabilities = { tools: {}, resources: { subscribe: true } }) => answers({
  'server/discover': ({ id }) => send({ id, result: { resultType: 'complete', supportedVersions: ['2026-07-28'], capabilities, ttlMs: 0, cacheScope: 'private', _meta: { 'io.modelcontextprotocol/serverInfo': { name: 'x', version: '1' } } } }),
  'tools/list': ({ id }) => send({ id, result: { resultType: 'complete', tools: [], ttlMs: 0, cacheScope: 'private' } }),
  ...methods,
})
`

/** A sidecar in front of a server that is this script. */
function behind(t: Test, script: string, options: TestOptions = {}): Promise<TestSidecar> {
  const folder = t.testdir({ 'server.mjs': common + script })
  const command = ['/usr/bin/env', '-u', 'NODE_OPTIONS', process.execPath, join(folder, 'server.mjs')]
  return startTestSidecar(t, { command, wire: 'unchecked because the server is hostile', ...options })
}

const era = (serverEra: 'legacy' | 'modern', limits: object = {}, server: object = {}): TestOptions => ({
  config: { server: { era: serverEra, ...server }, limits } as never,
})

/** Exceptions that nobody catches end the sidecar. */
function crashes(t: Test): Error[] {
  const found: Error[] = []
  const note = (error: Error): void => void found.push(error)
  process.prependListener('uncaughtException', note)
  t.teardown(() => process.off('uncaughtException', note))
  return found
}

const nested = (levels: number): Json => JSON.parse(`${'{"a":'.repeat(levels)}1${'}'.repeat(levels)}`)
const alive = async (t: Test, { url }: TestSidecar): Promise<void> => {
  await until(async () => (await ask(url, modern('alive', 'tools/list'))).status === 200, 'it serves others')
  t.pass('it serves others')
}
/** Processor time in milliseconds, the best of a few: nothing that keeps the machine busy makes it much longer. */
async function cheapest(work: () => Promise<unknown>): Promise<number> {
  let best = Number.POSITIVE_INFINITY
  for (let i = 0; i < 4; i++) {
    const before = process.cpuUsage()
    await work()
    const { user, system } = process.cpuUsage(before)
    best = Math.min(best, (user + system) / 1000)
  }
  return best
}

test('a legacy client whose capabilities are nested deeply cannot end the sidecar', async (t) => {
  const found = crashes(t)
  const sidecar = await behind(t, 'modern({})', era('modern', { requestTimeoutMs: 300 }))
  const session = await openSession(sidecar.url, { capabilities: { experimental: nested(253) } })
  const subscribe = (id: number) =>
    post(
      sidecar.url,
      { jsonrpc: '2.0', id, method: 'resources/subscribe', params: { uri: `test://${id}` } },
      session,
    )
  await subscribe(1)
  await subscribe(2)
  await pause(700)
  t.same(found, [], 'nothing is thrown in a timer')
  await alive(t, sidecar)
})

test('what a client sends is read in a time that grows with its size', async (t) => {
  t.test('a retry of arguments that are nested deeply', async (t) => {
    const sidecar = await behind(
      t,
      `legacy({ 'tools/call': () => send({ id: 'e', method: 'elicitation/create', params: { message: 'm', requestedSchema: { type: 'object', properties: {} } } }) })`,
      era('legacy'),
    )
    const first = tool(1, 'asks', {}, { capabilities: everything })
    const { json } = await ask(sidecar.url, first)
    const request = JSON.stringify(retry(first, 2, {}, json.result.requestState))
    const time = (levels: number): Promise<number> => {
      const args = `{"a":${'{"a":'.repeat(levels)}[${'1,'.repeat(200_000)}1]${'}'.repeat(levels)}}`
      const headers = { 'MCP-Protocol-Version': '2026-07-28', 'Mcp-Method': 'tools/call', 'Mcp-Name': 'asks' }
      const text = request.replace('"arguments":{}', `"arguments":${args}`)
      return cheapest(() => post(sidecar.url, text, headers))
    }
    const flat = await time(1)
    const deep = await time(240)
    t.ok(deep < flat * 8 + 200, `${Math.round(flat)} ms flat, ${Math.round(deep)} ms deep`)
  })
  t.test('initialize with capabilities that stand many times', async (t) => {
    const { url } = await behind(t, 'modern({})', era('modern'))
    const time = (n: number): Promise<number> => {
      const odd = `{${'"tasks":0,"a":0,'.repeat(n)}${'"roots":{"listChanged":1},'.repeat(n)}"b":0}`
      const text = JSON.stringify(initialize()).replace('"capabilities":{}', `"capabilities":${odd}`)
      return cheapest(() => post(url, text))
    }
    const few = await time(5000)
    const many = await time(50_000)
    t.ok(many < few * 15 + 300, `${Math.round(few)} ms for few, ${Math.round(many)} ms for ten times as many`)
  })
})

const people = bearerTokens(t, 'alice', 'bob')

test('what one caller leaves unread by its own process is no limit for others', async (t) => {
  const sidecar = await behind(
    t,
    `legacy({ 'tools/call': () => { process.stdin.pause(); Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3000) } })`,
    { ...era('legacy', { sessionQueueBytes: 64 * 1024 }), flags: people.flags },
  )
  const alice = people.of('alice')
  const bob = people.of('bob')
  t.equal((await ask(sidecar.url, modern(0, 'tools/list'), bob)).status, 200, 'before')
  const blocked = [begin(sidecar.url, tool(1, 'blocks'), alice)]
  await pause(200)
  for (let i = 2; i < 6; i++) {
    const ref = { type: 'ref/prompt', name: 'x'.repeat(200_000) }
    blocked.push(
      begin(
        sidecar.url,
        modern(i, 'completion/complete', { ref, argument: { name: 'a', value: '' } }),
        alice,
      ),
    )
  }
  await until(
    async () => (await sidecar.metric('mcp_sidecar_queue_bytes{reader="server"}')) > 64 * 1024,
    'a full pipe',
  )
  const answer = await ask(sidecar.url, modern(1, 'tools/list'), bob)
  t.equal(answer.status, 200, `the other principal: ${answer.body}`)
  for (const each of blocked) each.leave()
})

test('what was answered on a connection that is gone is not kept', async (t) => {
  const sidecar = await behind(
    t,
    `legacy({ 'tools/call': ({ id, params }) => { if (params.name === 'large') send({ id, result: text('x'.repeat(300000)) }) } })`,
    era('legacy', { requestTimeoutMs: 60_000 }),
  )
  const { hostname, port } = new URL(sidecar.url)
  const wireOf = (name: string, id: number): string => {
    const body = JSON.stringify(tool(id, name))
    return `POST /mcp HTTP/1.1\r\nHost: ${hostname}\r\nContent-Type: application/json\r\nAccept: ${accept}\r\nMCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: ${name}\r\nContent-Length: ${body.length}\r\n\r\n${body}`
  }
  const socket = connect(Number(port), hostname)
  socket.on('error', () => {})
  socket.write(wireOf('never', 1) + wireOf('large', 2))
  await until(
    async () => (await sidecar.metric('mcp_sidecar_queue_bytes{reader="client"}')) > 200_000,
    'an answer that waits',
  )
  socket.destroy()
  await until(
    async () => (await sidecar.metric('mcp_sidecar_queue_bytes{reader="client"}')) === 0,
    'nobody will read it',
  )
})

test('a server that comes back in the other era leaves nobody waiting', async (t) => {
  const folder = t.testdir({})
  const sidecar = await behind(
    t,
    `import { existsSync, writeFileSync } from 'node:fs'
    const flag = ${JSON.stringify(join(folder, 'second'))}
    if (existsSync(flag)) legacy({})
    else modern({
      'tools/call': () => { writeFileSync(flag, ''); process.exit(1) },
      'subscriptions/listen': ({ id }) => send({ method: 'notifications/subscriptions/acknowledged', params: { notifications: {}, _meta: { 'io.modelcontextprotocol/subscriptionId': id } } }),
    })`,
  )
  const listening = await streamed(sidecar.url, listenTo(1, { resourceSubscriptions: ['test://a'] }))
  await until(() => listening.messages.length > 0, 'the acknowledgement')
  const session = await openSession(sidecar.url)
  await ask(sidecar.url, tool(2, 'exit'))
  const found = (): boolean => sidecar.logs.some(({ fields }) => fields['era'] === 'legacy')
  await until(found, 'the change of the era')
  await until(() => listening.isClosed(), 'the subscription ends, so that its client opens it again')
  const list = { jsonrpc: '2.0', id: 3, method: 'tools/list' }
  await until(
    async () => (await post(sidecar.url, list, session)).status === 404,
    'the session ends, so that its client starts anew',
  )
  listening.cut()
})

test('a task belongs to whom its id was given last', async (t) => {
  const sidecar = await behind(
    t,
    `let tasks = 0
    const owners = {}
    modern({
      'tools/call': ({ id, params }) => {
        if (params.name === 'exit') process.exit(1)
        const taskId = 'task-' + ++tasks
        owners[taskId] = params.arguments.secret
        send({ id, result: { resultType: 'task', taskId, status: 'working', createdAt: '2026-01-01T00:00:00Z', lastUpdatedAt: '2026-01-01T00:00:00Z', ttlMs: null } })
      },
      'tasks/get': ({ id, params }) => send({ id, result: { resultType: 'complete', taskId: params.taskId, status: 'completed', result: text(owners[params.taskId]) } }),
    }, { tools: {}, extensions: { 'io.modelcontextprotocol/tasks': {} } })`,
    { ...era('modern'), flags: people.flags },
  )
  const capabilities = { extensions: { 'io.modelcontextprotocol/tasks': {} } }
  const start = (name: string) =>
    ask(sidecar.url, tool(1, 'start', { secret: `of ${name}` }, { capabilities }), people.of(name))
  const get = (name: string) =>
    ask(sidecar.url, modern(2, 'tasks/get', { taskId: 'task-1' }, { capabilities }), people.of(name))
  t.equal((await start('alice')).json.result?.taskId, 'task-1')
  await ask(sidecar.url, tool(3, 'exit'), people.of('alice'))
  await until(async () => (await start('bob')).json.result?.taskId === 'task-1', 'a task of the next process')
  t.notMatch((await get('alice')).body, 'of bob', 'nobody reads the task of another')
  t.match((await get('bob')).body, 'of bob', 'its owner does')
})

/** The answer within a minute, or what is said instead of one. */
const answered = async (answer: Promise<{ body: string }>): Promise<string> => {
  const late = pause(60_000, { body: 'no answer' }, { ref: false })
  return (await Promise.race([answer, late]).catch((error: Error) => ({ body: error.message }))).body
}

test('a list that cannot be translated fails its call, and holds up no place', async (t) => {
  const tools = (which: string, entries: string): string =>
    `${which}({ 'tools/list': ({ id }) => raw('{"jsonrpc":"2.0","id":' + id + ',"result":{"resultType":"complete","tools":[' + ${entries} + ']}}') })`
  const many = `Array(150000).fill('{"name":"t","execution":0}').join(',')`
  t.test('a serverInfo as deep as messages may be, beside a tool with an invalid header', async (t) => {
    const entry = `'{"name":"t","inputSchema":{"type":"object","properties":{"a":{"type":"array","x-mcp-header":"A"}}}}'`
    const script = tools('legacy', entry).replace(
      'legacy({',
      `legacy({ initialize: ({ id }) => raw('{"jsonrpc":"2.0","id":' + id + ',"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"x","version":"1","more":' + deep(253) + '}}}'),`,
    )
    const { url } = await behind(t, script, era('legacy'))
    t.not(await answered(ask(url, modern(1, 'tools/list'))), 'no answer')
  })
  t.test('very many tools of a modern server', async (t) => {
    const { url } = await behind(t, tools('modern', many), era('modern'))
    const session = await openSession(url)
    const list = begin(url, { jsonrpc: '2.0', id: 1, method: 'tools/list', params: {} }, session)
    t.not(await answered(list.answer.then((got) => ({ body: got?.body ?? '' }))), 'no answer')
    list.leave()
  })
})
