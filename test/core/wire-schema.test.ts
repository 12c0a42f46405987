import { channel } from 'node:diagnostics_channel'
import { readFileSync } from 'node:fs'
import t, { type Test } from 'tap'
import { checkWire } from '../support/schema.ts'
import { definitionsOf, extract, schemas, versions } from '../support/schemas.ts'
import { startTestSidecar } from '../support/sidecar.ts'
import { openSocket, openSse, upgradeAnswer } from '../support/streams.ts'
import { call, openSession, post } from '../support/wire.ts'
import { checkWireOf, type WireOptOut } from '../support/wire-checks.ts'
import type { Seen } from '../support/wire-tap.ts'
import { WireWatch } from '../support/wire-watch.ts'

t.test('there is a schema of every version, and what is kept is what the bundle holds', async (t) => {
  const bundle = new URL('../../node_modules/mcp-schemas/dist/index.js', import.meta.url)
  const found = extract(readFileSync(bundle, 'utf8'))
  t.same(Object.keys(found).toSorted(), [...versions])
  t.same(schemas(), found)
  t.throws(() => extract('const nothing = {}'), /no schema of 2025-03-26/)
})

t.test('2024-11-05 has none of what came later', async (t) => {
  const text = JSON.stringify(schemas()['2024-11-05'], (key, value) => (key === 'description' ? '' : value))
  t.notMatch(text, /audio|Batch|ToolAnnotations/i)
  const later = Object.keys(definitionsOf(schemas()['2025-03-26']))
  const gone = later.filter((name) => !(name in definitionsOf(schemas()['2024-11-05'])))
  t.same(gone, ['AudioContent', 'JSONRPCBatchRequest', 'JSONRPCBatchResponse', 'ToolAnnotations'])
})

const envelope = {
  'io.modelcontextprotocol/protocolVersion': '2026-07-28',
  'io.modelcontextprotocol/clientCapabilities': {},
}
const rpc = (members: object): object => ({ jsonrpc: '2.0', ...members })
const answerTo =
  (method: string, params: object = {}) =>
  () => ({ method, params })
const audio = { content: [{ type: 'audio', data: 'AA==', mimeType: 'audio/wav' }] }
const task = {
  ...{ taskId: 't', status: 'working', createdAt: '2026-01-01T00:00:00Z' },
  ...{ lastUpdatedAt: '2026-01-01T00:00:00Z', ttl: null },
}

t.test('what is sound passes', async (t) => {
  const sound: [(typeof versions)[number], 'client' | 'server', object, ReturnType<typeof answerTo>?][] = [
    ['2024-11-05', 'client', rpc({ id: 1, method: 'ping' })],
    ['2024-11-05', 'client', rpc({ id: 1, method: 'x/unknown', params: { any: 1 } })],
    ['2024-11-05', 'server', rpc({ error: { code: -32700, message: 'unreadable' } })],
    [
      '2025-03-26',
      'server',
      [rpc({ id: 1, result: {} }), rpc({ id: 2, result: audio })],
      answerTo('tools/call'),
    ],
    ['2025-06-18', 'server', rpc({ id: 1, result: { content: [] } }), answerTo('tools/call')],
    ['2025-11-25', 'server', rpc({ id: 1, result: { task } }), answerTo('tools/call', { task: {} })],
    ['2026-07-28', 'client', rpc({ id: 1, method: 'tools/list', params: { _meta: envelope } })],
    [
      ...(['2026-07-28', 'server'] as const),
      rpc({ id: 1, result: { resultType: 'complete', tools: [], ttlMs: 0, cacheScope: 'private' } }),
      answerTo('tools/list'),
    ],
    [
      ...(['2026-07-28', 'server'] as const),
      rpc({ id: 1, result: { resultType: 'input_required', inputRequests: {} } }),
      answerTo('tools/call'),
    ],
  ]
  for (const [version, from, message, asked] of sound) {
    if (Array.isArray(message)) message[0].result = audio
    t.same(checkWire(message, { version, from, asked }), [], `${version} ${JSON.stringify(message)}`)
  }
})

