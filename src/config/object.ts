import { nearest } from './nearest.ts'
import { bad, type Fault, good, kindOf, type Parsed, type Path } from './parsed.ts'
import { list, type MemberDoc, type Part, type ValueType, type VisitPath } from './values.ts'

/** A member that must be there. */
export interface Required<T> {
  readonly type: ValueType<T>
  readonly doc: string
  readonly required: true
}

/** A member that may be left out; `means` says what then happens. */
export interface Optional<T> {
  readonly type: ValueType<T>
  readonly doc: string
  readonly means: string
}

/** A member with a default, as the file would write it. */
export interface Defaulted<T> {
  readonly type: ValueType<T>
  readonly doc: string
  readonly default: unknown
}

// biome-ignore lint/suspicious/noExplicitAny: each member has a type of its own
type Member = Required<any> | Optional<any> | Defaulted<any>
export type Shape = Readonly<Record<string, Member>>

/** The value of an object with these members; what may be left out is undefined. */
export type Members<S extends Shape> = {
  readonly [K in keyof S]: S[K] extends { type: ValueType<infer T>; means: string }
    ? T | undefined
    : S[K] extends { type: ValueType<infer T> }
      ? T
      : never
}

/** What a `ValueType` holds. */
export type TypeOf<V> = V extends ValueType<infer T> ? T : never

export function required<T>(type: ValueType<T>, doc: string): Required<T> {
  return { type, doc, required: true }
}

export function optional<T>(type: ValueType<T>, means: string, doc: string): Optional<T> {
  return { type, doc, means }
}

export function defaulted<T>(type: ValueType<T>, standard: unknown, doc: string): Defaulted<T> {
  return { type, doc, default: standard }
}

export interface ObjectRules<S extends Shape> {
  /** Groups of members of which exactly one must be there: it says which variant is meant. */
  readonly one?: readonly (readonly (keyof S & string)[])[]
  /** Groups of members that exclude each other. */
  readonly most?: readonly (readonly (keyof S & string)[])[]
  /** Demands on several members at once; asked when each member is right in itself. */
  readonly check?: (value: Members<S>) => readonly Fault[]
  /** Members nobody knows are passed over. Only where another program owns the object. */
  readonly open?: true
  /** Names that other versions of the format have, each with what to do about it; messages say so. */
  readonly known?: Readonly<Record<string, string>>
}

/** A section with these members and no others. Names that are not known are not repeated: they may be misplaced secrets. */
export function object<const S extends Shape>(shape: S, rules: ObjectRules<S> = {}): ValueType<Members<S>> {
  const names = Object.keys(shape)
  const parse = (input: unknown): Parsed<Members<S>> => {
    if (!isSection(input))
      return bad(
        `must be a section of keys (${names.join(', ')}), not ${kindOf(input)}${input === null ? ': fill it or leave it out' : ''}`,
      )
    const faults: Fault[] = rules.open === true ? [] : unknownMembers(input, names, rules.known ?? {})
    const value: Record<string, unknown> = {}
    for (const [name, member] of Object.entries(shape)) {
      const there = Object.hasOwn(input, name)
      if (!there && 'required' in member) {
        if (!meant(faults, name))
          faults.push({ path: [], message: `${name} is missing: ${lower(member.doc)}` })
        continue
      }
      if (!there && !('default' in member)) {
        value[name] = undefined
        continue
      }
      const parsed = member.type.parse(there ? input[name] : (member as { default: unknown }).default)
      if (parsed.ok) value[name] = parsed.value
      else for (const fault of parsed.faults) faults.push({ ...fault, path: [name, ...fault.path] })
    }
    faults.push(...variantFaults(input, rules, faults))
    if (faults.length > 0) return { ok: false, faults }
    const complete = value as Members<S>
    const broken = rules.check?.(complete) ?? []
    return broken.length > 0 ? { ok: false, faults: broken } : good(complete)
  }
  const given = (value: object): [string, unknown, Member][] =>
    Object.entries(shape).flatMap(([name, member]): [string, unknown, Member][] => {
      const inner = (value as Record<string, unknown>)[name]
      return inner === undefined ? [] : [[name, inner, member]]
    })
  return {
    name: 'section',
    json: jsonShape(shape, rules.open === true),
    parse,
    parseText: () => bad('can be set only in the file'),
    show: (value) =>
      `{ ${given(value)
        .map(([name, inner, { type }]) => `${name}: ${type.show(inner)}`)
        .join(', ')} }`,
    mapPaths: (value, visit, at) =>
      Object.fromEntries(
        Object.entries(value).map(([name, inner]) => [
          name,
          inner === undefined ? inner : mapped(shape[name]?.type, inner, visit, [...at, name]),
        ]),
      ) as Members<S>,
    members: Object.entries(shape).flatMap(([name, member]) => describe(name, member)),
    parts: (value) => given(value).flatMap(([name, inner, { type }]) => partsOf(name, inner, type)),
  }
}

/** Any names with values of one kind. */
export function record<T>(
  value: ValueType<T>,
  placeholder: string,
  min: 0 | 1 = 0,
): ValueType<Readonly<Record<string, T>>> {
  return {
    name: `section of \`${placeholder}\`: ${value.name}`,
    json: {
      type: 'object',
      additionalProperties: value.json,
      ...(min === 0 ? {} : { minProperties: min }),
    },
    parse: (input) => {
      if (!isSection(input)) return bad(`must be a section of ${placeholder}: value, not ${kindOf(input)}`)
      const entries: [string, T][] = []
      const faults: Fault[] = []
      for (const [name, inner] of Object.entries(input)) {
        const parsed = value.parse(inner)
        if (parsed.ok) entries.push([name, parsed.value])
        else for (const fault of parsed.faults) faults.push({ ...fault, path: [name, ...fault.path] })
      }
      if (faults.length === 0 && entries.length < min) return bad('is empty: it needs at least one entry')
      return faults.length > 0 ? { ok: false, faults } : good(Object.fromEntries(entries))
    },
    parseText: () => bad('can be set only in the file'),
    show: (values) =>
      `{ ${Object.entries(values)
        .map(([name, inner]) => `${name}: ${value.show(inner)}`)
        .join(', ')} }`,
  }
}

