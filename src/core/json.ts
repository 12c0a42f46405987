/** Looks into JSON values where they stand, and changes them without building them anew. */
import { Scanner, type Span } from './scan.ts'
import { type Edit, textAsBinary } from './wire.ts'

/** A member of an object: from its key to the end of its value. */
export interface Member extends Span {
  readonly key: string
  readonly value: Span
}

/** The members of the object at `span`, which has been scanned before; none if it is no object. */
export function members(bytes: Buffer, span: Span): Member[] {
  if (bytes[span.start] !== 0x7b) return []
  const found: Member[] = []
  const scanner = new Scanner(bytes, span.start, span.end)
  scanner.object((key) => {
    const start = scanner.keyStart
    const value = scanner.span()
    found.push({ key, start, end: value.end, value })
  })
  return found
}

/** The elements of the array at `span`, which has been scanned before; none if it is no array. */
export function elements(bytes: Buffer, span: Span): Span[] {
  if (bytes[span.start] !== 0x5b) return []
  const found: Span[] = []
  const scanner = new Scanner(bytes, span.start, span.end)
  scanner.array(() => {
    found.push(scanner.span())
  })
  return found
}

/** The value of one member of the object at `span`; the last, as JSON.parse has it, if it stands twice. */
export function member(bytes: Buffer, span: Span | undefined, key: string): Span | undefined {
  if (span === undefined) return undefined
  return members(bytes, span).findLast((each) => each.key === key)?.value
}

/**
 * Takes members out of an object, or elements out of an array, with the commas that then have nothing to separate.
 *
 * @param parts all of them, in order
 * @param goes which of them are taken out
 */
export function removal<T extends Span>(parts: readonly T[], goes: (part: T) => boolean): Edit[] {
  const edits: Edit[] = []
  let at = 0
  while (at < parts.length) {
    if (!goes(parts[at] as T)) {
      at++
      continue
    }
    const first = at
    while (at < parts.length && goes(parts[at] as T)) at++
    const before = parts[first - 1]
    const after = parts[at]
    // A run goes with the comma behind it, the last one with the comma before it.
    const start = after === undefined && before !== undefined ? before.end : (parts[first] as T).start
    const end = after === undefined ? (parts[at - 1] as T).end : after.start
    edits.push({ start, end, text: '' })
  }
  return edits
}

/** A name as parsers read it that ignore letter case (Go's encoding/json) or end names at the first NUL. */
export function folded(key: string): string {
  const nul = key.indexOf('\0')
  return (nul < 0 ? key : key.slice(0, nul)).toUpperCase().toLowerCase()
}

/**
 * Puts members in front of those of an object.
 *
 * @param text members as JSON text, separated by commas, with none at the end
 */
export function insertion(bytes: Buffer, object: Span, text: string): Edit {
  const at = object.start + 1
  let next = at
  while (bytes[next] === 0x20 || bytes[next] === 0x09 || bytes[next] === 0x0a || bytes[next] === 0x0d) next++
  const comma = bytes[next] === 0x7d ? '' : ','
  return { start: at, end: at, text: textAsBinary(text) + comma }
}

/** The value at `span` as text that is the same for equal values: members sorted, no white space, one spelling. */
export function canonical(bytes: Buffer, span: Span, leaveOut?: (key: string) => boolean): string {
  return canonicalValue(new Scanner(bytes, span.start, span.end), leaveOut)
}

// One pass, whatever the depth. Texts are added, not joined: a join would copy what is below at every level.
function canonicalValue(scanner: Scanner, leaveOut?: (key: string) => boolean): string {
  const first = scanner.peek()
  if (first === 0x7b) {
    const parts: { readonly key: string; readonly text: string }[] = []
    scanner.object((key) => {
      if (leaveOut?.(key) === true) scanner.skip()
      else parts.push({ key, text: canonicalValue(scanner) })
    })
    parts.sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0))
    let text = '{'
    for (const part of parts) text += `${text === '{' ? '' : ','}${JSON.stringify(part.key)}:${part.text}`
    return `${text}}`
  }
  if (first === 0x5b) {
    let text = '['
    scanner.array(() => {
      text += (text === '[' ? '' : ',') + canonicalValue(scanner)
    })
    return `${text}]`
  }
  const { start, end } = scanner.span()
  const text = scanner.bytes.toString('utf8', start, end)
  if (first === 0x22) return JSON.stringify(JSON.parse(text))
  const number = Number(text)
  // What JavaScript cannot hold exactly stays as it was spelled.
  return Number.isSafeInteger(number) ? String(number) : text
}
