/** What a client calls itself. Nothing is decided by it (basic/index: neither behaviour nor security). */
import { member } from './json.ts'
import type { Message } from './jsonrpc.ts'

/** Longer introductions are not read. Bytes. */
const maxClientInfo = 4096

/** The `clientInfo` of this message, as JSON text: of a modern request, or of an initialize. */
export function clientInfoOf({ metaSpans, method, bytes, params }: Message): string | undefined {
  const span =
    metaSpans?.clientInfo ?? (method === 'initialize' ? member(bytes, params, 'clientInfo') : undefined)
  if (span === undefined || span.end - span.start > maxClientInfo) return undefined
  return bytes.toString('utf8', span.start, span.end)
}
