/** Where audit lines go, how many of them are held while they cannot, and whether calls may go on meanwhile. */
import type { AuditPolicy } from '../core/policy.ts'
import type { Clock, Logger } from '../core/types.ts'
import { AuditFile, type Tail } from './audit-file.ts'
import { descriptor, type Lane, LineWriter } from './line-writer.ts'

/** Lines wait so long for others to be written with them: what a killed process may lose. Milliseconds. */
const delayMs = 20
const batchBytes = 64 * 1024
/** Held while they cannot be written. Bytes. */
export const maxHeldBytes = 16 * 1024 * 1024
/** Up to here anything is taken; the rest is for the outcome of calls that were let in. */
const openBytes = (maxHeldBytes / 4) * 3
/** From here on no further calls are let in, so that those that were find room. */
const blockBytes = maxHeldBytes / 2
/** A write that gets nowhere for so long has failed: a pipe that nobody reads. Milliseconds. */
const stallMs = 5000
const closeMs = 5000

export interface AuditMetrics {
  /** A write to the audit log has failed. */
  auditFailed(): void
  /** An event was not recorded, and will not be. */
  auditLost(): void
}

export interface SinkDeps {
  readonly clock: Clock
  readonly log: Logger
  readonly metrics: AuditMetrics
  /** Shared with the log, which writes there, too. */
  readonly stdout: LineWriter | undefined
  /** What could not be written can be again. */
  readonly onRecovered: (failure: { readonly reason: string; readonly ms: number }) => void
}

export class AuditSink {
  /** How the file ends that was there. */
  readonly tail: Tail
  readonly #deps: SinkDeps
  #blocks: boolean
  readonly #file: AuditFile | undefined
  readonly #writer: LineWriter
  readonly #lane: Lane
  #closed = false
  #failedAt = 0
  #reason = ''
  #stalled = false

  /** @throws AuditError for a file that cannot be used */
  constructor({ destination, onFailure }: Pick<AuditPolicy, 'destination' | 'onFailure'>, deps: SinkDeps) {
    const { clock, log, metrics } = deps
    this.#deps = deps
    this.#blocks = onFailure === 'block'
    this.#file = destination === 'stdout' ? undefined : new AuditFile(destination.file, log)
    this.tail = this.#file?.tail ?? { last: undefined, torn: undefined }
    if (this.#file !== undefined) this.#writer = new LineWriter(this.#file, clock)
    else this.#writer = deps.stdout ?? new LineWriter(descriptor(1), clock)
    this.#lane = this.#writer.lane({
      delayMs,
      batchBytes,
      // What may be held is decided here, with a little more for what the log says of itself.
      maxBytes: Number.POSITIVE_INFINITY,
      onFailed: (error) => {
        metrics.auditFailed()
        this.#noteFailure(error)
      },
      onRecovered: () => {
        const failure = { reason: this.#reason, ms: Math.round(clock.now() - this.#failedAt) }
        this.#reason = ''
        log.info(failure, 'the audit log can be written again')
        deps.onRecovered(failure)
      },
    })
  }

  /** True while calls are to be refused, since what they do could not be recorded. */
  get blocked(): boolean {
    if (!this.#blocks) return false
    const { held, failure } = this.#lane
    if (held === 0) this.#stalled = false
    return this.#closed || failure !== undefined || held > blockBytes || this.#isStalled()
  }

  /**
   * @param bytes what is to be written next
   * @param reserved whether it may use the room that is kept for calls that were let in
   */
  hasRoom(bytes: number, reserved: boolean): boolean {
    return this.#lane.held + bytes <= (reserved ? maxHeldBytes : openBytes)
  }

  /** @param text whole lines; there is room for them */
  push(text: string): void {
    this.#lane.push(text)
  }

  set onFailure(onFailure: AuditPolicy['onFailure']) {
    this.#blocks = onFailure === 'block'
  }

  reopen(): void {
    this.#file?.reopen()
  }

  /** Writes what is held, as far as that can be done within 5 s. */
  async close(): Promise<void> {
    this.#closed = true
    const done = await this.#lane.flush(closeMs)
    if (!done) this.#deps.log.error({ bytes: this.#lane.held }, 'the audit log lacks its last events')
    this.#writer.remove(this.#lane)
    await this.#file?.close()
  }

  #isStalled(): boolean {
    const stalled = this.#writer.stalledMs > stallMs
    if (stalled && !this.#stalled) {
      this.#deps.metrics.auditFailed()
      const text = 'nobody takes what is written to the audit log; calls are refused until somebody does'
      this.#deps.log.error({ bytes: this.#lane.held }, text)
    }
    this.#stalled = stalled
    return stalled
  }

  #noteFailure(error: Error): void {
    const reason = (error as NodeJS.ErrnoException).code ?? error.message
    // Attempts go on; one line for each reason is enough.
    if (reason === this.#reason) return
    if (this.#reason === '') this.#failedAt = this.#deps.clock.now()
    this.#reason = reason
    const then = this.#blocks ? 'calls are refused until it can' : 'calls go on'
    this.#deps.log.error({ reason, detail: error.message }, `the audit log cannot be written; ${then}`)
  }
}
