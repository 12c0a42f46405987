import { SidecarError } from '../core/errors.ts'
import type { Message } from '../core/jsonrpc.ts'
import type { CallHandle, Timer, Upstream, UpstreamCall, UpstreamOwner } from '../core/types.ts'
import { latestCall } from './attribution.ts'
import { handshake, logServer } from './handshake.ts'
import { Link } from './link.ts'
import type { PoolOptions, ServerPool } from './pool.ts'
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
  readonly #options: PoolOptions
  readonly #context: ProcessContext
  readonly #links = new Set<Link>()
  readonly #spares: Link[] = []
  readonly #readiness: Readiness
  #spareTimer: Timer | undefined
  #probeTimer: Timer | undefined
  #probing = false
  #probeLink: Link | undefined
  #closed = false
  /** Another who takes processes from here. */
  guest: Guest | undefined

  constructor(options: PoolOptions, context: ProcessContext) {
    this.#options = options
    this.#context = context
    this.#readiness = new Readiness(context.clock, context.log, () => this.#probe())
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

  lease(owner: UpstreamOwner): Upstream {
    const onToolsChanged = (): void => this.#options.onToolsChanged(owner.principal.id)
    return new ExclusiveLease(this.#forSession(), owner, onToolsChanged, (answered) => {
      if (this.#closed) return
      if (answered) this.#readiness.up()
      // One client's initialize may fail for reasons of its own.
      else this.#probe()
    })
  }

  retire(): void {
    this.#closed = true
    this.guest?.retire()
    this.#spareTimer?.cancel()
    this.#probeTimer?.cancel()
    this.#readiness.close()
    for (const spare of this.#spares) void spare.stop()
  }

  async close(): Promise<void> {
    this.retire()
    this.guest?.close()
    await Promise.all([...this.#links].map((link) => link.stop()))
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

class ExclusiveLease implements Upstream {
  readonly exclusive = true
  readonly #link: Link
  readonly #proven: (answered: boolean) => void

  constructor(
    link: Link,
    owner: UpstreamOwner,
    onToolsChanged: () => void,
    proven: (answered: boolean) => void,
  ) {
    this.#link = link
    this.#proven = proven
    link.attach({
      onRequest: (message) => owner.onRequest(message, latestCall(link.pending)?.call),
      onNotification: (message) => {
        if (message.method === 'notifications/tools/list_changed') onToolsChanged()
        owner.onNotification(message, latestCall(link.pending)?.call)
      },
      onEnd: (error) => owner.onEnd(error),
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
          this.#proven(!message.isError)
          call.answer(message)
        },
        fail: (error) => {
          this.#proven(false)
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
    this.#link.pause()
  }

  resume(): void {
    this.#link.resume()
  }

  release(): void {
    void this.#link.stop()
  }
}
