import fc from 'fast-check'
import t from 'tap'
import { localRequest, messageOf } from '../../src/core/local.ts'
import { additionsOf, asksForUrls, asModernResult } from '../../src/era/modern-result.ts'
import { type Json, membersAt, written } from '../support/modern-calls.ts'
import {
  nameOf,
  oddMembers,
  perhaps,
  shownMember,
  shuffled,
  spelled,
  valueText,
} from '../support/odd-json.ts'
import { arrayText, holds, type Member, objectText } from '../support/property.ts'

const info = { name: 's', version: '1', 'x\u2028': 'é' }
const serverInfo = 'io.modelcontextprotocol/serverInfo'
const additions = additionsOf(info)
const cacheable = [
  'tools/list',
  'prompts/list',
  'resources/list',
  'resources/templates/list',
  'resources/read',
]
const others = ['tools/call', 'prompts/get', 'completion/complete', 'example.com/other', '__proto__']

/** What the client gets of an answer with this result. */
function translated(result: string, method = 'tools/call', added = additions): string | undefined {
  const message = messageOf(`{"jsonrpc":"2.0","id":7,"result":${result}}`)
  const modern = asModernResult(message, localRequest(method, { uri: 'u' }), added)
  return modern === undefined ? undefined : written(modern)
}
const result = (...args: Parameters<typeof translated>): Json =>
  JSON.parse(translated(...args) ?? '{}').result

const named = { [serverInfo]: info }
const complete = { resultType: 'complete' }

t.test('what a modern result has, a legacy one gets', async (t) => {
  const cases: [string, object][] = [
    ['{}', { ...complete, _meta: named }],
    ['{ }', { ...complete, _meta: named }],
    ['{"a":1}', { ...complete, _meta: named, a: 1 }],
    ['{"_meta":{}}', { ...complete, _meta: named }],
    ['{"_meta":{ }}', { ...complete, _meta: named }],
    ['{"_meta":{"b":2},"a":1}', { ...complete, _meta: { ...named, b: 2 }, a: 1 }],
    ['{"_meta":null}', { ...complete, _meta: null }],
    ['{"_meta":[],"a":1}', { ...complete, _meta: [], a: 1 }],
    [`{"_meta":{"${serverInfo}":{"name":"own"}}}`, { ...complete, _meta: { [serverInfo]: { name: 'own' } } }],
    ['{"resultType":"input_required"}', { ...complete, _meta: named }],
    ['{"resultType":"task","taskId":"1"}', { ...complete, _meta: named, taskId: '1' }],
    ['{"taskId":"1","resultType":"task"}', { ...complete, _meta: named, taskId: '1' }],
    ['{"a":1,"resultType":null,"b":2}', { ...complete, _meta: named, a: 1, b: 2 }],
    ['{"ttlMs":99,"cacheScope":"public","a":1}', { ...complete, _meta: named, a: 1 }],
    ['{"cacheScope":"public","_meta":{"b":2},"ttlMs":99}', { ...complete, _meta: { ...named, b: 2 } }],
  ]
  for (const [before, after] of cases) {
    t.same(result(before), after, before)
    t.same(
      result(before, 'resources/read'),
      { ttlMs: 0, cacheScope: 'private', ...after },
      `${before}, to be cached`,
    )
  }
  for (const method of cacheable) t.match(result('{}', method), { ttlMs: 0, cacheScope: 'private' }, method)
  for (const method of others) t.notOk('ttlMs' in result('{}', method), method)
  for (const none of ['null', '[]', '1', '"x"', 'true']) t.equal(translated(none), undefined, none)
})

t.test('a server that does not say who it is is not named', async (t) => {
  for (const nobody of [undefined, null, 1, [], {}, { name: 's' }, { name: 1, version: '1' }]) {
    t.same(result('{}', 'tools/call', additionsOf(nobody)), complete)
    t.same(result('{"_meta":{"a":1}}', 'tools/call', additionsOf(nobody)), { ...complete, _meta: { a: 1 } })
  }
})

const spoofed = ['resultType', 'ttlMs', 'cacheScope']

