import { SidecarError } from '../core/errors.ts'
import type { AnswerFilter } from '../core/exchange.ts'
import { type Operation, operationOf } from '../core/operation.ts'
import type { Draft, Layer } from '../core/pipeline.ts'
import type { AuthzPolicy } from '../core/policy.ts'
import { Throttle } from '../core/throttle.ts'
import type { Clock, Decoded, Logger, Permit, Permitted, Verdict } from '../core/types.ts'
import { privately, withheld } from './answer.ts'
import { compileCapabilities } from './capabilities.ts'
import { checkAuthz } from './check.ts'
import type { Decider } from './decider.ts'
import { AuthzPolicyError, quoted } from './fault.ts'
import { createJudge } from './judge.ts'
import { filteredList } from './list-filter.ts'
import { free } from './permit-all.ts'
import { compileScopes, type ScopeContext } from './scopes.ts'
import { compileToolsFilter } from './tools-filter.ts'
import { isTreacherous } from './uris.ts'

export interface AuthzContext extends ScopeContext {
  readonly clock: Clock
  readonly log: Logger
  /** Of `policy.cedar`; one more layer. */
  readonly cedar: Decider | undefined
}

/** Log lines a second about answers of the server that cannot be filtered. */
const warningsPerSecond = 1

/**
 * The layer that decides whether the caller may do this, by the body and before it is translated. Each part of the
 * policy must permit, in this order: capabilities, tools filter, scopes, each layer of rules, Cedar. Answers that name
 * objects lose those that the caller may not use. Without a policy every authenticated caller may do everything.
 *
 * Once there are rules, what none of them grants is denied; under any policy, so are methods that nobody here knows:
 * they may do what a filter, a scope or a switch is to prevent. Always allowed
 * are the handshake, `ping`, `logging/setLevel`, lists (which are filtered), methods of tasks (whose owners are known
 * elsewhere), and notifications.
 *
 * The layer throws ERR_PARAMS, ERR_UNSUPPORTED, ERR_METHOD_UNKNOWN, ERR_TOOL_UNKNOWN, ERR_SCOPE, ERR_DENIED.
 *
 * @throws AuthzPolicyError for a policy that cannot be carried out
 */
export function createAuthorizer(policy: AuthzPolicy, context: AuthzContext): Layer<Decoded, Permitted> {
  const faults = checkAuthz(policy)
  if (faults.length > 0) throw new AuthzPolicyError(faults)
  if ((policy.cedar === undefined) !== (context.cedar === undefined))
    throw new TypeError('a Cedar policy and what decides by it come together')
  const guard = compileGuard(policy, context)
  return (decoded, next) => {
    const permitted = decoded as Draft<Permitted>
    permitted.operation = operationOf(decoded.message)
    permitted.permit = guard === undefined ? free : guard(decoded, permitted.operation)
    return next(permitted)
  }
}

type Guard = (request: Decoded, operation: Operation) => Permit

function compileGuard(policy: AuthzPolicy, context: AuthzContext): Guard | undefined {
  const capabilities =
    policy.capabilities === undefined ? undefined : compileCapabilities(policy.capabilities)
  const filter = policy.toolsFilters.length === 0 ? undefined : compileToolsFilter(policy.toolsFilters)
  const scopes = policy.scopes.length === 0 ? undefined : compileScopes(policy, context)
  const judge = createJudge(policy, context)
  if (capabilities === undefined && filter === undefined && scopes === undefined && judge === undefined)
    return undefined

  const configured = [
    ...(capabilities === undefined ? [] : ['capabilities']),
    ...(filter === undefined ? [] : ['tools-filter']),
    ...(scopes === undefined ? [] : ['scopes']),
    ...(judge?.names ?? []),
  ].join(', ')
  const warnings = new Throttle(warningsPerSecond)
  /** A filter that fails lets nothing through. */
  const guarded = ({ requestId, message }: Decoded, filtered: AnswerFilter): AnswerFilter => {
    return (answer) => {
      try {
        return filtered(answer)
      } catch (thrown) {
        const detail = thrown instanceof Error ? thrown.message : String(thrown)
        const suppressed = warnings.take(context.clock.now())
        if (suppressed !== false) {
          const { method } = message
          context.log.warn({ requestId, method, detail, suppressed }, 'an answer cannot be filtered')
        }
        return withheld(answer, requestId)
      }
    }
  }
  const listFilter = (request: Decoded, list: string): AnswerFilter => {
    if (judge === undefined && (filter === undefined || list !== 'tools')) return privately
    return (answer) => {
      const mayList = judge?.listing(request)
      return filteredList(answer, list, (item) => {
        if (item.type === 'tool' && filter?.has(item.name) === false) return false
        return mayList === undefined || mayList(item)
      })
    }
  }
  const answerFilter = (request: Decoded, operation: Operation): AnswerFilter | undefined => {
    const { kind, method } = request.message
    if (kind !== 'request') return undefined
    if (operation.list !== undefined) return listFilter(request, operation.list)
    switch (method) {
      case 'resources/read':
        return privately
      case 'initialize':
        return capabilities?.advertise
      case 'server/discover':
        return capabilities === undefined ? privately : (answer) => privately(capabilities.advertise(answer))
    }
    return undefined
  }

  return (request, operation) => {
    checkKind(request)
    if (capabilities !== undefined) {
      capabilities.permit(request, operation)
      const narrowed = request as Draft<Decoded>
      narrowed.message = capabilities.listening(request.message)
    }
    // What the server offers says nothing of who may do what: capabilities alone are no authorization.
    if (operation.kind === 'unknown' && (filter ?? scopes ?? judge) !== undefined) {
      const detail = `${quoted(request.message.method)} is no method that a policy can permit`
      throw new SidecarError('ERR_DENIED', { detail, verdict: { layer: configured, ids: [] } })
    }
    const verdicts: Verdict[] = []
    if (filter !== undefined) verdicts.push(filter.permit(operation))
    if (operation.kind === 'use' && (scopes ?? judge) !== undefined) checkTargets(operation)
    if (scopes !== undefined) verdicts.push(scopes.permit(request, operation))
    judge?.permit(request, operation, verdicts)
    const answered = answerFilter(request, operation)
    if (answered !== undefined) request.exchange.onAnswer(guarded(request, answered))
    return verdicts.length === 0 ? free : { verdicts }
  }
}

/** Some servers carry out whatever has a method, id or not; only notifications of the protocol are free. */
function checkKind({ message: { kind, method } }: Decoded): void {
  if (kind !== 'notification' || method.startsWith('notifications/')) return
  throw new SidecarError('ERR_DENIED', { detail: `${quoted(method)} was sent as a notification` })
}

/** What no rule can be held against, or what a rule and the server would read differently. */
function checkTargets({ action, targets }: Operation): void {
  if (targets.length === 0) {
    throw new SidecarError('ERR_DENIED', { detail: `${action}: the body does not say what it is about` })
  }
  for (const { type, name } of targets) {
    if (type !== 'resource' || !isTreacherous(name)) continue
    const detail = `${action}: the URI ${quoted(name)} has a segment .. or control characters`
    throw new SidecarError('ERR_DENIED', { detail })
  }
}
