import type { Clock, Logger } from '../core/types.ts'

/** The same clock; what goes wrong when a time has come ends what was to be done, not the sidecar. */
export function guarded(clock: Clock, log: Logger): Clock {
  return {
    now: () => clock.now(),
    epoch: () => clock.epoch(),
    after: (ms, then) =>
      clock.after(ms, () => {
        try {
          then()
        } catch (err) {
          log.error({ err }, 'a timer failed')
        }
      }),
  }
}

/** Monotonic time and timers that keep no process alive. */
export const systemClock: Clock = {
  now: () => performance.now(),
  epoch: () => Date.now(),
  after: (ms, then) => {
    const timer = setTimeout(then, ms).unref()
    return { refresh: () => void timer.refresh(), cancel: () => clearTimeout(timer) }
  },
}
