import { randomBytes } from 'node:crypto'
import type { Socket } from 'node:net'
import type { NetworkPolicy } from '../core/sandbox.ts'
import { Credential, Secret, sha256 } from '../core/secret.ts'
import type { Clock } from '../core/types.ts'
import { Bucket, type EgressLimits } from './limits.ts'
import { MissingNames } from './missing-names.ts'
import { EgressRules, type OwnMachine } from './rules.ts'
import { SyntheticAddresses } from './synthetic.ts'

/** User name beside the token, where a form has one. */
export const tokenUser = 'child'

/** One server process (with its tree): its rules, its token, and what it has used up. */
export class Child {
  readonly name: string
  /** No other child of this proxy has it. */
  readonly number: number
  readonly rules: EgressRules
  readonly checkSni: boolean
  readonly limits: EgressLimits
  readonly synthetic: SyntheticAddresses
  readonly token: Credential
  /** Of the token. */
  readonly digest: Buffer
  readonly queries: Bucket
  /** Names that a wildcard allows and that do not exist. */
  readonly missing = new MissingNames()
  /** Names below a wildcard that may be new. */
  readonly newNames: Bucket
  readonly #secret: Secret
  readonly #connections = new Set<Socket>()
  readonly #names = new Set<string>()
  #closed = false

  constructor(
    { name, number }: { name: string; number: number },
    policy: NetworkPolicy,
    { limits, own, clock }: { limits: EgressLimits; own: OwnMachine; clock: Clock },
  ) {
    const token = randomBytes(32).toString('base64url')
    this.name = name
    this.number = number
    this.rules = new EgressRules(policy, own)
    this.checkSni = policy.checkSni
    this.limits = limits
    this.synthetic = new SyntheticAddresses(clock, limits.names)
    this.token = new Credential(token)
    this.#secret = new Secret(token)
    this.digest = sha256(token)
    this.queries = new Bucket(clock, limits.queriesPerSecond)
    this.newNames = new Bucket(clock, limits.newNamesPerSecond)
  }

  get connections(): number {
    return this.#connections.size
  }

  get closed(): boolean {
    return this.#closed
  }

  matches(digest: Buffer): boolean {
    return !this.#closed && this.#secret.matches(digest)
  }

  /** Whether a name counts as asked for. */
  knows(name: string): boolean {
    return this.#names.has(name)
  }

  /** A name counts as asked for from now on; those asked for longest ago are forgotten. */
  remember(name: string): void {
    this.#names.delete(name)
    this.#names.add(name)
    if (this.#names.size > this.limits.names) this.#names.delete(this.#names.values().next().value as string)
  }

  /** Counts a connection until it closes; it ends with the child. */
  hold(socket: Socket): void {
    this.#connections.add(socket)
    socket.once('close', () => this.#connections.delete(socket))
  }

  close(): void {
    this.#closed = true
    for (const socket of this.#connections) socket.destroy()
  }
}
