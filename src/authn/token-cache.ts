import { hash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import type { Clock, Identity } from '../core/types.ts'
import type { Attempt } from './authenticator.ts'
import { Slots } from './slots.ts'

/** A token that was found good. */
export interface Verified {
  readonly identity: Identity
  /** Until when that is believed, in milliseconds since 1970. */
  readonly until: number
  /** What it was verified with; undefined: what its issuer said of it. */
  readonly keys: object | undefined
  /** Characters of what it was made from: roughly what it keeps in memory. */
  readonly size: number
}

/** Who asks about a token that is being verified. */
interface UnderWay {
  readonly work: Promise<Verified>
  readonly attempts: Attempt[]
}

const maxTokens = 10_000
const maxSize = 32 * 1024 * 1024
/** About which somebody else is asked at one time; more than that wait. */
const maxAsked = 16
const maxWaiting = 1024

/**
 * Tokens that were found good, by their SHA-256, so that the next request with one costs a hash. Holds 10,000 at most,
 * and no more than 32 MiB of claims; those not used for longest go first. Failures are not kept.
 */
export class TokenCache {
  readonly #clock: Clock
  readonly #found = new LRUCache<string, Verified>({
    max: maxTokens,
    maxSize,
    sizeCalculation: ({ size }) => size,
  })
  /** At most as many as there are requests that wait for authentication. */
  readonly #underWay = new Map<string, UnderWay>()
  readonly #slots = new Slots(maxAsked, maxWaiting)

  constructor(clock: Clock) {
    this.#clock = clock
  }

  static key(token: string): string {
    return hash('sha256', token, 'base64')
  }

  get size(): number {
    return this.#found.size
  }

  /** @param keys those of this moment; what was verified with others counts no more */
  get(key: string, keys: object | undefined): Identity | undefined {
    const found = this.#found.get(key)
    if (found === undefined) return undefined
    if (this.#clock.epoch() < found.until && (found.keys === undefined || found.keys === keys))
      return found.identity
    this.#found.delete(key)
    return undefined
  }

  put(key: string, verified: Verified): Identity {
    this.#found.set(key, verified)
    return verified.identity
  }

  /**
   * What `verify` finds, which runs once however many ask for the same token meanwhile, and outlives each of them. Only
   * so many run at one time. For a token that had to wait nothing is done when none of those who ask may go on by then:
   * otherwise a burst of guesses would all be looked at, however few an address has.
   */
  async once(key: string, verify: () => Promise<Verified>, attempt?: Attempt): Promise<Identity> {
    let asked = this.#underWay.get(key)
    if (asked === undefined) {
      const attempts: Attempt[] = []
      let waited = false
      const work = this.#slots.run(() => {
        if (waited) requireOne(attempts)
        return verify()
      })
      waited = true
      asked = { work, attempts }
      this.#underWay.set(key, asked)
      const done = (): void => void this.#underWay.delete(key)
      work.then((verified) => {
        done()
        this.put(key, verified)
      }, done)
    }
    if (attempt !== undefined) asked.attempts.push(attempt)
    return (await asked.work).identity
  }
}

/** @throws what the last one got, if all are refused */
function requireOne(attempts: readonly Attempt[]): void {
  let refused: unknown
  for (const attempt of attempts) {
    try {
      attempt.beforeWork()
      return
    } catch (thrown) {
      refused = thrown
    }
  }
  if (refused !== undefined) throw refused
}
