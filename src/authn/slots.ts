import { SidecarError } from '../core/errors.ts'

/**
 * Of one key, so many run or wait once half of the queue is taken: a few callers could otherwise fill the queue of everybody.
 * Before that many clients behind one address get along.
 */
const maxPerKey = 2

/** Work of which only so much is done at one time; the rest waits its turn, in order. */
export class Slots {
  readonly #concurrent: number
  readonly #maxWaiting: number
  readonly #waiting: (() => void)[] = []
  #running = 0
  /** How many of each key run or wait. */
  readonly #ofKey = new Map<string, number>()

  constructor(concurrent: number, maxWaiting: number) {
    this.#concurrent = concurrent
    this.#maxWaiting = maxWaiting
  }

  /**
   * @param work called when its turn comes; whatever may have changed by then is for it to look at
   * @param key whose work it is, if one caller may only have a share
   * @throws ERR_OVERLOADED (as a rejection) when too much waits already
   */
  async run<T>(work: () => T | Promise<T>, key?: string): Promise<T> {
    if (key === undefined) return this.#run(work)
    const own = this.#ofKey.get(key) ?? 0
    if (own >= maxPerKey && this.#waiting.length >= this.#maxWaiting / 2)
      throw overloaded(`${own} credentials of ${key} are being verified already`)
    this.#ofKey.set(key, own + 1)
    try {
      return await this.#run(work)
    } finally {
      const left = (this.#ofKey.get(key) ?? 0) - 1
      if (left > 0) this.#ofKey.set(key, left)
      else this.#ofKey.delete(key)
    }
  }

  async #run<T>(work: () => T | Promise<T>): Promise<T> {
    if (this.#running < this.#concurrent) this.#running++
    else {
      if (this.#waiting.length >= this.#maxWaiting) {
        throw overloaded(`${this.#maxWaiting} credentials wait to be verified already`)
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

function overloaded(detail: string): SidecarError {
  return new SidecarError('ERR_OVERLOADED', { detail, headers: { 'Retry-After': '1' } })
}
