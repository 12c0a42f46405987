import fc from 'fast-check'
import t from 'tap'
import { UsedOnce } from '../../src/bridge/used-once.ts'
import { ManualClock } from '../support/modern-calls.ts'
import { holds } from '../support/property.ts'

t.test('once, until it has expired', async (t) => {
  const clock = new ManualClock()
  const used = new UsedOnce(clock)
  t.ok(used.take('a', 100))
  t.notOk(used.take('a', 100))
  t.ok(used.take('b', 100))
  clock.pass(99)
  t.notOk(used.take('a', 100))
  clock.pass(1)
  t.ok(used.take('a', 100), 'by then it is refused for its age')
  for (const name of ['__proto__', 'constructor', '']) {
    t.ok(used.take(name, 100), name)
    t.notOk(used.take(name, 100), name)
  }
})

t.test('a second take does not prolong the first', async (t) => {
  const clock = new ManualClock()
  const used = new UsedOnce(clock)
  used.take('a', 100)
  clock.pass(50)
  t.notOk(used.take('a', 100))
  clock.pass(50)
  t.ok(used.take('a', 100))
})

t.test('whatever is taken when', async (t) => {
  const moves = fc.array(fc.record({ name: fc.nat(5), pass: fc.nat(60) }), { maxLength: 60 })
  holds(
    t,
    fc.property(moves, (all) => {
      const clock = new ManualClock()
      const used = new UsedOnce(clock)
      const taken = new Map<number, number>()
      return all.every(({ name, pass }) => {
        clock.pass(pass)
        const free = (taken.get(name) ?? Number.NEGATIVE_INFINITY) <= clock.now()
        if (free) taken.set(name, clock.now() + 100)
        return used.take(String(name), 100) === free
      })
    }),
    1000,
  )
})

t.test('many at a time, with the latest of them remembered', async (t) => {
  const used = new UsedOnce(new ManualClock())
  const count = 101_000
  for (let i = 0; i < count; i++) if (!used.take(String(i), 1000)) t.fail(String(i))
  for (let i = count - 99_000; i < count; i++) if (used.take(String(i), 1000)) t.fail(String(i))
  t.ok(used.take('0', 1000), 'the oldest have made way')
})
