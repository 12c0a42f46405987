import { readFileSync } from 'node:fs'

/**
 * The connections of all children together. One half is for whoever takes it; of the other each process has an equal share,
 * one at least: so nobody, with however many processes, takes the last place of a process that has none. Of more processes than
 * that half has places, the last ones are sure of none.
 */
export class Places {
  readonly #most: number
  readonly #shared: number
  #sure = 1

  /** @param most at least 1 */
  constructor(most: number) {
    this.#most = most
    this.#shared = Math.ceil(most / 2)
    this.share(64)
  }

  /** @param processes that there may be at once */
  share(processes: number): void {
    this.#sure = Math.max(1, Math.floor((this.#most - this.#shared) / processes))
  }

  /**
   * @param held by the child that asks
   * @param taken by all
   */
  free(held: number, taken: number): boolean {
    return taken < (held < this.#sure ? this.#most : this.#shared)
  }
}

/** Descriptors that this process may have (its soft limit); infinite where that is not limited, or not known. */
export function openFilesLimit(): number {
  try {
    const [, soft] = /^Max open files +(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1')) ?? []
    return soft === undefined ? Number.POSITIVE_INFINITY : Number(soft)
  } catch {
    return Number.POSITIVE_INFINITY
  }
}