t.test('everything else arrives as it was spelled, in its order', async (t) => {
  const meta = fc
    .tuple(oddMembers, fc.boolean())
    .chain(([members, own]) =>
      shuffled(
        fc.constant(members),
        own
          ? fc.record({ key: spelled(serverInfo), value: valueText }).map((each) => [each])
          : fc.constant([]),
      ),
    )
    .chain((members) => fc.record({ members: fc.constant(members), text: objectText(members) }))
  const results = fc
    .tuple(meta, fc.constantFrom('object', 'none', 'odd'), oddMembers)
    .chain(([meta, kind, odd]) => {
      const value = kind === 'object' ? meta.text : 'null'
      const own = kind === 'none' ? fc.constant<Member[]>([]) : perhaps('_meta', fc.constant(value))
      return shuffled(fc.constant(odd), own, ...spoofed.map((name) => perhaps(name, valueText))).chain(
        (members) =>
          fc.record({
            meta: fc.constant(kind === 'object' ? meta.members : undefined),
            members: fc.constant(members),
            text: objectText(members),
          }),
      )
    })
  const methods = fc.constantFrom(...cacheable.filter((method) => method !== 'tools/list'), ...others)
  holds(
    t,
    fc.property(results, methods, fc.boolean(), ({ meta, members, text }, method, anonymous) => {
      const line = (whole: string): string => whole.replace(/[\r\n]/g, ' ')
      const out = translated(text, method, anonymous ? additionsOf({}) : additions) as string
      const before = JSON.parse(line(text)) as Record<string, unknown>
      const hasMeta = members.some((each) => nameOf(each) === '_meta')
      const expected = Object.fromEntries(Object.entries(before).filter(([key]) => !spoofed.includes(key)))
      const front: Record<string, unknown> = { resultType: 'complete' }
      if (cacheable.includes(method)) Object.assign(front, { ttlMs: 0, cacheScope: 'private' })
      if (!anonymous) {
        if (!hasMeta) front['_meta'] = { [serverInfo]: info }
        else if (meta !== undefined && !meta.some((each) => nameOf(each) === serverInfo)) {
          expected['_meta'] = { [serverInfo]: info, ...(before['_meta'] as object) }
        }
      }
      const after = JSON.parse(out) as { result: object }
      if (JSON.stringify(after.result) !== JSON.stringify({ ...front, ...expected })) return false
      // Each stands once, so that no reader believes another one.
      const shown = membersAt(out, 'result')
      for (const name of Object.keys(front)) {
        if (shown.filter((each) => each.startsWith(`"${name}":`)).length !== 1) return false
      }
      const metaKey = members.find((each) => nameOf(each) === '_meta')?.key ?? ''
      const others = shown.slice(Object.keys(front).length).filter((each) => !each.startsWith(`${metaKey}:`))
      const kept = members.filter((each) => !spoofed.includes(nameOf(each)) && nameOf(each) !== '_meta')
      if (others.join('\n') !== kept.map(shownMember).map(line).join('\n')) return false
      if (meta === undefined || !hasMeta) return true
      const shownMeta = membersAt(out, 'result', '_meta').filter((each) => !each.includes('"name":"s"'))
      return shownMeta.join('\n') === meta.map(shownMember).map(line).join('\n')
    }),
    2000,
  )
})

