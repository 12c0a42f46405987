/** The answer to initialize in the name of a server that knows no handshake. */
import { metaKey } from '../core/envelope.ts'
import { isLegacyVersion, latestLegacyVersion, tasksExtension } from '../core/mcp.ts'
import type { DiscoverResult } from '../core/types.ts'

/** Members of a DiscoverResult that mean nothing to clients of the handshake era. */
const modernMembers = ['supportedVersions', 'resultType', 'ttlMs', 'cacheScope', '_meta']

/** The client's version if both sides of the sidecar know it, else the newest of the handshake era. */
export function negotiatedVersion(requested: string | undefined): string {
  return requested !== undefined && isLegacyVersion(requested) ? requested : latestLegacyVersion
}

export function initializeResult(discovered: DiscoverResult, protocolVersion: string): object {
  const rest = without(discovered, modernMembers)
  const meta = isObject(discovered['_meta']) ? discovered['_meta'] : {}
  const serverInfo = meta[metaKey('serverInfo')]
  const others = without(meta, [metaKey('serverInfo')])
  return {
    ...rest,
    protocolVersion,
    capabilities: legacyCapabilities(discovered.capabilities),
    serverInfo: isImplementation(serverInfo) ? serverInfo : { name: 'unknown', version: '0' },
    ...(Object.keys(others).length === 0 ? {} : { _meta: others }),
  }
}

/** Without tasks, which the two eras speak of in different ways. */
function legacyCapabilities(capabilities: Record<string, unknown>): object {
  const rest = without(capabilities, ['tasks', 'extensions'])
  if (!isObject(capabilities['extensions'])) return rest
  const extensions = without(capabilities['extensions'], [tasksExtension])
  return Object.keys(extensions).length === 0 ? rest : { ...rest, extensions }
}

function without(object: Record<string, unknown>, keys: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(Object.entries(object).filter(([key]) => !keys.includes(key)))
}

function isImplementation(value: unknown): boolean {
  return isObject(value) && typeof value['name'] === 'string' && typeof value['version'] === 'string'
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
