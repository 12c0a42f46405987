/**
 * JSON text in printable ASCII alone: whatever a peer chose to call itself, a line of it has one byte for each character
 * and neither ends early, nor moves a cursor, nor reads from right to left.
 */
import { fingerprint } from '../core/secret.ts'

const plain = /^[ !#-[\]-~]*$/

/** A text as a JSON string. */
export function quoted(text: string): string {
  if (plain.test(text)) return `"${text}"`
  return JSON.stringify(text).replace(/[\u007f-\uffff]/g, escaped)
}

/** @param max characters (UTF-16 units); a longer text is cut there, and the SHA-256 of the whole tells it from others */
export function quotedUpTo(text: string, max: number): string {
  return quoted(bounded(text, max))
}

export function bounded(text: string, max: number): string {
  return text.length <= max ? text : `${text.slice(0, max)}\u2026sha256:${fingerprint(text)}`
}

/**
 * A text as a JSON string of at most `max` bytes between its quotes, escapes and mark of the cut included: of what
 * strangers send, one character may otherwise take six or twelve.
 */
export function quotedWithin(text: string, max: number): string {
  if (text.length <= max) {
    const whole = quoted(text)
    if (whole.length <= max + 2) return whole
  }
  const mark = quoted(`\u2026sha256:${fingerprint(text)}`).slice(1, -1)
  let kept = ''
  for (const character of text) {
    const shown = quoted(character).slice(1, -1)
    if (kept.length + shown.length + mark.length > max) break
    kept += shown
  }
  return `"${kept}${mark}"`
}

/** An array of strings; of more than `maxItems` the last says how many there are in all. */
export function quotedList(texts: readonly string[], maxItems: number, maxLength: number): string {
  const shown = texts.length <= maxItems ? texts : texts.slice(0, maxItems)
  let list = '['
  for (const text of shown) list += `${list.length === 1 ? '' : ','}${quotedUpTo(text, maxLength)}`
  if (shown !== texts) list += `,"\\u2026 ${texts.length} in all"`
  return `${list}]`
}

function escaped(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
}