t.test('tools that can only run as tasks are left out, and tasks not spoken of', async (t) => {
  const tool = (name: string, execution?: unknown): object => ({
    ...(execution === undefined ? {} : { execution }),
    ...{ name, inputSchema: { type: 'object', properties: { execution: { type: 'string' } } } },
  })
  const list = (...tools: object[]): string[] => {
    const text = JSON.stringify({ tools, nextCursor: '"execution"' })
    const { tools: left } = result(text, 'tools/list')
    return left.map((each: Json) => `${each.name}${'execution' in each ? '!' : ''}`)
  }
  const required = tool('r', { taskSupport: 'required' })
  const optional = tool('o', { taskSupport: 'optional' })
  const forbidden = tool('f', { taskSupport: 'forbidden' })
  t.same(list(required), [])
  t.same(list(required, required), [])
  t.same(list(required, optional, forbidden), ['o', 'f'])
  t.same(list(optional, required, forbidden), ['o', 'f'])
  t.same(list(optional, forbidden, required), ['o', 'f'])
  t.same(list(optional, required, required, forbidden, required), ['o', 'f'])
  t.same(list(tool('a', {}), tool('b', null), tool('c', 'required'), tool('d', { taskSupport: 1 })), [
    ...['a', 'b', 'c', 'd'],
  ])
  t.same(list(tool('plain')), ['plain'])
  t.match(result(JSON.stringify({ tools: [optional] }), 'tools/list').tools, [
    { inputSchema: { properties: { execution: { type: 'string' } } } },
  ])
  t.same(result('{"tools":[1,null,{"execution":1}]}', 'tools/list').tools, [1, null, {}])
  t.same(result('{"tools":{"execution":1}}', 'tools/list').tools, { execution: 1 })
  t.same(
    result(JSON.stringify({ tools: [required] }), 'prompts/list').tools,
    [required],
    'in the list of tools only',
  )
})

t.test('what tools say about tasks is found however it is spelled', async (t) => {
  const tools =
    '[{"name":"a","\\u0065xecution":{"taskSupport":"required"}},{"name":"b","execution\\u0000":1,"e\\u0078ecution":{}}]'
  t.same(result(`{"tools":${tools}}`, 'tools/list').tools, [{ name: 'b', 'execution\u0000': 1 }])
})

t.test('any list of tools keeps what else it says', async (t) => {
  const execution = fc.constantFrom(
    ...['{"taskSupport":"required"}', '{"taskSupport":"optional"}', '{ "x":1, "taskSupport" : "required" }'],
    ...['{}', 'null', '{"taskSupport":"forbidden"}', '["required"]', '{"taskSupport":"re\\u0071uired"}'],
  )
  const tool = fc
    .tuple(oddMembers, fc.option(execution, { nil: undefined }))
    .chain(([members, value]) =>
      shuffled(
        fc.constant(members),
        fc.constant<Member[]>(value === undefined ? [] : [{ key: '"execution"', value }]),
      ),
    )
    .chain((members) => fc.record({ members: fc.constant(members), text: objectText(members) }))
  const tools = fc
    .array(tool, { maxLength: 5 })
    .chain((all) => fc.record({ all: fc.constant(all), text: arrayText(all.map(({ text }) => text)) }))
  holds(
    t,
    fc.property(tools, oddMembers, fc.boolean(), ({ all, text }, odd, first) => {
      const line = (whole: string): string => whole.replace(/[\r\n]/g, ' ')
      const rest = odd.map(({ key, value }) => `${key}:${value}`)
      const members = first ? [`"tools":${text}`, ...rest] : [...rest, ` "tools" : ${text}`]
      const out = translated(`{${members.join(',')}}`, 'tools/list') as string
      const list = (JSON.parse(out) as { result: { tools: unknown[] } }).result.tools
      const kept = all.filter(({ text: each }) => JSON.parse(each).execution?.taskSupport !== 'required')
      if (list.length !== kept.length) return false
      return kept.every(({ members: own }, i) => {
        const expected = Object.fromEntries(
          Object.entries(JSON.parse(line(objectOf(own))) as object).filter(([key]) => key !== 'execution'),
        )
        if (JSON.stringify(list[i]) !== JSON.stringify(expected)) return false
        // Byte for byte: each member's own text is there.
        return own
          .filter((each) => nameOf(each) !== 'execution')
          .every(({ key, value }) => out.includes(line(key)) && out.includes(line(value)))
      })
    }),
    1000,
  )
})
const objectOf = (members: readonly Member[]): string => `{${members.map(shownMember).join(',')}}`

const failed = (
  error: string,
  method = 'resources/read',
  params: object = { uri: 'file:///\u00e9"' },
): Json => {
  const message = messageOf(`{"jsonrpc":"2.0","id":7,"error":${error}}`)
  return JSON.parse(
    written(asModernResult(message, localRequest(method, params), additions) as typeof message),
  ).error
}

