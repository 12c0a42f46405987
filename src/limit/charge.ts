/** What the stores of the rate limits share. */

/** At most so many requests in a window, which opens with the first request of its key (a fixed window). */
export interface CountedLimit {
  /** Its place among the limits of a store. */
  readonly index: number
  /** The same in every replica with the same limit, and another for any other limit. */
  readonly id: string
  readonly name: string
  readonly requests: number
  readonly windowMs: number
}

/** A limit that a request falls under, and the count that it adds to: that of a user, of an address, of a tool. */
export interface Charge {
  readonly limit: CountedLimit
  readonly key: string
}

/** A limit that has no room. */
export interface Full {
  readonly limit: CountedLimit
  /** Until its window ends. */
  readonly waitMs: number
}

export interface RateStore {
  /**
   * Charges every one of them, or none if any is full.
   *
   * @returns those that are full; empty when all were charged
   * @throws ERR_OVERLOADED when nobody can count
   */
  charge(charges: readonly Charge[]): readonly Full[] | Promise<readonly Full[]>
}

/** Rate limits or timeouts that cannot be carried out; the message says what would be right. */
export class LimitError extends Error {
  override readonly name = 'LimitError'
}

/** Node.js runs a timer that is set for longer at once. */
export const longestMs = 2 ** 31 - 1
