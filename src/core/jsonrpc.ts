/**
 * JSON-RPC 2.0 messages as the bytes they arrived in, with the few members the sidecar needs located in them.
 * Whatever else a message holds is relayed untouched.
 */
import { isUtf8 } from 'node:buffer'
import { SidecarError } from './errors.ts'
import { Names, Scanner, type Span } from './scan.ts'
import { binary, type Wire, wireOf } from './wire.ts'

export type { Span }

export type MessageKind = 'request' | 'notification' | 'response'

/** Members of `params` (and of `params._meta`) that stages ask for; their spans are known after one scan. */
const paramNames = [
  'name',
  'uri',
  'requestId',
  'progressToken',
  'protocolVersion',
  'level',
  'elicitationId',
  'taskId',
  '_meta',
] as const
export type ParamName = (typeof paramNames)[number]

/** One message. Spans are offsets into {@link bytes}. */
export class Message {
  /** The text of this message alone; line breaks between its tokens are replaced by blanks. */
  readonly bytes: Buffer
  kind: MessageKind = 'notification'
  /** Empty for a response. */
  method = ''
  /** Where the id stands; undefined for a notification and for an error response without one. */
  id: Span | undefined
  /** True for a response with an `error` member. */
  isError = false
  params: Span | undefined
  result: Span | undefined
  error: Span | undefined
  /** `params._meta.progressToken`: the sender wants progress under this token. */
  progressToken: Span | undefined
  /** Known direct members of params. */
  readonly paramSpans: Partial<Record<ParamName, Span>> = {}

  constructor(bytes: Buffer) {
    this.bytes = bytes
  }

  text(span: Span): string {
    return this.bytes.toString('utf8', span.start, span.end)
  }

  /** A span as it goes on the wire. */
  binary(span: Span): string {
    return binary(this.bytes, span.start, span.end)
  }

  /** The whole message as it goes on the wire. */
  get wire(): Wire {
    return wireOf(this.bytes)
  }

  /** The id's JSON text, as it was spelled. */
  get idText(): string | undefined {
    return this.id === undefined ? undefined : this.text(this.id)
  }

  /** The id as a map key: equal for equal ids however they are spelled, different for 1 and "1". */
  get idKey(): string | undefined {
    return this.id === undefined ? undefined : valueKey(this.text(this.id))
  }

  /** A direct member of params as a map key (ids and tokens), or undefined. */
  paramKey(name: ParamName): string | undefined {
    const span = this.paramSpans[name]
    return span === undefined ? undefined : valueKey(this.text(span))
  }

  /** A direct member of params, if it is a string. */
  paramString(name: ParamName): string | undefined {
    const span = this.paramSpans[name]
    if (span === undefined || this.bytes[span.start] !== 0x22) return undefined
    return JSON.parse(this.text(span)) as string
  }

  /** The whole message parsed; for the few the sidecar answers or rewrites itself. */
  parsed(): unknown {
    return JSON.parse(this.bytes.toString('utf8'))
  }
}

/** A key of {@link valueKey} as JSON text again. */
export function keyText(key: string): string {
  return key.startsWith('s') ? JSON.stringify(key.slice(1)) : key.slice(1)
}

/** Ids and progress tokens compared by type and value, as far as JavaScript numbers can tell values apart. */
export function valueKey(text: string): string {
  if (text.charCodeAt(0) === 0x22) return `s${JSON.parse(text) as string}`
  const number = Number(text)
  // Beyond 2^53 different integers are the same JavaScript number.
  return `n${Number.isSafeInteger(number) ? number : text}`
}

/**
 * Reads one message, or the elements of a batch.
 *
 * Refused with ERR_PARSE: text that is not UTF-8 or not JSON, or nested deeper than 256. Refused with
 * ERR_INVALID_REQUEST: a member the sidecar decides by that stands twice or in another letter case (parsers
 * differ in which one they believe, so a policy and the server could read different messages), ids that are
 * neither string nor number, `jsonrpc` other than "2.0", shapes that are no request, notification or response.
 *
 * @param bytes the whole text; line breaks in it are replaced in place
 * @param maxBatch most elements of a batch; one more is ERR_INVALID_REQUEST
 */
export function readMessages(
  bytes: Buffer,
  maxBatch = Number.POSITIVE_INFINITY,
): { readonly messages: Message[]; readonly batch: boolean } {
  if (!isUtf8(bytes)) throw new SidecarError('ERR_PARSE', { detail: 'the text is not UTF-8' })
  try {
    const scanner = new Scanner(bytes)
    if (scanner.peek() !== 0x5b) {
      const message = readOne(scanner, bytes)
      scanner.finish()
      unfold(message.bytes)
      return { messages: [message], batch: false }
    }
    const spans: Span[] = []
    scanner.array(() => {
      if (spans.length >= maxBatch) throw invalid(`more than ${maxBatch} messages (limits.batch)`)
      spans.push(scanner.span())
    })
    scanner.finish()
    const messages = spans.map(({ start, end }) => {
      const element = bytes.subarray(start, end)
      const message = readOne(new Scanner(element), element)
      unfold(element)
      return message
    })
    return { messages, batch: true }
  } catch (thrown) {
    if (thrown instanceof SidecarError) throw thrown
    throw new SidecarError('ERR_PARSE', { detail: thrown instanceof Error ? thrown.message : String(thrown) })
  }
}

/** Line breaks in valid JSON stand only between tokens; they would end a stdio line or an SSE field. */
function unfold(bytes: Buffer): void {
  const breaks = [bytes.indexOf(0x0a), bytes.indexOf(0x0d)].filter((found) => found >= 0)
  if (breaks.length === 0) return
  let at = Math.min(...breaks)
  for (; at < bytes.length; at++) {
    const c = bytes[at]
    if (c === 0x0a || c === 0x0d) bytes[at] = 0x20
  }
}

