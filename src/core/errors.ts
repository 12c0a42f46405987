/**
 * Every failure the sidecar produces itself, in one table. Stages throw {@link SidecarError}; transports render
 * it with {@link rpcErrorText}. Rich inside (the detail goes to the log), poor outside: the client gets the
 * public sentence, the code as `data.reason` and the request id.
 */

interface ErrorRow {
  /** HTTP status while nothing has been answered yet. */
  readonly status: number
  /** JSON-RPC `error.code`. */
  readonly rpc: number
  /** WebSocket close code where the failure ends the connection (RFC 6455 section 7.4; 4000-4999 are ours). */
  readonly close: number
  /** What the client reads; names no internals. */
  readonly sentence: string
  /** The answer of a call rather than a refusal of it: HTTP 200 once the request id is known. */
  readonly inBand: boolean
}

const row = (status: number, rpc: number, close: number, sentence: string): ErrorRow => ({
  status,
  rpc,
  close,
  sentence,
  inBand: false,
})
const inBand = (status: number, rpc: number, close: number, sentence: string): ErrorRow => ({
  ...row(status, rpc, close, sentence),
  inBand: true,
})

export const errorTable = {
  ERR_HTTP: row(400, -32600, 1002, 'The HTTP request is malformed.'),
  ERR_EXPECTATION: row(417, -32600, 1002, 'Only Expect: 100-continue is understood.'),
  ERR_HEADERS: row(431, -32600, 1002, 'The request headers are too large.'),
  ERR_SLOW: row(408, -32600, 1002, 'The request did not arrive in time.'),
  ERR_HOST: row(403, 403, 1008, 'This Host is not served here.'),
  ERR_ORIGIN: row(403, 403, 1008, 'This Origin may not call this server.'),
  ERR_AUTH_MISSING: row(401, 401, 4401, 'Authentication is required.'),
  ERR_AUTH_INVALID: row(401, 401, 4401, 'Authentication is required.'),
  ERR_NOT_FOUND: row(404, -32600, 1008, 'There is nothing at this path.'),
  ERR_METHOD: row(405, -32600, 1008, 'This HTTP method is not allowed here.'),
  ERR_CONTENT_TYPE: row(415, -32600, 1003, 'The body must be application/json.'),
  ERR_ACCEPT: row(406, -32600, 1003, 'The Accept header must allow what this endpoint answers with.'),
  ERR_TOO_LARGE: row(413, -32600, 1009, 'The message is larger than this server accepts.'),
  ERR_PARSE: row(400, -32700, 1007, 'The message is not valid JSON.'),
  ERR_INVALID_REQUEST: row(400, -32600, 1002, 'The message is not a valid JSON-RPC message here.'),
  ERR_BATCH: row(400, -32600, 1002, 'Batches are only allowed in sessions of protocol version 2025-03-26.'),
  ERR_VERSION: row(400, -32600, 1002, 'The MCP-Protocol-Version header names a version not served here.'),
  ERR_DENIED: row(403, 403, 1008, 'This operation is not permitted.'),
  ERR_SCOPE: row(403, 403, 1008, 'The token lacks a scope that this operation needs.'),
  ERR_TOOL_UNKNOWN: inBand(400, -32602, 1008, 'There is no such tool.'),
  ERR_AUDIT: row(503, -32603, 1013, 'The server cannot record what it does; try again later.'),
  ERR_RATE_LIMITED: row(429, 429, 1013, 'Too many requests.'),
  ERR_OVERLOADED: row(503, -32603, 1013, 'The server is at its limit; try again later.'),
  ERR_DRAINING: row(503, -32603, 1001, 'The server is shutting down.'),
  ERR_SESSION_MISSING: row(400, -32600, 1002, 'A session is needed: send initialize first.'),
  ERR_SESSION_UNKNOWN: row(404, -32600, 1008, 'There is no such session; send initialize again.'),
  ERR_STREAM_CONFLICT: row(409, -32600, 1008, 'This session already has an open GET stream.'),
  ERR_EVENT_UNKNOWN: row(400, -32600, 1008, 'The Last-Event-ID is not known in this session.'),
  ERR_UNSUPPORTED: inBand(404, -32601, 1008, 'This method is not available here.'),
  ERR_METHOD_UNKNOWN: row(404, -32601, 1008, 'There is no such method in this protocol version.'),
  ERR_ENVELOPE: row(400, -32602, 1002, 'The request metadata in params._meta is incomplete or malformed.'),
  ERR_PROTOCOL_VERSION: row(400, -32022, 1002, 'This protocol version is not supported.'),
  ERR_HEADER_MISMATCH: row(400, -32020, 1002, 'A header is missing, malformed or disagrees with the body.'),
  ERR_CAPABILITY: row(400, -32021, 1008, 'The request needs a capability that the client did not declare.'),
  ERR_REQUEST_STATE: inBand(400, -32602, 1008, 'The requestState is not valid here (any more).'),
  ERR_PARAMS: inBand(400, -32602, 1008, 'The params are not valid for this method.'),
  ERR_TASK_UNKNOWN: inBand(400, -32602, 1008, 'There is no such task.'),
  ERR_ROUNDS: inBand(502, -32603, 1011, 'The server asked for input too many times.'),
  ERR_INPUT: inBand(502, -32603, 1008, 'The input that the server asked for was not given.'),
  ERR_UPSTREAM_EXIT: inBand(502, -32603, 1011, 'The MCP server process is not running.'),
  ERR_UPSTREAM_MESSAGE: inBand(502, -32603, 1011, 'The answer of the MCP server was unusable or too large.'),
  ERR_TIMEOUT: inBand(504, -32603, 1011, 'The MCP server did not answer in time.'),
  ERR_SLOW_READER: row(503, -32603, 1008, 'The client does not read what it asked for.'),
  ERR_NO_CLIENT: row(503, -32603, 1011, 'No client can be asked.'),
  ERR_INTERNAL: row(500, -32603, 1011, 'Internal error.'),
} as const satisfies Record<string, ErrorRow>

