import fc from 'fast-check'
import t from 'tap'
import { SidecarError } from '../../src/core/errors.ts'
import type { Message } from '../../src/core/jsonrpc.ts'
import { messageOf } from '../../src/core/local.ts'
import { acceptState, type ParkedState, requestDigest } from '../../src/era/request-state.ts'
import { modernRequest } from '../support/modern-calls.ts'
import { oddMembers, perhaps, shuffled, valueText } from '../support/odd-json.ts'
import { holds, objectText } from '../support/property.ts'

const call = (params: string, method = 'tools/call', id = '1'): Message =>
  messageOf(`{"jsonrpc":"2.0","id":${id},"method":"${method}","params":${params}}`)
const digest = (...args: Parameters<typeof call>): string => requestDigest(call(...args))

t.test('a retry is known by its method and params', async (t) => {
  const first = digest('{"name":"a","arguments":{"x":1,"y":[1,2],"z":"é"}}')
  const same = [
    '{"arguments":{"z":"\\u00e9","y":[ 1,2.0],"x":1e0},"name":"\\u0061"}',
    '{"name":"a","arguments":{"x":1,"y":[1,2],"z":"é"},"_meta":{"progressToken":9}}',
    '{"inputResponses":{"q1":{}},"name":"a","arguments":{"x":1,"y":[1,2],"z":"é"},"requestState":"s"}',
  ]
  for (const params of same) t.equal(digest(params, 'tools/call', '"other"'), first, params)
  const others = [
    '{"name":"b","arguments":{"x":1,"y":[1,2],"z":"é"}}',
    '{"name":"a","arguments":{"x":"1","y":[1,2],"z":"é"}}',
    '{"name":"a","arguments":{"x":1,"y":[2,1],"z":"é"}}',
    '{"name":"a","arguments":{"x":1,"y":[1,2],"z":"e"}}',
    '{"name":"a","arguments":{"x":1,"y":[1,2],"z":"é","_meta":1}}',
    '{"name":"a","arguments":{"x":1,"y":[1,2],"z":"é","requestState":1}}',
    '{"name":"a","arguments":{"x":1,"y":[1,2]}}',
    '{"name":"a"}',
    '{"name":"a","arguments":{"x":1,"y":[1,2],"z":"é"},"w":null}',
    '{"name":"a","arguments":{"x":1,"y":[1,2],"z":"é"},"task":{}}',
    '{"name":"a","arguments":{"x":9007199254740993,"y":[1,2],"z":"é"}}',
  ]
  const all = new Set([...others.map((params) => digest(params)), first])
  t.equal(all.size, others.length + 1)
  const big = '{"name":"a","arguments":{"x":9007199254740992,"y":[1,2],"z":"é"}}'
  t.notOk(all.has(digest(big)), 'integers that JavaScript cannot tell apart')
  t.not(digest('{"name":"a"}', 'prompts/get'), digest('{"name":"a"}'))
  t.not(digest('{"a":"b,c"}'), digest('{"a":"b","c":""}'))
})

t.test('order, blanks and spelling do not matter, values do', async (t) => {
  const params = fc
    .tuple(
      shuffled(oddMembers, perhaps('name', valueText), perhaps('arguments', valueText)),
      perhaps('_meta', fc.constantFrom('{"a":1}', 'null')),
      perhaps('inputResponses', valueText),
      perhaps('requestState', valueText),
    )
    .chain(([own, ...rest]) =>
      fc.record({
        one: objectText(own),
        // Members that stand twice mean the last one, so these keep their order.
        other: fc
          .tuple(fc.constant(own), ...rest.map((each) => fc.constant(each)))
          .chain((groups) => objectText(groups.flat())),
      }),
    )
  holds(
    t,
    fc.property(params, ({ one, other }) => digest(one) === digest(other)),
    1000,
  )
  const value = fc.jsonValue()
  holds(
    t,
    fc.property(value, value, (a, b) => {
      const text = (each: unknown): string => JSON.stringify({ arguments: each })
      const equal = sorted(a) === sorted(b)
      if (digest(text(a)) !== digest(text(reversed(a)))) return false
      return equal === (digest(text(a)) === digest(text(b)))
    }),
    2000,
  )
})

/** The same value with its members the other way round. */
function reversed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(reversed)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      .map(([key, each]) => [key, reversed(each)])
      .toReversed(),
  )
}

/** Equal for equal values; in JSON, -0 is 0. */
function sorted(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(sorted).join()}]`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
  return `{${entries.map(([key, each]) => `${JSON.stringify(key)}:${sorted(each)}`).join()}}`
}

const message = modernRequest('tools/call', { name: 'a' })
const good: ParkedState = {
  ...{ kind: 'parked', principal: 'alice', digest: requestDigest(message), expires: 1000 },
  ...{ call: 'c', round: 1 },
}
const accept = (opened: unknown, who = 'alice', at = 999, what = message): unknown =>
  acceptState(opened, what, who, at)

t.test('a state is accepted from whom it was given to, in time, for the same request', async (t) => {
  t.equal(accept(good), good)
  for (const kind of ['parked', 'reissue', 'wrapped']) t.same(accept({ ...good, kind }), { ...good, kind })
})

t.test('one refusal for whatever is wrong', async (t) => {
  const refusals: Record<string, () => unknown> = {
    forged: () => accept(undefined),
    'of no kind': () => accept({ ...good, kind: 'other' }),
    'of the kind of every object': () => accept({ ...good, kind: '__proto__' }),
    'of nothing': () => accept({}),
    'of another principal': () => accept(good, 'bob'),
    'of a principal that is not': () => accept({ ...good, principal: undefined }),
    'just expired': () => accept(good, 'alice', 1000),
    'long expired': () => accept(good, 'alice', 10_000),
    'for other arguments': () => accept(good, 'alice', 1, modernRequest('tools/call', { name: 'b' })),
    'for another method': () => accept(good, 'alice', 1, modernRequest('prompts/get', { name: 'a' })),
  }
  const seen = new Set<string>()
  for (const [name, refuse] of Object.entries(refusals)) {
    try {
      refuse()
      t.fail(name)
    } catch (thrown) {
      t.match(thrown, { code: 'ERR_REQUEST_STATE', data: undefined }, name)
      seen.add((thrown as SidecarError).message)
    }
  }
  t.equal(seen.size, 1, 'the same words')
  t.ok([...seen].every((each) => each === new SidecarError('ERR_REQUEST_STATE').message))
})
