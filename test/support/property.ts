/** Property tests inside tap, and the JSON texts they are fed with. */
import fc from 'fast-check'

/** Checks a property for many values; a failure shows the smallest counterexample and the seed to repeat it. */
export function holds<Ts extends [unknown, ...unknown[]]>(
  t: { pass(text: string): unknown },
  property: fc.IProperty<Ts>,
  numRuns = 200,
): void {
  fc.assert(property, { numRuns })
  t.pass(`holds for ${numRuns} values`)
}

/** A text as it may stand in the name of a test: U+2028 would end a line of TAP. */
export function shown(text: string): string {
  return JSON.stringify(text).replace(/[^ -~]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

const blank = fc.constantFrom('', '', '', ' ', '\n', '\t', '\r\n', '\r', ' \n\t ')

const oddNumbers = fc.constantFrom(
  ...['-0', '0', '0.0', '-0.0e-0', '1E+2', '1e-7', '1.50', '1e400', '-1e400', '9007199254740993'],
  ...['123456789012345678901234567890', '0.1000000000000000055511151231257827'],
)
const numberText = fc.oneof(
  fc.integer().map(String),
  fc.bigInt().map(String),
  fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => JSON.stringify(value)),
  oddNumbers,
)

const hex = fc.constantFrom(...'0123456789abcdefABCDEF')
const stringPart = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 6 }).map((text) => JSON.stringify(text).slice(1, -1)),
  fc.string({ unit: 'grapheme', maxLength: 4 }).map((text) => JSON.stringify(text).slice(1, -1)),
  fc.constantFrom('\\"', '\\\\', '\\/', '\\b', '\\f', '\\n', '\\r', '\\t', '\\u0000', '\u2028', '\u2029'),
  fc.constantFrom(
    '\\ud83d\\ude00',
    '\\ud83d',
    '\\ude00',
    '\u{1f600}',
    '\uffff',
    '\u007f',
    '\u0085',
    '\ufeff',
  ),
  fc.array(hex, { minLength: 4, maxLength: 4 }).map((digits) => `\\u${digits.join('')}`),
)
/** A JSON string in any spelling. */
export const stringText = fc.array(stringPart, { maxLength: 5 }).map((parts) => `"${parts.join('')}"`)

/** A number or a string, as ids and progress tokens are. */
export const idText = fc.oneof(fc.integer().map(String), stringText)

const scalarText = fc.oneof(numberText, stringText, fc.constantFrom('true', 'false', 'null'))

/** Puts blanks before, between and after tokens. */
function spaced(...tokens: fc.Arbitrary<string>[]): fc.Arbitrary<string> {
  return fc.tuple(...tokens.flatMap((token) => [blank, token]), blank).map((parts) => parts.join(''))
}

export interface Member {
  /** As it is spelled, with its quotes. */
  readonly key: string
  readonly value: string
}

/** An object of these members, in this order, with random white space. */
export function objectText(members: readonly Member[]): fc.Arbitrary<string> {
  const tokens = members.flatMap(({ key, value }, i) => [...(i === 0 ? [] : [',']), key, ':', value])
  return spaced(...['{', ...tokens, '}'].map((token) => fc.constant(token)))
}

/** An array of these elements, with random white space. */
export function arrayText(elements: readonly string[]): fc.Arbitrary<string> {
  const tokens = elements.flatMap((element, i) => [...(i === 0 ? [] : [',']), element])
  return spaced(...['[', ...tokens, ']'].map((token) => fc.constant(token)))
}

/** Any JSON text: every spelling of numbers and strings, white space anywhere, keys that repeat. */
export const jsonText: fc.Arbitrary<string> = fc.letrec<{ value: string }>((tie) => {
  const member = fc.record({ key: stringText, value: tie('value') })
  return {
    value: fc.oneof(
      { depthSize: 'small', withCrossShrink: true },
      scalarText,
      fc.array(tie('value'), { maxLength: 4 }).chain(arrayText),
      fc.array(member, { maxLength: 4 }).chain(objectText),
    ),
  }
}).value

const change = fc.record({
  at: fc.nat(),
  kind: fc.constantFrom('replace', 'insert', 'remove', 'cut'),
  byte: fc.oneof(fc.constantFrom(...Buffer.from('"\\{}[],:0-1.eEu \n\r\tntf\0')), fc.nat(255)),
})

/** A text with a few bytes replaced, inserted, removed, or cut off. */
export function damaged(text: fc.Arbitrary<string>): fc.Arbitrary<Buffer> {
  return fc.tuple(text, fc.array(change, { minLength: 1, maxLength: 3 })).map(([whole, changes]) => {
    let bytes: number[] = [...Buffer.from(whole)]
    for (const { at, kind, byte } of changes) {
      const i = bytes.length === 0 ? 0 : at % bytes.length
      if (kind === 'replace') bytes[i] = byte
      else if (kind === 'insert') bytes.splice(i, 0, byte)
      else if (kind === 'remove') bytes.splice(i, 1)
      else bytes = bytes.slice(0, i)
    }
    return Buffer.from(bytes)
  })
}

/** A JSON string with some of its characters written as \u escapes. */
export function escapedSpelling(text: string, which: readonly boolean[]): string {
  const spelled = [...text].map((c, i) =>
    which[i % which.length] === true ? `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}` : c,
  )
  return `"${spelled.join('')}"`
}
