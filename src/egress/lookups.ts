import { lookup } from 'node:dns/promises'
import type { Clock } from '../core/types.ts'
import type { Ending } from './ending.ts'

/** @param name in ASCII; with a dot at its end it is absolute, and no search list applies */
export type Resolve = (name: string, signal: AbortSignal) => Promise<readonly string[]>

/** As this machine resolves names: its hosts file, its search list. */
export const systemResolve: Resolve = async (name) =>
  (await lookup(name, { all: true })).map(({ address }) => address)

/** `timeout`: no answer in time; `none`: the name does not exist, or has no address; `failed`: nobody knows. */
export type LookupFault = 'timeout' | 'none' | 'failed'

export class LookupError extends Error {
  override readonly name = 'LookupError'
  readonly fault: LookupFault

  constructor(fault: LookupFault, text: string) {
    super(text)
    this.fault = fault
  }
}

/** At once, for one child and for all: the system's resolver holds a thread for each, which the sidecar needs, too. */
const perOwner = 2
const inAll = 3
/** Of a lookup, from its turn on. Milliseconds. */
const timeoutMs = 5000
/** Of a lookup and the wait for its turn, a little less than a connection may take to open. Milliseconds. */
const totalMs = 9000

const noSuchName = new Set(['ENOTFOUND', 'ENODATA', 'EAI_NONAME', 'EAI_NODATA'])

interface Waiting {
  readonly owner: object
  start(): void
}

/**
 * Lookups of all children, in turn: a name server that is slow for one does not take the resolver from the others. Two at
 * once are for whoever is alone; where others look up, too, each has one, so that one is left for who comes next.
 */
export class Lookups {
  readonly #resolve: Resolve
  readonly #clock: Clock
  readonly #waiting = new Set<Waiting>()
  readonly #running = new Map<object, number>()
  #runningInAll = 0
  /** The number of each owner's last turn. */
  readonly #startedAt = new WeakMap<object, number>()
  #started = 0

  constructor(resolve: Resolve, clock: Clock) {
    this.#resolve = resolve
    this.#clock = clock
  }

  /**
   * All addresses of a name, at least one.
   *
   * @param owner who has no more than its share
   * @throws LookupError
   */
  find(owner: object, name: string, gone: Ending): Promise<readonly string[]> {
    return new Promise((resolve, reject) => {
      const stop = new AbortController()
      const settle = (outcome: readonly string[] | LookupError): void => {
        timer.cancel()
        gone.off(onGone)
        this.#waiting.delete(waiting)
        if (outcome instanceof LookupError) {
          stop.abort()
          reject(outcome)
        } else resolve(outcome)
      }
      const onGone = (): void => settle(new LookupError('failed', 'nobody waits for it any more'))
      const late = (): void => settle(new LookupError('timeout', 'no answer in time'))
      const end = this.#clock.now() + totalMs
      let timer = this.#clock.after(totalMs, late)
      const waiting: Waiting = {
        owner,
        start: () => {
          this.#count(owner, 1)
          timer.cancel()
          timer = this.#clock.after(Math.min(timeoutMs, end - this.#clock.now()), late)
          // The place is free when the resolver has returned, whether or not anybody still waits: only then is its thread.
          ask(this.#resolve, name, stop.signal)
            .then(settle, (cause: unknown) => settle(faultOf(cause)))
            .finally(() => {
              this.#count(owner, -1)
              this.#startNext()
            })
        },
      }
      gone.on(onGone)
      this.#waiting.add(waiting)
      if (gone.over) onGone()
      else this.#startNext()
    })
  }

  #startNext(): void {
    while (this.#runningInAll < inAll) {
      const next = this.#longestWithout()
      if (next === undefined) return
      this.#waiting.delete(next)
      this.#startedAt.set(next.owner, ++this.#started)
      next.start()
    }
  }

  /** Of whoever's last turn is longest ago, whatever the others have waiting. */
  #longestWithout(): Waiting | undefined {
    let first: Waiting | undefined
    let least = Number.POSITIVE_INFINITY
    for (const each of this.#waiting) {
      if (!this.#mayRun(each.owner)) continue
      const turn = this.#startedAt.get(each.owner) ?? 0
      if (turn >= least) continue
      least = turn
      first = each
    }
    return first
  }

  #mayRun(owner: object): boolean {
    const running = this.#running.get(owner) ?? 0
    return running === 0 || (running < perOwner && this.#running.size === 1)
  }

  #count(owner: object, by: 1 | -1): void {
    this.#runningInAll += by
    const running = (this.#running.get(owner) ?? 0) + by
    if (running === 0) this.#running.delete(owner)
    else this.#running.set(owner, running)
  }
}

async function ask(resolve: Resolve, name: string, signal: AbortSignal): Promise<readonly string[]> {
  const addresses = await resolve(name, signal)
  if (addresses.length === 0) throw new LookupError('none', 'it has no address')
  return addresses
}

function faultOf(cause: unknown): LookupError {
  if (cause instanceof LookupError) return cause
  const code =
    cause instanceof Error ? ((cause as NodeJS.ErrnoException).code ?? cause.message) : String(cause)
  return new LookupError(noSuchName.has(code) ? 'none' : 'failed', code)
}