t.test('a missing resource is a wrong parameter, and named', async (t) => {
  const uri = 'file:///é"'
  const cases: [string, object][] = [
    ['{"code":-32002,"message":"m"}', { code: -32602, message: 'm', data: { uri } }],
    ['{"code":-32002,"message":"m","data":{}}', { code: -32602, message: 'm', data: { uri } }],
    ['{"code":-32002,"message":"m","data":{ "a":1}}', { code: -32602, message: 'm', data: { uri, a: 1 } }],
    [
      '{"code":-32002,"message":"m","data":{"uri":"own"}}',
      { code: -32602, message: 'm', data: { uri: 'own' } },
    ],
    ['{"data":"d","message":"m","code":-32002}', { code: -32602, message: 'm', data: 'd' }],
    ['{"data":{},"code":-32002,"x":1}', { code: -32602, data: { uri }, x: 1 }],
    ['{"code":-32002}', { code: -32602, data: { uri } }],
  ]
  for (const [before, after] of cases) t.same(failed(before), after, before)
  t.same(failed('{"code":-32002,"message":"m"}', 'tools/call', {}), { code: -32602, message: 'm' })
})

t.test('codes of the modern era mean nothing to a legacy server', async (t) => {
  for (const code of [-32020, -32021, -32022, -32042]) {
    t.same(
      failed(`{"code":${code},"message":"m","data":{"requiredCapabilities":{}}}`),
      { code: -32603, message: 'm', data: { requiredCapabilities: {} } },
      String(code),
    )
  }
  for (const code of [-32601, -32602, -32603, -32000, -32001, 403, 429, 1, 0]) {
    t.same(failed(`{"code":${code},"message":"m"}`), { code, message: 'm' }, String(code))
  }
  for (const odd of ['{}', '"x"', '[]', '{"message":"m"}', '{"code":"-32002"}'])
    t.same(failed(odd), JSON.parse(odd), odd)
})

t.test('such codes are known however they are spelled', async (t) => {
  t.equal(failed('{"code":-32021.0,"message":"m"}').code, -32603)
  t.equal(failed('{"code":-3.2002e4,"message":"m"}').code, -32602)
})

t.test('what else an error says stays as it was spelled', async (t) => {
  const code = fc.constantFrom('-32002', '-32021', '-32603', '1')
  const errors = shuffled(oddMembers, perhaps('message', valueText)).chain((members) =>
    fc.tuple(code, fc.nat(members.length)).map(([value, at]): { members: Member[]; code: string } => ({
      members: [...members.slice(0, at), { key: '"code"', value }, ...members.slice(at)],
      code: value,
    })),
  )
  const replacement: Record<string, string> = { '-32002': '-32602', '-32021': '-32603' }
  holds(
    t,
    fc.property(errors, ({ members, code: before }) => {
      const message = messageOf(`{"jsonrpc":"2.0","id":7,"error":${objectOf(members)}}`)
      const request = localRequest('resources/read', { uri: 'u' })
      const out = written(asModernResult(message, request, additions) as typeof message)
      const expected = members.map((each) =>
        shownMember(each.key === '"code"' ? { ...each, value: replacement[before] ?? before } : each),
      )
      if (before === '-32002') expected.unshift('"data":{"uri":"u"}')
      JSON.parse(out)
      return membersAt(out, 'error').join('\n') === expected.join('\n')
    }),
    500,
  )
})

t.test('which errors ask the user to visit a URL', async (t) => {
  const asks = (text: string): boolean => asksForUrls(messageOf(`{"jsonrpc":"2.0","id":1,${text}}`))
  t.ok(asks('"error":{"message":"m","code":-32042}'))
  t.notOk(asks('"error":{"code":-32041}'))
  t.notOk(asks('"error":{"code":"-32042"}'))
  t.notOk(asks('"error":-32042'))
  t.notOk(asks('"result":{"code":-32042}'))
})
