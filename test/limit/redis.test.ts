import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import type { RateLimit } from '../../src/core/policy.ts'
import { Credential } from '../../src/core/secret.ts'
import type { RedisPolicy } from '../../src/limit/redis-options.ts'
import {
  input,
  laterRefusalOf,
  limit,
  limiterOf,
  refusalOf,
  soon,
  type TestLimiter,
  toolCall,
  user,
} from '../support/limits.ts'
import { authority } from '../support/pki.ts'
import { type RedisServer, startRedis } from '../support/redis.ts'

const [alice, bob] = [user('alice'), user('bob')]
const password = 'correct-horse-battery'
const day = 86_400_000

const policy = (url: string, rest: Partial<RedisPolicy> = {}): RedisPolicy => ({
  url,
  password: undefined,
  caFile: undefined,
  prefix: 'test',
  whenAway: 'local',
  timeoutMs: 10_000,
  ...rest,
})

/** One replica. Known to be connected, or to be not, when it resolves. */
async function replica(
  t: Test,
  url: string,
  limits: readonly RateLimit[],
  rest: Partial<RedisPolicy> = {},
): Promise<TestLimiter> {
  const rates = limiterOf(limits, { redis: policy(url, rest) })
  t.teardown(() => rates.close())
  await rates.ready()
  return rates
}

/** How many of so many requests in turn pass. */
async function passed(rates: TestLimiter, of: ReturnType<typeof input>, times: number): Promise<number> {
  let count = 0
  for (let i = 0; i < times; i++) if ((await laterRefusalOf(() => rates.check(of))) === undefined) count++
  return count
}

function inspector(t: Test, server: RedisServer): Redis {
  const client = new Redis(server.port, '127.0.0.1')
  client.on('error', () => {})
  t.teardown(() => client.disconnect())
  return client
}

const isAway = (rates: TestLimiter): boolean => rates.reachable.at(-1) === false
const isBack = (rates: TestLimiter): boolean => rates.reachable.at(-1) === true

t.test('two replicas share each limit', async (t) => {
  const server = await startRedis(t)
  const limits = [limit('user', 5, { windowMs: day })]
  const [one, other] = [await replica(t, server.url, limits), await replica(t, server.url, limits)]
  t.same([one.reachable, other.reachable], [[true], [true]])
  t.equal(await passed(one, input(alice), 3), 3)
  t.equal(await passed(other, input(alice), 5), 2)
  const refusal = await laterRefusalOf(() => one.check(input(alice)))
  t.match(refusal, { code: 'ERR_RATE_LIMITED', verdict: { layer: 'rate-limit', ids: ['per-user'] } })
  const wait = Number(refusal?.headers['Retry-After'])
  t.ok(wait > 86_000 && wait <= 86_400, `the wait is that of the window: ${wait}`)
  t.equal(await passed(other, input(bob), 6), 5, 'others have counts of their own')
})

t.test('a window in Redis ends after its time, to the millisecond and not by the second', async (t) => {
  const server = await startRedis(t)
  const windowMs = 60_700
  const rates = await replica(t, server.url, [limit('user', 1, { windowMs })])
  const before = performance.now()
  t.equal(await passed(rates, input(alice), 3), 1)
  const client = inspector(t, server)
  const [key] = (await client.keys('test:*:*')) as [string]
  const left = await client.pttl(key)
  const most = Math.ceil(performance.now() - before)
  // The clock of Redis and ours may differ by a little.
  t.ok(left <= windowMs && left >= windowMs - most - 50, `${left} ms are left after at most ${most} ms`)
  await client.pexpire(key, 1)
  await soon(async () => (await client.exists(key)) === 0, 'the window ends')
  t.equal(await passed(rates, input(alice), 2), 1)
})

t.test('a request that one limit refuses is charged to none', async (t) => {
  const server = await startRedis(t)
  const limits = [limit('user', 1, { windowMs: day }), limit('tool', 3, { windowMs: day })]
  const rates = await replica(t, server.url, limits)
  const call = toolCall('search')
  t.equal(await passed(rates, input(alice, call), 30), 1)
  t.same(
    await Promise.all([passed(rates, input(bob, call), 1), passed(rates, input(user('carol'), call), 1)]),
    [1, 1],
  )
  const refusal = await laterRefusalOf(() => rates.check(input(user('dave'), call)))
  t.same(refusal?.verdict?.ids, ['per-tool'])
})

