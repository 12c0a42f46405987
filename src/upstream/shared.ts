import { SidecarError } from '../core/errors.ts'
import { keyText, type Message } from '../core/jsonrpc.ts'
import { localCancellation, localRefusal, localRequest, localResult } from '../core/local.ts'
import { logLevels } from '../core/mcp.ts'
import type {
  CallHandle,
  CallLease,
  CallPool,
  InitializeResult,
  LeaseWish,
  UpstreamCall,
  UpstreamOwner,
} from '../core/types.ts'
import { exactCall } from './attribution.ts'
import { capabilitySuperset, handshake, logServer } from './handshake.ts'
import { Link } from './link.ts'
import type { PendingCall } from './pending.ts'
import type { PoolOptions, ServerPool } from './pool.ts'
import type { ProcessContext } from './process.ts'
import { Readiness } from './readiness.ts'
import { defaultLevel, SharedLease } from './shared-lease.ts'
import { noHandle, WaitingCalls } from './waiting.ts'

/** How long a cancelled call may still ask on behalf of its session. Milliseconds. */
const stopGraceMs = 2000

/**
 * One process for all sessions, for servers of which the operator says that they keep no state for a session. The
 * sidecar initializes it; ids, progress tokens and requests of the server are mapped per caller, and what cannot be
 * told apart is delivered to nobody.
 */
export class SharedPool implements ServerPool, CallPool {
  readonly #options: PoolOptions
  readonly #context: ProcessContext
  readonly #readiness: Readiness
  readonly #leases = new Set<SharedLease>()
  /** Requests of the server that a client has been asked: the server's id to who was asked. */
  readonly #asked = new Map<string, SharedLease>()
  readonly #elicitations = new Map<string, SharedLease>()
  readonly #waiting: WaitingCalls<UpstreamCall, SharedLease>
  #link: Link | undefined
  #server: InitializeResult | undefined
  #level: string | undefined
  #closed = false
  #retired = false

  constructor(options: PoolOptions, context: ProcessContext) {
    this.#options = options
    this.#context = context
    const { hint } = options.command.confinement ?? {}
    this.#readiness = new Readiness(context.clock, context.log, () => this.#start('restart'), hint)
    this.#waiting = new WaitingCalls(context.clock)
  }

  start(): void {
    this.#start('first')
  }

  get ready(): boolean {
    return this.#readiness.ready
  }

  get processes(): number {
    return this.#link === undefined ? 0 : 1
  }

  get queuedBytes(): number {
    return this.#link?.queuedBytes ?? 0
  }

  queuedBytesOf(): number {
    return this.queuedBytes
  }

  /** The server's InitializeResult while it runs. */
  get server(): InitializeResult | undefined {
    return this.#server
  }

