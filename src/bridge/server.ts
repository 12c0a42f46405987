import { SidecarError } from '../core/errors.ts'
import type {
  CallHandle,
  Clock,
  DiscoverResult,
  Era,
  Lifecycle,
  Logger,
  ModernCall,
  Pool,
  Principal,
  StatelessServer,
  Timer,
  Upstream,
  UpstreamOwner,
} from '../core/types.ts'

/** The server as both kinds of clients see it. */
export interface Faces {
  readonly era: Era
  /** For sessions. */
  readonly pool: Pool
  /** For requests that stand alone. */
  readonly stateless: StatelessServer
  readonly life: Lifecycle
  /** Calls of modern clients that wait for their clients. */
  readonly parked?: () => number
}

/** What a probe found out. */
export type Finding =
  | { readonly era: 'modern'; readonly discovered: DiscoverResult; readonly link: unknown }
  | { readonly era: 'legacy'; readonly reason: string; readonly certain: boolean }

export interface Makers<F extends Finding> {
  probe(): { readonly result: Promise<F>; stop(): Promise<void> }
  legacy(): Faces
  /** @param onLegacy to be called when the server contradicts the finding later on */
  modern(found: Extract<F, { era: 'modern' }> | undefined, onLegacy: (reason: string) => void): Faces
}

/**
 * A server that answers initialize, but has left the probe without any answer for this much longer, is one that the
 * probe has silenced. Milliseconds.
 */
const silencedMs = 2000
const lookMs = 250

/** A server that showed nothing yet is probed again after this time, until it has answered in one era. Milliseconds. */
const doubtMs = 5000

/**
 * The MCP server behind the sidecar, whichever era it speaks: a modern one is spoken to in the modern way whatever its
 * clients speak. With `auto` a probe finds out; until it has, nothing can be sent.
 */
export class ServerBehind<F extends Finding> implements Pool, StatelessServer, Lifecycle {
  readonly #makers: Makers<F>
  readonly #clock: Clock
  readonly #log: Logger
  #faces: Faces | undefined
  /** Resolves when the era is known; undefined once it is. */
  #known: Promise<void> | undefined
  #settle: (() => void) | undefined
  #probe: { stop(): Promise<void> } | undefined
  #doubt: Timer | undefined
  /** Started beside the probe, in the hope that the server turns out to be a legacy one. */
  #hope: Faces | undefined
  readonly #hopeful: boolean
  readonly #closing: Promise<void>[] = []
  #closed = false
  #retired = false

  /**
   * @param era what the operator says of the server
   * @param hopeful a legacy server may be started while the probe runs, so that it is up sooner
   */
  constructor(
    era: Era | 'auto',
    hopeful: boolean,
    makers: Makers<F>,
    context: { clock: Clock; log: Logger },
  ) {
    this.#makers = makers
    this.#clock = context.clock
    this.#log = context.log
    this.#hopeful = hopeful
    if (era === 'legacy') this.#faces = makers.legacy()
    else if (era === 'modern') this.#faces = makers.modern(undefined, () => {})
    else {
      this.#known = new Promise((resolve) => {
        this.#settle = resolve
      })
    }
  }

  /** To be waited for before anything is leased or called; undefined when there is no need to. */
  get known(): Promise<void> | undefined {
    return this.#known
  }

  get era(): Era | undefined {
    return this.#faces?.era
  }

  get ready(): boolean {
    return this.#faces?.life.ready === true
  }

  get processes(): number {
    return (
      (this.#faces?.life.processes ?? this.#hope?.life.processes ?? 0) + (this.#probe === undefined ? 0 : 1)
    )
  }

  get queuedBytes(): number {
    return this.#faces?.life.queuedBytes ?? 0
  }

  /** Calls of modern clients that wait for their clients. */
  get parked(): number {
    return this.#faces?.parked?.() ?? 0
  }

  start(): void {
    if (this.#faces !== undefined) this.#faces.life.start()
    else {
      if (this.#hopeful) {
        this.#hope = this.#makers.legacy()
        this.#hope.life.start()
        this.#watchHope()
      }
      this.#find()
    }
  }

  queuedBytesOf(principal: Principal): number {
    return this.#faces?.stateless.queuedBytesOf(principal) ?? 0
  }

  lease(owner: UpstreamOwner): Upstream {
    return this.#serving.pool.lease(owner)
  }

  call(call: ModernCall): CallHandle {
    return this.#serving.stateless.call(call)
  }

  retire(): void {
    this.#retired = true
    this.#doubt?.cancel()
    if (this.#faces === undefined) void this.close()
    else this.#faces.life.retire()
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#doubt?.cancel()
    // Whoever still waits is refused now.
    this.#known = undefined
    this.#settle?.()
    await Promise.all([
      this.#probe?.stop(),
      this.#faces?.life.close(),
      this.#hope?.life.close(),
      ...this.#closing,
    ])
  }

  get #serving(): Faces {
    if (this.#faces === undefined)
      throw new SidecarError('ERR_DRAINING', { detail: 'the server is not known' })
    return this.#faces
  }

  #find(): void {
    const probe = this.#makers.probe()
    this.#probe = probe
    void probe.result.then((found) => {
      if (this.#closed || this.#retired || this.#probe !== probe) {
        void probe.stop()
        return
      }
      this.#probe = undefined
      if (found.era === 'modern') this.#isModern(found as Extract<F, { era: 'modern' }>)
      else this.#isLegacy(found.reason, found.certain)
    })
  }

  /** Some servers never say anything again once they were asked what they do not know. */
  #watchHope(): void {
    let readyAt: number | undefined
    const timer = this.#clock.after(lookMs, () => {
      if (this.#hope === undefined || this.#closed) return
      const now = this.#clock.now()
      if (this.#hope.life.ready) readyAt ??= now
      if (readyAt === undefined || now - readyAt < silencedMs) timer.refresh()
      else {
        const silenced = this.#probe
        this.#probe = undefined
        void silenced?.stop()
        this.#isLegacy('it answers initialize, and nothing after server/discover', false)
      }
    })
  }

  #isModern(found: Extract<F, { era: 'modern' }>): void {
    const versions = found.discovered.supportedVersions
    this.#log.info({ era: 'modern', versions }, 'the MCP server speaks the modern era')
    const modern = this.#makers.modern(found, (reason) => {
      if (this.#faces === modern) this.#isLegacy(reason, true)
    })
    this.#replace(modern)
    modern.life.start()
  }

  #isLegacy(reason: string, certain: boolean): void {
    if (this.#faces?.era !== 'legacy') {
      this.#log.info({ era: 'legacy', reason }, 'the MCP server is spoken to in the legacy era')
      const legacy = this.#hope ?? this.#makers.legacy()
      const started = this.#hope !== undefined
      this.#hope = undefined
      this.#replace(legacy)
      if (!started) legacy.life.start()
    }
    if (certain) return
    this.#doubt = this.#clock.after(doubtMs, () => {
      if (!this.ready) this.#find()
    })
  }

  #replace(faces: Faces): void {
    const old = [this.#faces, this.#hope].filter((each) => each !== undefined)
    this.#hope = undefined
    for (const each of old) this.#closing.push(each.life.close())
    this.#faces = faces
    this.#known = undefined
    this.#settle?.()
  }
}
