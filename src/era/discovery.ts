/** `server/discover` and `subscriptions/listen` in the name of a legacy server. */
import { metaKey } from '../core/envelope.ts'
import { elements, insertion, member } from '../core/json.ts'
import type { Message } from '../core/jsonrpc.ts'
import { modernVersions } from '../core/mcp.ts'
import type { InitializeResult } from '../core/types.ts'
import { textAsBinary } from '../core/wire.ts'

/** A DiscoverResult from what the server said when it was initialized. */
export function discoverResult({ capabilities, instructions, serverInfo }: InitializeResult): object {
  const { tasks: _, ...offered } = capabilities
  return {
    resultType: 'complete',
    supportedVersions: modernVersions,
    capabilities: offered,
    ...(typeof instructions === 'string' ? { instructions } : {}),
    ttlMs: 0,
    cacheScope: 'private',
    ...(serverInfo === undefined ? {} : { _meta: { [metaKey('serverInfo')]: serverInfo } }),
  }
}

/** What a client listens for. */
export interface Filter {
  readonly toolsListChanged?: true
  readonly promptsListChanged?: true
  readonly resourcesListChanged?: true
  readonly resourceSubscriptions?: readonly string[]
}

const listChanged = {
  toolsListChanged: 'tools',
  promptsListChanged: 'prompts',
  resourcesListChanged: 'resources',
} as const

/** Of one subscription. */
const maxResources = 1000

/** What of a client's wishes the server's capabilities allow. */
export function honoured(request: Message, capabilities: Readonly<Record<string, unknown>>): Filter {
  const wishes = request.paramSpans.notifications
  const has = (name: string, part: string): boolean =>
    (capabilities[name] as Record<string, unknown> | undefined)?.[part] === true
  const filter: Record<string, unknown> = {}
  for (const [wish, capability] of Object.entries(listChanged)) {
    const at = member(request.bytes, wishes, wish)
    if (at !== undefined && request.text(at) === 'true' && has(capability, 'listChanged')) filter[wish] = true
  }
  const resources = member(request.bytes, wishes, 'resourceSubscriptions')
  if (resources !== undefined && has('resources', 'subscribe')) {
    const uris = elements(request.bytes, resources).map((each) => request.string(each))
    const wanted = new Set(uris.filter((uri) => uri !== undefined))
    filter['resourceSubscriptions'] = [...wanted].slice(0, maxResources)
  }
  return filter
}

export function acknowledgement(filter: Filter, subscriptionId: string): string {
  const meta = `{${JSON.stringify(metaKey('subscriptionId'))}:${subscriptionId}}`
  const params = `{"notifications":${JSON.stringify(filter)},"_meta":${meta}}`
  return `{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":${params}}`
}

/** Whether a notification is one of those that were asked for. Updates are matched by whoever knows what is watched. */
export function listensFor(filter: Filter, method: string): boolean {
  switch (method) {
    case 'notifications/tools/list_changed':
      return filter.toolsListChanged === true
    case 'notifications/prompts/list_changed':
      return filter.promptsListChanged === true
    case 'notifications/resources/list_changed':
      return filter.resourcesListChanged === true
    case 'notifications/resources/updated':
      return filter.resourceSubscriptions !== undefined
  }
  return false
}

/**
 * A notification as part of a subscription.
 *
 * @param subscriptionId JSON text of the caller's id
 */
export function tagged(message: Message, subscriptionId: string): Message {
  // What stands there already is replaced by whoever sends it on.
  if (message.metaSpans?.subscriptionId !== undefined) return message
  const { bytes, params, paramSpans } = message
  const tag = `${JSON.stringify(metaKey('subscriptionId'))}:${subscriptionId}`
  const meta = paramSpans._meta
  if (meta !== undefined && bytes[meta.start] === 0x7b) return message.edited(insertion(bytes, meta, tag))
  if (params !== undefined && meta === undefined) {
    return message.edited(insertion(bytes, params, `"_meta":{${tag}}`))
  }
  const whole = { start: bytes.indexOf(0x7b), end: bytes.length }
  if (params === undefined) return message.edited(insertion(bytes, whole, `"params":{"_meta":{${tag}}}`))
  // A _meta that is no object holds nothing to keep.
  return meta === undefined ? message : message.edited({ ...meta, text: textAsBinary(`{${tag}}`) })
}
