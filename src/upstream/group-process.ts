import { SidecarError } from '../core/errors.ts'
import type { Message } from '../core/jsonrpc.ts'
import { localRequest } from '../core/local.ts'
import { logLevels } from '../core/mcp.ts'
import type { InitializeResult, LeaseWish, UpstreamCall, UpstreamOwner } from '../core/types.ts'
import { capabilitySuperset, handshake } from './handshake.ts'
import type { Link } from './link.ts'
import type { ProcessContext } from './process.ts'

/** A server that leaves a ping unanswered is waited for no longer than this. Milliseconds. */
const settleMs = 1000

export interface GroupProcessEvents {
  onReady(): void
  onGone(error: SidecarError): void
  onRequest(message: Message): void
  onNotification(message: Message): void
}

/** A lease, as the process sees it that serves it. */
export interface Tenant {
  readonly owner: UpstreamOwner
  readonly wish: LeaseWish
  /** The latest call made on it. */
  readonly latest: UpstreamCall | undefined
  readonly parked: boolean
}

/** One legacy process of a group, initialized by the sidecar. */
export class GroupProcess {
  readonly instance: string
  readonly link: Link
  /** What it said of itself; undefined until it has. */
  server: InitializeResult | undefined
  /** The lease whose call has it to itself. */
  tenant: Tenant | undefined
  /** Calls beside each other whose clients could not be asked. */
  guests = 0
  /** Monotonic milliseconds. */
  lastUsed: number
  /** It has served somebody to the end. */
  proved = false
  readonly #context: ProcessContext
  readonly #events: GroupProcessEvents
  #level: string | undefined

  constructor(instance: string, link: Link, context: ProcessContext, events: GroupProcessEvents) {
    this.instance = instance
    this.link = link
    this.lastUsed = context.clock.now()
    this.#context = context
    this.#events = events
  }

  start(version: string, startTimeoutMs: number): void {
    const { link } = this
    link.attach({
      onRequest: (message) => this.#events.onRequest(message),
      onNotification: (message) => this.#events.onNotification(message),
      onEnd: (error) => this.#events.onGone(error),
    })
    handshake(link, capabilitySuperset, version, startTimeoutMs).then(
      (server) => {
        // Whatever it asks because it was initialized comes before its answer to this, and is no call's.
        this.request('ping', {}, () => {
          if (this.server !== undefined || link.ended !== undefined) return
          this.server = server
          this.#events.onReady()
        })
      },
      (error: unknown) => {
        this.#events.onGone(SidecarError.from(error))
        void link.stop()
      },
    )
  }

  /** No call that may ask runs there, not even one that was given up on. */
  get vacant(): boolean {
    return this.tenant === undefined && this.guests === 0 && !this.suspected
  }

  /** The only call under way that may ask, if it is a guest's. */
  get onlyGuest(): Tenant | undefined {
    if (this.guests !== 1 || this.suspected) return undefined
    for (const { owner } of this.link.pending) {
      const lease = owner as Tenant | undefined
      if (lease?.wish.use === 'unasked') return lease
    }
    return undefined
  }

  /** @param alone calls whose clients cannot be asked need a process to themselves, too */
  occupy(lease: Tenant, alone: boolean): void {
    const { use } = lease.wish
    if (use === 'exclusive' || (use === 'unasked' && alone)) this.tenant = lease
    else if (use === 'unasked') this.guests++
  }

  vacate(lease: Tenant): void {
    if (this.tenant === lease) this.tenant = undefined
    else if (lease.wish.use === 'unasked') this.guests--
  }

  /** A call that was given up on may still run there, and ask. */
  get suspected(): boolean {
    return this.link.hasSuspects
  }

  /**
   * The lease of the only call under way: what the server logs is its own. A legacy server logs for every call, whoever
   * wants to know, so beside another one nothing is certain.
   */
  get onlyTenant(): Tenant | undefined {
    if (this.suspected) return undefined
    let only: Tenant | undefined
    for (const { owner } of this.link.pending) {
      if (owner === undefined) continue
      if (only !== undefined) return undefined
      only = owner as Tenant
    }
    return only
  }

  /** Makes the server log at this level at least; never at less, since others may still want to know more. */
  setLevel(level: string): void {
    if (this.server?.capabilities['logging'] === undefined) return
    const levels: readonly string[] = logLevels
    if (this.#level !== undefined && levels.indexOf(level) >= levels.indexOf(this.#level)) return
    this.#level = level
    this.request('logging/setLevel', { level })
  }

  /** A request of the sidecar itself; `then` is called whatever comes of it. */
  request(method: string, params: object, then: () => void = () => {}): void {
    const ms = method === 'ping' ? settleMs : 60_000
    this.link.call(
      {
        message: localRequest(method, params),
        reachable: false,
        deadline: { timeoutMs: ms, maxMs: ms, inputMs: ms },
        progress: () => {},
        answer: then,
        fail: (error) => {
          this.#context.log.warn({ method, detail: error.detail }, 'the server did not answer')
          then()
        },
      },
      undefined,
    )
  }
}
