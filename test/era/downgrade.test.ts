import fc from 'fast-check'
import t from 'tap'
import { metaKey } from '../../src/core/envelope.ts'
import { elements, member, removal } from '../../src/core/json.ts'
import { type Message, readMessages, type Span } from '../../src/core/jsonrpc.ts'
import { messageOf } from '../../src/core/local.ts'
import { wireBuffers } from '../../src/core/wire.ts'
import { errorCode, legacyError, legacyNotification, legacyResult } from '../../src/era/downgrade.ts'
import { memberOf, objectOf } from '../support/messages.ts'
import { holds, jsonText } from '../support/property.ts'

const written = (message: Message): string => Buffer.concat(wireBuffers(message.wire)).toString()
const result = (text: string): Message => messageOf(`{"jsonrpc":"2.0","id":1,"result":${text}}`)
const after = (text: string, method = 'tools/call'): string =>
  written(legacyResult(result(text), method)).slice('{"jsonrpc":"2.0","id":1,"result":'.length, -1)

const info = `"${metaKey('serverInfo')}":{"name":"s","version":"1"}`

t.test('what only modern clients are told is taken out', async (t) => {
  t.equal(after('{"resultType":"complete"}'), '{}')
  t.equal(after('{}'), '{}')
  t.equal(after('{"resultType":"complete","x":1.0,"ttlMs":0,"cacheScope":"public"}'), '{"x":1.0}')
  t.equal(after(`{"x":1,"_meta":{${info}}}`), '{"x":1}')
  t.equal(after(`{"x":1,"_meta":{${info},"a/b":1e2}}`), '{"x":1,"_meta":{"a/b":1e2}}')
  t.equal(after('{"x":1,"_meta":{}}'), '{"x":1,"_meta":{}}', 'one that was empty is left alone')
  t.equal(after('{"ttlMs":1,"resultType":"complete"}', 'a/b'), '{"ttlMs":1}', 'an extension may mean its own')
})

t.test('structured content that is no object becomes text', async (t) => {
  const said = (value: string): string => JSON.stringify({ type: 'text', text: value })
  t.equal(after('{"content":[],"structuredContent":[1.0, 2]}'), `{"content":[${said('[1.0, 2]')}]}`)
  t.equal(
    after('{"structuredContent":"é","content":[{"type":"image"}]}'),
    `{"content":[{"type":"image"},${said('"é"')}]}`,
  )
  t.equal(after('{"structuredContent":null}'), `{"content":[${said('null')}]}`)
  t.equal(after('{"structuredContent":7,"content":5}'), '{"content":5}')
  const twice = `{"content":[${said('[1,2]')}],"structuredContent":[1, 2]}`
  t.equal(after(twice), `{"content":[${said('[1,2]')}]}`, 'not if the server has said so itself')
  const object = '{"content":[],"structuredContent":{"a":[1.0]}}'
  t.equal(after(object), object)
  t.equal(after('{"structuredContent":[]}', 'prompts/get'), '{"structuredContent":[]}', 'of tools alone')
})

t.test('tools without what old schemas do not allow', async (t) => {
  const tool = (more: string): string => `{"name":"n","inputSchema":{"x-mcp-header":"H"}${more}}`
  const list = (...tools: string[]): string => `{"tools":[${tools.join(' , ')}]}`
  t.equal(
    after(
      `{"resultType":"complete",${list(
        tool(',"outputSchema":{"type":"array"}'),
        tool(',"outputSchema":{"type":"object","x":1.0}'),
        tool(',"outputSchema":{"oneOf":[]},"y":1'),
        tool(',"outputSchema":true,"execution":{"taskSupport":"required"}'),
        '7',
      ).slice(1)}`,
      'tools/list',
    ),
    list(tool(''), tool(',"outputSchema":{"type":"object","x":1.0}'), tool(',"y":1'), tool(''), '7'),
  )
  t.equal(after('{"tools":7}', 'tools/list'), '{"tools":7}')
})

