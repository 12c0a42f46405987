import fc from 'fast-check'
import t from 'tap'
import { localRequest } from '../../src/core/local.ts'
import type { UpstreamCall } from '../../src/core/types.ts'
import { exactCall, latestCall } from '../../src/upstream/attribution.ts'
import type { PendingCall } from '../../src/upstream/link.ts'
import { holds } from '../support/property.ts'

const interactive = ['tools/call', 'prompts/get', 'resources/read']
const quiet = ['tools/list', 'ping', 'logging/setLevel', 'resources/subscribe']

let lastId = 0
function pending(method: string, owner: unknown): PendingCall {
  const call = { message: localRequest(method, {}) } as unknown as UpstreamCall
  return { id: ++lastId, call, owner }
}

const owners = ['alice', 'bob', 'carol']
const anyPending = fc
  .array(
    fc.record({ method: fc.constantFrom(...interactive, ...quiet), owner: fc.constantFrom(...owners) }),
    { maxLength: 5 },
  )
  .map((all) => all.map(({ method, owner }) => pending(method, owner)))
const anySuspects = fc.array(fc.constantFrom(...owners), { maxLength: 3 })

const asks = (each: PendingCall): boolean => interactive.includes(each.call.message.method)

t.test('a call is answered only if no other owner can be meant', async (t) => {
  holds(
    t,
    fc.property(anyPending, anySuspects, (calls, suspects) => {
      const found = exactCall(calls, suspects)
      const candidates = calls.filter(asks)
      const meant = new Set<unknown>([...candidates.map(({ owner }) => owner), ...suspects])
      if (meant.size === 0) return found === 'nobody'
      if (meant.size > 1 || candidates.length === 0) return found === 'ambiguous'
      return found === candidates.at(-1)
    }),
    1000,
  )
})

t.test('what an owner gave up on counts until it is over', async (t) => {
  const call = pending('tools/call', 'alice')
  t.equal(exactCall([call], ['bob']), 'ambiguous')
  t.equal(exactCall([call], ['alice', 'bob']), 'ambiguous')
  t.equal(exactCall([call], ['alice']), call, 'the same owner')
  t.equal(exactCall([], ['alice']), 'ambiguous', 'there is no call left to answer')
  t.equal(exactCall([], []), 'nobody')
})

t.test('a suspect that nobody remembers makes everything ambiguous', async (t) => {
  t.equal(exactCall([pending('tools/call', 'alice')], [undefined]), 'ambiguous')
  t.equal(exactCall([], [undefined]), 'ambiguous')
})

t.test('owners are told apart by identity', async (t) => {
  const call = pending('tools/call', { name: 'same' })
  t.equal(exactCall([call, pending('tools/call', { name: 'same' })], []), 'ambiguous')
})

t.test(
  'a method that the sidecar does not know may ask, too: beside another session it is ambiguous',
  async (t) => {
    const call = pending('tools/call', 'alice')
    const extension = pending('example.com/interview', 'bob')
    t.equal(exactCall([call, extension], []), 'ambiguous')
    t.equal(exactCall([extension, call], []), 'ambiguous')
  },
)

t.test('on a process of its own the latest call that may ask is taken', async (t) => {
  holds(
    t,
    fc.property(anyPending, (calls) => {
      const found = latestCall(calls)
      const latest = calls.findLast(asks)
      return found === (latest ?? (calls.length === 1 ? calls[0] : undefined))
    }),
    500,
  )
})

t.test('any iterable will do, once', async (t) => {
  const calls = [pending('tools/list', 'a'), pending('prompts/get', 'a')]
  t.equal(latestCall(new Set(calls)), calls[1])
  t.equal(exactCall(new Map(calls.map((each) => [each.id, each])).values(), new Set(['a'])), calls[1])
})
