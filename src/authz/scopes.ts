import { SidecarError } from '../core/errors.ts'
import { anyGlob } from '../core/glob.ts'
import type { Operation, Target } from '../core/operation.ts'
import type { AuthzPolicy, ScopeDemand } from '../core/policy.ts'
import type { Decoded, Principal, Verdict } from '../core/types.ts'
import { spellings } from './uris.ts'

/** A `WWW-Authenticate` challenge (RFC 6750 section 3) with these scopes and `resource_metadata` (RFC 9728 section 5.1). */
export type BearerChallenge = (error: 'insufficient_scope', scopes: readonly string[]) => string

export interface ScopeContext {
  /** Scopes that every token must carry; checked where the token is, and named in each challenge. */
  readonly baseScopes: readonly string[]
  readonly bearerChallenge: BearerChallenge
}

interface Demand {
  fits(method: string, targets: readonly Target[]): boolean
  readonly scopes: readonly string[]
}

/** Which scopes an operation needs of a token. */
export interface ScopeGuard {
  /**
   * Demands are made of tokens alone: a caller whose credentials have no notion of scopes (API key, Basic, client
   * certificate, nobody) is judged by rules.
   *
   * @throws ERR_SCOPE; its challenge and `data.scopes` name every scope of the operation, those that the token has
   *   included (MCP 2025-11-25, basic/authorization, "Runtime Insufficient Scope Errors")
   */
  permit(request: Decoded, operation: Operation): Verdict
}

const none: Verdict = Object.freeze({ layer: 'scopes', ids: Object.freeze([]) })

export function compileScopes(
  policy: Pick<AuthzPolicy, 'scopes' | 'impliedScopes'>,
  context: ScopeContext,
): ScopeGuard {
  const demands = policy.scopes.map(compileDemand)
  const grants = scopeHierarchy(policy.impliedScopes)
  return {
    permit({ principal, message }, { targets }) {
      if (message.kind !== 'request') return none
      let needed: readonly string[] | undefined
      for (const demand of demands) {
        if (demand.fits(message.method, targets)) {
          needed = needed === undefined ? demand.scopes : [...new Set([...needed, ...demand.scopes])]
        }
      }
      if (needed === undefined) return none
      const held = scopesOf(principal)
      if (held === undefined) return none
      const missing = needed.filter((scope) => !grants(held, scope))
      if (missing.length === 0) return { layer: 'scopes', ids: needed }
      throw insufficient(message.method, needed, missing, context)
    },
  }
}

function insufficient(
  method: string,
  needed: readonly string[],
  missing: readonly string[],
  { baseScopes, bearerChallenge }: ScopeContext,
): SidecarError {
  const scopes = [...new Set([...baseScopes, ...needed])]
  return new SidecarError('ERR_SCOPE', {
    detail: `${method} needs ${needed.join(' ')}, and the token lacks ${missing.join(' ')}`,
    data: { scopes },
    headers: { 'WWW-Authenticate': bearerChallenge('insufficient_scope', scopes) },
    verdict: { layer: 'scopes', ids: missing },
  })
}

/** Of all tokens of the request together; undefined if it has none. */
function scopesOf({ scopes, others }: Principal): readonly string[] | undefined {
  let all = scopes
  for (const other of others) {
    if (other.scopes !== undefined) all = all === undefined ? other.scopes : [...all, ...other.scopes]
  }
  return all
}

function compileDemand({ methods, tools, resources, prompts, scopes }: ScopeDemand): Demand {
  const ofMethod = methods.length === 0 ? undefined : anyGlob(methods)
  const named = tools.length + resources.length + prompts.length > 0
  const names = { tool: anyGlob(tools), prompt: anyGlob(prompts), resource: anyGlob(resources) }
  const isNamed = ({ type, name }: Target): boolean => {
    if (type !== 'resource') return names[type](name)
    // Whoever spells a URI differently must not get around what is demanded for it.
    return resources.length > 0 && spellings(name).some(names.resource)
  }
  return {
    scopes,
    fits: (method, targets) => ofMethod?.(method) !== false && (!named || targets.some(isNamed)),
  }
}

/** Whether scopes that were granted stand for one that is needed, be it by way of others. */
export function scopeHierarchy(
  implied: AuthzPolicy['impliedScopes'],
): (granted: readonly string[], needed: string) => boolean {
  const granting = grantors(implied)
  return (granted, needed) => granting(needed).some((each) => granted.includes(each))
}

/** For a scope, all those whose bearer has it: itself, and what implies it, however many steps away. */
function grantors(implied: AuthzPolicy['impliedScopes']): (scope: string) => readonly string[] {
  const impliers = new Map<string, string[]>()
  for (const [scope, others] of Object.entries(implied)) {
    for (const other of others) impliers.set(other, [...(impliers.get(other) ?? []), scope])
  }
  const closed = new Map<string, readonly string[]>()
  return (scope) => {
    let all = closed.get(scope)
    if (all === undefined) {
      const found = new Set([scope])
      // A Set also yields what is added while it is walked, each once: cycles end.
      for (const each of found) for (const implier of impliers.get(each) ?? []) found.add(implier)
      all = [...found]
      closed.set(scope, all)
    }
    return all
  }
}
