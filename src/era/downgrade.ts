/** What a modern server says, as clients of the handshake era understand it. */
import { metaKey } from '../core/envelope.ts'
import { elements, type Member, member, members } from '../core/json.ts'
import type { Message, Span } from '../core/jsonrpc.ts'
import { isInteractive, listMembers } from '../core/mcp.ts'
import { binary, type Edit } from '../core/wire.ts'
import { isObjectAt, reshaped, settled } from './splice.ts'

const cacheHints: ReadonlySet<string> = new Set(['ttlMs', 'cacheScope'])

/** The code of an error response, or undefined if it has none. */
export function errorCode({ bytes, error }: Message): number | undefined {
  const code = member(bytes, error, 'code')
  return code === undefined ? undefined : Number(bytes.toString('utf8', code.start, code.end))
}

const invalidParams = -32602
const missingResource = '-32002'

/**
 * An error as it is told to the client. A modern server has one code for a resource that does not exist and for params
 * it does not like; what `data.uri` or the words say is a missing resource gets the code that it had.
 */
export function legacyError(answer: Message, method: string): Message {
  const { bytes, error } = answer
  const code = member(bytes, error, 'code')
  if (method !== 'resources/read' || code === undefined || errorCode(answer) !== invalidParams) return answer
  const uri = answer.string(member(bytes, member(bytes, error, 'data'), 'uri'))
  const words = answer.string(member(bytes, error, 'message')) ?? ''
  if (uri === undefined && !/not found|unknown resource|no such|does(?: not|n't) exist/i.test(words))
    return answer
  return answer.edited({ ...code, text: missingResource })
}

/**
 * The result of a finished call without what only modern clients are told, and in a shape that the older schemas allow.
 *
 * @param answer without edits; its result is an object
 */
export function legacyResult(answer: Message, method: string): Message {
  const { bytes } = answer
  const result = answer.result as Span
  const parts = members(bytes, result)
  const isCall = method === 'tools/call'
  const knowsHints = isDefinedHere(method)
  const isUnstructured = ({ key, value }: Member): boolean =>
    isCall && key === 'structuredContent' && !isObjectAt(bytes, value)
  const unstructured = parts.findLast(isUnstructured)
  const added: string[] = []
  const edits: Edit[] = []
  if (unstructured !== undefined) addText(answer, parts, unstructured, added, edits)
  const meta = parts.find(({ key }) => key === '_meta')
  const emptied = meta !== undefined && holdsOnly(bytes, meta, metaKey('serverInfo'))
  if (meta !== undefined && !emptied) {
    edits.push(...reshaped(bytes, meta.value, ({ key }) => key === metaKey('serverInfo')))
  }
  const goes = (each: Member): boolean =>
    each.key === 'resultType' ||
    (knowsHints && cacheHints.has(each.key)) ||
    isUnstructured(each) ||
    (emptied && each.key === '_meta')
  edits.push(...reshaped(bytes, result, goes, added))
  if (method !== 'tools/list') return answer.edited(...inOrder(edits))
  const tools = toolEdits(bytes, member(bytes, result, 'tools'))
  const edited = answer.edited(...inOrder([...edits, ...tools]))
  // Whoever filters the list takes whole entries out, which must not hold edits then.
  return tools.length === 0 ? edited : settled(edited)
}

/** In results of other methods, `ttlMs` may be an extension's own. */
function isDefinedHere(method: string): boolean {
  return Object.hasOwn(listMembers, method) || isInteractive(method) || method === 'completion/complete'
}

/** Puts structured content that is no object into a block of text, unless the server has said it that way, too. */
function addText(
  answer: Message,
  parts: readonly Member[],
  structured: Member,
  added: string[],
  edits: Edit[],
): void {
  const { bytes } = answer
  const json = answer.text(structured.value)
  const compact = JSON.stringify(JSON.parse(json))
  const block = JSON.stringify({ type: 'text', text: json })
  const content = parts.findLast(({ key }) => key === 'content')?.value
  if (content === undefined) {
    added.push(`"content":[${block}]`)
    return
  }
  if (bytes[content.start] !== 0x5b) return
  const blocks = elements(bytes, content)
  const said = blocks.some((each) => {
    const text = answer.string(member(bytes, each, 'text'))
    return text === json || text === compact
  })
  if (said) return
  const at = blocks.at(-1)?.end ?? content.start + 1
  const comma = blocks.length === 0 ? '' : ','
  edits.push({ start: at, end: at, text: binary(Buffer.from(comma + block)) })
}

/** Output schemas for anything but objects are not allowed up to 2025-11-25; `execution` speaks of tasks. */
function toolEdits(bytes: Buffer, tools: Span | undefined): Edit[] {
  if (tools === undefined) return []
  return elements(bytes, tools).flatMap((tool) =>
    reshaped(
      bytes,
      tool,
      ({ key, value }) => key === 'execution' || (key === 'outputSchema' && !describesObject(bytes, value)),
    ),
  )
}

function describesObject(bytes: Buffer, schema: Span): boolean {
  const type = member(bytes, schema, 'type')
  return type !== undefined && JSON.parse(bytes.toString('utf8', type.start, type.end)) === 'object'
}

/** A notification without the mark of the subscription it came by. */
export function legacyNotification(message: Message): Message {
  const { bytes, params } = message
  const meta = message.paramSpans._meta
  if (!isObjectAt(bytes, params) || !isObjectAt(bytes, meta)) return message
  const mark = metaKey('subscriptionId')
  const own = members(bytes, params).find(({ key }) => key === '_meta')
  if (own !== undefined && holdsOnly(bytes, own, mark)) {
    return message.edited(...reshaped(bytes, params, ({ key }) => key === '_meta'))
  }
  return message.edited(...reshaped(bytes, meta, ({ key }) => key === mark))
}

/** An object with this member and no other. */
function holdsOnly(bytes: Buffer, { value }: Member, key: string): boolean {
  const keys = members(bytes, value)
  return keys.length > 0 && keys.every((each) => each.key === key)
}

function inOrder(edits: readonly Edit[]): Edit[] {
  return edits.toSorted((a, b) => a.start - b.start)
}
