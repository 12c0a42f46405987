/** Clients of the modern era in front of servers of that era and of both, over HTTP and over WebSocket. */
import { fileURLToPath } from 'node:url'
import { test } from 'tap'
import { connect, nameOf, play, type Route } from '../support/clients.ts'
import { conformanceScenario, conformanceServer } from '../support/conformance.ts'
import { about, comparable, orderOf, watching } from '../support/either-era.ts'
import { startTestSidecar, until } from '../support/sidecar.ts'
import { openSocket } from '../support/streams.ts'
import { initialize } from '../support/wire.ts'

const modern: readonly Route[] = [
  { sdk: 'v2', over: 'Streamable HTTP', pinned: true },
  { sdk: 'v2', over: 'WebSocket', pinned: true },
  { sdk: 'v2', over: 'Streamable HTTP', auto: true },
  { sdk: 'v2', over: 'WebSocket', auto: true },
]
const legacy: readonly Route[] = [
  { sdk: 'v1', over: 'Streamable HTTP' },
  { sdk: 'v1', over: 'HTTP+SSE' },
  { sdk: 'v1', over: 'WebSocket' },
]

type ToolResult = { content: { text: string }[] }
const read = (result: ToolResult) => JSON.parse(result.content[0]?.text ?? '')

const bareServer = [
  process.execPath,
  fileURLToPath(new URL('../fixtures/modern-server.mjs', import.meta.url)),
]

for (const era of ['modern', 'dual'] as const) {
  test(`clients in front of a ${era} server see what they see over stdio`, async (t) => {
    const command = conformanceServer(era)
    const { base, logs } = await startTestSidecar(t, { command, flags: { webSocket: true } })
    const run = (route: Route, directly = command) =>
      play(route, { command: directly, base }, async (peer) => {
        return { transcript: comparable(await conformanceScenario(peer)), era: peer.era }
      })
    const expected = await run({ sdk: 'v2', over: 'stdio', pinned: true })
    for (const route of modern) {
      t.test(nameOf(route), async (t) => {
        t.strictSame(await run(route), { ...expected, era: 'modern' })
      })
    }
    if (era === 'dual') {
      const served = await run({ sdk: 'v1', over: 'stdio' }, conformanceServer('legacy'))
      for (const route of legacy) {
        t.test(nameOf(route), async (t) => {
          t.strictSame(await run(route), served)
        })
      }
    }
    t.test('the sidecar speaks the modern era to the server', async (t) => {
      t.match(
        logs.filter(({ fields }) => 'era' in fields),
        [{ level: 'info', fields: { era: 'modern', versions: [/^2026-07-28$/] } }],
      )
    })
  })
}

