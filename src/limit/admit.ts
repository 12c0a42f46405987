import { SidecarError } from '../core/errors.ts'
import { HeldBack } from '../core/held-back.ts'
import type { Draft, Handler, Layer } from '../core/pipeline.ts'
import type { Admitted, Deadline, Permitted } from '../core/types.ts'
import type { RateLimiter } from './rate.ts'
import { type Room, Tally } from './tally.ts'
import type { Timeouts } from './timeouts.ts'

export interface LimitOptions {
  readonly inFlightPerPrincipal: number
  /** Of all principals together; undefined: only what each may have counts. */
  readonly inFlight?: number | undefined
  /** Open `subscriptions/listen` of one principal; they are not in flight, they last. */
  readonly subscriptionsPerPrincipal: number
  readonly requestTimeoutMs: number
  readonly maxRequestTimeoutMs: number
  /** How long a call may wait for an answer of its own client. */
  readonly clientInputMs: number
  /** For initialize, which includes the start of the server process. */
  readonly startTimeoutMs: number
  /** Instead of the times above, for some methods and tools; never for initialize. */
  readonly timeouts?: Timeouts | undefined
  readonly rates?: Pick<RateLimiter, 'check'> | undefined
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
 * Holds each request against the rate limits, caps those in flight and the subscriptions, and gives each its deadline.
 * Notifications and responses of a client are not counted.
 *
 * Waits only where the rate limits do. Requests of one connection must then be handed in one after the other, or later
 * ones overtake; notifications and responses wait for the requests of their session.
 *
 * @throws ERR_RATE_LIMITED, ERR_OVERLOADED, ERR_DRAINING, all with Retry-After
 */
export function limiter(options: () => LimitOptions): Limiter {
  const calls = new Tally('requests in flight', 'limits.inFlight')
  const subscriptions = new Tally('subscriptions', 'limits.subscriptions')
  /** What waits for the rate limits. */
  const waiting = new HeldBack()
  let draining = false

  function refuseWhileDraining(): void {
    if (draining)
      throw new SidecarError('ERR_DRAINING', { headers: { 'Retry-After': '1', Connection: 'close' } })
  }

  function admitRequest(
    permitted: Permitted,
    limits: LimitOptions,
    next: Handler<Admitted>,
  ): void | Promise<void> {
    const { message, principal, exchange, era } = permitted
    refuseWhileDraining()
    const lasts = message.method === 'subscriptions/listen' && era === 'modern'
    const tally = lasts ? subscriptions : calls
    const room: Room = lasts
      ? { perPrincipal: limits.subscriptionsPerPrincipal, inAll: undefined }
      : { perPrincipal: limits.inFlightPerPrincipal, inAll: limits.inFlight }
    // Before the charge: a caller without room here would spend what others share with it, and get nothing for it.
    tally.add(principal.id, room)
    // Of a refusal, too: whoever hands a message in settles it with what is thrown here.
    exchange.onSettled(() => tally.remove(principal.id))
    const pending = limits.rates?.check(permitted)
    if (pending === undefined) return proceed(permitted, limits, next)
    const entered = pending.then(() => {
      if (exchange.settled) return
      refuseWhileDraining()
      return proceed(permitted, limits, next)
    })
    return waiting.hold(permitted.sessionId, entered)
  }

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
      const { message, sessionId } = permitted
      if (message.kind === 'request') return admitRequest(permitted, limits, next)
      const earlier = waiting.earlier(sessionId)
      if (earlier !== undefined) return earlier.then(() => proceed(permitted, limits, next))
      return proceed(permitted, limits, next)
    },
  }
}

function proceed(permitted: Permitted, limits: LimitOptions, next: Handler<Admitted>): void | Promise<void> {
  const admitted = permitted as Draft<Admitted>
  admitted.deadline = deadlineOf(permitted, limits)
  return next(admitted)
}

function deadlineOf({ message: { method }, operation }: Permitted, limits: LimitOptions): Deadline {
  const { maxRequestTimeoutMs, clientInputMs: inputMs } = limits
  if (method === 'initialize') return deadline(limits.startTimeoutMs, maxRequestTimeoutMs, inputMs)
  const own = limits.timeouts?.(method, operation)
  if (own !== undefined) return deadline(own.timeoutMs, own.maxMs, inputMs)
  return deadline(limits.requestTimeoutMs, maxRequestTimeoutMs, inputMs)
}

function deadline(timeoutMs: number, maxMs: number, inputMs: number): Deadline {
  return { timeoutMs, maxMs: Math.max(timeoutMs, maxMs), inputMs }
}
