import type { Redis } from 'ioredis'
import type { RateLimiterRedis, RateLimiterRes } from 'rate-limiter-flexible'
import { SidecarError } from '../core/errors.ts'
import { isLoopback } from '../core/net.ts'
import { sha256 } from '../core/secret.ts'
import type { Logger } from '../core/types.ts'
import type { Charge, CountedLimit, Full, RateStore } from './charge.ts'
import type { LocalStore } from './local.ts'
import { passwordOf, type RedisPolicy, redisOptions } from './redis-options.ts'

export interface RateMetrics {
  /** Whether the shared store of the rate limits can be reached. */
  rateStore(reachable: boolean): void
}

export interface RedisDeps {
  readonly log: Logger
  readonly metrics: RateMetrics
  readText(file: string): string
}

/**
 * In place of the library's script, which goes on counting what it refuses, knows whole seconds alone, and makes a
 * debt of a refund that comes after its window. KEYS: the count. ARGV: points (0: a look; negative: a refund), whole seconds
 * (unused), the limit, the window in seconds. Returns the count, or one more than the limit when there is no room, and
 * what is left of the window in milliseconds.
 */
const script = `
local points = tonumber(ARGV[1])
local most = tonumber(ARGV[3])
local left = redis.call('pttl', KEYS[1])
if left < 0 then
  if points <= 0 then return {0, 0} end
  left = math.floor(tonumber(ARGV[4]) * 1000 + 0.5)
  redis.call('set', KEYS[1], points, 'PX', left)
  return {points, left}
end
local count = tonumber(redis.call('get', KEYS[1]))
if count + points > most then return {most + 1, left} end
if count + points < 0 then return {count, left} end
return {redis.call('incrby', KEYS[1], points), left}
`

const none: readonly Full[] = []
const probeKey = 'probe'

/**
 * Counts in Redis, for all replicas together. Keys are hashes: Redis learns no names and no addresses. Several limits
 * are looked at first and charged after that, in two round trips; where others take the last room in between, what was
 * charged already is given back, so that for the time of one round trip a limit may seem fuller than it is.
 *
 * Redis is away from the first command that fails or takes too long, or the loss of the connection, until a connection
 * counts again; it is tried about every second. What a lost answer had charged stays charged.
 */
export class RedisStore implements RateStore {
  /** Resolves when it is known whether Redis can be reached. Never rejects. */
  readonly ready: Promise<void>
  readonly #settle: () => void
  readonly #whenAway: RedisPolicy['whenAway']
  readonly #url: string
  readonly #local: LocalStore
  readonly #deps: RedisDeps
  #client: Redis | undefined
  #limiters: readonly RateLimiterRedis[] = []
  #reachable = false
  #told = false
  #closed = false

  /**
   * @param local counts while Redis is away, if it is to
   * @throws LimitError
   */
  constructor(limits: readonly CountedLimit[], policy: RedisPolicy, local: LocalStore, deps: RedisDeps) {
    this.#whenAway = policy.whenAway
    this.#url = policy.url
    this.#local = local
    this.#deps = deps
    let settle = (): void => {}
    this.ready = new Promise((resolve) => {
      settle = resolve
    })
    this.#settle = settle
    const options = redisOptions(policy, deps.readText)
    if (options.password !== undefined && options.tls === undefined && !isLoopback(options.host ?? ''))
      deps.log.warn(
        { redis: policy.url },
        'the password of Redis goes over the network in clear; rediss:// encrypts',
      )
    this.#connect(limits, policy, options).catch(this.#failed)
  }

  charge(charges: readonly Charge[]): readonly Full[] | Promise<readonly Full[]> {
    return this.#reachable ? this.#shared(charges) : this.#away(charges)
  }

  close(): void {
    this.#closed = true
    this.#reachable = false
    this.#client?.disconnect()
    this.#settle()
  }

