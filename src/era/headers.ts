/**
 * HTTP headers that repeat what a modern request says in its body. Others on the way believe them, so a request is
 * refused if they disagree (2026-07-28, basic/transports/streamable-http, "Server Validation").
 */
import { isUtf8 } from 'node:buffer'
import type { IncomingHttpHeaders } from 'node:http'
import { SidecarError } from '../core/errors.ts'
import { members } from '../core/json.ts'
import type { Message, ParamName, Span } from '../core/jsonrpc.ts'
import type { ToolParameter, ToolParameters } from './tool-parameters.ts'

const sentinelStart = '=?base64?'
const sentinelEnd = '?='

/** Node.js gives other bytes as characters of Latin-1, in which nobody has sent them. */
const unsafe = /[^\t\x20-\x7e]/
const padded = /^[\t ]|[\t ]$/

/** The value that a header carries, decoded if it has to be; undefined if it is malformed. */
export function decodeHeader(value: string): string | undefined {
  if (unsafe.test(value)) return undefined
  const text = padded.test(value) ? trimmed(value) : value
  const isSentinel =
    text.startsWith(sentinelStart) &&
    text.endsWith(sentinelEnd) &&
    text.length >= sentinelStart.length + sentinelEnd.length
  if (!isSentinel) return text
  const encoded = text.slice(sentinelStart.length, -sentinelEnd.length)
  const bytes = Buffer.from(encoded, 'base64')
  // What Node.js reads leniently does not come out again as it went in.
  if (bytes.toString('base64') !== encoded || !isUtf8(bytes)) return undefined
  return bytes.toString('utf8')
}

/** In linear time, which a regular expression would not be. */
function trimmed(value: string): string {
  const isSpace = (at: number): boolean => value[at] === ' ' || value[at] === '\t'
  let start = 0
  let end = value.length
  while (start < end && isSpace(start)) start++
  while (end > start && isSpace(end - 1)) end--
  return value.slice(start, end)
}

/** Methods with a second header, and the member of params that it repeats. */
const nameSources: ReadonlyMap<string, ParamName> = new Map([
  ['tools/call', 'name'],
  ['prompts/get', 'name'],
  ['resources/read', 'uri'],
  ['tasks/get', 'taskId'],
  ['tasks/update', 'taskId'],
  ['tasks/cancel', 'taskId'],
])

/** @throws ERR_HEADER_MISMATCH if a request's Mcp-Method or Mcp-Name is missing, malformed or not what the body says */
export function checkStandardHeaders(message: Message, headers: IncomingHttpHeaders): void {
  if (message.kind !== 'request') return
  const method = headerValue('Mcp-Method', headers['mcp-method'])
  if (method === undefined) throw missing('Mcp-Method')
  // The only one of them that is never encoded.
  if (unsafe.test(method) || trimmed(method) !== message.method) throw mismatch('Mcp-Method', 'method')
  const source = nameSources.get(message.method)
  if (source === undefined) return
  const header = headerValue('Mcp-Name', headers['mcp-name'])
  const expected = message.paramString(source)
  if (expected === undefined) {
    // The server refuses such a body; but whoever reads only the header must not take it for a good one.
    if (header !== undefined) throw mismatch('Mcp-Name', `params.${source}, which is no text`)
    return
  }
  if (header === undefined) throw missing('Mcp-Name')
  if (decoded('Mcp-Name', header) !== expected) throw mismatch('Mcp-Name', `params.${source}`)
}

/**
 * Checks the headers that repeat arguments of a tool. A value that is null or absent has no header. One that no header
 * can hold, an array or an object, agrees with none.
 *
 * @throws ERR_HEADER_MISMATCH
 */
export function checkParameterHeaders(
  message: Message,
  headers: IncomingHttpHeaders,
  parameters: ToolParameters,
): void {
  if (parameters.length === 0) return
  const read = new Arguments(message)
  for (const parameter of parameters) {
    const name = parameter.header
    const header = headerValue(name, headers[name])
    const value = read.valueOf(parameter)
    if (value === undefined) {
      if (header !== undefined) throw mismatch(name, `${shown(parameter)}, which has no value`)
      continue
    }
    if (header === undefined) throw missing(name)
    if (!agree(decoded(name, header), message, value)) throw mismatch(name, shown(parameter))
  }
}

/** The arguments of a tools/call; each object in them is read once, however many headers come from it. */
class Arguments {
  readonly #message: Message
  readonly #objects = new Map<number, ReadonlyMap<string, Span | 'twice'>>()

  constructor(message: Message) {
    this.#message = message
  }

  /** Where the value stands; undefined if there is none. @throws ERR_HEADER_MISMATCH if readers may differ about it */
  valueOf(parameter: ToolParameter): Span | undefined {
    let at = this.#message.paramSpans.arguments
    for (const name of parameter.path) {
      if (at === undefined) return undefined
      const next = this.#object(at).get(name)
      if (next === 'twice') throw mismatch(parameter.header, `${shown(parameter)}, which stands twice`)
      at = next
    }
    return at === undefined || this.#message.bytes[at.start] === 0x6e ? undefined : at
  }

  #object(span: Span): ReadonlyMap<string, Span | 'twice'> {
    const known = this.#objects.get(span.start)
    if (known !== undefined) return known
    const found = new Map<string, Span | 'twice'>()
    for (const { key, value } of members(this.#message.bytes, span)) {
      found.set(key, found.has(key) ? 'twice' : value)
    }
    this.#objects.set(span.start, found)
    return found
  }
}

/** A value of another type than the tool declares is compared as what it is: the server has better words for that. */
function agree(header: string, message: Message, value: Span): boolean {
  switch (message.bytes[value.start]) {
    case 0x22:
      return message.string(value) === header
    case 0x5b:
    case 0x7b:
      return false
    case 0x74:
    case 0x66:
      return message.text(value) === header
  }
  return sameNumber(header, Number(message.text(value)))
}

const integer = /^-?(?:0|[1-9]\d*)(?:\.0+)?$/
const decimal = /^-?(?:0|[1-9]\d*)\.\d+$/

/** Integers that other readers might round are equal to nothing. */
function sameNumber(header: string, value: number): boolean {
  const readable = Number.isInteger(value)
    ? Number.isSafeInteger(value) && integer.test(header)
    : decimal.test(header)
  return readable && Number(header) === value && Number.isFinite(value)
}

/** Repeated headers arrive joined by commas, as one value that agrees with no single one. */
function headerValue(name: string, header: string | string[] | undefined): string | undefined {
  if (Array.isArray(header)) throw mismatch(name, 'itself: it stands twice')
  return header
}

function decoded(name: string, header: string): string {
  const value = decodeHeader(header)
  if (value === undefined) throw fault(name, `${name} is malformed`)
  return value
}

const shown = ({ path, type }: ToolParameter): string => `the ${type} ${JSON.stringify(path.join('.'))}`

const missing = (header: string): SidecarError => fault(header, `${header} is missing`)
const mismatch = (header: string, source: string): SidecarError =>
  fault(header, `${header} differs from ${source}`)

/** Values are not told: arguments of tools have no place in logs. */
function fault(header: string, detail: string): SidecarError {
  return new SidecarError('ERR_HEADER_MISMATCH', { detail, data: { header } })
}
