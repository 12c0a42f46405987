import type { UpstreamCall } from '../core/types.ts'

/** A call on its way: what was sent under which internal id, for whom. */
export interface PendingCall {
  readonly id: number
  readonly call: UpstreamCall
  readonly owner: unknown
}

/** A call during which the server may ask, given up on, that the server may still be working on. */
export interface Suspect {
  readonly owner: unknown
  /** Monotonic milliseconds. */
  readonly since: number
}

/**
 * Calls by their internal id. Not a Map: one that thousands of calls a second pass through replaces its table every
 * hundred, and V8 keeps what dead tables refer to until the next full collection.
 */
export class PendingTable<T extends PendingCall> {
  #slots: (T | undefined)[] = new Array<T | undefined>(64).fill(undefined)
  #lastId = 0
  #size = 0

  get size(): number {
    return this.#size
  }

  /** An id greater than all before it whose place is free. */
  nextId(): number {
    if (this.#size * 2 >= this.#slots.length) this.#grow()
    do this.#lastId++
    while (this.#slots[this.#lastId & (this.#slots.length - 1)] !== undefined)
    return this.#lastId
  }

  add(item: T): void {
    this.#slots[item.id & (this.#slots.length - 1)] = item
    this.#size++
  }

  get(id: number): T | undefined {
    const item = this.#slots[id & (this.#slots.length - 1)]
    return item?.id === id ? item : undefined
  }

  /** @returns false if it was not there */
  delete(id: number): boolean {
    if (this.get(id) === undefined) return false
    this.#slots[id & (this.#slots.length - 1)] = undefined
    this.#size--
    return true
  }

  /** In the order of their ids. */
  all(): T[] {
    return this.#slots.filter((item) => item !== undefined).sort((a, b) => a.id - b.id)
  }

  // Twice the size separates ids that shared a slot, since slots are ids modulo a power of two.
  #grow(): void {
    const items = this.all()
    this.#slots = new Array<T | undefined>(this.#slots.length * 2).fill(undefined)
    for (const item of items) this.#slots[item.id & (this.#slots.length - 1)] = item
  }
}
