import type { Outlet } from '../core/exchange.ts'
import type { Clock, Timer, Upstream } from '../core/types.ts'

/** Something that was written to and that its client may be slow to read. */
export type Target = Pick<Outlet, 'queuedBytes' | 'pulse' | 'onceDrained' | 'destroy'>

export interface FlowOptions {
  readonly queueBytes: number
  readonly maxMessageBytes: number
}

/** A reader over its limit that takes nothing for this long does not read. Milliseconds. */
const stallMs = 1000
/** A look that comes so much too late came before the sockets were looked after: it says nothing of the reader. Milliseconds. */
const lateMs = 250
/** What a session leaves behind has this long to be read after its end. Milliseconds. */
const lingerMs = 1000

/**
 * How much a session's client has left unread, over all its streams. Above the limit the session's own server
 * process is not read any more until the client has caught up. A shared process cannot be slowed down for one
 * session: there the session ends when its client, over the limit, stops taking anything, or leaves a whole largest
 * message more.
 */
export class Flow {
  /** Less than this in a socket is nothing to account for. */
  static readonly noticeBytes = 64 * 1024
  upstream: Pick<Upstream, 'exclusive' | 'pause' | 'resume'> | undefined
  readonly #clock: Clock
  readonly #options: FlowOptions
  readonly #onStalled: () => void
  /** Those that are behind, with the bytes written to them since. */
  readonly #behind = new Map<Target, number>()
  #paused = false
  #watch: Timer | undefined
  /** What clients had taken when the watch last looked. */
  #seen = 0
  #seenPulse = 0

  constructor(clock: Clock, options: FlowOptions, onStalled: () => void) {
    this.#clock = clock
    this.#options = options
    this.#onStalled = onStalled
  }

  get queuedBytes(): number {
    let total = 0
    for (const target of this.#behind.keys()) total += target.queuedBytes
    return total
  }

  /** Before more is written. */
  check(): void {
    if (this.#behind.size === 0 || this.upstream?.exclusive !== false) return
    const { queueBytes, maxMessageBytes } = this.#options
    if (this.queuedBytes > queueBytes + maxMessageBytes) this.#onStalled()
  }

  /** @param bytes what was just written to it */
  wrote(target: Target, bytes: number): void {
    const before = this.#behind.get(target)
    if (before !== undefined) this.#behind.set(target, before + bytes)
    else {
      if (target.queuedBytes <= Flow.noticeBytes) return
      this.#behind.set(target, target.queuedBytes)
      target.onceDrained(() => {
        this.#behind.delete(target)
        this.#seen = -1
        this.#adjust()
      })
    }
    this.#adjust()
  }

  /** The session has ended: what is still unread is cut off soon. */
  close(): void {
    this.#watch?.cancel()
    if (this.#behind.size === 0) return
    this.#clock.after(lingerMs, () => {
      for (const target of this.#behind.keys()) target.destroy()
    })
  }

  #adjust(): void {
    const over = this.queuedBytes > this.#options.queueBytes
    if (over === this.#paused) return
    this.#paused = over
    if (this.upstream?.exclusive === false) {
      this.#watch?.cancel()
      this.#seen = this.#taken
      this.#seenPulse = this.#pulse
      this.#watch = over ? this.#watchProgress() : undefined
    } else if (over) this.upstream?.pause()
    else this.upstream?.resume()
  }

  #watchProgress(): Timer {
    let due = this.#clock.now() + stallMs
    const timer = this.#clock.after(stallMs, () => {
      const taken = this.#taken
      const pulse = this.#pulse
      const late = this.#clock.now() > due + lateMs
      if (!late && taken <= this.#seen && pulse === this.#seenPulse) this.#onStalled()
      else {
        this.#seen = taken
        this.#seenPulse = pulse
        due = this.#clock.now() + stallMs
        timer.refresh()
      }
    })
    return timer
  }

  get #pulse(): number {
    let total = 0
    for (const target of this.#behind.keys()) total += target.pulse
    return total
  }

  /** Bytes that clients which are behind have read since they fell behind. */
  get #taken(): number {
    let total = 0
    for (const [target, written] of this.#behind) total += written - target.queuedBytes
    return total
  }
}
