/** What audit events are called, and how things end. */
import { errorTable, type SidecarError } from '../core/errors.ts'
import type { Outcome } from '../core/exchange.ts'
import type { MessageKind } from '../core/jsonrpc.ts'
import type { AuditType } from '../core/policy.ts'

export { type AuditType, auditTypes } from '../core/policy.ts'

/**
 * Of the log itself, never left out. `chain_resumed`: the line before was cut off by a crash. `audit_resumed`: the sink
 * had failed, or there was no room.
 */
export type ChainEventType = 'chain_resumed' | 'audit_resumed'

export type AuditOutcome =
  | 'success'
  /** The request was wrong, or the server answered it with an error. */
  | 'failure'
  /** Something here or in the server did not work. */
  | 'error'
  | 'denied'
  /** A tool's result says `isError`. */
  | 'application_error'
  | 'rate_limited'
  | 'timeout'
  | 'cancelled'

const byMethod: ReadonlyMap<string, AuditType> = new Map<string, AuditType>([
  ['initialize', 'mcp_initialize'],
  ['tools/call', 'mcp_tool_call'],
  ['tools/list', 'mcp_tools_list'],
  ['resources/read', 'mcp_resource_read'],
  ['resources/list', 'mcp_resources_list'],
  ['resources/templates/list', 'mcp_resources_list'],
  ['prompts/get', 'mcp_prompt_get'],
  ['prompts/list', 'mcp_prompts_list'],
  ['ping', 'mcp_ping'],
  ['logging/setLevel', 'mcp_logging'],
  ['completion/complete', 'mcp_completion'],
])

/** The type of the event about a message of a client. */
export function auditTypeOf(message: { readonly kind: MessageKind; readonly method: string }): AuditType {
  if (message.kind === 'notification') return 'mcp_notification'
  if (message.kind === 'response') return 'mcp_response'
  return byMethod.get(message.method) ?? 'mcp_request'
}

/**
 * How an exchange ended, as the audit log has it.
 *
 * @param applicationError the answer is a result that says `isError`
 */
export function auditOutcomeOf(
  outcome: Outcome,
  error: SidecarError | undefined,
  applicationError: boolean,
): AuditOutcome {
  if (error === undefined) {
    if (outcome === 'ok') return applicationError ? 'application_error' : 'success'
    if (outcome === 'cancelled') return 'cancelled'
    return 'failure'
  }
  switch (error.code) {
    case 'ERR_HOST':
    case 'ERR_ORIGIN':
    case 'ERR_AUTH_MISSING':
    case 'ERR_AUTH_INVALID':
    case 'ERR_DENIED':
    case 'ERR_SCOPE':
    // A tool that is filtered out answers as if there were none.
    case 'ERR_TOOL_UNKNOWN':
      return 'denied'
    case 'ERR_RATE_LIMITED':
      return 'rate_limited'
    case 'ERR_TIMEOUT':
    case 'ERR_SLOW':
      return 'timeout'
  }
  if (error.verdict !== undefined) return 'denied'
  return errorTable[error.code].status >= 500 ? 'error' : 'failure'
}
