import { SidecarError } from '../core/errors.ts'
import type { Message } from '../core/jsonrpc.ts'
import type { CallHandle, Principal, Timer, Upstream, UpstreamCall, UpstreamOwner } from '../core/types.ts'
import { latestCall } from './attribution.ts'
import { handshake, logServer } from './handshake.ts'
import { Link } from './link.ts'
import type { PerSessionOptions, ServerPool } from './pool.ts'
import type { ProcessContext } from './process.ts'
import { Readiness } from './readiness.ts'

/** Time for a first client to prove the server before it is tried by us. Milliseconds. */
const probeDelayMs = 400
/** Time between taking a spare and starting the next: the new session's own work goes first. Milliseconds. */
const spareDelayMs = 50

/** Processes on their way out that do not count against the limit. */
const maxStopping = 16

/** Who takes processes beside the sessions, and lives no longer than the pool. */
export interface Guest {
  /** At the limit: ends one that stands idle; false if there is none. */
  makeRoom(): boolean
  retire(): void
  close(): void
}

/**
 * One process for each session, the default for legacy clients: their servers keep state for a connection and
 * freeze capabilities at initialize. Processes are started ahead, not initialized, so that a session finds
 * one warm.
 */
export class PerSessionPool implements ServerPool {
  readonly #options: PerSessionOptions
  readonly #context: ProcessContext
  readonly #links = new Set<Link>()
  readonly #spares: Link[] = []
  readonly #readiness: Readiness
  /** How many leases each principal has, by its id. */
  readonly #leased = new Map<string, number>()
  #spareTimer: Timer | undefined
  #probeTimer: Timer | undefined
  #probing = false
  #probeLink: Link | undefined
  #closed = false
  /** Another who takes processes from here. */
  guest: Guest | undefined

  constructor(options: PerSessionOptions, context: ProcessContext) {
    this.#options = options
    this.#context = context
    const { hint } = options.command.confinement ?? {}
    this.#readiness = new Readiness(context.clock, context.log, () => this.#probe(), hint)
  }

