import fc from 'fast-check'
import t from 'tap'
import { Throttle } from '../../src/core/throttle.ts'
import { holds } from '../support/property.ts'

t.test('a few events a second pass, the others are counted', async (t) => {
  const throttle = new Throttle(2)
  t.same(
    [0, 1, 2, 3, 999].map((now) => throttle.take(now)),
    [0, 0, false, false, false],
  )
  t.equal(throttle.take(1000), 3, 'the first that passes tells how many did not')
  t.equal(throttle.take(1001), 0)
  t.equal(throttle.take(1002), false)
  t.equal(throttle.take(5000), 1)
})

t.test('the clock need not start at zero', async (t) => {
  const throttle = new Throttle(1)
  t.equal(throttle.take(1_000_000), 0)
  t.equal(throttle.take(1_000_999), false)
  t.equal(throttle.take(1_001_000), 1)
})

const gaps = fc.array(
  fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 400 }), fc.integer({ min: 900, max: 3000 })),
  { maxLength: 200 },
)

t.test('every event is passed or counted, exactly once', async (t) => {
  holds(
    t,
    fc.property(gaps, fc.integer({ min: 1, max: 5 }), (gaps, perSecond) => {
      const throttle = new Throttle(perSecond)
      let now = 0
      let passed = 0
      let told = 0
      let waiting = 0
      for (const gap of gaps) {
        now += gap
        const suppressed = throttle.take(now)
        if (suppressed === false) waiting++
        else {
          if (suppressed !== waiting) return false
          passed++
          told += suppressed
          waiting = 0
        }
      }
      return passed + told + waiting === gaps.length
    }),
  )
})

t.test('no span of a second sees more than twice the limit', async (t) => {
  holds(
    t,
    fc.property(gaps, fc.integer({ min: 1, max: 5 }), (gaps, perSecond) => {
      const throttle = new Throttle(perSecond)
      const passed: number[] = []
      let now = 0
      for (const gap of gaps) {
        now += gap
        if (throttle.take(now) !== false) passed.push(now)
      }
      return passed.every(
        (at) => passed.filter((each) => each >= at && each < at + 1000).length <= 2 * perSecond,
      )
    }),
  )
})
