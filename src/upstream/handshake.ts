import { SidecarError } from '../core/errors.ts'
import type { Message } from '../core/jsonrpc.ts'
import { localNotification, localRequest } from '../core/local.ts'
import { latestLegacyVersion } from '../core/mcp.ts'
import type { InitializeResult } from '../core/types.ts'
import type { Link } from './link.ts'
import type { ProcessContext } from './process.ts'

/**
 * What the sidecar declares for clients it does not know yet. Roots without listChanged: whose roots changed
 * could not be told.
 */
export const capabilitySuperset = {
  roots: {},
  sampling: { tools: {}, context: {} },
  elicitation: { form: {}, url: {} },
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
        const detail = `it refused initialize: ${quoted(parsed.error?.message)}`
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

/** A server may put anything where a text belongs. */
function quoted(text: unknown): string {
  return typeof text === 'string' ? text.slice(0, 200) : 'no protocolVersion'
}
