/** JSON-RPC messages in every spelling, for property tests. */
import fc from 'fast-check'
import { escapedSpelling, idText, jsonText, type Member, objectText, stringText } from './property.ts'

export const topNames = ['jsonrpc', 'id', 'method', 'params', 'result', 'error'] as const
export const paramNames = [
  'name',
  'uri',
  'requestId',
  'progressToken',
  'protocolVersion',
  'level',
  'elicitationId',
  'taskId',
  '_meta',
] as const

const known = new Set([...topNames, ...paramNames].map((name) => name.toLowerCase()))

/** A member that the sidecar knows nothing of. */
const unknownMember: fc.Arbitrary<Member> = fc.record({
  key: stringText.filter((key) => !known.has((JSON.parse(key) as string).toUpperCase().toLowerCase())),
  value: jsonText,
})

const spelling = fc.array(fc.boolean(), { minLength: 1, maxLength: 6 })

/** A member with a known name, some of its letters perhaps escaped. */
export function memberOf(name: string, value: fc.Arbitrary<string>): fc.Arbitrary<Member> {
  return fc.record({ key: spelling.map((which) => escapedSpelling(name, which)), value })
}

/** These members and some unknown ones, in any order. */
export function objectOf(...members: fc.Arbitrary<Member>[]): fc.Arbitrary<string> {
  return fc
    .tuple(fc.tuple(...members), fc.array(unknownMember, { maxLength: 2 }))
    .chain(([own, others]) =>
      fc.shuffledSubarray([...own, ...others], { minLength: own.length + others.length }),
    )
    .chain(objectText)
}

const metaText = fc.oneof(
  objectOf(),
  idText.chain((token) => objectOf(memberOf('progressToken', fc.constant(token)))),
  objectOf(memberOf('progressToken', fc.constant('null'))),
  fc.constantFrom('null', '[]', '1'),
)

/** Params with some of the members that the sidecar asks for. */
export const paramsText: fc.Arbitrary<string> = fc
  .subarray([...paramNames])
  .chain((names) => objectOf(...names.map((name) => memberOf(name, name === '_meta' ? metaText : jsonText))))

const version = memberOf('jsonrpc', fc.constant('"2.0"'))
const method = memberOf('method', stringText)
const id = memberOf('id', idText)
const params = memberOf('params', paramsText)

export const requestText: fc.Arbitrary<string> = fc.oneof(
  objectOf(version, id, method),
  objectOf(version, id, method, params),
)
export const notificationText: fc.Arbitrary<string> = fc.oneof(
  objectOf(version, method),
  objectOf(version, method, params),
)
export const responseText: fc.Arbitrary<string> = fc.oneof(
  objectOf(version, id, memberOf('result', jsonText)),
  objectOf(version, id, memberOf('error', jsonText)),
  objectOf(version, memberOf('error', jsonText)),
  objectOf(version, memberOf('id', fc.constant('null')), memberOf('error', jsonText)),
)
/** Any valid message. */
export const messageText: fc.Arbitrary<string> = fc.oneof(requestText, notificationText, responseText)

/** Letters that parsers ignoring letter case take for the same: by Unicode's simple folding ſ is s and the Kelvin sign k. */
const variants: Readonly<Record<string, readonly string[]>> = {
  s: ['s', 'S', '\u017f'],
  k: ['k', 'K', '\u212a'],
}

/** Another spelling of a name for those who ignore letter case. */
export function lookalike(name: string): fc.Arbitrary<string> {
  const letters = [...name].map((c) => {
    const lower = c.toLowerCase()
    return fc.constantFrom(...(variants[lower] ?? new Set([lower, c.toUpperCase()])))
  })
  return fc
    .tuple(...letters)
    .map((chosen) => chosen.join(''))
    .filter((text) => text !== name)
}