t.test('a crowd that its own limit refuses takes no room from others, not for a moment', async (t) => {
  const server = await startRedis(t)
  const limits = [limit('user', 1, { windowMs: day }), limit('tool', 3, { windowMs: day })]
  const rates = await replica(t, server.url, limits)
  const call = toolCall('search')
  t.equal(await passed(rates, input(alice, call), 1), 1)
  const crowd = Array.from({ length: 20 }, () => laterRefusalOf(() => rates.check(input(alice, call))))
  const other = await laterRefusalOf(() => rates.check(input(bob, call)))
  t.equal(other, undefined)
  t.ok((await Promise.all(crowd)).every((refusal) => refusal?.verdict?.ids[0] === 'per-user'))
})

t.test(
  'all at once, exactly as many pass as there is room for, and what was taken is given back',
  async (t) => {
    const server = await startRedis(t)
    const limits = [limit('tool', 20, { windowMs: day }), limit('namespace', 10, { windowMs: day })]
    const replicas = await Promise.all([1, 2].map(() => replica(t, server.url, limits)))
    const call = toolCall('search')
    const outcomes = await Promise.all(
      Array.from({ length: 60 }, (_, i) =>
        laterRefusalOf(() => replicas[i % 2]?.check(input(user(`u${i}`), call))),
      ),
    )
    t.equal(outcomes.filter((refusal) => refusal === undefined).length, 10)
    t.ok(outcomes.every((refusal) => refusal === undefined || refusal.code === 'ERR_RATE_LIMITED'))
    const client = inspector(t, server)
    const counts = await Promise.all((await client.keys('test:*:*')).map((key) => client.get(key)))
    t.same(counts, ['10', '10'], 'both counts are those of what passed')
  },
)

t.test('Redis learns neither who calls, nor from where, nor what', async (t) => {
  const server = await startRedis(t)
  const limits = (['user', 'ip', 'tool', 'principal', 'namespace'] as const).map((each) => limit(each, 9))
  const rates = await replica(t, server.url, limits, { prefix: 'pre:fix' })
  await rates.check(input(alice, toolCall('search')))
  const keys = await inspector(t, server).keys('*')
  t.equal(keys.filter((key) => /^pre:fix:[0-9a-f]{16}:[\w-]{22}$/.test(key)).length, 5)
  t.notMatch(keys.join(' '), /alice|192\.0|search|ours|per-/)
})

t.test('when Redis dies, limits are counted here, and shared again when it is back', async (t) => {
  const server = await startRedis(t)
  const limits = [limit('user', 3, { windowMs: day }), limit('ip', 1000, { windowMs: day })]
  const [one, other] = [await replica(t, server.url, limits), await replica(t, server.url, limits)]
  t.equal(await passed(one, input(alice), 5), 3)

  await server.kill()
  await soon(() => isAway(one) && isAway(other), 'both notice')
  t.equal(await passed(one, input(alice), 5), 3, 'never without a limit')
  t.equal(await passed(other, input(alice), 5), 3, 'each replica by itself')
  t.match(
    refusalOf(() => one.check(input(alice))),
    { code: 'ERR_RATE_LIMITED' },
    'and it does not wait',
  )

  await server.restart()
  await soon(() => isBack(one) && isBack(other), 'both are back')
  t.equal(await passed(one, input(alice), 2), 2)
  t.equal(await passed(other, input(alice), 5), 1, 'shared again')
  for (const { logs, reachable } of [one, other]) {
    t.same(reachable, [true, false, true])
    t.match(logs, [
      {
        level: 'warn',
        text: 'Redis is away: rate limits are counted here alone meanwhile',
        fields: { redis: server.url, reason: /connection was closed|ECONNRESET/ },
      },
      { level: 'info', text: /is back/ },
    ])
    t.equal(logs.length, 2, 'one line for the whole outage')
  }
})

