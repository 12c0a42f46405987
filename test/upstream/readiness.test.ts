import fc from 'fast-check'
import t from 'tap'
import type { Clock, Logger } from '../../src/core/types.ts'
import { backoffMs, Readiness } from '../../src/upstream/readiness.ts'
import { holds } from '../support/property.ts'

interface Warning {
  readonly reason: string
  readonly failures: number
  readonly pauseMs: number
}

function warningsInto(warnings: Warning[]): Logger {
  const never = (): void => {
    throw new Error('only warnings are expected')
  }
  return { debug: never, info: never, error: never, warn: (fields) => warnings.push(fields as Warning) }
}

/** Time that passes when told to; timers run in order. */
function manualClock() {
  let now = 0
  const timers = new Set<{ at: number; ms: number; then: () => void }>()
  const clock: Clock = {
    now: () => now,
    epoch: () => now,
    after: (ms, then) => {
      const timer = { at: now + ms, ms, then }
      timers.add(timer)
      return {
        refresh: () => {
          timer.at = now + ms
          timers.add(timer)
        },
        cancel: () => timers.delete(timer),
      }
    },
  }
  const pass = (ms: number): void => {
    const end = now + ms
    for (;;) {
      const next = [...timers].filter(({ at }) => at <= end).toSorted((a, b) => a.at - b.at)[0]
      if (next === undefined) break
      timers.delete(next)
      now = next.at
      next.then()
    }
    now = end
  }
  return { clock, pass, timers }
}

function watched() {
  const time = manualClock()
  const logs: Warning[] = []
  const attempts: number[] = []
  const readiness = new Readiness(time.clock, warningsInto(logs), () => attempts.push(time.clock.now()))
  return { ...time, logs, attempts, readiness }
}

t.test('the pause is none at first, then doubles from 0.25 s to 30 s', async (t) => {
  t.same(
    [0, 1, 2, 3, 4, 8, 9, 10, 1000].map((failures) => backoffMs(failures, 0)),
    [0, 0, 250, 500, 1000, 16_000, 30_000, 30_000, 30_000],
  )
  t.equal(backoffMs(Number.MAX_SAFE_INTEGER, 0), 30_000)
})

t.test('chance shortens it by up to half, and never makes it longer', async (t) => {
  const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })
  holds(
    t,
    fc.property(fc.nat(100), random, (failures, random) => {
      const [full, pause] = [backoffMs(failures, 0), backoffMs(failures, random)]
      return pause <= full && pause >= full / 2 && pause <= 30_000
    }),
  )
})

t.test('it is not ready until the server has answered', async (t) => {
  const { readiness } = watched()
  t.notOk(readiness.ready)
  t.ok(readiness.up(), 'news')
  t.ok(readiness.ready)
  t.notOk(readiness.up(), 'no news')
})

t.test(
  'the first failure is followed by an attempt at once, later ones after longer and longer pauses',
  async (t) => {
    const { readiness, attempts, pass, logs, timers } = watched()
    const pauses: number[] = []
    for (let i = 0; i < 12; i++) {
      readiness.down('it ended')
      t.ok(readiness.waiting)
      t.notOk(readiness.ready)
      pauses.push([...timers][0]?.ms ?? -1)
      pass(30_000)
      t.notOk(readiness.waiting)
      t.equal(attempts.length, i + 1)
    }
    t.equal(pauses[0], 0)
    for (const [i, pause] of pauses.entries()) {
      const full = backoffMs(i + 1, 0)
      t.ok(pause <= full && pause >= Math.floor(full / 2), `${pause} of ${full}`)
    }
    t.same(logs[0], { reason: 'it ended', failures: 1, pauseMs: 0 })
    t.equal(logs.length, 12)
  },
)

t.test('failures while an attempt is waited for make no second one', async (t) => {
  const { readiness, attempts, pass, logs } = watched()
  readiness.down('a')
  pass(0)
  readiness.down('b')
  readiness.down('c')
  readiness.down('d')
  pass(60_000)
  t.equal(attempts.length, 2)
  t.equal(logs.length, 2)
})

t.test('an answer ends the waiting', async (t) => {
  const { readiness, attempts, pass, timers } = watched()
  readiness.down('a')
  pass(0)
  readiness.down('b')
  t.ok(readiness.up(), 'news again')
  t.notOk(readiness.waiting)
  pass(60_000)
  t.equal(attempts.length, 1)
  t.equal(timers.size, 0)
})

t.test('after close nothing is tried', async (t) => {
  const { readiness, attempts, pass } = watched()
  readiness.down('a')
  readiness.close()
  readiness.close()
  pass(60_000)
  t.same(attempts, [])
})

t.test('an attempt that fails at once is tried again, not forgotten', async (t) => {
  const { clock, pass } = manualClock()
  let attempts = 0
  const readiness: Readiness = new Readiness(clock, warningsInto([]), () => {
    if (++attempts < 5) readiness.down('again')
  })
  readiness.down('first')
  pass(60_000)
  t.equal(attempts, 5)
})

t.test('what may keep it from answering is told until it has answered once', async (t) => {
  const { clock } = manualClock()
  const logs: (Warning & { readonly hint?: string })[] = []
  const readiness = new Readiness(clock, warningsInto(logs), () => {}, 'look there')
  readiness.down('it exited')
  readiness.close()
  readiness.down('it exited')
  readiness.up()
  readiness.down('it exited')
  t.same(
    logs.map(({ hint }) => hint),
    ['look there', 'look there', undefined],
  )
})

t.test(
  'a server that answers and falls over again and again is not restarted at once for ever',
  async (t) => {
    const { readiness, attempts, pass } = watched()
    for (let i = 0; i < 20; i++) {
      readiness.up()
      pass(10)
      readiness.down('it ended right after it had answered')
      pass(0)
    }
    t.ok(attempts.length < 10, `${attempts.length} restarts within 200 ms`)
  },
)
