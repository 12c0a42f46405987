import { type AddressSet, addressSet, isLoopback, networkOf, plainAddress } from '../core/net.ts'
import type { HostRule, NetworkPolicy } from '../core/sandbox.ts'
import { embeddedIPv4, specialRangeOf } from '../core/special-addresses.ts'

/** What one rule, or the lack of one, says. */
export interface Ruling {
  readonly allowed: boolean
  /** `host:*.example.com`, `cidr:10.0.0.0/8`, `denied-range:10.0.0.0/8`, `own-port`, `no-rule`, ... */
  readonly rule: string
  readonly reason?: string
}

/** The machine that the sidecar runs on. */
export interface OwnMachine {
  /** Ports of the sidecar itself, which no rule opens. */
  ports(): readonly number[]
  /** Whether it is an address of an interface, beside loopback. */
  has(address: string): boolean
  /** Whether a connection to it may end on this machine. */
  reaches(address: string): boolean
}

interface Network {
  readonly rule: string
  readonly prefix: number
  /** Of one address alone. */
  readonly exact: boolean
  readonly set: AddressSet
}

/** The rules of one child's profile. Pure but for what it is told of the own machine. */
export class EgressRules {
  readonly #mode: NetworkPolicy['mode']
  readonly #hosts: readonly HostRule[]
  readonly #networks: readonly Network[]
  readonly #ports: ReadonlySet<number>
  readonly #own: OwnMachine

  /** @throws Error for a CIDR that is none */
  constructor(policy: NetworkPolicy, own: OwnMachine) {
    this.#mode = policy.mode
    this.#hosts = policy.hosts.toSorted((a, b) => rank(b) - rank(a))
    this.#networks = (policy.mode === 'none' ? [] : policy.cidrs)
      .map((cidr) => {
        const { address, prefix } = networkOf(cidr)
        const exact = prefix === (address.includes(':') ? 128 : 32)
        return { rule: `cidr:${cidr}`, prefix, exact, set: addressSet([cidr]) }
      })
      .toSorted((a, b) => b.prefix - a.prefix)
    this.#ports = new Set(policy.ports)
    this.#own = own
  }

  /** Whether a name may be asked for, before anybody resolves it. The narrowest rule that matches decides. */
  name(name: string, port: number): Ruling {
    return this.#port(port) ?? this.#host(name)
  }

  /** {@link name} for any port that is allowed at all: what a lookup may ask. */
  lookup(name: string): Ruling {
    return this.#host(name)
  }

  /** Whether a target that is given as an address may be dialled. */
  literal(address: string, port: number): Ruling {
    const plain = plainAddress(address)
    if (plain === undefined) return { allowed: false, rule: 'no-rule', reason: 'not an address' }
    const own = this.#ownPort(plain, port)
    if (own !== undefined) return own
    if (this.#mode === 'open') return { allowed: true, rule: 'open' }
    const wrongPort = this.#port(port)
    const denied = this.#denied(plain)
    const network = this.#networks.find(({ set }) => set.has(plain))
    if (network === undefined) return denied ?? { allowed: false, rule: 'no-rule' }
    return wrongPort ?? denied ?? { allowed: true, rule: network.rule }
  }

  /** Whether an address that an allowed name resolved to may be dialled. */
  resolved(address: string, port: number): Ruling | undefined {
    const plain = plainAddress(address)
    if (plain === undefined) return { allowed: false, rule: 'no-rule', reason: 'not an address' }
    return this.#ownPort(plain, port) ?? (this.#mode === 'open' ? undefined : this.#denied(plain))
  }

  /** What is against an address that has turned out to be one of this machine. */
  ownAddress(plain: string): Ruling | undefined {
    if (this.#mode === 'open' || isLoopback(plain) || this.#opens(plain, undefined)) return undefined
    return { allowed: false, rule: `own-address:${plain}` }
  }

  #host(name: string): Ruling {
    if (this.#mode === 'open') return { allowed: true, rule: 'open' }
    const rule = this.#mode === 'none' ? undefined : this.#hosts.find((each) => matches(each, name))
    return rule === undefined ? { allowed: false, rule: 'no-rule' } : { allowed: true, rule: ruleText(rule) }
  }

  #port(port: number): Ruling | undefined {
    if (this.#mode === 'open' || this.#ports.size === 0 || this.#ports.has(port)) return undefined
    return { allowed: false, rule: 'port', reason: `port ${port} is not among those of the profile` }
  }

  /** The sidecar's own ports: whoever reached them through the proxy could reconfigure what confines them. */
  #ownPort(plain: string, port: number): Ruling | undefined {
    if (!this.#own.ports().includes(port)) return undefined
    const here = [plain, ...embeddedIPv4(plain)].some((each) => this.#own.reaches(each))
    return here ? { allowed: false, rule: 'own-port' } : undefined
  }

  /** Denied unless a CIDR that lies inside the range names it; metadata and own addresses need the address itself. */
  #denied(plain: string): Ruling | undefined {
    const embedded = embeddedIPv4(plain)
    for (const address of [plain, ...embedded]) {
      const against = this.#own.has(address) ? this.ownAddress(address) : undefined
      if (against !== undefined) return against
    }
    // What only carries an IPv4 address is judged by that one.
    for (const address of embedded.length > 0 ? embedded : [plain]) {
      const range = specialRangeOf(address)
      if (range === undefined) continue
      if (!this.#opens(address, range.metadata ? undefined : range.prefix)) {
        return { allowed: false, rule: `${range.metadata ? 'metadata' : 'denied-range'}:${range.cidr}` }
      }
    }
    return undefined
  }

  /** @param prefix of the range; undefined: only the address itself will do */
  #opens(address: string, prefix: number | undefined): boolean {
    return this.#networks.some(
      (network) =>
        (prefix === undefined ? network.exact : network.prefix >= prefix) && network.set.has(address),
    )
  }
}

function matches(rule: HostRule, name: string): boolean {
  switch (rule.kind) {
    case 'exact':
      return name === rule.name
    case 'below':
      return name.length > rule.name.length + 1 && name.endsWith(`.${rule.name}`)
    case 'any':
      return true
  }
}

/** Exact names first, then the longest suffix. */
function rank(rule: HostRule): number {
  return rule.kind === 'exact' ? 1000 : rule.kind === 'below' ? rule.name.length : -1
}

function ruleText(rule: HostRule): string {
  return rule.kind === 'any' ? 'host:*' : rule.kind === 'below' ? `host:*.${rule.name}` : `host:${rule.name}`
}
