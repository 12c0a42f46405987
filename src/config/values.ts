import { bad, type Fault, good, kindOf, type Parsed, type Path, quote } from './parsed.ts'
import { DURATION, formatQuantity, parseQuantity, quantityPattern, type Scale, SIZE } from './units.ts'

/** From the most to the least talkative; `silent` writes nothing. */
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const

/** Members of a JSON Schema (2020-12). */
export type JsonShape = Readonly<Record<string, unknown>>

/**
 * What a path leads to. `file`: a file that is read when the configuration is put to work, and watched. `unwatched`: one
 * that its reader reads anew by itself, or once for all. `folder`: one to enter. `output`: a file that may yet have to be
 * made. `place`: a folder that need not be there.
 */
export type PathUse = 'file' | 'unwatched' | 'folder' | 'output' | 'place'

/** Sees one path inside a value and says what stands there instead. */
export type VisitPath = (path: string, use: PathUse, at: Path) => string

/** One member of a value that has members, for the reference. */
export interface MemberDoc {
  /** Behind the name of the value: `.issuer`, `[].name`. */
  readonly suffix: string
  readonly type: string
  /** `required`, a default in backquotes, or what its absence means. */
  readonly fallback: string
  readonly doc: string
}

/** One part of a value as a person would write it. */
export interface Part {
  readonly path: Path
  readonly shown: string
}

/** One kind of value: how it is read from the file, from text, and how it is shown. */
export interface ValueType<T> {
  /** Its name in the reference. */
  readonly name: string
  /** The value as the file writes it. */
  readonly json: JsonShape
  /** From the value as the file gives it. */
  parse(input: unknown): Parsed<T>
  /** From the text of a variable or of a flag that is not repeated. */
  parseText(text: string): Parsed<T>
  /** As a person would write it; secrets left out. */
  show(value: T): string
  /** Of what holds paths: the same value with each path as `visit` gives it back. */
  mapPaths?(value: T, visit: VisitPath, at: Path): T
  /** Of what has members. */
  readonly members?: readonly MemberDoc[]
  /** Of what has members: those that are there, one by one. */
  parts?(value: T): readonly Part[]
}

/** A value whose text means the same everywhere. `check` sees text that is not empty and holds no NUL. */
export function text<T extends string>(
  name: string,
  json: JsonShape,
  check: (input: string) => Parsed<T>,
): ValueType<T> {
  const parse = (input: unknown): Parsed<T> => {
    if (input === null || input === '') return bad('is empty: give it a value or leave it out')
    if (typeof input !== 'string') return bad(`must be text, not ${kindOf(input)}`)
    if (input.includes('\0')) return bad('must not contain a NUL character')
    return check(input)
  }
  return { name, json: { type: 'string', minLength: 1, ...json }, parse, parseText: parse, show: String }
}

/** One of a few words. */
export function choice<const T extends string>(...values: readonly T[]): ValueType<T> {
  return {
    name: values.map((value) => `\`${value}\``).join(', '),
    json: { enum: values },
    parse: (input) => {
      const value = values.find((candidate) => candidate === input)
      return value === undefined ? bad(`${quote(input)} is not one of ${values.join(', ')}`) : good(value)
    },
    parseText(input) {
      return this.parse(input)
    },
    show: String,
  }
}

/** `true` or `false`, nothing that merely looks like it. */
export const flag: ValueType<boolean> = {
  name: 'true or false',
  json: { type: 'boolean' },
  parse: (input) => {
    if (typeof input === 'boolean') return good(input)
    if (input === 'true' || input === 'false') return bad(`is text: write ${input} without quotes`)
    return bad(`${quote(input)} is neither true nor false`)
  },
  parseText: (input) => flag.parse(input === 'true' ? true : input === 'false' ? false : input),
  show: String,
}

