import { SidecarError } from '../core/errors.ts'
import type { Clock, Trusted } from '../core/types.ts'
import type { Attempt } from './authenticator.ts'
import type { Failures } from './failures.ts'
import type { AuthGate } from './gate.ts'

/** What one request may cost, and what its methods have to say about it. */
export class RequestAttempt implements Attempt {
  readonly #address: string
  readonly #gate: AuthGate
  readonly #failures: Failures
  readonly #notes: string[] = []
  readonly #onAdmitted: (() => void)[] = []
  /** Methods that have not answered yet. */
  readonly #asked: string[] = []
  #controller: AbortController | undefined
  #expired = false

  constructor(request: Trusted, gate: AuthGate, failures: Failures) {
    this.#address = request.clientAddress
    this.#gate = gate
    this.#failures = failures
  }

  beforeWork(): void {
    if (this.#expired) throw new SidecarError('ERR_AUTH_INVALID', { detail: 'out of time' })
    const limited = this.limited('not looked at')
    if (limited !== undefined) throw limited
  }

  get signal(): AbortSignal {
    this.#controller ??= new AbortController()
    if (this.#expired) this.#controller.abort()
    return this.#controller.signal
  }

  onAdmitted(then: () => void): void {
    this.#onAdmitted.push(then)
  }

  admitted(): void {
    for (const then of this.#onAdmitted) then()
  }

  note(why: string): void {
    // Several methods of one kind say the same.
    if (!this.#notes.includes(why)) this.#notes.push(why)
  }

  get notes(): readonly string[] {
    return this.#notes
  }

  get expired(): boolean {
    return this.#expired
  }

  /** The refusal of an address that has failed too often. */
  limited(detail: string): SidecarError | undefined {
    const { failures } = this.#gate
    const seconds = this.#failures.retryAfter(this.#address, failures)
    if (seconds === undefined) return undefined
    return new SidecarError('ERR_RATE_LIMITED', {
      detail: `${detail}; ${failures.attempts} or more failed attempts of ${this.#address}`,
      headers: { 'Retry-After': String(seconds) },
    })
  }

  failed(): void {
    this.#failures.add(this.#address, this.#gate.failures)
  }

  /** What a method answers later, with a record of who is being waited for. */
  async waitFor<T>(name: string, answer: Promise<T>): Promise<T> {
    this.#asked.push(name)
    try {
      return await answer
    } finally {
      this.#asked.splice(this.#asked.indexOf(name), 1)
    }
  }

  /** What `answer` comes to, or after the time for authentication what `late` makes of those who have not answered. */
  inTime<T>(clock: Pick<Clock, 'after'>, answer: Promise<T>, late: (names: string) => T): Promise<T> {
    return new Promise((resolve, reject) => {
      const timer = clock.after(this.#gate.timeoutMs, () => {
        this.#expired = true
        resolve(late(this.#asked.join(', ')))
        this.#controller?.abort()
      })
      answer.then(resolve, reject).finally(() => timer.cancel())
    })
  }
}
