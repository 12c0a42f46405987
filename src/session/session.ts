import { clientInfoOf } from '../core/client-info.ts'
import { SidecarError } from '../core/errors.ts'
import type { Exchange, Outlet } from '../core/exchange.ts'
import type { Message } from '../core/jsonrpc.ts'
import { localCancellation, localRefusal } from '../core/local.ts'
import { understandsPriming } from '../core/mcp.ts'
import type {
  Admitted,
  Pool,
  Principal,
  SessionHandle,
  Transport,
  Upstream,
  UpstreamCall,
  UpstreamOwner,
} from '../core/types.ts'
import { type CallHome, SessionCall } from './call.ts'
import type { SessionContext } from './context.ts'
import { Flow, type Target } from './flow.ts'
import { ModernClients } from './modern-clients.ts'
import { Questions } from './questions.ts'
import type { ReplayBuffer } from './replay.ts'
import { Streams, type StreamsHome } from './streams.ts'

/** What a session tells its registry. */
export interface SessionEvents {
  /** Clients can name it from now on. */
  onReady(session: Session): void
  onEnded(session: Session, error: SidecarError): void
  /** No process is free for it; true if another session of the same principal was given up. */
  makeRoom(session: Session): boolean
}

/**
 * One client's session (handshake era): which server process serves it, its calls in flight, the questions its
 * server has put to it, and the streams that lead back to it.
 */
export class Session implements SessionHandle, UpstreamOwner, CallHome, StreamsHome {
  readonly id: string
  readonly principal: Principal
  readonly transport: Transport
  /** Negotiated by initialize. */
  version: string | undefined
  /** With which its client introduced itself, as JSON text. */
  clientInfo: string | undefined
  lastUsed: number
  readonly #context: SessionContext
  readonly #events: SessionEvents
  /** Taken by initialize, so that an opened stream alone costs no process. */
  #upstream: Upstream | undefined
  /** In flight, in the order they came. Few, and a Map's churn is costly to the collector (see upstream/pending). */
  readonly #calls: SessionCall[] = []
  readonly #questions: Questions
  readonly #flow: Flow
  #state: 'new' | 'initializing' | 'ready' | 'ended' = 'new'
  readonly #streams: Streams
  #modern: ModernClients | undefined
  /** It has asked to hear of resources. */
  subscribes = false
  /** Where its process comes from, once it has one. */
  servedBy: Pool | undefined
  #retiring: SidecarError | undefined

