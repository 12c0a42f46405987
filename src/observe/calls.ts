import { SidecarError } from '../core/errors.ts'
import { member } from '../core/json.ts'
import type { Message } from '../core/jsonrpc.ts'
import type { Handler, Layer } from '../core/pipeline.ts'
import type { Clock, Decoded, Logger, Metrics, Parsed, Permitted, Sessions } from '../core/types.ts'
import type { Audit } from './audit.ts'
import { auditOutcomeOf, auditTypeOf } from './audit-type.ts'

/** Clients choose method names; so much of one is logged. */
const maxMethod = 100
const maxDetail = 300

export interface CallObservers {
  readonly clock: Clock
  readonly log: Logger
  readonly metrics: Metrics
  /** The one of the moment; undefined: nothing is recorded. */
  readonly audit: () => Audit | undefined
  /** Where clients introduced themselves whose messages do not say who they are. */
  readonly sessions: Pick<Sessions, 'clientInfo'>
}

/**
 * The layer around all others that see messages: every request leaves one metric and one log line, and every message one
 * line of the audit log, however it ends.
 *
 * @throws ERR_AUDIT while nothing can be recorded and the audit log is configured to block
 */
export function observeCalls({ clock, log, metrics, audit, sessions }: CallObservers) {
  return (parsed: Parsed, next: Handler<Parsed>): void | Promise<void> => {
    const { message } = parsed
    const records = audit()
    if (message.kind !== 'request' && records === undefined) return next(parsed)
    const startedAt = clock.now()
    let answer: Message | undefined
    if (records !== undefined && message.kind === 'request') {
      // The first that was pushed sees the answer last, as the client does.
      parsed.exchange.onAnswer((filtered) => {
        answer = filtered
        return filtered
      })
    }
    parsed.exchange.onSettled((outcome, error) => {
      const ms = clock.now() - startedAt
      if (message.kind === 'request') {
        metrics.call(message.method, outcome, ms / 1000)
        log.info(
          {
            requestId: parsed.requestId,
            method: message.method.slice(0, maxMethod),
            outcome,
            // Why, for whoever runs this; the client learns the code alone.
            ...(error?.detail === undefined ? {} : { detail: error.detail.slice(0, maxDetail) }),
            ms: Math.round(ms * 10) / 10,
            principal: parsed.principal.id,
            transport: parsed.transport,
            // Known by then, unless it was refused for what it claims to be.
            era: (parsed as Partial<Decoded>).era,
          },
          'call',
        )
      }
      // The one in force by then: after a reload that before it is closed.
      const inForce = audit()
      if (inForce === undefined) return
      const { operation, permit } = parsed as Partial<Permitted>
      inForce.record({
        type: auditTypeOf(message),
        outcome: auditOutcomeOf(outcome, error, answer !== undefined && saysError(answer)),
        request: parsed,
        principal: parsed.principal,
        message,
        operation,
        permit,
        error,
        sessionId: parsed.sessionId,
        clientInfo: sessions.clientInfo(parsed),
        rpcCode: answer === undefined ? undefined : rpcCodeOf(answer),
        durationMs: ms,
        responseBytes: answer?.bytes.length,
        arguments: () => textOf(message, message.paramSpans.arguments ?? message.params),
        answer: () => (answer === undefined ? undefined : textOf(answer, answer.result ?? answer.error)),
      })
    })
    // What is under way may still be cancelled and answered.
    if (records?.blocked === true && message.kind === 'request') {
      throw new SidecarError('ERR_AUDIT', { headers: { 'Retry-After': '5' } })
    }
    return next(parsed)
  }
}

/** The layer that counts by which method callers come in. */
export function countCallers<I extends Pick<Parsed, 'principal'>>(metrics: Metrics): Layer<I, I> {
  return (identified, next) => {
    metrics.authenticated(identified.principal.method)
    return next(identified)
  }
}

/** The result of a tool that did not do what it should. */
function saysError(answer: Message): boolean {
  const span = answer.resultSpans?.isError
  return span !== undefined && answer.bytes[span.start] === 0x74
}

function rpcCodeOf(answer: Message): number | undefined {
  const span = member(answer.bytes, answer.error, 'code')
  const code = span === undefined ? Number.NaN : Number(answer.text(span))
  return Number.isInteger(code) ? code : undefined
}

function textOf(message: Message, span: { readonly start: number; readonly end: number } | undefined) {
  return span === undefined ? undefined : message.bytes.subarray(span.start, span.end)
}
