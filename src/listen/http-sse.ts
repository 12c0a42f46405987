import { SidecarError } from '../core/errors.ts'
import type { Outlet } from '../core/exchange.ts'
import type { Handler } from '../core/pipeline.ts'
import { decode, submit } from './decode.ts'
import { EventStream, endWithCredential } from './event-stream.ts'
import { type HttpIdentified, requireAccept, requireJson, writeError } from './http.ts'
import { OutletExchange } from './outlet-exchange.ts'
import type { TransportContext } from './streamable-http.ts'

/**
 * HTTP+SSE of 2024-11-05 (basic/transports, "HTTP with SSE"): one stream for everything the server says, POSTs for
 * what the client says. Deprecated since 2025-03-26; here for the clients that still speak it.
 */
export function httpSse(context: TransportContext): {
  readonly stream: Handler<HttpIdentified>
  readonly messages: Handler<HttpIdentified>
} {
  /** The stream of each session, for the answers to its POSTs. */
  const streams = new Map<string, Outlet>()
  return {
    stream: (identified) => {
      const { request, response, requestId, principal } = identified
      if (identified.httpMethod !== 'GET') throw new SidecarError('ERR_METHOD', { headers: { Allow: 'GET' } })
      requireAccept(request, 'text/event-stream')
      context.mayOpen()
      const stream = new EventStream(response, context.streams, { 'X-Request-Id': requestId })
      const session = context.sessions.open(principal, 'http-sse', stream)
      streams.set(session.id, stream)
      context.opened(identified)
      endWithCredential(context.streams.clock, principal, stream)
      stream.onClosed(() => streams.delete(session.id))
      // The id names the session; what proves the caller is the credential on each POST.
      stream.event('endpoint', `/messages?sessionId=${session.id}`)
    },
    messages: async (identified) => {
      const { request, response, requestId, principal } = identified
      if (identified.httpMethod !== 'POST')
        throw new SidecarError('ERR_METHOD', { headers: { Allow: 'POST' } })
      requireJson(request)
      const sessionId = new URLSearchParams(request.url?.split('?', 2)[1] ?? '').get('sessionId')
      if (sessionId === null) throw new SidecarError('ERR_SESSION_MISSING')
      const session = context.sessions.get(sessionId, principal, 'http-sse')
      const outlet = streams.get(sessionId)
      if (outlet === undefined) throw new SidecarError('ERR_SESSION_UNKNOWN')
      const body = await context.bodies.read(identified)
      const { messages } = decode(body, () => session.version, context.maxBatch)
      let refusal: SidecarError | undefined
      for (const message of messages) {
        const idText = message.kind === 'request' ? message.idText : undefined
        const exchange = new OutletExchange(outlet, idText, requestId)
        await submit(context.messages, identified, { message, sessionId, exchange }, (error) => {
          context.refusals.noteMessage(error, identified)
          if (messages.length === 1 && idText === undefined) refusal = error
        })
      }
      if (refusal !== undefined) {
        writeError(identified, refusal)
        return
      }
      response.writeHead(202, { 'X-Request-Id': requestId, 'Content-Length': 0 }).end()
    },
  }
}
