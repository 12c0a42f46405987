import fc from 'fast-check'
import t from 'tap'
import { localRequest } from '../../src/core/local.ts'
import type { UpstreamCall } from '../../src/core/types.ts'
import { exactCall, latestCall } from '../../src/upstream/attribution.ts'
import type { PendingCall, Suspect } from '../../src/upstream/pending.ts'
import { holds } from '../support/property.ts'

/** Methods during which a server may ask: known ones, and those of extensions. */
const interactive = ['tools/call', 'prompts/get', 'resources/read', 'example.com/interview']
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
const suspect = (owner: unknown): Suspect => ({ owner, logs: false, since: 0 })
const anySuspects = fc.array(fc.constantFrom(...owners).map(suspect), { maxLength: 3 })
const never = (): boolean => false

const asks = (each: PendingCall): boolean => interactive.includes(each.call.message.method)

t.test('a call is answered only if no other owner can be meant', async (t) => {
  holds(
    t,
    fc.property(anyPending, anySuspects, fc.subarray(owners), (calls, suspects, trusted) => {
      const cleared = (suspect: Suspect): boolean => trusted.includes(suspect.owner as string)
      const found = exactCall(calls, suspects, cleared)
      const candidates = calls.filter(asks)
      if (candidates.length === 0) return found === 'nobody'
      const running = new Set(candidates.map(({ owner }) => owner))
      for (const each of suspects) if (!cleared(each)) running.add(each.owner)
      return found === (running.size > 1 ? 'ambiguous' : candidates.at(-1))
    }),
    1000,
  )
})

t.test('what another owner gave up on counts until it is cleared', async (t) => {
  const call = pending('tools/call', 'alice')
  t.equal(exactCall([call], [suspect('bob')], never), 'ambiguous')
  t.equal(exactCall([call], [suspect('alice'), suspect('bob')], never), 'ambiguous')
  t.equal(exactCall([call], [suspect('alice')], never), call, 'the same owner')
  t.equal(exactCall([], [suspect('alice')], never), 'nobody', 'there is no call left to answer')
  t.equal(exactCall([call], [suspect(undefined)], never), 'ambiguous', 'one that nobody remembers')
})

t.test('whether a suspect is cleared is asked for the owner that would be answered', async (t) => {
  const asked: unknown[] = []
  const call = pending('tools/call', 'alice')
  const cleared = (suspect: Suspect, owner: unknown): boolean => asked.push([suspect.owner, owner]) > 0
  t.equal(exactCall([call], [suspect('bob'), suspect('alice'), suspect('carol')], cleared), call)
  t.same(asked, [
    ['bob', 'alice'],
    ['carol', 'alice'],
  ])
})

t.test('owners are told apart by identity', async (t) => {
  const call = pending('tools/call', { name: 'same' })
  t.equal(exactCall([call, pending('tools/call', { name: 'same' })], [], never), 'ambiguous')
})

t.test(
  'a method that the sidecar does not know may ask, too: beside another session it is ambiguous',
  async (t) => {
    const call = pending('tools/call', 'alice')
    const extension = pending('example.com/interview', 'bob')
    t.equal(exactCall([call, extension], [], never), 'ambiguous')
    t.equal(exactCall([extension, call], [], never), 'ambiguous')
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
  t.equal(
    exactCall(new Map(calls.map((each) => [each.id, each])).values(), new Set([suspect('a')]), never),
    calls[1],
  )
})
