import fc from 'fast-check'
import t from 'tap'
import { Tally } from '../../src/limit/tally.ts'
import { refusalOf } from '../support/limits.ts'
import { holds } from '../support/property.ts'

t.test('a principal has room for so many, and others for theirs', async (t) => {
  const tally = new Tally('requests in flight', 'limits.inFlight')
  const room = { perPrincipal: 2, inAll: undefined }
  tally.add('a', room)
  tally.add('a', room)
  t.match(
    refusalOf(() => tally.add('a', room)),
    {
      code: 'ERR_OVERLOADED',
      detail: 'a has 2 requests in flight (limits.inFlightPerPrincipal)',
      headers: { 'Retry-After': '1' },
    },
  )
  tally.add('b', room)
  t.equal(tally.total, 3)
  tally.remove('a')
  tally.add('a', room)
})

t.test('all together have room for so many', async (t) => {
  const tally = new Tally('requests in flight', 'limits.inFlight')
  const room = { perPrincipal: 10, inAll: 2 }
  tally.add('a', room)
  tally.add('b', room)
  const refusal = refusalOf(() => tally.add('c', room))
  t.match(refusal, { code: 'ERR_OVERLOADED', detail: 'there are 2 requests in flight (limits.inFlight)' })
  tally.remove('b')
  tally.add('c', room)
})

t.test('checking counts nothing', async (t) => {
  const tally = new Tally('x', 'limits.x')
  const room = { perPrincipal: 1, inAll: 1 }
  for (let i = 0; i < 3; i++) tally.check('a', room)
  t.equal(tally.total, 0)
  tally.add('a', room)
  t.equal(refusalOf(() => tally.check('a', room))?.code, 'ERR_OVERLOADED')
  t.equal(refusalOf(() => tally.check('b', room))?.code, 'ERR_OVERLOADED')
})

t.test('whatever comes and goes, the total is the sum and nobody is over', async (t) => {
  const steps = fc.array(fc.record({ who: fc.constantFrom('a', 'b', 'c'), comes: fc.boolean() }))
  holds(
    t,
    fc.property(steps, fc.nat(4), fc.nat(6), (steps, perPrincipal, inAll) => {
      const tally = new Tally('x', 'limits.x')
      const counts = new Map<string, number>()
      const total = (): number => [...counts.values()].reduce((sum, count) => sum + count, 0)
      for (const { who, comes } of steps) {
        const count = counts.get(who) ?? 0
        if (comes) {
          const refused = refusalOf(() => tally.add(who, { perPrincipal, inAll })) !== undefined
          if (refused !== (count >= perPrincipal || total() >= inAll)) return false
          if (!refused) counts.set(who, count + 1)
        } else if (count > 0) {
          tally.remove(who)
          counts.set(who, count - 1)
        }
        if (tally.total !== total()) return false
      }
      return true
    }),
  )
})
