import { SidecarError } from '../core/errors.ts'
import type { Exchange } from '../core/exchange.ts'
import { type Message, readMessages } from '../core/jsonrpc.ts'
import { batchVersion, isLegacyVersion } from '../core/mcp.ts'
import type { Handler } from '../core/pipeline.ts'
import type { Connection, Identified, Parsed, Routed } from '../core/types.ts'

/**
 * The messages of one text from a client.
 *
 * @param version of the client's session, if it has one: only 2025-03-26 knows batches. Asked only for a batch.
 * @throws ERR_PARSE, ERR_INVALID_REQUEST, ERR_BATCH
 */
export function decode(
  bytes: Buffer,
  version: () => string | undefined,
  maxBatch: number,
): { readonly messages: readonly Message[]; readonly batch: boolean } {
  // Before the elements are read: a batch that is refused costs no more than to see that it is one.
  if (isArray(bytes) && version() !== batchVersion) throw new SidecarError('ERR_BATCH')
  const read = readMessages(bytes, maxBatch)
  if (!read.batch) return read
  if (read.messages.length === 0) throw new SidecarError('ERR_INVALID_REQUEST', { detail: 'an empty batch' })
  if (read.messages.some((message) => message.method === 'initialize')) {
    throw new SidecarError('ERR_INVALID_REQUEST', { detail: 'initialize inside a batch' })
  }
  if (read.messages.some((message) => message.metaSpans?.protocolVersion !== undefined)) {
    throw new SidecarError('ERR_BATCH', { detail: 'a modern request inside a batch' })
  }
  return read
}

function isArray(bytes: Buffer): boolean {
  for (const c of bytes) {
    if (c === 0x20 || c === 0x09 || c === 0x0a || c === 0x0d) continue
    return c === 0x5b
  }
  return false
}

/** @throws ERR_VERSION if an MCP-Protocol-Version header names a version not spoken here (2025-06-18 and later) */
export function checkVersionHeader(header: string | string[] | undefined): void {
  if (header === undefined || (typeof header === 'string' && isLegacyVersion(header))) return
  throw new SidecarError('ERR_VERSION', { detail: `MCP-Protocol-Version ${JSON.stringify(header)}` })
}

/** What is known of one message beside its caller. */
interface Part {
  readonly message: Message
  readonly sessionId: string | undefined
  readonly exchange: Exchange
  readonly connection?: Connection
}

/**
 * Sends one message down the path. What a stage throws becomes the answer of this message; `refused` is told so that
 * it is logged. Resolves, or returns, when the message has been accepted or refused, not when it is answered.
 */
export function submit(
  next: Handler<Parsed>,
  identified: Identified,
  part: Part,
  refused: (error: SidecarError) => void,
): void | Promise<void> {
  const fail = (thrown: unknown): void => {
    const error = SidecarError.from(thrown)
    refused(error)
    part.exchange.fail(error)
  }
  try {
    const pending = next(parsed(identified, part))
    if (pending !== undefined) return pending.catch(fail)
  } catch (thrown) {
    fail(thrown)
  }
}

/**
 * The one object that all stages fill in (see Draft). Its names are written out, those of later stages included, because
 * V8 makes room in an object for the names of its literal: what is added afterwards costs several times as much.
 */
function parsed(from: Identified, { message, sessionId, exchange, connection }: Part): Parsed {
  const whole: { readonly [K in keyof Required<Routed>]: Routed[K] | undefined } = {
    requestId: from.requestId,
    transport: from.transport,
    remoteAddress: from.remoteAddress,
    clientAddress: from.clientAddress,
    httpMethod: from.httpMethod,
    path: from.path,
    query: from.query,
    headers: from.headers,
    rawHeaders: from.rawHeaders,
    certificate: from.certificate,
    origin: from.origin,
    principal: from.principal,
    message,
    sessionId,
    exchange,
    connection,
    era: undefined,
    toolHints: undefined,
    operation: undefined,
    permit: undefined,
    deadline: undefined,
    session: undefined,
  }
  return whole as Parsed
}
