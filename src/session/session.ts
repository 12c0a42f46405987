import { SidecarError } from '../core/errors.ts'
import type { Exchange, Outlet } from '../core/exchange.ts'
import { type Message, valueKey } from '../core/jsonrpc.ts'
import { localRefusal } from '../core/local.ts'
import { understandsPriming } from '../core/mcp.ts'
import type {
  Clock,
  Deadline,
  Logger,
  Metrics,
  Pool,
  Principal,
  SessionHandle,
  Timer,
  Transport,
  Upstream,
  UpstreamCall,
  UpstreamOwner,
} from '../core/types.ts'
import type { Wire } from '../core/wire.ts'
import { SessionCall } from './call.ts'
import { Flow } from './flow.ts'
import { mainStream, parseEventId, ReplayBuffer } from './replay.ts'

export interface SessionOptions {
  /** Bytes a client may leave unread before its server process is slowed down, or its session ends. */
  readonly queueBytes: number
  readonly replayBytes: number
}

export interface SessionContext {
  readonly pool: Pool
  readonly clock: Clock
  readonly log: Logger
  readonly metrics: Metrics
  readonly options: SessionOptions
}

/** What a session tells its registry. */
export interface SessionEvents {
  /** Clients can name it from now on. */
  onReady(session: Session): void
  onEnded(session: Session, error: SidecarError): void
  /** No process is free for it; true if another session of the same principal was given up. */
  makeRoom(session: Session): boolean
}

/** A request of the server that waits for this client's response. */
interface Asked {
  readonly call: SessionCall | undefined
  readonly timer: Timer
  /** The server's progress token for it, as a map key. */
  readonly tokenKey: string | undefined
}

const maxAsked = 100
/** How long a question without a call waits for the client; one within a call has the call's own limit. */
const askedMs = 5 * 60_000

/**
 * One client's session (handshake era): which server process serves it, its calls in flight, the questions its
 * server has put to it, and the streams that lead back to it.
 */
