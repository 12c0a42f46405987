import { SidecarError } from '../core/errors.ts'
import type { Draft, Layer } from '../core/pipeline.ts'
import type { Admitted, Deadline, Permitted } from '../core/types.ts'

export interface LimitOptions {
  readonly inFlightPerPrincipal: number
  /** Open `subscriptions/listen` of one principal; they are not in flight, they last. */
  readonly subscriptionsPerPrincipal: number
  readonly requestTimeoutMs: number
  readonly maxRequestTimeoutMs: number
  /** How long a call may wait for an answer of its own client. */
  readonly clientInputMs: number
  /** For initialize, which includes the start of the server process. */
  readonly startTimeoutMs: number
}

export interface Limiter {
  readonly admit: Layer<Permitted, Admitted>
  /** Requests in flight. */
  readonly inFlight: number
  /** Open subscriptions. */
  readonly subscriptions: number
  /** New requests are refused from now on; answers and notifications for those in flight still pass. */
  drain(): void
}

/**
 * Caps the requests of one principal that are in flight, and its subscriptions, and gives each its deadline.
 *
 * @throws ERR_OVERLOADED, ERR_DRAINING, both with Retry-After
 */
export function limiter(options: () => LimitOptions): Limiter {
  const calls = new Tally('requests in flight', 'limits.inFlightPerPrincipal')
  const subscriptions = new Tally('subscriptions', 'limits.subscriptionsPerPrincipal')
  let draining = false
  return {
    get inFlight() {
      return calls.total
    },
    get subscriptions() {
      return subscriptions.total
    },
    drain() {
      draining = true
    },
    admit(permitted, next) {
      const limits = options()
      const { message, principal, exchange } = permitted
      if (message.kind === 'request') {
        if (draining)
          throw new SidecarError('ERR_DRAINING', { headers: { 'Retry-After': '1', Connection: 'close' } })
        const lasts = message.method === 'subscriptions/listen' && permitted.era === 'modern'
        const tally = lasts ? subscriptions : calls
        tally.add(principal.id, lasts ? limits.subscriptionsPerPrincipal : limits.inFlightPerPrincipal)
        exchange.onSettled(() => tally.remove(principal.id))
      }
      const admitted = permitted as Draft<Admitted>
      admitted.deadline = deadlineOf(message.method, limits)
      return next(admitted)
    },
  }
}

/** How many of something each principal has. */
class Tally {
  readonly #what: string
  readonly #setting: string
  readonly #counts = new Map<string, number>()
  total = 0

  constructor(what: string, setting: string) {
    this.#what = what
    this.#setting = setting
  }

  /** @throws ERR_OVERLOADED with Retry-After */
  add(principalId: string, most: number): void {
    const count = this.#counts.get(principalId) ?? 0
    if (count >= most) {
      throw new SidecarError('ERR_OVERLOADED', {
        detail: `${principalId} has ${count} ${this.#what} (${this.#setting})`,
        headers: { 'Retry-After': '1' },
      })
    }
    this.#counts.set(principalId, count + 1)
    this.total++
  }

  remove(principalId: string): void {
    this.total--
    const left = (this.#counts.get(principalId) ?? 1) - 1
    if (left === 0) this.#counts.delete(principalId)
    else this.#counts.set(principalId, left)
  }
}

function deadlineOf(method: string, limits: LimitOptions): Deadline {
  const timeoutMs = method === 'initialize' ? limits.startTimeoutMs : limits.requestTimeoutMs
  return { timeoutMs, maxMs: Math.max(timeoutMs, limits.maxRequestTimeoutMs), inputMs: limits.clientInputMs }
}
