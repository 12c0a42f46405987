import type { Clock, Logger } from '../core/types.ts'
import { Unavailable } from './authenticator.ts'
import { messageOf, refusal, within } from './token-method.ts'

export interface RefreshOptions<T> {
  /** Names it in logs and refusals: `the keys of https://issuer.example`. */
  readonly what: string
  /** Bounded in time itself. Its failure leaves the last value in place. */
  readonly load: (last: T | undefined) => Promise<T>
  readonly clock: Clock
  readonly log: Logger
  /** An older value is loaded anew, in the background, when it is next asked for. */
  readonly maxAgeMs: number
}

/** How long a value is good while it cannot be loaded anew: outages of an issuer end, removed keys must too. */
export const staleMs = 24 * 60 * 60_000
/** From the start of one load to that of the next, whoever asks for it. */
export const cooldownMs = 30_000
/** How long who asks waits for a value that is overdue, before the old one has to do: its owner may be away. */
export const patienceMs = 2_000
/** As {@link cooldownMs}, while there is no value at all: a sidecar that started before its issuer need not wait long. */
export const retryMs = 5_000

/** A value of somebody else that is kept, renewed when it is old, and believed for a bounded time when it cannot be. */
export class Refreshed<T> {
  readonly #options: RefreshOptions<T>
  #value: T | undefined
  #loadedAt = 0
  #startedAt = Number.NEGATIVE_INFINITY
  /** Not before, without a special reason. */
  #renewAt = Number.NEGATIVE_INFINITY
  #loading: Promise<boolean> | undefined
  #failure: string | undefined

  constructor(options: RefreshOptions<T>) {
    this.#options = options
  }

  /** The last value, unless it is older than {@link staleMs}. Starts a load when one is due; waits for nothing. */
  get value(): T | undefined {
    const now = this.#options.clock.now()
    if (now >= this.#renewAt) void this.#load(now)
    return this.#usable(now)
  }

  /**
   * The same, and undefined when it is overdue: nobody has asked for so long that what was withdrawn meanwhile would be
   * believed once more.
   */
  get current(): T | undefined {
    const value = this.value
    return this.#options.clock.now() < this.#renewAt + cooldownMs ? value : undefined
  }

  /**
   * The value, waited for when there is none, and for a moment when it is overdue.
   *
   * @throws ERR_AUTH_INVALID when none can be had, or not in time
   */
  async ready(signal: () => AbortSignal): Promise<T> {
    const known = this.current
    if (known !== undefined) return known
    const { what, clock } = this.#options
    if (this.#loading !== undefined) {
      if (this.#usable(clock.now()) === undefined) await within(signal(), this.#loading, what)
      else await this.#patiently(this.#loading)
    }
    const loaded = this.#usable(clock.now())
    if (loaded === undefined) {
      const detail = `${what} cannot be had: ${this.#failure ?? 'unknown'}`
      throw refusal(detail, new Unavailable(detail))
    }
    return loaded
  }

  /**
   * A value that was loaded after this was called or shortly before; undefined when one was loaded within
   * {@link cooldownMs}, or the load fails.
   *
   * @throws ERR_AUTH_INVALID when it does not come in time
   */
  async renewed(signal: () => AbortSignal): Promise<T | undefined> {
    const now = this.#options.clock.now()
    if (this.#loading === undefined && now - this.#startedAt < cooldownMs) return undefined
    return (await within(signal(), this.#load(now), this.#options.what)) ? this.#value : undefined
  }

  #patiently(loading: Promise<boolean>): Promise<void> {
    return new Promise((resolve) => {
      const timer = this.#options.clock.after(patienceMs, resolve)
      void loading.then(() => {
        timer.cancel()
        resolve()
      })
    })
  }

  #usable(now: number): T | undefined {
    return this.#value !== undefined && now - this.#loadedAt < staleMs ? this.#value : undefined
  }

  /** Whether it succeeded; never rejects. One at a time. */
  #load(now: number): Promise<boolean> {
    if (this.#loading !== undefined) return this.#loading
    this.#startedAt = now
    const { load, clock, log, what, maxAgeMs } = this.#options
    // Apart from this function, so that a load that throws at once ends like one that throws later.
    const loading = (async () => load(this.#value))().then(
      (value) => {
        this.#value = value
        this.#loadedAt = clock.now()
        this.#renewAt = this.#loadedAt + maxAgeMs
        if (this.#failure !== undefined) log.info({}, `${what} can be had again`)
        this.#failure = undefined
        return true
      },
      (thrown: unknown) => {
        const failure = messageOf(thrown)
        this.#renewAt = clock.now() + (this.#value === undefined ? retryMs : cooldownMs)
        // Each reason once: an outage lasts, and every request in it would say the same.
        if (failure !== this.#failure) {
          const consequence =
            this.#value === undefined ? 'its tokens are refused' : 'the last ones are used meanwhile'
          log.warn({ reason: failure }, `${what} cannot be had: ${consequence}`)
        }
        this.#failure = failure
        return false
      },
    )
    this.#loading = loading
    void loading.finally(() => {
      this.#loading = undefined
    })
    return loading
  }
}
