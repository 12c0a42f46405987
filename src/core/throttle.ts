/** Lets a few events per second through, and counts the others: for log lines that a hostile peer can cause. */
export class Throttle {
  readonly #perSecond: number
  #windowStart = 0
  #passed = 0
  #suppressed = 0

  constructor(perSecond: number) {
    this.#perSecond = perSecond
  }

  /**
   * @param now monotonic milliseconds
   * @returns false if this event is over the limit; else how many were suppressed since the last that passed
   */
  take(now: number): number | false {
    if (now - this.#windowStart >= 1000) {
      this.#windowStart = now
      this.#passed = 0
    }
    if (this.#passed >= this.#perSecond) {
      this.#suppressed++
      return false
    }
    this.#passed++
    return this.drain()
  }

  /** How many were suppressed that nobody has been told of; they count as told from now on. */
  drain(): number {
    const suppressed = this.#suppressed
    this.#suppressed = 0
    return suppressed
  }
}
