import t from 'tap'
import { atExpiry } from '../../src/core/expiry.ts'
import { ManualClock } from '../support/modern-calls.ts'

t.test('calls once when the credential ends', async (t) => {
  const clock = new ManualClock()
  let ended = 0
  atExpiry(clock, clock.epoch() + 5000, () => ended++)
  clock.pass(4999)
  t.equal(ended, 0)
  clock.pass(1)
  t.equal(ended, 1)
  clock.pass(100_000)
  t.equal(ended, 1)
})

t.test('a credential that lasts for years is waited for in steps a timer can hold', async (t) => {
  const clock = new ManualClock()
  const year = 365 * 86_400_000
  let longest = 0
  let ended = 0
  const watched = {
    now: () => clock.now(),
    epoch: () => clock.epoch(),
    after: (ms: number, then: () => void) => {
      longest = Math.max(longest, ms)
      return clock.after(ms, then)
    },
  }
  atExpiry(watched, clock.epoch() + year, () => ended++)
  clock.pass(year - 1)
  t.equal(ended, 0)
  clock.pass(1)
  t.equal(ended, 1)
  t.ok(longest < 2 ** 31)
})

t.test('one that never ends, has ended already, or is not waited for any more', async (t) => {
  const clock = new ManualClock()
  let ended = 0
  atExpiry(clock, undefined, () => ended++)
  t.equal(clock.waiting, 0)
  const forget = atExpiry(clock, clock.epoch() + 10, () => ended++)
  forget()
  clock.pass(20)
  t.equal(ended, 0)
  t.equal(clock.waiting, 0)
  atExpiry(clock, clock.epoch() - 10, () => ended++)
  clock.pass(0)
  t.equal(ended, 1)
})
