/** What every refusal of the sidecar has in common, checked in one place. */
import type { IncomingHttpHeaders } from 'node:http'
import type { Test } from 'tap'
import { rpcCode } from './error-codes.ts'

interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders | Readonly<Record<string, string>>
  readonly body: string
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of any shape
  readonly json: any
}

/** Nothing a stranger should read: markup, stack traces, names of files and modules. */
const leaks = /<[a-z!]|\n\s+at |node:|node_modules|\.[cm]?[jt]s\b|Error:/i

/**
 * The answer is this refusal: JSON-RPC, from the sidecar, with the request id that the headers name.
 *
 * @param id the id it must carry; undefined: it must carry none
 */
export function refused(t: Test, answer: Answer, status: number, reason: string, id?: string | number): void {
  t.equal(answer.status, status, `${status} ${reason} (${answer.body.slice(0, 200)})`)
  t.equal(answer.headers['content-type'], 'application/json', 'JSON')
  const requestId = answer.headers['x-request-id']
  t.type(requestId, 'string', 'there is a request id')
  isRefusal(t, answer.json, reason, id)
  t.equal(answer.json?.error?.data?.requestId, requestId, 'body and header name the same request')
  t.notMatch(answer.body, leaks, 'it tells nothing of our insides')
}

/** A JSON-RPC error of the sidecar, on whatever transport. */
export function isRefusal(t: Test, message: unknown, reason: string, id?: string | number): void {
  const { jsonrpc, error } = (message ?? {}) as {
    jsonrpc?: unknown
    error?: { code?: unknown; message?: unknown; data?: { source?: unknown; reason?: unknown } }
  }
  const { source, reason: actual } = error?.data ?? {}
  t.same(
    { jsonrpc, source, reason: actual, code: error?.code, message: typeof error?.message },
    { jsonrpc: '2.0', source: 'mcp-sidecar', reason, code: rpcCode(reason), message: 'string' },
    `a JSON-RPC error ${reason} of the sidecar`,
  )
  if (id === undefined) t.notOk('id' in Object(message ?? {}), 'no id')
  else t.strictSame((message as { id?: unknown } | undefined)?.id, id, 'the id of the request')
}
