import fc from 'fast-check'
import t from 'tap'
import { filteredList, type Listed } from '../../src/authz/list-filter.ts'
import { readMessages } from '../../src/core/jsonrpc.ts'
import { localRequest, messageOf } from '../../src/core/local.ts'
import { legacyResult } from '../../src/era/downgrade.ts'
import { additionsOf, asModernResult } from '../../src/era/modern-result.ts'
import { lookalike } from '../support/messages.ts'
import { membersAt, parsed, written } from '../support/modern-calls.ts'
import { nameOf, oddMembers, shownMember, shuffled, spelled } from '../support/odd-json.ts'
import { arrayText, escapedSpelling, holds, type Member, objectText } from '../support/property.ts'

const answer = (result: string): string => `{"jsonrpc":"2.0","id":1,"result":${result}}`
const kept = new Set(['a', 'b', 'é', ''])
const keeps = ({ name }: Listed): boolean => kept.has(name)
const filtered = (result: string, list = 'tools'): string =>
  written(filteredList(messageOf(answer(result)), list, keeps))

t.test('objects go that are not to be seen, and the rest stays byte for byte', async (t) => {
  const table: [string, string][] = [
    ['{"tools":[{"name":"a"},{"name":"x"},{"name":"b"}]}', '{"tools":[{"name":"a"},{"name":"b"}]}'],
    ['{"tools":[{"name":"x"},{"name":"y"}]}', '{"tools":[]}'],
    ['{"tools":[ {"name":"x"} , {"name":"a"} ]}', '{"tools":[ {"name":"a"} ]}'],
    ['{"tools":[ {"name":"a"} , {"name":"x"} ]}', '{"tools":[ {"name":"a"} ]}'],
    ['{ "tools" : [ ] ,"nextCursor":"x" }', '{ "tools" : [ ] ,"nextCursor":"x" }'],
    [
      '{"n":1.0,"tools":[{"name":"x"},{"q":1e2,"name":"\\u0061"}],"_meta":{"name":"x"}}',
      '{"n":1.0,"tools":[{"q":1e2,"name":"\\u0061"}],"_meta":{"name":"x"}}',
    ],
    ['{"t\\u006fols":[{"n\\u0061me":"a"},{"n\\u0061me":"x"}]}', '{"t\\u006fols":[{"n\\u0061me":"a"}]}'],
  ]
  for (const [result, expected] of table) t.equal(filtered(result), answer(expected), result)
})

t.test('each list has its own kind of object, and its own name for the name', async (t) => {
  const lists = [
    ['tools', 'name', 'tool'],
    ['prompts', 'name', 'prompt'],
    ['resources', 'uri', 'resource'],
    ['resourceTemplates', 'uriTemplate', 'template'],
  ] as const
  for (const [list, key, type] of lists) {
    const items = [{ [key]: 'a' }, { [key]: 'x' }, { name: 'a', uri: 'a', uriTemplate: 'a', [key]: 'x' }]
    const seen: string[] = []
    const message = filteredList(messageOf(answer(JSON.stringify({ [list]: items }))), list, (item) => {
      seen.push(`${item.type} ${item.name}`)
      return keeps(item)
    })
    t.same(parsed(message).result, { [list]: [{ [key]: 'a' }] })
    t.same(seen, [`${type} a`, `${type} x`, `${type} x`], 'each is judged once')
  }
})

t.test('an object whose name is not plain is taken out', async (t) => {
  const odd = [
    ...['{}', '[]', '"a"', 'null', '1', '{"name":1}', '{"name":null}', '{"name":["a"]}', '{"Name":"a"}'],
    ...['{"name":"a","name":"a"}', '{"name":"a","n\\u0061me":"a"}', '{"name":"a","NAME":"x"}'],
    ...['{"name":"a","name\\u0000":"x"}', '{"x":{"name":"a"}}', '[{"name":"a"}]'],
  ]
  for (const each of odd) {
    t.equal(filtered(`{"tools":[{"name":"a"},${each}]}`), answer('{"tools":[{"name":"a"}]}'), each)
  }
})

t.test('a list that cannot be read lets nothing through', async (t) => {
  const tools = '[{"name":"a"}]'
  const table: [string, RegExp][] = [
    ['{}', /has 0 members/],
    ['[]', /has 0 members/],
    ['null', /has 0 members/],
    ['"tools"', /has 0 members/],
    [`{"Tools":${tools}}`, /has 1 members like/],
    [`{"tool\u017f":${tools}}`, /has 1 members like/],
    [`{"tools":${tools},"tools":${tools}}`, /has 2 members/],
    [`{"tools":${tools},"t\\u006fols":${tools}}`, /has 2 members/],
    [`{"tools":${tools},"TOOLS":${tools}}`, /has 2 members/],
    [`{"tools":${tools},"tools\\u0000":${tools}}`, /has 2 members/],
    ['{"tools":{"0":{"name":"a"}}}', /is no array/],
    ['{"tools":null}', /is no array/],
  ]
  for (const [result, message] of table) t.throws(() => filtered(result), { message }, result)
})

t.test('errors pass as they are', async (t) => {
  const error = messageOf('{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no","tools":[]}}')
  t.equal(filteredList(error, 'tools', keeps), error)
})

