import { SidecarError } from '../core/errors.ts'
import type { Message } from '../core/jsonrpc.ts'
import { localRequest } from '../core/local.ts'
import type { InitializeResult } from '../core/types.ts'
import type { GroupLease } from './group-lease.ts'
import { capabilitySuperset, handshake } from './handshake.ts'
import type { Link } from './link.ts'
import type { ProcessContext } from './process.ts'

export interface GroupProcessEvents {
  onReady(): void
  onGone(error: SidecarError): void
  onRequest(message: Message): void
  onNotification(message: Message): void
}

/** One legacy process of a group, initialized by the sidecar. */
export class GroupProcess {
  readonly instance: string
  readonly link: Link
  /** What it said of itself; undefined until it has. */
  server: InitializeResult | undefined
  /** The lease whose call has it to itself. */
  tenant: GroupLease | undefined
  /** Monotonic milliseconds. */
  lastUsed: number
  readonly #context: ProcessContext
  readonly #events: GroupProcessEvents
  #level: string | undefined

  constructor(instance: string, link: Link, context: ProcessContext, events: GroupProcessEvents) {
    this.instance = instance
    this.link = link
    this.lastUsed = context.clock.now()
    this.#context = context
    this.#events = events
  }

  start(version: string, startTimeoutMs: number): void {
    const { link } = this
    link.attach({
      onRequest: (message) => this.#events.onRequest(message),
      onNotification: (message) => this.#events.onNotification(message),
      onEnd: (error) => this.#events.onGone(error),
    })
    handshake(link, capabilitySuperset, version, startTimeoutMs).then(
      (server) => {
        this.server = server
        this.#events.onReady()
      },
      (error: unknown) => {
        this.#events.onGone(SidecarError.from(error))
        void link.stop()
      },
    )
  }

  /** No call that may ask runs there, not even one that was given up on. */
  get vacant(): boolean {
    return this.tenant === undefined && !this.suspected
  }

  /** A call that was given up on may still run there, and ask. */
  get suspected(): boolean {
    return this.link.hasSuspects
  }

  /** The lease of the only call under way that wants log messages; undefined if there is none or more than one. */
  get soleListener(): GroupLease | undefined {
    let only: GroupLease | undefined
    for (const { owner } of this.link.pending) {
      const lease = owner as GroupLease | undefined
      if (lease?.wish.logLevel === undefined) continue
      if (only !== undefined) return undefined
      only = lease
    }
    return only
  }

  /** Makes the server log at this level at least, from the next call on. */
  setLevel(level: string): void {
    if (this.#level === level || this.server?.capabilities['logging'] === undefined) return
    this.#level = level
    this.request('logging/setLevel', { level })
  }

  /** A request of the sidecar itself whose outcome changes nothing. */
  request(method: string, params: object): void {
    const ms = 60_000
    const ignore = (): void => {}
    this.link.call(
      {
        message: localRequest(method, params),
        reachable: false,
        deadline: { timeoutMs: ms, maxMs: ms, inputMs: ms },
        progress: ignore,
        answer: ignore,
        fail: (error) =>
          this.#context.log.warn({ method, detail: error.detail }, 'the server did not answer'),
      },
      undefined,
    )
  }
}
