import t from 'tap'
import { AskedArguments, maxArguments } from '../../src/authz/cedar-arguments.ts'
import type { Json } from '../../src/authz/cedar-ast.ts'
import { readMessages } from '../../src/core/jsonrpc.ts'
import { allows, judge, question } from '../support/cedar.ts'

/** What is put for arguments, or why they cannot be judged. */
function read(
  text: string | undefined,
  asked: readonly string[],
  all = false,
): Record<string, Json> | string {
  const found: Record<string, Json> = {}
  const { message } = question(text === undefined ? {} : { arguments: text })
  const problem = new AskedArguments(asked, all).read(message, false, (attribute, value) => {
    found[attribute] = value
  })
  return problem ?? found
}

const never = (attribute: string): void => {
  throw new Error(`${attribute} was put`)
}

t.test('arguments that are asked for become attributes', async (t) => {
  const text = '{"s":"a\\n","n":3,"d":0.5,"t":true,"f":false,"o":{},"l":[1],"z":null,"more":1}'
  const asked = [
    'arg_s',
    'arg_n',
    'arg_d',
    'arg_t',
    'arg_f',
    'arg_o_present',
    'arg_l_present',
    'arg_z_present',
  ]
  t.same(read(text, [...asked, 'arg_none', 'claim_x']), {
    ...{
      arg_s: 'a\n',
      arg_n: 3,
      arg_d: { __extn: { fn: 'decimal', arg: '0.5' } },
      arg_t: true,
      arg_f: false,
    },
    ...{ arg_o_present: true, arg_l_present: true, arg_z_present: true },
  })
  t.same(read(text, ['arg_o', 'arg_s_present']), {}, 'an object has no value, and a string is not just there')
  t.same(read('{"x_present":"v"}', ['arg_x_present']), { arg_x_present: 'v' })
  t.same(read('{"a":1,"b":[]}', [], true), { arg_a: 1, arg_b_present: true }, 'all of them')
})

t.test('without arguments there are none', async (t) => {
  for (const text of [undefined, '{}', 'null']) t.same(read(text, ['arg_a']), {})
  t.same(new AskedArguments(['arg_a'], true).read(undefined, false, never), undefined)
})

t.test('an argument in which readers may differ cannot be judged', async (t) => {
  const cases: [string, readonly string[], RegExp][] = [
    ['{"a":1,"a":2}', ['arg_a'], /"a" stands twice/],
    ['{"a":1,"\\u0061":2}', ['arg_a'], /"a" stands twice/],
    ['{"a":1,"a":{}}', ['arg_a'], /"a" stands twice/],
    ['{"a":{},"a":1}', ['arg_a'], /"a" stands twice/],
    ['{"A":1}', ['arg_a'], /"A" is asked for in another letter case/],
    ['{"a\\u0000":1}', ['arg_a'], /is asked for in another letter case/],
    ['{"a":1,"a\\u0000b":2}', ['arg_a'], /is asked for in another letter case/],
    ['{"a":1,"A":2}', ['arg_a'], /"A" is asked for in another letter case/],
    ['{"x_present":"v","x":{}}', ['arg_x_present'], /"x" stands twice/],
    ['{"x":{},"x_present":"v"}', ['arg_x_present'], /"x_present" stands twice/],
    ['[1]', ['arg_a'], /no object/],
    ['"x"', ['arg_a'], /no object/],
  ]
  for (const [text, asked, problem] of cases) t.match(read(text, asked), problem, text)
  t.match(read('{"b":1,"B":2}', [], true), /"B" stands twice/)
})

t.test('what no policy asks for does not matter', async (t) => {
  t.same(read('{"a":1,"b":1,"b":2,"c":0.123456789}', ['arg_a']), { arg_a: 1 })
  t.same(read('[1]', []), {})
  t.same(read(`{"a":1,"big":"${'x'.repeat(200_000)}"}`, ['arg_a']), { arg_a: 1 })
})

t.test('a value that Cedar cannot hold cannot be judged', async (t) => {
  t.match(read('{"a":0.123456}', ['arg_a']), /"a" is a number with more than four/)
  t.match(read(`{"a":${'1'.repeat(100)}}`, ['arg_a']), /too many digits/)
  t.match(read('{"a":"\\ud800"}', ['arg_a']), /Unicode/)
  t.match(read('{"\\ud800":1}', [], true), /Unicode/)
  t.match(read(`{"a":"${'x'.repeat(65_537)}"}`, ['arg_a']), /more than 65536 bytes/)
  t.same(Object.keys(read(`{"a":"${'x'.repeat(65_536)}"}`, ['arg_a'])), ['arg_a'])
})

t.test('there is an end to the arguments that are read', async (t) => {
  const many = (count: number): string =>
    `{${Array.from({ length: count }, (_, i) => `"a${i}":${i}`).join()}}`
  t.equal(Object.keys(read(many(maxArguments), ['arg_a1'])).length, 1)
  t.match(read(many(maxArguments + 1), ['arg_a1']), /more than 256/)
})

t.test('an argument that was changed on its way is not judged by what it was', async (t) => {
  const { message } = question({ arguments: '{"a":1}' })
  const span = message?.paramSpans.arguments
  const changed = message?.edited({ start: span?.start as number, end: span?.end as number, text: '{"a":2}' })
  t.match(new AskedArguments(['arg_a'], false).read(changed, false, never), /changed/)
})

t.test('other methods have no arguments', async (t) => {
  const text = '{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"x","arguments":{"a":1}}}'
  const [message] = readMessages(Buffer.from(text)).messages
  t.equal(new AskedArguments(['arg_a'], false).read(message, false, never), undefined)
})

t.test(
  'policies see arguments on the resource and in the context, and numbers as they are configured',
  async (t) => {
    const when = (condition: string): string => `permit(principal, action, resource) when { ${condition} };`
    t.ok(await allows(when('context.arg_n > 5 && resource.arg_n > 5'), { arguments: '{"n":6}' }))
    t.notOk(await allows(when('context.arg_n > 5'), { arguments: '{"n":5}' }))
    const decimals = { decimalNumbers: true }
    const text = when('context.arg_n.greaterThan(decimal("5.0"))')
    t.ok(await allows(text, { arguments: '{"n":6}' }, decimals))
    t.match(await judge(text, { arguments: '{"n":6}' }), { allow: false, errors: [/type error/] })
    t.match(await judge(when('context has arg_a'), { arguments: '{"a":1,"a":2}' }), {
      allow: false,
      ids: [],
      errors: [/stands twice/],
    })
    t.match(await judge(when('context == {"x": 1} || true'), { arguments: '{"a":1,"a":2}' }), {
      errors: [/stands twice/],
    })
  },
)
