/** Real time that a test can put forward, for what would take minutes. */
import type { Clock, Timer } from '../../src/core/types.ts'

export interface ForwardClock extends Clock {
  /** What is due by then happens soon, each timer once. */
  forward(ms: number): void
}

interface Pending {
  due: number
  again(): void
}

export function forwardClock(): ForwardClock {
  let ahead = 0
  const waiting = new Set<Pending>()
  const clock: ForwardClock = {
    now: () => performance.now() + ahead,
    epoch: () => Date.now() + ahead,
    after: (ms, then) => {
      let timer: NodeJS.Timeout | undefined
      const pending: Pending = {
        due: 0,
        again: () => {
          clearTimeout(timer)
          const due = (): void => {
            waiting.delete(pending)
            then()
          }
          timer = setTimeout(due, Math.max(0, pending.due - clock.now())).unref()
        },
      }
      const made: Timer = {
        refresh: () => {
          pending.due = clock.now() + ms
          waiting.add(pending)
          pending.again()
        },
        cancel: () => {
          waiting.delete(pending)
          clearTimeout(timer)
        },
      }
      made.refresh()
      return made
    },
    forward: (ms) => {
      ahead += ms
      for (const each of [...waiting]) each.again()
    },
  }
  return clock
}
