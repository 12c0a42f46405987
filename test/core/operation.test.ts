import t from 'tap'
import { messageOf } from '../../src/core/local.ts'
import { operationOf } from '../../src/core/operation.ts'

const request = (method: string, params: object = {}) =>
  operationOf(messageOf(JSON.stringify({ jsonrpc: '2.0', id: 1, method, params })))

t.test('what a request is about', async (t) => {
  const use = (action: string, type: string, ...names: string[]) => ({
    kind: 'use',
    action,
    targets: names.map((name) => ({ type, name })),
    list: undefined,
  })
  const plain = (kind: string, list?: string) => ({ kind, action: undefined, targets: [], list })
  t.same(request('tools/call', { name: 'search' }), use('tools/call', 'tool', 'search'))
  t.same(request('prompts/get', { name: 'p' }), use('prompts/get', 'prompt', 'p'))
  for (const method of ['resources/read', 'resources/subscribe', 'resources/unsubscribe'])
    t.same(request(method, { uri: 'file:///a' }), use('resources/read', 'resource', 'file:///a'), method)
  t.same(
    request('completion/complete', { ref: { type: 'ref/prompt', name: 'p' } }),
    use('prompts/get', 'prompt', 'p'),
  )
  t.same(
    request('completion/complete', { ref: { type: 'ref/resource', uri: 'a://{x}' } }),
    use('resources/read', 'resource', 'a://{x}'),
  )
  t.same(
    request('subscriptions/listen', { notifications: { resourceSubscriptions: ['a://1', 'a://2'] } }),
    use('resources/read', 'resource', 'a://1', 'a://2'),
  )
  t.same(request('subscriptions/listen', { notifications: { toolsListChanged: true } }), plain('free'))
  t.same(request('tools/list'), plain('list', 'tools'))
  t.same(request('resources/templates/list'), plain('list', 'resourceTemplates'))
  for (const method of ['initialize', 'ping', 'server/discover', 'logging/setLevel'])
    t.same(request(method), plain('free'), method)
  for (const method of ['tasks/get', 'tasks/cancel', 'tasks/update', 'tasks/list', 'tasks/result'])
    t.same(request(method), plain('task'), method)
  t.same(request('x/unheard-of'), plain('unknown'))
})

t.test('without a readable name there is an operation and no target', async (t) => {
  t.match(request('tools/call'), { kind: 'use', targets: [] })
  t.match(request('tools/call', { name: 7 }), { kind: 'use', targets: [] })
  t.match(request('completion/complete', { ref: { type: 'ref/other', name: 'p' } }), {
    kind: 'use',
    targets: [],
  })
  t.match(request('completion/complete'), { kind: 'use', targets: [] })
})

t.test('notifications and answers touch no object', async (t) => {
  const of = (value: object) => operationOf(messageOf(JSON.stringify({ jsonrpc: '2.0', ...value }))).kind
  t.equal(of({ method: 'notifications/cancelled', params: { requestId: 1 } }), 'free')
  t.equal(of({ id: 1, result: {} }), 'free')
})

const refused = { code: 'ERR_PARAMS', message: String }

t.test('an object that readers may read differently is refused', async (t) => {
  for (const params of [
    '{"ref":{"type":"ref/prompt","name":"a","name":"b"}}',
    '{"ref":{"type":"ref/prompt","type":"ref/resource","name":"a","uri":"b"}}',
    '{"ref":{"type":"ref/prompt","name":"a"},"ref":{"type":"ref/prompt","name":"b"}}',
    '{"ref":{"type":"ref/prompt","name":"a","Name":"b"}}',
    '{"ref":{"type":"ref/prompt","name":"a"},"REF":{"type":"ref/prompt","name":"b"}}',
    '{"Ref":{"type":"ref/prompt","name":"a"}}',
  ]) {
    const message = messageOf(`{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":${params}}`)
    t.throws(() => operationOf(message), refused, params)
  }
  for (const notifications of [
    '{"resourceSubscriptions":["a"],"resourceSubscriptions":["b"]}',
    '{"ResourceSubscriptions":["a"]}',
    '{"re\u017fourceSubscriptions":["a"]}',
    '{"resourceSubscriptions\\u0000":["a"]}',
    '{"resourceSubscriptions":"a"}',
    '{"resourceSubscriptions":{"0":"a","length":1}}',
    '{"resourceSubscriptions":["a",["b"]]}',
    '{"resourceSubscriptions":[7]}',
  ]) {
    const params = `{"notifications":${notifications}}`
    const message = messageOf(`{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":${params}}`)
    t.throws(() => operationOf(message), refused, notifications)
  }
})

t.test('a name that some readers end at a NUL is refused', async (t) => {
  const spoken = (method: string, params: object) =>
    messageOf(JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }))
  for (const message of [
    spoken('tools/call', { name: 'delete\0' }),
    spoken('prompts/get', { name: 'p\0q' }),
    spoken('completion/complete', { ref: { type: 'ref/prompt', name: 'p\0' } }),
  ])
    t.throws(() => operationOf(message), refused, message.method)
})

t.test('a request without an id is none, and no notification either', async (t) => {
  for (const method of ['tools/call', 'initialize', 'tasks/cancel', 'completion/complete']) {
    const message = messageOf(JSON.stringify({ jsonrpc: '2.0', method, params: { name: 'x' } }))
    t.throws(() => operationOf(message), { code: 'ERR_INVALID_REQUEST' }, method)
  }
  const own = messageOf('{"jsonrpc":"2.0","method":"x/unheard-of"}')
  t.equal(operationOf(own).kind, 'free', 'what nobody here knows may be a notification')
})
