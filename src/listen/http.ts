import type { IncomingMessage, ServerResponse } from 'node:http'
import { rpcErrorText, SidecarError } from '../core/errors.ts'
import { Throttle } from '../core/throttle.ts'
import type { Identified, Logger, Metrics, Received, Trusted } from '../core/types.ts'

/** One HTTP request with its response. */
export interface HttpIo {
  readonly request: IncomingMessage
  readonly response: ServerResponse
}

export type HttpReceived = Received & HttpIo
export type HttpTrusted = Trusted & HttpIo
export type HttpIdentified = Identified & HttpIo

/** Of a detail, which may quote what a client sent, this much is logged. */
const maxDetail = 300
/** Refusals logged; all are counted. */
const refusalsPerSecond = 100

/** What is known of a request that was refused, which may be next to nothing; with the principal, if it came so far. */
export type Refused = Pick<Received, 'requestId' | 'remoteAddress'> & Partial<Identified>

/** The one place where a failure becomes an HTTP response; it is counted and logged here. */
export class Refusals {
  readonly #log: Logger
  readonly #metrics: Metrics
  readonly #record: (error: SidecarError, refused: Refused) => void
  readonly #throttle = new Throttle(refusalsPerSecond)

  /** @param record for the audit log: refusals of what never became a message */
  constructor(log: Logger, metrics: Metrics, record: (error: SidecarError, refused: Refused) => void) {
    this.#log = log
    this.#metrics = metrics
    this.#record = record
  }

  /** Counts, logs and records a failure of a request that is answered elsewhere. */
  note(error: SidecarError, refused: Refused): void {
    this.#record(error, refused)
    this.noteMessage(error, refused)
  }

  /** Counts and logs the failure of a message; whoever observes messages records it. */
  noteMessage(error: SidecarError, received: Refused): void {
    this.#metrics.refused(error.code)
    const fields = {
      requestId: received.requestId,
      code: error.code,
      detail: error.detail?.slice(0, maxDetail),
      remoteAddress: received.remoteAddress,
    }
    if (error.code === 'ERR_INTERNAL') {
      this.#log.error({ ...fields, err: error.cause }, 'request failed')
      return
    }
    const suppressed = this.#throttle.take(performance.now())
    if (suppressed === false) return
    this.#log.warn({ ...fields, ...(suppressed > 0 ? { suppressed } : {}) }, 'request refused')
  }

  /** Notes the error and answers with it, if nothing has been answered yet. */
  refuse(thrown: unknown, received: Refused & HttpIo): void {
    const error = SidecarError.from(thrown)
    // Nobody is left to be answered. What ended the connection has been noted; what was refused meanwhile has not.
    const gone = received.request.socket.destroyed
    if (gone && error.code === 'ERR_HTTP') return
    this.note(error, received)
    if (gone) return
    writeError(received, error)
  }
}

/** An error as the whole response: JSON-RPC, never HTML, never a stack trace. */
export function writeError(
  { request, response, requestId }: HttpIo & { readonly requestId: string },
  error: SidecarError,
  idText?: string,
): void {
  if (response.headersSent) {
    response.destroy()
    return
  }
  const body = rpcErrorText(error, idText, requestId)
  response.writeHead(error.httpStatus(idText !== undefined), {
    ...error.headers,
    ...(closes(request, error) ? { Connection: 'close' } : {}),
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(body),
    'X-Request-Id': requestId,
  })
  response.end(body)
}

/**
 * A body that was not asked for is not waited for. Of a stranger no body is read, come or not: whether it had come would tell
 * how long his credential was looked at.
 */
function closes(request: IncomingMessage, { code }: SidecarError): boolean {
  return hasBody(request) && (!request.complete || code.startsWith('ERR_AUTH_'))
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
}

/** The media types of an Accept or Content-Type header, in lower case; what has a weight of 0 is left out. */
export function mediaTypes(header: string | undefined): string[] {
  if (header === undefined) return []
  return header.split(',').flatMap((part) => {
    const [type, ...parameters] = part.toLowerCase().split(';')
    if (parameters.some((parameter) => /^\s*q=0(\.0{0,3})?\s*$/.test(parameter))) return []
    return [(type as string).trim()]
  })
}

/** @throws ERR_CONTENT_TYPE unless the body is declared as JSON, as it is, so that nothing hides under another type */
export function requireJson(request: IncomingMessage): void {
  // Empty, it names none.
  const coding = request.headers['content-encoding'] || 'identity'
  if (coding.toLowerCase() !== 'identity')
    throw new SidecarError('ERR_CONTENT_TYPE', { detail: `Content-Encoding ${JSON.stringify(coding)}` })
  const header = request.headers['content-type']
  if (header === 'application/json' || mediaTypes(header)[0] === 'application/json') return
  throw new SidecarError('ERR_CONTENT_TYPE', { detail: `Content-Type ${JSON.stringify(header ?? '')}` })
}

/** What MCP clients send with every POST; it allows everything that is answered here. */
const usualAccept = 'application/json, text/event-stream'

/** @throws ERR_ACCEPT unless all of these types are acceptable to the client */
export function requireAccept(request: IncomingMessage, ...needed: string[]): void {
  const header = request.headers.accept
  if (header === usualAccept) return
  const accepted = mediaTypes(header)
  const allows = (type: string): boolean =>
    accepted.includes(type) || accepted.includes('*/*') || accepted.includes(`${type.split('/', 1)[0]}/*`)
  if (needed.every(allows)) return
  const detail = `Accept ${JSON.stringify(header ?? '')} does not allow ${needed.filter((t) => !allows(t)).join(', ')}`
  throw new SidecarError('ERR_ACCEPT', { detail })
}
