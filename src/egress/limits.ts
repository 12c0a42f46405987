import type { Clock } from '../core/types.ts'

/** What one child may use up. */
export interface EgressLimits {
  /** At once, lookups included. */
  readonly connections: number
  /** Of a request head. */
  readonly headerBytes: number
  /** Without a byte in either direction. Milliseconds. */
  readonly idleMs: number
  /** Of a name that a wildcard allows: longer ones carry data rather than a place. Characters. */
  readonly wildcardNameLength: number
  /** Names below a wildcard that were not asked for before, each second; ten times as many in a burst. */
  readonly newNamesPerSecond: number
  /** To the DNS stub; ten times as many in a burst. */
  readonly queriesPerSecond: number
  /** Names that have a synthetic address. */
  readonly names: number
}

export const defaultLimits: EgressLimits = {
  connections: 256,
  headerBytes: 16 * 1024,
  idleMs: 10 * 60_000,
  wildcardNameLength: 128,
  newNamesPerSecond: 10,
  queriesPerSecond: 50,
  names: 4096,
}

/** So many a second, and ten times as many at once after a pause. */
export class Bucket {
  readonly #clock: Clock
  readonly #perSecond: number
  readonly #most: number
  #left: number
  #at: number

  constructor(clock: Clock, perSecond: number) {
    this.#clock = clock
    this.#perSecond = perSecond
    this.#most = perSecond * 10
    this.#left = this.#most
    this.#at = clock.now()
  }

  take(): boolean {
    const now = this.#clock.now()
    this.#left = Math.min(this.#most, this.#left + ((now - this.#at) / 1000) * this.#perSecond)
    this.#at = now
    if (this.#left < 1) return false
    this.#left--
    return true
  }
}
