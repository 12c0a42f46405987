import fc from 'fast-check'
import t from 'tap'
import type { EgressVerdict } from '../../src/core/sandbox.ts'
import type { Clock } from '../../src/core/types.ts'
import { EgressLog } from '../../src/observe/egress-log.ts'
import { holds } from '../support/property.ts'

interface Written {
  /** The outcome of the event. */
  readonly audited: string
  readonly at: number
  readonly allowed: boolean
  readonly process: number | undefined
  readonly kind: string | undefined
  readonly suppressed: number | undefined
}

function setup() {
  let now = 5000
  const timers = new Set<{ readonly due: number; then(): void }>()
  const clock: Clock = {
    now: () => now,
    epoch: () => now,
    after: (ms, then) => {
      const timer = { due: now + ms, then }
      timers.add(timer)
      return { refresh() {}, cancel: () => void timers.delete(timer) }
    },
  }
  const forward = (ms: number): void => {
    const end = now + ms
    for (;;) {
      const [next] = [...timers].filter(({ due }) => due <= end).toSorted((a, b) => a.due - b.due)
      if (next === undefined) break
      timers.delete(next)
      now = next.due
      next.then()
    }
    now = end
  }
  const written: Written[] = []
  const logged: string[] = []
  const at = (level: string) => (_fields: object, text: string) => void logged.push(`${level} ${text}`)
  const lines = new EgressLog({
    clock,
    log: { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') },
    records: {
      event: (_type, details = {}, audited = 'success') =>
        void written.push({ at: now, audited, ...details } as unknown as Written),
    },
  })
  const stranger = (more: Partial<EgressVerdict>): void =>
    lines.note({
      ...{ child: 'p', allowed: true, protocol: 'broker', host: 'a.example.com', port: 443 },
      ...{ rule: 'host:a.example.com', address: '192.0.2.1' },
      ...more,
    })
  const note = (more: Partial<EgressVerdict>): void => stranger({ process: 1, ...more })
  return { lines, note, stranger, forward, written, logged, timers }
}

t.test('names that are looked up hide no connection', async (t) => {
  const { note, written } = setup()
  for (let i = 0; i < 500; i++) note({ protocol: 'dns', port: 53 })
  note({ host: 'b.example.com' })
  t.match(written.at(-1), { allowed: true, host: 'b.example.com' })
})

t.test('nothing is said to have been connected or looked up but what was', async (t) => {
  const { note, written, logged } = setup()
  const reason = 'it could not be dialled: ECONNREFUSED'
  note({ outcome: 'connected' })
  note({ outcome: 'failed', reason })
  note({ allowed: false, rule: 'no-rule' })
  note({ protocol: 'dns', port: 53 })
  note({ protocol: 'dns', port: 53, outcome: 'failed', reason: 'the name could not be resolved' })
  note({ protocol: 'dns', port: 53, allowed: false, rule: 'no-rule' })
  t.match(written, [
    { audited: 'success', allowed: true, outcome: 'connected' },
    { audited: 'error', allowed: true, outcome: 'failed', reason },
    { audited: 'denied', allowed: false, outcome: undefined },
    { audited: 'success', allowed: true, outcome: undefined },
    { audited: 'error', allowed: true, outcome: 'failed' },
    { audited: 'denied', allowed: false, outcome: undefined },
  ])
  t.same(logged, [
    'debug the server may connect',
    'debug the server may connect',
    'warn the server was kept from connecting',
    'debug the server may look up a name',
    'debug the server may look up a name',
    'warn the server was kept from looking up a name',
  ])
})

t.test('connections that failed hide none that came about', async (t) => {
  const { lines, note, written } = setup()
  for (let i = 0; i < 500; i++) note({ outcome: 'failed' })
  note({ outcome: 'connected', host: 'b.example.com' })
  t.match(written.at(-1), { audited: 'success', host: 'b.example.com' })
  lines.close()
  t.match(written.at(-1), { audited: 'error', outcome: 'failed', suppressed: 480 })
})

t.test('those without a token have a budget of their own', async (t) => {
  const { note, stranger, forward, written, logged } = setup()
  for (let i = 0; i < 100; i++) stranger({ child: 'unknown', allowed: false, rule: 'token' })
  note({ allowed: false })
  t.match(written.at(-1), { process: 1, suppressed: undefined })
  forward(1000)
  t.match(written.at(-1), { process: undefined, allowed: false, suppressed: 95, kind: 'connections' })
  t.equal(logged.at(-1), 'warn more connections of the server than are listed')
})

t.test('nothing is kept, and nothing said, of processes that are silent', async (t) => {
  const { note, forward, timers, written } = setup()
  for (let process = 1; process <= 50; process++) note({ process })
  t.equal(written.length, 50)
  forward(1000)
  t.equal(timers.size, 0)
  t.equal(written.length, 50)
})

t.test('lines and sums add up to all verdicts, whatever comes when', async (t) => {
  const events = fc.array(
    fc.record({
      gap: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 300 }), fc.integer({ min: 900, max: 3000 })),
      times: fc.integer({ min: 1, max: 40 }),
      process: fc.integer({ min: 1, max: 3 }),
      allowed: fc.boolean(),
      protocol: fc.constantFrom('dns' as const, 'broker' as const),
    }),
    { maxLength: 30 },
  )
  holds(
    t,
    fc.property(events, (events) => {
      const { lines, note, forward, written, timers } = setup()
      const expected = new Map<string, number>()
      for (const { gap, times, process, allowed, protocol } of events) {
        forward(gap)
        const key = `${process} ${allowed}`
        expected.set(key, (expected.get(key) ?? 0) + times)
        for (let i = 0; i < times; i++) note({ process, allowed, protocol })
      }
      lines.close()
      const told = new Map<string, number>()
      for (const { process, allowed, suppressed } of written) {
        const key = `${process} ${allowed}`
        told.set(key, (told.get(key) ?? 0) + (suppressed ?? 1))
      }
      const sums = written.filter(({ suppressed }) => suppressed !== undefined)
      const apart = sums.every((a) =>
        sums.every(
          (b) =>
            a === b ||
            a.process !== b.process ||
            a.allowed !== b.allowed ||
            a.kind !== b.kind ||
            Math.abs(a.at - b.at) >= 1000 ||
            // The last ones are written at the close.
            Math.max(a.at, b.at) === written.at(-1)?.at,
        ),
      )
      const same = [...expected].every(([key, count]) => told.get(key) === count)
      return apart && same && told.size === expected.size && timers.size === 0
    }),
  )
})
