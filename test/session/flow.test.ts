import fc from 'fast-check'
import t from 'tap'
import type { Upstream } from '../../src/core/types.ts'
import { Flow } from '../../src/session/flow.ts'
import { holds } from '../support/property.ts'

const KiB = 1024

class Target {
  queuedBytes = 0
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

  get waiters(): number {
    return this.#waiting.length
  }
}

function flowOf(exclusive: boolean, limit: number): { flow: Flow; calls: string[] } {
  const calls: string[] = []
  const flow = new Flow(limit)
  flow.upstream = {
    exclusive,
    pause: () => calls.push('pause'),
    resume: () => calls.push('resume'),
  } as unknown as Upstream
  return { flow, calls }
}

function write(flow: Flow, target: Target, bytes: number): void {
  target.queuedBytes += bytes
  flow.wrote(target)
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

t.test('only beside other sessions is a budget exhausted', async (t) => {
  for (const exclusive of [true, false]) {
    const { flow } = flowOf(exclusive, 100 * KiB)
    const target = new Target()
    write(flow, target, 90 * KiB)
    t.notOk(flow.exhausted)
    write(flow, target, 90 * KiB)
    t.equal(flow.exhausted, !exclusive)
    target.drain()
    t.notOk(flow.exhausted)
  }
})

t.test('a session without a server process yet is fine', async (t) => {
  const flow = new Flow(100 * KiB)
  const target = new Target()
  write(flow, target, 200 * KiB)
  t.notOk(flow.exhausted)
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
