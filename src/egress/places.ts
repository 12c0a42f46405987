import { readFileSync } from 'node:fs'

/** So many processes at once are sure of their smallest share. */
const processes = 64

/**
 * The connections of all children together. One half is for whoever takes it; the other is for children that have little, a
 * 64th of it each: so nobody, with however many processes, takes the last place of a process that has none.
 */
export class Places {
  readonly #most: number
  readonly #shared: number
  readonly #sure: number

  /** @param most at least 1 */
  constructor(most: number) {
    this.#most = most
    this.#shared = Math.ceil(most / 2)
    this.#sure = Math.max(1, Math.floor((most - this.#shared) / processes))
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