export class Session implements SessionHandle, UpstreamOwner {
  readonly id: string
  readonly principal: Principal
  readonly transport: Transport
  /** Negotiated by initialize. */
  version: string | undefined
  lastUsed: number
  readonly #context: SessionContext
  readonly #events: SessionEvents
  /** Taken by initialize, so that an opened stream alone costs no process. */
  #upstream: Upstream | undefined
  /** In flight, in the order they came. Few, and a Map's churn is costly to the collector (see upstream/pending). */
  readonly #calls: SessionCall[] = []
  readonly #asked = new Map<string, Asked>()
  readonly #flow: Flow
  #state: 'new' | 'initializing' | 'ready' | 'ended' = 'new'
  #replay: ReplayBuffer | undefined
  /** The GET stream, the HTTP+SSE stream or the WebSocket. */
  #main: Outlet | undefined
  /** Sequence on the main stream up to which a client has been sent it. */
  #delivered = 0
  #resumed = new Set<Outlet>()

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
    this.#main = main
    this.lastUsed = context.clock.now()
    this.#flow = new Flow(context.options.queueBytes)
    main?.onClosed(() => this.end(new SidecarError('ERR_SESSION_UNKNOWN', { detail: 'the client left' })))
  }

  get ended(): boolean {
    return this.#state === 'ended'
  }

  /** Opened by a stream on which nothing has been asked yet. */
  get unborn(): boolean {
    return this.#state === 'new'
  }

  /** Nothing in flight and nobody connected. */
  get idle(): boolean {
    return this.#calls.length === 0 && this.#main === undefined && this.#resumed.size === 0
  }

  request(message: Message, exchange: Exchange, deadline: Deadline): void {
    this.lastUsed = this.#context.clock.now()
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
      // Nobody will ever know the id of a session whose first answer had nowhere to go.
      exchange.onGone(() =>
        this.end(new SidecarError('ERR_SESSION_UNKNOWN', { detail: 'initialize was aborted' })),
      )
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
      case 'notifications/progress': {
        const key = message.paramKey('progressToken')
        for (const { tokenKey } of this.#asked.values()) {
          if (key === undefined || tokenKey !== key) continue
          this.#upstream?.send(message)
          return
        }
        this.#context.metrics.dropped('client_progress')
        return
      }
    }
    this.#checkInbound()
    this.#upstream?.send(message)
  }

  respond(message: Message): void {
    this.lastUsed = this.#context.clock.now()
    const key = message.idKey
    const asked = key === undefined ? undefined : this.#asked.get(key)
    if (key === undefined || asked === undefined) {
      this.#context.metrics.dropped('unexpected_response')
      return
    }
    this.#forget(key, asked)
    this.#upstream?.send(message)
  }

  onRequest(message: Message, upstreamCall: UpstreamCall | undefined): void {
    const key = message.idKey as string
    if (this.#asked.size >= maxAsked || this.#asked.has(key)) {
      this.#refuse(message, 'ERR_OVERLOADED')
      return
    }
    const call = upstreamCall instanceof SessionCall && upstreamCall.reachable ? upstreamCall : undefined
    const timer = this.#context.clock.after(call?.deadline.inputMs ?? askedMs, () => {
      const asked = this.#asked.get(key)
      if (asked !== undefined) this.#forget(key, asked)
      this.#refuse(message, 'ERR_NO_CLIENT')
    })
    const token = message.progressToken
    const tokenKey = token === undefined ? undefined : valueKey(message.text(token))
    this.#asked.set(key, { call, timer, tokenKey })
    call?.handle?.waitForInput(true)
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
      case 'notifications/cancelled': {
        const key = message.paramKey('requestId')
        const asked = key === undefined ? undefined : this.#asked.get(key)
        if (key !== undefined && asked !== undefined) {
          this.#forget(key, asked)
          call = asked.call
        }
        break
      }
    }
    this.#deliver(message, call?.reachable === true ? call : undefined)
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
  }

  get replay(): ReplayBuffer {
    this.#replay ??= new ReplayBuffer(this.#context.options.replayBytes, (event) => {
      if (event.stream === mainStream && event.sequence > this.#delivered) {
        this.#context.metrics.dropped('undelivered_event')
      }
    })
    return this.#replay
  }

  get primes(): boolean {
    return understandsPriming(this.version)
  }

  /** True if the client may be sent more; ends the session if it has left too much unread for too long. */
  admitWrite(): boolean {
    if (!this.#flow.exhausted) return true
    this.#context.metrics.dropped('slow_reader')
    this.end(new SidecarError('ERR_SLOW_READER', { detail: 'the client left its queue budget unread' }))
    return false
  }

  wrote(target: Pick<Outlet, 'queuedBytes' | 'onceDrained'>): void {
    this.#flow.wrote(target)
  }

  /** Bytes this session's client has not read. */
  get queuedBytes(): number {
    return this.#flow.queuedBytes
  }

  dropped(what: string): void {
    this.#context.metrics.dropped(what)
  }

  /**
   * Connects a GET stream: the session's main one, or the rest of an earlier stream after `lastEventId`.
   *
   * @throws ERR_STREAM_CONFLICT when the main stream is taken, ERR_EVENT_UNKNOWN when the stream is not known (any
   *   more)
   */
  attach(outlet: Outlet, lastEventId: string | undefined): void {
    this.lastUsed = this.#context.clock.now()
    const from = lastEventId === undefined ? undefined : parseEventId(lastEventId)
    if (lastEventId !== undefined && (from === undefined || !this.replay.knows(from.stream))) {
      throw new SidecarError('ERR_EVENT_UNKNOWN')
    }
    if (from !== undefined && from.stream !== mainStream) {
      this.#resume(outlet, from.stream, from.sequence)
      return
    }
    if (this.#main !== undefined) {
      // A client that resumes has lost its old connection, even if we have not noticed yet.
      if (from === undefined) throw new SidecarError('ERR_STREAM_CONFLICT')
      const old = this.#main
      this.#main = undefined
      old.close()
    }
    this.#main = outlet
    outlet.onClosed(() => {
      if (this.#main === outlet) this.#main = undefined
      this.lastUsed = this.#context.clock.now()
    })
    for (const event of this.replay.after(mainStream, from?.sequence ?? this.#delivered)) {
      outlet.send(event.wire, event.id)
      this.#delivered = Math.max(this.#delivered, event.sequence)
    }
    this.wrote(outlet)
  }

  /** Ends the session: calls in flight fail, streams close, the server process goes. */
  end(error: SidecarError): void {
    if (this.#state === 'ended') return
    this.#state = 'ended'
    for (const call of this.#calls.splice(0)) call.abort(error)
    for (const { timer } of this.#asked.values()) timer.cancel()
    this.#asked.clear()
    this.#upstream?.release()
    const main = this.#main
    this.#main = undefined
    main?.close(error)
    for (const outlet of this.#resumed) outlet.close(error)
    this.#replay = undefined
    this.#events.onEnded(this, error)
  }

  #lease(): void {
    try {
      try {
        this.#upstream = this.#context.pool.lease(this)
      } catch (thrown) {
        if (SidecarError.from(thrown).code !== 'ERR_OVERLOADED' || !this.#events.makeRoom(this)) throw thrown
        this.#upstream = this.#context.pool.lease(this)
      }
      this.#flow.upstream = this.#upstream
    } catch (thrown) {
      const error = SidecarError.from(thrown)
      this.end(error)
      throw error
    }
  }

  #resume(outlet: Outlet, stream: number, sequence: number): void {
    for (const event of this.replay.after(stream, sequence)) outlet.send(event.wire, event.id)
    this.wrote(outlet)
    for (const call of this.#calls) {
      if (call.stream !== stream) continue
      this.#resumed.add(outlet)
      outlet.onClosed(() => this.#resumed.delete(outlet))
      call.resume(outlet)
      return
    }
    outlet.close()
  }

  #deliver(message: Message, call: SessionCall | undefined): void {
    if (call !== undefined) call.send(message.wire)
    else this.#sendMain(message.wire)
  }

  #sendMain(wire: Wire): void {
    if (this.#state === 'ended' || !this.admitWrite()) return
    if (this.transport !== 'streamable-http') {
      this.#main?.send(wire)
      if (this.#main !== undefined) this.wrote(this.#main)
      return
    }
    const event = this.replay.append(mainStream, wire)
    if (this.#main === undefined) return
    this.#main.send(wire, event.id)
    this.#delivered = event.sequence
    this.wrote(this.#main)
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

  #forget(key: string, asked: Asked): void {
    this.#asked.delete(key)
    asked.timer.cancel()
    asked.call?.handle?.waitForInput(false)
  }

  #refuse(request: Message, reason: 'ERR_OVERLOADED' | 'ERR_NO_CLIENT'): void {
    this.#context.metrics.dropped('server_request')
    this.#upstream?.send(localRefusal(request.idText as string, -32603, reason))
  }
}