  constructor(
    id: string,
    principal: Principal,
    transport: Transport,
    context: SessionContext,
    events: SessionEvents,
    main?: Outlet,
  ) {
    this.id = id
    this.principal = principal
    this.transport = transport
    this.#context = context
    this.#events = events
    this.#streams = new Streams(transport, context.options.replayBytes, main, this)
    this.lastUsed = context.clock.now()
    const { clock, options } = context
    this.#flow = new Flow(clock, options, () => {
      this.dropped('slow_reader')
      this.end(new SidecarError('ERR_SLOW_READER', { detail: 'the client left its queue budget unread' }))
    })
    this.#questions = new Questions(clock, options.inputMs, (request, call) => {
      this.#deliver(localCancellation(request.idText as string, 'not answered in time'), call)
      this.#refuse(request, 'ERR_NO_CLIENT')
    })
    main?.onClosed(() => this.end(new SidecarError('ERR_SESSION_UNKNOWN', { detail: 'the client left' })))
  }

  get ended(): boolean {
    return this.#state === 'ended'
  }

  /** Opened by a stream on which nothing has been asked yet. */
  get unborn(): boolean {
    return this.#state === 'new' && this.#modern === undefined
  }

  /** The same connection as that of a modern client (WebSocket), which shakes no hands. */
  get modern(): ModernClients {
    this.#modern ??= new ModernClients(this.#context.modern, false)
    return this.#modern
  }

  /** Nothing in flight and nobody connected. */
  get idle(): boolean {
    return this.#calls.length === 0 && !this.#streams.connected
  }

  /** Its process is to go: it takes no new request, and ends with its last call. */
  retire(error: SidecarError): void {
    this.#retiring ??= error
    if (this.#calls.length === 0) this.end(error)
  }

  /** No new work is wanted; whoever only listens need not be waited for. */
  endSubscriptions(): void {
    this.#modern?.endSubscriptions()
  }

  request({ message, exchange, deadline }: Admitted): void {
    this.lastUsed = this.#context.clock.now()
    if (this.#retiring !== undefined) throw this.#retiring
    if (message.method === 'resources/subscribe') this.subscribes = true
    const key = message.idKey as string
    if (this.#call(key) !== undefined) {
      throw new SidecarError('ERR_INVALID_REQUEST', { detail: 'a request with this id is in flight already' })
    }
    const isInitialize = message.method === 'initialize'
    if (isInitialize !== (this.#state === 'new')) {
      if (this.#state === 'ended') throw new SidecarError('ERR_SESSION_UNKNOWN')
      if (isInitialize) throw new SidecarError('ERR_INVALID_REQUEST', { detail: 'initialize came twice' })
      throw new SidecarError('ERR_SESSION_MISSING', { detail: `${message.method} before initialize` })
    }
    if (!isInitialize && this.#state !== 'ready') throw new SidecarError('ERR_SESSION_MISSING')
    this.#checkInbound()
    if (isInitialize) {
      this.#lease()
      if (this.ended)
        throw new SidecarError('ERR_UPSTREAM_EXIT', { detail: 'the process ended before it was used' })
      this.#state = 'initializing'
      this.clientInfo = clientInfoOf(message)
      // Nobody will ever know the id of a session whose first answer had nowhere to go.
      exchange.onGone(() =>
        this.end(new SidecarError('ERR_SESSION_UNKNOWN', { detail: 'initialize was aborted' })),
      )
      if (this.ended) throw new SidecarError('ERR_SESSION_UNKNOWN', { detail: 'initialize was aborted' })
    }
    const call = new SessionCall(key, message, exchange, deadline, this)
    this.#calls.push(call)
    call.handle = (this.#upstream as Upstream).call(call)
  }

  notify(message: Message): void {
    this.lastUsed = this.#context.clock.now()
    if (this.#state !== 'ready') throw new SidecarError('ERR_SESSION_MISSING')
    switch (message.method) {
      case 'notifications/cancelled':
        this.#cancelled(message)
        return
      case 'notifications/progress':
        if (!this.#questions.hasToken(message.paramKey('progressToken'))) {
          this.dropped('client_progress')
          return
        }
        break
    }
    this.#checkInbound()
    this.#upstream?.send(message)
  }

  respond(message: Message): void {
    this.lastUsed = this.#context.clock.now()
    this.#checkInbound()
    if (this.#questions.close(message.idKey) === undefined) this.dropped('unexpected_response')
    else this.#upstream?.send(message)
  }

  onRequest(message: Message, upstreamCall: UpstreamCall | undefined): void {
    const call = upstreamCall instanceof SessionCall && upstreamCall.reachable ? upstreamCall : undefined
    if (!this.#questions.add(message, call)) {
      this.#refuse(message, 'ERR_OVERLOADED')
      return
    }
    this.#context.metrics.asked(message.method, this.principal)
    this.#deliver(message, call)
  }

  onNotification(message: Message, upstreamCall: UpstreamCall | undefined): void {
    let call = upstreamCall instanceof SessionCall ? upstreamCall : undefined
    switch (message.method) {
      case 'notifications/tools/list_changed':
      case 'notifications/prompts/list_changed':
      case 'notifications/resources/list_changed':
      case 'notifications/resources/updated':
      case 'notifications/elicitation/complete':
      case 'notifications/tasks/status':
        // Not about one call, whatever is in flight.
        call = undefined
        break
      case 'notifications/cancelled':
        call = this.#questions.close(message.paramKey('requestId'))?.call ?? call
        break
    }
    this.#deliver(message, call)
  }

  onEnd(error: SidecarError): void {
    this.end(error)
  }

  /** An initialize that succeeded makes the session one that clients can name. */
  initialized(answer: Message, exchange: Exchange): void {
    if (answer.isError) return
    const { result } = answer.parsed() as { result?: { protocolVersion?: unknown } }
    const version = result?.protocolVersion
    this.version = typeof version === 'string' ? version : undefined
    this.#state = 'ready'
    exchange.setHeader('Mcp-Session-Id', this.id)
    this.#events.onReady(this)
  }

  settled(call: SessionCall): void {
    const at = this.#calls.indexOf(call)
    if (at >= 0) this.#calls.splice(at, 1)
    this.lastUsed = this.#context.clock.now()
    if (call.message.method === 'initialize' && this.#state === 'initializing') {
      this.end(new SidecarError('ERR_SESSION_UNKNOWN', { detail: 'initialize failed' }))
    }
    if (this.#retiring !== undefined) this.retire(this.#retiring)
  }

  get replay(): ReplayBuffer {
    return this.#streams.replay
  }

  get primes(): boolean {
    return understandsPriming(this.version)
  }

  /** True if the client may be sent more; ends the session if it has left far too much unread. */
  admitWrite(): boolean {
    this.#flow.check()
    return this.#state !== 'ended'
  }

  wrote(target: Target, bytes: number): void {
    this.#flow.wrote(target, bytes)
  }

  /** Bytes this session's client has not read. */
  get queuedBytes(): number {
    return this.#flow.queuedBytes + (this.#modern?.queuedBytes ?? 0)
  }

  dropped(what: string): void {
    this.#context.metrics.dropped(what)
  }

  attach(outlet: Outlet, lastEventId: string | undefined): void {
    this.lastUsed = this.#context.clock.now()
    this.#streams.attach(outlet, lastEventId)
    outlet.onClosed(() => {
      this.lastUsed = this.#context.clock.now()
    })
  }

  resumeCall(stream: number, outlet: Outlet): boolean {
    const call = this.#calls.find((each) => each.stream === stream)
    call?.resume(outlet)
    return call !== undefined
  }

  /** Ends the session: calls in flight fail, streams close, the server process goes. */
  end(error: SidecarError): void {
    if (this.#state === 'ended') return
    this.#state = 'ended'
    for (const call of this.#calls.splice(0)) call.abort(error)
    this.#modern?.end(error)
    this.#questions.clear()
    this.#upstream?.release()
    this.#streams.close(error)
    this.#flow.close()
    this.#events.onEnded(this, error)
  }

  #lease(): void {
    try {
      const pool = this.#context.pool()
      this.servedBy = pool
      try {
        this.#upstream = pool.lease(this)
      } catch (thrown) {
        if (SidecarError.from(thrown).code !== 'ERR_OVERLOADED' || !this.#events.makeRoom(this)) throw thrown
        this.#upstream = pool.lease(this)
      }
      this.#flow.upstream = this.#upstream
    } catch (thrown) {
      const error = SidecarError.from(thrown)
      this.end(error)
      throw error
    }
  }

  #deliver(message: Message, call: SessionCall | undefined): void {
    if (call?.reachable === true) call.send(message.wire)
    else if (this.#state !== 'ended') this.#streams.send(message.wire)
  }

  #cancelled(message: Message): void {
    const key = message.paramKey('requestId')
    const call = key === undefined ? undefined : this.#call(key)
    // Initialize must not be cancelled; unknown ids belong to calls that have ended in the meantime.
    if (call === undefined || call.message.method === 'initialize') return
    call.cancel()
  }

  #call(key: string): SessionCall | undefined {
    return this.#calls.find((call) => call.key === key)
  }

  #checkInbound(): void {
    if ((this.#upstream?.queuedBytes ?? 0) <= this.#context.options.queueBytes) return
    throw new SidecarError('ERR_OVERLOADED', {
      detail: 'the server process does not read what it was sent',
      headers: { 'Retry-After': '1' },
    })
  }

  #refuse(request: Message, reason: 'ERR_OVERLOADED' | 'ERR_NO_CLIENT'): void {
    this.dropped('server_request')
    this.#upstream?.send(localRefusal(request.idText as string, -32603, reason))
  }
}
