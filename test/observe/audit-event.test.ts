import t from 'tap'
import { type ErrorOptions, SidecarError } from '../../src/core/errors.ts'
import { readMessages } from '../../src/core/jsonrpc.ts'
import type { Message } from '../../src/core/message.ts'
import { operationOf } from '../../src/core/operation.ts'
import type { AuditPolicy } from '../../src/core/policy.ts'
import { anonymous } from '../../src/core/types.ts'
import { linkBytes } from '../../src/observe/audit-chain.ts'
import { AuditEvents, type AuditedRequest, type AuditInput } from '../../src/observe/audit-event.ts'

const policy: AuditPolicy = {
  destination: 'stdout',
  eventTypes: [],
  excludeEventTypes: [],
  includeRequestData: false,
  includeResponseData: false,
  maxDataBytes: 100,
  redact: ['iban'],
  onFailure: 'block',
  component: 'github',
}
const place = { listener: 'mcp', pod: 'p-1', namespace: 'team-a', node: undefined }
const epoch = Date.UTC(2026, 0, 2, 3, 4, 5, 678)

const request: AuditedRequest = {
  requestId: 'r-1',
  transport: 'streamable-http',
  remoteAddress: '10.0.0.7',
  clientAddress: '10.0.0.7',
  httpMethod: 'POST',
  path: '/mcp',
  headers: { 'user-agent': 'test/1' },
}

function message(method: string, params?: object, id: unknown = 7): Message {
  const text = JSON.stringify({ jsonrpc: '2.0', id, method, params })
  return readMessages(Buffer.from(text)).messages[0] as Message
}

function text(input: Partial<AuditInput>, more: Partial<AuditPolicy> = {}): string {
  const events = new AuditEvents({ ...policy, ...more }, place, () => 'sha256:c0ffee')
  return `${events.text({ type: 'mcp_tool_call', outcome: 'success', ...input }, epoch)}}`
}

type Event = Record<string, Record<string, unknown>>
const event = (input: Partial<AuditInput>, more: Partial<AuditPolicy> = {}): Event =>
  JSON.parse(text(input, more)) as Event
const refusal = (code: SidecarError['code'], options?: ErrorOptions): SidecarError =>
  new SidecarError(code, options)

const call = message('tools/call', { name: 'search', arguments: { q: 'the question', iban: 'DE00', n: 1 } })

t.test('a call that was let in, with everything there is to know', async (t) => {
  const { metadata, ...rest } = event({
    request,
    principal: { ...anonymous, id: 'iss|alice', subject: 'alice', method: 'jwt', groups: ['dev'] },
    message: call,
    operation: operationOf(call),
    permit: { verdicts: [{ layer: 'cedar', ids: ['p1', 'p2'] }] },
    sessionId: 'the session',
    clientInfo: JSON.stringify({ name: 'claude', version: '1.0' }),
    status: 200,
    durationMs: 12.3456789,
    responseBytes: 512,
    details: { note: 'x', no: undefined, n: 1, yes: true, odd: Number.NaN },
    arguments: () => t.fail('nobody wants them') as never,
    answer: () => t.fail('nobody wants it') as never,
  })
  t.match(metadata, { auditId: /^[\da-f]{8}-[\da-f]{4}-4/ })
  t.strictSame((metadata as Event)['extra'], {
    duration_ms: 12.346,
    transport: 'streamable-http',
    response_size_bytes: 512,
  })
  t.strictSame(rest, {
    type: 'mcp_tool_call',
    loggedAt: '2026-01-02T03:04:05.678Z',
    component: 'github',
    place: { listener: 'mcp', namespace: 'team-a', pod: 'p-1' },
    target: { endpoint: '/mcp', http_method: 'POST', method: 'tools/call', type: 'tool', name: 'search' },
    source: { type: 'network', value: '10.0.0.7', extra: { request_id: 'r-1', user_agent: 'test/1' } },
    outcome: 'success',
    result: { status: 200 },
    subjects: { user: 'alice', user_id: 'iss|alice', client_name: 'claude', client_version: '1.0' },
    auth: { methods: ['jwt'], groups: ['dev'] },
    decision: { effect: 'allow', layer: 'cedar', policies: ['p1', 'p2'], config: 'sha256:c0ffee' },
    session: 'sha256:2c48580eec4c',
    jsonrpc_id: '7',
    details: { note: 'x', n: 1, yes: true, odd: null },
  })
})

t.test('a refusal names the rule, the check that failed, and what the client was told', async (t) => {
  const verdict = { layer: 'MCPRoute team-a/x', ids: ['rule-2'] }
  const error = refusal('ERR_DENIED', { verdict, detail: 'no rule permits tools/call of search' })
  const permit = { verdicts: [{ layer: 'other', ids: [] }] }
  t.match(event({ request, message: call, operation: operationOf(call), outcome: 'denied', error, permit }), {
    outcome: 'denied',
    result: {
      status: 403,
      code: 'ERR_DENIED',
      jsonrpc_code: 403,
      detail: 'no rule permits tools/call of search',
    },
    decision: { effect: 'deny', layer: 'MCPRoute team-a/x', policies: ['rule-2'] },
  })
  const errors = ['p1: type error', 'b', 'c', 'd', 'e']
  const erring = refusal('ERR_DENIED', { verdict: { layer: 'cedar', ids: [], errors } })
  const { decision } = event({ request, message: call, outcome: 'denied', error: erring })
  t.match(decision, { effect: 'deny', layer: 'cedar', errors: errors.slice(0, 4) })
})

