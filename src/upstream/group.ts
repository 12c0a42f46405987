import { randomBytes } from 'node:crypto'
import { SidecarError } from '../core/errors.ts'
import type { Message } from '../core/jsonrpc.ts'
import { localRefusal, trustedResult } from '../core/local.ts'
import type { CallHandle, CallLease, LeaseWish, Timer, UpstreamCall, UpstreamOwner } from '../core/types.ts'
import { GroupLease } from './group-lease.ts'
import { GroupProcess } from './group-process.ts'
import type { Link } from './link.ts'
import type { ProcessContext } from './process.ts'
import { backoffMs } from './readiness.ts'
import { noHandle, WaitingCalls } from './waiting.ts'

export interface GroupOptions {
  /** Processes at work for one principal at a time; those that wait for a client do not count. */
  readonly poolSize: number
  /** The same with those that wait. */
  readonly maxPerPrincipal: number
  readonly startTimeoutMs: number
  /** The sidecar's own version, for `clientInfo`. */
  readonly version: string
  readonly onToolsChanged: (principalId: string) => void
  /** What is known of the server beyond one process; shared by all groups. */
  readonly habits: Habits
}

export interface Habits {
  /** It has put a request to a client during a call. */
  asks: boolean
}

/**
 * The legacy processes of one principal. One call during which the server may ask has a process to itself; everything
 * else runs beside it.
 */
export class Group {
  readonly #principalId: string
  readonly #source: { take(): Link }
  readonly #options: GroupOptions
  readonly #context: ProcessContext
  readonly #processes: GroupProcess[] = []
  readonly #waiting: WaitingCalls<UpstreamCall, GroupLease>
  readonly #listeners = new Set<GroupLease>()
  #failures = 0
  #retry: Timer | undefined
  #closed = false

  constructor(principalId: string, source: { take(): Link }, options: GroupOptions, context: ProcessContext) {
    this.#principalId = principalId
    this.#source = source
    this.#options = options
    this.#context = context
    this.#waiting = new WaitingCalls(context.clock)
  }

  get queuedBytes(): number {
    let total = 0
    for (const { link } of this.#processes) total += link.queuedBytes
    return total
  }

  get empty(): boolean {
    return this.#processes.length === 0 && this.#waiting.size === 0 && this.#listeners.size === 0
  }

  /** Since when the longest unused of its processes is so; undefined if all are needed. Monotonic milliseconds. */
  get idleSince(): number | undefined {
    let oldest: number | undefined
    for (const each of this.#spare()) oldest = Math.min(oldest ?? each.lastUsed, each.lastUsed)
    return oldest
  }

  lease(owner: UpstreamOwner, wish: LeaseWish): CallLease {
    const lease = new GroupLease(this, owner, wish)
    if (wish.use === 'listening') this.#listeners.add(lease)
    return lease
  }

  /** Puts a call on its way as soon as there is a process for it. */
  call(lease: GroupLease, call: UpstreamCall): CallHandle {
    const child = this.#free(lease)
    if (child !== undefined) return this.#send(child, lease, call)
    if (this.#closed) {
      queueMicrotask(() =>
        call.fail(new SidecarError('ERR_UPSTREAM_EXIT', { detail: 'the server is stopped' })),
      )
      return noHandle
    }
    const handle = this.#waiting.add(call, lease, () => {
      const found = this.#free(lease)
      if (found === undefined) throw new Error('a call was released without a process for it')
      return this.#send(found, lease, call)
    })
    this.#grow()
    return handle
  }

