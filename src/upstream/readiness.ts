import type { Clock, Logger, Timer } from '../core/types.ts'

const firstMs = 250
const longestMs = 30_000
/** After this time without a failure the next one counts as the first. */
const stableMs = 30_000

/**
 * Pause before attempt `failures + 1`: none after the first failure, then 0.25 s doubling up to 30 s, each
 * shortened by up to half at random so that replicas do not start in step.
 */
export function backoffMs(failures: number, random: number): number {
  if (failures <= 1) return 0
  return Math.min(longestMs, firstMs * 2 ** (failures - 2)) * (1 - random / 2)
}

/** Whether the server answers, and when to try again if it does not. */
export class Readiness {
  #ready = false
  #everReady = false
  #failures = 0
  #upSince = 0
  #retry: Timer | undefined
  readonly #clock: Clock
  readonly #log: Logger
  readonly #attempt: () => void
  readonly #hint: string | undefined

  /**
   * @param attempt called, after the pause that is due, whenever the server should be tried again
   * @param hint told of a server that has never answered
   */
  constructor(clock: Clock, log: Logger, attempt: () => void, hint?: string) {
    this.#clock = clock
    this.#log = log
    this.#attempt = attempt
    this.#hint = hint
  }

  get ready(): boolean {
    return this.#ready
  }

  /** True while an attempt is being waited for. */
  get waiting(): boolean {
    return this.#retry !== undefined
  }

  /** @returns true if this is news */
  up(): boolean {
    const news = !this.#ready
    this.#ready = true
    this.#everReady = true
    if (news) this.#upSince = this.#clock.now()
    this.close()
    return news
  }

  down(reason: string): void {
    // One that answers and falls over again and again is not restarted at once each time.
    if (this.#ready && this.#clock.now() - this.#upSince >= stableMs) this.#failures = 0
    this.#ready = false
    this.#failures++
    if (this.#retry !== undefined) return
    const pauseMs = Math.round(backoffMs(this.#failures, Math.random()))
    const hint = this.#hint === undefined || this.#everReady ? {} : { hint: this.#hint }
    this.#log.warn(
      { reason, ...hint, failures: this.#failures, pauseMs },
      'the MCP server does not answer; trying again',
    )
    this.#retry = this.#clock.after(pauseMs, () => {
      this.#retry = undefined
      this.#attempt()
    })
  }

  close(): void {
    this.#retry?.cancel()
    this.#retry = undefined
  }
}
