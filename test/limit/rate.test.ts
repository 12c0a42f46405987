import t, { type Test } from 'tap'
import { rpcErrorText } from '../../src/core/errors.ts'
import type { RateLimit } from '../../src/core/policy.ts'
import { anonymous } from '../../src/core/types.ts'
import type { RateInput } from '../../src/limit/rate.ts'
import {
  input,
  limit,
  limiterOf,
  ping,
  refusalOf,
  serviceAccount,
  type TestLimiter,
  toolCall,
  user,
} from '../support/limits.ts'

const [alice, bob] = [user('alice'), user('bob')]
const robot = serviceAccount('team-a/robot')

/** Which of these requests pass, in turn. */
function passing(rates: TestLimiter, ...inputs: readonly RateInput[]): boolean[] {
  return inputs.map((each) => refusalOf(() => rates.check(each)) === undefined)
}

/** With a limit of one: whether two requests share a count. */
function share(t: Test, of: RateLimit, one: RateInput, other: RateInput, shared: boolean, why: string): void {
  const rates = limiterOf([of])
  t.same(passing(rates, one, other), [true, !shared], why)
}

t.test('a request within every limit passes, without a promise', async (t) => {
  const rates = limiterOf([limit('user', 1), limit('tool', 1)])
  t.equal(rates.check(input(alice, toolCall('x'))), undefined)
})

t.test('a refusal says which limit, how long, and to the client only that', async (t) => {
  const rates = limiterOf([limit('user', 2, { windowMs: 60_000 }), limit('ip', 2, { windowMs: 10_500 })])
  passing(rates, input(alice), input(alice))
  rates.clock.pass(100)
  const refusal = refusalOf(() => rates.check(input(alice)))
  t.match(refusal, {
    code: 'ERR_RATE_LIMITED',
    detail: 'jwt:alice is over per-user (2 in 60000 ms), per-ip (2 in 10500 ms); room in 59900 ms',
    verdict: { layer: 'rate-limit', ids: ['per-user', 'per-ip'] },
  })
  t.same(refusal?.headers, { 'Retry-After': '60' }, 'the longest wait, in whole seconds, rounded up')
  t.equal(refusal?.httpStatus(true), 429)
  const { error } = JSON.parse(rpcErrorText(refusal as never, '1', 'r1'))
  t.same(error, {
    code: 429,
    message: 'Too many requests.',
    data: { source: 'mcp-sidecar', reason: 'ERR_RATE_LIMITED', requestId: 'r1', retryAfterSeconds: 60 },
  })
})

t.test('a wait of less than a second is one of a second', async (t) => {
  const rates = limiterOf([limit('user', 1, { windowMs: 1000 })])
  passing(rates, input(alice))
  rates.clock.pass(999.9)
  t.equal(refusalOf(() => rates.check(input(alice)))?.headers['Retry-After'], '1')
  rates.clock.pass(0.1)
  t.equal(
    refusalOf(() => rates.check(input(alice))),
    undefined,
  )
})

t.test('short and long windows of the same callers both count', async (t) => {
  const rates = limiterOf([limit('user', 1, { windowMs: 1000 }), limit('user', 3, { windowMs: 3_600_000 })])
  let passed = 0
  for (let second = 0; second < 10; second++) {
    passed += passing(rates, input(alice), input(alice)).filter(Boolean).length
    rates.clock.pass(1000)
  }
  t.equal(passed, 3)
})

t.test('who is refused spends nothing of what others share', async (t) => {
  const rates = limiterOf([limit('user', 1), limit('tool', 3)])
  const call = toolCall('search')
  passing(rates, ...Array.from({ length: 50 }, () => input(alice, call)))
  t.same(
    passing(rates, input(bob, call), input(robot, call), input(user('carol'), call)),
    [true, true, false],
    'one of three was spent',
  )
})

t.test('what each dimension counts together', async (t) => {
  const elsewhere = (address: string): RateInput => input(alice, ping, address)
  const otherWay = { ...alice, id: 'basic:alice', method: 'basic' }
  share(t, limit('user', 1), input(alice), input(otherWay), true, 'user: one human, two credentials')
  share(t, limit('user', 1), input(alice), input(bob), false, 'user: two humans')
  share(t, limit('user', 1), input(robot), input(robot), true, 'user: who is no human is not exempt')
  const mimic = { ...robot, id: 'kubernetes:alice' }
  share(
    t,
    limit('user', 1),
    input(user('kubernetes:alice')),
    input(mimic),
    false,
    'user: no mix-up of the two',
  )
  share(t, limit('user', 1), input(alice), input({ ...robot, id: 'u:alice' }), false, 'user: in no direction')
  share(t, limit('user', 1), input(user('p:x')), input({ ...robot, id: 'x' }), false, 'user: at all')
  share(t, limit('user', 1), input(anonymous), input(anonymous), true, 'user: all who are anonymous')
  share(t, limit('principal', 1), input(alice), input(otherWay), false, 'principal: by id')
  share(t, limit('principal', 1), input(alice), elsewhere('192.0.2.9'), true, 'principal: from anywhere')
  share(t, limit('ip', 1), input(alice), input(bob), true, 'ip: whoever it is')
  share(t, limit('ip', 1), input(alice), elsewhere('192.0.2.2'), false, 'ip: IPv4 one by one')
  const [a, b, c] = ['2001:db8:0:1::1', '2001:db8:0:1:ffff::2', '2001:db8:0:2::1'].map(elsewhere) as [
    RateInput,
    RateInput,
    RateInput,
  ]
  share(t, limit('ip', 1), a, b, true, 'ip: an IPv6 /64 is one')
  share(t, limit('ip', 1), a, c, false, 'ip: another /64')
  const odd = 'x'.repeat(1000)
  share(t, limit('ip', 1), elsewhere(odd), elsewhere(odd), true, 'ip: what is no address stands for itself')
  const [x, y] = [input(alice, toolCall('x')), input(alice, toolCall('y'))]
  share(t, limit('tool', 1), x, input(bob, toolCall('x')), true, 'tool: across callers')
  share(t, limit('tool', 1), x, y, false, 'tool: each by itself')
  share(t, limit('tool', 1), input(alice, toolCall()), input(bob, toolCall()), true, 'tool: without a name')
  const [ours, theirs] = [serviceAccount('ours/other'), serviceAccount('team-a/other')]
  share(t, limit('namespace', 1), input(robot), input(theirs), true, 'namespace: of the service account')
  share(t, limit('namespace', 1), input(robot), input(alice), false, 'namespace: ours for all others')
  share(t, limit('namespace', 1), input(alice), input(bob), true, 'namespace: all others together')
  share(t, limit('namespace', 1), input(alice), input(ours), true, 'namespace: and those who live there')
})

