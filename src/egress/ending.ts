/** Tells once that something is over. Cheaper than an AbortSignal, and each connection needs one. */
export class Ending {
  #over = false
  readonly #waiting = new Set<() => void>()

  get over(): boolean {
    return this.#over
  }

  on(then: () => void): void {
    this.#waiting.add(then)
  }

  off(then: () => void): void {
    this.#waiting.delete(then)
  }

  tell(): void {
    this.#over = true
    for (const then of [...this.#waiting]) then()
  }
}
