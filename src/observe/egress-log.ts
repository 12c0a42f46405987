/** Where server processes might connect, what came of it, and what they were kept from, in the log and the audit log. */
import type { EgressVerdict } from '../core/sandbox.ts'
import { Throttle } from '../core/throttle.ts'
import type { Clock, Logger, Timer } from '../core/types.ts'
import type { Records } from './records.ts'

export interface EgressLogContext {
  readonly clock: Clock
  readonly log: Logger
  readonly records: Pick<Records, 'event'>
}

/** For one process and kind. A server may be refused as often as it likes: that costs it nothing. */
const linesPerSecond = { allowed: 20, denied: 5 }
const windowMs = 1000

/** What was decided; what came of it is another matter. */
const texts = {
  connections: { allowed: 'the server may connect', denied: 'the server was kept from connecting' },
  lookups: { allowed: 'the server may look up a name', denied: 'the server was kept from looking up a name' },
} as const

/** What counts together; a name that was looked up hides no connection, nor does a refusal, nor one that failed. */
interface Kind {
  readonly profile: string
  readonly process: number | undefined
  readonly allowed: boolean
  readonly outcome: EgressVerdict['outcome']
  readonly kind: 'connections' | 'lookups'
}

interface Window {
  readonly kind: Kind
  readonly throttle: Throttle
  readonly timer: Timer
}

/**
 * A line for each verdict: for each process at most 20 a second of what was allowed and 5 of what was refused, connections
 * and lookups apart, and those that failed. Of the others there is one line a second for each kind, with their number as
 * `suppressed`: lines without it, and those numbers, add up to all verdicts.
 */
export class EgressLog {
  readonly #context: EgressLogContext
  /** Of the last second; nothing is kept of processes that are silent. */
  readonly #windows = new Map<string, Window>()

  constructor(context: EgressLogContext) {
    this.#context = context
  }

  note(verdict: EgressVerdict): void {
    const { child: profile, process, allowed, outcome, protocol, host, port, rule, address, reason } = verdict
    const { throttle, kind } = this.#window({
      ...{ profile, process, allowed, outcome },
      kind: protocol === 'dns' ? 'lookups' : 'connections',
    })
    const suppressed = throttle.take(this.#context.clock.now())
    if (suppressed === false) return
    this.#sum(kind, suppressed)
    this.#write(
      allowed,
      { profile, process, protocol, host, port, rule, address, outcome, reason },
      texts[kind.kind][allowed ? 'allowed' : 'denied'],
    )
  }

  /** Writes what has not been told. */
  close(): void {
    for (const key of [...this.#windows.keys()]) this.#end(key)
  }

  #window(kind: Kind): Window {
    const key = `${kind.process} ${kind.allowed} ${kind.outcome} ${kind.kind}`
    const open = this.#windows.get(key)
    if (open !== undefined) return open
    const throttle = new Throttle(linesPerSecond[kind.allowed ? 'allowed' : 'denied'])
    const timer = this.#context.clock.after(windowMs, () => this.#end(key))
    const window = { kind, throttle, timer }
    this.#windows.set(key, window)
    return window
  }

  #end(key: string): void {
    const window = this.#windows.get(key)
    if (window === undefined) return
    window.timer.cancel()
    this.#windows.delete(key)
    this.#sum(window.kind, window.throttle.drain())
  }

  #sum({ allowed, ...of }: Kind, suppressed: number): void {
    if (suppressed === 0) return
    this.#write(allowed, { ...of, suppressed }, `more ${of.kind} of the server than are listed`)
  }

  #write(
    allowed: boolean,
    details: Readonly<Record<string, string | number | undefined>>,
    text: string,
  ): void {
    const { log, records } = this.#context
    log[allowed ? 'debug' : 'warn'](details, text)
    const failed = details['outcome'] === 'failed'
    records.event('egress', { allowed, ...details }, allowed ? (failed ? 'error' : 'success') : 'denied')
  }
}
