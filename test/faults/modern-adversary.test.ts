/** What hostile clients and hostile servers of either era can do to the sidecar, and to others behind it. */
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import t, { test, type Test } from 'tap'
import { ask, begin, envelope, everything, type Json, listenTo, modern, retry, streamed, tool } from '../support/modern.ts'
import { startTestSidecar, type TestOptions, type TestSidecar, until } from '../support/sidecar.ts'
import { bearerTokens } from '../support/tokens.ts'
import { accept, call, initialize, openSession, post } from '../support/wire.ts'

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

const nested = (levels: number): Json => JSON.parse('{"a":'.repeat(levels) + '1' + '}'.repeat(levels))
const alive = async (t: Test, { url }: TestSidecar): Promise<void> => {
  t.equal((await ask(url, modern('alive', 'tools/list'))).status, 200, 'it serves others')
}

test('a legacy client whose capabilities are nested deeply cannot end the sidecar', async (t) => {
  const found = crashes(t)
  const sidecar = await behind(t, 'modern({})', era('modern', { requestTimeoutMs: 300 }))
  const session = await openSession(sidecar.url, { capabilities: { experimental: nested(253) } })
  const subscribe = (id: number) =>
    post(sidecar.url, { jsonrpc: '2.0', id, method: 'resources/subscribe', params: { uri: `test://${id}` } }, session)
  await subscribe(1)
  await subscribe(2)
  await pause(700)
  t.same(found, [], 'nothing is thrown in a timer')
  await alive(t, sidecar)
})

test('a question that is nested deeply cannot end the sidecar', async (t) => {
  const found = crashes(t)
  const sidecar = await behind(
    t,
    `legacy({ 'tools/call': ({ params }) =>
      raw('{"jsonrpc":"2.0","id":1,"method":"elicitation/create","params":{"message":"m","metadata":' + JSON.stringify(params.arguments) + '}}') })`,
    era('legacy', { requestTimeoutMs: 500 }),
  )
  const answer = await ask(sidecar.url, tool(1, 'echo', nested(253), { capabilities: everything })).catch(() => undefined)
  t.comment(answer?.body.slice(0,300)); t.not(answer, undefined, 'the call is answered')
  t.same(found, [], 'nothing is thrown in a timer')
  await alive(t, sidecar)
})

test('a server whose name is nested deeply cannot end the sidecar', async (t) => {
  const found = crashes(t)
  const sidecar = await behind(
    t,
    `legacy({ initialize: ({ id }) => raw('{"jsonrpc":"2.0","id":' + id + ',"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"x","version":"1","more":' + deep(253) + '}}}') })`,
    era('legacy'),
  )
  const a9 = await ask(sidecar.url, modern(1, 'server/discover')).catch((e) => e); t.comment(a9.status, String(a9.body).slice(0,200), String(a9.body).length, a9.message)
  t.same(found, [], 'nothing is thrown in a microtask')
})

test('a list of very many tools cannot end the sidecar', async (t) => {
  for (const which of ['legacy', 'modern'] as const) {
    const found = crashes(t)
    const sidecar = await behind(
      t,
      `${which}({ 'tools/list': ({ id }) => raw('{"jsonrpc":"2.0","id":' + id + ',"result":{"resultType":"complete","tools":[' + Array(150000).fill('{"name":"t","execution":0}').join(',') + ']}}') })`,
      era(which),
    )
    if (which === 'legacy') await ask(sidecar.url, modern(1, 'tools/list')).catch(() => {})
    else {
      const session = await openSession(sidecar.url)
      await Promise.race([post(sidecar.url, { jsonrpc: '2.0', id: 1, method: 'tools/list' }, session), pause(5000)])
    }
    t.same(found.map(String), [], `${which}: nothing is thrown where the server is read`)
  }
})

test('an answer that no server could be told does not use up the call', async (t) => {
  const sidecar = await behind(
    t,
    `let waiting
    legacy({
      'tools/call': ({ id }) => { waiting = id; send({ id: 'e', method: 'elicitation/create', params: { message: 'm', requestedSchema: { type: 'object', properties: {} } } }) },
      response: ({ result }) => send({ id: waiting, result: text(result) }),
    })`,
    era('legacy', { requestTimeoutMs: 1000 }),
  )
  const first = tool(1, 'asks', {}, { capabilities: everything })
  const { json } = await ask(sidecar.url, first)
  const { requestState } = json.result
  const again = JSON.stringify(retry(first, 2, { q1: 'ANSWER' }, requestState))
  const odd = again.replace('"ANSWER"', '{"action":"accept","content":{},"_meta":{},"_meta":{}}')
  const headers = { 'MCP-Protocol-Version': '2026-07-28', 'Mcp-Method': 'tools/call', 'Mcp-Name': 'asks' }
  const second = await post(sidecar.url, odd, headers)
  const state = second.json?.result?.requestState ?? requestState
  const third = await ask(sidecar.url, retry(first, 3, { q1: { action: 'accept', content: {} } }, state))
  t.match(third.json, { result: { content: [{}] } }, `${second.body.slice(0, 300)}`)
})

test('digests and capabilities are read in a time that grows with their size', async (t) => {
  t.test('a retry of large arguments that are nested deeply', async (t) => {
    const sidecar = await behind(
      t,
      `legacy({ 'tools/call': () => send({ id: 'e', method: 'elicitation/create', params: { message: 'm', requestedSchema: { type: 'object', properties: {} } } }) })`,
      era('legacy'),
    )
    const first = tool(1, 'asks', {}, { capabilities: everything })
    const { json } = await ask(sidecar.url, first)
    const large = JSON.stringify(retry(first, 2, {}, json.result.requestState)).replace(
      '"arguments":{}',
      `"arguments":${'{"a":'.repeat(245)}[${'1,'.repeat(1_900_000)}1]${'}'.repeat(245)}`,
    )
    const headers = { 'MCP-Protocol-Version': '2026-07-28', 'Mcp-Method': 'tools/call', 'Mcp-Name': 'asks' }
    const before = performance.now()
    const answer = await post(sidecar.url, large, headers)
    const ms = performance.now() - before
    t.comment(`${ms} ms`, answer.status)
    t.ok(ms < 2500, `it took ${Math.round(ms)} ms`)
  })
  t.test('initialize with capabilities that stand many times', async (t) => {
    const sidecar = await behind(t, 'modern({})', era('modern'))
    const n = 60_000
    const capabilities = `{${'"tasks":0,"a":0,'.repeat(n)}${'"roots":{"listChanged":1},'.repeat(n)}"b":0}`
    const body = JSON.stringify(initialize()).replace('"capabilities":{}', `"capabilities":${capabilities}`)
    const before = performance.now()
    const answer = await post(sidecar.url, body)
    const ms = performance.now() - before
    t.comment(`${ms} ms`, answer.status, answer.body.slice(0, 200))
    t.ok(ms < 2500, `it took ${Math.round(ms)} ms`)
  })
})
