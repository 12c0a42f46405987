import { envelopeFaults } from '../core/envelope.ts'
import { SidecarError } from '../core/errors.ts'
import type { Message } from '../core/jsonrpc.ts'
import {
  isLegacyVersion,
  isModernVersion,
  isRemovedMethod,
  logLevels,
  modernVersions,
  namesModern,
} from '../core/mcp.ts'
import type { Draft, Handler } from '../core/pipeline.ts'
import type { Connection, Decoded, Era, Parsed } from '../core/types.ts'
import { checkStandardHeaders } from './headers.ts'

/**
 * The layer that says in which era a message speaks, by its body first, and refuses what that era does not
 * allow (2026-07-28, basic/transports/streamable-http and basic/versioning).
 *
 * @throws ERR_VERSION, ERR_HEADER_MISMATCH, ERR_ENVELOPE, ERR_PROTOCOL_VERSION, ERR_METHOD_UNKNOWN,
 *   ERR_INVALID_REQUEST
 */
export function classify(parsed: Parsed, next: Handler<Decoded>): void | Promise<void> {
  const decoded = parsed as Draft<Decoded>
  decoded.era = eraOf(parsed)
  if (decoded.era === 'modern') checkModern(parsed)
  return next(decoded)
}

function eraOf({ transport, message, headers, connection }: Parsed): Era {
  if (transport === 'http-sse') return 'legacy'
  if (connection !== undefined) return connectionEra(message, connection)
  if (message.metaSpans?.protocolVersion !== undefined) return 'modern'
  const version = headers['mcp-protocol-version']
  if (typeof version === 'string' && namesModern(version)) return 'modern'
  // Initialize negotiates; its header, if a client sends one, says nothing yet.
  if (message.method !== 'initialize') checkLegacyVersion(version)
  return 'legacy'
}

/** The first message but discover, which a client of either era may send to find out, settles it. */
function connectionEra(message: Message, connection: Connection): Era {
  const modern = message.metaSpans?.protocolVersion !== undefined
  if (connection.era === 'legacy' && modern && message.method !== 'server/discover') {
    throw new SidecarError('ERR_INVALID_REQUEST', {
      detail: 'a modern request on a connection with a session',
    })
  }
  if (connection.era !== undefined) return connection.era
  if (modern && message.method !== 'server/discover') connection.era = 'modern'
  if (!modern && message.method === 'initialize') connection.era = 'legacy'
  return modern ? 'modern' : 'legacy'
}

/** @throws ERR_VERSION if an MCP-Protocol-Version header names a version not spoken here (2025-06-18 and later) */
function checkLegacyVersion(header: string | string[] | undefined): void {
  if (header === undefined || (typeof header === 'string' && isLegacyVersion(header))) return
  throw new SidecarError('ERR_VERSION', { detail: `MCP-Protocol-Version ${JSON.stringify(header)}` })
}

function checkModern({ message, transport, headers }: Parsed): void {
  // Core defines no rules for notifications; they are accepted whatever they carry.
  if (message.kind === 'notification') return
  if (message.kind === 'response') {
    throw new SidecarError('ERR_INVALID_REQUEST', { detail: 'a response; modern servers ask nothing' })
  }
  const overHttp = transport === 'streamable-http'
  const version = message.metaString('protocolVersion')
  if (overHttp && version !== undefined && headers['mcp-protocol-version'] !== version) {
    const header = 'MCP-Protocol-Version'
    throw new SidecarError('ERR_HEADER_MISMATCH', {
      detail: `${header} is not the version in _meta`,
      data: { header },
    })
  }
  const faults = envelopeFaults(message)
  if (version === undefined || faults.length > 0) {
    throw new SidecarError('ERR_ENVELOPE', { detail: faults.join(', '), data: { missing: faults } })
  }
  if (!isModernVersion(version)) {
    const data = { supported: modernVersions, requested: version.slice(0, 100) }
    throw new SidecarError('ERR_PROTOCOL_VERSION', { detail: JSON.stringify(data.requested), data })
  }
  if (overHttp) checkStandardHeaders(message, headers)
  const level = message.metaString('logLevel')
  if (level !== undefined && !(logLevels as readonly string[]).includes(level)) {
    throw new SidecarError('ERR_PARAMS', { detail: 'an unknown logLevel', data: { allowed: logLevels } })
  }
  if (isRemovedMethod(message.method))
    throw new SidecarError('ERR_METHOD_UNKNOWN', { detail: message.method })
}