/** Ids and tokens are put into other messages: long ones would multiply what those cost. */
const maxIdBytes = 1024

const invalid = (detail: string): SidecarError => new SidecarError('ERR_INVALID_REQUEST', { detail })

function readOne(scanner: Scanner, bytes: Buffer): Message {
  if (scanner.peek() !== 0x7b) {
    scanner.skip()
    throw invalid('the message is not an object')
  }
  const message = new Message(bytes)
  let version = false
  let method: Span | undefined
  scanner.object((key) => {
    switch (key) {
      case 'jsonrpc': {
        if (version) throw invalid('jsonrpc stands twice')
        version = true
        if (message.text(scanner.span()) !== '"2.0"') throw invalid('jsonrpc is not "2.0"')
        return
      }
      case 'id':
        if (message.id !== undefined) throw invalid('id stands twice')
        message.id = scanner.span()
        return
      case 'method':
        if (method !== undefined) throw invalid('method stands twice')
        method = scanner.span()
        return
      case 'params':
        if (message.params !== undefined) throw invalid('params stands twice')
        message.params = scanner.peek() === 0x7b ? readParams(scanner, message) : scanner.span()
        return
      case 'result':
        if (message.result !== undefined) throw invalid('result stands twice')
        message.result = scanner.span()
        return
      case 'error':
        if (message.error !== undefined) throw invalid('error stands twice')
        message.error = scanner.span()
        return
      default:
        refuseLookalike(key, topNames)
        scanner.skip()
    }
  }, topKeys)
  if (!version) throw invalid('jsonrpc is missing')
  classify(message, method)
  return message
}

function classify(message: Message, method: Span | undefined): void {
  const { bytes, id, result, error, params } = message
  if (id !== undefined) {
    const first = bytes[id.start] as number
    const isNull = first === 0x6e
    if (isNull && error !== undefined && method === undefined) message.id = undefined
    else if (first !== 0x22 && first !== 0x2d && !(first >= 0x30 && first <= 0x39)) {
      throw invalid('id is neither a string nor a number')
    }
    if (id.end - id.start > maxIdBytes) throw invalid(`id has more than ${maxIdBytes} bytes`)
  }
  if (method !== undefined) {
    if (result !== undefined || error !== undefined) throw invalid('both a method and a result')
    if (bytes[method.start] !== 0x22) throw invalid('method is not a string')
    if (params !== undefined && bytes[params.start] !== 0x7b) throw invalid('params is not an object')
    message.method = plainString(message.bytes, method)
    message.kind = id === undefined ? 'notification' : 'request'
    return
  }
  if ((result === undefined) === (error === undefined))
    throw invalid('neither a method nor one result or error')
  if (id === undefined && result !== undefined) throw invalid('a result without an id')
  message.kind = 'response'
  message.isError = error !== undefined
}

function plainString(bytes: Buffer, span: Span): string {
  const inner = bytes.toString('utf8', span.start + 1, span.end - 1)
  return inner.includes('\\') ? (JSON.parse(`"${inner}"`) as string) : inner
}

function readParams(scanner: Scanner, message: Message): Span {
  const start = scanner.position
  scanner.object((key) => {
    if (!isParamName(key)) {
      refuseLookalike(key, lowerParamNames)
      scanner.skip()
      return
    }
    if (message.paramSpans[key] !== undefined) throw invalid(`params.${key} stands twice`)
    message.paramSpans[key] =
      key === '_meta' && scanner.peek() === 0x7b ? readMeta(scanner, message) : scanner.span()
  }, paramKeys)
  return { start, end: scanner.position }
}

function readMeta(scanner: Scanner, message: Message): Span {
  const start = scanner.position
  let seen = false
  scanner.object((key) => {
    if (key !== 'progressToken') {
      refuseLookalike(key, metaNames)
      scanner.skip()
      return
    }
    if (seen) throw invalid('_meta.progressToken stands twice')
    seen = true
    const token = scanner.span()
    const first = message.bytes[token.start] as number
    if (first === 0x6e) return
    if (first !== 0x22 && first !== 0x2d && !(first >= 0x30 && first <= 0x39)) {
      throw invalid('progressToken is neither a string nor a number')
    }
    if (token.end - token.start > maxIdBytes) throw invalid(`progressToken has more than ${maxIdBytes} bytes`)
    message.progressToken = token
  })
  return { start, end: scanner.position }
}

const topKeys = new Names('jsonrpc', 'id', 'method', 'params', 'result', 'error')
const paramKeys = new Names(...paramNames)
const topNames = new Set(['jsonrpc', 'id', 'method', 'params', 'result', 'error'])
const metaNames = new Set(['progresstoken'])
const lowerParamNames = new Set<string>(paramNames.map((name) => name.toLowerCase()))

const knownParams: ReadonlySet<string> = new Set(paramNames)

function isParamName(key: string): key is ParamName {
  return knownParams.has(key)
}

/**
 * Some servers match member names without regard to case (Go's encoding/json does, folding by Unicode rules),
 * so "Method" beside "method" would be a second opinion about what the message asks for.
 */
function refuseLookalike(key: string, names: ReadonlySet<string>): void {
  // Some C parsers read a name up to the first NUL.
  const nul = key.indexOf('\0')
  const name = nul < 0 ? key : key.slice(0, nul)
  if (name.length > 20) return
  if (names.has(name.toUpperCase().toLowerCase()))
    throw invalid(`${JSON.stringify(key)} in unusual letter case`)
}