t.test('a refusal before anything was read says what is known', async (t) => {
  const error = refusal('ERR_AUTH_INVALID', { detail: 'jwt: the token has expired' })
  const refused = event({ type: 'http_request', outcome: 'denied', request, error })
  t.match(refused, {
    target: { endpoint: '/mcp', http_method: 'POST' },
    result: { status: 401, code: 'ERR_AUTH_INVALID', detail: 'jwt: the token has expired' },
    decision: { effect: 'deny', config: 'sha256:c0ffee' },
  })
  t.strictSame(refused['subjects'], {})
  for (const absent of ['auth', 'session', 'jsonrpc_id', 'trace_id', 'data', 'details'])
    t.notOk(absent in refused, absent)
  const parse = event({ type: 'http_request', outcome: 'failure', request, error: refusal('ERR_PARSE') })
  t.notOk('decision' in parse, 'nobody decided')
})

t.test('what is let in and then fails keeps its permit, and tells its JSON-RPC code', async (t) => {
  const permit = { verdicts: [{ layer: 'none', ids: [] }] }
  const failed = event({ request, message: call, outcome: 'timeout', error: refusal('ERR_TIMEOUT'), permit })
  t.match(failed, {
    decision: { effect: 'allow', layer: 'none', policies: [] },
    result: { status: 200, code: 'ERR_TIMEOUT', jsonrpc_code: -32603 },
  })
  t.strictSame(event({ outcome: 'failure', rpcCode: -32602 })['result'], { jsonrpc_code: -32602 })
  const socket: AuditedRequest = { ...request, transport: 'websocket' }
  const status = event({ request: socket, outcome: 'error', error: refusal('ERR_INTERNAL') })['result']
  t.notOk('status' in (status as object), 'a WebSocket had its status long before')
})

t.test('where several layers permitted, all are named', async (t) => {
  const verdicts = [
    { layer: 'gateway', ids: ['a'] },
    { layer: 'cedar', ids: ['b', 'c'] },
  ]
  t.strictSame(event({ permit: { verdicts } })['decision'], {
    effect: 'allow',
    layer: 'gateway,cedar',
    policies: ['a', 'b', 'c'],
    verdicts: [
      { layer: 'gateway', policies: ['a'] },
      { layer: 'cedar', policies: ['b', 'c'] },
    ],
    config: 'sha256:c0ffee',
  })
  t.strictSame(event({ permit: { verdicts: [] } })['decision'], { effect: 'allow', config: 'sha256:c0ffee' })
})

t.test('without a request it comes from here', async (t) => {
  const exit = event({
    type: 'process_exit',
    outcome: 'error',
    details: { code: 1, reason: 'jwt: eyJhbGciOiJIUzI1NiJ9 is bad' },
  })
  t.match(exit, {
    source: { type: 'local', value: 'mcp-sidecar' },
    target: {},
    details: { code: 1, reason: 'jwt: [redacted] is bad' },
  })
})

t.test('resources are named by their URI, without the credentials in it', async (t) => {
  const named = (params: object, method = 'resources/read'): unknown => {
    const read = message(method, params)
    return event({ message: read, operation: operationOf(read) })['target']
  }
  t.strictSame(named({ uri: 'postgres://u:pw@db/t?access_token=abc&x=1' }), {
    method: 'resources/read',
    type: 'resource',
    name: 'postgres://u:[redacted]@db/t?access_token=[redacted]&x=1',
  })
  t.match(named({ notifications: { resourceSubscriptions: ['a:1', 'a:2'] } }, 'subscriptions/listen'), {
    name: 'a:1',
    names: ['a:1', 'a:2'],
  })
})

t.test('clients are named as they introduce themselves, in whichever era', async (t) => {
  const named = (...input: Parameters<typeof message>): unknown =>
    event({ message: message(...input) })['subjects']
  const clientInfo = { name: 'a\u202eb', version: '2', title: 'x' }
  const modern = { _meta: { 'io.modelcontextprotocol/clientInfo': clientInfo } }
  const expected = { client_name: 'a\u202eb', client_version: '2' }
  t.strictSame(named('tools/list', modern), expected)
  t.strictSame(named('initialize', { clientInfo }), expected)
  t.strictSame(named('tools/list', { clientInfo }), {})
  t.strictSame(named('initialize', { clientInfo: null }), {})
  t.strictSame(named('initialize', { clientInfo: { name: 7, version: ['x'] } }), {})
  t.strictSame(
    named('initialize', { clientInfo: { name: 'x', pad: 'y'.repeat(5000) } }),
    {},
    'not read at any length',
  )
  const own = event({ message: message('initialize', { clientInfo }), clientInfo: '{"name":"earlier"}' })[
    'subjects'
  ]
  t.strictSame(own, expected)
})

