import { localEnvelope } from '../core/envelope.ts'
import type { SidecarError } from '../core/errors.ts'
import type { Message } from '../core/jsonrpc.ts'
import { localRequest } from '../core/local.ts'
import {
  anonymous,
  type CallHandle,
  type Deadline,
  type ModernCall,
  type Principal,
  type Timer,
} from '../core/types.ts'
import type { Link } from './link.ts'

/** Its end is the server's or the client's choice. */
export const forever: Deadline = {
  timeoutMs: Number.POSITIVE_INFINITY,
  maxMs: Number.POSITIVE_INFINITY,
  inputMs: Number.POSITIVE_INFINITY,
}

/** A `subscriptions/listen` of a caller, which outlives the process that serves it: it is opened again on the next. */
export class Subscription implements ModernCall, CallHandle {
  readonly message: Message
  readonly principal: Principal
  readonly deadline = forever
  readonly logLevel = undefined
  /** On the process of the moment. */
  handle: CallHandle | undefined
  readonly #call: ModernCall
  readonly #onOver: () => void
  #acknowledged = false
  #over = false

  constructor(call: ModernCall, onOver: () => void) {
    this.message = call.message
    this.principal = call.principal
    this.#call = call
    this.#onOver = onOver
  }

  get reachable(): boolean {
    return this.#call.reachable
  }

  progress(): void {}

  notify(message: Message): void {
    if (message.method === 'notifications/subscriptions/acknowledged') {
      // A later one is the answer of the next process to our asking, not to the caller's.
      if (this.#acknowledged) return
      this.#acknowledged = true
    }
    this.#call.notify(message)
  }

  answer(message: Message): void {
    if (this.#finish()) this.#call.answer(message)
  }

  /** The process ended; see {@link end}. */
  fail(error: SidecarError): void {
    if (error.code !== 'ERR_UPSTREAM_EXIT') this.end(error)
  }

  cancel(reason: string | undefined): void {
    if (this.#finish()) this.handle?.cancel(reason)
  }

  waitForInput(): void {}

  /** No process will come any more. */
  end(error: SidecarError): void {
    if (this.#finish()) this.#call.fail(error)
  }

  #finish(): boolean {
    if (this.#over) return false
    this.#over = true
    this.#onOver()
    return true
  }
}

/** After a stream that has lasted this long the next pause is short again. Milliseconds. */
const goodMs = 60_000
const firstPauseMs = 1000
const maxPauseMs = 60_000

/** Errors after which there is no point in asking again: no such method, and not with these params. */
const finalErrors: ReadonlySet<unknown> = new Set([-32601, -32602])

/** What becomes of a {@link ListWatch}. */
export interface ListEvents {
  onChanged(message: Message): void
  /** It is listened to again; in between nothing was heard. */
  onReopened(): void
}

/**
 * The sidecar's own subscription to what one process says of its lists, for whoever wants to know: servers bound the
 * number of their subscriptions, so clients that need none of their own share this one.
 */
export class ListWatch implements ModernCall {
  readonly message: Message
  readonly principal = anonymous
  readonly deadline = forever
  readonly logLevel = undefined
  readonly reachable = false
  readonly #link: Link
  readonly #methods: ReadonlySet<string>
  readonly #events: ListEvents
  #open = false
  #acknowledgedAt: number | undefined
  /** Streams in a row that did not last. */
  #failures = 0
  #pause: Timer | undefined
  #stopped = false

  /**
   * @param lists those that may change, as their capabilities are called
   * @param version the sidecar's own
   */
  constructor(link: Link, lists: readonly string[], version: string, events: ListEvents) {
    this.#link = link
    this.#methods = new Set(lists.map((list) => `notifications/${list}/list_changed`))
    this.#events = events
    this.message = localRequest('subscriptions/listen', {
      notifications: Object.fromEntries(lists.map((list) => [`${list}ListChanged`, true])),
      _meta: localEnvelope(version),
    })
    this.#send()
  }

  /** The server has the request. */
  get open(): boolean {
    return this.#open
  }

  /** The process is ending, and the stream with it. */
  stop(): void {
    this.#stopped = true
    this.#pause?.cancel()
  }

  progress(): void {}

  notify(message: Message): void {
    const { clock, metrics } = this.#link.context
    if (message.method === 'notifications/subscriptions/acknowledged') this.#acknowledgedAt ??= clock.now()
    else if (this.#methods.has(message.method)) this.#events.onChanged(message)
    else metrics.dropped('unwanted_notification')
  }

  answer(message: Message): void {
    const { error } = message.parsed() as { error?: { code?: unknown } | null }
    this.#over(finalErrors.has(error?.code))
  }

  fail(): void {
    this.#over(false)
  }

  #send(): void {
    this.#open = true
    this.#acknowledgedAt = undefined
    this.#link.call(this, undefined)
  }

  #over(final: boolean): void {
    this.#open = false
    if (final || this.#stopped || this.#link.ended !== undefined) return
    const { clock } = this.#link.context
    const now = clock.now()
    this.#failures = now - (this.#acknowledgedAt ?? now) >= goodMs ? 1 : this.#failures + 1
    this.#pause = clock.after(Math.min(maxPauseMs, firstPauseMs * 2 ** (this.#failures - 1)), () => {
      this.#send()
      this.#events.onReopened()
    })
  }
}
