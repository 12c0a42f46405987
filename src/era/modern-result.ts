/** What a legacy server answers, as a modern client takes it (2026-07-28, basic/index and server/utilities/caching). */
import { metaKey } from '../core/envelope.ts'
import { elements, insertion, type Member, member, members, removal } from '../core/json.ts'
import type { Message, Span } from '../core/jsonrpc.ts'
import { listMembers } from '../core/mcp.ts'
import { binary, type Edit } from '../core/wire.ts'

/** What a result gets beside its own members, as JSON text. */
export interface Additions {
  /** `"resultType":"complete"` and, on what can be cached, that it cannot be shared. */
  readonly plain: string
  readonly cacheable: string
  /** `"io.modelcontextprotocol/serverInfo":{...}`, or empty. */
  readonly serverInfo: string
}

/** @param info the server's own `serverInfo` */
export function additionsOf(info: unknown): Additions {
  const { name, version } = (typeof info === 'object' && info !== null ? info : {}) as Record<string, unknown>
  const named = typeof name === 'string' && typeof version === 'string'
  const plain = '"resultType":"complete"'
  return {
    plain,
    // What the sidecar cannot know to be shareable is not.
    cacheable: `${plain},"ttlMs":0,"cacheScope":"private"`,
    serverInfo: named ? `${JSON.stringify(metaKey('serverInfo'))}:${JSON.stringify(info)}` : '',
  }
}

function isCacheable(method: string): boolean {
  return Object.hasOwn(listMembers, method) || method === 'resources/read'
}

const replaced = ['resultType', 'ttlMs', 'cacheScope'] as const

/**
 * @param message the answer of the legacy server, as it came
 * @param request the request it answers
 * @returns undefined for a result that is no object
 */
export function asModernResult(
  message: Message,
  request: Message,
  additions: Additions,
): Message | undefined {
  if (message.isError) return asModernError(message, request)
  const { bytes, result, resultSpans } = message
  if (result === undefined || resultSpans === undefined) return undefined
  const edits: Edit[] = []
  const { serverInfo } = additions
  let front = isCacheable(request.method) ? additions.cacheable : additions.plain
  const meta = resultSpans._meta
  if (serverInfo !== '') {
    if (meta === undefined) front += `,"_meta":{${serverInfo}}`
    else if (bytes[meta.start] === 0x7b && member(bytes, meta, metaKey('serverInfo')) === undefined) {
      edits.push(insertion(bytes, meta, serverInfo))
    }
  }
  // Members that mean something only in the modern era would let a legacy server say what it cannot mean.
  if (replaced.some((name) => resultSpans[name] !== undefined)) {
    const parts = members(bytes, result)
    const goes = ({ key }: Member): boolean => (replaced as readonly string[]).includes(key)
    edits.push(...removal(parts, goes))
    const at = result.start + 1
    edits.push(
      parts.every(goes)
        ? { start: at, end: at, text: binary(Buffer.from(front)) }
        : insertion(bytes, result, front),
    )
  } else edits.push(insertion(bytes, result, front))
  if (request.method === 'tools/list') edits.push(...withoutTasks(message))
  if (edits.length > 1) edits.sort((a, b) => a.start - b.start || a.end - b.end)
  return message.edited(...edits)
}

/** Tools that can only run as tasks are left out, and of the others what they say about tasks. */
function withoutTasks(message: Message): Edit[] {
  const { bytes } = message
  // A name may be spelled with escapes.
  if (!bytes.includes('execution') && !bytes.includes('\\u')) return []
  const tools = member(bytes, message.result, 'tools')
  if (tools === undefined) return []
  const all = elements(bytes, tools)
  const required = new Set(all.filter((tool) => taskSupport(message, tool) === 'required'))
  const edits = removal(all, (tool) => required.has(tool))
  for (const tool of all) {
    if (required.has(tool)) continue
    edits.push(...removal(members(bytes, tool), ({ key }) => key === 'execution'))
  }
  return edits
}

function taskSupport(message: Message, tool: Span): string | undefined {
  const execution = member(message.bytes, tool, 'execution')
  return message.string(member(message.bytes, execution, 'taskSupport'))
}

const resourceNotFound = -32002
const invalidParams = '-32602'
const internalError = '-32603'
const urlsRequired = -32042
/** Codes to which 2026-07-28 gives a meaning that a legacy server cannot have had in mind. */
const modernCodes = new Set([-32020, -32021, -32022, urlsRequired])

function asModernError(message: Message, request: Message): Message {
  const { bytes } = message
  const at = member(bytes, message.error, 'code')
  if (at === undefined) return message
  const code = Number(message.text(at))
  if (modernCodes.has(code)) return message.edited({ ...at, text: internalError })
  if (code !== resourceNotFound) return message
  const edits: Edit[] = [{ ...at, text: invalidParams }]
  const uri = request.paramSpans.uri
  const data = member(bytes, message.error, 'data')
  if (uri !== undefined) {
    const text = `"uri":${request.text(uri)}`
    if (data === undefined) edits.push(insertion(bytes, message.error as Span, `"data":{${text}}`))
    else if (bytes[data.start] === 0x7b && member(bytes, data, 'uri') === undefined) {
      edits.push(insertion(bytes, data, text))
    }
  }
  return message.edited(...edits.sort((a, b) => a.start - b.start))
}

/** True for the error by which a legacy server asks the user to visit some URL first. */
export function asksForUrls(message: Message): boolean {
  if (!message.isError) return false
  const at = member(message.bytes, message.error, 'code')
  return at !== undefined && Number(message.text(at)) === urlsRequired
}