export type ErrorCode = keyof typeof errorTable

/** The table for a person, a row each. */
export function errorLines(): string[] {
  const rows = Object.entries(errorTable).map(
    ([code, { status, rpc, close, sentence }]) =>
      `${code.padEnd(22)} ${status}   ${String(rpc).padEnd(8)}  ${String(close).padEnd(9)}  ${sentence}`,
  )
  return ['code                   HTTP  JSON-RPC  WebSocket  what the client reads', ...rows]
}

export interface ErrorOptions {
  /** For the log only; never sent. */
  readonly detail?: string
  readonly cause?: unknown
  /** Further members of the JSON-RPC error's `data`, for the client to read. */
  readonly data?: Readonly<Record<string, unknown>>
  /** HTTP headers that belong to the refusal (`WWW-Authenticate`, `Retry-After`, `Allow`). */
  readonly headers?: Readonly<Record<string, string>>
  /** Which rule or policy refused, for the audit log. */
  readonly verdict?: {
    readonly layer: string
    readonly ids: readonly string[]
    /** What went wrong in judging, which refuses; without values of the request. */
    readonly errors?: readonly string[]
  }
}

/** A failure of the sidecar's own making. `message` is the public sentence; `detail` is for the log. */
export class SidecarError extends Error {
  override readonly name = 'SidecarError'
  readonly code: ErrorCode
  readonly detail: string | undefined
  readonly data: Readonly<Record<string, unknown>> | undefined
  readonly headers: Readonly<Record<string, string>>
  readonly verdict: ErrorOptions['verdict']

  constructor(code: ErrorCode, options: ErrorOptions = {}) {
    super(errorTable[code].sentence, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.detail = options.detail
    this.data = options.data
    this.headers = options.headers ?? {}
    this.verdict = options.verdict
  }

  /** @param idKnown whether the answer can name the request it belongs to */
  httpStatus(idKnown: boolean): number {
    const { status, inBand: answer } = errorTable[this.code]
    return idKnown && answer ? 200 : status
  }

  get close(): number {
    return errorTable[this.code].close
  }

  /** Whatever was thrown, as a SidecarError; what is not one becomes ERR_INTERNAL with the original as cause. */
  static from(thrown: unknown): SidecarError {
    if (thrown instanceof SidecarError) return thrown
    const detail = thrown instanceof Error ? thrown.message : String(thrown)
    return new SidecarError('ERR_INTERNAL', { detail, cause: thrown })
  }
}

/**
 * One JSON-RPC error response as text.
 *
 * @param idText the request id as JSON text, or undefined when it could not be read; the member is then absent
 *   (MCP base protocol: ids are never null)
 */
export function rpcErrorText(
  error: SidecarError,
  idText: string | undefined,
  requestId: string | undefined,
): string {
  const { rpc, sentence } = errorTable[error.code]
  const retryAfter = error.headers['Retry-After']
  const data = {
    ...error.data,
    source: 'mcp-sidecar',
    // Whoever is refused learns nothing about which part of a credential was wrong.
    reason: error.code.startsWith('ERR_AUTH_') ? 'ERR_AUTH' : error.code,
    ...(requestId === undefined ? {} : { requestId }),
    ...(retryAfter === undefined ? {} : { retryAfterSeconds: Number(retryAfter) }),
  }
  const id = idText === undefined ? '' : `"id":${idText},`
  return `{"jsonrpc":"2.0",${id}"error":${JSON.stringify({ code: rpc, message: sentence, data })}}`
}
