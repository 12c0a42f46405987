import fc from 'fast-check'
import t from 'tap'
import { isoTimes } from '../../src/observe/iso-time.ts'
import { holds } from '../support/property.ts'

t.test('times are what toISOString makes of them, in any order', async (t) => {
  const iso = isoTimes()
  const near = fc.integer({ min: -2500, max: 2500 })
  const far = fc.integer({ min: -62_135_596_800_000, max: 253_402_300_799_999 })
  holds(
    t,
    fc.property(fc.array(fc.oneof(near, far)), (times) =>
      times.every((time) => iso(time) === new Date(time).toISOString()),
    ),
    500,
  )
})
