import { randomInt } from 'node:crypto'
import type { Clock } from '../core/types.ts'

/** 198.18.0.0/15 (RFC 2544) without its first and last address. */
const first = 0xc612_0001
const count = 2 ** 17 - 2
/** An address that was handed out stands for its name at least this long after its last use. Milliseconds. */
const keepMs = 10 * 60_000

interface Entry {
  readonly name: string
  readonly address: string
  usedAt: number
}

/**
 * Addresses that stand for names, for one child: the DNS stub hands them out, the broker brings them back. Their order is
 * random, so that none is likely to mean something to two children.
 */
export class SyntheticAddresses {
  readonly #clock: Clock
  readonly #most: number
  /** The least recently used one first. */
  readonly #byName = new Map<string, Entry>()
  readonly #byAddress = new Map<string, Entry>()

  constructor(clock: Clock, most: number) {
    this.#clock = clock
    this.#most = most
  }

  /** Undefined when there are too many names that may still be in use. */
  addressOf(name: string): string | undefined {
    const known = this.#byName.get(name)
    if (known !== undefined) return this.#use(known).address
    if (this.#byName.size >= this.#most && !this.#forgetOldest()) return undefined
    let address: string
    do {
      address = dotted(first + randomInt(count))
    } while (this.#byAddress.has(address))
    const entry = { name, address, usedAt: 0 }
    this.#byAddress.set(address, entry)
    return this.#use(entry).address
  }

  nameOf(address: string): string | undefined {
    const entry = this.#byAddress.get(address)
    return entry === undefined ? undefined : this.#use(entry).name
  }

  has(name: string): boolean {
    return this.#byName.has(name)
  }

  #use(entry: Entry): Entry {
    entry.usedAt = this.#clock.now()
    this.#byName.delete(entry.name)
    this.#byName.set(entry.name, entry)
    return entry
  }

  #forgetOldest(): boolean {
    const [oldest] = this.#byName.values()
    if (oldest === undefined || this.#clock.now() - oldest.usedAt < keepMs) return false
    this.#byName.delete(oldest.name)
    this.#byAddress.delete(oldest.address)
    return true
  }
}

function dotted(number: number): string {
  return [24, 16, 8, 0].map((shift) => (number >>> shift) & 255).join('.')
}
