import type { Clock, Logger } from '../core/types.ts'
import type { Charge, CountedLimit, Full, RateStore } from './charge.ts'
import { Windows } from './windows.ts'

const none: readonly Full[] = Object.freeze([])

/** Counts in this process. Never waits. */
export class LocalStore implements RateStore {
  readonly #clock: Clock
  /** By the index of the limit. */
  readonly #windows: readonly Windows[]

  constructor(limits: readonly CountedLimit[], clock: Clock, log: Logger, maxKeys?: number) {
    this.#clock = clock
    this.#windows = limits.map(({ name, windowMs }) => {
      const crowded = (): void =>
        log.warn(
          { limit: name },
          'a rate limit counts more callers than it has room for; new ones share their counts for now',
        )
      return new Windows(windowMs, crowded, maxKeys)
    })
  }

  charge(charges: readonly Charge[]): readonly Full[] {
    const now = this.#clock.now()
    let full: Full[] | undefined
    for (const { limit, key } of charges) {
      const window = this.#windowsOf(limit).find(key, now)
      if (window === undefined || window.count < limit.requests) continue
      full ??= []
      full.push({ limit, waitMs: window.end - now })
    }
    if (full !== undefined) return full
    for (const { limit, key } of charges) this.#windowsOf(limit).count(key, now)
    return none
  }

  #windowsOf(limit: CountedLimit): Windows {
    return this.#windows[limit.index] as Windows
  }
}
