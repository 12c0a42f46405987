import { metaKey } from '../core/envelope.ts'
import { SidecarError } from '../core/errors.ts'
import type { Message } from '../core/jsonrpc.ts'
import { localRefusal, localResult } from '../core/local.ts'
import { isLoggedAt } from '../core/mcp.ts'
import type { CallHandle, DiscoverResult, ModernCall } from '../core/types.ts'
import { Link } from './link.ts'
import type { PendingCall } from './pending.ts'
import type { PoolOptions } from './pool.ts'
import { type Probe, probe } from './probe.ts'
import type { ProcessContext } from './process.ts'
import { Readiness } from './readiness.ts'
import { ListWatch, Subscription } from './subscription.ts'
import { noHandle, WaitingCalls } from './waiting.ts'

/** A process that answered `server/discover`; undefined if another one has to be started for the work. */
export interface Discovered {
  readonly discovered: DiscoverResult
  readonly link: Link | undefined
}

const lists = ['tools', 'prompts', 'resources'] as const

/** Somebody who wants to hear when a list changes. */
interface Attendant {
  readonly onListChanged: (message: Message) => void
  readonly onEnd: (error: SidecarError) => void
}

/** How long a cancelled call may still log on behalf of its own principal. Milliseconds. */
const stopGraceMs = 2000

/**
 * One process of a modern server, for whoever calls: each request carries its own context, so nothing has to be told
 * apart but ids, tokens and subscriptions. Restarted when it ends; subscriptions are then opened again
 * (2026-07-28, basic/transports/stdio, "Shutdown").
 */
export class ModernProcess {
  readonly #options: PoolOptions
  readonly #context: ProcessContext
  readonly #readiness: Readiness
  readonly #waiting: WaitingCalls<ModernCall, undefined>
  readonly #subscriptions = new Set<Subscription>()
  #probe: Probe | undefined
  #link: Link | undefined
  #discovered: DiscoverResult | undefined
  /** Waiting for the first answer to discover. */
  #curious: { resolve(found: DiscoverResult): void; reject(error: SidecarError): void }[] = []
  readonly #onLegacy: (reason: string) => void
  readonly #attendants = new Set<Attendant>()
  /** Of the process of the moment; undefined if it has no lists that change. */
  #watch: ListWatch | undefined
  #closed = false
  #retired = false

  /**
   * @param first what a probe found, and the process it found it with
   * @param onLegacy calls when the server does not answer as a modern one (any more); it is tried again all the same
   */
  constructor(
    options: PoolOptions,
    context: ProcessContext,
    first: Discovered | undefined,
    onLegacy: (reason: string) => void,
  ) {
    this.#options = options
    this.#context = context
    this.#onLegacy = onLegacy
    const restart = (): void => {
      context.metrics.processRestarted()
      this.#start()
    }
    const { hint } = options.command.confinement ?? {}
    this.#readiness = new Readiness(context.clock, context.log, restart, hint)
    this.#waiting = new WaitingCalls(context.clock)
    this.#discovered = first?.discovered
    if (first === undefined) this.#start()
    else this.#serve(first.link ?? new Link(options.command, context, options))
  }

  get ready(): boolean {
    return this.#readiness.ready
  }

  get processes(): number {
    return this.#link === undefined && this.#probe === undefined ? 0 : 1
  }

  get queuedBytes(): number {
    return this.#link?.queuedBytes ?? 0
  }

