/** The audit log: one JSON line for each decision and outcome, each with the hash of the one before. */

import { errorTable } from '../core/errors.ts'
import type { AuditPolicy } from '../core/policy.ts'
import { Throttle } from '../core/throttle.ts'
import type { Clock, Logger } from '../core/types.ts'
import { Chain, linkBytes } from './audit-chain.ts'
import { AuditEvents, type AuditInput, type AuditPlace } from './audit-event.ts'
import { AuditError } from './audit-file.ts'
import { type AuditMetrics, AuditSink } from './audit-sink.ts'
import { type AuditType, auditTypes, type ChainEventType } from './audit-type.ts'
import type { LineWriter } from './line-writer.ts'

export interface Audit {
  /**
   * Records what happened. Returns at once, writes within some 20 ms, and never throws. Holds up to 16 MiB while nothing
   * can be written; what then finds no room is lost, and the log says how much.
   */
  record(event: AuditInput): void
  /**
   * True while calls are to be refused with ERR_AUDIT: the policy is `block`, and writing has failed, has got nowhere for
   * 5 s, or is 8 MiB behind. To be asked before
   * anything is done for a call.
   */
  readonly blocked: boolean
  /** Opens the file anew (SIGHUP): it was renamed by who rotates it. The chain goes on in the new file. */
  reopen(): void
  /**
   * Follows another policy from now on; the chain goes on. The destination has to be the same.
   *
   * @throws AuditError as createAudit does; then nothing has changed
   */
  reconfigure(policy: AuditPolicy): void
  /** Writes what is held, for at most 5 s, hands it to the disk and ends. What is recorded later is lost. */
  close(): Promise<void>
}

export interface AuditDeps {
  readonly clock: Clock
  readonly log: Logger
  readonly metrics: AuditMetrics
  readonly place: AuditPlace
  /** Of the configuration in force: `sha256:` and hex digits. Asked for each decision. */
  readonly configDigest: () => string
  /** The log's writer, where it writes JSON to standard output. */
  readonly stdout?: LineWriter | undefined
}

/** @throws AuditError for an unknown type of event, and for a file that cannot be used */
export function createAudit(policy: AuditPolicy, deps: AuditDeps): Audit {
  return new AuditLog(policy, deps)
}

class AuditLog implements Audit {
  readonly #clock: Clock
  readonly #log: Logger
  readonly #metrics: AuditMetrics
  readonly #deps: AuditDeps
  readonly #destination: string
  #wanted: ReadonlySet<AuditType>
  #events: AuditEvents
  readonly #sink: AuditSink
  readonly #chain: Chain
  readonly #throttle = new Throttle(1)
  #lost = 0
  #closed = false

  constructor(policy: AuditPolicy, deps: AuditDeps) {
    this.#deps = deps
    this.#destination = destinationName(policy)
    this.#clock = deps.clock
    this.#log = deps.log
    this.#metrics = deps.metrics
    this.#wanted = wantedTypes(policy)
    this.#events = new AuditEvents(policy, deps.place, deps.configDigest)
    this.#sink = new AuditSink(policy, {
      clock: deps.clock,
      log: deps.log,
      metrics: deps.metrics,
      stdout: deps.stdout,
      onRecovered: ({ reason, ms }) => this.#resumed({ reason, failed_ms: ms }),
    })
    const { last, torn } = this.#sink.tail
    this.#chain = new Chain(last)
    if (torn === undefined || last === undefined) return
    // What the crash left of a line becomes one, and the next says what it is.
    this.#sink.push('\n')
    this.#append('chain_resumed', { torn_bytes: torn.bytes, torn_hash: last.hash })
    this.#log.warn(
      { bytes: torn.bytes },
      'the last line of the audit log was cut off; the chain goes on after it',
    )
  }

  record(event: AuditInput): void {
    if (!this.#wanted.has(event.type)) return
    let text: string
    try {
      text = this.#events.text(event, this.#clock.epoch())
    } catch (thrown) {
      this.#lose(thrown instanceof Error ? thrown.message : String(thrown))
      return
    }
    const { error } = event
    // Of refusals a stranger can cause as many as he likes.
    const reserved = event.type !== 'http_request' && (error === undefined || errorTable[error.code].inBand)
    const bytes = text.length + linkBytes
    if (this.#closed || !this.#sink.hasRoom(bytes, reserved)) {
      this.#lose(this.#closed ? 'it is closed' : 'there is no room')
      return
    }
    // Before what follows, so that the gap is where it was.
    if (this.#lost > 0) this.#resumed({})
    this.#sink.push(`${this.#chain.next(text)}\n`)
  }

  get blocked(): boolean {
    return this.#sink.blocked
  }

  reopen(): void {
    this.#sink.reopen()
  }

  reconfigure(policy: AuditPolicy): void {
    if (destinationName(policy) !== this.#destination)
      throw new AuditError(`the audit log goes to ${this.#destination}; another place needs another log`)
    const wanted = wantedTypes(policy)
    this.#events = new AuditEvents(policy, this.#deps.place, this.#deps.configDigest)
    this.#wanted = wanted
    this.#sink.onFailure = policy.onFailure
  }

  close(): Promise<void> {
    if (this.#closed) return Promise.resolve()
    this.#closed = true
    return this.#sink.close()
  }

  #lose(reason: string): void {
    this.#lost++
    this.#metrics.auditLost()
    const suppressed = this.#throttle.take(this.#clock.now())
    if (suppressed === false) return
    this.#log.error({ reason, lost: this.#lost }, 'events are missing in the audit log')
  }

  #resumed(details: Readonly<Record<string, string | number>>): void {
    if (this.#append('audit_resumed', { lost: this.#lost, ...details })) this.#lost = 0
  }

  #append(type: ChainEventType, details: Readonly<Record<string, string | number>>): boolean {
    const text = this.#events.chainText(type, this.#clock.epoch(), 'error', details)
    if (!this.#sink.hasRoom(text.length + linkBytes, true)) return false
    this.#sink.push(`${this.#chain.next(text)}\n`)
    return true
  }
}

function destinationName({ destination }: AuditPolicy): string {
  return destination === 'stdout' ? 'stdout' : destination.file
}

/** @throws AuditError for an unknown type of event */
export function checkAuditPolicy(policy: AuditPolicy): void {
  wantedTypes(policy)
}

/** @throws AuditError for a type that there is not: a typing error would otherwise leave out what was wanted */
function wantedTypes({ eventTypes, excludeEventTypes }: AuditPolicy): ReadonlySet<AuditType> {
  const known = (name: string): AuditType => {
    const type = auditTypes.find((each) => each === name)
    if (type !== undefined) return type
    throw new AuditError(
      `there is no audit event type ${JSON.stringify(name)}; there are ${auditTypes.join(', ')}`,
    )
  }
  const wanted = new Set<AuditType>(eventTypes.length === 0 ? auditTypes : eventTypes.map(known))
  for (const name of excludeEventTypes) wanted.delete(known(name))
  return wanted
}
