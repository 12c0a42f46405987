import { SidecarError } from '../core/errors.ts'
import { anyGlob } from '../core/glob.ts'
import { addressGroup } from '../core/net.ts'
import type { Operation } from '../core/operation.ts'
import { type RateLimit, type RatePolicy, rateDimensions } from '../core/policy.ts'
import { sha256 } from '../core/secret.ts'
import type { Clock, Logger, Permitted, Principal } from '../core/types.ts'
import { type Charge, type CountedLimit, type Full, LimitError, longestMs, type RateStore } from './charge.ts'
import { LocalStore } from './local.ts'
import { type RateMetrics, RedisStore } from './redis.ts'

/** Each request is held against each limit. */
const mostLimits = 100
const shortestMs = 1000
const mostGroups = 10_000

export type RateInput = Pick<Permitted, 'principal' | 'clientAddress' | 'operation'>

export interface RateDeps {
  readonly clock: Clock
  readonly log: Logger
  readonly metrics: RateMetrics
  /** The text of a file (a password, a CA bundle). @throws Error */
  readText(file: string): string
}

export interface RateLimiter {
  /**
   * Charges a request to every limit that it falls under, or to none if one of them is full. Returns at once where
   * counts are kept in this process.
   *
   * @throws ERR_RATE_LIMITED with Retry-After, the longest wait; ERR_OVERLOADED when Redis is away and that refuses
   */
  check(input: RateInput): void | Promise<void>
  /** Resolves when Redis has answered, or is known to be away; at once without Redis. Never rejects. */
  ready(): Promise<void>
  /** Ends the connection to Redis. What is checked later counts as while Redis is away. */
  close(): void
}

interface Rule extends CountedLimit {
  /** Undefined: every operation. */
  readonly covers: ((operation: Operation) => boolean) | undefined
  readonly keyOf: (input: RateInput) => string
}

/**
 * Rate limits over windows of one second to 24.8 days that open with the first request of a key, so that around the
 * boundary of two windows up to twice the limit can pass. All limits count; a request that one of them refuses is
 * charged to none. Only requests of clients are to be checked.
 *
 * Without Redis, and while it is away, counts are those of this process: behind N replicas N times the limit can pass. A
 * limit keeps 100,000 keys; further ones share counts (see Windows).
 *
 * @throws LimitError for limits that cannot be kept, a Redis that cannot be one, and unreadable files
 */
export function rateLimits(policy: RatePolicy, deps: RateDeps): RateLimiter {
  if (policy.limits.length > mostLimits)
    throw new LimitError(`there are ${policy.limits.length} rate limits; at most ${mostLimits} can be kept`)
  const rules = distinct(policy.limits).map((limit, index) => ruleOf(limit, index, policy.namespace))
  const local = new LocalStore(rules, deps.clock, deps.log)
  const redis =
    policy.redis && rules.length > 0 ? new RedisStore(rules, policy.redis, local, deps) : undefined
  const store: RateStore = redis ?? local
  return {
    check(input) {
      const charges: Charge[] = []
      for (const rule of rules) {
        if (rule.covers === undefined || rule.covers(input.operation))
          charges.push({ limit: rule, key: rule.keyOf(input) })
      }
      if (charges.length === 0) return
      const full = store.charge(charges)
      if (full instanceof Promise) return full.then((each) => refuseIf(each, input.principal))
      refuseIf(full, input.principal)
    },
    ready: () => redis?.ready ?? Promise.resolve(),
    close: () => redis?.close(),
  }
}

/** The same limit twice, from two documents, is one limit. */
function distinct(limits: readonly RateLimit[]): readonly RateLimit[] {
  const seen = new Set<string>()
  return limits.filter((limit) => {
    const identity = identityOf(limit)
    return !seen.has(identity) && seen.add(identity)
  })
}

function identityOf({ name, dimension, tools, requests, windowMs }: RateLimit): string {
  return JSON.stringify([name, dimension, [...tools].sort(), requests, windowMs])
}

function ruleOf(limit: RateLimit, index: number, namespace: string): Rule {
  const { name, dimension, requests, windowMs } = limit
  const wrong = (what: string): LimitError => new LimitError(`rate limit ${JSON.stringify(name)}: ${what}`)
  if (!Number.isSafeInteger(requests) || requests < 1)
    throw wrong(`requests is ${requests}; it must be a whole number of at least 1`)
  if (!Number.isSafeInteger(windowMs) || windowMs < shortestMs || windowMs > longestMs)
    throw wrong(`its window of ${windowMs} ms must be from 1 second to 24.8 days (${longestMs} ms)`)
  if (!rateDimensions.includes(dimension))
    throw wrong(`${JSON.stringify(dimension)} is no dimension; there are ${rateDimensions.join(', ')}`)
  const id = sha256(identityOf(limit)).toString('hex', 0, 8)
  return { index, id, name, requests, windowMs, covers: coverage(limit), keyOf: keyOf(dimension, namespace) }
}

function coverage({ dimension, tools }: RateLimit): Rule['covers'] {
  if (tools.length > 0) {
    const fits = anyGlob(tools)
    // One whose name cannot be read here may be any of them to the server.
    return ({ action, targets: [target] }) =>
      action === 'tools/call' && (target === undefined || fits(target.name))
  }
  return dimension === 'tool' ? (operation) => operation.action === 'tools/call' : undefined
}

/** No text of one kind can be taken for another: each dimension has its own counts, and `user` marks what it counts. */
function keyOf(dimension: RateLimit['dimension'], namespace: string): (input: RateInput) => string {
  switch (dimension) {
    case 'user':
      return ({ principal: { kind, subject, id } }) => (kind === 'user' ? `u:${subject}` : `p:${id}`)
    case 'principal':
      return ({ principal }) => principal.id
    case 'ip':
      return groups()
    case 'tool':
      return ({ operation }) => toolOf(operation)
    case 'namespace':
      return ({ principal }) => namespaceOf(principal) ?? namespace
  }
}

/** The networks of the latest IPv6 addresses are kept: to find one takes longer than all the rest of a check. */
function groups(): (input: RateInput) => string {
  const known = new Map<string, string>()
  return ({ clientAddress }) => {
    const group = known.get(clientAddress) ?? addressGroup(clientAddress)
    if (group !== clientAddress && !known.has(clientAddress)) {
      if (known.size >= mostGroups) known.clear()
      known.set(clientAddress, group)
    }
    return group
  }
}

/** Empty for a call that names none. */
function toolOf(operation: Operation): string {
  return operation.targets[0]?.name ?? ''
}

/** The subject of a service account is `NAMESPACE/NAME`. */
function namespaceOf({ kind, subject }: Principal): string | undefined {
  return kind === 'serviceaccount' ? subject.slice(0, Math.max(0, subject.indexOf('/'))) : undefined
}

function refuseIf(full: readonly Full[], principal: Principal): void {
  if (full.length === 0) return
  const waitMs = Math.max(...full.map((each) => each.waitMs))
  const limits = full.map(({ limit }) => `${limit.name} (${limit.requests} in ${limit.windowMs} ms)`)
  throw new SidecarError('ERR_RATE_LIMITED', {
    detail: `${principal.id} is over ${limits.join(', ')}; room in ${Math.ceil(waitMs)} ms`,
    headers: { 'Retry-After': String(Math.max(1, Math.ceil(waitMs / 1000))) },
    verdict: { layer: 'rate-limit', ids: full.map(({ limit }) => limit.name) },
  })
}
