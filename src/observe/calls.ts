import type { Handler } from '../core/pipeline.ts'
import type { Clock, Decoded, Logger, Metrics, Parsed } from '../core/types.ts'

/** Clients choose method names; so much of one is logged. */
const maxMethod = 100
const maxDetail = 300

/** The layer around all others that see messages: every request leaves one metric and one log line, however it ends. */
export function observeCalls(clock: Clock, log: Logger, metrics: Metrics) {
  return (parsed: Parsed, next: Handler<Parsed>): void | Promise<void> => {
    const { message } = parsed
    if (message.kind === 'request') {
      const startedAt = clock.now()
      parsed.exchange.onSettled((outcome, error) => {
        const ms = clock.now() - startedAt
        metrics.call(message.method, outcome, ms / 1000)
        log.info(
          {
            requestId: parsed.requestId,
            method: message.method.slice(0, maxMethod),
            outcome,
            // Why, for whoever runs this; the client learns the code alone.
            ...(error?.detail === undefined ? {} : { detail: error.detail.slice(0, maxDetail) }),
            ms: Math.round(ms * 10) / 10,
            principal: parsed.principal.id,
            transport: parsed.transport,
            // Known by then, unless it was refused for what it claims to be.
            era: (parsed as Partial<Decoded>).era,
          },
          'call',
        )
      })
    }
    return next(parsed)
  }
}
