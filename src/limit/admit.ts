import { SidecarError } from '../core/errors.ts'
import type { Draft, Layer } from '../core/pipeline.ts'
import type { Admitted, Deadline, Permitted } from '../core/types.ts'

export interface LimitOptions {
  readonly inFlightPerPrincipal: number
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
  /** New requests are refused from now on; answers and notifications for those in flight still pass. */
  drain(): void
}

/**
 * Caps the requests of one principal that are in flight, and gives each its deadline.
 *
 * @throws ERR_OVERLOADED, ERR_DRAINING, both with Retry-After
 */
export function limiter(options: () => LimitOptions): Limiter {
  const counts = new Map<string, number>()
  let total = 0
  let draining = false
  return {
    get inFlight() {
      return total
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
        const count = counts.get(principal.id) ?? 0
        if (count >= limits.inFlightPerPrincipal) {
          throw new SidecarError('ERR_OVERLOADED', {
            detail: `${principal.id} has ${count} requests in flight (limits.inFlightPerPrincipal)`,
            headers: { 'Retry-After': '1' },
          })
        }
        counts.set(principal.id, count + 1)
        total++
        exchange.onSettled(() => {
          total--
          const left = (counts.get(principal.id) ?? 1) - 1
          if (left === 0) counts.delete(principal.id)
          else counts.set(principal.id, left)
        })
      }
      const admitted = permitted as Draft<Admitted>
      admitted.deadline = deadlineOf(message.method, limits)
      return next(admitted)
    },
  }
}

function deadlineOf(method: string, limits: LimitOptions): Deadline {
  const timeoutMs = method === 'initialize' ? limits.startTimeoutMs : limits.requestTimeoutMs
  return { timeoutMs, maxMs: Math.max(timeoutMs, limits.maxRequestTimeoutMs), inputMs: limits.clientInputMs }
}
