/** Changes to objects inside a message that leave every byte around them alone. */
import { type Member, members, removal } from '../core/json.ts'
import { type Message, readMessages, type Span } from '../core/jsonrpc.ts'
import { binary, type Edit, wireBuffers, wireOf } from '../core/wire.ts'

/**
 * Takes members out of the object at `object` and puts others in front of those that stay.
 *
 * @param goes which members are taken out
 * @param added members as JSON text, separated by commas; empty for none
 * @returns edits in order
 */
export function reshaped(
  bytes: Buffer,
  object: Span,
  goes: (member: Member) => boolean,
  added: readonly string[] = [],
): Edit[] {
  const parts = members(bytes, object)
  const text = binary(Buffer.from(added.join(',')))
  const at = object.start + 1
  if (parts.every(goes)) {
    // With nothing left there is nothing to separate.
    return parts.length === 0 && text === '' ? [] : [{ start: at, end: object.end - 1, text }]
  }
  const edits = removal(parts, goes)
  // In front: where both begin at the same byte, what is put in must precede what is taken out.
  return text === '' ? edits : [{ start: at, end: at, text: `${text},` }, ...edits]
}

/** A text with its edits made. @param edits in any order, not overlapping */
export function spliced(bytes: Buffer, edits: readonly Edit[]): Buffer {
  return Buffer.concat(wireBuffers(wireOf(bytes, ...edits.toSorted((a, b) => a.start - b.start))))
}

/** The message as it would be written, read anew, so that spans tell where things stand after its edits. */
export function settled(message: Message): Message {
  if (message.edits.length === 0) return message
  return readMessages(Buffer.concat(wireBuffers(message.wire))).messages[0] as Message
}

/** The key of a member as it is spelled, quotes included. */
export function keySpelling(bytes: Buffer, { start, value }: Member): string {
  // A string ends with a quote, and between it and the value stand a colon and white space only.
  return bytes.toString('utf8', start, bytes.lastIndexOf(0x22, value.start - 1) + 1)
}

export function isObjectAt(bytes: Buffer, span: Span | undefined): span is Span {
  return span !== undefined && bytes[span.start] === 0x7b
}
