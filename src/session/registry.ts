import { randomBytes } from 'node:crypto'
import { SidecarError } from '../core/errors.ts'
import type { Outlet } from '../core/exchange.ts'
import { fingerprint } from '../core/secret.ts'
import type { Parsed, Pool, Principal, Sessions, Timer, Transport } from '../core/types.ts'
import type { SessionContext } from './context.ts'
import { Session } from './session.ts'

export interface RegistryOptions {
  readonly maxSessions: number
  readonly maxPerPrincipal: number
  readonly idleMs: number
  readonly records: SessionRecords
}

/** Who is told of sessions, for the audit log. */
export interface SessionRecords {
  started(sessionId: string, principal: Principal, transport: Transport, version: string | undefined): void
  ended(sessionId: string, principal: Principal, transport: Transport, error: SidecarError): void
}

/** How long a stream may be open without an initialize. */
const unbornMs = 60_000

/** Every session by its id, with their number and idle time bounded. */
export class Registry implements Sessions {
  readonly #options: RegistryOptions
  readonly #context: () => SessionContext
  readonly #sessions = new Map<string, Session>()
  /** Sessions whose initialize is under way count against the cap too. */
  readonly #all = new Set<Session>()
  /** How many of them each principal has. */
  readonly #owned = new Map<string, number>()
  readonly #sweep: Timer
  #draining = false

  /** @param context what new sessions are built with; asked anew for each, so that a reload applies to them */
  constructor(options: RegistryOptions, context: () => SessionContext) {
    this.#options = options
    this.#context = context
    const everyMs = Math.max(50, Math.min(10_000, options.idleMs / 4))
    const { clock } = context()
    const sweep: Timer = clock.after(everyMs, () => {
      this.#endIdle(clock.now())
      sweep.refresh()
    })
    this.#sweep = sweep
  }

  get size(): number {
    return this.#all.size
  }

  get queuedBytes(): number {
    let total = 0
    for (const session of this.#all) total += session.queuedBytes
    return total
  }

  /**
   * The session of this id, if it belongs to this principal and transport. Otherwise the same error whether it exists or not, so
   * that nobody learns of others' sessions.
   */
  get(id: string, principal: Principal, transport: Transport): Session {
    const session = this.#find(id, principal, transport)
    if (session === undefined) throw new SidecarError('ERR_SESSION_UNKNOWN')
    return session
  }

  clientInfo(of: Pick<Parsed, 'sessionId' | 'principal' | 'transport'>): string | undefined {
    const { sessionId, principal, transport } = of
    return sessionId === undefined ? undefined : this.#find(sessionId, principal, transport)?.clientInfo
  }

  #find(id: string, principal: Principal, transport: Transport): Session | undefined {
    const session = this.#sessions.get(id)
    return session?.principal.id === principal.id && session.transport === transport ? session : undefined
  }

