/**
 * What waits in a layer, by session. Messages of a session may come by requests of their own, so that a cancellation
 * could overtake the call it cancels while that waits; notifications and responses therefore wait for it.
 */
export class HeldBack {
  readonly #waiting = new Map<string, Promise<unknown>>()

  /**
   * Notes that a request waits, and whatever it does afterwards.
   *
   * @param sessionId undefined for a request that stands alone: nothing has to wait for it
   * @returns `pending` itself
   */
  hold(sessionId: string | undefined, pending: Promise<void>): Promise<void> {
    if (sessionId === undefined) return pending
    const waiting = this.#waiting
    const all = Promise.allSettled([waiting.get(sessionId), pending]).then(() => {
      if (waiting.get(sessionId) === all) waiting.delete(sessionId)
    })
    waiting.set(sessionId, all)
    return pending
  }

  /** Resolves when what waits of this session has gone on; undefined if nothing waits. Never rejects. */
  earlier(sessionId: string | undefined): Promise<unknown> | undefined {
    return sessionId === undefined ? undefined : this.#waiting.get(sessionId)
  }
}
