/** From a target to a connection: rules, resolution, dial. */
import type { Socket } from 'node:net'
import { isLoopback, plainAddress } from '../core/net.ts'
import type { EgressVerdict } from '../core/sandbox.ts'
import type { Clock } from '../core/types.ts'
import type { Child } from './child.ts'
import { type Dial, DialError, type Dialled, dialFirst } from './dial.ts'
import type { Ending } from './ending.ts'
import type { LookupError, Lookups } from './lookups.ts'
import type { OwnMachine, Ruling } from './rules.ts'
import { hostText, type Target } from './target.ts'

export type Protocol = EgressVerdict['protocol']

/** Why there is no connection: the rules, what is out there, or a limit of ours. */
export type Refusal = 'denied' | 'unreachable' | 'timeout' | 'busy'

/** What the rules make of a target. */
export interface Decision {
  readonly ruling: Ruling
  /** What it is about, synthetic addresses as the names that they stand for. */
  readonly host: string
  readonly port: number
  /** Of the host, where it was given by name. */
  readonly name: string | undefined
  /** Checked; empty unless allowed. */
  readonly addresses: readonly string[]
  /** Undefined when it is allowed. */
  readonly refusal: Refusal | undefined
}

export type Opened =
  | { readonly socket: Socket; readonly address: string; readonly refusal: undefined }
  | { readonly refusal: Refusal }

export interface ConnectorContext {
  readonly clock: Clock
  readonly dial: Dial
  readonly own: OwnMachine
  readonly lookups: Lookups
  readonly onVerdict: (verdict: EgressVerdict) => void
}

/** For resolution and dial together, a little less than what the broker waits. Milliseconds. */
const openMs = 9500
/** Characters. */
const maxReason = 300
/** Characters. */
const longestHost = 255

export class Connector {
  readonly #context: ConnectorContext

  constructor(context: ConnectorContext) {
    this.#context = context
  }

  /** Judges a target; asks the resolver where it is a name that the rules allow. Never throws. */
  async decide(child: Child, { host, port }: Target, gone: Ending): Promise<Decision> {
    const name = host.kind === 'name' ? host.name : child.synthetic.nameOf(host.address)
    const shown = name ?? hostText(host)
    const refuse = (ruling: Ruling, refusal: Refusal): Decision => ({
      ruling,
      host: shown,
      port,
      name,
      addresses: [],
      refusal,
    })
    if (child.closed) return refuse({ allowed: false, rule: 'ended' }, 'denied')
    if (name === undefined) {
      const ruling = child.rules.literal(shown, port)
      if (!ruling.allowed) return refuse(ruling, 'denied')
      return {
        ruling,
        host: shown,
        port,
        name,
        addresses: [plainAddress(shown) ?? shown],
        refusal: undefined,
      }
    }
    const ruling = child.rules.name(name, port)
    if (!ruling.allowed) return refuse(ruling, 'denied')
    const over = this.wildcardLimit(child, name, ruling)
    if (over !== undefined) return refuse(over, over.rule === 'limit:name-length' ? 'denied' : 'busy')
    let found: readonly string[]
    try {
      found = await this.find(child, name, gone)
    } catch (cause) {
      const { fault, message } = cause as LookupError
      const reason = `the name could not be resolved: ${message}`
      return refuse({ ...ruling, reason }, fault === 'timeout' ? 'timeout' : 'unreachable')
    }
    const judged = found.map((each) => {
      const address = plainAddress(each) ?? each
      return { address, against: child.rules.resolved(address, port) }
    })
    const addresses = judged.filter(({ against }) => against === undefined).map(({ address }) => address)
    const [first] = judged
    if (addresses.length > 0 || first?.against === undefined) {
      return { ruling, host: shown, port, name, addresses, refusal: undefined }
    }
    const reason = `${name} resolves to ${first.address}`
    return refuse({ ...first.against, reason }, 'denied')
  }

  /**
   * What a wildcard allows is asked of name servers that anybody may run, so that a name can carry data: their length, and
   * how many there are, is limited. With `*`, too: queries may get out of a network that connections do not.
   */
  wildcardLimit(child: Child, name: string, { rule }: Ruling): Ruling | undefined {
    if (!rule.startsWith('host:*')) return undefined
    if (name.length > child.limits.wildcardNameLength) return { allowed: false, rule: 'limit:name-length' }
    if (!child.knows(name) && !child.newNames.take()) return { allowed: false, rule: 'limit:new-names' }
    child.remember(name)
    return undefined
  }

  /** All addresses of a name, unjudged. @throws LookupError */
  find(child: Child, name: string, gone: Ending): Promise<readonly string[]> {
    return this.#context.lookups.find(child, name, gone)
  }

  /**
   * Dials what was decided. Never throws. Tells the verdict, unless there is a connection: then it is the caller's to tell
   * ({@link connected}), who may yet find something against what is said on it.
   */
  async open(
    child: Child,
    protocol: Protocol,
    decision: Decision,
    startedAt: number,
    gone: Ending,
  ): Promise<Opened> {
    const { refusal, ruling, addresses, port } = decision
    if (refusal !== undefined) {
      this.tell(child, protocol, decision, ruling, ruling.allowed ? { outcome: 'failed' } : {})
      return { refusal }
    }
    const { clock, dial, own } = this.#context
    try {
      const timeoutMs = openMs - (clock.now() - startedAt)
      const dialled = await dialFirst(addresses, port, { dial, clock, timeoutMs, gone })
      const { socket, address } = dialled
      const against = this.#looped(child, dialled, port, own)
      if (against !== undefined || child.closed) {
        socket.destroy()
        this.tell(child, protocol, decision, against ?? { allowed: false, rule: 'ended' }, { address })
        return { refusal: 'denied' }
      }
      return { socket, address, refusal: undefined }
    } catch (cause) {
      const { message, timedOut } =
        cause instanceof DialError ? cause : { message: String(cause), timedOut: false }
      const reason = `it could not be dialled: ${message}`
      this.tell(
        child,
        protocol,
        decision,
        { ...ruling, reason },
        { address: addresses[0], outcome: 'failed' },
      )
      return { refusal: timedOut ? 'timeout' : 'unreachable' }
    }
  }

  connected(child: Child, protocol: Protocol, decision: Decision, address: string): void {
    this.tell(child, protocol, decision, decision.ruling, { address, outcome: 'connected' })
  }

  tell(
    child: Child | undefined,
    protocol: Protocol,
    { host, port }: { host: string; port: number },
    { allowed, rule, reason }: Ruling,
    { address, outcome }: Partial<Pick<EgressVerdict, 'address' | 'outcome'>> = {},
  ): void {
    this.#context.onVerdict({
      child: child?.name ?? 'unknown',
      ...(child === undefined ? {} : { process: child.number }),
      allowed,
      protocol,
      host: host.slice(0, longestHost),
      port,
      rule,
      address,
      outcome,
      // It may hold what the server wrote into a handshake.
      ...(reason === undefined ? {} : { reason: reason.slice(0, maxReason) }),
    })
  }

  /**
   * A connection whose two ends have one address stays on this machine, loopback or not: an address that was added a
   * moment ago, or one that only the routing table knows. Nothing has been sent yet.
   */
  #looped(child: Child, { socket, address }: Dialled, port: number, own: OwnMachine): Ruling | undefined {
    if (isLoopback(address) || address !== plainAddress(socket.localAddress ?? '')) return undefined
    if (own.ports().includes(port)) return { allowed: false, rule: 'own-port' }
    return child.rules.ownAddress(address)
  }
}
