import { SidecarError } from '../core/errors.ts'
import type { Draft, Layer } from '../core/pipeline.ts'
import {
  anonymous,
  type Clock,
  type Identified,
  type Identity,
  type Principal,
  type Trusted,
} from '../core/types.ts'
import { RequestAttempt } from './attempt.ts'
import { Unavailable } from './authenticator.ts'
import { type BearerChallenge, type BearerError, challengeHeaders } from './challenge.ts'
import { maxCredentialBytes, objection, schemeValue } from './credentials.ts'
import type { Failures } from './failures.ts'
import type { AuthGate } from './gate.ts'
import { type Finding, judge, missing } from './judge.ts'
import { principalOf, stillTrusted } from './principal.ts'

export type { Authenticator } from './authenticator.ts'
export { stillTrusted } from './principal.ts'

export interface AuthenticateOptions {
  /** The gate of the moment. */
  readonly gate: () => AuthGate
  /** One for all ways in, and for the life of the process: a reload frees nobody. */
  readonly failures: Failures
  readonly clock: Pick<Clock, 'after'>
  readonly bearerChallenge: BearerChallenge
  /** Of one header with a credential. Default 12 KiB. */
  readonly maxCredentialBytes?: number
}

/**
 * The layer that finds out who is calling, from the headers alone: no body of a stranger is read. It returns what the
 * next returned, without a promise of its own, when every method answers at once.
 *
 * Refusals: ERR_AUTH_MISSING when the request brings nothing for a layer; no method is asked then, so that it is no way
 * to try one credential of several. ERR_AUTH_INVALID for any credential that does not hold, for methods that do not
 * answer in time, a header twice, one that is too large, or a token in the URL; all of these look alike.
 * ERR_RATE_LIMITED in its place when the address has failed too often. ERR_SCOPE when a token lacks scopes.
 */
export function authenticate<I extends Trusted>(
  options: AuthenticateOptions,
): Layer<I, I & Pick<Identified, 'principal'>> {
  return (trusted, next) => {
    const identified = trusted as I & Draft<Pick<Identified, 'principal'>>
    const gate = options.gate()
    const found = judgedBy(gate, trusted, options)
    if (found instanceof Promise) {
      return inForce(found, gate, trusted, options).then((principal) => {
        identified.principal = principal
        return next(identified)
      })
    }
    if (letIn.get(found) !== gate) letIn.set(found, gate)
    identified.principal = found
    return next(identified)
  }
}

function judgedBy(
  gate: AuthGate,
  request: Trusted,
  options: AuthenticateOptions,
): Principal | Promise<Principal> {
  return gate.layers.length === 0 ? anonymous : identify(request, gate, options)
}

/**
 * Who is calling by the gate that is in force when the answer is there. One that a reload has replaced meanwhile may know
 * who is shut out now, and refuse whom it could not ask about any more.
 */
async function inForce(
  begun: Promise<Principal>,
  first: AuthGate,
  request: Trusted,
  options: AuthenticateOptions,
): Promise<Principal> {
  let gate = first
  let found: Principal | Promise<Principal> = begun
  for (;;) {
    try {
      const principal = await found
      letIn.set(principal, gate)
      if (options.gate() === gate) return principal
    } catch (thrown) {
      if (options.gate() === gate) throw thrown
    }
    gate = options.gate()
    found = judgedBy(gate, request, options)
  }
}

/** Which gate has let a principal in, or has trusted it since. */
const letIn = new WeakMap<Principal, AuthGate>()

/**
 * The layer behind everything that takes its time, such as the body: whose credential was withdrawn meanwhile, by a
 * reload, gets ERR_AUTH_INVALID. Otherwise what they begin then (a session, a subscription) would outlast it.
 */
export function stillAuthenticated<I extends Identified>(options: TrustOptions): Layer<I, I> {
  return (identified, next) => {
    requireTrust(identified.principal, options)
    return next(identified)
  }
}