t.test('a tool limit is for tools/call, and so is any limit that names tools', async (t) => {
  const reading = {
    ...ping,
    kind: 'use' as const,
    action: 'prompts/get' as const,
    targets: toolCall('x').targets,
  }
  for (const each of [limit('tool', 1), limit('user', 1, { tools: ['x'] })]) {
    const rates = limiterOf([each])
    t.same(
      passing(rates, input(alice), input(alice), input(alice, reading), input(alice, reading)),
      [true, true, true, true],
      each.name,
    )
    t.same(passing(rates, input(alice, toolCall('x')), input(alice, toolCall('x'))), [true, false])
  }
})

t.test('globs choose the tools, which a caller then uses up together', async (t) => {
  const rates = limiterOf([limit('user', 2, { tools: ['db_*', 'deploy'] })])
  const calls = ['other', 'db_read', 'deploy', 'db_write', 'other'].map((name) =>
    input(alice, toolCall(name)),
  )
  t.same(passing(rates, ...calls), [true, true, true, false, true])
})

t.test('a call whose tool cannot be read counts as one of any', async (t) => {
  const unreadable = { ...toolCall('x'), targets: [] }
  const rates = limiterOf([limit('user', 1, { tools: ['db_*'] })])
  t.same(passing(rates, input(alice, unreadable), input(alice, toolCall('db_read'))), [true, false])
})

t.test('every request counts where no tools are named', async (t) => {
  const rates = limiterOf([limit('principal', 2)])
  t.same(passing(rates, input(alice), input(alice, toolCall('x')), input(alice)), [true, true, false])
})

t.test('the same limit from two documents counts once', async (t) => {
  const twice = [limit('user', 2, { tools: ['a', 'b'] }), limit('user', 2, { tools: ['b', 'a'] })]
  const rates = limiterOf(twice)
  const call = input(alice, toolCall('a'))
  passing(rates, call, call)
  t.same(refusalOf(() => rates.check(call))?.verdict?.ids, ['per-user'])
})

t.test('tools that do not exist cannot make a count grow, nor free one', async (t) => {
  const rates = limiterOf([limit('tool', 1, { windowMs: 86_400_000 })])
  t.same(passing(rates, input(alice, toolCall('deploy'))), [true])
  for (let i = 0; i < 101_000; i++) passing(rates, input(alice, toolCall(`made-up-${i}`)))
  t.same(passing(rates, input(alice, toolCall('deploy'))), [false])
  t.match(rates.logs, [{ level: 'warn', fields: { limit: 'per-tool' } }])
})

t.test('without limits everything passes', async (t) => {
  const rates = limiterOf([], {
    redis: {
      url: 'redis://127.0.0.1:1',
      password: undefined,
      caFile: undefined,
      prefix: 'x',
      whenAway: 'refuse',
      timeoutMs: 100,
    },
  })
  await rates.ready()
  t.same(passing(rates, input(alice), input(alice)), [true, true])
  t.same(rates.logs, [], 'and Redis is not asked')
  rates.close()
})

t.test('limits that cannot be kept are refused when they are read', async (t) => {
  const cases: [Partial<RateLimit>, RegExp][] = [
    [{ requests: 0 }, /^rate limit "per-user": requests is 0; it must be a whole number of at least 1/],
    [{ requests: 1.5 }, /requests is 1\.5/],
    [{ requests: Number.POSITIVE_INFINITY }, /requests is Infinity/],
    [{ windowMs: 999 }, /window of 999 ms must be from 1 second to 24\.8 days/],
    [{ windowMs: 2 ** 31 }, /window of 2147483648 ms/],
    [{ windowMs: Number.NaN }, /window of NaN ms/],
    [
      { dimension: 'tenant' as 'user' },
      /"tenant" is no dimension; there are user, ip, tool, principal, namespace/,
    ],
  ]
  for (const [wrong, message] of cases) {
    t.throws(() => limiterOf([limit('user', 1, wrong)]), { name: 'LimitError', message })
  }
  const many = Array.from({ length: 101 }, (_, i) => limit('user', i + 1))
  t.throws(() => limiterOf(many), { message: /101 rate limits; at most 100/ })
  t.ok(limiterOf([limit('user', 1, { windowMs: 2 ** 31 - 1 })]))
})
