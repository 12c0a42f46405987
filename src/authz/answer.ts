/** What the stages before the client agree on about answers that are changed on their way. */
import { rpcErrorText, SidecarError } from '../core/errors.ts'
import { folded, type Member, members } from '../core/json.ts'
import { type Message, readMessages } from '../core/jsonrpc.ts'
import { messageOf } from '../core/local.ts'
import { type Edit, wireBuffers } from '../core/wire.ts'

export { folded }

/** The message as it would be written, read anew, so that spans tell where things stand after its edits. */
export function settled(message: Message): Message {
  if (message.edits.length === 0) return message
  return readMessages(Buffer.concat(wireBuffers(message.wire))).messages[0] as Message
}

/** `cacheScope` as "private", where it is there and says anything else (2026-07-28, server/utilities/caching). */
export function privateScope(message: Message, parts: readonly Member[]): Edit[] {
  return parts
    .filter(({ key, value }) => key === 'cacheScope' && message.text(value) !== '"private"')
    .map(({ value }) => ({ ...value, text: '"private"' }))
}

/** The same result, not to be shared between callers. */
export function privately(answer: Message): Message {
  const { result, resultSpans } = answer
  // Read when it arrived, and without it: nothing to look for in what may be megabytes.
  if (result === undefined || (resultSpans !== undefined && resultSpans.cacheScope === undefined))
    return answer
  const message = settled(answer)
  if (message.result === undefined) return message
  return message.edited(...privateScope(message, members(message.bytes, message.result)))
}

/** In place of an answer that cannot be judged: the client gets nothing of it. */
export function withheld(answer: Message, requestId: string): Message {
  return messageOf(rpcErrorText(new SidecarError('ERR_UPSTREAM_MESSAGE'), answer.idText, requestId))
}
