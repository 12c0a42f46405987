import type { Clock, Timer, UpstreamCall } from '../core/types.ts'

/** A call on its way: what was sent under which internal id, for whom. */
export interface PendingCall {
  readonly id: number
  readonly call: UpstreamCall
  readonly owner: unknown
}

/** One that is given up on at a time that can be moved. */
export interface Deadlined extends PendingCall {
  /** Monotonic milliseconds. */
  readonly deadline: number
}

/** A call during which the server may ask, given up on, that the server may still be working on. */
export interface Suspect {
  readonly owner: unknown
  /** It may still log for its caller. */
  readonly logs: boolean
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

  /** In no particular order, and without a copy: `look` must leave the table as it is. */
  each(look: (item: T) => void): void {
    for (const item of this.#slots) if (item !== undefined) look(item)
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

/** Deadlines are kept to this many milliseconds. */
const deadlineCheckMs = 20

/**
 * Finds the calls whose time has run out. One timer for all: most calls are answered long before their deadline, and a
 * timer each costs more than the scan.
 */
export class Deadlines<T extends Deadlined> {
  readonly #clock: Clock
  readonly #table: PendingTable<T>
  readonly #onLate: (item: T) => void
  readonly #late: T[] = []
  #timer: Timer | undefined
  #now = 0
  #goOn = false

  /** @param onLate takes the call out of the table, and may do anything else to it */
  constructor(clock: Clock, table: PendingTable<T>, onLate: (item: T) => void) {
    this.#clock = clock
    this.#table = table
    this.#onLate = onLate
  }

  /** From now until nothing in the table has a deadline any more. */
  watch(): void {
    this.#timer ??= this.#clock.after(deadlineCheckMs, () => this.#check())
  }

  #check(): void {
    this.#now = this.#clock.now()
    this.#goOn = false
    this.#table.each(this.#look)
    for (let item = this.#late.shift(); item !== undefined; item = this.#late.shift()) {
      // The end of another call may have been the end of this one.
      if (this.#table.get(item.id) === item) this.#onLate(item)
    }
    if (this.#goOn) this.#timer?.refresh()
    else this.#timer = undefined
  }

  readonly #look = (item: T): void => {
    // Subscriptions have no deadline, parked calls one that comes with a move.
    if (item.deadline < Number.POSITIVE_INFINITY) this.#goOn = true
    // Those that start when this one ends are looked at the next time.
    if (item.deadline <= this.#now) this.#late.push(item)
  }
}