t.test('a list can be filtered afterwards', async (t) => {
  const two =
    '{"resultType":"complete","tools":[{"name":"a","outputSchema":{}},{"name":"b","outputSchema":{}}]}'
  const message = legacyResult(result(two), 'tools/list')
  const tools = elements(message.bytes, member(message.bytes, message.result as Span, 'tools') as Span)
  const filtered = message.edited(...removal(tools, (each) => each === tools[0]))
  t.equal(written(filtered), '{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"b"}]}}')
})

t.test('a missing resource has the code it used to have', async (t) => {
  const error = (code: string, message: string, data = ''): Message =>
    messageOf(`{"jsonrpc":"2.0","id":1,"error":{"code":${code},"message":"${message}"${data}}}`)
  const code = (message: Message, method = 'resources/read'): number | undefined =>
    errorCode(messageOf(written(legacyError(message, method))))
  t.equal(code(error('-32602', 'x', ',"data":{"uri":"a:b"}')), -32002)
  t.equal(code(error('-32602.0', 'Resource not found: a:b')), -32002)
  t.equal(code(error('-32602', 'Invalid params', ',"data":{"uri":1}')), -32602)
  t.equal(code(error('-32602', 'Invalid cursor')), -32602)
  t.equal(code(error('-32603', 'not found', ',"data":{"uri":"a:b"}')), -32603)
  t.equal(code(error('-32602', 'x', ',"data":{"uri":"a:b"}'), 'tools/call'), -32602)
  const odd = messageOf('{"jsonrpc":"2.0","id":1,"error":7}')
  t.equal(legacyError(odd, 'resources/read'), odd)
})

t.test('a notification loses the mark of its subscription', async (t) => {
  const mark = `"${metaKey('subscriptionId')}":1`
  const cut = (params: string): string =>
    written(legacyNotification(messageOf(`{"jsonrpc":"2.0","method":"x","params":${params}}`))).slice(
      '{"jsonrpc":"2.0","method":"x","params":'.length,
      -1,
    )
  t.equal(cut(`{"_meta":{${mark}}}`), '{}')
  t.equal(cut(`{"uri":"a:b","_meta":{${mark}}}`), '{"uri":"a:b"}')
  t.equal(cut(`{"_meta":{"a/b":1.0,${mark}},"uri":"a:b"}`), '{"_meta":{"a/b":1.0},"uri":"a:b"}')
  t.equal(cut('{"_meta":{}}'), '{"_meta":{}}')
  const bare = messageOf('{"jsonrpc":"2.0","method":"x"}')
  t.equal(legacyNotification(bare), bare)
})

t.test('any result keeps what is not modern', async (t) => {
  const text = objectOf(
    memberOf('resultType', fc.constant('"complete"')),
    memberOf('ttlMs', jsonText),
    memberOf('x', jsonText),
    memberOf('_meta', objectOf(memberOf(metaKey('serverInfo'), jsonText), memberOf('v/x', jsonText))),
  )
  const rest = (object: object, ...leaveOut: string[]): string =>
    JSON.stringify(Object.entries(object).filter(([key]) => !leaveOut.includes(key)))
  holds(
    t,
    fc.property(
      text,
      fc.constantFrom('tools/call', 'tools/list', 'prompts/get', 'resources/read'),
      (given, method) => {
        const message = readMessages(Buffer.from(`{"jsonrpc":"2.0","id":1,"result":${given}}`))
          .messages[0] as Message
        const before = JSON.parse(given) as { _meta: object }
        const { result: now } = JSON.parse(written(legacyResult(message, method))) as {
          result: { _meta: object }
        }
        return (
          rest(before, 'resultType', 'ttlMs', 'cacheScope', '_meta') === rest(now, '_meta') &&
          rest(before._meta, metaKey('serverInfo')) === rest(now._meta)
        )
      },
    ),
    1000,
  )
})
