/** What a modern server asks for in a result that is `input_required`, as requests to a client of the handshake era. */
import { SidecarError } from '../core/errors.ts'
import { member, members } from '../core/json.ts'
import { type Message, readMessages, type Span } from '../core/jsonrpc.ts'
import type { LegacyClient } from './envelope.ts'
import { isObjectAt, keySpelling, reshaped, spliced } from './splice.ts'

export type InputMethod = 'elicitation/create' | 'sampling/createMessage' | 'roots/list'

export interface InputRequest {
  /** As the server spelled it, quotes included. */
  readonly key: string
  /** Of the request to the client. */
  readonly id: number
  readonly method: InputMethod
  readonly request: Message
  /** The client declared that it can answer this. */
  readonly possible: boolean
}

export interface InputRequired {
  readonly requests: readonly InputRequest[]
  /** JSON text. */
  readonly requestState: string | undefined
}

/** How the requests of one call are named. */
export interface Naming {
  /** The id of the first; the others count up. */
  readonly firstId: number
  /** Begins each elicitationId; unique among all sessions. */
  readonly elicitations: string
}

export const maxQuestions = 100

const inputMethods: ReadonlySet<string> = new Set<InputMethod>([
  'elicitation/create',
  'sampling/createMessage',
  'roots/list',
])

const unusable = (detail: string): SidecarError =>
  new SidecarError('ERR_UPSTREAM_MESSAGE', { detail: `input_required with ${detail}` })

/**
 * @param answer without edits
 * @throws ERR_UPSTREAM_MESSAGE if it cannot be put to any client
 */
export function readInputRequired(answer: Message, client: LegacyClient, naming: Naming): InputRequired {
  const { bytes } = answer
  const { inputRequests, requestState } = answer.resultSpans ?? {}
  if (requestState !== undefined && bytes[requestState.start] !== 0x22) {
    throw unusable('a requestState that is no string')
  }
  if (inputRequests !== undefined && !isObjectAt(bytes, inputRequests)) {
    throw unusable('inputRequests that are no object')
  }
  const entries = inputRequests === undefined ? [] : members(bytes, inputRequests)
  if (entries.length > maxQuestions) throw unusable(`more than ${maxQuestions} inputRequests`)
  if (entries.length === 0 && requestState === undefined)
    throw unusable('neither inputRequests nor requestState')
  if (new Set(entries.map(({ key }) => key)).size < entries.length) throw unusable('a key that stands twice')
  const requests = entries.map((entry, at) => {
    const id = naming.firstId + at
    const request = requestOf(bytes.subarray(entry.value.start, entry.value.end), id, naming)
    const method = request.method as InputMethod
    return { key: keySpelling(bytes, entry), id, method, request, possible: isPossible(request, client) }
  })
  return { requests, requestState: requestState === undefined ? undefined : answer.text(requestState) }
}

/** The entry with everything in it that is the server's own, and what makes it a request. */
function requestOf(entry: Buffer, id: number, naming: Naming): Message {
  const whole: Span = { start: 0, end: entry.length }
  if (!isObjectAt(entry, whole)) throw unusable('an entry that is no object')
  const params = member(entry, whole, 'params')
  const isUrl =
    parsedAt(entry, member(entry, whole, 'method')) === 'elicitation/create' &&
    modeOf(entry, params) === 'url'
  const edits = reshaped(entry, whole, ({ key }) => key === 'jsonrpc' || key === 'id', [
    '"jsonrpc":"2.0"',
    `"id":${id}`,
  ])
  if (isObjectAt(entry, params)) {
    const elicitation = isUrl ? [`"elicitationId":${JSON.stringify(`${naming.elicitations}-${id}`)}`] : []
    // A client that knows tasks would answer with one.
    const goes = ({ key }: { key: string }): boolean => key === 'task' || (isUrl && key === 'elicitationId')
    edits.push(...reshaped(entry, params, goes, elicitation))
  }
  const request = readRequest(spliced(entry, edits))
  if (!inputMethods.has(request.method)) throw unusable('an entry of another method')
  if (request.params === undefined && request.method !== 'roots/list')
    throw unusable('an entry without params')
  return request
}

function readRequest(text: Buffer): Message {
  let request: Message | undefined
  try {
    request = readMessages(text).messages[0]
  } catch (thrown) {
    throw unusable(`an entry that is no request: ${SidecarError.from(thrown).detail}`)
  }
  if (request?.kind !== 'request') throw unusable('an entry without a method')
  return request
}

/** The mode of an elicitation; what is no string is none that a client knows. */
function modeOf(bytes: Buffer, params: Span | undefined): unknown {
  return parsedAt(bytes, member(bytes, params, 'mode')) ?? 'form'
}

function parsedAt(bytes: Buffer, span: Span | undefined): unknown {
  return span === undefined ? undefined : JSON.parse(bytes.toString('utf8', span.start, span.end))
}

function isPossible({ bytes, method, params }: Message, { capabilities }: LegacyClient): boolean {
  const { elicitation, sampling, roots } = capabilities as Record<string, Record<string, unknown> | undefined>
  switch (method) {
    case 'roots/list':
      return roots !== undefined
    case 'sampling/createMessage': {
      const usesTools = ['tools', 'toolChoice'].some((key) => member(bytes, params, key) !== undefined)
      return sampling !== undefined && (!usesTools || sampling['tools'] !== undefined)
    }
    default: {
      if (elicitation === undefined) return false
      const mode = modeOf(bytes, params)
      // Neither mode declared means forms.
      if (mode === 'form') return elicitation['form'] !== undefined || elicitation['url'] === undefined
      return mode === 'url' && elicitation['url'] !== undefined
    }
  }
}
