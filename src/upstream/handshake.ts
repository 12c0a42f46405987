import { SidecarError } from '../core/errors.ts'
import type { Message } from '../core/jsonrpc.ts'
import { localNotification, localRequest } from '../core/local.ts'
import { latestLegacyVersion } from '../core/mcp.ts'
import type { Link } from './link.ts'
import type { ProcessContext } from './process.ts'

/** What a server says of itself in its InitializeResult; unknown members are kept. */
export interface InitializeResult {
  protocolVersion: string
  capabilities: Record<string, unknown>
  serverInfo?: { name?: unknown; version?: unknown }
  [member: string]: unknown
}

/** The client half of the handshake as the sidecar's own, for processes that no single client initializes. */
export function handshake(
  link: Link,
  clientCapabilities: object,
  version: string,
  timeoutMs: number,
): Promise<InitializeResult> {
  return new Promise((resolve, reject) => {
    const message = localRequest('initialize', {
      protocolVersion: latestLegacyVersion,
      capabilities: clientCapabilities,
      clientInfo: { name: 'mcp-sidecar', version },
    })
    const answer = (answered: Message): void => {
      const parsed = answered.parsed() as {
        result?: Partial<InitializeResult>
        error?: { message?: unknown }
      }
      const { result } = parsed
      if (typeof result?.protocolVersion !== 'string') {
        const detail = `it refused initialize: ${String(parsed.error?.message ?? 'no protocolVersion')}`
        reject(new SidecarError('ERR_UPSTREAM_MESSAGE', { detail }))
        return
      }
      link.send(localNotification('notifications/initialized'))
      const capabilities = typeof result.capabilities === 'object' ? (result.capabilities ?? {}) : {}
      resolve({ ...result, protocolVersion: result.protocolVersion, capabilities })
    }
    const deadline = { timeoutMs, maxMs: timeoutMs, inputMs: timeoutMs }
    link.call({ message, deadline, reachable: false, progress: () => {}, answer, fail: reject }, undefined)
  })
}

export function logServer({ log }: ProcessContext, { serverInfo, protocolVersion }: InitializeResult): void {
  const fields = { server: serverInfo?.name, serverVersion: serverInfo?.version, protocolVersion }
  log.info(fields, 'the MCP server answers')
}
