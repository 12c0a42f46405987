/** What tests of the limits need: callers, operations, and time that passes when told to. */
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { SidecarError } from '../../src/core/errors.ts'
import type { Operation } from '../../src/core/operation.ts'
import type { RateLimit, RatePolicy } from '../../src/core/policy.ts'
import { anonymous, type Clock, type Logger, type Principal } from '../../src/core/types.ts'
import { type RateDeps, type RateInput, type RateLimiter, rateLimits } from '../../src/limit/rate.ts'

export interface LogLine {
  readonly level: string
  readonly text: string
  readonly fields: object
}

export function logInto(lines: LogLine[]): Logger {
  const at = (level: string) => (fields: object, text: string) => void lines.push({ level, text, fields })
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}

/** Waits until this holds, looking often. */
export async function soon(
  holds: () => boolean | Promise<boolean>,
  what: string,
  ms = 10_000,
): Promise<void> {
  const end = performance.now() + ms
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`waited ${ms} ms in vain: ${what}`)
    await sleep(10)
  }
}

export interface ManualClock extends Clock {
  pass(ms: number): void
}

/** Monotonic time that does not begin at zero. */
export function manualClock(): ManualClock {
  let now = 123_456.5
  return {
    now: () => now,
    epoch: () => now,
    after: () => {
      throw new Error('limits need no timers')
    },
    pass(ms) {
      now += ms
    },
  }
}

export function user(subject: string): Principal {
  return { ...anonymous, id: `jwt:${subject}`, method: 'jwt', kind: 'user', subject }
}

/** @param subject `NAMESPACE/NAME` */
export function serviceAccount(subject: string): Principal {
  return { ...user(subject), id: `kubernetes:${subject}`, method: 'kubernetes', kind: 'serviceaccount' }
}

export function toolCall(...names: string[]): Operation {
  const targets = names.map((name) => ({ type: 'tool' as const, name }))
  return { kind: 'use', action: 'tools/call', targets, list: undefined }
}

export const ping: Operation = { kind: 'free', action: undefined, targets: [], list: undefined }

export function input(
  principal: Principal,
  operation: Operation = ping,
  clientAddress = '192.0.2.1',
): RateInput {
  return { principal, operation, clientAddress }
}

export function limit(
  dimension: RateLimit['dimension'],
  requests: number,
  rest: Partial<RateLimit> = {},
): RateLimit {
  return { name: `per-${dimension}`, dimension, tools: [], requests, windowMs: 10_000, ...rest }
}

export interface TestLimiter extends RateLimiter {
  readonly clock: ManualClock
  readonly logs: readonly LogLine[]
  /** Whether the shared store could be reached, in the order in which it was told. */
  readonly reachable: readonly boolean[]
}

export function limiterOf(limits: readonly RateLimit[], rest: Partial<RatePolicy> = {}): TestLimiter {
  const logs: LogLine[] = []
  const reachable: boolean[] = []
  const clock = manualClock()
  const deps: RateDeps = {
    clock,
    log: logInto(logs),
    metrics: { rateStore: (now) => reachable.push(now) },
    readText: (file) => readFileSync(file, 'utf8'),
  }
  const rates = rateLimits({ limits, namespace: 'ours', redis: undefined, ...rest }, deps)
  return { ...rates, clock, logs, reachable }
}

/** The refusal of something that does not wait, or undefined when it passed. */
export function refusalOf(check: () => unknown): SidecarError | undefined {
  try {
    if (check() !== undefined) throw new Error('it returned something')
    return undefined
  } catch (thrown) {
    if (thrown instanceof SidecarError) return thrown
    throw thrown
  }
}

/** The same of one that may wait. */
export async function laterRefusalOf(check: () => void | Promise<void>): Promise<SidecarError | undefined> {
  try {
    await check()
    return undefined
  } catch (thrown) {
    if (thrown instanceof SidecarError) return thrown
    throw thrown
  }
}