  start(): void {
    this.#refill()
    this.#probeTimer = this.#context.clock.after(probeDelayMs, () => {
      if (!this.#readiness.ready) this.#probe()
    })
  }

  get ready(): boolean {
    return this.#readiness.ready
  }

  get processes(): number {
    return this.#links.size
  }

  get queuedBytes(): number {
    let total = 0
    for (const link of this.#links) total += link.queuedBytes
    return total
  }

  /** A process nobody has spoken to. @throws ERR_OVERLOADED, ERR_DRAINING */
  take(): Link {
    let link = this.#spares.shift()
    while (link?.ended !== undefined) link = this.#spares.shift()
    link ??= this.#start()
    this.#refillSoon()
    return link
  }

  /** @throws ERR_OVERLOADED, ERR_DRAINING */
  lease(owner: UpstreamOwner): Upstream {
    this.#checkShare(owner.principal)
    const link = this.#forSession()
    // After what can fail, and before the lease: the process may have ended, which gives its place back at once.
    const free = this.#count(owner.principal)
    const onToolsChanged = (): void => this.#options.onToolsChanged(owner.principal.id)
    const proven = (answered: boolean): void => {
      if (this.#closed) return
      if (answered) this.#readiness.up()
      // One client's initialize may fail for reasons of its own.
      else this.#probe()
    }
    return new ExclusiveLease(link, owner, { onToolsChanged, proven, free })
  }

  retire(): void {
    this.#closed = true
    this.guest?.retire()
    this.#spareTimer?.cancel()
    this.#probeTimer?.cancel()
    this.#readiness.close()
    void this.#probeLink?.stop()
    // Nobody takes one any more, not even on its way out.
    for (const spare of this.#spares.splice(0)) void spare.stop()
  }

  async close(): Promise<void> {
    this.retire()
    this.guest?.close()
    await Promise.all([...this.#links].map((link) => link.stop()))
  }

  /** One caller must not take every process from the others. @throws ERR_OVERLOADED */
  #checkShare({ id, kind }: Principal): void {
    const own = this.#leased.get(id) ?? 0
    // Without authentication everybody is the same principal.
    if (kind === 'anonymous' || own < this.#options.maxPerPrincipal) return
    throw new SidecarError('ERR_OVERLOADED', {
      detail: `${id} has ${own} server processes (limits.processesPerPrincipal)`,
      headers: { 'Retry-After': '5' },
    })
  }

  /** @returns what takes it back; only the first call does */
  #count({ id }: Principal): () => void {
    this.#leased.set(id, (this.#leased.get(id) ?? 0) + 1)
    let counted = true
    return () => {
      if (!counted) return
      counted = false
      const left = (this.#leased.get(id) ?? 0) - 1
      if (left > 0) this.#leased.set(id, left)
      else this.#leased.delete(id)
    }
  }

  #forSession(): Link {
    try {
      return this.take()
    } catch (thrown) {
      if (SidecarError.from(thrown).code !== 'ERR_OVERLOADED' || this.guest?.makeRoom() !== true) throw thrown
      return this.take()
    }
  }

  /** Processes that are being stopped make room at once, but only so many: they may take seconds to go. */
  get #hasRoom(): boolean {
    let running = 0
    for (const link of this.#links) if (!link.process.stopping) running++
    const { maxProcesses } = this.#options
    return running < maxProcesses && this.#links.size < maxProcesses + maxStopping
  }

  #start(): Link {
    if (this.#closed) throw new SidecarError('ERR_DRAINING')
    // A look whether the server answers takes no session's place.
    if (!this.#hasRoom) void this.#probeLink?.stop()
    if (!this.#hasRoom) {
      throw new SidecarError('ERR_OVERLOADED', {
        detail: `${this.#options.maxProcesses} server processes are running (limits.processes)`,
        headers: { 'Retry-After': '5' },
      })
    }
    const link = new Link(this.#options.command, this.#context, this.#options)
    this.#links.add(link)
    void link.process.gone.then(() => {
      this.#links.delete(link)
      const spare = this.#spares.indexOf(link)
      if (spare < 0) return
      this.#spares.splice(spare, 1)
      this.#probe()
    })
    return link
  }

  #refillSoon(): void {
    this.#spareTimer ??= this.#context.clock.after(spareDelayMs, () => this.#refill())
  }

  #refill(): void {
    this.#spareTimer = undefined
    if (this.#closed || this.#readiness.waiting) return
    while (this.#spares.length < this.#options.warmSpares && this.#hasRoom) this.#spares.push(this.#start())
  }

  /** Shows that the server answers, on a process that is then thrown away: a client's capabilities differ. */
  #probe(): void {
    if (this.#probing || this.#closed || this.#readiness.waiting) return
    const link = this.#hasRoom ? this.#start() : this.#spares.shift()
    if (link === undefined) return
    this.#probing = true
    this.#probeLink = link
    const { startTimeoutMs, version } = this.#options
    handshake(link, {}, version, startTimeoutMs)
      .then(
        (result) => {
          if (this.#readiness.up()) logServer(this.#context, result)
        },
        (error: unknown) => {
          if (!link.process.stopping) this.#readiness.down(SidecarError.from(error).detail ?? String(error))
        },
      )
      .finally(() => {
        this.#probing = false
        this.#probeLink = undefined
        void link.stop()
        this.#refillSoon()
      })
  }
}

interface LeaseEvents {
  onToolsChanged(): void
  /** Initialize was answered, or failed. */
  proven(answered: boolean): void
  /** It has no process any more. May come twice. */
  free(): void
}

class ExclusiveLease implements Upstream {
  readonly exclusive = true
  readonly #link: Link
  readonly #events: LeaseEvents

  constructor(link: Link, owner: UpstreamOwner, events: LeaseEvents) {
    this.#link = link
    this.#events = events
    link.attach({
      onRequest: (message) => owner.onRequest(message, latestCall(link.pending)?.call),
      onNotification: (message) => {
        if (message.method === 'notifications/tools/list_changed') events.onToolsChanged()
        owner.onNotification(message, latestCall(link.pending)?.call)
      },
      onEnd: (error) => {
        events.free()
        owner.onEnd(error)
      },
    })
  }

  get queuedBytes(): number {
    return this.#link.queuedBytes
  }

  call(call: UpstreamCall): CallHandle {
    if (call.message.method !== 'initialize') return this.#link.call(call, this)
    return this.#link.call(
      {
        message: call.message,
        reachable: false,
        deadline: call.deadline,
        progress: (message) => call.progress(message),
        answer: (message) => {
          this.#events.proven(!message.isError)
          call.answer(message)
        },
        fail: (error) => {
          this.#events.proven(false)
          call.fail(error)
        },
      },
      this,
    )
  }

  send(message: Message): void {
    this.#link.send(message)
  }

  pause(): void {
    this.#link.output.pause()
  }

  resume(): void {
    this.#link.output.resume()
  }

  release(): void {
    this.#events.free()
    void this.#link.stop()
  }
}