type TrustOptions = Pick<AuthenticateOptions, 'gate' | 'bearerChallenge'>

/** @throws ERR_AUTH_INVALID */
function requireTrust(principal: Principal, { gate: current, bearerChallenge }: TrustOptions): void {
  const gate = current()
  if (letIn.get(principal) === gate) return
  if (!stillTrusted(principal, gate)) {
    const headers = challengeHeaders(gate, () => bearerChallenge(undefined, gate.scopes))
    throw new SidecarError('ERR_AUTH_INVALID', { detail: 'its credential was withdrawn meanwhile', headers })
  }
  letIn.set(principal, gate)
}

/** One request before the gate. */
interface Case {
  readonly request: Trusted
  readonly gate: AuthGate
  readonly attempt: RequestAttempt
  readonly bearerChallenge: BearerChallenge
}

function identify(
  request: Trusted,
  gate: AuthGate,
  options: AuthenticateOptions,
): Principal | Promise<Principal> {
  const attempt = new RequestAttempt(request, gate, options.failures)
  const which: Case = { request, gate, attempt, bearerChallenge: options.bearerChallenge }
  const objected = objection(request, gate.headers, options.maxCredentialBytes ?? maxCredentialBytes)
  if (objected !== undefined) throw invalid(which, objected, undefined)
  const absent = missing(gate, request)
  if (absent !== undefined) {
    throw new SidecarError('ERR_AUTH_MISSING', { detail: absent, headers: challenges(which, undefined) })
  }
  const findings = judge(gate, request, attempt)
  if (!(findings instanceof Promise)) return conclude(which, findings)
  const late = (names: string): Finding[] => [
    new SidecarError('ERR_AUTH_INVALID', { detail: `no answer within ${gate.timeoutMs} ms: ${names}` }),
  ]
  return attempt.inTime(options.clock, findings, late).then((all) => conclude(which, all))
}

function conclude(which: Case, findings: readonly Finding[]): Principal {
  const errors = findings.filter((each) => each instanceof SidecarError)
  if (errors.length === 0) {
    which.attempt.admitted()
    return principalOf(findings as readonly Identity[])
  }
  const refused = errors.filter(({ code }) => code === 'ERR_AUTH_INVALID' || code === 'ERR_AUTH_MISSING')
  if (refused.length > 0) {
    const detail = [...refused.map(reason), ...which.attempt.notes].join('; ')
    throw invalid(which, detail, refused.find(({ cause }) => cause !== undefined)?.cause)
  }
  // What a token lacks is told only to who has proven everything else.
  throw errors.find(({ code }) => code !== 'ERR_SCOPE') ?? insufficient(which, errors)
}

function invalid(which: Case, detail: string, cause: unknown): SidecarError {
  const { attempt, request } = which
  const limited = attempt.limited(detail)
  // Somebody we ask is slow or away: that says nothing about who sent the request.
  if (!attempt.expired && !(cause instanceof Unavailable)) attempt.failed()
  if (limited !== undefined) return limited
  const error = schemeValue(request, 'Bearer') === undefined ? undefined : 'invalid_token'
  return new SidecarError('ERR_AUTH_INVALID', { detail, cause, headers: challenges(which, error) })
}

function insufficient({ bearerChallenge }: Case, errors: readonly SidecarError[]): SidecarError {
  const scopes = [...new Set(errors.flatMap(({ data }) => (data?.['scopes'] ?? []) as readonly string[]))]
  return new SidecarError('ERR_SCOPE', {
    detail: errors.map(reason).join('; '),
    data: { scopes },
    headers: { 'WWW-Authenticate': bearerChallenge('insufficient_scope', scopes) },
  })
}

function challenges(
  { gate, bearerChallenge }: Case,
  error: BearerError | undefined,
): Readonly<Record<string, string>> {
  return challengeHeaders(gate, () => bearerChallenge(error, gate.scopes))
}

function reason({ detail, code }: SidecarError): string {
  return detail ?? code
}