t.test('neither arguments nor results are in it, unless they are asked for', async (t) => {
  const data = (): Buffer => Buffer.from('{"q":"the question","IBAN":"DE00","password":"p"}')
  const both = { arguments: data, answer: () => Buffer.from(`{"text":"${'x'.repeat(200)}"}`) }
  t.notMatch(text({ ...both, message: call }), /question|DE00|"data"|args/)
  const asked = event(both, { includeRequestData: true, includeResponseData: true })
  t.strictSame(asked['data'], {
    request: '{"q":"the question","IBAN":"[redacted]","password":"[redacted]"}',
    response: `{"text":"${'x'.repeat(86)}\u2026"}`,
    response_truncated: true,
    response_bytes: 211,
  })
  t.strictSame(Object.keys(event(both, { includeResponseData: true })['data'] as object), [
    ...['response', 'response_truncated', 'response_bytes'],
  ])
  const nothing = { arguments: () => undefined, answer: () => undefined }
  t.notOk('data' in event(nothing, { includeRequestData: true, includeResponseData: true }))
})

t.test('the hash of arguments is the same for equal ones, and says nothing of what is hidden', async (t) => {
  const hash = (json: string): unknown =>
    event({ arguments: () => Buffer.from(json) }, { includeRequestData: true })['args_sha256']
  t.match(hash('{"a":1,"b":2}'), /^[\da-f]{64}$/)
  t.equal(hash('{"a":1,"b":2}'), hash(' {"b" : 2.0e0, "a":1}'.replace('2.0e0', '2')))
  t.not(hash('{"a":1,"b":2}'), hash('{"a":1,"b":3}'))
  t.equal(hash('{"a":1,"password":"x"}'), hash('{"a":1,"password":"y"}'))
  t.equal(hash('no JSON'), undefined)
})

t.test('whatever peers choose, a line is short, and printable ASCII', async (t) => {
  const long = '\u009b\u202e"\\\n'.repeat(100_000)
  const hostile = message(
    long,
    { name: long, _meta: { 'io.modelcontextprotocol/clientInfo': { name: long } } },
    'x'.repeat(900),
  )
  const line = text({
    request: {
      ...request,
      requestId: long,
      path: `/${long}`,
      httpMethod: long,
      headers: { 'user-agent': long },
    },
    message: hostile,
    operation: {
      ...operationOf(call),
      targets: Array.from({ length: 100 }, () => ({ type: 'tool', name: long })),
    },
    error: refusal('ERR_DENIED', {
      detail: long,
      verdict: { layer: long, ids: Array.from({ length: 99 }, () => long) },
    }),
    permit: { verdicts: Array.from({ length: 99 }, () => ({ layer: long, ids: [] })) },
    sessionId: long,
    clientInfo: JSON.stringify({ name: long, version: long }),
    details: Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`${i}`, long])),
  })
  t.match(line, /^[ -~]+$/)
  t.ok(line.length < 300_000, `${line.length}`)
  t.equal(Object.keys(JSON.parse(line).details).length, 32)
})

t.test('a path that holds a token shows it to nobody', async (t) => {
  const path = '/mcp/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln/x'
  t.match(event({ request: { ...request, path } }), { target: { endpoint: '/mcp/[redacted]/x' } })
})

t.test('events of the log itself', async (t) => {
  const events = new AuditEvents(policy, place, () => '')
  const line = JSON.parse(`${events.chainText('audit_resumed', epoch, 'error', { lost: 3 })}}`) as Event
  t.match(line, {
    type: 'audit_resumed',
    outcome: 'error',
    details: { lost: 3 },
    subjects: {},
    component: 'github',
  })
})

t.test('the line of a stranger is short, whatever was sent', async (t) => {
  const address = '2001:0db8:1111:2222:3333:4444:5555:6666'
  for (const [what, odd] of Object.entries({
    'plain letters': 'x',
    'what is escaped': '\u00ff',
    quotes: '"',
    'what grows when it is hidden': 'key=1 ',
  })) {
    const long = odd.repeat(3000)
    const headers = {
      'user-agent': long,
      'x-forwarded-for': Array(20).fill(long).join(','),
      traceparent: `00-${'1'.repeat(32)}-${'2'.repeat(16)}-01`,
      'mcp-session-id': long,
    }
    const events = new AuditEvents(policy, place, () => `sha256:${'c'.repeat(64)}`)
    const input: AuditInput = {
      type: 'http_request',
      outcome: 'denied',
      request: {
        ...{ requestId: '3f0e4a52-6a0b-4c0e-9f0b-8a5f3c1d2e4b', transport: 'streamable-http' },
        ...{ remoteAddress: address, clientAddress: address.replace('1111', '7777') },
        ...{ httpMethod: 'UNSUBSCRIBE', path: `/${long}`, headers },
      },
      error: refusal('ERR_NOT_FOUND', { detail: long }),
    }
    const line = `${events.text(input, epoch)}}`
    t.ok(JSON.parse(line), what)
    t.ok(line.length + linkBytes < 2048, `${what}: ${line.length}`)
  }
})
