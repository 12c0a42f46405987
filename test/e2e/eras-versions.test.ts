/** Clients with the older versions of the handshake era in front of a server that knows only the modern one. */
import { fileURLToPath } from 'node:url'
import { test } from 'tap'
import { type Abilities, connect, nameOf, type Route } from '../support/clients.ts'
import { conformanceServer } from '../support/conformance.ts'
import { about, orderOf } from '../support/either-era.ts'
import { startTestSidecar } from '../support/sidecar.ts'

const versions = ['2024-11-05', '2025-03-26', '2025-06-18', '2025-11-25'] as const

const ways: readonly Route[] = [
  { sdk: 'v1', over: 'Streamable HTTP' },
  { sdk: 'v2', over: 'Streamable HTTP' },
  { sdk: 'v1', over: 'HTTP+SSE' },
  { sdk: 'v1', over: 'WebSocket' },
]

const bareServer = [
  process.execPath,
  fileURLToPath(new URL('../fixtures/modern-server.mjs', import.meta.url)),
]

type ToolResult = { content: { text: string }[] }
const read = (result: ToolResult) => JSON.parse(result.content[0]?.text ?? '')

/** What clients of a version can declare; later things would be another version's. */
const abilitiesOf = (version: string): Abilities => ({
  elicits: version < '2025-06-18' ? [] : version < '2025-11-25' ? ['form'] : ['form', 'url'],
})

test('older clients in front of a modern server', async (t) => {
  const bare = await startTestSidecar(t, { command: bareServer, flags: { webSocket: true } })
  const command = conformanceServer('modern')
  const conformance = await startTestSidecar(t, { command, flags: { webSocket: true } })
  const newer = await startTestSidecar(t, {
    command: bareServer,
    flags: { webSocket: true },
    wire: 'unchecked because content of later versions is handed on to older clients as it is',
  })
  for (const version of versions) {
    for (const way of version === '2025-11-25' ? ways.slice(0, 1) : ways) {
      const route: Route = { ...way, version }
      t.test(nameOf(route), async (t) => {
        const abilities = abilitiesOf(version)
        const peer = await connect(route, { command, base: bare.base }, abilities)
        t.teardown(() => peer.close())
        const { user } = peer
        const ask = (kind: string) => peer.call('rounds', { count: 1, kinds: [kind] })

        t.test('the version is the one the client proposed', async (t) => {
          const answer = peer.wire.received.find(({ result }) => result?.protocolVersion !== undefined)
          t.equal(answer.result.protocolVersion, version)
          const { _meta } = read(await peer.call('echo'))
          t.equal(_meta['io.modelcontextprotocol/protocolVersion'], '2026-07-28')
        })
        t.test('sampling and roots', async (t) => {
          t.match(read(await ask('sampling')), { answers: [{ role: 'assistant' }] })
          t.match(read(await ask('roots')), { answers: [{ roots: [{ name: 'project' }] }] })
        })
        t.test('a form since 2025-06-18', async (t) => {
          const before = user.asked.length
          user.answers.push({ action: 'accept', content: { name: 'Ada' } })
          const result = await ask('elicitation')
          if (version >= '2025-06-18') {
            t.match(read(result), { answers: [{ action: 'accept', content: { name: 'Ada' } }] })
          } else {
            t.match(result, { isError: true })
            t.equal(user.asked.length, before)
            user.answers.length = 0
          }
        })
        t.test('a URL since 2025-11-25', async (t) => {
          const before = user.asked.length
          user.answers.push({ action: 'accept' })
          const result = await ask('url')
          if (version >= '2025-11-25') {
            t.match(read(result), { answers: [{ action: 'accept' }] })
            t.match(user.asked.at(-1)?.params, { mode: 'url', elicitationId: /./ })
          } else {
            t.match(result, { isError: true })
            t.equal(user.asked.length, before)
            user.answers.length = 0
          }
        })
        t.test('progress, updates, changes and log messages', async (t) => {
          await peer.call('progress', { count: 3 }, { token: 'mine' })
          t.strictSame(orderOf(peer, 'mine'), [1, 2, 3, 'result'])
          const uri = 'test://text'
          await peer.subscribe(uri)
          await peer.call('touch', { uri })
          await peer.wire.until('an update', about('notifications/resources/updated', uri))
          await peer.call('change', { list: 'tools' })
          await peer.wire.until('changed tools', about('notifications/tools/list_changed'))
          await peer.setLevel('info')
          await peer.call('log', { level: 'error', data: 'wanted' })
          await peer.wire.until('a log message', about('notifications/message', 'wanted'))
        })
        t.test('content of later versions as it is', async (t) => {
          const other = await connect(route, { command, base: newer.base }, abilities)
          t.teardown(() => other.close())
          const text = { type: 'text', text: '{}' }
          for (const result of [
            { content: [text], structuredContent: { a: { b: 1 } } },
            { content: [{ type: 'audio', data: 'AAAA', mimeType: 'audio/wav' }] },
            { content: [{ type: 'resource_link', uri: 'test://text', name: 'text', title: 'A text' }] },
          ]) {
            t.strictSame(await other.call('result', result), result)
          }
        })
        t.test('a server on the SDK', async (t) => {
          const other = await connect(route, { command, base: conformance.base }, abilities)
          t.teardown(() => other.close())
          t.match(await other.call('test_multiple_content_types'), { content: [{}, {}, {}] })
          other.user.answers.push({ action: 'accept', content: { name: 'Ada' } })
          const greeting = await other.call('test_input_required_result_elicitation')
          if (version >= '2025-06-18') t.match(greeting, { content: [{ text: 'Hello, Ada!' }] })
          else t.match(greeting, { isError: true })
          t.match(await other.call('test_sampling', { prompt: 'x' }), {
            content: [{ text: 'LLM response: You said: x 🙂' }],
          })
          await t.rejects(other.readResource('test://none'))
        })
        t.test('no errors', async (t) => {
          t.strictSame(
            peer.errors.filter((text) => !text.includes('unknown token')),
            [],
          )
          t.same(read(await peer.call('violations')), [])
        })
      })
    }
  }

  t.test('a version nobody knows is answered with the newest', async (t) => {
    const peer = await connect(
      { sdk: 'v1', over: 'WebSocket', version: '2099-01-01' },
      { command, base: bare.base },
    )
    t.teardown(() => peer.close())
    t.equal(
      peer.wire.received.find(({ result }) => result?.protocolVersion !== undefined).result.protocolVersion,
      '2025-11-25',
    )
  })
  t.test('a client that declares a URL before there were any is not asked', async (t) => {
    const route: Route = { sdk: 'v1', over: 'Streamable HTTP', version: '2025-06-18' }
    const peer = await connect(route, { command, base: bare.base }, { elicits: ['url', 'form'] })
    t.teardown(() => peer.close())
    const { _meta } = read(await peer.call('echo'))
    t.same(Object.keys(_meta['io.modelcontextprotocol/clientCapabilities'].elicitation), ['form'])
    t.match(await peer.call('rounds', { count: 1, kinds: ['url'] }), { isError: true })
    t.strictSame(peer.user.asked, [])
  })
})
