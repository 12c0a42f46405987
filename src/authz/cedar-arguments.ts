/** The arguments of a call as attributes `arg_<name>`, read where they stand in the message. */
import { folded } from '../core/json.ts'
import type { Message } from '../core/jsonrpc.ts'
import { Scanner } from '../core/scan.ts'
import type { Json } from './cedar-ast.ts'
import { cedarNumberText, cedarText, isWellFormed, maxText, Unreadable } from './cedar-values.ts'

const prefix = 'arg_'
const presence = '_present'

/** Most arguments of a message that policies ask about. */
export const maxArguments = 256

/** Which arguments policies can see. */
export class AskedArguments {
  /** Attributes by the argument they are made of: for its value, and for its presence where the value is no scalar. */
  readonly #asked = new Map<string, { scalar: boolean; present: boolean }>()
  readonly #folded = new Set<string>()
  readonly #all: boolean

  /**
   * @param attributes names of attributes that are read; those that are no `arg_` do not count
   * @param all whether the others are seen, too
   */
  constructor(attributes: Iterable<string>, all: boolean) {
    this.#all = all
    for (const attribute of attributes) {
      if (!attribute.startsWith(prefix)) continue
      const name = attribute.slice(prefix.length)
      this.#ask(name).scalar = true
      if (name.endsWith(presence)) this.#ask(name.slice(0, -presence.length)).present = true
    }
  }

  #ask(name: string): { scalar: boolean; present: boolean } {
    const entry = this.#asked.get(name) ?? { scalar: false, present: false }
    this.#asked.set(name, entry)
    this.#folded.add(folded(name))
    return entry
  }

  /**
   * @param decimals numbers as ToolHive has them, all `decimal`
   * @param put is given each attribute that is asked for and there
   * @returns why the arguments cannot be judged: an argument that stands twice or in another letter case than the policy
   *   has it, or with a NUL behind it (readers differ in which they believe), more than {@link maxArguments} of them, a value that Cedar cannot
   *   hold. What no policy can see is no reason
   */
  read(
    message: Message | undefined,
    decimals: boolean,
    put: (attribute: string, value: Json) => void,
  ): string | undefined {
    if (message === undefined || (!this.#all && this.#asked.size === 0)) return undefined
    // Other methods have none that a server reads.
    if (message.method !== 'tools/call' && message.method !== 'prompts/get') return undefined
    const span = message.paramSpans.arguments
    if (span === undefined || message.bytes[span.start] === 0x6e) return undefined
    if (message.bytes[span.start] !== 0x7b) return 'params.arguments is no object'
    if (message.edits.some(({ start, end }) => start < span.end && end > span.start))
      return 'params.arguments was changed on the way here'
    const seen = new Set<string>()
    const objects = new Set<string>()
    let count = 0
    let problem: string | undefined
    const scanner = new Scanner(message.bytes, span.start, span.end)
    scanner.object((name) => {
      const asked = this.#asked.get(name)
      if (problem === undefined && ++count > maxArguments) problem = `more than ${maxArguments} arguments`
      if (problem !== undefined || (asked === undefined && !this.#all && !this.#folded.has(folded(name)))) {
        scanner.skip()
        return
      }
      if (asked === undefined && this.#folded.has(folded(name)))
        problem = `the argument ${shown(name)} is asked for in another letter case`
      const { start, end } = scanner.span()
      const first = message.bytes[start] as number
      const isScalar = first !== 0x7b && first !== 0x5b && first !== 0x6e
      const attribute = isScalar ? prefix + name : prefix + name + presence
      const fold = folded(name)
      // An object named x and a scalar named x_present are one attribute.
      if (seen.has(fold) || (!isScalar ? seen.has(fold + presence) : objects.has(fold)))
        problem ??= `the argument ${shown(name)} stands twice`
      seen.add(fold)
      if (!isScalar) objects.add(fold + presence)
      if (!this.#all && asked !== undefined && !(isScalar ? asked.scalar : asked.present)) return
      const value = valueAt(message.bytes, start, end, first, decimals)
      if (value instanceof Unreadable) problem ??= `the argument ${shown(name)} is ${value.why}`
      else if (!isWellFormed(attribute)) problem ??= 'the name of an argument is no well-formed Unicode'
      else put(attribute, value)
    })
    return problem
  }
}

function valueAt(
  bytes: Buffer,
  start: number,
  end: number,
  first: number,
  decimals: boolean,
): Json | Unreadable {
  switch (first) {
    case 0x22: {
      if (end - start > maxText + 2) return new Unreadable(`a string of more than ${maxText} bytes`)
      const inner = bytes.toString('utf8', start + 1, end - 1)
      return inner.includes('\\') ? cedarText(JSON.parse(`"${inner}"`) as string) : inner
    }
    case 0x66:
      return false
    // true, and the presence of what is no scalar.
    case 0x74:
    case 0x7b:
    case 0x5b:
    case 0x6e:
      return true
  }
  if (end - start > 64) return new Unreadable('a number of too many digits')
  return cedarNumberText(bytes.toString('latin1', start, end), decimals)
}

/** For the log: cut, since the client chose it. */
function shown(name: string): string {
  return JSON.stringify(name.slice(0, 64))
}
