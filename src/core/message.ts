/**
 * One JSON-RPC 2.0 message as the bytes it arrived in, with the few members the sidecar needs located in them.
 * Whatever else it holds is relayed untouched.
 */
import type { Span } from './scan.ts'
import { binary, type Edit, type Wire, wireOf } from './wire.ts'

export type MessageKind = 'request' | 'notification' | 'response'

/** Members of `params` that stages ask for; their spans are known after one scan. */
export const paramNames = [
  'name',
  'uri',
  'requestId',
  'progressToken',
  'progress',
  'protocolVersion',
  'level',
  'elicitationId',
  'taskId',
  'arguments',
  'inputResponses',
  'requestState',
  'task',
  'notifications',
  '_meta',
] as const
export type ParamName = (typeof paramNames)[number]

/** Members of `_meta` that the protocol reserves, without their prefix {@link metaPrefix}. */
export const metaNames = [
  'protocolVersion',
  'clientInfo',
  'clientCapabilities',
  'logLevel',
  'subscriptionId',
] as const
export type MetaName = (typeof metaNames)[number]
export const metaPrefix = 'io.modelcontextprotocol/'

/** Members of a result that decide how it is translated. */
export const resultNames = [
  'resultType',
  'ttlMs',
  'cacheScope',
  'inputRequests',
  'requestState',
  'isError',
  '_meta',
] as const
export type ResultName = (typeof resultNames)[number]

const noEdits: readonly Edit[] = []

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
  readonly paramSpans: Partial<Record<ParamName, Span>>
  /** Reserved members of `params._meta`. */
  metaSpans: Partial<Record<MetaName, Span>> | undefined
  /** Known direct members of a result that is an object. */
  resultSpans: Partial<Record<ResultName, Span>> | undefined
  /** Replacements that apply whenever the message is written; in order, not overlapping. */
  edits = noEdits

  constructor(bytes: Buffer, paramSpans: Partial<Record<ParamName, Span>> = {}) {
    this.bytes = bytes
    this.paramSpans = paramSpans
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
    return wireOf(this.bytes, ...this.edits)
  }

  /** The same with further replacements, in order and apart from its own. */
  wireWith(...more: readonly Edit[]): Wire {
    if (this.edits.length === 0) return wireOf(this.bytes, ...more)
    return wireOf(this.bytes, ...merged(this.edits, more))
  }

  /** This message with further replacements; the bytes and spans are shared. */
  edited(...more: readonly Edit[]): Message {
    if (more.length === 0) return this
    // Member by member: calls pass through here, and Object.assign is ten times as slow.
    const copy = new Message(this.bytes, this.paramSpans)
    copy.kind = this.kind
    copy.method = this.method
    copy.id = this.id
    copy.isError = this.isError
    copy.params = this.params
    copy.result = this.result
    copy.error = this.error
    copy.progressToken = this.progressToken
    copy.metaSpans = this.metaSpans
    copy.resultSpans = this.resultSpans
    copy.edits = merged(this.edits, more)
    return copy
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
    return this.string(this.paramSpans[name])
  }

  /** A reserved member of `params._meta`, if it is a string. */
  metaString(name: MetaName): string | undefined {
    return this.string(this.metaSpans?.[name])
  }

  /** A known member of the result, if it is a string. */
  resultString(name: ResultName): string | undefined {
    return this.string(this.resultSpans?.[name])
  }

  /** The value at a span, if it is a string. */
  string(span: Span | undefined): string | undefined {
    if (span === undefined || this.bytes[span.start] !== 0x22) return undefined
    return JSON.parse(this.text(span)) as string
  }

  /** The whole message parsed, as it would be written; for the few the sidecar answers or rewrites itself. */
  parsed(): unknown {
    if (this.edits.length === 0) return JSON.parse(this.bytes.toString('utf8'))
    const { wire } = this
    const bytes = typeof wire === 'string' ? Buffer.from(wire, 'latin1') : Buffer.concat(wire)
    return JSON.parse(bytes.toString('utf8'))
  }
}

function merged(some: readonly Edit[], more: readonly Edit[]): readonly Edit[] {
  if (some.length === 0) return more
  const all: Edit[] = []
  let next = 0
  for (const edit of some) {
    while (next < more.length && (more[next] as Edit).start < edit.start) all.push(more[next++] as Edit)
    all.push(edit)
  }
  while (next < more.length) all.push(more[next++] as Edit)
  return all
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
