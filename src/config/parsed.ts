/** Where inside one value something is wrong: list positions and member names. */
export type Path = readonly (string | number)[]

export interface Fault {
  readonly path: Path
  /** What is wrong and what would be right. Never holds a value that may be a secret. */
  readonly message: string
  /** The last name of the path is what is wrong, not its value. */
  readonly key?: true
}

export type Parsed<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly faults: readonly Fault[] }

export function good<T>(value: T): Parsed<T> {
  return { ok: true, value }
}

export function bad(message: string, path: Path = []): Parsed<never> {
  return { ok: false, faults: [{ path, message }] }
}

/**
 * A value as it may stand in an error message. Anything long, with an `@` (credentials in an address) or with an `=`
 * (a variable given as NAME=value) is not repeated: people paste secrets where they do not belong.
 */
export function quote(input: unknown): string {
  if (typeof input === 'string')
    return input.length > 48 || /[@=\p{Cc}]/u.test(input) ? 'this text' : JSON.stringify(input)
  if (typeof input === 'number' || typeof input === 'boolean') return String(input)
  return kindOf(input)
}

/** What kind of value it is, in the words of someone who writes YAML, without the value itself. */
export function kindOf(input: unknown): string {
  if (input === null || input === undefined) return 'nothing'
  if (Array.isArray(input)) return 'a list'
  if (typeof input === 'object') return 'a section'
  if (typeof input === 'number') return 'a number'
  return typeof input === 'boolean' ? 'true or false' : 'text'
}
