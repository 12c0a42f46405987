/** The metadata that travels with each modern request (2026-07-28, basic/index, "General fields: _meta"). */

import type { Message } from './jsonrpc.ts'
import { latestModernVersion } from './mcp.ts'
import { type MetaName, metaPrefix } from './message.ts'

/** A reserved key of `_meta` as it is spelled there. */
export function metaKey(name: MetaName | 'serverInfo'): string {
  return metaPrefix + name
}

/** The `_meta` of a request of the sidecar's own. @param version the sidecar's own */
export function localEnvelope(version: string): Record<string, unknown> {
  return {
    [metaKey('protocolVersion')]: latestModernVersion,
    [metaKey('clientInfo')]: { name: 'mcp-sidecar', version },
    [metaKey('clientCapabilities')]: {},
  }
}

/** Which of the keys a request must have are missing, or not of their type. */
export function envelopeFaults(message: Message): string[] {
  const faults: string[] = []
  if (message.metaString('protocolVersion') === undefined) faults.push(metaKey('protocolVersion'))
  if (!isObject(message, 'clientCapabilities')) faults.push(metaKey('clientCapabilities'))
  const { clientInfo, logLevel } = message.metaSpans ?? {}
  if (clientInfo !== undefined && !isObject(message, 'clientInfo')) faults.push(metaKey('clientInfo'))
  if (logLevel !== undefined && message.metaString('logLevel') === undefined) faults.push(metaKey('logLevel'))
  return faults
}

function isObject(message: Message, name: MetaName): boolean {
  const span = message.metaSpans?.[name]
  return span !== undefined && message.bytes[span.start] === 0x7b
}

export type Capabilities = Readonly<Record<string, unknown>>

/** What the client declared for this request; nothing if it declared no object. */
export function clientCapabilities(message: Message): Capabilities {
  const span = message.metaSpans?.clientCapabilities
  if (span === undefined || message.bytes[span.start] !== 0x7b) return {}
  return JSON.parse(message.text(span)) as Capabilities
}

/** The client declared this extension for this request. */
export function declaresExtension(message: Message, name: string): boolean {
  const { extensions } = clientCapabilities(message)
  return typeof extensions === 'object' && extensions !== null && Object.hasOwn(extensions, name)
}