t.test('what is not is found, and where', async (t) => {
  const unsound: [
    (typeof versions)[number],
    'client' | 'server',
    unknown,
    string,
    ReturnType<typeof answerTo>?,
  ][] = [
    ['2025-11-25', 'client', 'text', ''],
    ['2025-11-25', 'client', { id: 1, method: 'ping' }, ''],
    ['2025-11-25', 'client', rpc({ id: null, method: 'ping' }), '/id'],
    ['2025-11-25', 'client', rpc({ method: 'x/y', params: [] }), '/params'],
    ['2025-11-25', 'client', rpc({ id: 1, method: 'tools/call', params: {} }), '/params'],
    ['2025-11-25', 'server', rpc({ method: 'notifications/progress', params: { progress: 1 } }), '/params'],
    [
      '2025-11-25',
      'server',
      rpc({ id: 1, result: { content: 'x' } }),
      '/result/content',
      answerTo('tools/call'),
    ],
    ['2025-11-25', 'server', rpc({ id: 1, result: [] }), '/result'],
    ['2025-11-25', 'server', rpc({ id: 1 }), ''],
    ['2025-11-25', 'server', rpc({ id: 1, result: {}, error: { code: 1, message: '' } }), ''],
    ['2025-11-25', 'server', rpc({ id: 1, error: { code: 1.5, message: '' } }), '/error/code'],
    ['2025-11-25', 'server', [rpc({ id: 1, result: {} })], ''],
    ['2024-11-05', 'server', [rpc({ id: 1, result: {} })], ''],
    ['2025-03-26', 'server', [], ''],
    ['2025-03-26', 'server', [rpc({ id: 1, result: 1 })], '/0/result'],
    ['2024-11-05', 'server', rpc({ id: 1, result: audio }), '/result/content/0', answerTo('tools/call')],
    ['2026-07-28', 'client', rpc({ id: 1, method: 'tools/list', params: {} }), '/params'],
    ['2026-07-28', 'server', rpc({ id: 1, result: {} }), '/result'],
    [
      ...([
        '2026-07-28',
        'server',
        rpc({ id: 1, result: { resultType: 'complete', tools: [] } }),
        '/result',
      ] as const),
      answerTo('tools/list'),
    ],
    [
      ...(['2026-07-28', 'server'] as const),
      rpc({ id: 1, result: { resultType: 'input_required' } }),
      '/result/resultType',
      answerTo('tools/list'),
    ],
  ]
  for (const [version, from, message, at, asked] of unsound) {
    const found = checkWire(message, { version, from, asked })
    t.ok(
      found.some((fault) => fault.at === at || (fault.at.startsWith(at) && at !== '')),
      `${version} ${JSON.stringify(message)}: ${JSON.stringify(found)}`,
    )
  }
})

t.test('every way a message of the sidecar can go is looked at', async (t) => {
  const { base, url, wire } = await startTestSidecar(t, { config: { listen: { webSocket: true } } })
  const session = await openSession(url, { version: '2025-03-26' })
  await post(url, [call(1, 'echo', { text: 'one' }), call(2, 'echo')], session)
  await post(url, call(3, 'progress', { count: 2 }, { progressToken: 'p' }), session)
  await post(url, 'no JSON', session)
  const sse = await openSse(base, { version: '2024-11-05' })
  await sse.request(call(1, 'echo'))
  const socket = await openSocket(base, { version: '2025-11-25' })
  await socket.request(call(1, 'echo'))
  await upgradeAnswer(base, {}, { path: '/nowhere' })
  const { checked, faults } = wire.verdict()
  t.same(faults, [])
  t.ok((checked['to the client on /mcp'] ?? 0) >= 6, 'Streamable HTTP')
  t.equal(checked['to the client on /sse'], 2, 'HTTP+SSE')
  t.equal(checked['to the client over WebSocket'], 2, 'WebSocket')
  t.equal(checked['to the client on /nowhere'], 1, 'a refused upgrade')
  t.ok((checked['to the server process'] ?? 0) >= 9, 'stdin')
})

const pipe = (by: 'server' | 'sidecar', message: unknown): Seen =>
  ({
    ...{ kind: 'pipe', process: 1, command: [], by, text: `${JSON.stringify(message)}\n` },
  }) as Seen
const frame = (by: 'client' | 'sidecar', message: unknown): Seen =>
  ({
    ...{ kind: 'frame', socket: 2, port: 1, by, text: JSON.stringify(message) },
  }) as Seen
