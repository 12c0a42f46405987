import fc from 'fast-check'
import t from 'tap'
import { folded, privately, settled, withheld } from '../../src/authz/answer.ts'
import { readMessages } from '../../src/core/jsonrpc.ts'
import { messageOf, trustedResult } from '../../src/core/local.ts'
import { written } from '../support/modern-calls.ts'
import { holds } from '../support/property.ts'

const answer = (result: string): string => `{"jsonrpc":"2.0","id":1,"result":${result}}`
const made = (result: string): string => written(privately(messageOf(answer(result))))

t.test('what was public is private, and nothing else is touched', async (t) => {
  t.equal(made('{ "cacheScope" : "public" ,"ttlMs":1e3}'), answer('{ "cacheScope" : "private" ,"ttlMs":1e3}'))
  t.equal(made('{"c\\u0061cheScope":"public"}'), answer('{"c\\u0061cheScope":"private"}'))
  for (const odd of ['"PUBLIC"', 'null', '["public"]', '"privat\\u0065"', '{"a":"private"}']) {
    t.equal(made(`{"cacheScope":${odd}}`), answer('{"cacheScope":"private"}'), odd)
  }
  for (const same of [
    '{"cacheScope":"private"}',
    '{"contents":[{"cacheScope":"public"}]}',
    '{"_meta":{"cacheScope":"public"}}',
    '[]',
    'null',
  ]) {
    t.equal(made(same), answer(same), same)
  }
})

t.test('a result that has nothing to be changed is not read again', async (t) => {
  const message = messageOf(answer('{"contents":[]}'))
  t.equal(privately(message), message)
  const error = messageOf('{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"","cacheScope":"public"}}')
  t.equal(privately(error), error)
})

t.test('a result of which nothing was located is looked into', async (t) => {
  const trusted = trustedResult('1', '{"cacheScope":"public"}')
  t.equal(trusted.resultSpans, undefined)
  t.equal(written(privately(trusted)), answer('{"cacheScope":"private"}'))
})

t.test('what another filter has put in counts, and what it has taken out does not', async (t) => {
  const message = messageOf(answer('{"cacheScope":"public","x":1}'))
  const at = message.bytes.indexOf('"cacheScope"')
  const removed = message.edited({ start: at, end: message.bytes.indexOf('"x"'), text: '' })
  t.equal(written(privately(removed)), answer('{"x":1}'))
  const replaced = message.edited({
    start: at,
    end: message.bytes.indexOf(',"x"'),
    text: '"cacheScope":"all"',
  })
  t.equal(written(privately(replaced)), answer('{"cacheScope":"private","x":1}'))
})

t.test('an edited message is read as it would be written', async (t) => {
  const message = messageOf(answer('{"a":1}'))
  t.equal(settled(message), message)
  const at = message.bytes.indexOf('{"a"')
  const edited = settled(message.edited({ start: at, end: at + 7, text: '{"cacheScope":"\xc3\xa9"}' }))
  t.same([edited.edits.length, edited.resultString('cacheScope')], [0, 'é'])
})

t.test('in place of an answer that cannot be judged stands an error under its id', async (t) => {
  const text = written(
    withheld(messageOf('{"jsonrpc":"2.0","id":"\\u0061","result":{"tools":"secret"}}'), 'r-1'),
  )
  t.match(JSON.parse(text), {
    id: 'a',
    error: { code: -32603, data: { reason: 'ERR_UPSTREAM_MESSAGE', requestId: 'r-1' } },
  })
  t.notMatch(text, 'secret')
  t.ok(readMessages(Buffer.from(text)).messages[0]?.isError)
})

t.test('names are folded as parsers fold them that ignore letter case', async (t) => {
  t.equal(folded('TOOLS'), 'tools')
  t.equal(folded('tool\u017f'), 'tools')
  t.equal(folded('tools\0x'), 'tools')
  t.equal(folded('tool'), 'tool')
  holds(
    t,
    fc.property(fc.string(), (text) => folded(text) === folded(folded(text))),
  )
})
