import type { CallHandle, Clock, UpstreamCall } from '../core/types.ts'
import type { Deadlined } from './pending.ts'

/** What it is on its way over. */
export interface CallLink {
  readonly context: { readonly clock: Clock }
  abandon(call: LinkCall, reason: string | undefined): void
}

/** A call on its way over a link, as the link and its caller know it. */
export class LinkCall implements Deadlined, CallHandle {
  readonly id: number
  readonly call: UpstreamCall
  readonly owner: unknown
  deadline: number
  readonly #link: CallLink
  /** When it is given up in any case. */
  readonly #end: number
  #waits = 0

  constructor(link: CallLink, id: number, call: UpstreamCall, owner: unknown, now: number) {
    this.#link = link
    this.id = id
    this.call = call
    this.owner = owner
    this.#end = now + call.deadline.maxMs
    this.deadline = Math.min(this.#end, now + call.deadline.timeoutMs)
  }

  cancel(reason: string | undefined): void {
    this.#link.abandon(this, reason)
  }

  waitForInput(waiting: boolean): void {
    this.#waits += waiting ? 1 : -1
    this.#move(this.#waits > 0 ? Number.POSITIVE_INFINITY : this.call.deadline.timeoutMs)
  }

  /** Progress starts the timeout anew, within the hard limit. */
  progressed(): void {
    if (this.#waits === 0) this.#move(this.call.deadline.timeoutMs)
  }

  #move(ms: number): void {
    this.deadline = Math.min(this.#end, this.#link.context.clock.now() + ms)
  }
}
