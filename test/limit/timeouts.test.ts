import t from 'tap'
import type { TimeoutRule } from '../../src/core/policy.ts'
import { timeouts } from '../../src/limit/timeouts.ts'
import { ping, toolCall } from '../support/limits.ts'

const rule = (rest: Partial<TimeoutRule>): TimeoutRule => ({
  methods: [],
  tools: [],
  timeoutMs: 1000,
  maxMs: 2000,
  ...rest,
})

t.test('a rule without methods is for tools/call', async (t) => {
  const table = timeouts([rule({})])
  t.match(table('tools/call', toolCall('x')), { timeoutMs: 1000, maxMs: 2000 })
  t.equal(table('tools/list', ping), undefined)
})

t.test('methods and tools are globs, and the first rule that fits counts', async (t) => {
  const table = timeouts([
    rule({ tools: ['slow_*', 'report'], timeoutMs: 1, maxMs: 1 }),
    rule({ methods: ['tools/*'], timeoutMs: 2 }),
    rule({ methods: ['*'], timeoutMs: 3 }),
  ])
  t.equal(table('tools/call', toolCall('slow_export'))?.timeoutMs, 1)
  t.equal(table('tools/call', toolCall('report'))?.timeoutMs, 1)
  t.equal(table('tools/call', toolCall('fast'))?.timeoutMs, 2)
  t.equal(table('tools/call', toolCall())?.timeoutMs, 2, 'a call that names no tool')
  t.equal(table('tools/list', ping)?.timeoutMs, 2)
  t.equal(table('resources/read', ping)?.timeoutMs, 3)
})

t.test('a rule with tools is for their calls alone, whatever its methods', async (t) => {
  const table = timeouts([rule({ methods: ['*'], tools: ['*'] })])
  t.ok(table('tools/call', toolCall('x')))
  t.equal(table('resources/read', ping), undefined)
})

t.test('without rules nothing differs', async (t) => {
  t.equal(timeouts([])('tools/call', toolCall('x')), undefined)
})

t.test('what cannot be meant is refused when it is read, and named', async (t) => {
  const cases: [Partial<TimeoutRule>, RegExp][] = [
    [{ timeoutMs: 0 }, /^timeout rule 2: 0 ms is no timeout/],
    [{ timeoutMs: Number.NaN }, /NaN ms/],
    [{ timeoutMs: 2 ** 31, maxMs: 2 ** 31 }, /24\.8 days/],
    [{ maxMs: 2 ** 31 }, /2147483648 ms is no timeout/],
    [{ timeoutMs: 3000 }, /\(2000 ms\) is less than its timeout \(3000 ms\)/],
    [{ methods: ['resources/*'], tools: ['x'] }, /none of its methods is tools\/call/],
  ]
  for (const [wrong, message] of cases) {
    t.throws(() => timeouts([rule({}), rule(wrong)]), { name: 'LimitError', message })
  }
  t.ok(timeouts([rule({ timeoutMs: 2 ** 31 - 1, maxMs: 2 ** 31 - 1 })]))
})
