import type { AuthLayer, AuthPolicy } from '../core/policy.ts'
import type { Authenticator } from './authenticator.ts'

/** One demand, with the methods that can meet it. */
export interface GateLayer extends Pick<AuthLayer, 'name' | 'require'> {
  readonly authenticators: readonly Authenticator[]
}

export interface GateOptions extends Pick<AuthPolicy, 'timeoutMs' | 'failures'> {
  /** Each must be met. Empty: everyone is anonymous. */
  readonly layers: readonly GateLayer[]
}

/** Everything that a request must prove, and what follows from it for all requests. */
export interface AuthGate extends GateOptions {
  /** Of all layers, each once. */
  readonly authenticators: readonly Authenticator[]
  /** That carry credentials, in lower case. */
  readonly headers: ReadonlySet<string>
  readonly schemes: ReadonlySet<'Bearer' | 'Basic'>
  /** That every token must carry, for challenges. */
  readonly scopes: readonly string[]
}

/** A gate that nobody could pass, or that everybody could. */
export class GateError extends Error {
  override readonly name = 'GateError'
}

/**
 * Within a layer static tokens come before other methods that read `Authorization: Bearer`: they cost least, and a
 * static token must not be shown to an introspection endpoint first.
 *
 * @throws GateError for a layer without methods, and for times and numbers that are no limits
 */
export function createGate({ layers, timeoutMs, failures }: GateOptions): AuthGate {
  for (const { name, authenticators } of layers) {
    if (authenticators.length === 0) throw new GateError(`${name}: a layer of authentication needs a method`)
  }
  const limits = { timeoutMs, 'failures.attempts': failures.attempts, 'failures.windowMs': failures.windowMs }
  for (const [name, value] of Object.entries(limits)) {
    if (!(value >= 1)) throw new GateError(`${name} of authentication must be at least 1, not ${value}`)
  }
  const authenticators = [...new Set(layers.flatMap((layer) => layer.authenticators))]
  return Object.freeze({
    layers: layers.map(({ name, require, authenticators: all }) => ({
      ...{ name, require },
      authenticators: staticTokensFirst(all),
    })),
    timeoutMs,
    failures,
    authenticators,
    headers: new Set(authenticators.flatMap(({ headers }) => headers)),
    schemes: new Set(authenticators.flatMap(({ scheme }) => scheme ?? [])),
    scopes: [...new Set(authenticators.flatMap(({ scheme, scopes }) => (scheme === 'Bearer' ? scopes : [])))],
  })
}

function staticTokensFirst(all: readonly Authenticator[]): readonly Authenticator[] {
  const isStatic = ({ name, scheme }: Authenticator): boolean => name === 'bearer' && scheme === 'Bearer'
  const at = all.findIndex(({ scheme }) => scheme === 'Bearer')
  if (at < 0) return all
  const rest = all.filter((each, i) => i >= at && !isStatic(each))
  return [...all.slice(0, at), ...all.filter(isStatic), ...rest]
}
