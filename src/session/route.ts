import { SidecarError } from '../core/errors.ts'
import type { Draft, Handler, Layer } from '../core/pipeline.ts'
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
    const routed = admitted as Draft<Routed>
    if (sessionId !== undefined) routed.session = registry.get(sessionId, principal, transport)
    else if (message.kind === 'request' && message.method === 'initialize') {
      routed.session = registry.open(principal, transport)
    } else throw new SidecarError('ERR_SESSION_MISSING')
    return next(routed)
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
