/** The vocabulary that stages share. Pure: no I/O and no clock; imports nothing outside core. */
import type { IncomingHttpHeaders } from 'node:http'
import type { SidecarError } from './errors.ts'
import type { Exchange, Outlet } from './exchange.ts'
import type { PresentedCertificate, Principal } from './identity.ts'
import type { Message } from './jsonrpc.ts'
import type { Operation } from './operation.ts'
import type { EgressVerdict } from './sandbox.ts'
import type { ToolHints } from './tool-hints.ts'

export { anonymous, type Identity, type PresentedCertificate, type Principal } from './identity.ts'

export type Transport = 'streamable-http' | 'http-sse' | 'websocket'

/** A request whose headers have arrived and whose body has not been read. */
export interface Received {
  /** Chosen by us; the client sees it as `X-Request-Id` and in errors. */
  readonly requestId: string
  readonly transport: Transport
  /** The peer of the connection. */
  readonly remoteAddress: string
  /** Where the request comes from: the peer, or what a trusted proxy says of it. IPv4-mapped addresses as IPv4. */
  readonly clientAddress: string
  readonly httpMethod: string
  /** Without the query. */
  readonly path: string
  /** What follows the `?`; empty without one. */
  readonly query: string
  readonly headers: IncomingHttpHeaders
  /** Names and values in turn, as they arrived: the only place where a header that stands twice does so. */
  readonly rawHeaders: readonly string[]
  /** Presented in the TLS handshake of this connection. */
  readonly certificate: PresentedCertificate | undefined
}

/** After Host and Origin were checked. */
export interface Trusted extends Received {
  /** The Origin header, if there was one and it is allowed. */
  readonly origin: string | undefined
}

export interface Identified extends Trusted {
  readonly principal: Principal
}

/** `legacy`: 2024-11-05 to 2025-11-25, with a handshake. `modern`: 2026-07-28, each request for itself. */
export type Era = 'legacy' | 'modern'

/** What the messages of one WebSocket have in common. */
export interface Connection {
  /** Fixed by the first message that settles it. */
  era: Era | undefined
}

/** One message of a client and the way back for its answer. */
export interface Parsed extends Identified {
  readonly message: Message
  /** The session the client named, not yet looked up; undefined for its first message. */
  readonly sessionId: string | undefined
  readonly exchange: Exchange
  /** On transports where an era belongs to a connection. */
  readonly connection?: Connection | undefined
}

export interface Decoded extends Parsed {
  readonly era: Era
  /**
   * Of a `tools/call`, what the server's own list says of the tool; undefined where that is not known, and where the
   * policy in force does not ask for it.
   */
  readonly toolHints?: ToolHints | undefined
}

/** What allowed or refused an operation, for the audit log. */
export interface Verdict {
  /** `none` without any rules, `scopes`, `tools-filter`, `cedar`, or the name of a layer of rules. */
  readonly layer: string
  /** The rules or policies that decided. */
  readonly ids: readonly string[]
}

/** What allowed the operation: one verdict of each layer, since each must permit. */
export interface Permit {
  readonly verdicts: readonly Verdict[]
}

export interface Permitted extends Decoded {
  readonly operation: Operation
  readonly permit: Permit
}

export interface Deadline {
  /** Silence after which the call fails; each progress starts it anew. Milliseconds. */
  readonly timeoutMs: number
  /** The end in any case. Milliseconds from the start. */
  readonly maxMs: number
  /** How long the call may wait for the client's own input. Milliseconds. */
  readonly inputMs: number
}

export interface Admitted extends Permitted {
  readonly deadline: Deadline
}

/** What a session offers to the stages after routing. */
export interface ClientSession {
  request(admitted: Admitted): void
  notify(message: Message): void
  respond(message: Message): void
}

/** A session as transports see it. */
export interface SessionHandle extends ClientSession {
  readonly id: string
  /** Negotiated by initialize; undefined before. */
  readonly version: string | undefined
  /** Connects a GET stream. @throws ERR_STREAM_CONFLICT, ERR_EVENT_UNKNOWN */
  attach(outlet: Outlet, lastEventId: string | undefined): void
  end(error: SidecarError): void
}

