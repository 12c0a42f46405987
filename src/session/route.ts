import { SidecarError } from '../core/errors.ts'
import type { Handler, Layer } from '../core/pipeline.ts'
import type { Admitted, Routed } from '../core/types.ts'
import type { Registry } from './registry.ts'

/**
 * Finds the session a message belongs to; an initialize without one opens it.
 *
 * @throws ERR_SESSION_MISSING, ERR_SESSION_UNKNOWN (also for another principal's), ERR_OVERLOADED
 */
export function route(registry: Registry): Layer<Admitted, Routed> {
  return (admitted, next) => {
    const { sessionId, message, principal, transport } = admitted
    if (sessionId !== undefined)
      return next({ ...admitted, session: registry.get(sessionId, principal, transport) })
    if (message.kind !== 'request' || message.method !== 'initialize') {
      throw new SidecarError('ERR_SESSION_MISSING')
    }
    return next({ ...admitted, session: registry.open(principal, transport) })
  }
}

/** The end of the request path: hands the message to its session. */
export const relay: Handler<Routed> = ({ session, message, exchange, deadline }) => {
  if (message.kind === 'request') {
    session.request(message, exchange, deadline)
    return
  }
  if (message.kind === 'notification') session.notify(message)
  else session.respond(message)
  exchange.finish('ok')
}
