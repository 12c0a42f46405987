import { classifyInboundRequest } from '@modelcontextprotocol/server'
import t from 'tap'
import { envelopeFaults, metaKey } from '../../src/core/envelope.ts'
import { errorTable, SidecarError } from '../../src/core/errors.ts'
import { messageOf } from '../../src/core/local.ts'
import {
  anonymous,
  type Connection,
  type Decoded,
  type Parsed,
  type Transport,
} from '../../src/core/types.ts'
import { classify } from '../../src/era/classify.ts'
import type { Json } from '../support/modern-calls.ts'

type Headers = Readonly<Record<string, string>>

interface Sent {
  readonly body: object
  readonly headers?: Headers
  readonly transport?: Transport
  readonly connection?: Connection
}

/** The era, or the code of the refusal. */
function outcome({ body, headers = {}, transport = 'streamable-http', connection }: Sent): string {
  const parsed = {
    ...{ requestId: 'r', transport, remoteAddress: '', httpMethod: 'POST', path: '/mcp', headers },
    ...{ origin: undefined, principal: anonymous, sessionId: undefined, connection },
    message: messageOf(JSON.stringify(body)),
  } as unknown as Parsed
  let era = 'nobody was called'
  try {
    void classify(parsed, (decoded: Decoded) => {
      era = decoded.era
    })
  } catch (thrown) {
    if (!(thrown instanceof SidecarError)) throw thrown
    refusal = thrown
    return thrown.code
  }
  return era
}
/** The latest. */
let refusal: SidecarError | undefined

const version = metaKey('protocolVersion')
const capabilities = metaKey('clientCapabilities')
const info = metaKey('clientInfo')
const level = metaKey('logLevel')
const envelope = { [version]: '2026-07-28', [capabilities]: {} }

const request = (method: string, meta?: unknown, params: object = {}): object => ({
  ...{ jsonrpc: '2.0', id: 1, method },
  params: meta === undefined ? params : { ...params, _meta: meta },
})
const modern = (method: string, more: Headers = {}): Headers => ({
  ...{ 'mcp-protocol-version': '2026-07-28', 'mcp-method': method },
  ...more,
})

t.test('a claim in the body is modern, whatever the method', async (t) => {
  const headers = modern('tools/list')
  t.equal(outcome({ body: request('tools/list', envelope), headers }), 'modern')
  const removed = ['initialize', 'ping', 'logging/setLevel', 'resources/subscribe', 'resources/unsubscribe']
  for (const method of [...removed, 'roots/list', 'tasks/list', 'tasks/result', 'elicitation/create']) {
    const sent = { body: request(method, envelope), headers: modern(method) }
    t.equal(outcome(sent), 'ERR_METHOD_UNKNOWN', method)
    t.same([refusal?.httpStatus(true), errorTable.ERR_METHOD_UNKNOWN.rpc], [404, -32601])
  }
  t.equal(outcome({ body: request('example.com/x', envelope), headers: modern('example.com/x') }), 'modern')
})

t.test('a modern version in the header alone is not legacy', async (t) => {
  for (const [meta, missing] of [
    [undefined, [version, capabilities]],
    [{}, [version, capabilities]],
    [{ [capabilities]: {} }, [version]],
    [null, [version, capabilities]],
  ] as const) {
    for (const header of ['2026-07-28', '2027-01-01', '9999-12-31']) {
      for (const method of ['tools/list', 'initialize']) {
        const headers = { ...modern(method), 'mcp-protocol-version': header }
        t.equal(outcome({ body: request(method, meta), headers }), 'ERR_ENVELOPE')
        t.same(refusal?.data, { missing })
        t.equal(refusal?.httpStatus(true), 400)
      }
    }
  }
})