  /** @param wish of a call that stands alone, for which the sidecar declared what it can */
  lease(owner: UpstreamOwner, wish?: LeaseWish): CallLease {
    if (this.#closed || this.#retired) throw new SidecarError('ERR_DRAINING')
    const lease = new SharedLease(this, owner, wish)
    this.#leases.add(lease)
    if (lease.level !== undefined) this.levelChanged()
    return lease
  }

  /** Restarts nothing any more: whoever still uses it when its process ends begins anew, on the next server. */
  retire(): void {
    this.#retired = true
    this.#readiness.close()
    if (this.#leases.size === 0) void this.close()
    else if (this.#link === undefined) this.#endLeases('the server is down')
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#readiness.close()
    await this.#link?.stop()
  }

  /** Sends a call now, or as soon as a starting process answers. */
  call(lease: SharedLease, call: UpstreamCall): CallHandle {
    if (this.#server !== undefined && this.#link !== undefined) return this.#link.call(call, lease)
    if (this.#closed || this.#readiness.waiting) {
      queueMicrotask(() => call.fail(new SidecarError('ERR_UPSTREAM_EXIT', { detail: 'the server is down' })))
      return noHandle
    }
    return this.#waiting.add(call, lease, () => lease.call(call))
  }

  send(message: Message): void {
    this.#link?.send(message)
  }

  /** The client's response to a request of the server: only from whom it was put to. */
  respond(lease: SharedLease, message: Message): void {
    const key = message.idKey as string
    if (this.#asked.get(key) !== lease) return
    this.#asked.delete(key)
    this.#link?.send(message)
  }

  /** A request of the sidecar itself whose outcome changes nothing. */
  request(method: string, params: object): void {
    if (this.#server === undefined) return
    const ms = this.#options.startTimeoutMs
    const ignore = (): void => {}
    this.#link?.call(
      {
        message: localRequest(method, params),
        reachable: false,
        deadline: { timeoutMs: ms, maxMs: ms, inputMs: ms },
        progress: ignore,
        answer: ignore,
        fail: ignore,
      },
      undefined,
    )
  }

  /** Asks the server for the most detailed log level that any session wants, once one has said what it wants. */
  levelChanged(): void {
    const leases = [...this.#leases]
    if (leases.every((lease) => lease.level === undefined)) return
    const lowest = Math.min(...leases.map((lease) => lease.level ?? defaultLevel))
    const level: string | undefined = logLevels[lowest]
    if (level === undefined || level === this.#level) return
    this.#level = level
    this.request('logging/setLevel', { level })
  }

  isSubscribed(uri: string): boolean {
    for (const { subscriptions } of this.#leases) if (subscriptions.has(uri)) return true
    return false
  }

  released(lease: SharedLease): void {
    if (!this.#leases.delete(lease)) return
    for (const uri of lease.subscriptions) {
      if (!this.isSubscribed(uri)) this.request('resources/unsubscribe', { uri })
    }
    for (const [key, asked] of this.#asked) {
      if (asked !== lease) continue
      this.#asked.delete(key)
      this.#refuse(keyText(key), -32603, 'ERR_NO_CLIENT')
    }
    for (const [id, owner] of this.#elicitations) if (owner === lease) this.#elicitations.delete(id)
    this.levelChanged()
    if (this.#retired && this.#leases.size === 0) void this.close()
  }

  #start(why: 'first' | 'restart'): void {
    if (this.#closed) return
    if (why === 'restart') this.#context.metrics.processRestarted()
    const link = new Link(this.#options.command, this.#context, this.#options)
    this.#link = link
    link.attach({
      onRequest: (message) => this.#onRequest(link, message),
      onNotification: (message) => this.#onNotification(link, message),
      onEnd: (error) => this.#onEnd(link, error.detail ?? error.code),
    })
    const { startTimeoutMs, version } = this.#options
    handshake(link, capabilitySuperset, version, startTimeoutMs).then(
      (result) => this.#started(link, result),
      (error: unknown) => {
        // Where the process ended, onEnd has said so already.
        if (this.#link === link) this.#onEnd(link, SidecarError.from(error).detail ?? String(error))
        void link.stop()
      },
    )
  }

  #started(link: Link, server: InitializeResult): void {
    if (this.#link !== link) return
    this.#server = server
    if (this.#readiness.up()) logServer(this.#context, server)
    this.#level = undefined
    this.levelChanged()
    const uris = new Set([...this.#leases].flatMap((lease) => [...lease.subscriptions]))
    for (const uri of uris) this.request('resources/subscribe', { uri })
    this.#waiting.release()
  }

  #onEnd(link: Link, reason: string): void {
    if (this.#link !== link) return
    this.#link = undefined
    this.#server = undefined
    this.#elicitations.clear()
    for (const [key, lease] of this.#asked) {
      lease.withdraw(localCancellation(keyText(key), 'the server restarted'))
    }
    this.#asked.clear()
    this.#waiting.fail(new SidecarError('ERR_UPSTREAM_EXIT', { detail: reason }))
    if (this.#retired) this.#endLeases(reason)
    else if (!this.#closed) this.#readiness.down(reason)
  }

  #endLeases(reason: string): void {
    void this.close()
    const error = new SidecarError('ERR_UPSTREAM_EXIT', { detail: reason })
    for (const lease of [...this.#leases]) lease.owner.onEnd(error)
  }

  #onRequest(link: Link, message: Message): void {
    if (this.#link !== link) return
    const { metrics, log } = this.#context
    const found = this.#attribute(link)
    const idText = message.idText as string
    if (found === 'nobody' && message.method === 'roots/list') {
      this.send(localResult(idText, { roots: [] }))
      return
    }
    if (found === 'nobody' || found === 'ambiguous') {
      metrics.dropped(`server_request_${found}`)
      log.warn(
        { method: message.method, found },
        'a request of the shared server belongs to no single session',
      )
      this.#refuse(idText, found === 'nobody' ? -32601 : -32603, 'ERR_NO_CLIENT')
      return
    }
    const lease = found.owner as SharedLease
    if (!lease.declares(message.method)) {
      this.#refuse(idText, -32601, 'ERR_UNSUPPORTED')
      return
    }
    this.#asked.set(message.idKey as string, lease)
    const elicitation = message.paramString('elicitationId')
    if (elicitation !== undefined && this.#elicitations.size < 10_000)
      this.#elicitations.set(elicitation, lease)
    lease.owner.onRequest(message, found.call)
  }

  #onNotification(link: Link, message: Message): void {
    if (this.#link !== link) return
    switch (message.method) {
      case 'notifications/tools/list_changed':
      case 'notifications/prompts/list_changed':
      case 'notifications/resources/list_changed':
        if (message.method === 'notifications/tools/list_changed') this.#options.onToolsChanged(undefined)
        for (const lease of this.#leases) lease.owner.onNotification(message, undefined)
        return
      case 'notifications/resources/updated': {
        const uri = message.paramString('uri')
        for (const lease of this.#leases) {
          if (uri !== undefined && lease.watches(uri)) lease.owner.onNotification(message, undefined)
        }
        return
      }
      case 'notifications/message': {
        const found = this.#attribute(link)
        if (typeof found === 'string') break
        const lease = found.owner as SharedLease
        if (lease.hears(message.paramString('level'))) lease.owner.onNotification(message, found.call)
        return
      }
      case 'notifications/cancelled': {
        const key = message.paramKey('requestId')
        const lease = key === undefined ? undefined : this.#asked.get(key)
        if (key === undefined || lease === undefined) break
        this.#asked.delete(key)
        lease.owner.onNotification(message, undefined)
        return
      }
      case 'notifications/elicitation/complete': {
        const id = message.paramString('elicitationId') ?? ''
        const lease = this.#elicitations.get(id)
        if (lease === undefined) break
        this.#elicitations.delete(id)
        lease.owner.onNotification(message, undefined)
        return
      }
    }
    this.#context.metrics.dropped('unattributable')
  }

  /**
   * After a cancellation a server has a moment to stop asking, as it must. Towards other principals that is not relied
   * on: for them the call counts as running until its hard deadline.
   */
  #attribute(link: Link): PendingCall | 'nobody' | 'ambiguous' {
    const now = this.#context.clock.now()
    return exactCall(link.pending, link.suspects(), (suspect, owner) => {
      if (!(suspect.owner instanceof SharedLease) || !(owner instanceof SharedLease)) return false
      const samePrincipal = suspect.owner.owner.principal.id === owner.owner.principal.id
      return samePrincipal && now - suspect.since > stopGraceMs
    })
  }

  #refuse(idText: string, rpc: number, reason: 'ERR_NO_CLIENT' | 'ERR_UNSUPPORTED'): void {
    this.send(localRefusal(idText, rpc, reason))
  }
}