t.test('where it is to refuse, nothing passes while Redis is away', async (t) => {
  const server = await startRedis(t)
  const rates = await replica(t, server.url, [limit('user', 3)], { whenAway: 'refuse' })
  t.equal(await passed(rates, input(alice), 1), 1)
  await server.kill()
  await soon(() => isAway(rates), 'it notices')
  t.match(
    refusalOf(() => rates.check(input(alice))),
    { code: 'ERR_OVERLOADED', headers: { 'Retry-After': '1' }, detail: /Redis is away.*whenAway: refuse/ },
  )
  await server.restart()
  await soon(() => isBack(rates), 'it is back')
  t.equal(await passed(rates, input(alice), 5), 3)
  t.match(rates.logs, [{ text: 'Redis is away: rate limits refuse every request meanwhile' }, {}])
})

t.test('requests that are under way when Redis dies are counted here or refused; none hangs', async (t) => {
  for (const [whenAway, expected] of [
    ['local', 2],
    ['refuse', 0],
  ] as const) {
    const server = await startRedis(t)
    const limits = [limit('user', 2, { windowMs: day }), limit('ip', 100, { windowMs: day })]
    const rates = await replica(t, server.url, limits, { whenAway })
    server.freeze()
    const under = Array.from({ length: 10 }, () => laterRefusalOf(() => rates.check(input(alice))))
    await server.kill()
    const refusals = await Promise.all(under)
    t.equal(refusals.filter((refusal) => refusal === undefined).length, expected, whenAway)
    t.equal(rates.logs.length, 1, 'one line for all of them')
  }
})

t.test('a Redis that does not answer is away after the timeout, and is not waited for again', async (t) => {
  const server = await startRedis(t)
  const limits = [limit('user', 3, { windowMs: day }), limit('ip', 100, { windowMs: day })]
  const rates = await replica(t, server.url, limits, { timeoutMs: 1500 })
  server.freeze()
  const before = performance.now()
  t.equal(await passed(rates, input(alice), 1), 1)
  const waited = performance.now() - before
  t.ok(waited > 1400 && waited < 15_000, `the first waited ${Math.round(waited)} ms`)
  t.same(
    rates.logs.map(({ fields }) => fields),
    [{ redis: server.url, reason: 'Command timed out' }],
  )
  t.equal(
    refusalOf(() => rates.check(input(alice))),
    undefined,
    'the second did not wait at all',
  )
  server.thaw()
  await soon(() => isBack(rates), 'it is back')
  t.ok((await passed(rates, input(alice), 5)) <= 3)
})

t.test('a Redis that is not there at the start is away like any other', async (t) => {
  const server = await startRedis(t)
  await server.kill()
  const rates = await replica(t, server.url, [limit('user', 3)])
  t.same(rates.reachable, [false])
  t.match(rates.logs, [{ level: 'warn', fields: { reason: /ECONNREFUSED/ } }])
  t.equal(await passed(rates, input(alice), 5), 3)
  await server.restart()
  await soon(() => isBack(rates), 'it is found')
  t.equal(await passed(rates, input(alice), 5), 3)
})

t.test('one that answers but cannot count is away', async (t) => {
  const full = await startRedis(t, { config: ['maxmemory 1', 'maxmemory-policy noeviction'] })
  const noMemory = await replica(t, full.url, [limit('user', 2)])
  t.match(noMemory.logs, [{ level: 'warn', fields: { reason: /OOM/ } }])
  t.equal(await passed(noMemory, input(alice), 5), 2)

  const server = await startRedis(t)
  const rates = await replica(t, server.url, [limit('user', 2, { windowMs: day })])
  const client = inspector(t, server)
  await client.config('SET', 'min-replicas-to-write', '1')
  t.equal(await passed(rates, input(alice), 5), 2, 'what it refuses to write is counted here')
  t.match(rates.logs, [{ level: 'warn', fields: { reason: /NOREPLICAS/ } }])
  await client.config('SET', 'min-replicas-to-write', '0')
  await soon(() => isBack(rates), 'it can count again')
})