  async #connect(
    limits: readonly CountedLimit[],
    policy: RedisPolicy,
    options: ReturnType<typeof redisOptions>,
  ): Promise<void> {
    // Loaded where they are needed: together they take a tenth of a second.
    const [{ Redis }, { RateLimiterRedis }] = await Promise.all([
      import('ioredis'),
      import('rate-limiter-flexible'),
    ])
    if (this.#closed) return
    const client = new Redis(options)
    this.#client = client
    const every = {
      storeClient: client,
      keyPrefix: policy.prefix,
      rejectIfRedisNotReady: true,
      customIncrTtlLuaScript: script,
    }
    const limiter = (points: number, windowMs: number): RateLimiterRedis =>
      new RateLimiterRedis({ ...every, points, duration: windowMs / 1000 })
    this.#limiters = limits.map(({ requests, windowMs }) => limiter(requests, windowMs))
    const probe = limiter(1, 1000)
    client.on('error', this.#failed)
    client.on('close', () => {
      this.#lost(new Error('the connection was closed'))
      this.#refreshPassword(client, policy)
    })
    // Whether it can count, and not only talk (a replica, no memory, no right): no request is to find out.
    client.on('ready', () => void outcome(probe.consume(probeKey)).then(() => this.#found(), this.#failed))
    await client.connect()
  }

  /** Secrets are replaced while we run; the next connection presents the one of that time. */
  #refreshPassword({ options }: Redis, policy: RedisPolicy): void {
    try {
      const password = passwordOf(policy, this.#deps.readText)
      if (password !== undefined) options.password = password
    } catch (thrown) {
      // In the middle of being replaced, perhaps: the next attempt looks again.
      this.#lost(thrown)
    }
  }

  async #shared(charges: readonly Charge[]): Promise<readonly Full[]> {
    try {
      if (charges.length > 1) {
        const full = await this.#look(charges)
        if (full.length > 0) return full
      }
      return await this.#consume(charges)
    } catch (thrown) {
      this.#lost(thrown)
      return this.#away(charges)
    }
  }

  #away(charges: readonly Charge[]): readonly Full[] {
    if (this.#whenAway === 'local') return this.#local.charge(charges)
    throw new SidecarError('ERR_OVERLOADED', {
      detail: 'Redis is away, and without it no request passes a rate limit (whenAway: refuse)',
      headers: { 'Retry-After': '1' },
    })
  }

  async #look(charges: readonly Charge[]): Promise<readonly Full[]> {
    // Not its `get`, which takes four commands.
    const looks = charges.map((charge) => this.#limiterOf(charge).penalty(keyOf(charge), 0))
    return (await Promise.all(looks)).flatMap(({ consumedPoints, msBeforeNext }, i) => {
      const { limit } = charges[i] as Charge
      return consumedPoints >= limit.requests ? [{ limit, waitMs: msBeforeNext }] : []
    })
  }

  async #consume(charges: readonly Charge[]): Promise<readonly Full[]> {
    const outcomes = await Promise.all(
      charges.map((charge) => outcome(this.#limiterOf(charge).consume(keyOf(charge)))),
    )
    const full = charges.flatMap(({ limit }, i) => {
      const refused = outcomes[i]
      return refused === undefined ? [] : [{ limit, waitMs: refused.msBeforeNext }]
    })
    if (full.length === 0) return none
    const charged = charges.filter((_, i) => outcomes[i] === undefined)
    await Promise.all(charged.map((charge) => this.#limiterOf(charge).reward(keyOf(charge)))).catch(
      this.#failed,
    )
    return full
  }

  #limiterOf({ limit }: Charge): RateLimiterRedis {
    return this.#limiters[limit.index] as RateLimiterRedis
  }

  #found(): void {
    if (this.#closed) return
    if (this.#told) this.#deps.log.info({ redis: this.#url }, 'Redis is back: rate limits are shared again')
    this.#told = false
    this.#reachable = true
    this.#deps.metrics.rateStore(true)
    this.#settle()
  }

  readonly #failed = (thrown: unknown): void => this.#lost(thrown)

  #lost(thrown: unknown): void {
    if (this.#closed) return
    this.#reachable = false
    // Of the error its message alone: the command that failed may be the one with the password.
    const reason = thrown instanceof Error ? thrown.message : String(thrown)
    if (!this.#told) {
      const meanwhile = this.#whenAway === 'local' ? 'are counted here alone' : 'refuse every request'
      this.#deps.log.warn({ redis: this.#url, reason }, `Redis is away: rate limits ${meanwhile} meanwhile`)
      this.#deps.metrics.rateStore(false)
    }
    this.#told = true
    this.#settle()
    // Also when it only did not answer in time: a new connection may lead somewhere else, and its `ready` tries anew.
    if (this.#client?.status === 'ready') this.#client.disconnect(true)
  }
}

/** A refusal, or undefined when there was room. The library rejects with both refusals and errors. */
function outcome(consumed: Promise<RateLimiterRes>): Promise<RateLimiterRes | undefined> {
  return consumed.then(
    () => undefined,
    (thrown: unknown) => {
      if (thrown instanceof Error) throw thrown
      return thrown as RateLimiterRes
    },
  )
}

function keyOf({ limit, key }: Charge): string {
  return `${limit.id}:${sha256(key).toString('base64url', 0, 16)}`
}
