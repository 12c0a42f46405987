/** One message as it leaves: the bytes it arrived in, with a few spans replaced. */
import type { Span } from './scan.ts'

/**
 * Small messages are "binary" strings, one character for each byte of their UTF-8 text: Node joins such strings for
 * nothing and writes them with the HTTP header in one piece. Large ones are pieces of the buffer they arrived in,
 * written one after the other without a copy. No line breaks inside either.
 */
export type Wire = string | readonly Buffer[]

/** One replacement inside a message. */
export interface Edit extends Span {
  /** Binary, as {@link binary} gives it. */
  readonly text: string
}

/** Up to this size a copy is cheaper than several writes. */
const copyLimit = 64 * 1024

/** A span of a buffer as a binary string. */
export function binary(bytes: Buffer, start = 0, end = bytes.length): string {
  return bytes.toString('latin1', start, end)
}

/**
 * @param bytes the message
 * @param edits in order and not overlapping
 */
export function wireOf(bytes: Buffer, ...edits: readonly Edit[]): Wire {
  if (bytes.length <= copyLimit) {
    let text = ''
    let at = 0
    for (const edit of edits) {
      text += binary(bytes, at, edit.start) + edit.text
      at = edit.end
    }
    return text + binary(bytes, at)
  }
  const pieces: Buffer[] = []
  let at = 0
  for (const { start, end, text } of edits) {
    pieces.push(bytes.subarray(at, start), Buffer.from(text, 'latin1'))
    at = end
  }
  pieces.push(bytes.subarray(at))
  return pieces
}

/** A text of our own. */
export function wireOfText(text: string): Wire {
  return textAsBinary(text)
}

/** A text as a binary string, as edits need it. */
export function textAsBinary(text: string): string {
  // Most are ASCII, and as such what they are.
  return /^[\0-\x7f]*$/.test(text) ? text : binary(Buffer.from(text))
}

export function wireLength(wire: Wire): number {
  if (typeof wire === 'string') return wire.length
  let total = 0
  for (const piece of wire) total += piece.length
  return total
}

export function wireBuffers(wire: Wire): readonly Buffer[] {
  return typeof wire === 'string' ? [Buffer.from(wire, 'latin1')] : wire
}