/** Where transports find and open sessions. Implemented by session/. */
export interface Sessions {
  /** @throws ERR_SESSION_UNKNOWN, also for a session of another principal or transport */
  get(id: string, principal: Principal, transport: Transport): SessionHandle
  /** @throws ERR_OVERLOADED, ERR_DRAINING */
  open(principal: Principal, transport: Transport, main?: Outlet): SessionHandle
  /**
   * The `clientInfo`, as JSON text, with which the client of this message's session introduced itself; undefined also
   * for a session of another principal or transport.
   */
  clientInfo(of: Pick<Parsed, 'sessionId' | 'principal' | 'transport'>): string | undefined
}

export interface Routed extends Admitted {
  readonly session: ClientSession
}

/** A request as the upstream link sees it; implemented by session/. */
export interface UpstreamCall {
  readonly message: Message
  /** A message that belongs to this call can still reach its client. */
  readonly reachable: boolean
  readonly deadline: Deadline
  /** The least severe log message that the caller wants, where a call says so (modern). */
  readonly logLevel?: string | undefined
  /** A `notifications/progress` for this call; it still carries the link's token. */
  progress(message: Message): void
  /** The answer; it still carries the link's id. Exactly one of answer and fail is called, once. */
  answer(message: Message): void
  fail(error: SidecarError): void
}

export interface CallHandle {
  /** Tells the server and forgets the call; neither answer nor fail follows. */
  cancel(reason: string | undefined): void
  /** While the client is being asked for input only the hard limit runs; `inputMs` bounds each question. */
  waitForInput(waiting: boolean): void
}

/** One session's link to the server process that serves it. Implemented by upstream/. */
export interface Upstream {
  /** True when the process serves this session alone, so that it may be slowed down on its behalf. */
  readonly exclusive: boolean
  /** Bytes the server process has not read yet. */
  readonly queuedBytes: number
  call(call: UpstreamCall): CallHandle
  /** A notification of the client, or its response to a request of the server. */
  send(message: Message): void
  pause(): void
  resume(): void
  /** Ends the lease; an exclusive process is shut down. */
  release(): void
}

/** What a session does with messages of the server. Implemented by session/. */
export interface UpstreamOwner {
  readonly principal: Principal
  /** @param call the call during which the server asked; undefined if there was none */
  onRequest(message: Message, call: UpstreamCall | undefined): void
  onNotification(message: Message, call: UpstreamCall | undefined): void
  /** The process is gone and will not come back for this session. */
  onEnd(error: SidecarError): void
}

/** Gives sessions their server process. */
export interface Pool {
  lease(owner: UpstreamOwner): Upstream
}

/** What a legacy server says of itself; unknown members are kept. */
export interface InitializeResult {
  protocolVersion: string
  capabilities: Record<string, unknown>
  serverInfo?: { name?: unknown; version?: unknown }
  [member: string]: unknown
}

/** The life of what runs server processes, as main and the admin endpoints see it. */
export interface Lifecycle {
  start(): void
  /** The server answers. */
  readonly ready: boolean
  readonly processes: number
  /** Bytes that wait for server processes to read them. */
  readonly queuedBytes: number
  /** Serves nothing new; processes end with whoever uses them. */
  retire(): void
  /** Stops every process and resolves when all are gone. */
  close(): Promise<void>
}

/** How a call that stands alone wants its legacy process. */
export interface LeaseWish {
  /**
   * `exclusive`: no other call during which the server may ask runs there meanwhile; legacy servers do not say on
   * whose behalf they ask. `unasked`: the same, but its client could not be asked anything; until a server has
   * shown that it asks at all, such calls run beside each other. `shared`: for a call during which no server asks.
   * `listening`: for what the server says of its own accord.
   */
  readonly use: 'exclusive' | 'unasked' | 'shared' | 'listening'
  /** The least severe log message wanted. */
  readonly logLevel?: string | undefined
  /** The process that served before, if it still runs. */
  readonly instance?: string | undefined
}

