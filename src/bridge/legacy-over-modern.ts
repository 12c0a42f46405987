import { randomUUID } from 'node:crypto'
import { type ErrorCode, SidecarError } from '../core/errors.ts'
import type { Message } from '../core/jsonrpc.ts'
import { localCancellation, localResult } from '../core/local.ts'
import { logLevels } from '../core/mcp.ts'
import type {
  CallHandle,
  Clock,
  DiscoverResult,
  Logger,
  Metrics,
  Pool,
  Principal,
  StatelessServer,
  Upstream,
  UpstreamCall,
  UpstreamOwner,
} from '../core/types.ts'
import { legacyNotification } from '../era/downgrade.ts'
import { envelopeOf, type LegacyClient, readClient } from '../era/envelope.ts'
import { initializeResult, negotiatedVersion } from '../era/initialize.ts'
import { idsPerCall } from '../era/legacy-over-modern.ts'
import { settled } from '../era/splice.ts'
import { Listening, type ListeningHome } from './listening.ts'
import { Rounds, type RoundsHome } from './rounds.ts'

/** A modern server, as those see it that stay for longer than a call. */
export interface DiscoveredServer extends StatelessServer {
  /** Now, or when it has started. @throws SidecarError, or rejects with one, while it is down */
  discovered(): DiscoverResult | Promise<DiscoverResult>
  /**
   * Keeps the server for this principal, and tells what it says about its lists.
   *
   * @returns stops it
   */
  attend(
    principal: Principal,
    onListChanged: (message: Message) => void,
    onEnd: (error: SidecarError) => void,
  ): () => void
}

export interface BridgeContext {
  readonly clock: Clock
  readonly log: Logger
  readonly metrics: Metrics
}

/** A modern server for sessions of the handshake era: what a session remembers, each of its requests is told. */
export class ModernBehindSessions implements Pool {
  readonly #server: DiscoveredServer
  readonly #context: BridgeContext

  constructor(server: DiscoveredServer, context: BridgeContext) {
    this.#server = server
    this.#context = context
  }

  lease(owner: UpstreamOwner): Upstream {
    return new SessionBridge(this.#server, owner, this.#context)
  }
}

/** What initialize settled. */
interface Session {
  readonly client: LegacyClient
  readonly discovered: DiscoverResult
}

/** Methods that only the modern era knows, and those of tasks, which the eras speak of in different ways. */
const hidden = /^(?:server\/discover|subscriptions\/listen|tasks\/.*)$/

const listChanged = /^notifications\/(tools|prompts|resources)\/list_changed$/

class SessionBridge implements Upstream, RoundsHome, ListeningHome {
  readonly exclusive = false
  readonly server: DiscoveredServer
  readonly clock: Clock
  readonly metrics: Metrics
  readonly #log: Logger
  readonly #owner: UpstreamOwner
  readonly #name = randomUUID()
  /** In flight; few, and a Set's churn is costly to the collector (see upstream/pending). */
  readonly #calls: Rounds[] = []
  /** Who waits for the client's response, by the id of the request as a map key. */
  readonly #asked = new Map<string, Rounds>()
  readonly #stopAttending: () => void
  #count = 0
  #session: Session | undefined
  #envelope: readonly string[] = []
  #level: string | undefined
  /** The client is ready to be told what its server says. */
  #hears = false
  #resources: Listening | undefined
  #released = false

  constructor(server: DiscoveredServer, owner: UpstreamOwner, context: BridgeContext) {
    this.server = server
    this.#owner = owner
    this.clock = context.clock
    this.metrics = context.metrics
    this.#log = context.log
    this.#stopAttending = server.attend(
      owner.principal,
      (message) => this.#listChanged(message),
      (error) => owner.onEnd(error),
    )
  }

  get principal(): Principal {
    return this.#owner.principal
  }

  get queuedBytes(): number {
    return this.server.queuedBytesOf(this.principal)
  }

  get envelope(): readonly string[] {
    return this.#envelope
  }

  get logLevel(): string | undefined {
    return this.#level
  }

