import { members, removal } from '../core/json.ts'
import type { Message } from '../core/jsonrpc.ts'
import { isInteractive, mayAsk } from '../core/mcp.ts'
import { metaPrefix } from '../core/message.ts'
import type { Edit } from '../core/wire.ts'

const envelope = new Set(
  ['protocolVersion', 'clientInfo', 'clientCapabilities', 'logLevel'].map((name) => metaPrefix + name),
)
const modernParams = new Set(['inputResponses', 'requestState', 'task'])

/**
 * A modern client's request as a legacy server takes it: without the envelope and what belongs to a round. Trace
 * context, the progress token and whatever else is in `_meta` stay.
 */
export function asLegacyRequest(message: Message): Message {
  const { bytes, params, paramSpans } = message
  if (params === undefined) return message
  const edits: Edit[] = []
  if (paramSpans._meta !== undefined && message.metaSpans !== undefined) {
    edits.push(...removal(members(bytes, paramSpans._meta), ({ key }) => envelope.has(key)))
  }
  // Of methods that are not known here they may be the method's own.
  if (
    isKnown(message.method) &&
    (paramSpans.inputResponses !== undefined ||
      paramSpans.requestState !== undefined ||
      paramSpans.task !== undefined)
  ) {
    edits.push(...removal(members(bytes, params), ({ key }) => modernParams.has(key)))
  }
  if (edits.length > 1) edits.sort((a, b) => a.start - b.start)
  return message.edited(...edits)
}

function isKnown(method: string): boolean {
  return isInteractive(method) || !mayAsk(method)
}
