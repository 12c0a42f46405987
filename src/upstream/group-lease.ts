import type { Message } from '../core/jsonrpc.ts'
import type {
  CallHandle,
  CallLease,
  InitializeResult,
  LeaseWish,
  UpstreamCall,
  UpstreamOwner,
} from '../core/types.ts'
import type { GroupProcess, Tenant } from './group-process.ts'

/** What a lease needs of its group. */
export interface LeaseHome {
  readonly queuedBytes: number
  call(lease: GroupLease, call: UpstreamCall): CallHandle
  watch(uris: readonly string[], lease: GroupLease): void
  parkedChanged(): void
  released(lease: GroupLease): void
}

/** One call's share in the processes of its principal. */
export class GroupLease implements CallLease, Tenant {
  readonly exclusive = false
  readonly owner: UpstreamOwner
  readonly wish: LeaseWish
  readonly uris = new Set<string>()
  /** That serves it, or served it last. */
  child: GroupProcess | undefined
  /** The latest made on it. */
  latest: UpstreamCall | undefined
  readonly #home: LeaseHome
  #parked = false
  #released = false

  constructor(home: LeaseHome, owner: UpstreamOwner, wish: LeaseWish) {
    this.#home = home
    this.owner = owner
    this.wish = wish
  }

  get server(): InitializeResult | undefined {
    return this.child?.server
  }

  get instance(): string {
    return this.child?.instance ?? ''
  }

  get parked(): boolean {
    return this.#parked
  }

  set parked(parked: boolean) {
    this.#parked = parked
    this.#home.parkedChanged()
  }

  get queuedBytes(): number {
    return this.#home.queuedBytes
  }

  call(call: UpstreamCall): CallHandle {
    if (call.message.method !== 'initialize') this.latest = call
    return this.#home.call(this, call)
  }

  log(level: string | undefined): void {
    if (level !== undefined) this.child?.setLevel(level)
  }

  watch(uris: readonly string[]): void {
    for (const uri of uris) this.uris.add(uri)
    this.#home.watch(uris, this)
  }

  /** Subscribed to the resource, or to one it is part of (server/resources, "Subscriptions"). */
  watches(uri: string): boolean {
    if (this.uris.has(uri)) return true
    for (const each of this.uris) if (uri.startsWith(each.endsWith('/') ? each : `${each}/`)) return true
    return false
  }

  send(message: Message): void {
    this.child?.link.send(message)
  }

  // Others use the process, too; a reader that does not read loses its call (see session/).
  pause(): void {}
  resume(): void {}

  release(): void {
    if (this.#released) return
    this.#released = true
    this.#home.released(this)
  }
}