  get listenEnvelope(): readonly string[] {
    return this.#session === undefined
      ? []
      : envelopeOf(this.#session.client, this.#session.discovered, undefined)
  }

  call(call: UpstreamCall): CallHandle {
    const { method } = call.message
    if (method === 'initialize') return this.#initialize(call)
    const session = this.#session
    if (session === undefined || this.#released)
      return this.#refuse(call, 'ERR_SESSION_MISSING', 'before initialize')
    if (hidden.test(method)) return this.#refuse(call, 'ERR_UNSUPPORTED', method)
    switch (method) {
      case 'ping':
        return this.#answer(call, {})
      case 'logging/setLevel':
        return this.#setLevel(call, session)
      case 'resources/subscribe':
        return this.#subscribe(call, session, true)
      case 'resources/unsubscribe':
        return this.#subscribe(call, session, false)
    }
    const rounds = new Rounds(call, this)
    this.#calls.push(rounds)
    const firstId = ++this.#count * idsPerCall
    rounds.begin({ method, client: session.client, firstId, elicitations: this.#name })
    return rounds
  }

  /** Other notifications of the client say nothing that anybody wants to know. */
  send(message: Message): void {
    if (message.kind === 'response') {
      const key = message.idKey ?? ''
      const rounds = this.#asked.get(key)
      this.#asked.delete(key)
      if (rounds === undefined) this.metrics.dropped('unexpected_response')
      else rounds.respond(Number(message.idText), message)
    } else if (message.method === 'notifications/initialized') this.#hears = true
  }

  // A reader that does not read must not slow the others: the session ends instead (see session/).
  pause(): void {}
  resume(): void {}

  release(): void {
    if (this.#released) return
    this.#released = true
    for (const rounds of [...this.#calls]) rounds.cancel('the session ended')
    this.#resources?.close()
    this.#asked.clear()
    this.#stopAttending()
  }

  ask(request: Message, rounds: Rounds): void {
    this.#asked.set(request.idKey as string, rounds)
    this.#owner.onRequest(request, rounds.call)
  }

  withdraw(id: number, reason: string, rounds: Rounds): void {
    this.#asked.delete(`n${id}`)
    if (!this.#released) this.#owner.onNotification(localCancellation(String(id), reason), rounds.call)
  }

  log(message: Message, rounds: Rounds): void {
    this.#owner.onNotification(message, rounds.call)
  }

  notified(message: Message): void {
    if (!this.#released) this.#owner.onNotification(message, undefined)
  }

  lost({ code, detail }: SidecarError): void {
    this.#log.debug({ code, detail }, 'a subscription of a session ended')
  }

  ended(rounds: Rounds): void {
    const at = this.#calls.indexOf(rounds)
    if (at >= 0) this.#calls.splice(at, 1)
  }

  #initialize(call: UpstreamCall): CallHandle {
    let waiting = true
    const once = (then: () => void): void => {
      if (!waiting) return
      waiting = false
      timer.cancel()
      if (!this.#released) then()
    }
    const fail = (thrown: unknown): void => once(() => call.fail(SidecarError.from(thrown)))
    const timer = this.clock.after(call.deadline.timeoutMs, () =>
      fail(new SidecarError('ERR_TIMEOUT', { detail: 'the server did not start in time' })),
    )
    Promise.resolve()
      .then(() => this.server.discovered())
      .then((discovered) => once(() => call.answer(this.#initialized(settled(call.message), discovered))))
      .catch(fail)
    return { cancel: () => once(() => {}), waitForInput: () => {} }
  }

  #initialized(message: Message, discovered: DiscoverResult): Message {
    const version = negotiatedVersion(message.paramString('protocolVersion'))
    const client = readClient(message, version)
    this.#session = { client, discovered }
    this.#envelope = envelopeOf(client, discovered, undefined)
    return localResult('0', initializeResult(discovered, version))
  }

  #setLevel(call: UpstreamCall, { client, discovered }: Session): CallHandle {
    if (discovered.capabilities['logging'] === undefined) {
      return this.#refuse(call, 'ERR_UNSUPPORTED', 'the server does not declare logging')
    }
    const level = settled(call.message).paramString('level')
    if (level === undefined || !(logLevels as readonly string[]).includes(level)) {
      return this.#refuse(call, 'ERR_PARAMS', 'no such log level')
    }
    this.#level = level
    this.#envelope = envelopeOf(client, discovered, level)
    return this.#answer(call, {})
  }

  #subscribe(call: UpstreamCall, { discovered }: Session, on: boolean): CallHandle {
    if (!declares(discovered, 'resources', 'subscribe')) {
      return this.#refuse(call, 'ERR_UNSUPPORTED', 'the server does not declare resources.subscribe')
    }
    const uri = settled(call.message).paramString('uri')
    if (uri === undefined) return this.#refuse(call, 'ERR_PARAMS', 'no uri')
    this.#resources ??= new Listening(this)
    return this.#resources.wish(call, uri, on, () => call.answer(localResult('0', {})))
  }

  #listChanged(message: Message): void {
    const list = listChanged.exec(message.method)?.[1]
    if (list === undefined || !this.#hears || this.#session === undefined) return
    // The process of the moment may have more to say than the one that the client was told of.
    if (declares(this.#session.discovered, list, 'listChanged')) this.notified(legacyNotification(message))
  }

  #answer(call: UpstreamCall, result: object): CallHandle {
    return soon(() => call.answer(localResult('0', result)))
  }

  #refuse(call: UpstreamCall, code: ErrorCode, detail: string): CallHandle {
    return soon(() => call.fail(new SidecarError(code, { detail })))
  }
}

function declares({ capabilities }: DiscoverResult, part: string, flag: string): boolean {
  return (capabilities[part] as Record<string, unknown> | null | undefined)?.[flag] === true
}

/** Not before the caller has its handle. */
function soon(then: () => void): CallHandle {
  let wanted = true
  queueMicrotask(() => {
    if (wanted) then()
  })
  return {
    cancel: () => {
      wanted = false
    },
    waitForInput: () => {},
  }
}
