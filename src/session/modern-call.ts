import { metaKey } from '../core/envelope.ts'
import type { SidecarError } from '../core/errors.ts'
import type { Exchange } from '../core/exchange.ts'
import { member } from '../core/json.ts'
import type { Message, Span } from '../core/jsonrpc.ts'
import type { Admitted, CallHandle, Deadline, ModernCall, Principal } from '../core/types.ts'
import { type Edit, type Wire, wireLength } from '../core/wire.ts'
import type { Target } from './flow.ts'

/** What a call needs of the client it belongs to. */
export interface ModernHome {
  /** Accounts for what the client has not read; may end the call. */
  wrote(call: StatelessCall, target: Target, bytes: number): void
  dropped(what: string): void
  settled(call: StatelessCall): void
}

/** Statuses that tell a client what went wrong before it reads the body (basic/transports, "Sending Messages"). */
const errorStatus: Readonly<Record<string, number>> = {
  '-32601': 404,
  '-32020': 400,
  '-32021': 400,
  '-32022': 400,
}

/** One request of a modern client, with the caller's id, progress token and subscription id put back in. */
export class StatelessCall implements ModernCall {
  readonly message: Message
  readonly principal: Principal
  readonly deadline: Deadline
  readonly logLevel: string | undefined
  /** Its id as a map key. */
  readonly key: string
  handle: CallHandle | undefined
  /** Where its home keeps it. */
  place = -1
  readonly #exchange: Exchange
  readonly #home: ModernHome

  constructor({ message, principal, deadline, exchange }: Admitted, home: ModernHome) {
    this.message = message
    this.principal = principal
    this.deadline = deadline
    this.logLevel = message.metaString('logLevel')
    this.key = message.idKey as string
    this.#exchange = exchange
    this.#home = home
  }

  get isSubscription(): boolean {
    return this.message.method === 'subscriptions/listen'
  }

  get reachable(): boolean {
    return this.#exchange.attached
  }

  /** Where its messages go: a response of its own, or what all calls of a connection share. */
  get target(): Target {
    return this.#exchange.outlet ?? this.#exchange
  }

  progress(message: Message): void {
    const token = this.message.progressToken as Span
    const at = message.paramSpans.progressToken as Span
    this.#send(message.wireWith({ ...at, text: this.message.binary(token) }))
  }

  notify(message: Message): void {
    const at = message.metaSpans?.subscriptionId
    this.#send(at === undefined ? message.wire : message.wireWith({ ...at, text: this.#ownId }))
  }

  answer(message: Message): void {
    const exchange = this.#exchange
    if (exchange.settled) return
    const filtered = exchange.filtered(message)
    const { start, end } = filtered.id as Span
    const idEdit = { start, end, text: this.#ownId }
    const wire = this.isSubscription
      ? filtered.wireWith(...this.#subscriptionEdits(filtered, idEdit))
      : filtered.wireWith(idEdit)
    if (filtered.isError) exchange.setStatus(statusOf(filtered))
    exchange.answer(wire, filtered.isError)
    this.#home.wrote(this, this.target, wireLength(wire))
    this.#home.settled(this)
  }

  fail(error: SidecarError): void {
    this.#exchange.fail(error)
    this.#home.settled(this)
  }

  /** The client does not want the answer any more. */
  cancel(reason: string): void {
    if (this.#exchange.settled) return
    this.handle?.cancel(reason)
    this.#exchange.finish('cancelled')
    this.#home.settled(this)
  }

  /** The connection, or the sidecar, ends while the call is in flight. */
  abort(error: SidecarError): void {
    if (this.#exchange.settled) return
    this.handle?.cancel('the client was disconnected')
    this.fail(error)
  }

  destroy(): void {
    this.#exchange.destroy()
  }

  #send(wire: Wire): void {
    const exchange = this.#exchange
    if (exchange.settled) return
    if (!exchange.attached) {
      this.#home.dropped('client_gone')
      return
    }
    if (!exchange.streaming) exchange.begin(undefined)
    exchange.send(wire)
    this.#home.wrote(this, this.target, wireLength(wire))
  }

  #subscriptionEdits(answer: Message, idEdit: Edit): Edit[] {
    const at = member(answer.bytes, answer.resultSpans?._meta, metaKey('subscriptionId'))
    if (at === undefined) return [idEdit]
    return [idEdit, { ...at, text: this.#ownId }].sort((a, b) => a.start - b.start)
  }

  get #ownId(): string {
    return this.message.binary(this.message.id as Span)
  }
}

function statusOf(message: Message): number {
  const code = member(message.bytes, message.error, 'code')
  return code === undefined ? 200 : (errorStatus[message.text(code)] ?? 200)
}