t.test('all else is legacy', async (t) => {
  const legacy: Sent[] = [
    { body: request('initialize') },
    { body: request('initialize'), headers: { 'mcp-protocol-version': 'garbage' } },
    { body: request('tools/list') },
    { body: request('tools/list', {}), headers: { 'mcp-protocol-version': '2025-03-26' } },
    { body: request('server/discover') },
    { body: { jsonrpc: '2.0', id: 1, result: {} } },
    { body: { jsonrpc: '2.0', id: 1, result: { _meta: envelope } } },
    { body: { jsonrpc: '2.0', method: 'notifications/initialized' } },
    { body: request('tools/list', { [info]: {}, [capabilities]: {} }) },
    { body: request('tools/list', envelope), transport: 'http-sse' },
    { body: request('ping'), transport: 'http-sse', headers: { 'mcp-protocol-version': '2026-07-28' } },
  ]
  for (const each of legacy) t.equal(outcome(each), 'legacy', JSON.stringify(each))
  for (const wrong of [
    '2024-10-07',
    '2025-11-26',
    'x',
    '',
    '2025-11-25, 2025-11-25',
    '2026-07-28x',
    '20260728',
  ]) {
    const headers = { 'mcp-protocol-version': wrong }
    t.equal(outcome({ body: request('tools/list'), headers }), 'ERR_VERSION', wrong)
  }
})

t.test('notifications are accepted whatever they carry', async (t) => {
  const note = (meta?: unknown): object => {
    const { id: _, ...rest } = request('notifications/cancelled', meta) as Record<string, unknown>
    return rest
  }
  t.equal(outcome({ body: note(envelope) }), 'modern')
  t.equal(outcome({ body: note({ [version]: 7 }), headers: modern('other') }), 'modern')
  t.equal(outcome({ body: note({ [version]: '1999-01-01' }) }), 'modern')
  t.equal(outcome({ body: note(), headers: { 'mcp-protocol-version': '2026-07-28' } }), 'modern')
  t.equal(outcome({ body: note(), headers: { 'mcp-protocol-version': '2025-11-25' } }), 'legacy')
})

t.test('responses are nothing that a modern client sends', async (t) => {
  const headers = { 'mcp-protocol-version': '2026-07-28' }
  t.equal(outcome({ body: { jsonrpc: '2.0', id: 1, result: {} }, headers }), 'ERR_INVALID_REQUEST')
})

t.test('the order of checks', async (t) => {
  // Each request has the fault it is named after and all that come later.
  const bad = { [version]: '2030-01-01', [capabilities]: 1, [level]: 'loud' }
  const steps: [string, Json, Headers][] = [
    ['ERR_HEADER_MISMATCH', bad, { 'mcp-protocol-version': '2026-07-28' }],
    ['ERR_ENVELOPE', bad, { 'mcp-protocol-version': '2030-01-01' }],
    ['ERR_PROTOCOL_VERSION', { ...bad, [capabilities]: {} }, { 'mcp-protocol-version': '2030-01-01' }],
    ['ERR_HEADER_MISMATCH', { ...envelope, [level]: 'loud' }, { 'mcp-protocol-version': '2026-07-28' }],
    ['ERR_PARAMS', { ...envelope, [level]: 'loud' }, modern('ping')],
    ['ERR_METHOD_UNKNOWN', { ...envelope, [level]: 'info' }, modern('ping')],
  ]
  for (const [code, meta, headers] of steps) {
    t.equal(outcome({ body: request('ping', meta), headers }), code, JSON.stringify(meta))
    t.equal(refusal?.httpStatus(true), { ERR_METHOD_UNKNOWN: 404, ERR_PARAMS: 200 }[code] ?? 400)
  }
  const missing = { body: request('tools/list', envelope), headers: {} }
  t.equal(outcome(missing), 'ERR_HEADER_MISMATCH', 'no version header')
  t.same(refusal?.data, { header: 'MCP-Protocol-Version' })
  t.equal(
    outcome({ body: request('x', { ...envelope, [version]: 'x'.repeat(500) }), transport: 'websocket' }),
    'ERR_PROTOCOL_VERSION',
  )
  t.same(refusal?.data, { supported: ['2026-07-28'], requested: 'x'.repeat(100) })
})

t.test('what is wrong with an envelope is named', async (t) => {
  const faults = (meta: unknown): string[] =>
    envelopeFaults(messageOf(JSON.stringify(request('tools/list', meta))))
  t.same(faults(envelope), [])
  t.same(faults({ ...envelope, [info]: {}, [level]: 'x' }), [])
  t.same(faults({}), [version, capabilities])
  t.same(faults({ [version]: 1, [capabilities]: [], [info]: 'x', [level]: 1 }), [
    ...[version, capabilities, info, level],
  ])
  t.same(faults({ ...envelope, [info]: null, [level]: null }), [info, level])
})

