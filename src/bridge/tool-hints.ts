import { HeldBack } from '../core/held-back.ts'
import type { Draft, Handler, Layer } from '../core/pipeline.ts'
import type { Clock, Decoded } from '../core/types.ts'
import { type ToolList, type View, youngMs } from './tool-list.ts'

export interface ToolHintsContext {
  readonly clock: Clock
  /** Whether anybody behind this looks at the hints at the moment. */
  readonly wanted: () => boolean
}

/**
 * The layer that puts on a tool call what the server says of its tool, from a list of this principal that is fresh. A
 * list that could not be had says nothing, whatever was known before. A tool that is not in it is looked for again, at
 * most once in ten seconds.
 *
 * Waits only where the list has to be asked for. Requests of one connection must then be handed in one after the other,
 * or later ones overtake; notifications and responses wait for the calls of their session.
 */
export function toolHints(list: ToolList, { clock, wanted }: ToolHintsContext): Layer<Decoded, Decoded> {
  const waiting = new HeldBack()

  const isGood = (view: View, name: string): boolean => {
    const now = clock.now()
    if (now >= view.staleAt) return false
    return view.failed || view.tools?.has(name) === true || now - view.fetchedAt < youngMs
  }

  const later = async (decoded: Decoded, name: string, next: Handler<Decoded>): Promise<void> => {
    const { era, exchange, principal } = decoded
    let view: View
    do {
      view = list.view(principal)
      await list.fetched(view, principal, Number.POSITIVE_INFINITY)
      // After a reload the call goes to another server, which may say something else of a tool of this name.
    } while (view.server !== list.server)
    if (exchange.settled) return
    // A modern client that has left has cancelled.
    if (era === 'modern' && !exchange.attached) exchange.finish('cancelled')
    else await hinted(decoded, view, name, next)
  }

  return (decoded, next) => {
    const { message, principal, sessionId } = decoded
    if (message.kind !== 'request') {
      const earlier = waiting.earlier(sessionId)
      return earlier === undefined ? next(decoded) : earlier.then(() => next(decoded))
    }
    if (message.method !== 'tools/call' || !wanted()) return next(decoded)
    const name = message.paramString('name')
    if (name === undefined) return next(decoded)
    const view = list.view(principal)
    if (isGood(view, name)) return hinted(decoded, view, name, next)
    return waiting.hold(sessionId, later(decoded, name, next))
  }
}

function hinted(decoded: Decoded, view: View, name: string, next: Handler<Decoded>): void | Promise<void> {
  const known = decoded as Draft<Decoded>
  known.toolHints = view.failed ? undefined : view.tools?.get(name)?.hints
  return next(known)
}
