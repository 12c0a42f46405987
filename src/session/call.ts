import type { SidecarError } from '../core/errors.ts'
import { rpcErrorText } from '../core/errors.ts'
import type { Exchange, Outlet } from '../core/exchange.ts'
import type { Message, Span } from '../core/jsonrpc.ts'
import type { CallHandle, Deadline, UpstreamCall } from '../core/types.ts'
import { type Wire, wireLength, wireOfText } from '../core/wire.ts'
import type { Target } from './flow.ts'
import type { ReplayBuffer } from './replay.ts'

/** What a call needs of its session. */
export interface CallHome {
  readonly replay: ReplayBuffer
  /** The client understands a priming event. */
  readonly primes: boolean
  admitWrite(): boolean
  wrote(target: Target, bytes: number): void
  dropped(what: string): void
  initialized(answer: Message, exchange: Exchange): void
  settled(call: SessionCall): void
}

/** One request of a client, from the session to the server and back, with the caller's id and token put back in. */
export class SessionCall implements UpstreamCall {
  /** Its id as a map key. */
  readonly key: string
  readonly message: Message
  readonly deadline: Deadline
  handle: CallHandle | undefined
  /** Its number among the session's resumable streams, once something preceded the answer. */
  stream: number | undefined
  readonly #exchange: Exchange
  readonly #home: CallHome
  /** A later GET on which the client resumed this call's stream. */
  #resumed: Outlet | undefined

  constructor(key: string, message: Message, exchange: Exchange, deadline: Deadline, home: CallHome) {
    this.key = key
    this.message = message
    this.deadline = deadline
    this.#exchange = exchange
    this.#home = home
  }

  /** Something sent now can still reach the client, now or after it resumed. */
  get reachable(): boolean {
    return this.#exchange.outlet !== undefined || this.#exchange.attached || this.stream !== undefined
  }

  progress(message: Message): void {
    const token = this.message.progressToken as Span
    const at = message.paramSpans.progressToken as Span
    this.send(message.wireWith({ ...at, text: this.message.binary(token) }))
  }

  /** A message that precedes the answer. */
  send(wire: Wire): void {
    const exchange = this.#exchange
    if (exchange.settled || !this.#home.admitWrite()) return
    if (exchange.outlet !== undefined) {
      exchange.send(wire)
      this.#home.wrote(exchange.outlet, wireLength(wire))
      return
    }
    if (this.stream === undefined) {
      if (!exchange.attached) {
        this.#home.dropped('client_gone')
        return
      }
      this.stream = this.#home.replay.open()
      exchange.begin(this.#home.primes ? `${this.stream}-0` : undefined)
    }
    const { id } = this.#home.replay.append(this.stream, wire)
    const target = this.#resumed ?? exchange
    target.send(wire, id)
    this.#home.wrote(target, wireLength(wire))
  }

  answer(message: Message): void {
    const exchange = this.#exchange
    const filtered = exchange.filtered(message)
    if (this.message.method === 'initialize') this.#home.initialized(filtered, exchange)
    if (!this.#home.admitWrite()) return
    const own = this.message.binary(this.message.id as Span)
    const wire = filtered.wireWith({ ...(filtered.id as Span), text: own })
    const eventId = this.#last(wire)
    // A client that resumed elsewhere gets nothing twice.
    if (this.#resumed === undefined) exchange.answer(wire, filtered.isError, eventId)
    else exchange.finish(filtered.isError ? 'error' : 'ok')
    this.#home.wrote(this.#resumed ?? exchange.outlet ?? exchange, wireLength(wire))
    this.#home.settled(this)
  }

  fail(error: SidecarError): void {
    const eventId =
      this.stream === undefined
        ? undefined
        : this.#last(wireOfText(rpcErrorText(error, this.message.idText, undefined)))
    this.#exchange.fail(error, eventId)
    this.#home.settled(this)
  }

  /** The client does not want the answer any more. */
  cancel(): void {
    this.handle?.cancel('cancelled by the client')
    this.#resumed?.close()
    if (this.stream !== undefined) this.#home.replay.end(this.stream)
    this.#exchange.finish('cancelled')
    this.#home.settled(this)
  }

  /** The session ends while the call is in flight. */
  abort(error: SidecarError): void {
    this.handle?.cancel('the session ended')
    this.#resumed?.close(error)
    this.#exchange.fail(error)
  }

  resume(outlet: Outlet): void {
    this.#resumed?.close()
    this.#resumed = outlet
  }

  /** Keeps the last message of the stream for a client that resumes, and ends a stream that was resumed. */
  #last(wire: Wire): string | undefined {
    if (this.stream === undefined) return undefined
    const { id } = this.#home.replay.append(this.stream, wire)
    this.#home.replay.end(this.stream)
    this.#resumed?.send(wire, id)
    this.#resumed?.close()
    return id
  }
}