t.test('a connection has one era: that of the first message that settles it', async (t) => {
  const open = (): ((body: object) => string) => {
    const connection: Connection = { era: undefined }
    return (body) => outcome({ body, transport: 'websocket', connection })
  }
  const modernList = request('tools/list', envelope)
  const discover = request('server/discover', envelope)

  const one = open()
  t.equal(one(discover), 'modern')
  t.equal(one(request('initialize')), 'legacy', 'who asked what there is may still be legacy')
  t.equal(one(request('tools/list')), 'legacy')
  t.equal(one(modernList), 'ERR_INVALID_REQUEST', 'and stays it')
  t.equal(one(discover), 'legacy', 'though it may ask again')

  const two = open()
  t.equal(two(discover), 'modern')
  t.equal(two(discover), 'modern')
  t.equal(two(modernList), 'modern')
  t.equal(two(request('tools/list')), 'ERR_ENVELOPE')
  t.equal(two(request('initialize')), 'ERR_ENVELOPE')
  t.equal(two(request('initialize', envelope)), 'ERR_METHOD_UNKNOWN')
  t.equal(two({ jsonrpc: '2.0', id: 1, result: {} }), 'ERR_INVALID_REQUEST')
  t.equal(two({ jsonrpc: '2.0', method: 'notifications/cancelled' }), 'modern')

  const three = open()
  t.equal(three(request('initialize', envelope)), 'ERR_METHOD_UNKNOWN')
  t.equal(three(request('initialize')), 'ERR_ENVELOPE', 'an enveloped initialize was modern')

  const four = open()
  t.equal(four(request('tools/list')), 'legacy', 'out of turn')
  t.equal(four(modernList), 'modern')

  const five = open()
  t.equal(
    five(request('tools/list', { [version]: '2030-01-01', [capabilities]: {} })),
    'ERR_PROTOCOL_VERSION',
  )
  t.equal(five(request('ping')), 'ERR_ENVELOPE', 'a version not served is modern, too')
  t.equal(
    outcome({
      body: modernList,
      transport: 'websocket',
      connection: { era: undefined },
      headers: modern('x'),
    }),
    'modern',
    'headers of the upgrade say nothing of its messages',
  )
})

/** What our own order of checks, or our own leniency, makes different from the SDK on purpose. */
const differences: readonly {
  readonly why: string
  readonly applies: (each: Cell) => boolean
}[] = [
  {
    why: 'a claim of whatever kind is modern, even on initialize; the SDK wants a valid one there',
    applies: ({ body, sdk }) =>
      body.method === 'initialize' && claim(body) !== undefined && sdk.startsWith('legacy'),
  },
  {
    why: 'the same, where it sees a legacy handshake under a modern header',
    applies: ({ body, sdk }) => body.method === 'initialize' && sdk.startsWith('reject 400 -32020'),
  },
  {
    why: 'the header is compared with the body before the rest of the envelope is looked at',
    applies: ({ ours, sdk }) => ours === 'reject 400 -32020' && sdk === 'reject 400 -32602',
  },
  {
    why: 'headers that the SDK misses in a later step (standard-header-validation) are missed at once',
    applies: ({ ours, sdk, headers }) =>
      ours === 'reject 400 -32020' &&
      sdk === 'modern' &&
      (headers['mcp-protocol-version'] === undefined || headers['mcp-method'] === undefined),
  },
  {
    why: 'versions that are not served are refused here, by the SDK when it dispatches',
    applies: ({ ours, sdk, body }) =>
      ours === 'reject 400 -32022' &&
      (sdk === 'modern' || sdk === 'reject 400 -32020') &&
      claim(body) !== '2026-07-28',
  },
  {
    why: 'methods that are no more are refused here, by the SDK when it dispatches',
    applies: ({ ours, sdk }) => ours === 'reject 404 -32601' && sdk === 'modern',
  },
  {
    why: 'notifications are answered with 202 whatever is wrong with them: core defines no rules for them',
    applies: ({ ours, sdk, body }) =>
      body.id === undefined && body.method !== undefined && ours === 'modern' && sdk.startsWith('reject'),
  },
  {
    why: 'a legacy version header that is not spoken here is refused here, by the SDK in its legacy transport',
    applies: ({ ours, sdk, body }) =>
      ours === 'reject 400 -32600' && sdk === 'legacy' && body.method !== undefined,
  },
  {
    why: 'a response under a header that is modern, or not spoken here, is refused; the SDK leaves it to its transport',
    applies: ({ ours, sdk, body }) =>
      ours === 'reject 400 -32600' && sdk === 'legacy' && body.method === undefined,
  },
  {
    why: 'a header that is no date names no version; the SDK compares texts, so that any word is modern',
    applies: ({ headers }) => headers['mcp-protocol-version'] === 'banana',
  },
]

