import fc from 'fast-check'
import t from 'tap'
import { Failures } from '../../src/authn/failures.ts'
import { ManualClock } from '../support/modern-calls.ts'
import { holds } from '../support/property.ts'

const limits = { attempts: 3, windowMs: 60_000 }

function failing(bounds?: ConstructorParameters<typeof Failures>[1]): {
  clock: ManualClock
  failures: Failures
  fail: (address: string, n?: number) => void
} {
  const clock = new ManualClock()
  const failures = new Failures(clock, bounds)
  const fail = (address: string, n = 1): void => {
    for (let i = 0; i < n; i++) failures.add(address, limits)
  }
  return { clock, failures, fail }
}

t.test('an address is refused after so many failures, until the window ends', async (t) => {
  const { clock, failures, fail } = failing()
  fail('192.0.2.1', 2)
  t.equal(failures.retryAfter('192.0.2.1', limits), undefined)
  clock.pass(10_000)
  fail('192.0.2.1')
  t.equal(failures.retryAfter('192.0.2.1', limits), 50, 'seconds that are left of the window')
  t.equal(failures.retryAfter('192.0.2.2', limits), undefined, 'its neighbour has done nothing')
  clock.pass(49_999)
  t.equal(failures.retryAfter('192.0.2.1', limits), 1, 'at least one')
  clock.pass(1)
  t.equal(failures.retryAfter('192.0.2.1', limits), undefined)
  fail('192.0.2.1', 2)
  t.equal(failures.retryAfter('192.0.2.1', limits), undefined, 'the next window starts from nothing')
  fail('192.0.2.1')
  t.equal(failures.retryAfter('192.0.2.1', limits), 60)
})

t.test('a window starts with a failure, however long there was none', async (t) => {
  const { clock, failures, fail } = failing()
  clock.pass(59_999)
  fail('192.0.2.1', 3)
  clock.pass(2)
  t.equal(failures.retryAfter('192.0.2.1', limits), 60)
  clock.pass(1_000_000)
  fail('192.0.2.1', 3)
  t.equal(failures.retryAfter('192.0.2.1', limits), 60)
})

t.test('one host is one, however it spells or changes its address', async (t) => {
  const { failures, fail } = failing()
  fail('2001:db8:1:2::1')
  fail('2001:db8:1:2:ffff:ffff:ffff:ffff')
  fail('2001:0db8:0001:0002:0:0:0:7')
  t.ok(failures.retryAfter('2001:db8:1:2:3:4:5:6', limits))
  t.equal(failures.retryAfter('2001:db8:1:3::1', limits), undefined, 'another /64')
  fail('::ffff:198.51.100.7', 2)
  fail('198.51.100.7')
  t.ok(failures.retryAfter('198.51.100.7', limits))
  t.ok(failures.retryAfter('::ffff:c633:6407', limits))
})

t.test('other addresses of his do not free an attacker, and memory is bounded', async (t) => {
  const { failures, fail } = failing({ addresses: 100, perNetwork: 10 })
  fail('192.0.2.1', 3)
  for (let a = 0; a < 250; a++) for (let b = 0; b < 4; b++) fail(`10.${a}.0.${b}`)
  t.equal(failures.size, 100)
  t.ok(failures.retryAfter('192.0.2.1', limits))
})

t.test('a network that has used up its places shares one count, and leaves room for others', async (t) => {
  const { failures, fail } = failing({ addresses: 100, perNetwork: 10 })
  for (let i = 0; i < 12; i++) fail(`2001:db8:1:${i.toString(16)}::1`)
  t.equal(failures.size, 10)
  t.equal(failures.retryAfter('2001:db8:1:ffff::1', limits), undefined, 'two failures without a place')
  fail('2001:db8:1:cccc::1')
  t.ok(failures.retryAfter('2001:db8:1:ffff::1', limits), 'three')
  t.equal(failures.retryAfter('2001:db8:1:5::1', limits), undefined, 'who has a place has a count of its own')
  t.equal(failures.retryAfter('2001:db8:2:1::1', limits), undefined, 'another /48')
  for (let i = 0; i < 13; i++) fail(`203.0.113.${i}`)
  t.equal(failures.size, 20)
  t.ok(failures.retryAfter('203.0.1.1', limits))
  t.equal(failures.retryAfter('203.1.1.1', limits), undefined, 'another /16')
})

t.test('when all places are taken, who is unknown shares one count, until the window ends', async (t) => {
  const { clock, failures, fail } = failing({ addresses: 3, perNetwork: 10 })
  for (const a of [1, 2, 3, 4, 5]) fail(`10.${a}.0.1`)
  t.equal(failures.retryAfter('198.51.100.1', limits), undefined)
  fail('10.6.0.1')
  t.ok(failures.retryAfter('198.51.100.1', limits), 'three failures without a place')
  t.equal(failures.retryAfter('10.1.0.9', limits), undefined, 'a known network has a count of its own')
  fail('10.1.0.9', 3)
  t.ok(failures.retryAfter('10.1.0.9', limits))
  clock.pass(60_000)
  t.equal(failures.retryAfter('198.51.100.1', limits), undefined)
  fail('10.9.0.1')
  t.equal(failures.size, 1)
})

t.test(
  'whatever the order of failures, nobody with enough of them goes free within the window',
  async (t) => {
    const address = fc.integer({ min: 0, max: 30 }).map((n) => `10.${n % 5}.0.${n}`)
    const bounds = { addresses: 6, perNetwork: 2 }
    holds(
      t,
      fc.property(fc.array(address, { maxLength: 120 }), (all) => {
        const { failures, fail } = failing(bounds)
        const counts = new Map<string, number>()
        return all.every((each) => {
          fail(each)
          counts.set(each, (counts.get(each) ?? 0) + 1)
          const guilty = [...counts].filter(([, n]) => n >= limits.attempts)
          return (
            guilty.every(([name]) => failures.retryAfter(name, limits) !== undefined) &&
            failures.size <= bounds.addresses
          )
        })
      }),
    )
  },
)