const watched = (...seen: Seen[]): WireWatch => {
  const watch = new WireWatch()
  for (const each of seen) watch.note(each)
  return watch
}
const hello = (version: string) =>
  rpc({
    ...{ id: 0, method: 'initialize' },
    params: { protocolVersion: version, capabilities: {}, clientInfo: { name: 'x', version: '1' } },
  })
const welcome = (version: string) =>
  rpc({
    id: 0,
    result: { protocolVersion: version, capabilities: {}, serverInfo: { name: 'y', version: '1' } },
  })

t.test('each side is held to the version it has agreed on', async (t) => {
  const versionsOf = (...seen: Seen[]) => watched(...seen).faults.map(({ version }) => version)
  const old = [frame('client', hello('2025-11-25')), frame('sidecar', welcome('2024-11-05'))]
  t.same(versionsOf(...old, frame('client', call(1, 'x')), frame('sidecar', rpc({ id: 1, result: audio }))), [
    '2024-11-05',
  ])
  const newer = [frame('client', hello('2025-11-25')), frame('sidecar', welcome('2025-11-25'))]
  t.same(
    versionsOf(...newer, frame('client', call(1, 'x')), frame('sidecar', rpc({ id: 1, result: audio }))),
    [],
  )
  const modern = rpc({ id: 1, method: 'tools/list', params: { _meta: envelope } })
  t.same(versionsOf(frame('client', modern), frame('sidecar', rpc({ id: 1, result: { tools: [] } }))), [
    '2026-07-28',
  ])
  const agreed = [pipe('sidecar', hello('2025-11-25')), pipe('server', welcome('2025-06-18'))]
  t.same(versionsOf(...agreed, pipe('sidecar', rpc({ id: 1, method: 'tools/call' }))), ['2025-06-18'])
  const question = rpc({ id: 7, method: 'roots/list' })
  t.same(versionsOf(...agreed, pipe('server', question), pipe('sidecar', rpc({ id: 7, result: {} }))), [
    '2025-06-18',
  ])
  const bare = rpc({ id: 2, method: 'tools/list' })
  t.same(versionsOf(pipe('sidecar', modern), pipe('sidecar', bare)), ['2026-07-28'])
})

t.test('what a client or server says ill-formed and the sidecar hands on as it is, is theirs', async (t) => {
  const theirs = rpc({ id: 9, result: { content: 'x' } })
  const both = [
    ...[pipe('sidecar', call(9, 'x')), frame('client', call('a', 'x'))],
    ...[pipe('server', theirs), frame('sidecar', { ...theirs, id: 'a' })],
  ]
  t.same(watched(...both).faults, [])
  t.equal(watched(...both, frame('sidecar', rpc({ id: 'a', result: { content: 'y' } }))).faults.length, 1)
  const progress = (progressToken: unknown): Seen =>
    frame('sidecar', rpc({ method: 'notifications/progress', params: { progressToken, progress: 1 } }))
  const odd = frame('client', call('b', 'x', {}, { progressToken: 1.5 }))
  t.same(watched(odd, progress(1.5)).faults, [])
  t.equal(watched(odd, progress(2.5)).faults.length, 1)
})

t.test('a test fails for an ill-formed message, unless it says why it must not', async (t) => {
  const verdict = (text: string, optOut?: WireOptOut): string[] => {
    const comments: string[] = []
    const comment = (line: string): number => comments.push(line)
    const checks = checkWireOf({ comment } as unknown as Test, ['x'], optOut)
    checks.listensOn(1)
    const socket = { localPort: 1, end: () => {} } as { localPort: number; end: (text?: string) => void }
    channel('net.server.socket').publish({ socket })
    socket.end(`HTTP/1.1 400 Bad Request\r\n\r\n${text}`)
    t.equal(checks.verdict().checked['to a bare connection'], 1)
    checks.finish()
    return comments
  }
  const sound = '{"jsonrpc":"2.0","error":{"code":-32600,"message":"no"}}'
  t.same(verdict(sound), [])
  t.throws(
    () => verdict(sound.replace('-32600', '"x"')),
    /^1 message of .*\nnot valid in 2025-11-25, to a bare connection:\n +\{"jsonrpc".*\n +\/error\/code: must be integer/,
  )
  t.same(verdict('{}', 'unchecked because it is about something else'), [
    'wire unchecked because it is about something else',
  ])
})
