/** The ways back to a client. Transports implement the writing; stages hook in here. */
import type { SidecarError } from './errors.ts'
import type { Message } from './jsonrpc.ts'
import type { Wire } from './wire.ts'

/** A sequence of messages to one client. */
export interface Outlet {
  /** Bytes written and not yet taken by the network, in whole writes. */
  readonly queuedBytes: number
  /** Changes while the network takes something of a large write. */
  readonly pulse: number
  /** @param eventId the SSE event id, on transports that have them */
  send(wire: Wire, eventId?: string): void
  /** Calls once when everything written has left, or the outlet has closed. */
  onceDrained(then: () => void): void
  /** Cuts it off, whatever was written. */
  destroy(): void
  /** Ends it, after what was written; with an error where the transport can tell it. */
  close(error?: SidecarError): void
  /** Calls once when it is closed, by whichever side. */
  onClosed(then: () => void): void
}

export type Outcome = 'ok' | 'error' | 'cancelled' | SidecarError['code']

/** Rewrites an answer on its way back (list filtering). */
export type AnswerFilter = (answer: Message) => Message

/**
 * The way back for one message of a client: anything that precedes the answer, then exactly one answer. Later
 * answers are ignored. Everything happens synchronously, so what the server wrote first arrives first.
 */
export abstract class Exchange {
  #settled = false
  #filters: AnswerFilter[] | undefined
  #observers: ((outcome: Outcome, error?: SidecarError) => void)[] | undefined

  get settled(): boolean {
    return this.#settled
  }

  /** True if messages other than the answer can be sent here (not on a POST whose client has gone). */
  abstract readonly attached: boolean
  /** True once something has been sent before the answer. */
  abstract readonly streaming: boolean
  /** The long-lived outlet that this exchange writes to, if it is not a response of its own. */
  abstract readonly outlet: Outlet | undefined
  abstract readonly queuedBytes: number
  /** As of an Outlet. */
  abstract readonly pulse: number
  abstract onceDrained(then: () => void): void
  /** Cuts off what has not been read. */
  abstract destroy(): void
  /** Calls at most once, if the client goes, or has gone, before the answer has left (a closed HTTP response). */
  abstract onGone(then: () => void): void
  /** Opens the stream before its first message; `primingId` makes it resumable from the start. */
  abstract begin(primingId: string | undefined): void
  abstract send(wire: Wire, eventId?: string): void
  protected abstract writeAnswer(wire: Wire, eventId?: string): void
  protected abstract writeError(error: SidecarError, eventId?: string): void
  protected abstract writeNothing(): void
  /** HTTP status of an answer that is an error, if nothing has been written yet; 200 if it is not set. */
  setStatus(_status: number): void {}
  /** Response headers to set if nothing has been written yet (the session id). */
  abstract setHeader(name: string, value: string): void

  onAnswer(filter: AnswerFilter): void {
    this.#filters ??= []
    this.#filters.push(filter)
  }

  /** Calls once with how it ended. */
  onSettled(observer: (outcome: Outcome, error?: SidecarError) => void): void {
    this.#observers ??= []
    this.#observers.push(observer)
  }

  /** The server's answer after all filters, the last pushed first; to be passed to {@link answer}. */
  filtered(answer: Message): Message {
    let current = answer
    for (const filter of this.#filters?.toReversed() ?? []) current = filter(current)
    return current
  }

  answer(wire: Wire, isError: boolean, eventId?: string): void {
    if (this.#settled) return
    this.#settled = true
    try {
      this.writeAnswer(wire, eventId)
    } finally {
      this.#notify(isError ? 'error' : 'ok')
    }
  }

  fail(error: SidecarError, eventId?: string): void {
    if (this.#settled) return
    this.#settled = true
    try {
      this.writeError(error, eventId)
    } finally {
      this.#notify(error.code, error)
    }
  }

  /** Nothing (more) is answered: an accepted notification or response, or a cancelled request. */
  finish(outcome: Outcome): void {
    if (this.#settled) return
    this.#settled = true
    try {
      this.writeNothing()
    } finally {
      this.#notify(outcome)
    }
  }

  #notify(outcome: Outcome, error?: SidecarError): void {
    for (const observer of this.#observers ?? []) observer(outcome, error)
  }
}