  /** Nothing is under way and nobody listens. */
  get idle(): boolean {
    if (this.#attendants.size + this.#subscriptions.size + this.#waiting.size > 0) return false
    return (this.#link?.pending.length ?? 0) === (this.#watch?.open === true ? 1 : 0)
  }

  /** What it has said of itself, if it has. */
  get known(): DiscoverResult | undefined {
    return this.#discovered
  }

  /** @throws ERR_UPSTREAM_EXIT */
  discovered(): DiscoverResult | Promise<DiscoverResult> {
    if (this.#discovered !== undefined) return this.#discovered
    if (this.#probe === undefined) throw this.#gone()
    return new Promise((resolve, reject) => {
      this.#curious.push({ resolve, reject })
    })
  }

  /**
   * @param onListChanged gets what the server says about its lists; it carries the mark of a subscription
   * @returns stops it
   */
  attend(onListChanged: (message: Message) => void, onEnd: (error: SidecarError) => void): () => void {
    const attendant: Attendant = { onListChanged, onEnd }
    this.#attendants.add(attendant)
    return () => this.#attendants.delete(attendant)
  }

  call(call: ModernCall): CallHandle {
    if (call.message.method !== 'subscriptions/listen') return this.#send(call)
    const subscription = new Subscription(call, () => this.#subscriptions.delete(subscription))
    this.#subscriptions.add(subscription)
    if (this.#closed) queueMicrotask(() => subscription.end(this.#gone()))
    else subscription.handle = this.#link?.call(subscription, call.principal.id)
    return subscription
  }

  /** Serves on with the process that it has; no other is started. */
  retire(): void {
    this.#retired = true
    this.#readiness.close()
    if (this.#link === undefined && this.#probe === undefined) void this.close()
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#watch?.stop()
    this.#readiness.close()
    // With no process left nothing else would tell them.
    if (this.#link === undefined) this.#endAll(this.#gone())
    await Promise.all([this.#link?.stop(), this.#probe?.stop()])
  }

  #send(call: ModernCall): CallHandle {
    if (this.#link !== undefined) return this.#link.call(call, call.principal.id)
    if (this.#closed || this.#readiness.waiting) {
      queueMicrotask(() => call.fail(this.#gone()))
      return noHandle
    }
    return this.#waiting.add(call, undefined, (each) => this.#send(each))
  }

  #start(): void {
    if (this.#closed) return
    const trial = probe(this.#options.command, this.#context, { ...this.#options, stderr: 'log' })
    this.#probe = trial
    void trial.result.then((result) => {
      this.#probe = undefined
      const curious = this.#curious
      this.#curious = []
      // What answered may be gone already, and its place is then for another process.
      const over = this.#closed || (this.#retired && (result.era === 'legacy' || result.link === undefined))
      if (result.era === 'legacy' || over) {
        const detail = result.era === 'legacy' ? result.reason : 'it is being stopped'
        const error = new SidecarError('ERR_UPSTREAM_EXIT', { detail })
        for (const { reject } of curious) reject(error)
        this.#waiting.fail(error)
        if (over) {
          this.#closed = true
          this.#endAll(error)
          return
        }
        this.#readiness.down(detail)
        if (result.era === 'legacy' && result.certain) this.#onLegacy(detail)
        return
      }
      this.#discovered = result.discovered
      for (const { resolve } of curious) resolve(result.discovered)
      this.#serve(result.link ?? new Link(this.#options.command, this.#context, this.#options))
    })
  }

  #serve(link: Link): void {
    this.#link = link
    link.attach({
      onRequest: (message) => this.#onRequest(link, message),
      onNotification: (message) => this.#onNotification(link, message),
      onEnd: (error) => this.#onEnd(link, error),
    })
    if (this.#link !== link) return
    if (this.#readiness.up()) {
      const { name, version } = serverInfo(this.#discovered?.['_meta'])
      const versions = this.#discovered?.supportedVersions
      this.#context.log.info({ server: name, serverVersion: version, versions }, 'the MCP server answers')
    }
    this.#watchLists(link)
    this.#waiting.release()
    for (const each of this.#subscriptions) each.handle = link.call(each, each.principal.id)
  }

  #watchLists(link: Link): void {
    // Headers of calls are checked by what the tools declare, so the sidecar has to know when they change.
    const onToolsChanged = (): void => this.#options.onToolsChanged(undefined)
    onToolsChanged()
    const changing = lists.filter((list) => {
      const capability = this.#discovered?.capabilities[list] as { listChanged?: unknown } | null | undefined
      return capability?.listChanged === true
    })
    if (changing.length === 0) return
    this.#watch = new ListWatch(link, changing, this.#options.version, {
      onReopened: onToolsChanged,
      onChanged: (message) => {
        if (message.method === 'notifications/tools/list_changed') onToolsChanged()
        for (const { onListChanged } of this.#attendants) onListChanged(message)
      },
    })
  }

  #onEnd(link: Link, error: SidecarError): void {
    if (this.#link !== link) return
    this.#link = undefined
    this.#watch?.stop()
    this.#watch = undefined
    if (this.#retired) this.#closed = true
    if (this.#closed) this.#endAll(error)
    else this.#readiness.down(error.detail ?? error.code)
  }

  /** No process will come any more. */
  #endAll(error: SidecarError): void {
    this.#waiting.fail(error)
    for (const each of [...this.#subscriptions]) each.end(error)
    for (const each of [...this.#attendants]) each.onEnd(error)
  }

  #gone(): SidecarError {
    return new SidecarError('ERR_UPSTREAM_EXIT', { detail: 'the server is down' })
  }

  /** Servers of this era ask by answering; a request of theirs is nobody's. */
  #onRequest(link: Link, message: Message): void {
    this.#context.metrics.dropped('server_request')
    link.send(localRefusal(message.idText as string, -32601, 'ERR_UNSUPPORTED'))
  }

  #onNotification(link: Link, message: Message): void {
    const mark = message.metaSpans?.subscriptionId
    const ends = message.method === 'notifications/cancelled'
    if (mark !== undefined || ends) {
      const id = Number(mark === undefined ? message.paramKey('requestId')?.slice(1) : message.text(mark))
      const call = subscriptionOf(link, id)
      if (call === undefined) this.#context.metrics.dropped('late_subscription')
      else if (!ends) call.notify(message)
      else {
        // The specification has two ways for a server to end a subscription; whoever listens knows one.
        const result = { resultType: 'complete', _meta: { [metaKey('subscriptionId')]: id } }
        link.settle(id, localResult(String(id), result))
      }
      return
    }
    if (message.method === 'notifications/message') {
      this.#onLog(link, message)
      return
    }
    this.#context.metrics.dropped('unattributable')
  }

  /** Log messages name no request: they go to the only one that wants some, or to nobody. */
  #onLog(link: Link, message: Message): void {
    const loggers = link.pending.filter(({ call }) => call.logLevel !== undefined)
    const [only] = loggers
    if (only === undefined || loggers.length > 1 || this.#mayBeAnothers(link, only)) {
      this.#context.metrics.dropped('unattributable')
      return
    }
    if (isLoggedAt(only.call.logLevel, message.paramString('level')))
      (only.call as ModernCall).notify(message)
    else this.#context.metrics.dropped('log_message')
  }

  /** After a cancellation a server must fall silent. Towards other principals that is not relied on. */
  #mayBeAnothers(link: Link, { owner }: PendingCall): boolean {
    const now = this.#context.clock.now()
    for (const suspect of link.suspects()) {
      const cleared = suspect.owner === owner && now - suspect.since > stopGraceMs
      if (suspect.logs && !cleared) return true
    }
    return false
  }
}

/** The subscription that has this id of the link. */
function subscriptionOf(link: Link, id: number): ModernCall | undefined {
  const { call } = link.find(id) ?? {}
  return call?.message.method === 'subscriptions/listen' ? (call as ModernCall) : undefined
}

function serverInfo(meta: unknown): { name?: unknown; version?: unknown } {
  const info = (meta as Record<string, unknown> | undefined)?.[metaKey('serverInfo')]
  return typeof info === 'object' && info !== null ? info : {}
}
