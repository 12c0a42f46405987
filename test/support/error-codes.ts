/** The JSON-RPC code of each refusal, written down a second time so that a slip in the table shows. */
const codes: Readonly<Record<string, number>> = {
  ERR_HOST: 403,
  ERR_ORIGIN: 403,
  ERR_DENIED: 403,
  ERR_SCOPE: 403,
  ERR_AUTH: 401,
  ERR_AUTH_MISSING: 401,
  ERR_AUTH_INVALID: 401,
  ERR_RATE_LIMITED: 429,
  ERR_PARSE: -32700,
  ERR_UNSUPPORTED: -32601,
  ERR_METHOD_UNKNOWN: -32601,
  ERR_PARAMS: -32602,
  ERR_TOOL_UNKNOWN: -32602,
  ERR_OVERLOADED: -32603,
  ERR_DRAINING: -32603,
  ERR_UPSTREAM_EXIT: -32603,
  ERR_UPSTREAM_MESSAGE: -32603,
  ERR_TIMEOUT: -32603,
  ERR_SLOW_READER: -32603,
  ERR_NO_CLIENT: -32603,
  ERR_INTERNAL: -32603,
}

export function rpcCode(reason: string): number {
  return codes[reason] ?? -32600
}
