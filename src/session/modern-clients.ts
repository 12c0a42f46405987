import { metaKey } from '../core/envelope.ts'
import { SidecarError } from '../core/errors.ts'
import type { Exchange } from '../core/exchange.ts'
import { atExpiry } from '../core/expiry.ts'
import type { Message } from '../core/jsonrpc.ts'
import { localResult } from '../core/local.ts'
import type { Admitted, ClientSession, Clock, Metrics, Principal, StatelessServer } from '../core/types.ts'
import { Flow, type FlowOptions, type Target } from './flow.ts'
import { type ModernHome, StatelessCall } from './modern-call.ts'

export interface ModernContext {
  /** The one of the moment. */
  readonly server: () => StatelessServer
  readonly clock: Clock
  readonly metrics: Metrics
  readonly options: () => FlowOptions
}

/** Nobody is slowed down for one reader. */
const noBrake = { exclusive: false, pause: (): void => {}, resume: (): void => {} }

/**
 * The calls of modern clients: of all of them over HTTP, where nothing ties one request to another, or of one
 * WebSocket, where ids are the connection's and a notification cancels.
 */
export class ModernClients implements ClientSession, ModernHome {
  readonly #context: ModernContext
  /**
   * Calls that have not been answered, in no order. Not a Set: one that thousands of calls a second pass through costs
   * the collector too much (see upstream/pending).
   */
  readonly #calls: StatelessCall[] = []
  /** Of a response that its client is slow to read; of the whole connection on a WebSocket. */
  readonly #flows = new Map<Target, Flow>()
  readonly #shared: boolean

  /** @param shared false for a WebSocket: its calls are one client's */
  constructor(context: ModernContext, shared: boolean) {
    this.#context = context
    this.#shared = shared
  }

  /** Bytes that clients have not read. */
  get queuedBytes(): number {
    let total = 0
    for (const flow of this.#flows.values()) total += flow.queuedBytes
    return total
  }

  request(admitted: Admitted): void {
    const { exchange } = admitted
    const call = new StatelessCall(admitted, this)
    const server = this.#context.server()
    if (server.queuedBytesOf(admitted.principal) > this.#context.options().queueBytes) {
      throw new SidecarError('ERR_OVERLOADED', {
        detail: 'the server process does not read what it was sent',
        headers: { 'Retry-After': '1' },
      })
    }
    if (!this.#shared && this.#find(call.key) !== undefined) {
      throw new SidecarError('ERR_INVALID_REQUEST', { detail: 'a request with this id is in flight already' })
    }
    call.place = this.#calls.length
    this.#calls.push(call)
    // Closing the response is how a client cancels (basic/patterns/cancellation).
    exchange.onGone(() => call.cancel('the client closed the stream'))
    if (exchange.settled) return
    call.handle = server.call(call)
    if (call.isSubscription && this.#shared) this.#endWithCredential(call, exchange)
  }

  notify(message: Message): void {
    if (this.#shared || message.method !== 'notifications/cancelled') {
      this.dropped('client_notification')
      return
    }
    this.#find(message.paramKey('requestId'))?.cancel('cancelled by the client')
  }

  respond(): void {
    this.dropped('unexpected_response')
  }

  /** Ends every open subscription the way a server does (basic/patterns/subscriptions); clients may begin another. */
  endSubscriptions(): void {
    for (const call of [...this.#calls]) {
      if (!call.isSubscription) continue
      call.handle?.cancel('the sidecar ends the subscription')
      const id = JSON.parse(call.message.idText as string) as unknown
      call.answer(localResult('0', { resultType: 'complete', _meta: { [metaKey('subscriptionId')]: id } }))
    }
  }

  /** A WebSocket ends as a whole then. */
  #endWithCredential(call: StatelessCall, exchange: Exchange): void {
    const { clock } = this.#context
    const expired = new SidecarError('ERR_AUTH_INVALID', {
      detail: 'the credential that opened it has expired',
    })
    const forget = atExpiry(clock, call.principal.expiresAt, () => call.abort(expired))
    exchange.onSettled(forget)
  }

  /** Ends the calls whose principal is not accepted any more. */
  endUntrusted(trusted: (principal: Principal) => boolean): void {
    for (const call of [...this.#calls]) {
      if (!trusted(call.principal)) {
        call.abort(new SidecarError('ERR_AUTH_INVALID', { detail: 'its credential was withdrawn' }))
      }
    }
  }

  end(error: SidecarError): void {
    for (const call of [...this.#calls]) call.abort(error)
    for (const flow of this.#flows.values()) flow.close()
  }

  wrote(call: StatelessCall, target: Target, bytes: number): void {
    let flow = this.#flows.get(target)
    if (flow === undefined) {
      if (target.queuedBytes <= Flow.noticeBytes) return
      const { clock, options } = this.#context
      flow = new Flow(clock, options(), () => {
        this.dropped('slow_reader')
        call.abort(new SidecarError('ERR_SLOW_READER'))
        target.destroy()
      })
      flow.upstream = noBrake
      this.#flows.set(target, flow)
      target.onceDrained(() => this.#flows.delete(target))
    }
    flow.wrote(target, bytes)
    flow.check()
  }

  dropped(what: string): void {
    this.#context.metrics.dropped(what)
  }

  settled(call: StatelessCall): void {
    const { place } = call
    if (this.#calls[place] !== call) return
    const last = this.#calls.pop()
    if (last === undefined || last === call) return
    last.place = place
    this.#calls[place] = last
  }

  #find(key: string | undefined): StatelessCall | undefined {
    for (const call of this.#calls) if (call.key === key) return call
    return undefined
  }
}