t.test('what is filtered for one caller is not to be cached for all', async (t) => {
  t.equal(
    filtered('{"cacheScope":"public","tools":[{"name":"x"}],"ttlMs":5}'),
    answer('{"cacheScope":"private","tools":[],"ttlMs":5}'),
  )
  t.equal(
    filtered('{"tools":[{"name":"x"}],"cacheScope":"public"}'),
    answer('{"tools":[],"cacheScope":"private"}'),
  )
  t.equal(filtered('{"tools":[],"cacheScope":"private"}'), answer('{"tools":[],"cacheScope":"private"}'))
})

t.test('answers that were translated before, in either direction, are filtered as they stand', async (t) => {
  const tool = (name: string, taskSupport: string): object => ({ name, execution: { taskSupport } })
  const tools = [tool('a', 'forbidden'), tool('x', 'required'), tool('b', 'required'), tool('y', 'optional')]
  const request = localRequest('tools/list', {})
  const additions = additionsOf({ name: 'server', version: '1' })
  const legacy = messageOf(answer(JSON.stringify({ tools, cacheScope: 'public', _meta: { q: 1 } })))
  const modern = filteredList(asModernResult(legacy, request, additions) ?? legacy, 'tools', keeps)
  t.match(parsed(modern).result, {
    tools: [{ name: 'a' }],
    cacheScope: 'private',
    resultType: 'complete',
    _meta: { q: 1 },
  })
  t.same(parsed(modern).result.tools, [{ name: 'a' }], 'b can only run as a task')

  const sent = {
    resultType: 'complete',
    ttlMs: 0,
    cacheScope: 'public',
    tools: [{ name: 'a' }, { name: 'x' }],
  }
  const down = filteredList(
    legacyResult(messageOf(answer(JSON.stringify(sent))), 'tools/list'),
    'tools',
    keeps,
  )
  t.same(parsed(down).result, { tools: [{ name: 'a' }] })
})

const name = fc.constantFrom('a', 'b', 'é', '', 'x', 'y', 'toString', '\u{1f600}')
const spelling = fc.array(fc.boolean(), { minLength: 1, maxLength: 4 })
const apart =
  (...names: string[]) =>
  (members: Member[]): boolean =>
    members.every((each) => !names.includes(nameOf(each).toUpperCase().toLowerCase().split('\0', 1)[0] ?? ''))

/** An object of a list as text, and whether it is to stay. */
const item = fc
  .tuple(
    fc.record({ name, spelling, key: spelled('name') }),
    fc.constantFrom('plain', 'plain', 'plain', 'nameless', 'twice', 'lookalike', 'number'),
    oddMembers.filter(apart('name')),
    lookalike('name'),
  )
  .chain(([{ name, spelling, key }, kind, others, alike]) => {
    const own: Member = { key, value: kind === 'number' ? '7' : escapedSpelling(name, spelling) }
    const more: Member = { key: kind === 'twice' ? '"name"' : JSON.stringify(alike), value: '"a"' }
    const members = [
      ...(kind === 'nameless' ? [] : [own]),
      ...(kind === 'twice' || kind === 'lookalike' ? [more] : []),
    ]
    return fc.tuple(
      shuffled(fc.constant(members), fc.constant(others)).chain(objectText),
      fc.constant(kind === 'plain' && kept.has(name)),
    )
  })

t.test('however it is spelled, what comes out is the filtered list, and all else as it was', async (t) => {
  const result = fc
    .tuple(fc.array(item, { maxLength: 6 }), oddMembers.filter(apart('tools')), spelled('tools'))
    .chain(([items, others, key]) =>
      fc.tuple(
        fc.constant(items),
        arrayText(items.map(([text]) => text))
          .chain((value) => shuffled(fc.constant([{ key, value }]), fc.constant(others)))
          .chain((members) => fc.tuple(fc.constant(members), objectText(members))),
      ),
    )
  holds(
    t,
    fc.property(result, ([items, [members, text]]) => {
      const before = readMessages(Buffer.from(answer(text))).messages[0]
      if (before === undefined) return false
      const after = written(filteredList(before, 'tools', keeps))
      const flat = (some: string): string => some.replace(/[\r\n]/g, ' ').trim()
      const staying = items.filter(([, stays]) => stays).map(([each]) => flat(each))
      const { result } = JSON.parse(after) as { result: { tools: unknown[] } }
      const sameItems =
        JSON.stringify(result.tools) === JSON.stringify(staying.map((each) => JSON.parse(each)))
      // Every byte of what stays, and of the members around the list.
      let at = 0
      const inOrder = staying.every((each) => {
        const found = after.indexOf(each, at)
        at = found + each.length
        return found >= 0
      })
      const place = members.findIndex((each) => nameOf(each) === 'tools')
      const around = (some: readonly string[]): string => some.filter((_, i) => i !== place).join('\n')
      return (
        sameItems &&
        inOrder &&
        around(membersAt(after, 'result')) === around(members.map((each) => flat(shownMember(each)))) &&
        (staying.length < items.length || after === written(before))
      )
    }),
    500,
  )
})
