import type { SidecarError } from '../core/errors.ts'
import type { Message } from '../core/jsonrpc.ts'
import type { CallHandle, Deadline, ModernCall, Principal } from '../core/types.ts'

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
