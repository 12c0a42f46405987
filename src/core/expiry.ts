import type { Clock } from './types.ts'

/** The longest wait that a timer of Node.js can hold; a longer one would fire at once. Milliseconds. */
const longestWaitMs = 2 ** 31 - 1

/**
 * Calls once when a credential ends.
 *
 * @param expiresAt milliseconds since 1970; undefined: never
 * @returns stops waiting
 */
export function atExpiry(clock: Clock, expiresAt: number | undefined, then: () => void): () => void {
  if (expiresAt === undefined) return () => {}
  const wait = (): number => Math.min(longestWaitMs, Math.max(0, expiresAt - clock.epoch()))
  const look = (): void => {
    if (clock.epoch() < expiresAt) timer = clock.after(wait(), look)
    else then()
  }
  let timer = clock.after(wait(), look)
  return () => timer.cancel()
}
