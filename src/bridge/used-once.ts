import type { Clock } from '../core/types.ts'

/** More than can be in use; beyond it the oldest are forgotten. */
const maxRemembered = 100_000

/** Remembers what has been used until it expires on its own. */
export class UsedOnce {
  readonly #clock: Clock
  /** Name to the time it may be forgotten, monotonic milliseconds; in the order they were used. */
  readonly #used = new Map<string, number>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** @returns false if it was used before */
  take(name: string, forMs: number): boolean {
    const now = this.#clock.now()
    for (const [old, until] of this.#used) {
      if (until > now && this.#used.size < maxRemembered) break
      this.#used.delete(old)
    }
    if (this.#used.has(name)) return false
    this.#used.set(name, now + forMs)
    return true
  }
}