  released(lease: GroupLease): void {
    this.#listeners.delete(lease)
    const { child } = lease
    if (child !== undefined) {
      if (child.link.ended === undefined) child.proved = true
      child.lastUsed = this.#context.clock.now()
      child.vacate(lease)
    }
    for (const uri of lease.uris) {
      if (!this.#isWatched(uri)) this.#everywhere('resources/unsubscribe', uri)
    }
    if (this.#waiting.size > 0) this.#dispatch()
  }

  /** Subscribes where that has not been done. */
  watch(uris: readonly string[], lease: GroupLease): void {
    for (const uri of uris) {
      if (this.#isWatched(uri, lease)) continue
      this.#everywhere('resources/subscribe', uri)
    }
    if (this.#processes.length === 0) this.#grow()
  }

  /** A process has begun, or ceased, to wait for a client. */
  parkedChanged(): void {
    if (this.#waiting.size > 0) this.#dispatch()
  }

  /**
   * Ends processes that nobody needs and that have been unused since before then.
   *
   * @returns how many
   */
  endIdle(before: number, most = Number.POSITIVE_INFINITY): number {
    const idle = this.#spare().filter(({ lastUsed }) => lastUsed <= before)
    idle.sort((a, b) => a.lastUsed - b.lastUsed)
    const chosen = idle.slice(0, most)
    for (const each of chosen) this.#end(each)
    return chosen.length
  }

  close(): void {
    this.#closed = true
    this.#retry?.cancel()
    const error = new SidecarError('ERR_UPSTREAM_EXIT', { detail: 'the server is stopped' })
    this.#waiting.fail(error)
    for (const each of [...this.#processes]) this.#end(each)
    for (const each of this.#listeners) each.owner.onEnd(error)
  }

  /** Processes that could go; where somebody listens, one stays. */
  #spare(): GroupProcess[] {
    const spare = this.#processes.filter(
      (each) => each.tenant === undefined && each.link.pending.length === 0,
    )
    return this.#listeners.size > 0 && spare.length === this.#processes.length ? spare.slice(1) : spare
  }

  #free({ wish: { use, instance } }: GroupLease): GroupProcess | undefined {
    const anyVisitor = use === 'shared' || use === 'listening'
    const guest = use === 'unasked' && !this.#options.habits.asks
    let best: GroupProcess | undefined
    for (const each of this.#processes) {
      if (each.server === undefined || each.link.ended !== undefined) continue
      if (anyVisitor) {
        if (each.tenant === undefined) return each
        best ??= each
      } else if (guest) {
        // Beside its like rather than on a process that others could have for themselves.
        if (each.guests > 0) return each
        if (each.tenant === undefined) best ??= each
      } else if (each.instance === instance) {
        // It is waited for while it works; while it waits for a person, another one will do.
        if (each.vacant) return each
        if (each.tenant !== undefined && !each.tenant.parked) return undefined
      }
      // The one used last is the likeliest to be warm.
      else if (each.vacant && (best === undefined || each.lastUsed > best.lastUsed)) best = each
    }
    return best
  }

  #send(child: GroupProcess, lease: GroupLease, call: UpstreamCall): CallHandle {
    lease.child = child
    child.lastUsed = this.#context.clock.now()
    child.occupy(lease, this.#options.habits.asks)
    if (call.message.method === 'initialize') {
      let wanted = true
      queueMicrotask(() => {
        if (wanted) call.answer(trustedResult('0', JSON.stringify(child.server ?? {})))
      })
      return {
        cancel: () => {
          wanted = false
        },
        waitForInput: () => {},
      }
    }
    if (lease.wish.logLevel !== undefined) child.setLevel(lease.wish.logLevel)
    return child.link.call(call, lease)
  }

  #dispatch(): void {
    while (this.#waiting.releaseFirst((lease) => this.#free(lease) !== undefined)) {
      // Each one that goes takes what was free for it.
    }
    this.#grow()
  }

  /** Starts a process if calls wait that no process will soon be free for. */
  #grow(): void {
    const listening = this.#listeners.size > 0 && this.#processes.length === 0
    if (this.#closed || this.#retry !== undefined || (this.#waiting.size === 0 && !listening)) return
    let working = 0
    let starting = 0
    for (const { tenant, server, suspected } of this.#processes) {
      if (tenant?.parked === true) continue
      if (server === undefined) starting++
      else if (!suspected) working++
    }
    const wanted = Math.min(this.#options.poolSize - working, Math.max(this.#waiting.size, listening ? 1 : 0))
    for (let i = starting; i < wanted; i++) if (!this.#start()) return
  }

  #start(): boolean {
    if (this.#processes.length >= this.#options.maxPerPrincipal && !this.#endSuspected()) {
      this.#full(
        new SidecarError('ERR_OVERLOADED', {
          detail: 'too many processes of one principal (limits.processesPerPrincipal)',
        }),
      )
      return false
    }
    let link: Link
    try {
      link = this.#source.take()
    } catch (thrown) {
      if (SidecarError.from(thrown).code === 'ERR_OVERLOADED' && this.#endSuspected()) return this.#start()
      this.#full(SidecarError.from(thrown))
      return false
    }
    const child = new GroupProcess(randomBytes(12).toString('base64url'), link, this.#context, {
      onReady: () => this.#ready(child),
      onGone: (error) => this.#gone(child, error),
      onRequest: (message) => this.#onRequest(child, message),
      onNotification: (message) => this.#onNotification(child, message),
    })
    this.#processes.push(child)
    child.start(this.#options.version, this.#options.startTimeoutMs)
    return true
  }

  /** With a process that is at work now, those who wait may get that; without one they get the reason. */
  #full(error: SidecarError): void {
    const works = ({ tenant, guests, suspected }: GroupProcess): boolean =>
      tenant === undefined ? guests > 0 || !suspected : !tenant.parked
    if (this.#processes.some(works)) return
    this.#waiting.fail(error)
  }

  /** A process in which a call that was given up on may still run serves no other; it can make way. */
  #endSuspected(): boolean {
    const suspected = this.#processes.find(
      (each) => each.tenant === undefined && each.guests === 0 && each.suspected,
    )
    if (suspected !== undefined) this.#end(suspected)
    return suspected !== undefined
  }

  #end(child: GroupProcess): void {
    const at = this.#processes.indexOf(child)
    if (at >= 0) this.#processes.splice(at, 1)
    void child.link.stop()
  }

  #ready(child: GroupProcess): void {
    const uris = new Set([...this.#listeners].flatMap(({ uris: own }) => [...own]))
    for (const uri of uris) child.request('resources/subscribe', { uri })
    this.#dispatch()
  }

  #gone(child: GroupProcess, error: SidecarError): void {
    const at = this.#processes.indexOf(child)
    if (at < 0) return
    this.#processes.splice(at, 1)
    // One that has served is worth a new start at once; one that falls over by itself is not, again and again.
    this.#failures = child.proved ? 0 : this.#failures + 1
    if (child.server === undefined && this.#processes.length === 0) this.#waiting.fail(error)
    if (this.#closed || this.#listeners.size + this.#waiting.size === 0) return
    const pauseMs = backoffMs(this.#failures, Math.random())
    if (pauseMs === 0) {
      this.#grow()
      return
    }
    this.#retry ??= this.#context.clock.after(pauseMs, () => {
      this.#retry = undefined
      this.#grow()
    })
  }

  #onRequest(child: GroupProcess, message: Message): void {
    // Roots are asked for at the start, too, and guests have none.
    const ofTenant = child.tenant !== undefined || message.method !== 'roots/list'
    const asked = ofTenant ? (child.tenant ?? child.onlyGuest) : undefined
    if (ofTenant && (asked !== undefined || child.guests > 0)) this.#options.habits.asks = true
    if (asked !== undefined) {
      asked.owner.onRequest(message, asked.latest)
      return
    }
    // An error even for roots: servers remember an empty list for good, and after an error they ask again in time.
    this.#context.metrics.dropped('server_request_nobody')
    child.link.send(localRefusal(message.idText as string, -32601, 'ERR_NO_CLIENT'))
  }

  #onNotification(child: GroupProcess, message: Message): void {
    if (message.method === 'notifications/tools/list_changed') this.#options.onToolsChanged(this.#principalId)
    switch (message.method) {
      case 'notifications/tools/list_changed':
      case 'notifications/prompts/list_changed':
      case 'notifications/resources/list_changed':
        for (const each of this.#listeners) each.owner.onNotification(message, undefined)
        return
      case 'notifications/resources/updated': {
        const uri = message.paramString('uri')
        for (const each of this.#listeners) {
          if (uri !== undefined && each.watches(uri)) each.owner.onNotification(message, undefined)
        }
        return
      }
      case 'notifications/message': {
        const listener = child.onlyTenant
        if (listener === undefined) break
        listener.owner.onNotification(message, listener.latest)
        return
      }
      case 'notifications/cancelled':
        child.tenant?.owner.onNotification(message, child.tenant.latest)
        return
    }
    this.#context.metrics.dropped('unattributable')
  }

  #isWatched(uri: string, except?: GroupLease): boolean {
    for (const each of this.#listeners) if (each !== except && each.uris.has(uri)) return true
    return false
  }

  #everywhere(method: string, uri: string): void {
    for (const each of this.#processes) if (each.server !== undefined) each.request(method, { uri })
  }
}
