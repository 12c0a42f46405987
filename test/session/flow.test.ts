import fc from 'fast-check'
import t from 'tap'
import type { Clock, Timer, Upstream } from '../../src/core/types.ts'
import { Flow } from '../../src/session/flow.ts'
import { holds } from '../support/property.ts'

const KiB = 1024

class Target {
  queuedBytes = 0
  pulse = 0
  destroyed = false
  #waiting: (() => void)[] = []

  onceDrained(then: () => void): void {
    if (this.queuedBytes === 0) then()
    else this.#waiting.push(then)
  }

  drain(): void {
    this.queuedBytes = 0
    const waiting = this.#waiting
    this.#waiting = []
    for (const then of waiting) then()
  }

  destroy(): void {
    this.destroyed = true
    this.drain()
  }

  get waiters(): number {
    return this.#waiting.length
  }
}

/** Time that passes when a test says so. */
class Hand implements Clock {
  #now = 0
  #timers = new Set<{ at: number; then: () => void }>()

  now(): number {
    return this.#now
  }

  epoch(): number {
    return this.#now
  }

  after(ms: number, then: () => void): Timer {
    const timer = { at: this.#now + ms, then }
    this.#timers.add(timer)
    return {
      refresh: () => {
        timer.at = this.#now + ms
        this.#timers.add(timer)
      },
      cancel: () => this.#timers.delete(timer),
    }
  }

  pass(ms: number): void {
    this.#now += ms
    for (const timer of [...this.#timers]) {
      if (timer.at > this.#now) continue
      this.#timers.delete(timer)
      timer.then()
    }
  }
}

function flowOf(
  exclusive: boolean | undefined,
  queueBytes: number,
): { flow: Flow; calls: string[]; clock: Hand } {
  const calls: string[] = []
  const clock = new Hand()
  const options = { queueBytes, maxMessageBytes: 1000 * KiB }
  const flow = new Flow(clock, options, () => calls.push('stalled'))
  if (exclusive === undefined) return { flow, calls, clock }
  flow.upstream = {
    exclusive,
    pause: () => calls.push('pause'),
    resume: () => calls.push('resume'),
  } as unknown as Upstream
  return { flow, calls, clock }
}

function write(flow: Flow, target: Target, bytes: number): void {
  target.queuedBytes += bytes
  flow.wrote(target, bytes)
}

t.test('above the limit the server is not read, until the client has caught up', async (t) => {
  const { flow, calls } = flowOf(true, 100 * KiB)
  const target = new Target()
  write(flow, target, 90 * KiB)
  t.same(calls, [])
  write(flow, target, 20 * KiB)
  t.same(calls, ['pause'])
  write(flow, target, 20 * KiB)
  t.same(calls, ['pause'], 'once')
  t.equal(flow.queuedBytes, 130 * KiB)
  target.drain()
  t.same(calls, ['pause', 'resume'])
  t.equal(flow.queuedBytes, 0)
})

t.test('all streams of the session count together', async (t) => {
  const { flow, calls } = flowOf(true, 150 * KiB)
  const [one, two] = [new Target(), new Target()]
  write(flow, one, 80 * KiB)
  write(flow, two, 80 * KiB)
  t.same(calls, ['pause'])
  one.drain()
  t.same(calls, ['pause', 'resume'])
  t.equal(flow.queuedBytes, 80 * KiB)
})

t.test('a little in a socket is nothing to account for', async (t) => {
  const { flow, calls } = flowOf(true, 10)
  const target = new Target()
  write(flow, target, 64 * KiB)
  t.equal(flow.queuedBytes, 0)
  t.equal(target.waiters, 0)
  t.same(calls, [])
})

t.test('each target is waited for once, however often it is written to', async (t) => {
  const { flow } = flowOf(true, 1000 * KiB)
  const target = new Target()
  for (let i = 0; i < 10; i++) write(flow, target, 70 * KiB)
  t.equal(target.waiters, 1)
  target.drain()
  write(flow, target, 70 * KiB)
  t.equal(target.waiters, 1)
})

t.test('beside other sessions a reader over the limit that takes nothing is given up', async (t) => {
  for (const exclusive of [true, false]) {
    const { flow, calls, clock } = flowOf(exclusive, 100 * KiB)
    const target = new Target()
    write(flow, target, 200 * KiB)
    clock.pass(999)
    t.notOk(calls.includes('stalled'))
    clock.pass(1)
    t.equal(calls.includes('stalled'), !exclusive)
  }
})

t.test('one that takes something now and then is not, be it a part of a write', async (t) => {
  const { flow, calls, clock } = flowOf(false, 100 * KiB)
  const target = new Target()
  write(flow, target, 500 * KiB)
  for (let i = 0; i < 5; i++) {
    target.queuedBytes -= 10 * KiB
    clock.pass(1000)
    target.pulse++
    clock.pass(1000)
    write(flow, target, 10 * KiB)
    target.queuedBytes -= 10 * KiB
    clock.pass(1000)
  }
  t.same(calls, [])
  clock.pass(1000)
  t.same(calls, ['stalled'])
})

t.test('a sidecar that stood still itself does not blame the reader', async (t) => {
  const { flow, calls, clock } = flowOf(false, 100 * KiB)
  const target = new Target()
  write(flow, target, 120 * KiB)
  clock.pass(3000)
  t.same(calls, [], 'what the reader took meanwhile is not known yet')
  clock.pass(1000)
  t.same(calls, ['stalled'])
})

t.test('one that has caught up is not watched any more', async (t) => {
  const { flow, calls, clock } = flowOf(false, 100 * KiB)
  const target = new Target()
  write(flow, target, 200 * KiB)
  target.drain()
  clock.pass(5000)
  t.same(calls, [])
})

t.test('beside other sessions nobody is left more than a largest message over the limit', async (t) => {
  for (const exclusive of [true, false]) {
    const { flow, calls } = flowOf(exclusive, 100 * KiB)
    const target = new Target()
    write(flow, target, 1100 * KiB)
    flow.check()
    t.notOk(calls.includes('stalled'))
    write(flow, target, 1)
    flow.check()
    t.equal(calls.includes('stalled'), !exclusive)
  }
})

t.test('what is left unread after the end is cut off, after a moment to read it', async (t) => {
  const { flow, clock } = flowOf(true, 100 * KiB)
  const [slow, quick] = [new Target(), new Target()]
  write(flow, slow, 200 * KiB)
  write(flow, quick, 200 * KiB)
  flow.close()
  clock.pass(500)
  quick.drain()
  clock.pass(500)
  t.same([slow.destroyed, quick.destroyed], [true, false])
})

t.test('a session without a server process yet is fine', async (t) => {
  const { flow, calls } = flowOf(undefined, 100 * KiB)
  const target = new Target()
  write(flow, target, 200 * KiB)
  flow.check()
  t.same(calls, [])
  target.drain()
  t.equal(flow.queuedBytes, 0)
})

t.test(
  'whatever is written and read, the server is read again in the end, and never while over the limit',
  async (t) => {
    const step = fc.record({
      target: fc.nat(3),
      bytes: fc.oneof(fc.constant('drain' as const), fc.nat(200 * KiB)),
    })
    holds(
      t,
      fc.property(
        fc.array(step, { maxLength: 50 }),
        fc.integer({ min: 64 * KiB, max: 400 * KiB }),
        (steps, limit) => {
          const { flow, calls } = flowOf(true, limit)
          const targets = [0, 1, 2, 3].map(() => new Target())
          const paused = (): boolean => calls.at(-1) === 'pause'
          for (const { target, bytes } of steps) {
            const each = targets[target] as Target
            if (bytes === 'drain') each.drain()
            else write(flow, each, bytes)
            const behind = targets.filter(({ waiters }) => waiters > 0)
            const queued = behind.reduce((sum, { queuedBytes }) => sum + queuedBytes, 0)
            if (flow.queuedBytes !== queued || paused() !== queued > limit) return false
          }
          for (const each of targets) each.drain()
          return (
            !paused() &&
            flow.queuedBytes === 0 &&
            calls.every((call, i) => call === (i % 2 === 0 ? 'pause' : 'resume'))
          )
        },
      ),
      500,
    )
  },
)