  /**
   * A new session. On Streamable HTTP its id becomes known with the answer to initialize; on the other transports it
   * lives as long as `main`, the stream it was opened with.
   */
  open(principal: Principal, transport: Transport, main?: Outlet): Session {
    if (this.#draining) throw new SidecarError('ERR_DRAINING')
    const { maxSessions, maxPerPrincipal } = this.#options
    // Without authentication everybody is the same principal.
    const own = principal.kind === 'anonymous' ? 0 : (this.#owned.get(principal.id) ?? 0)
    if ((this.#all.size >= maxSessions || own >= maxPerPrincipal) && !this.giveUpOne(principal.id)) {
      const detail =
        own >= maxPerPrincipal
          ? `${principal.id} has ${own} sessions open (limits.sessionsPerPrincipal)`
          : `${maxSessions} sessions are open (limits.sessions)`
      throw new SidecarError('ERR_OVERLOADED', { detail, headers: { 'Retry-After': '5' } })
    }
    const context = this.#context()
    // 192 random bits: not to be guessed, and no authentication either.
    const id = randomBytes(24).toString('base64url')
    const session = new Session(
      id,
      principal,
      transport,
      context,
      {
        onReady: (ready) => {
          this.#sessions.set(id, ready)
          const fields = {
            session: fingerprint(id),
            principal: principal.id,
            transport,
            version: ready.version,
          }
          context.log.info(fields, 'session opened')
          this.#options.records.started(id, principal, transport, ready.version)
          if (transport === 'http-sse') {
            context.log.warn(
              fields,
              'a client uses HTTP+SSE, which is deprecated since protocol version 2025-03-26',
            )
          }
        },
        onEnded: (ended, error) => {
          if (this.#all.delete(ended)) this.#count(principal, -1)
          this.#sessions.delete(id)
          context.metrics.sessionClosed(transport)
          const fields = { session: fingerprint(id), reason: error.detail ?? error.code }
          context.log.info(fields, 'session ended')
          if (ended.version !== undefined) this.#options.records.ended(id, principal, transport, error)
        },
        makeRoom: (needy) => this.giveUpOne(needy.principal.id),
      },
      main,
    )
    this.#all.add(session)
    this.#count(principal, 1)
    // A stream's session can be named by its POSTs from the start.
    if (main !== undefined) this.#sessions.set(id, session)
    context.metrics.sessionOpened(transport)
    return session
  }

  #count({ id }: Principal, change: number): void {
    const left = (this.#owned.get(id) ?? 0) + change
    if (left === 0) this.#owned.delete(id)
    else this.#owned.set(id, left)
  }

  /** No new sessions from now on. */
  drain(): void {
    this.#draining = true
    this.endSubscriptions()
  }

  /** Those of modern clients; on a WebSocket they are a session's. */
  endSubscriptions(): void {
    for (const session of this.#all) session.endSubscriptions()
  }

  /**
   * What may be read has changed: every subscription has to be asked for anew. One of the handshake era lasts as long as its
   * session, so that such sessions end; their clients begin another.
   */
  withdrawSubscriptions(): void {
    this.endSubscriptions()
    const changed = new SidecarError('ERR_SESSION_UNKNOWN', {
      detail: 'what it may subscribe to has changed',
    })
    for (const session of [...this.#all]) if (session.subscribes) session.end(changed)
  }

  /** Ends the sessions whose principal is not accepted any more. */
  endUntrusted(trusted: (principal: Principal) => boolean): void {
    for (const session of [...this.#all]) {
      if (trusted(session.principal)) continue
      session.end(new SidecarError('ERR_AUTH_INVALID', { detail: 'its credential was withdrawn' }))
    }
  }

  /** What servers may touch has changed: sessions of another than this one end, each with its calls in flight. */
  retireOthers(server: Pool): void {
    const changed = new SidecarError('ERR_SESSION_UNKNOWN', {
      detail: 'what its server may touch has changed',
    })
    for (const session of [...this.#all]) {
      if (session.servedBy !== undefined && session.servedBy !== server) session.retire(changed)
    }
  }

  endAll(error: SidecarError): void {
    this.#sweep.cancel()
    for (const session of [...this.#all]) session.end(error)
  }

  /**
   * At a limit, the longest unused session of the same principal makes way: clients that vanish without a DELETE
   * would otherwise hold every place for the whole idle time. Its client, should it return, gets 404 and starts anew.
   */
  giveUpOne(principalId: string): boolean {
    let oldest: Session | undefined
    for (const session of this.#sessions.values()) {
      if (session.principal.id !== principalId || !session.idle) continue
      if (oldest === undefined || session.lastUsed < oldest.lastUsed) oldest = session
    }
    oldest?.end(new SidecarError('ERR_SESSION_UNKNOWN', { detail: 'unused, and its place was needed' }))
    return oldest !== undefined
  }

  #endIdle(now: number): void {
    for (const session of [...this.#all]) {
      if (session.unborn && now - session.lastUsed >= unbornMs) {
        session.end(new SidecarError('ERR_SESSION_MISSING', { detail: 'no initialize came' }))
        continue
      }
      if (!session.idle || now - session.lastUsed < this.#options.idleMs) continue
      session.end(new SidecarError('ERR_SESSION_UNKNOWN', { detail: 'it was idle' }))
    }
  }
}
