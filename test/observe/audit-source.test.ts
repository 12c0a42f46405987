import t from 'tap'
import { readMessages } from '../../src/core/jsonrpc.ts'
import type { Message } from '../../src/core/message.ts'
import { Sources, traceText } from '../../src/observe/audit-source.ts'
import { redactor } from '../../src/observe/redact.ts'

type Headers = Record<string, string | string[]>

function source(headers: Headers, addresses: { remoteAddress?: string; clientAddress?: string } = {}) {
  const request = {
    requestId: 'r',
    remoteAddress: '10.0.0.7',
    clientAddress: '10.0.0.7',
    ...addresses,
    headers,
  }
  const text = new Sources(redactor([])).textOf(request as Parameters<Sources['textOf']>[0])
  return (JSON.parse(`{${text.slice(1)}}`) as { source: Record<string, unknown> }).source
}

t.test('it says where a request came from, and which way it says it took', async (t) => {
  t.strictSame(source({}), { type: 'network', value: '10.0.0.7', extra: { request_id: 'r' } })
  t.strictSame(
    source(
      { 'user-agent': 'curl/8\u0007', 'x-forwarded-for': '1.2.3.4, 10.0.0.9' },
      { clientAddress: '1.2.3.4' },
    ),
    {
      type: 'network',
      value: '1.2.3.4',
      extra: {
        request_id: 'r',
        user_agent: 'curl/8\u0007',
        peer: '10.0.0.7',
        forwarded: ['1.2.3.4', '10.0.0.9'],
      },
    },
  )
  t.match(source({ forwarded: 'for=1.2.3.4', 'x-forwarded-for': 'x' }), {
    extra: { forwarded: ['for=1.2.3.4'] },
  })
})

t.test('nothing in it is long, or a credential', async (t) => {
  const long = JSON.stringify(
    source({ 'user-agent': 'x'.repeat(9000), 'x-forwarded-for': '1.2.3.4,'.repeat(2000) }),
  )
  t.ok(long.length < 1500, `${long.length}`)
  t.notMatch(JSON.stringify(source({ 'user-agent': 'x Bearer abc.def' })), 'abc')
})

t.test('of the way it took the nearest hops are kept, and each is short however it is escaped', async (t) => {
  const forwarded = (chain: string): unknown =>
    (source({ 'x-forwarded-for': chain })['extra'] as Record<string, unknown>)['forwarded']
  t.strictSame(forwarded('a, b, c'), ['a', 'b', 'c'])
  t.strictSame(forwarded('a, b, c, d'), ['\u2026', 'b', 'c', 'd'])
  t.strictSame(forwarded(''), [''])
  t.strictSame(forwarded(',,'), ['', '', ''])
  const hostile = Array(10).fill('\u00ff'.repeat(200)).join(',')
  const text = new Sources(redactor([])).textOf({
    ...{ requestId: 'r', remoteAddress: '10.0.0.7', clientAddress: '10.0.0.8' },
    headers: { 'user-agent': '\u00ff'.repeat(9000), 'x-forwarded-for': hostile },
  })
  t.ok(text.length < 550, `${text.length}`)
})

const header = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
const inMeta = '00-11111111111111111111111111111111-2222222222222222-01'
const call = (meta: object): Message =>
  readMessages(
    Buffer.from(JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/list', params: { _meta: meta } })),
  ).messages[0] as Message

t.test('the trace is that of the message, else that of the request', async (t) => {
  const found = (message: Message | undefined, headers: Headers): string =>
    traceText(message, headers as Parameters<typeof traceText>[1])
  const ofHeader = ',"trace_id":"0af7651916cd43dd8448eb211c80319c","span_id":"b7ad6b7169203331"'
  const ofMeta = `,"trace_id":"${'1'.repeat(32)}","span_id":"${'2'.repeat(16)}"`
  t.equal(found(undefined, { traceparent: header }), ofHeader)
  t.equal(found(call({ traceparent: inMeta }), { traceparent: header }), ofMeta)
  t.equal(found(call({ a: 1 }), { traceparent: header }), ofHeader)
  t.equal(found(call({ traceparent: 'nonsense' }), { traceparent: header }), ofHeader)
  t.equal(found(call({ pad: 'x'.repeat(9000), traceparent: inMeta }), {}), '', 'not looked for for ever')
  for (const odd of ['', 'x', header.toUpperCase(), `"}${header}`])
    t.equal(found(undefined, { traceparent: odd }), '', odd)
  t.equal(traceText(undefined, undefined), '')
})