/** A list of sections, or one section that is the only one. */
export function oneOrMore<T>(type: ValueType<T>): ValueType<readonly T[]> {
  const many = list(type, 1)
  return {
    ...many,
    name: `${type.name}, or list of them`,
    json: { anyOf: [type.json, many.json] },
    parse: (input) => {
      if (Array.isArray(input)) return many.parse(input)
      if (!isSection(input)) return bad(`must be a section or a list of sections, not ${kindOf(input)}`)
      const parsed = type.parse(input)
      return parsed.ok ? good([parsed.value]) : parsed
    },
    parseText: () => bad('can be set only in the file'),
    ...(type.members === undefined ? {} : { members: type.members }),
  }
}

/** The same kind of value, written in other ways too: `rewrite` makes the usual one of them. */
export function lenient<T>(type: ValueType<T>, rewrite: (input: unknown) => unknown): ValueType<T> {
  return { ...type, parse: (input) => type.parse(rewrite(input)) }
}

/** The same kind of value under one more demand. */
export function checked<T>(type: ValueType<T>, check: (value: T) => readonly Fault[]): ValueType<T> {
  return {
    ...type,
    parse: (input) => {
      const parsed = type.parse(input)
      const faults = parsed.ok ? check(parsed.value) : []
      return faults.length > 0 ? { ok: false, faults } : parsed
    },
  }
}

export function isSection(input: unknown): input is Readonly<Record<string, unknown>> {
  return typeof input === 'object' && input !== null && !Array.isArray(input)
}

function lower(doc: string): string {
  const sentence = (/^.*?\.(?=\s|$)/.exec(doc)?.[0] ?? doc).replace(/\.$/, '').replaceAll('`', '')
  return /^[A-Z][a-z]/.test(sentence) ? `${sentence[0]?.toLowerCase()}${sentence.slice(1)}` : sentence
}

/** True where a misspelt name is reported already, with this as the right one. */
function meant(faults: readonly Fault[], name: string): boolean {
  return faults.some(({ key, message }) => key === true && message.endsWith(` ${name}?`))
}

function unknownMembers(
  input: Readonly<Record<string, unknown>>,
  names: readonly string[],
  known: Readonly<Record<string, string>>,
): Fault[] {
  return Object.keys(input)
    .filter((name) => !names.includes(name))
    .map((name) => {
      if (Object.hasOwn(known, name))
        return { path: [name], key: true, message: `${name} ${known[name]}` } as const
      const near = nearest(name, names)
      const advice = near === undefined ? `there are ${names.join(', ')}` : `did you mean ${near}?`
      return { path: [name], key: true, message: `unknown key: ${advice}` } as const
    })
}

function variantFaults<S extends Shape>(
  input: Readonly<Record<string, unknown>>,
  { one = [], most = [] }: ObjectRules<S>,
  faults: readonly Fault[],
): Fault[] {
  const there = (group: readonly string[]): string[] => group.filter((name) => Object.hasOwn(input, name))
  const none = one.filter((group) => there(group).length === 0 && !group.some((name) => meant(faults, name)))
  const many = [...one, ...most].filter((group) => there(group).length > 1)
  return [
    ...none.map((group) => ({ path: [], message: `needs one of ${group.join(', ')}` })),
    ...many.map((group) => {
      const [first, second] = there(group)
      const key = true as const
      return {
        path: [second ?? ''],
        key,
        message: `${second} and ${first} exclude each other: keep one of them`,
      }
    }),
  ]
}

function jsonShape(shape: Shape, open: boolean): Readonly<Record<string, unknown>> {
  const needed = Object.entries(shape).flatMap(([name, member]) => ('required' in member ? [name] : []))
  const properties = Object.fromEntries(
    Object.entries(shape).map(([name, member]) => {
      const description = 'means' in member ? `${member.doc} Default: ${member.means}.` : member.doc
      const standard = 'default' in member ? { default: member.default } : {}
      return [name, { ...member.type.json, ...standard, description }]
    }),
  )
  return {
    type: 'object',
    properties,
    ...(needed.length === 0 ? {} : { required: needed }),
    additionalProperties: open,
  }
}

function mapped<T>(type: ValueType<T> | undefined, value: T, visit: VisitPath, at: Path): T {
  return type?.mapPaths === undefined ? value : type.mapPaths(value, visit, at)
}

function describe(name: string, member: Member): MemberDoc[] {
  const fallback =
    'required' in member
      ? 'required'
      : 'means' in member
        ? member.means
        : `\`${typeof member.default === 'object' ? JSON.stringify(member.default) : String(member.default)}\``
  const inner = member.type.members ?? []
  return [
    { suffix: `.${name}`, type: member.type.name, fallback, doc: member.doc },
    ...inner.map((deeper) => ({ ...deeper, suffix: `.${name}${deeper.suffix}` })),
  ]
}

function partsOf<T>(name: string, value: T, type: ValueType<T>): Part[] {
  const inner = type.parts?.(value)
  if (inner === undefined) return [{ path: [name], shown: type.show(value) }]
  return inner.map(({ path, shown }) => ({ path: [name, ...path], shown }))
}
