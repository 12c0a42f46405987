/** What the sidecar knows of MCP's methods and versions. Unknown methods pass through untouched. */

/** Protocol versions of the handshake era that both legs accept, newest first. */
export const legacyVersions = ['2025-11-25', '2025-06-18', '2025-03-26', '2024-11-05'] as const
export const latestLegacyVersion = legacyVersions[0]

export function isLegacyVersion(version: string): boolean {
  return (legacyVersions as readonly string[]).includes(version)
}

/** Revisions without a handshake, newest first: what is advertised to modern clients and asked of modern servers. */
export const modernVersions = ['2026-07-28'] as const
export const latestModernVersion = modernVersions[0]

export function isModernVersion(version: string): boolean {
  return (modernVersions as readonly string[]).includes(version)
}

/** Revisions are dates, so later ones than we know are recognised too. */
export function namesModern(version: string): boolean {
  return /^\d{4}-\d{2}-\d{2}$/.test(version) && version >= latestModernVersion
}

/** Requests that 2026-07-28 has removed; a modern client gets -32601 for them, whatever the server could do. */
const removedMethods = new Set([
  'initialize',
  'ping',
  'logging/setLevel',
  'resources/subscribe',
  'resources/unsubscribe',
  'roots/list',
  'sampling/createMessage',
  'elicitation/create',
  'tasks/list',
  'tasks/result',
])

export function isRemovedMethod(method: string): boolean {
  return removedMethods.has(method)
}

/** The lists of a server, with the member that holds their entries. */
export const listMembers: Readonly<Record<string, string>> = {
  'tools/list': 'tools',
  'prompts/list': 'prompts',
  'resources/list': 'resources',
  'resources/templates/list': 'resourceTemplates',
}

/** The extension that lets a modern server answer with a task (SEP-2663). */
export const tasksExtension = 'io.modelcontextprotocol/tasks'

/** Batches exist in 2025-03-26 alone (basic/index, "Batching"). */
export const batchVersion = '2025-03-26'

/** Clients from this version on understand an SSE event with empty data (SEP-1699 priming). */
export function understandsPriming(version: string | undefined): boolean {
  return version !== undefined && version >= '2025-11-25'
}

/** Methods during which a server may ask the client for something. */
export function isInteractive(method: string): boolean {
  return method === 'tools/call' || method === 'prompts/get' || method === 'resources/read'
}

/** The same, with methods that are not known here: an extension may ask, too. */
export function mayAsk(method: string): boolean {
  return isInteractive(method) || !methods.has(method)
}

const methods = new Set([
  'initialize',
  'server/discover',
  'subscriptions/listen',
  'ping',
  'tools/list',
  'tools/call',
  'resources/list',
  'resources/templates/list',
  'resources/read',
  'resources/subscribe',
  'resources/unsubscribe',
  'prompts/list',
  'prompts/get',
  'completion/complete',
  'logging/setLevel',
  'tasks/get',
  'tasks/result',
  'tasks/list',
  'tasks/cancel',
  'tasks/update',
  'sampling/createMessage',
  'elicitation/create',
  'roots/list',
  'notifications/initialized',
  'notifications/cancelled',
  'notifications/progress',
  'notifications/message',
  'notifications/roots/list_changed',
  'notifications/tools/list_changed',
  'notifications/prompts/list_changed',
  'notifications/resources/list_changed',
  'notifications/resources/updated',
  'notifications/elicitation/complete',
  'notifications/tasks/status',
  'notifications/tasks',
  'notifications/subscriptions/acknowledged',
])

/** A method that only requests have. */
export function isRequestMethod(method: string): boolean {
  return methods.has(method) && !method.startsWith('notifications/')
}

/** The method as a metric label: a client chooses method names, so unknown ones share one label. */
export function methodLabel(method: string): string {
  return methods.has(method) ? method : 'other'
}

/** Severities of `notifications/message`, least severe first (RFC 5424 names). */
export const logLevels = [
  'debug',
  'info',
  'notice',
  'warning',
  'error',
  'critical',
  'alert',
  'emergency',
] as const

/** Whether a log message of this level is among those that a level asks for; unknown levels are among none. */
export function isLoggedAt(wanted: string | undefined, level: string | undefined): boolean {
  const levels: readonly (string | undefined)[] = logLevels
  return wanted !== undefined && levels.indexOf(level) >= levels.indexOf(wanted) && levels.includes(level)
}
