import type { Handler } from '../core/pipeline.ts'
import type { Clock, Decoded, Logger, Metrics } from '../core/types.ts'

/** Clients choose method names; so much of one is logged. */
const maxMethod = 100

/** The layer around all others that see messages: every request leaves one metric and one log line, however it ends. */
export function observeCalls(clock: Clock, log: Logger, metrics: Metrics) {
  return (decoded: Decoded, next: Handler<Decoded>): void | Promise<void> => {
    const { message } = decoded
    if (message.kind === 'request') {
      const startedAt = clock.now()
      decoded.exchange.onSettled((outcome) => {
        const ms = clock.now() - startedAt
        metrics.call(message.method, outcome, ms / 1000)
        log.info(
          {
            requestId: decoded.requestId,
            method: message.method.slice(0, maxMethod),
            outcome,
            ms: Math.round(ms * 10) / 10,
            principal: decoded.principal.id,
            transport: decoded.transport,
          },
          'call',
        )
      })
    }
    return next(decoded)
  }
}
