import fc from 'fast-check'
import t from 'tap'
import { messageOf } from '../../src/core/local.ts'
import { asLegacyRequest } from '../../src/era/legacy-request.ts'
import { membersAt, written } from '../support/modern-calls.ts'
import { nameOf, oddMembers, perhaps, shownMember, shuffled, valueText } from '../support/odd-json.ts'
import { holds, type Member, objectText } from '../support/property.ts'

const reserved = ['protocolVersion', 'clientInfo', 'clientCapabilities', 'logLevel'].map(
  (name) => `io.modelcontextprotocol/${name}`,
)
const ofRound = ['inputResponses', 'requestState', 'task']

const translated = (params: string, method = 'tools/call'): string =>
  written(
    asLegacyRequest(messageOf(`{"jsonrpc":"2.0","id":1,"method":"${method}","params":${params}}`)),
  ).replace(/^.*"params":|}$/g, '')

t.test('the envelope is taken out wherever it stands, and nothing else', async (t) => {
  const version = '"io.modelcontextprotocol/protocolVersion":"2026-07-28"'
  const info = '"io.modelcontextprotocol/clientInfo":{"name":"c"}'
  const can = '"io.modelcontextprotocol/clientCapabilities":{ }'
  const level = '"io.modelcontextprotocol/logLevel":"info"'
  const cases: Record<string, [string, string]> = {
    only: [`{"_meta":{${version},${info},${can}}}`, '{"_meta":{}}'],
    'only one': [`{"_meta":{ ${version} }}`, '{"_meta":{  }}'],
    first: [
      `{"_meta":{${version},${can},"traceparent":"00-1"},"name":"x"}`,
      '{"_meta":{"traceparent":"00-1"},"name":"x"}',
    ],
    last: [
      `{"name":"x","_meta":{"traceparent":"00-1", ${can} , ${level}}}`,
      '{"name":"x","_meta":{"traceparent":"00-1"}}',
    ],
    middle: [`{"_meta":{"a":1.0,${version},${info},"b":2}}`, '{"_meta":{"a":1.0,"b":2}}'],
    scattered: [`{"_meta":{${can},"a":1,${level},"b":2,${version}}}`, '{"_meta":{"a":1,"b":2}}'],
    'the progress token': [
      `{"_meta":{${version},"progressToken":1e2,${can}}}`,
      '{"_meta":{"progressToken":1e2}}',
    ],
    'other reserved keys': [
      `{"_meta":{${version},"io.modelcontextprotocol/related-task":{"taskId":"1"}}}`,
      '{"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"1"}}}',
    ],
    'a retry': [
      `{"name":"x","inputResponses":{"q1":{}},"requestState":"s","_meta":{${version}}}`,
      '{"name":"x","_meta":{}}',
    ],
    'a retry that ends with its state': [
      '{"_meta":{"a":1},"inputResponses":{},"name":"x","requestState":"s"}',
      '{"_meta":{"a":1},"name":"x"}',
    ],
    'nothing but the round': ['{"inputResponses":{},"requestState":"s","task":{}}', '{}'],
    'a task': ['{"task":{"ttl":1},"name":"x"}', '{"name":"x"}'],
    'the same names further down': [
      `{"arguments":{"requestState":1,"_meta":{${version}},"task":1}}`,
      `{"arguments":{"requestState":1,"_meta":{${version}},"task":1}}`,
    ],
    'a _meta that is none': ['{"_meta":null,"name":"x"}', '{"_meta":null,"name":"x"}'],
    'nothing to take': ['{ "name" : "x" }', '{ "name" : "x" }'],
  }
  for (const [name, [before, after]] of Object.entries(cases)) t.equal(translated(before), after, name)
  const bare = messageOf('{"jsonrpc":"2.0","id":1,"method":"tools/list"}')
  t.equal(written(asLegacyRequest(bare)), '{"jsonrpc":"2.0","id":1,"method":"tools/list"}', 'no params')
})

t.test('members of a method that nobody knows are its own', async (t) => {
  const params = '{"task":{"id":1.0},"inputResponses":[1],"requestState":{"a":1}}'
  t.equal(translated(params, 'example.com/other'), params)
})

const methods = ['tools/call', 'prompts/get', 'resources/read', 'tools/list', 'completion/complete']
const meta = shuffled(oddMembers, perhaps('progressToken', fc.constantFrom('1e2', '"\\u0061"', '7')))
  .chain((others) =>
    shuffled(
      fc.constant(others),
      ...reserved.map((name) => perhaps(name, valueText)),
      perhaps('io.modelcontextprotocol/subscriptionId', valueText),
    ),
  )
  .chain((members) => fc.record({ members: fc.constant(members), text: objectText(members) }))

t.test('whatever is sent along arrives as it was spelled, in its order', async (t) => {
  const params = fc
    .tuple(
      meta,
      fc.boolean(),
      shuffled(oddMembers, ...ofRound.map((name) => perhaps(name, valueText)), perhaps('name', valueText)),
    )
    .chain(([meta, withMeta, others]) =>
      shuffled(
        fc.constant(others),
        fc.constant<Member[]>(withMeta ? [{ key: '"_meta"', value: meta.text }] : []),
      ).chain((members) =>
        fc.record({
          meta: fc.constant(withMeta ? meta.members : undefined),
          members: fc.constant(members),
          text: objectText(members),
        }),
      ),
    )
  let stripped = 0
  holds(
    t,
    fc.property(params, fc.constantFrom(...methods), ({ meta, members, text }, method) => {
      const line = (whole: string): string => whole.replace(/[\r\n]/g, ' ')
      const message = messageOf(`{"x":1.0,"jsonrpc":"2.0","id":1,"params":${text},"method":"${method}"}`)
      const out = written(asLegacyRequest(message))
      const before = JSON.parse(line(text)) as Record<string, Record<string, unknown>>
      // What JSON.parse makes of it: the same without what goes.
      const oracle = Object.fromEntries(Object.entries(before).filter(([key]) => !ofRound.includes(key)))
      if (meta !== undefined) {
        const kept = Object.entries(before['_meta'] ?? {}).filter(([key]) => !reserved.includes(key))
        oracle['_meta'] = Object.fromEntries(kept)
        if (kept.length < meta.length) stripped++
      }
      const after = JSON.parse(out) as { params: object }
      if (JSON.stringify(after.params) !== JSON.stringify(oracle)) return false
      const own = members.filter((each) => !ofRound.includes(nameOf(each)) && nameOf(each) !== '_meta')
      const shown = membersAt(out, 'params').filter((each) => !each.startsWith('"_meta":'))
      if (shown.join('\n') !== own.map(shownMember).map(line).join('\n')) return false
      if (meta === undefined) return true
      const keptMeta = meta.filter((each) => !reserved.includes(nameOf(each))).map(shownMember)
      return membersAt(out, 'params', '_meta').join('\n') === keptMeta.map(line).join('\n')
    }),
    2000,
  )
  t.ok(stripped > 500)
})
