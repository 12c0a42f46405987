/** What goes into the audit log beside messages: refusals before there is one, sessions, streams, processes, the sidecar itself. */
import { SidecarError } from '../core/errors.ts'
import type { Identified, Metrics, Principal, Received, Transport } from '../core/types.ts'
import type { Audit } from './audit.ts'
import type { AuditedRequest } from './audit-event.ts'
import { type AuditType, auditOutcomeOf } from './audit-type.ts'

type Details = Readonly<Record<string, string | number | boolean | undefined>>

export class Records {
  #audit: () => Audit | undefined

  /** @param audit as of {@link attach}; default: none, as while a sidecar is being built and somebody knocks at its proxy */
  constructor(audit: () => Audit | undefined = () => undefined) {
    this.#audit = audit
  }

  /** @param audit the one of the moment; undefined: nothing is recorded */
  attach(audit: () => Audit | undefined): void {
    this.#audit = audit
  }

  /** A request that never became a message; of one that could not be read as HTTP next to nothing is known. */
  readonly refusal = (
    error: SidecarError,
    refused: Pick<Received, 'requestId' | 'remoteAddress'> & Partial<Identified>,
  ): void => {
    const audit = this.#audit()
    if (audit === undefined) return
    const request: AuditedRequest = {
      requestId: refused.requestId,
      transport: refused.transport ?? 'streamable-http',
      remoteAddress: refused.remoteAddress,
      clientAddress: refused.clientAddress ?? refused.remoteAddress,
      httpMethod: refused.httpMethod ?? '',
      path: refused.path ?? '',
      headers: refused.headers ?? {},
    }
    const outcome = auditOutcomeOf(error.code, error, false)
    audit.record({ type: 'http_request', outcome, request, principal: refused.principal, error })
  }

  /** @throws ERR_AUDIT while nothing can be recorded and the audit log is configured to block */
  readonly mayOpen = (): void => {
    if (this.#audit()?.blocked === true)
      throw new SidecarError('ERR_AUDIT', { headers: { 'Retry-After': '5' } })
  }

  /** A long-lived stream was opened: the GET stream, an HTTP+SSE stream, a WebSocket. */
  readonly opened = (request: Identified): void => {
    const { principal } = request
    this.#audit()?.record({ type: 'sse_connection', outcome: 'success', request, principal })
  }

  readonly session = {
    started: (
      sessionId: string,
      principal: Principal,
      transport: Transport,
      version: string | undefined,
    ): void => {
      const details = { transport, version }
      this.#audit()?.record({ type: 'session_start', outcome: 'success', principal, sessionId, details })
    },
    ended: (sessionId: string, principal: Principal, transport: Transport, error: SidecarError): void => {
      const details = { transport, reason: error.detail ?? error.code }
      this.#audit()?.record({ type: 'session_end', outcome: 'success', principal, sessionId, details })
    },
  }

  /** The server asks a client for something. */
  asked(method: string, principal: Principal): void {
    this.#audit()?.record({ type: 'server_request', outcome: 'success', principal, details: { method } })
  }

  /** Of the sidecar and its server processes. */
  readonly event = (
    type: AuditType,
    details: Details = {},
    outcome: 'success' | 'error' | 'denied' = 'success',
  ): void => {
    this.#audit()?.record({ type, outcome, details })
  }
}

/** Metrics that leave a line in the audit log, too, for what has no other place to be seen from. */
export function recordingMetrics(metrics: Metrics, records: Records): Metrics {
  return {
    ...metrics,
    asked: (method, principal) => {
      metrics.asked(method, principal)
      records.asked(method, principal)
    },
    processStarted: () => {
      metrics.processStarted()
      records.event('process_start')
    },
    processExited: (reason) => {
      metrics.processExited(reason)
      records.event('process_exit', { reason }, reason === 'stopped' ? 'success' : 'error')
    },
  }
}
