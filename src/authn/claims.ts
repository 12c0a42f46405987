/** What a token says, once it is known who says it: the checks, and the identity. */
import { SidecarError } from '../core/errors.ts'
import type { TokenChecks } from '../core/policy.ts'
import type { Identity } from '../core/types.ts'
import {
  groupsOf,
  listOf,
  scopesOf,
  serviceAccountOf,
  subjectOf,
  timeOf,
  unprintable,
} from './claim-values.ts'
import type { JsonObject } from './fetching.ts'
import { own } from './token-format.ts'
import { refusal, shown, type TokenDeps } from './token-method.ts'

export interface ClaimRules {
  /** As in the configuration: `jwt`, `oidc`. */
  readonly method: string
  readonly checks: TokenChecks
  /** Undefined: any, or none. */
  readonly issuer: string | undefined
  /** See {@link Identity}. */
  readonly proof: string
  readonly deps: Pick<TokenDeps, 'resource' | 'grants'>
}

/** Tokens of the same issuer for another purpose, as Cognito (`token_use`) and Keycloak (`typ`) mark them. */
const otherPurposes: Readonly<Record<string, RegExp>> = {
  token_use: /^(?:id|id_token|refresh|refresh_token)$/i,
  typ: /^(?:id|refresh|offline|logout)$/i,
}
/** They name the token rather than the caller. */
const ofTheToken: ReadonlySet<string> = new Set(['exp', 'nbf', 'iat', 'jti', 'active'])

/**
 * Holds claims against what is asked of every token, and names the caller.
 *
 * @param now milliseconds since 1970
 * @throws ERR_AUTH_INVALID (detail: which check failed), ERR_SCOPE (`data.scopes`: all that every token needs)
 */
export function identityOf(claims: JsonObject, rules: ClaimRules, now: number): Identity {
  const { checks, method, proof, deps } = rules
  const issuer = issuerOf(claims, rules)
  const expiresAt = checkTimes(claims, checks.clockToleranceMs, now)
  checkAudience(claims, checks.audiences, deps)
  for (const [claim, pattern] of Object.entries(otherPurposes)) {
    const value = own(claims, claim)
    if (typeof value === 'string' && pattern.test(value)) {
      throw refusal(`it is no access token: its ${claim} is ${shown(value)}`)
    }
  }
  // Whoever took such a token must not be able to use it without the key, and nothing here asks for that key.
  if (own(claims, 'cnf') !== undefined) {
    throw refusal(
      'it is bound to a key of its client (cnf: DPoP or mutual TLS), which cannot be checked here',
    )
  }
  checkRequired(claims, checks.requiredClaims)
  const name = subjectOf(claims, checks.subjectClaim)
  const account = serviceAccountOf(claims, name)
  const scopes = scopesOf(claims)
  checkScopes(scopes, checks.scopes, deps.grants)
  return Object.freeze({
    id: `jwt:${issuer}|${name}`,
    method,
    kind: account === undefined ? ('user' as const) : ('serviceaccount' as const),
    subject: account === undefined ? name : `${account.namespace}/${account.name}`,
    groups: Object.freeze([
      ...groupsOf(claims, checks.groupsClaim),
      ...(account === undefined
        ? []
        : ['system:serviceaccounts', `system:serviceaccounts:${account.namespace}`]),
    ]),
    scopes: Object.freeze(scopes),
    claims: Object.freeze(
      Object.fromEntries(Object.entries(claims).filter(([claim]) => !ofTheToken.has(claim))),
    ),
    proof,
    expiresAt,
  })
}

function issuerOf(claims: JsonObject, { issuer }: ClaimRules): string {
  const value = own(claims, 'iss')
  if (issuer !== undefined) {
    if (value !== issuer) throw refusal(`its issuer is ${shown(value)}, not ${issuer}`)
    return issuer
  }
  if (value === undefined) return ''
  // A bar would let two issuers name the same principal.
  if (typeof value !== 'string' || unprintable.test(value) || value.includes('|')) {
    throw refusal('its issuer is not a plain text')
  }
  return value
}

/** @returns when it ends here, tolerance included, in milliseconds since 1970: so long it is let in */
function checkTimes(claims: JsonObject, tolerance: number, now: number): number {
  const exp = timeOf(claims, 'exp')
  if (exp === undefined) throw refusal('it has no exp: a token that never ends is not accepted')
  const seconds = (ms: number): number => Math.round(Math.abs(ms) / 1000)
  if (exp + tolerance <= now) throw refusal(`it expired ${seconds(now - exp)} s ago`)
  for (const claim of ['nbf', 'iat']) {
    const from = timeOf(claims, claim)
    if (from !== undefined && from - tolerance > now) {
      throw refusal(`it is not valid yet: its ${claim} is ${seconds(from - now)} s ahead`)
    }
  }
  return exp + tolerance
}

function checkAudience(
  claims: JsonObject,
  wanted: readonly string[],
  { resource, aliases }: Pick<TokenDeps, 'resource' | 'aliases'>,
): void {
  const value = own(claims, 'aud')
  const found = listOf(value)
  if (found === undefined || found.length === 0) throw refusal('it has no audience')
  if (wanted.length > 0) {
    if (found.some((each) => wanted.includes(each))) return
    throw refusal(`its audience is ${shown(value)}, not one of ${wanted.join(', ')}`)
  }
  const here = resource()
  for (const name of [here, ...(aliases?.() ?? [])]) {
    if (found.includes(name)) return
    const canonical = canonicalUrl(name)
    if (canonical !== undefined && found.some((each) => canonicalUrl(each) === canonical)) return
  }
  throw refusal(`its audience is ${shown(value)}, not ${here}`)
}

/** Case of scheme and host, the default port and a slash at the end make no other resource (RFC 3986 section 6.2). */
function canonicalUrl(text: string): string | undefined {
  return URL.canParse(text) ? new URL(text).href.replace(/\/$/, '') : undefined
}

function checkRequired(claims: JsonObject, required: TokenChecks['requiredClaims']): void {
  for (const [claim, wanted] of Object.entries(required)) {
    const value = own(claims, claim)
    if (value === undefined || value === null) throw refusal(`it lacks the claim ${claim}`)
    if (wanted === null || value === wanted || (Array.isArray(value) && value.includes(wanted))) continue
    throw refusal(`its claim ${claim} is not ${JSON.stringify(wanted)}`)
  }
}

function checkScopes(
  granted: readonly string[],
  needed: readonly string[],
  grants: TokenDeps['grants'],
): void {
  const holds = (scope: string): boolean => granted.includes(scope) || grants?.(granted, scope) === true
  const missing = needed.filter((scope) => !holds(scope))
  if (missing.length === 0) return
  throw new SidecarError('ERR_SCOPE', {
    detail: `the token lacks the scope ${missing.join(' ')}`,
    data: { scopes: needed },
  })
}