interface Cell {
  readonly body: Json
  readonly headers: Headers
  readonly ours: string
  readonly sdk: string
}

const claim = (body: Json): unknown => body.params?._meta?.[version]

function ofSdk(body: object, headers: Headers): string {
  const found = classifyInboundRequest({
    httpMethod: 'POST',
    ...(headers['mcp-protocol-version'] === undefined
      ? {}
      : { protocolVersionHeader: headers['mcp-protocol-version'] }),
    ...(headers['mcp-method'] === undefined ? {} : { mcpMethodHeader: headers['mcp-method'] }),
    body,
  })
  return found.kind === 'reject' ? `reject ${found.httpStatus} ${found.code}` : found.kind
}

function ofOurs(body: object, headers: Headers): string {
  const found = outcome({ body, headers })
  if (found === 'modern' || found === 'legacy') return found
  const error = refusal as SidecarError
  return `reject ${error.httpStatus(true)} ${errorTable[error.code].rpc}`
}

t.test('the SDK says the same, but where it is meant to differ', async (t) => {
  const claims = [undefined, '2026-07-28', '2027-01-01', '2025-11-25', 7]
  const metas = claims.flatMap((each) => {
    const own = each === undefined ? {} : { [version]: each }
    return [
      own,
      { ...own, [capabilities]: {} },
      { ...own, [capabilities]: {}, [info]: { name: 'c', version: '1' } },
      { ...own, [capabilities]: [] },
      { ...own, [capabilities]: {}, [info]: 'x' },
      { ...own, [capabilities]: {}, [level]: 'info', progressToken: 1, 'x/y': 1 },
    ]
  })
  const methods = ['tools/list', 'initialize', 'ping', 'server/discover', 'example.com/x']
  const bodies: object[] = [
    ...methods.flatMap((method) => [undefined, ...metas].map((meta) => request(method, meta))),
    ...[undefined, ...metas].map((meta) => {
      const { id: _, ...rest } = request('notifications/cancelled', meta) as Record<string, unknown>
      return rest
    }),
    { jsonrpc: '2.0', id: 1, result: {} },
    { jsonrpc: '2.0', id: 1, error: { code: 1, message: 'm' } },
    { jsonrpc: '2.0', id: 1, method: 'tools/list' },
  ]
  const versions = [undefined, '2026-07-28', '2027-01-01', '2025-11-25', '2025-03-26', '1999-01-01', 'banana']
  const used = new Set<string>()
  let cells = 0
  for (const body of bodies as Json[]) {
    for (const header of versions) {
      for (const method of [undefined, body.method, 'other']) {
        const headers: Headers = {
          ...(header === undefined ? {} : { 'mcp-protocol-version': header }),
          ...(method === undefined ? {} : { 'mcp-method': method }),
        }
        const cell = { body, headers, ours: ofOurs(body, headers), sdk: ofSdk(body, headers) }
        cells++
        if (cell.ours === cell.sdk) continue
        const found = differences.find(({ applies }) => applies(cell))
        if (found === undefined) {
          t.fail(`${cell.ours}, by the SDK ${cell.sdk}: ${JSON.stringify({ body, headers })}`)
          return
        }
        used.add(found.why)
      }
    }
  }
  t.ok(cells > 3000, String(cells))
  for (const { why } of differences) t.ok(used.has(why), why)
})