test('modern clients in front of a bare modern server', async (t) => {
  const { base } = await startTestSidecar(t, { command: bareServer, flags: { webSocket: true } })
  for (const route of modern.slice(0, 2)) {
    t.test(nameOf(route), async (t) => {
      const peer = await connect(route, { command: bareServer, base })
      t.teardown(() => peer.close())
      t.test('four rounds, each of another kind', async (t) => {
        peer.user.answers.push({ action: 'accept', content: { name: 'Ada' } }, { action: 'accept' })
        const kinds = ['elicitation', 'url', 'sampling', 'roots']
        const { answers } = read(await peer.call('rounds', { count: 4, kinds }))
        t.match(answers, [
          { action: 'accept', content: { name: 'Ada' } },
          { action: 'accept' },
          { role: 'assistant' },
          { roots: [{ uri: 'file:///somewhere/project' }] },
        ])
      })
      t.test('the server gets what the client says of itself', async (t) => {
        const { _meta } = read(await peer.call('echo', { a: 1 }, { token: 'mine', logLevel: 'error' }))
        t.match(_meta, {
          'io.modelcontextprotocol/protocolVersion': '2026-07-28',
          'io.modelcontextprotocol/clientInfo': { name: 'real-servers-test' },
          'io.modelcontextprotocol/clientCapabilities': { sampling: {}, elicitation: { url: {} } },
          'io.modelcontextprotocol/logLevel': 'error',
        })
      })
      t.test('progress and log messages of the call', async (t) => {
        await peer.call('progress', { count: 5 }, { token: 424_242 })
        t.strictSame(orderOf(peer, 424_242), [1, 2, 3, 4, 5, 'result'])
        await peer.call('log', { level: 'error', data: 'unwanted' })
        await peer.call('log', { level: 'error', data: 'wanted' }, { logLevel: 'info' })
        t.match(peer.wire.fromServer.filter(about('notifications/message')), [{ params: { data: 'wanted' } }])
      })
      t.test('a call that is cancelled is cancelled at the server', async (t) => {
        const gone = new AbortController()
        const key = nameOf(route)
        const failed = t.rejects(peer.call('hold', { key }, { signal: gone.signal }))
        await until(async () => read(await peer.call('held')).includes(key), 'the call to be there')
        gone.abort('changed my mind')
        await failed
        const cancelled = async () =>
          read(await peer.call('cancelled')).some((each: { key?: string }) => each.key === key)
        await until(cancelled, 'the call to be cancelled')
        const told = peer.wire.sent.filter(about('notifications/cancelled'))
        t.equal(told.length, route.over === 'WebSocket' ? 1 : 0, 'over HTTP the stream says it')
      })
      t.test('two subscriptions, each with what it asked for', async (t) => {
        const uri = `test://item/${route.over.replace(/\W/g, '')}`
        const lists = await peer.listen({ toolsListChanged: true })
        t.same(lists.honoredFilter, { toolsListChanged: true })
        await watching(peer, { uris: [uri], lists: ['prompts'] }, async () => {
          for (const list of ['tools', 'prompts']) await peer.call('change', { list })
          await peer.call('touch', { uri })
          await peer.wire.until('an update', about('notifications/resources/updated', uri))
          await peer.wire.until('changed tools', about('notifications/tools/list_changed'))
          await peer.wire.until('changed prompts', about('notifications/prompts/list_changed'))
        })
        const notified = peer.wire.fromServer.filter(({ method }) => /list_changed|updated/.test(method))
        const by = (message: { params: { _meta: Record<string, unknown> } }) =>
          message.params._meta['io.modelcontextprotocol/subscriptionId']
        t.equal(notified.length, 3)
        t.equal(new Set(notified.map(by)).size, 2)
        await lists.close()
        const left = async () =>
          read(await peer.call('listens')).filter(
            ({ filter }: { filter: { resourceSubscriptions?: string[] } }) =>
              filter.resourceSubscriptions?.includes(uri),
          ).length
        await until(async () => (await left()) === 0, 'the subscription to end at the server')
      })
      t.test('content of any shape', async (t) => {
        const { structuredContent } = await peer.call('array')
        t.same(structuredContent, [1, 'two', { three: 3 }])
        const error = { code: -32602, data: { uri: 'test://nothing' } }
        await t.rejects(peer.readResource('test://nothing'))
        t.match(peer.wire.received.findLast((message) => message.error) ?? { error }, { error })
      })
      t.test('the server found no fault with any message', async (t) => {
        t.same(read(await peer.call('violations')), [])
      })
    })
  }
})

test('the era of a socket', async (t) => {
  const { base } = await startTestSidecar(t, { command: bareServer, flags: { webSocket: true } })
  const prefix = 'io.modelcontextprotocol/'
  const _meta = {
    [`${prefix}protocolVersion`]: '2026-07-28',
    [`${prefix}clientInfo`]: { name: 'test', version: '1' },
    [`${prefix}clientCapabilities`]: {},
  }
  const modernly = (id: string, method: string, params: object = {}) => ({
    jsonrpc: '2.0',
    id,
    method,
    params: { ...params, _meta },
  })
  const legacyCall = { jsonrpc: '2.0', id: 'legacy', method: 'tools/call', params: { name: 'pid' } }

  t.test('discover first leaves it open: the client can go on with initialize', async (t) => {
    const socket = await openSocket(base)
    t.match(await socket.request(modernly('d', 'server/discover')), {
      result: { supportedVersions: ['2026-07-28'] },
    })
    t.match(await socket.request(initialize('2025-06-18')), { result: { protocolVersion: '2025-06-18' } })
    socket.send({ jsonrpc: '2.0', method: 'notifications/initialized' })
    t.match(await socket.request(legacyCall), { result: { content: [{ type: 'text' }] } })
    socket.close()
  })
  t.test('a modern one takes no initialize and nothing else without its metadata', async (t) => {
    const socket = await openSocket(base)
    t.match(await socket.request(modernly('m', 'tools/call', { name: 'pid' })), {
      result: { resultType: 'complete' },
    })
    for (const message of [initialize('2025-11-25'), legacyCall]) {
      t.match(await socket.request(message), { error: { code: -32602, data: { source: 'mcp-sidecar' } } })
    }
    t.match(await socket.request(modernly('still', 'tools/call', { name: 'pid' })), { result: {} })
    socket.close()
  })
  t.test('a legacy one refuses modern requests', async (t) => {
    const socket = await openSocket(base, { version: '2025-11-25' })
    t.match(await socket.request(modernly('m', 'tools/call', { name: 'pid' })), {
      error: { data: { source: 'mcp-sidecar' } },
    })
    t.match(await socket.request(legacyCall), { result: {} })
    socket.close()
  })
  t.test('an initialize that claims the modern era is none of either', async (t) => {
    const socket = await openSocket(base)
    const { params } = initialize('2025-11-25')
    t.match(await socket.request(modernly('i', 'initialize', params)), { error: { code: -32601 } })
    socket.close()
  })
})
