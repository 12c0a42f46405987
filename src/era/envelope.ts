/** A request of the handshake era as one that stands alone: what initialize said travels with each. */
import { type Capabilities, metaKey } from '../core/envelope.ts'
import { member, members } from '../core/json.ts'
import type { Message, Span } from '../core/jsonrpc.ts'
import { isInteractive, isModernVersion, latestModernVersion, tasksExtension } from '../core/mcp.ts'
import { metaNames } from '../core/message.ts'
import type { DiscoverResult } from '../core/types.ts'
import { binary, type Edit } from '../core/wire.ts'
import { isObjectAt, reshaped, spliced } from './splice.ts'

/** What a client of the handshake era said of itself in initialize. */
export interface LegacyClient {
  /** Negotiated. */
  readonly version: string
  /** As a modern server may read them. */
  readonly capabilities: Capabilities
  /** The same as the client spelled it. */
  readonly capabilitiesText: string
  /** JSON text; undefined if it is none that a modern server has to accept. */
  readonly info: string | undefined
}

/** What a retry adds to the request it repeats. */
export interface Retry {
  /** JSON text. */
  readonly inputResponses: string | undefined
  /** JSON text. */
  readonly requestState: string | undefined
}

/** The first version whose clients know elicitation by URL. */
const urlElicitationSince = '2025-11-25'

/** Capabilities that are objects; servers may refuse a request in which they are something else. */
const objectCapabilities = new Set(['roots', 'sampling', 'elicitation', 'experimental', 'extensions'])

/** What a client may not say itself: on its requests these are ours. */
const envelopeKeys: ReadonlySet<string> = new Set(metaNames.map(metaKey))

/** @param version the negotiated one */
export function readClient(initialize: Message, version: string): LegacyClient {
  const { bytes, params } = initialize
  const declared = member(bytes, params, 'capabilities')
  const capabilitiesText = isObjectAt(bytes, declared) ? cleaned(bytes, declared, version) : '{}'
  const info = member(bytes, params, 'clientInfo')
  return {
    version,
    capabilities: JSON.parse(capabilitiesText) as Capabilities,
    capabilitiesText,
    info: isImplementation(initialize, info) ? initialize.text(info) : undefined,
  }
}

/** Without what a modern server must not rely on: tasks, news of changed roots, and URLs that the version lacks. */
function cleaned(bytes: Buffer, declared: Span, version: string): string {
  const text = bytes.subarray(declared.start, declared.end)
  const whole: Span = { start: 0, end: text.length }
  const oldElicitation = version < urlElicitationSince
  const edits: Edit[] = []
  for (const { key, value } of members(text, whole)) {
    if (key === 'roots') edits.push(...reshaped(text, value, (each) => each.key === 'listChanged'))
    if (key === 'extensions') edits.push(...reshaped(text, value, (each) => each.key === tasksExtension))
    if (key === 'elicitation' && oldElicitation) {
      edits.push(...reshaped(text, value, (each) => each.key === 'url'))
    }
  }
  const goes = ({ key, value }: { key: string; value: Span }): boolean =>
    key === 'tasks' ||
    (objectCapabilities.has(key) && text[value.start] !== 0x7b) ||
    // What is left of it would mean forms.
    (key === 'elicitation' && oldElicitation && !hasForms(text, value))
  const removals = reshaped(text, whole, goes)
  return spliced(text, [...removals, ...outside(removals, edits)]).toString('utf8')
}

/** The edits that are not inside of what is removed; both in order, so that one pass is enough. */
function outside(removals: readonly Edit[], edits: readonly Edit[]): Edit[] {
  let next = 0
  return edits.filter((edit) => {
    while (next < removals.length && (removals[next] as Edit).end < edit.end) next++
    const removal = removals[next]
    return removal === undefined || edit.start < removal.start || edit.end > removal.end
  })
}

function hasForms(bytes: Buffer, elicitation: Span): boolean {
  const keys = members(bytes, elicitation).map(({ key }) => key)
  return keys.includes('form') || !keys.includes('url')
}

function isImplementation(message: Message, info: Span | undefined): info is Span {
  const { bytes } = message
  return ['name', 'version'].every((key) => message.string(member(bytes, info, key)) !== undefined)
}

/**
 * The members of `_meta` that each request of this client gets.
 *
 * @param logLevel the least severe log message that it wants; undefined for none
 */
export function envelopeOf(
  client: LegacyClient,
  { supportedVersions }: DiscoverResult,
  logLevel: string | undefined,
): string[] {
  const version = supportedVersions.find(isModernVersion) ?? latestModernVersion
  return [
    `"${metaKey('protocolVersion')}":"${version}"`,
    ...(client.info === undefined ? [] : [`"${metaKey('clientInfo')}":${client.info}`]),
    `"${metaKey('clientCapabilities')}":${client.capabilitiesText}`,
    ...(logLevel === undefined ? [] : [`"${metaKey('logLevel')}":${JSON.stringify(logLevel)}`]),
  ]
}

/**
 * The request as a modern server gets it. Keys of `_meta` that are the client's own survive; those of the envelope it
 * cannot set, and params that another era gives a meaning (`task`, what belongs to a retry) are taken out.
 *
 * @param request without edits
 * @param envelope from {@link envelopeOf}
 */
export function enveloped(request: Message, envelope: readonly string[], retry?: Retry): Message {
  const { bytes, method, params } = request
  const meta = request.paramSpans._meta
  const added: string[] = []
  const edits: Edit[] = []
  if (meta === undefined) added.push(`"_meta":{${envelope.join(',')}}`)
  else if (bytes[meta.start] === 0x7b) {
    // A token of null is none, and not valid here.
    const goes = ({ key }: { key: string }): boolean =>
      envelopeKeys.has(key) || (key === 'progressToken' && request.progressToken === undefined)
    edits.push(...reshaped(bytes, meta, goes, envelope))
  } else edits.push({ ...meta, text: binary(Buffer.from(`{${envelope.join(',')}}`)) })
  if (retry?.inputResponses !== undefined) added.push(`"inputResponses":${retry.inputResponses}`)
  if (retry?.requestState !== undefined) added.push(`"requestState":${retry.requestState}`)
  if (params === undefined) {
    const at = (request.id as Span).end
    edits.push({ start: at, end: at, text: binary(Buffer.from(`,"params":{${added.join(',')}}`)) })
  } else {
    const ours = isInteractive(method) ? callParams : noParams
    edits.push(...reshaped(bytes, params, ({ key }) => ours.has(key), added))
  }
  const copy = request.edited(...edits.toSorted((a, b) => a.start - b.start))
  // What they told of has been taken out.
  copy.metaSpans = undefined
  return copy
}

/** Params of an interactive call that a client of the handshake era cannot mean as a modern server would read them. */
const callParams: ReadonlySet<string> = new Set(['task', 'inputResponses', 'requestState'])
const noParams: ReadonlySet<string> = new Set()

/** A request of our own on behalf of a client; the id is a place holder. */
export function listenRequest(envelope: readonly string[], filter: object): string {
  const params = `{"_meta":{${envelope.join(',')}},"notifications":${JSON.stringify(filter)}}`
  return `{"jsonrpc":"2.0","id":0,"method":"subscriptions/listen","params":${params}}`
}
