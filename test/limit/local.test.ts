import fc from 'fast-check'
import t from 'tap'
import type { Charge, CountedLimit } from '../../src/limit/charge.ts'
import { LocalStore } from '../../src/limit/local.ts'
import { type LogLine, logInto, type ManualClock, manualClock } from '../support/limits.ts'
import { holds } from '../support/property.ts'

const counted = (index: number, requests: number, windowMs = 1000): CountedLimit => ({
  index,
  id: `${index}`,
  name: `limit ${index}`,
  requests,
  windowMs,
})

function storeOf(...limits: CountedLimit[]): { store: LocalStore; clock: ManualClock } {
  const clock = manualClock()
  return { store: new LocalStore(limits, clock, logInto([])), clock }
}

t.test('a full limit is named with what is left of its window', async (t) => {
  const limit = counted(0, 2)
  const { store, clock } = storeOf(limit)
  const charges = [{ limit, key: 'a' }]
  t.same(store.charge(charges), [])
  clock.pass(400)
  t.same(store.charge(charges), [])
  t.same(store.charge(charges), [{ limit, waitMs: 600 }])
  clock.pass(599)
  t.same(store.charge(charges), [{ limit, waitMs: 1 }], 'what was refused does not count')
  clock.pass(1)
  t.same(store.charge(charges), [])
})

t.test('all that are full are named, and none of the others is charged', async (t) => {
  const [one, other, wide] = [counted(0, 1), counted(1, 1, 5000), counted(2, 2)] as const
  const { store } = storeOf(one, other, wide)
  const all = [one, other, wide].map((limit) => ({ limit, key: 'a' }))
  t.same(store.charge(all), [])
  for (let i = 0; i < 5; i++) {
    t.same(store.charge(all), [
      { limit: one, waitMs: 1000 },
      { limit: other, waitMs: 5000 },
    ])
  }
  t.same(store.charge([{ limit: wide, key: 'a' }]), [], 'the second of two')
  t.same(store.charge([{ limit: wide, key: 'a' }]), [{ limit: wide, waitMs: 1000 }])
})

t.test('more keys than there is room for are logged, with the name of the limit', async (t) => {
  const logs: LogLine[] = []
  const limit = counted(0, 1)
  const store = new LocalStore([limit], manualClock(), logInto(logs), 3)
  for (let i = 0; i < 10; i++) store.charge([{ limit, key: `${i}` }])
  t.match(logs, [{ level: 'warn', fields: { limit: 'limit 0' } }])
  t.equal(logs.length, 1)
})

const call = fc.record({
  caller: fc.nat(2),
  tool: fc.nat(1),
  gap: fc.constantFrom(0, 0, 0, 50, 300, 1100),
})

t.test('a request passes exactly when every limit has room, and counts exactly when it passes', async (t) => {
  holds(
    t,
    fc.property(fc.array(call, { maxLength: 100 }), fc.integer({ min: 1, max: 4 }), (calls, most) => {
      const [personal, shared] = [counted(0, most, 500), counted(1, most + 2)] as const
      const { store, clock } = storeOf(personal, shared)
      const windows = new Map<string, { end: number; count: number }>()
      for (const { caller, tool, gap } of calls) {
        clock.pass(gap)
        const now = clock.now()
        const charges: Charge[] = [
          { limit: personal, key: `${caller}` },
          { limit: shared, key: `${tool}` },
        ]
        const states = charges.map(({ limit, key }) => {
          const window = windows.get(`${limit.index}/${key}`)
          return window !== undefined && window.end > now ? window : { end: now + limit.windowMs, count: 0 }
        })
        const expected = charges.flatMap(({ limit }, i) => {
          const { end, count } = states[i] as { end: number; count: number }
          return count >= limit.requests ? [{ limit, waitMs: end - now }] : []
        })
        if (JSON.stringify(store.charge(charges)) !== JSON.stringify(expected)) return false
        if (expected.length > 0) continue
        for (const [i, { limit, key }] of charges.entries()) {
          const state = states[i] as { end: number; count: number }
          windows.set(`${limit.index}/${key}`, { end: state.end, count: state.count + 1 })
        }
      }
      return true
    }),
  )
})
