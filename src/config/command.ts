import { bad, type Fault, good, kindOf, type Parsed } from './parsed.ts'
import type { ValueType } from './values.ts'

const JSON_FORM = 'the JSON form ["node","server.js"]'

function parse(input: unknown): Parsed<readonly string[]> {
  if (typeof input === 'string')
    return bad('must be a list of words: write [node, server.js], each argument an item')
  if (!Array.isArray(input)) return bad(`must be a list of words, not ${kindOf(input)}`)
  if (input.length === 0) return bad('is empty: it needs at least a program, as in [node, server.js]')
  const faults: Fault[] = []
  for (const [index, word] of input.entries()) {
    // The words are not repeated: an argument may be a credential.
    if (typeof word !== 'string')
      faults.push({ path: [index], message: `each word must be text: put quotes around ${kindOf(word)}` })
    else if (word.includes('\0')) faults.push({ path: [index], message: 'must not contain a NUL character' })
    else if (index === 0 && word.trim() === '')
      faults.push({ path: [index], message: 'the program is empty' })
  }
  return faults.length > 0 ? { ok: false, faults } : good(input as readonly string[])
}

/**
 * A program and its arguments. In a variable it is a JSON array, or words between blanks. There is no quoting: what a
 * shell would have made of quotes and backslashes is not guessed at, the JSON form says it exactly.
 */
export const command: ValueType<readonly string[]> = {
  name: 'list of words',
  json: { type: 'array', items: { type: 'string' }, minItems: 1 },
  parse,
  parseText(input) {
    const line = input.trim()
    if (line.startsWith('[')) {
      try {
        return parse(JSON.parse(line))
      } catch {
        return bad(`starts with [ and is not valid JSON: write ${JSON_FORM}`)
      }
    }
    if (/['"\\]/.test(line))
      return bad(`has quotes or backslashes, which are not interpreted: use ${JSON_FORM}`)
    return parse(line === '' ? [] : line.split(/\s+/))
  },
  show: (words) =>
    words.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : JSON.stringify(word))).join(' '),
}
