import { SidecarError } from '../core/errors.ts'
import type { Draft, Handler, Layer } from '../core/pipeline.ts'
import type { Admitted, Routed } from '../core/types.ts'
import type { ModernClients } from './modern-clients.ts'
import type { Registry } from './registry.ts'

/**
 * Finds the session a message belongs to; an initialize without one opens it. Modern requests need none: a session id
 * that they carry is ignored (basic/transports/streamable-http).
 *
 * @throws ERR_SESSION_MISSING, ERR_SESSION_UNKNOWN (also for another principal's), ERR_OVERLOADED
 */
export function route(registry: Registry, modern: ModernClients): Layer<Admitted, Routed> {
  return (admitted, next) => {
    const { sessionId, message, principal, transport } = admitted
    const routed = admitted as Draft<Routed>
    if (admitted.era === 'modern') {
      const connected = admitted.connection !== undefined && sessionId !== undefined
      routed.session = connected ? registry.get(sessionId, principal, transport).modern : modern
    } else if (sessionId !== undefined) routed.session = registry.get(sessionId, principal, transport)
    else if (message.kind === 'request' && message.method === 'initialize') {
      routed.session = registry.open(principal, transport)
    } else throw new SidecarError('ERR_SESSION_MISSING')
    return next(routed)
  }
}

/** The end of the request path: hands the message to its session. */
export const relay: Handler<Routed> = (routed) => {
  const { session, message, exchange } = routed
  if (message.kind === 'request') {
    session.request(routed)
    return
  }
  if (message.kind === 'notification') session.notify(message)
  else session.respond(message)
  exchange.finish('ok')
}
