import type { Outlet } from '../core/exchange.ts'
import type { Upstream } from '../core/types.ts'

type Target = Pick<Outlet, 'queuedBytes' | 'onceDrained'>

/** Less than this in a socket is nothing to account for. */
const noticeBytes = 64 * 1024

/**
 * How much a session's client has left unread, over all its streams. Above the limit the session's own server
 * process is not read any more until the client has caught up; a shared process cannot be slowed down for one
 * session, so there the session has exhausted its budget.
 */
export class Flow {
  upstream: Upstream | undefined
  readonly #limit: number
  readonly #behind = new Set<Target>()
  #paused = false

  constructor(limitBytes: number) {
    this.#limit = limitBytes
  }

  get queuedBytes(): number {
    let total = 0
    for (const target of this.#behind) total += target.queuedBytes
    return total
  }

  get exhausted(): boolean {
    return this.#behind.size > 0 && this.upstream?.exclusive === false && this.queuedBytes > this.#limit
  }

  wrote(target: Target): void {
    if (target.queuedBytes <= noticeBytes) return
    if (!this.#behind.has(target)) {
      this.#behind.add(target)
      target.onceDrained(() => {
        this.#behind.delete(target)
        this.#adjust()
      })
    }
    this.#adjust()
  }

  #adjust(): void {
    const over = this.queuedBytes > this.#limit
    if (over === this.#paused) return
    this.#paused = over
    if (over) this.upstream?.pause()
    else this.upstream?.resume()
  }
}
