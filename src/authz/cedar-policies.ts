/** Cedar policies as they stand in files: each by itself, with an id and a place. */
import type { Engine, EngineError, PolicyJson, Problem } from './cedar-ast.ts'
import { isWellFormed } from './cedar-values.ts'

export interface Policy {
  /** `@id(...)`, else `<file>#<n>`, counted from 1. Unique. */
  readonly id: string
  readonly text: string
  readonly json: PolicyJson
  /** `file:line:column` of a place in it, given in UTF-8 bytes from its beginning. */
  place(byte: number): string
  /** `file:line:column` of the first match outside of comments; of the policy without one. */
  find(pattern: RegExp): string
}

const maxIdLength = 200

/**
 * Splits texts into policies and reads them.
 *
 * @param problems where every mistake is added: syntax errors, templates, ids that stand twice
 */
export function readPolicies(
  engine: Engine,
  files: readonly { readonly name: string; readonly text: string }[],
  problems: Problem[],
): readonly Policy[] {
  const policies: Policy[] = []
  const places = new Map<string, string>()
  for (const { name, text } of files) {
    const parts = split(text)
    const deep = parts.filter((part) => isTooDeep(part.text))
    if (deep.length > 0) {
      for (const part of deep)
        problems.push({
          where: placeOf(name, text, part.start + charsOf(part.text, bytesBefore(part))),
          message: `the policy nests, or chains with && and ||, more than ${maxDepth} times: cut it into several`,
        })
      continue
    }
    const whole = engine.policySetTextToParts(text)
    if (whole.type === 'success' && whole.policies.length + whole.policy_templates.length !== parts.length) {
      problems.push({ where: name, message: 'the policies cannot be told apart' })
      continue
    }
    const known = problems.length
    for (const [i, part] of parts.entries()) {
      const place = (byte: number): string => placeOf(name, text, part.start + charsOf(part.text, byte))
      const begin = place(bytesBefore(part))
      const read = engine.policyToJson(part.text)
      if (read.type === 'failure') {
        for (const error of read.errors) addSyntax(error, place, problems)
        continue
      }
      const given = read.json.annotations?.['id']
      const id = given ?? `${name}#${i + 1}`
      const earlier = places.get(id)
      if (given === '' || id.length > maxIdLength || !isWellFormed(id))
        problems.push({ where: begin, message: `an @id has 1 to ${maxIdLength} characters` })
      else if (earlier !== undefined)
        problems.push({ where: begin, message: `the id ${JSON.stringify(id)} stands at ${earlier} already` })
      else {
        places.set(id, begin)
        const find = (pattern: RegExp): string => {
          const at = withoutComments(part.text).search(pattern)
          return at < 0 ? begin : placeOf(name, text, part.start + at)
        }
        policies.push({ id, text: part.text, json: read.json, place, find })
      }
    }
    if (whole.type === 'failure' && problems.length === known) {
      const place = (byte: number): string => placeOf(name, text, charsOf(text, byte))
      for (const error of whole.errors) addSyntax(error, place, problems)
    }
  }
  return policies
}

interface Part {
  /** Characters from the beginning of the file. */
  readonly start: number
  readonly text: string
}

/** What a semicolon ends is a policy; none stands inside of one but in strings and comments. */
const token = /"(?:\\[\s\S]|[^"\\])*"?|\/\/[^\r\n]*|;/g
const comment = /"(?:\\[\s\S]|[^"\\])*"?|\/\/[^\r\n]*/g

function split(text: string): readonly Part[] {
  const parts: Part[] = []
  let start = 0
  for (const { 0: found, index } of text.matchAll(token)) {
    if (found !== ';') continue
    parts.push({ start, text: text.slice(start, index + 1) })
    start = index + 1
  }
  const rest = text.slice(start)
  // A policy without its semicolon, which the parser then complains of.
  if (withoutComments(rest).trim() !== '') parts.push({ start, text: rest })
  return parts
}

/** The text with blanks for its comments. */
function withoutComments(text: string): string {
  return text.replace(comment, (found) => (found.startsWith('"') ? found : ' '.repeat(found.length)))
}

/** Its JSON form ends at 128 levels, about two for each of these; what is much deeper breaks the engine for good. */
const maxDepth = 50

const shape = /"(?:\\[\s\S]|[^"\\])*"?|\/\/[^\r\n]*|&&|\|\||[-+*!,]|[([{]|[)\]}]|[\w.:]+/g

/** Whether brackets and signs nest, or operators follow each other, which nests to the left, too often for the engine. */
function isTooDeep(text: string): boolean {
  const levels = [{ own: 0, operators: 0 }]
  let depth = 0
  let signs = 0
  for (const [found] of text.matchAll(shape)) {
    const level = levels.at(-1) as { own: number; operators: number }
    if (found.startsWith('//')) continue
    if (found === '!' || found === '-') signs++
    else {
      if (/^[([{]$/.test(found)) {
        levels.push({ own: signs + 1, operators: 0 })
        depth += signs + 1
      } else if (/^[)\]}]$/.test(found) && levels.length > 1) {
        levels.pop()
        depth -= level.own + level.operators
      } else if (found === ',') {
        depth -= level.operators
        level.operators = 0
      } else if (/^(?:&&|\|\||[+*]|else)$/.test(found)) {
        depth++
        level.operators++
      }
      signs = 0
    }
    if (depth + signs > maxDepth) return true
  }
  return false
}

/** Bytes of white space and comments in front of a policy. */
function bytesBefore({ text }: Part): number {
  const blank = withoutComments(text)
  return Buffer.byteLength(text.slice(0, blank.length - blank.trimStart().length))
}

/** How many characters so many UTF-8 bytes are. */
function charsOf(text: string, bytes: number): number {
  return Buffer.from(text).toString('utf8', 0, bytes).length
}

function placeOf(name: string, text: string, at: number): string {
  const before = text.slice(0, at).split(/\r\n|\r|\n/)
  return `${name}:${before.length}:${[...(before.at(-1) as string)].length + 1}`
}

/** The error and those that belong to it, which lie beside it rather than below it. */
function addSyntax(error: EngineError, place: (byte: number) => string, problems: Problem[]): void {
  problems.push({ where: place(error.sourceLocations?.[0]?.start ?? 0), message: sentence(error) })
  for (const each of error.related ?? []) addSyntax(each, place, problems)
}

/** What the engine says, for people. */
export function sentence({ message, help }: EngineError): string {
  const text = message.replace('failed to parse policy from string: ', '')
  const plain = text.includes('got a template') ? `${text}; templates are not supported here` : text
  return help === undefined || help === null ? plain : `${plain} (${help})`
}
