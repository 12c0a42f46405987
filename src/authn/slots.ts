import { SidecarError } from '../core/errors.ts'

/** Work of which only so much is done at one time; the rest waits its turn, in order. */
export class Slots {
  readonly #concurrent: number
  readonly #maxWaiting: number
  readonly #waiting: (() => void)[] = []
  #running = 0

  constructor(concurrent: number, maxWaiting: number) {
    this.#concurrent = concurrent
    this.#maxWaiting = maxWaiting
  }

  /**
   * @param work called when its turn comes; whatever may have changed by then is for it to look at
   * @throws ERR_OVERLOADED (as a rejection) when too much waits already
   */
  async run<T>(work: () => T | Promise<T>): Promise<T> {
    if (this.#running < this.#concurrent) this.#running++
    else {
      if (this.#waiting.length >= this.#maxWaiting) {
        const detail = `${this.#maxWaiting} credentials wait to be verified already`
        throw new SidecarError('ERR_OVERLOADED', { detail, headers: { 'Retry-After': '1' } })
      }
      // Whoever ends hands over its own slot, so that nobody can take it in between.
      await new Promise<void>((resolve) => this.#waiting.push(resolve))
    }
    try {
      return await work()
    } finally {
      const next = this.#waiting.shift()
      if (next === undefined) this.#running--
      else next()
    }
  }
}
