/** Reads JSON-RPC 2.0 messages: one scan checks the text and locates the members the sidecar decides by. */
import { isUtf8 } from 'node:buffer'
import { SidecarError } from './errors.ts'
import {
  Message,
  type MetaName,
  metaNames,
  metaPrefix,
  type ParamName,
  paramNames,
  type ResultName,
  resultNames,
} from './message.ts'
import { Names, Scanner, type Span } from './scan.ts'

export { keyText, Message, type MessageKind, type ParamName, valueKey } from './message.ts'
export type { Span }

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
        message.result = scanner.peek() === 0x7b ? readResult(scanner, message) : scanner.span()
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
    const name = metaByKey.get(key)
    if (name !== undefined) {
      message.metaSpans ??= {}
      if (message.metaSpans[name] !== undefined) throw invalid(`_meta["${key}"] stands twice`)
      message.metaSpans[name] = scanner.span()
      return
    }
    if (key !== 'progressToken') {
      refuseLookalike(key, lowerMetaNames)
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
  }, metaKeys)
  return { start, end: scanner.position }
}

function readResult(scanner: Scanner, message: Message): Span {
  const start = scanner.position
  const spans: Partial<Record<ResultName, Span>> = {}
  message.resultSpans = spans
  scanner.object((key) => {
    if (!knownResults.has(key)) scanner.skip()
    else if (spans[key as ResultName] !== undefined) throw invalid(`result.${key} stands twice`)
    else spans[key as ResultName] = scanner.span()
  }, resultKeys)
  return { start, end: scanner.position }
}

/** Of all names that are looked for. */
const longestName = 45

const topKeys = new Names('jsonrpc', 'id', 'method', 'params', 'result', 'error')
const paramKeys = new Names(...paramNames)
const topNames = new Set(['jsonrpc', 'id', 'method', 'params', 'result', 'error'])
const metaByKey = new Map(metaNames.map((name): [string, MetaName] => [metaPrefix + name, name]))
const metaKeys = new Names('progressToken', ...metaByKey.keys())
const lowerMetaNames = new Set(['progresstoken', ...[...metaByKey.keys()].map((key) => key.toLowerCase())])
const resultKeys = new Names(...resultNames)
const knownResults: ReadonlySet<string> = new Set(resultNames)
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
  if (name.length > longestName) return
  if (names.has(name.toUpperCase().toLowerCase()))
    throw invalid(`${JSON.stringify(key)} in unusual letter case`)
}
