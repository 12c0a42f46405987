/** What a message of a client is about, read from its body: what rules, limits and the audit log go by. */
import { SidecarError } from './errors.ts'
import { elements, folded, members } from './json.ts'
import type { Message, Span } from './jsonrpc.ts'
import { isRequestMethod, listMembers } from './mcp.ts'

/** An object of the server that an operation uses. */
export interface Target {
  readonly type: 'tool' | 'prompt' | 'resource'
  /** The name; of a resource its URI. */
  readonly name: string
}

export interface Operation {
  /**
   * `use`: does something with the targets, each as `action` says. `list`: names objects; what comes back is to be
   * filtered. `task`: about a task, which belongs to the caller that made it. `free`: of the protocol, touches no
   * object. `unknown`: nobody here knows what it does.
   */
  readonly kind: 'use' | 'list' | 'task' | 'free' | 'unknown'
  /** Of `use`. */
  readonly action: 'tools/call' | 'resources/read' | 'prompts/get' | undefined
  /** Of `use`; empty when the message does not say, or only listens for changes of lists. */
  readonly targets: readonly Target[]
  /** Of `list`: the member of the result that holds the objects. */
  readonly list: string | undefined
}

const nothing: readonly Target[] = Object.freeze([])
const plain = (kind: Operation['kind'], list?: string): Operation =>
  Object.freeze({ kind, action: undefined, targets: nothing, list })

const free = plain('free')
const task = plain('task')
const unknown = plain('unknown')

const fixed = new Map<string, Operation>([
  ...Object.entries(listMembers).map(([method, list]): [string, Operation] => [method, plain('list', list)]),
  ...['initialize', 'ping', 'server/discover', 'logging/setLevel'].map((m): [string, Operation] => [m, free]),
  ...['tasks/get', 'tasks/result', 'tasks/list', 'tasks/cancel', 'tasks/update'].map(
    (method): [string, Operation] => [method, task],
  ),
])

/**
 * The operation of a message. Notifications and responses of a client are `free`.
 *
 * @throws ERR_PARAMS where readers of the body may differ about the object it names, ERR_INVALID_REQUEST for a request that
 *   was sent as a notification
 */
export function operationOf(message: Message): Operation {
  if (message.kind === 'notification' && isRequestMethod(message.method)) {
    // Some servers carry out whatever has a method, and nothing that limits or records calls would have seen it.
    throw new SidecarError('ERR_INVALID_REQUEST', { detail: 'a method of requests, sent without an id' })
  }
  if (message.kind !== 'request') return free
  switch (message.method) {
    case 'tools/call':
      return use('tools/call', 'tool', message.paramString('name'))
    case 'prompts/get':
      return use('prompts/get', 'prompt', message.paramString('name'))
    case 'resources/read':
    case 'resources/subscribe':
    case 'resources/unsubscribe':
      return use('resources/read', 'resource', message.paramString('uri'))
    case 'subscriptions/listen':
      return listening(message)
    case 'completion/complete':
      return completion(message)
  }
  return fixed.get(message.method) ?? unknown
}

function use(action: Operation['action'], type: Target['type'], name: string | undefined): Operation {
  // For a server in C it ends there, and is the name of another object than the one that is judged.
  if (type !== 'resource' && name?.includes('\0') === true)
    throw new SidecarError('ERR_PARAMS', { detail: `the name of a ${type} has a NUL in it` })
  return { kind: 'use', action, targets: name === undefined ? nothing : [{ type, name }], list: undefined }
}

/** Each resource it wants to hear of (2026-07-28, basic/patterns/subscriptions). */
function listening(message: Message): Operation {
  const targets = listenedFor(message, 'resourceSubscriptions').map(
    (name): Target => ({ type: 'resource', name }),
  )
  return targets.length === 0 ? free : { kind: 'use', action: 'resources/read', targets, list: undefined }
}

/**
 * What a `subscriptions/listen` names in one of its lists.
 *
 * @throws ERR_PARAMS where a server may read another list than is judged here: one that stands twice, is no array, or holds
 *   anything but texts. For `includes()` of JavaScript `"a"` and `["a"]` are the same, and so are `[["a"]]` and `["a"]` for
 *   a server that looks its objects up by them
 */
export function listenedFor(message: Message, list: 'resourceSubscriptions' | 'taskIds'): string[] {
  const { bytes } = message
  const at = once(message, message.paramSpans.notifications, list)
  if (at === undefined || message.text(at) === 'null') return []
  const names = elements(bytes, at).map((span) => message.string(span))
  if (bytes[at.start] === 0x5b && names.every((name) => name !== undefined)) return names
  throw new SidecarError('ERR_PARAMS', { detail: `${list} is no list of texts` })
}

/** What it completes an argument of (server/utilities/completion, "Reference types"). */
function completion(message: Message): Operation {
  const ref = once(message, message.params, 'ref')
  const text = (name: string): string | undefined => message.string(once(message, ref, name))
  switch (text('type')) {
    case 'ref/prompt':
      return use('prompts/get', 'prompt', text('name'))
    case 'ref/resource':
      return use('resources/read', 'resource', text('uri'))
  }
  return use('resources/read', 'resource', undefined)
}

function once(message: Message, object: Span | undefined, name: string): Span | undefined {
  if (object === undefined) return undefined
  const found = members(message.bytes, object).filter(({ key }) => folded(key) === name.toLowerCase())
  if (found.length > 1 || found.some(({ key }) => key !== name)) {
    const detail = `${JSON.stringify(name)} stands twice in its object, or in unusual letter case`
    throw new SidecarError('ERR_PARAMS', { detail })
  }
  return found[0]?.value
}
