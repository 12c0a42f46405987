import fc from 'fast-check'
import t from 'tap'
import { Windows } from '../../src/limit/windows.ts'
import { holds } from '../support/property.ts'

const nothing = (): void => {}

t.test('a window opens with the first request of its key and ends after its time', async (t) => {
  const windows = new Windows(1000, nothing)
  t.equal(windows.find('a', 500), undefined)
  windows.count('a', 500)
  windows.count('a', 900)
  t.match(windows.find('a', 1499), { count: 2, end: 1500 })
  t.equal(windows.find('b', 1499), undefined, 'of another key')
  t.equal(windows.find('a', 1500), undefined, 'ended')
  windows.count('a', 1600)
  t.match(windows.find('a', 1600), { count: 1, end: 2600 }, 'the next begins with the next request')
})

t.test('looking opens nothing', async (t) => {
  const windows = new Windows(1000, nothing)
  windows.find('a', 0)
  t.equal(windows.size, 0)
})

t.test('ended windows make room: memory is that of the keys of one window', async (t) => {
  const windows = new Windows(1000, nothing)
  for (let now = 0; now < 50_000; now += 10) windows.count(`key ${now}`, now)
  t.ok(windows.size <= 101, `${windows.size} are left of 5,000`)
})

t.test('a key that comes back before its ended window was cleared away keeps its new one', async (t) => {
  const windows = new Windows(1000, nothing)
  for (let i = 0; i < 20; i++) windows.count(`old ${i}`, 0)
  windows.count('old 19', 1000)
  for (let i = 0; i < 20; i++) windows.count(`new ${i}`, 1500)
  t.match(windows.find('old 19', 1600), { count: 1, end: 2000 })
  t.equal(windows.size, 21)
})

t.test('a long key is counted like any other, and only its hash is kept', async (t) => {
  const windows = new Windows(1000, nothing)
  const long = 'x'.repeat(1_000_000)
  windows.count(long, 0)
  windows.count(`${long}y`, 0)
  windows.count(long, 1)
  t.match(windows.find(long, 1), { count: 2 })
  t.match(windows.find(`${long}y`, 1), { count: 1 })
})

t.test('keys that find no room share counts, and are told of once', async (t) => {
  let told = 0
  const windows = new Windows(1000, () => told++, 10)
  for (let i = 0; i < 10; i++) windows.count(`early ${i}`, 0)
  t.equal(told, 0)
  const late = Array.from({ length: 5000 }, (_, i) => `late ${i}`)
  for (const key of late) windows.count(key, 10)
  t.equal(told, 1)
  t.equal(windows.size, 10 + 1024, 'memory is bounded')
  t.match(windows.find('early 3', 10), { count: 1 }, 'who was there first keeps a count of its own')
  const counts = late.map((key) => windows.find(key, 10)?.count ?? 0)
  t.ok(counts.every((count) => count >= 1))
  t.ok(Math.max(...counts) < 30, 'nobody shares with more than a few')

  for (let i = 0; i < 10; i++) windows.count(`again ${i}`, 1000)
  t.ok(windows.find('late 0', 1005), 'once there is room again, the shared count still stands for its time')
  t.equal(windows.find('late 0', 1010), undefined)
})

t.test('nobody knows with whom a key shares: it differs from one instance to the next', async (t) => {
  const pattern = (): string => {
    const windows = new Windows(1000, nothing, 0)
    windows.count('victim', 0)
    return Array.from({ length: 5000 }, (_, i) => (windows.find(`${i}`, 0) === undefined ? '' : i)).join()
  }
  t.not(pattern(), pattern())
})

const step = fc.record({ key: fc.nat(12), gap: fc.constantFrom(0, 0, 1, 7, 40, 100, 130) })

/** What each key may use, counted the slow way: windows as lists of times. */
t.test(
  'whatever the keys, the room and the times, no key gets more than its limit in its window',
  async (t) => {
    holds(
      t,
      fc.property(
        fc.array(step, { maxLength: 150 }),
        fc.integer({ min: 0, max: 14 }),
        fc.integer({ min: 1, max: 4 }),
        (steps, room, limit) => {
          const windows = new Windows(100, nothing, room)
          const model = new Map<number, { start: number; count: number }>()
          let now = 0
          for (const { key, gap } of steps) {
            now += gap
            const window = windows.find(`${key}`, now)
            const passes = window === undefined || window.count < limit
            if (window !== undefined && window.end <= now) return false
            const known = model.get(key)
            const open = known !== undefined && known.start + 100 > now ? known : { start: now, count: 0 }
            // With room for all, exactly the limit; without, never more.
            if (passes && open.count >= limit) return false
            if (!passes && room > 12 && open.count < limit) return false
            if (!passes) continue
            windows.count(`${key}`, now)
            open.count++
            model.set(key, open)
            if (windows.size > room + 1024) return false
          }
          return true
        },
      ),
      500,
    )
  },
)
