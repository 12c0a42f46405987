import { networkInterfaces } from 'node:os'
import { isLoopback, plainAddress } from '../core/net.ts'
import type { Clock } from '../core/types.ts'

/** Interfaces come and go; what was added is known this soon. Milliseconds. */
const rereadMs = 5000

/** All addresses of this machine's interfaces. */
export function interfaceAddresses(): string[] {
  return Object.values(networkInterfaces()).flatMap((each) => (each ?? []).map(({ address }) => address))
}

/** The addresses of this machine, beside loopback. */
export class OwnAddresses {
  readonly #read: () => readonly string[]
  readonly #clock: Clock
  #known: ReadonlySet<string> = new Set()
  #readAt = Number.NEGATIVE_INFINITY

  constructor(clock: Clock, read: () => readonly string[] = interfaceAddresses) {
    this.#clock = clock
    this.#read = read
  }

  /** @param address plain ({@link plainAddress}) */
  has(address: string): boolean {
    const now = this.#clock.now()
    if (now - this.#readAt >= rereadMs) {
      this.#readAt = now
      const plain = this.#read().map((each) => plainAddress(each))
      this.#known = new Set(plain.filter((each) => each !== undefined && !isLoopback(each)) as string[])
    }
    return this.#known.has(address)
  }

  /** Whether a connection to it may end on this machine: loopback, what stands for all addresses, and own ones. */
  reaches(address: string): boolean {
    return isLoopback(address) || address.startsWith('0.') || address === '::' || this.has(address)
  }
}
