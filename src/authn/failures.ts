import { addressGroup } from '../core/net.ts'
import type { AuthPolicy } from '../core/policy.ts'
import type { Clock } from '../core/types.ts'

/** How many addresses are told apart in one window. */
export interface FailureBounds {
  /** In all; about 100 bytes each. Default 50000. */
  readonly addresses: number
  /** Of one network (IPv4 /16, IPv6 /48). Default 256. */
  readonly perNetwork: number
}

interface Network {
  /** Of its addresses, those that have a count of their own. */
  members: number
  /** The common count of all others. */
  shared: number
}

type Limits = AuthPolicy['failures']

/**
 * Failed attempts by address (IPv6 by /64), in windows that are the same for all: the first failure after the end of one
 * starts the next.
 *
 * Nothing is ever evicted within a window, so that an attacker cannot free himself with other addresses of his.
 * When a network has used up its places, or all are taken, further addresses share one count by network; in the end all
 * unknown networks share one. An address without failures is then slowed down with its neighbours, which costs it the
 * expensive methods alone, until the window ends.
 */
export class Failures {
  readonly #clock: Pick<Clock, 'now'>
  readonly #bounds: FailureBounds
  readonly #addresses = new Map<string, number>()
  readonly #networks = new Map<string, Network>()
  #elsewhere = 0
  #startedAt = 0

  constructor(clock: Pick<Clock, 'now'>, bounds: FailureBounds = { addresses: 50_000, perNetwork: 256 }) {
    this.#clock = clock
    this.#bounds = bounds
  }

  /** Seconds until the window ends, at least 1, for an address with too many failures; undefined for any other. */
  retryAfter(address: string, { attempts, windowMs }: Limits): number | undefined {
    const left = this.#startedAt + windowMs - this.#clock.now()
    if (left <= 0 || this.#count(addressGroup(address)) < attempts) return undefined
    return Math.max(1, Math.ceil(left / 1000))
  }

  add(address: string, { windowMs }: Limits): void {
    const now = this.#clock.now()
    if (now - this.#startedAt >= windowMs || this.#isEmpty) this.#restart(now)
    const group = addressGroup(address)
    const count = this.#addresses.get(group)
    if (count !== undefined) {
      this.#addresses.set(group, count + 1)
      return
    }
    const name = networkOf(group)
    const network = this.#networks.get(name)
    if (this.#addresses.size >= this.#bounds.addresses) {
      if (network === undefined) this.#elsewhere++
      else network.shared++
    } else if (network === undefined) {
      this.#networks.set(name, { members: 1, shared: 0 })
      this.#addresses.set(group, 1)
    } else if (network.members >= this.#bounds.perNetwork) network.shared++
    else {
      network.members++
      this.#addresses.set(group, 1)
    }
  }

  /** Addresses that are counted one by one. */
  get size(): number {
    return this.#addresses.size
  }

  get #isEmpty(): boolean {
    return this.#addresses.size === 0
  }

  #restart(now: number): void {
    this.#addresses.clear()
    this.#networks.clear()
    this.#elsewhere = 0
    this.#startedAt = now
  }

  #count(group: string): number {
    const own = this.#addresses.get(group)
    if (own !== undefined) return own
    return this.#networks.get(networkOf(group))?.shared ?? this.#elsewhere
  }
}

/** Who has one such network can have all addresses of it: `203.0.*`, `2001:db8:1:*`. */
function networkOf(group: string): string {
  const colons = group.includes(':')
  const parts = group.split(colons ? ':' : '.', colons ? 3 : 2)
  return `${parts.join(colons ? ':' : '.')}${colons ? ':' : '.'}*`
}
