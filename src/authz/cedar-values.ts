/** JSON values of tokens and arguments as Cedar values. */
import type { Json } from './cedar-ast.ts'

/** A value that Cedar cannot hold exactly. A decision that depends on it is a deny: leaving it out could permit. */
export class Unreadable {
  readonly why: string

  constructor(why: string) {
    this.why = why
  }
}

/** Longest string that is handed to policies, in UTF-8 bytes where it comes from a message, else in characters. */
export const maxText = 65_536
/** How deep sets and records may nest. */
export const maxNesting = 10

/** Cedar's `decimal` is a 64-bit integer with four digits behind the point. */
const maxDecimal = 922_337_203_685_477

/** What Cedar's JSON form takes for something else than a record. */
const escapes = ['__entity', '__extn', '__expr']

/**
 * A number: a Long if it is an integer of at most 2^53, else a `decimal` of at most four fractional digits.
 *
 * @param decimals integers become `decimal`, too, as ToolHive has them
 */
export function cedarNumber(value: number, decimals: boolean): Json | Unreadable {
  if (Number.isSafeInteger(value) && !decimals) return value
  if (Math.abs(value) > maxDecimal) return new Unreadable('a number too large for Cedar')
  const text = Number.isInteger(value) ? `${value}.0` : String(value)
  if (!/^-?\d+\.\d{1,4}$/.test(text)) return new Unreadable('a number with more than four fractional digits')
  return { __extn: { fn: 'decimal', arg: text } }
}

/** No number that Cedar can hold needs more. Characters. */
const maxNumberText = 64

/** The same of JSON text: refused where readers of the text may come to different numbers. */
export function cedarNumberText(text: string, decimals: boolean): Json | Unreadable {
  // Before anything looks through it: an argument may be megabytes of digits.
  if (text.length > maxNumberText) return new Unreadable('a number of too many digits')
  const digits = significant(text)
  const value = Number(text)
  // Up to 15 significant digits survive the way to a double and back, unless so little is left that it is none.
  if ((digits > 15 && !/^-?\d{1,16}$/.test(text)) || (value === 0 && digits > 0))
    return new Unreadable('a number of too many digits')
  return cedarNumber(value, decimals)
}

function significant(text: string): number {
  const mantissa = text.replace(/[eE].*$/, '').replace(/[-.]/g, '')
  return mantissa.replace(/^0+|0+$/g, '').length
}

/** Without lone surrogates, which the engine does not take. */
export function isWellFormed(text: string): boolean {
  return !/\p{Surrogate}/u.test(text)
}

export function cedarText(text: string): Json | Unreadable {
  if (text.length > maxText) return new Unreadable(`a string of more than ${maxText} characters`)
  return isWellFormed(text) ? text : new Unreadable('a string that is no well-formed Unicode')
}

/**
 * Any JSON value: arrays become sets and objects records. `null` is absent, as in ToolHive.
 *
 * @param decimals see {@link cedarNumber}
 */
export function cedarValue(value: unknown, decimals: boolean, depth = 0): Json | Unreadable | undefined {
  switch (typeof value) {
    case 'boolean':
      return value
    case 'string':
      return cedarText(value)
    case 'number':
      return cedarNumber(value, decimals)
    case 'object':
      break
    default:
      return undefined
  }
  if (value === null) return undefined
  if (depth >= maxNesting) return new Unreadable(`a value nested deeper than ${maxNesting}`)
  if (Array.isArray(value)) {
    const items: Json[] = []
    for (const each of value) {
      const item = cedarValue(each, decimals, depth + 1)
      if (item instanceof Unreadable) return item
      if (item !== undefined) items.push(item)
    }
    return items
  }
  const members: [string, Json][] = []
  for (const [name, each] of Object.entries(value)) {
    // A token could otherwise write an entity, or an address, where it may only write a record.
    if (escapes.includes(name)) return new Unreadable(`an object with a member ${name}`)
    if (!isWellFormed(name)) return new Unreadable('a name that is no well-formed Unicode')
    const member = cedarValue(each, decimals, depth + 1)
    if (member instanceof Unreadable) return member
    if (member !== undefined) members.push([name, member])
  }
  return Object.fromEntries(members)
}