/** A whole number from `min` to `max`. */
export function integer(min: number, max: number): ValueType<number> {
  const parse = (input: unknown): Parsed<number> => {
    if (typeof input === 'string' && /^[0-9]{1,15}$/.test(input))
      return bad(`is text: write ${input} without quotes`)
    if (typeof input !== 'number' || !Number.isInteger(input))
      return bad(`${quote(input)} is not a whole number`)
    return input < min || input > max ? bad(`${input} is out of range: ${min} to ${max}`) : good(input)
  }
  return {
    name: `number, ${min} to ${max}`,
    json: { type: 'integer', minimum: min, maximum: max },
    parse,
    parseText: (input) => parse(/^[0-9]{1,15}$/.test(input) ? Number(input) : input),
    show: String,
  }
}

/** Text with a unit of the scale. The bounds are written the same way and are part of the range. */
export function quantity(scale: Scale, min: string, max: string): ValueType<number> {
  const bound = (written: string): number => {
    const parsed = parseQuantity(scale, written)
    if (!parsed.ok) throw new TypeError(`${written} is not a ${scale.noun}`)
    return parsed.value
  }
  const [low, high] = [bound(min), bound(max)]
  const parse = (input: unknown): Parsed<number> => {
    const parsed = parseQuantity(scale, input)
    if (!parsed.ok || (parsed.value >= low && parsed.value <= high)) return parsed
    return bad(`${quote(input)} is out of range: ${min} to ${max}`)
  }
  return {
    name: `${scale.noun}, ${min} to ${max}`,
    json: { type: 'string', pattern: quantityPattern(scale).source, examples: scale.examples },
    parse,
    parseText: parse,
    show: (value) => formatQuantity(scale, value),
  }
}

/** Text such as `60s`, to milliseconds. The bounds are written the same way and are part of the range. */
export function duration(min: string, max: string): ValueType<number> {
  return quantity(DURATION, min, max)
}

/** Text such as `4MiB`, to bytes. The bounds are written the same way and are part of the range. */
export function size(min: string, max: string): ValueType<number> {
  return quantity(SIZE, min, max)
}

/**
 * A list; from one text, the parts between commas. Every wrong item is reported at its own place.
 *
 * @param min how many items there must be, 0 or 1
 */
export function list<T>(item: ValueType<T>, min: 0 | 1 = 0): ValueType<readonly T[]> {
  const parse = (input: unknown): Parsed<readonly T[]> => {
    if (!Array.isArray(input)) {
      const advice = typeof input === 'string' && input !== '' ? ': put it in square brackets' : ''
      return bad(`must be a list, not ${kindOf(input)}${advice}`)
    }
    if (input.length < min) return bad('is empty: it needs at least one item')
    const values: T[] = []
    const faults: Fault[] = []
    for (const [index, entry] of input.entries()) {
      const parsed = item.parse(entry)
      if (parsed.ok) values.push(parsed.value)
      else for (const fault of parsed.faults) faults.push({ ...fault, path: [index, ...fault.path] })
    }
    return faults.length > 0 ? { ok: false, faults } : good(values)
  }
  return {
    name: `list of ${item.name}`,
    json: { type: 'array', items: item.json, ...(min === 0 ? {} : { minItems: min }) },
    parse,
    parseText: (input) => parse(input.split(',').map((part) => part.trim())),
    show: (values) => (values.length === 0 ? 'none' : values.map((value) => item.show(value)).join(', ')),
    mapPaths: (values, visit, at) =>
      item.mapPaths === undefined
        ? values
        : values.map((value, index) => item.mapPaths?.(value, visit, [...at, index]) ?? value),
    ...(item.members === undefined
      ? {}
      : {
          members: item.members.map((member) => ({ ...member, suffix: `[]${member.suffix}` })),
          parts: (values) =>
            values.flatMap((value, index) =>
              (item.parts?.(value) ?? []).map(({ path, shown }) => ({ path: [index, ...path], shown })),
            ),
        }),
  }
}

const PATH_NAMES: Readonly<Record<PathUse, string>> = {
  file: 'path of a file',
  unwatched: 'path of a file',
  folder: 'path of a folder',
  output: 'path of a file',
  place: 'path of a folder',
}

/** A path; the loader makes it absolute and, unless it is a `place`, looks whether it can be used. */
export function path(use: PathUse): ValueType<string> {
  return { ...text(PATH_NAMES[use], {}, good), mapPaths: (value, visit, at) => visit(value, use, at) }
}
