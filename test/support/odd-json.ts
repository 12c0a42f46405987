/** Members of objects that nothing but a relay byte by byte leaves as they are, for property tests. */
import fc from 'fast-check'
import { metaNames, metaPrefix, paramNames, resultNames } from '../../src/core/message.ts'
import { escapedSpelling, jsonText, type Member, stringText } from './property.ts'

const known = new Set(
  [
    ...['jsonrpc', 'id', 'method', 'params', 'result', 'error', 'progressToken', 'execution', 'tools'],
    ...['code', 'data', 'url', 'uri', 'elicitationId', `${metaPrefix}serverInfo`],
    ...[...paramNames, ...resultNames, ...metaNames.map((name) => metaPrefix + name)],
  ].map((name) => name.toLowerCase()),
)

const oddKey = fc.constantFrom(
  ...['"__proto__"', '"constructor"', '"\\u005f_proto__"', '"toString"', '""', '"é"', '"\\ud83d"', '"😀"'],
  ...['"com.example/trace"', '"traceparent"', '"a\\"b"', '"a\\\\"', '"\\/"', '" "', '"0"', '"1e2"'],
)
const oddValue = fc.constantFrom(
  ...['9007199254740993', '-9007199254740993', '1.0', '1e2', '1E400', '-0', '0.10', '"\\ud800"', '"\u2028"'],
  ...['{"__proto__":{"a":1.0}}', '[1.0,1e2,{"b" : 1}]', '"\\u0061"', 'null', '{}', '[ ]', '"]},{"'],
)

/** Without line breaks, which a message on a line has not. */
export const valueText = fc.oneof(jsonText, oddValue).map((text) => text.replace(/[\r\n]/g, ' ').trim())

/** A member that the sidecar knows nothing of. */
export const oddMember: fc.Arbitrary<Member> = fc.record({
  key: fc
    .oneof(stringText, oddKey)
    .filter((key) => !known.has((JSON.parse(key) as string).toUpperCase().toLowerCase())),
  value: valueText,
})
export const oddMembers = fc.array(oddMember, { maxLength: 4 })

const spelling = fc.array(fc.boolean(), { minLength: 1, maxLength: 6 })

/** A key in any spelling. */
export const spelled = (name: string): fc.Arbitrary<string> =>
  spelling.map((which) => escapedSpelling(name, which))

/** This member, spelled somehow, or none. */
export function perhaps(name: string, value: fc.Arbitrary<string>): fc.Arbitrary<Member[]> {
  return fc.array(fc.record({ key: spelled(name), value }), { maxLength: 1 })
}

/** All of them in any order. */
export function shuffled(...groups: fc.Arbitrary<Member[]>[]): fc.Arbitrary<Member[]> {
  return fc
    .tuple(...groups)
    .map((found) => found.flat())
    .chain((all) => fc.shuffledSubarray(all, { minLength: all.length }))
}

export const nameOf = ({ key }: Member): string => JSON.parse(key) as string

/** As `membersAt` shows it. */
export const shownMember = ({ key, value }: Member): string => `${key}:${value}`