t.test('a count that never ends is replaced, not obeyed', async (t) => {
  const server = await startRedis(t)
  const limits = [limit('user', 2, { windowMs: day }), limit('ip', 100, { windowMs: day })]
  const rates = await replica(t, server.url, limits)
  t.equal(await passed(rates, input(alice), 3), 2)
  const client = inspector(t, server)
  for (const key of await client.keys('test:*:*')) await client.persist(key)
  t.equal(await passed(rates, input(alice), 3), 2)
})

t.test('the password is presented, and shown to nobody', async (t) => {
  const server = await startRedis(t, { password })
  const file = join(t.testdir({}), 'password')
  writeFileSync(file, `${password}\n`)
  for (const source of [{ file }, { text: new Credential(password) }]) {
    const rates = await replica(t, server.url, [limit('user', 1)], {
      password: source,
      prefix: inspect(source),
    })
    t.same(rates.reachable, [true])
    t.equal(await passed(rates, input(alice), 2), 1)
  }
  const url = server.url.replace('//', '//default@')
  const named = await replica(t, url, [limit('user', 1)], { password: { file } })
  t.same(named.reachable, [true], 'with the name of its user')

  const wrong = 'a-wrong-pass-phrase'
  const stranger = await replica(t, server.url, [limit('user', 1)], {
    password: { text: new Credential(wrong) },
  })
  t.match(stranger.logs, [{ level: 'warn', fields: { reason: /WRONGPASS/ } }])
  const nobody = await replica(t, server.url, [limit('user', 1)])
  t.match(nobody.logs, [{ level: 'warn', fields: { reason: /NOAUTH/ } }])
  for (const { logs } of [stranger, nobody]) {
    t.notMatch(inspect(logs, { depth: 20, showHidden: true }), wrong, 'not even as part of an error')
  }
})

t.test('over TLS, with the certificate of a CA of our own', async (t) => {
  const [ca, otherCa] = [authority('Redis CA'), authority('Other CA')]
  const server = await startRedis(t, { tls: ca.issue({ ips: ['127.0.0.1'], usage: 'server' }), password })
  const folder = t.testdir({ 'ca.pem': ca.certificate, 'other.pem': otherCa.certificate })
  const limits = [limit('user', 2, { windowMs: day })]
  const secret = { password: { text: new Credential(password) } }
  const trusting = await replica(t, server.url, limits, { ...secret, caFile: join(folder, 'ca.pem') })
  t.same(trusting.reachable, [true])
  t.equal(await passed(trusting, input(alice), 3), 2)

  const distrusting = await replica(t, server.url, limits, { ...secret, caFile: join(folder, 'other.pem') })
  t.match(distrusting.logs, [{ level: 'warn', fields: { reason: /certificate/ } }])
  t.equal(await passed(distrusting, input(alice), 3), 2, 'it counts here; the password was not sent')
  const named = await startRedis(t, { tls: ca.issue({ dns: ['redis.example'], usage: 'server' }) })
  const elsewhere = await replica(t, named.url, limits, { caFile: join(folder, 'ca.pem') })
  t.match(elsewhere.logs, [{ fields: { reason: /does not match certificate's altnames/ } }])
})

t.test('after its end it says nothing more, and counts here', async (t) => {
  const server = await startRedis(t)
  const rates = await replica(t, server.url, [limit('user', 2)])
  rates.close()
  t.equal(await passed(rates, input(alice), 5), 2)
  await server.kill()
  t.same(rates.logs, [])
  const early = limiterOf([limit('user', 1)], { redis: policy(server.url) })
  early.close()
  await early.ready()
  t.same(early.logs, [], 'also when it had not begun')
})

t.test('a password that would cross the network in clear is warned of', async (t) => {
  const logged = (url: string, secret: string | undefined): unknown => {
    const password = secret === undefined ? undefined : { text: new Credential(secret) }
    const rates = limiterOf([limit('user', 1)], { redis: policy(url, { password }) })
    rates.close()
    return rates.logs
  }
  t.match(logged('redis://192.0.2.1', password), [
    { level: 'warn', text: /in clear/, fields: { redis: 'redis://192.0.2.1' } },
  ])
  t.same(logged('redis://192.0.2.1', undefined), [])
  t.same(logged('rediss://192.0.2.1', password), [])
  t.same(logged('redis://[::1]', password), [])
})
