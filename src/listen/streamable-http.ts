import { SidecarError } from '../core/errors.ts'
import { namesModern } from '../core/mcp.ts'
import type { Handler } from '../core/pipeline.ts'
import type { Identified, Parsed, Sessions } from '../core/types.ts'
import type { BodyReader } from './body.ts'
import { checkVersionHeader, decode, submit } from './decode.ts'
import { EventStream, type EventStreamOptions, endWithCredential } from './event-stream.ts'
import { type HttpIdentified, type Refusals, requireAccept, requireJson } from './http.ts'
import { PostExchange, PostReply } from './post-reply.ts'

export interface TransportContext {
  readonly sessions: Sessions
  readonly bodies: BodyReader
  readonly refusals: Refusals
  /** Before a long-lived stream is opened. @throws ERR_AUDIT */
  readonly mayOpen: () => void
  /** It was opened, for the audit log. */
  readonly opened: (identified: Identified) => void
  readonly streams: EventStreamOptions
  readonly maxBatch: number
  /** The rest of the request path. */
  readonly messages: Handler<Parsed>
}

/** Streamable HTTP of both eras; what differs is settled message by message (basic/transports, "Streamable HTTP"). */
export function streamableHttp(context: TransportContext): Handler<HttpIdentified> {
  return (identified) => {
    switch (identified.httpMethod) {
      case 'POST':
        return post(context, identified)
      case 'GET':
        return get(context, identified)
      case 'DELETE':
        return remove(context, identified)
    }
    throw new SidecarError('ERR_METHOD', { headers: { Allow: 'GET, POST, DELETE' } })
  }
}

async function post(context: TransportContext, identified: HttpIdentified): Promise<void> {
  const { request } = identified
  requireJson(request)
  requireAccept(request, 'application/json', 'text/event-stream')
  const body = await context.bodies.read(identified)
  const sessionId = sessionHeader(identified)
  const version = (): string | undefined =>
    sessionId === undefined
      ? undefined
      : context.sessions.get(sessionId, identified.principal, 'streamable-http').version
  const { messages, batch } = decode(body, version, context.maxBatch)
  // One header for all of them; of a message that stands alone it is part of what era it is.
  if (batch) checkVersionHeader(request.headers['mcp-protocol-version'])
  const reply = new PostReply(identified, context.streams, batch ? messages.length : undefined)
  for (const message of messages) {
    const exchange = new PostExchange(reply, message.kind === 'request' ? message.idText : undefined)
    const refused = (error: SidecarError): void => context.refusals.noteMessage(error, identified)
    await submit(context.messages, identified, { message, sessionId, exchange }, refused)
  }
}

function get(context: TransportContext, identified: HttpIdentified): void {
  const { request, response } = identified
  refuseModern(identified)
  requireAccept(request, 'text/event-stream')
  checkVersionHeader(request.headers['mcp-protocol-version'])
  const session = namedSession(context, identified)
  const stream = new EventStream(response, context.streams, { 'X-Request-Id': identified.requestId })
  context.mayOpen()
  const lastEventId = request.headers['last-event-id']
  session.attach(stream, typeof lastEventId === 'string' ? lastEventId : undefined)
  endWithCredential(context.streams.clock, identified.principal, stream)
  stream.open()
  context.opened(identified)
}

function remove(context: TransportContext, identified: HttpIdentified): void {
  refuseModern(identified)
  checkVersionHeader(identified.headers['mcp-protocol-version'])
  namedSession(context, identified).end(
    new SidecarError('ERR_SESSION_UNKNOWN', { detail: 'the client ended it' }),
  )
  identified.response.writeHead(200, { 'Content-Length': 0, 'X-Request-Id': identified.requestId }).end()
}

/** Modern clients have neither streams nor sessions to end (2026-07-28, basic/transports/streamable-http). */
function refuseModern(identified: HttpIdentified): void {
  const version = identified.headers['mcp-protocol-version']
  if (typeof version !== 'string' || !namesModern(version) || sessionHeader(identified) !== undefined) return
  throw new SidecarError('ERR_METHOD', { headers: { Allow: 'POST' } })
}

function namedSession({ sessions }: TransportContext, identified: HttpIdentified) {
  const id = sessionHeader(identified)
  if (id === undefined) throw new SidecarError('ERR_SESSION_MISSING')
  return sessions.get(id, identified.principal, 'streamable-http')
}

function sessionHeader({ headers }: HttpIdentified): string | undefined {
  const header = headers['mcp-session-id']
  return typeof header === 'string' && header !== '' ? header : undefined
}