/** A share in the legacy processes of one principal; they are initialized already. */
export interface CallLease extends Upstream {
  /** Of the process that serves; undefined before. */
  readonly server: InitializeResult | undefined
  /** Names that process among all that there ever were. */
  readonly instance: string
  /** The call waits for its client; others may need a process meanwhile. */
  parked: boolean
  /** The least severe log message wanted from now on. */
  log(level: string | undefined): void
  /** Subscribes to these resources on every process, those to come included, until the release. */
  watch(uris: readonly string[]): void
}

/** Gives calls that stand alone a legacy process. Implemented by upstream/. */
export interface CallPool {
  lease(owner: UpstreamOwner, wish: LeaseWish): CallLease
  /** Bytes that wait to be read by the processes that serve this principal. */
  queuedBytesOf(principal: Principal): number
}

/** What a modern server says of itself (2026-07-28, server/discover); unknown members are kept. */
export interface DiscoverResult {
  supportedVersions: string[]
  capabilities: Record<string, unknown>
  instructions?: string
  [member: string]: unknown
}

/** A request that stands alone, as modern ones do. */
export interface ModernCall extends UpstreamCall {
  readonly principal: Principal
  /** The least severe log message that the caller wants; undefined for none. */
  readonly logLevel: string | undefined
  /** A notification that belongs to this call; on a subscription it carries the link's id. */
  notify(message: Message): void
}

/** A server as modern clients see it, whichever era it speaks itself. Implemented by upstream/ and bridge/. */
export interface StatelessServer {
  call(call: ModernCall): CallHandle
  /** Bytes that wait to be read by the processes that serve this principal. */
  queuedBytesOf(principal: Principal): number
}

/** Makes handles that clients keep for us: unreadable, unforgeable. Implemented by bridge/. */
export interface Seal {
  /** @throws ERR_UPSTREAM_MESSAGE beyond 1 MiB */
  seal(state: object): string
  /** What was sealed, or undefined for anything else. */
  open(text: string): unknown
}

/** A long-lived way to the client beside the answers: the GET stream, an HTTP+SSE stream, a WebSocket. */
export type { Exchange, Outlet }

export interface Timer {
  /** Starts the wait anew. */
  refresh(): void
  cancel(): void
}

/** Time, injected so that tests need not wait. */
export interface Clock {
  /** Monotonic milliseconds. */
  now(): number
  /** Milliseconds since 1970, for what outlives this process. */
  epoch(): number
  /** One call after `ms`; does not keep the process alive. */
  after(ms: number, then: () => void): Timer
}

export interface Logger {
  debug(fields: object, text: string): void
  info(fields: object, text: string): void
  warn(fields: object, text: string): void
  error(fields: object, text: string): void
}

/** What is counted; observe/metrics gives each a name and a help text. */
export interface Metrics {
  refused(code: string): void
  dropped(what: string): void
  call(method: string, outcome: string, seconds: number): void
  /** The server asks a client for something (sampling, elicitation, roots), and the client will be asked. */
  asked(method: string, principal: Principal): void
  sessionOpened(transport: Transport): void
  sessionClosed(transport: Transport): void
  /** Somebody came in by this method; `none` when nobody was asked. */
  authenticated(method: string): void
  /** Whether the shared store of the rate limits can be reached. */
  rateStore(reachable: boolean): void
  /** A write to the audit log has failed. */
  auditFailed(): void
  /** An event was not recorded, and will not be. */
  auditLost(): void
  /** A connection or lookup that the server asked for was allowed or not; what is allowed may still fail. */
  egress(allowed: boolean, protocol: EgressVerdict['protocol']): void
  /** A connection of the server has ended. Bytes from it, and to it. */
  egressBytes(sent: number, received: number): void
  processStarted(): void
  processExited(reason: string): void
  processRestarted(): void
}
