/**
 * Arguments of a tool that its definition has clients repeat as HTTP headers, by `x-mcp-header` annotations
 * (2026-07-28, server/tools, "x-mcp-header" and basic/transports/streamable-http, "Schema Extension").
 */
import { elements, member, removal } from '../core/json.ts'
import { type Message, readMessages, type Span } from '../core/jsonrpc.ts'
import { wireBuffers } from '../core/wire.ts'

export interface ToolParameter {
  /** The name of the header, in small letters. */
  readonly header: string
  /** The names that lead from the arguments to the value. */
  readonly path: readonly string[]
  readonly type: 'string' | 'integer' | 'boolean'
}

/** The annotated arguments of one tool. */
export type ToolParameters = readonly ToolParameter[]

export const noParameters: ToolParameters = Object.freeze([])

const annotation = 'x-mcp-header'
const prefix = 'mcp-param-'

/** RFC 9110, section 5.6.2. */
const token = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/

/** Schemas of one tool that are looked at, and how deep they may lie in each other. */
const maxSchemas = 10_000
const maxNesting = 64
/** Text of the server in a fault. Characters. */
const maxQuote = 100

/** Keywords with a schema, or a list of schemas, to which `properties` alone do not lead. */
const branches = [
  ...['items', 'prefixItems', 'additionalItems', 'unevaluatedItems', 'contains'],
  ...['additionalProperties', 'unevaluatedProperties', 'propertyNames', 'contentSchema'],
  ...['allOf', 'anyOf', 'oneOf', 'not', 'if', 'then', 'else'],
]
/** Keywords with an object whose members are schemas. */
const namedBranches = ['patternProperties', 'dependentSchemas', 'dependencies', '$defs', 'definitions']

type JsonObject = Readonly<Record<string, unknown>>

/** A schema within the schema of a tool's input. */
interface Place {
  readonly schema: JsonObject
  /** For people: the way there from the root. */
  readonly where: string
  /** The names on that way; undefined if it is not one of `properties` alone. */
  readonly path: readonly string[] | undefined
  readonly nesting: number
}

/** Spellings of ASCII letters and of the hyphen that could hide the name in JSON text; nobody writes them so. */
const escapes = ['\\u002d', '\\u002D', '\\u006', '\\u007']

/** False if no annotation stands in this JSON text; seldom wrong when true. */
export function mayAnnotate(text: Buffer): boolean {
  return text.includes(annotation) || escapes.some((each) => text.includes(each))
}

/** What the definition of a tool, parsed, says of headers: the arguments, or the rule that it breaks. */
export function toolParameters(tool: unknown): ToolParameters | string {
  const root = isObject(tool) ? tool['inputSchema'] : undefined
  if (!isObject(root)) return noParameters
  const found: ToolParameter[] = []
  const headers = new Set<string>()
  const places: Place[] = [{ schema: root, where: '', path: [], nesting: 0 }]
  // Grows while it is walked.
  for (const place of places) {
    if (Object.hasOwn(place.schema, annotation)) {
      const parameter = annotated(place)
      if (typeof parameter === 'string') return `${parameter} (at ${quote(place.where)})`
      const { header } = parameter
      if (headers.has(header)) return `two properties have the header ${quote(header)}`
      headers.add(header)
      found.push(parameter)
    }
    if (place.nesting > maxNesting) return `its schema is nested deeper than ${maxNesting}`
    for (const inner of placesIn(place)) {
      if (places.length >= maxSchemas) return `its schema has more than ${maxSchemas} parts`
      places.push(inner)
    }
  }
  return found.length === 0 ? noParameters : found
}

function annotated({ schema, path }: Place): ToolParameter | string {
  if (path === undefined || path.length === 0) {
    return `${annotation} stands where no chain of properties leads`
  }
  const name = schema[annotation]
  if (typeof name !== 'string' || name === '') return `${annotation} is not a text, or empty`
  if (!token.test(name)) return `${annotation} ${quote(name)} cannot be part of the name of a header`
  const type = Object.hasOwn(schema, 'type') ? schema['type'] : undefined
  if (type !== 'string' && type !== 'integer' && type !== 'boolean') {
    return `${annotation} on the type ${quote(type)}; only integer, string and boolean may have it`
  }
  return { header: prefix + name.toLowerCase(), path, type }
}

function* placesIn({ schema, where, path, nesting }: Place): Generator<Place> {
  const place = (inner: unknown, at: string, name?: string): Place[] => {
    if (!isObject(inner)) return []
    const way = path === undefined || name === undefined ? undefined : [...path, name]
    return [{ schema: inner, where: `${where}/${at}`, path: way, nesting: nesting + 1 }]
  }
  for (const [name, inner] of entries(schema, 'properties')) yield* place(inner, `properties/${name}`, name)
  for (const keyword of branches) {
    if (!Object.hasOwn(schema, keyword)) continue
    const inner = schema[keyword]
    if (Array.isArray(inner)) for (const [i, each] of inner.entries()) yield* place(each, `${keyword}/${i}`)
    else yield* place(inner, keyword)
  }
  for (const keyword of namedBranches) {
    for (const [name, inner] of entries(schema, keyword)) yield* place(inner, `${keyword}/${name}`)
  }
}

function entries(schema: JsonObject, keyword: string): [string, unknown][] {
  const value = Object.hasOwn(schema, keyword) ? schema[keyword] : undefined
  return isObject(value) ? Object.entries(value) : []
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function quote(value: unknown): string {
  return String(JSON.stringify(value)).slice(0, maxQuote)
}

/**
 * A result of tools/list without the tools whose annotations break a rule: clients over HTTP would leave them out, too.
 *
 * @param warn is told of each that was left out
 */
export function withoutInvalidTools(
  listResult: Message,
  warn: (tool: string, rule: string) => void,
): Message {
  if (!mayAnnotate(listResult.bytes)) return listResult
  const message = asWritten(listResult)
  const { bytes } = message
  const list = member(bytes, message.result, 'tools')
  if (list === undefined) return listResult
  const tools = elements(bytes, list)
  const invalid = new Set<Span>()
  for (const span of tools) {
    if (!mayAnnotate(bytes.subarray(span.start, span.end))) continue
    const tool: unknown = JSON.parse(message.text(span))
    const parameters = toolParameters(tool)
    if (typeof parameters !== 'string') continue
    invalid.add(span)
    warn(toolName(tool) ?? '', parameters)
  }
  if (invalid.size === 0) return listResult
  return message.edited(...removal(tools, (span) => invalid.has(span)))
}

export function toolName(tool: unknown): string | undefined {
  const name = isObject(tool) ? tool['name'] : undefined
  return typeof name === 'string' ? name : undefined
}

/** What others have taken out, or put in, stands nowhere in the bytes that arrived. */
export function asWritten(message: Message): Message {
  if (message.edits.length === 0) return message
  return readMessages(Buffer.concat(wireBuffers(message.wire))).messages[0] as Message
}
