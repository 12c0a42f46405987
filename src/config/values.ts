import { bad, type Fault, good, kindOf, type Parsed, quote } from './parsed.ts'
import { DURATION, formatQuantity, parseQuantity, quantityPattern, type Scale, SIZE } from './units.ts'

/** From the most to the least talkative; `silent` writes nothing. */
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const

/** Members of a JSON Schema (2020-12). */
export type JsonShape = Readonly<Record<string, unknown>>

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
  /** Set on paths: what has to be there when the configuration is loaded. */
  readonly onDisk?: 'file' | 'folder'
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

function quantity(scale: Scale, min: string, max: string): ValueType<number> {
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

/** A list; from one text, the parts between commas. Every wrong item is reported at its own place. */
export function list<T>(item: ValueType<T>): ValueType<readonly T[]> {
  const parse = (input: unknown): Parsed<readonly T[]> => {
    if (!Array.isArray(input)) {
      const advice = typeof input === 'string' && input !== '' ? ': put it in square brackets' : ''
      return bad(`must be a list, not ${kindOf(input)}${advice}`)
    }
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
    json: { type: 'array', items: item.json },
    parse,
    parseText: (input) => parse(input.split(',').map((part) => part.trim())),
    show: (values) => (values.length === 0 ? 'none' : values.map((value) => item.show(value)).join(', ')),
  }
}

/** A path to something that has to exist; the loader makes it absolute and looks. */
export function path(onDisk: 'file' | 'folder'): ValueType<string> {
  return { ...text(`path of a ${onDisk}`, {}, good), onDisk }
}
