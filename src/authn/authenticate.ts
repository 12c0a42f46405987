import { SidecarError } from '../core/errors.ts'
import type { Layer } from '../core/pipeline.ts'
import { anonymous, type Identified, type Principal, type Trusted } from '../core/types.ts'

/** One way to prove who is calling. */
export interface Authenticator {
  /** As in the configuration: `bearer`. */
  readonly name: string
  /** The value of a WWW-Authenticate challenge for it (RFC 9110 section 11.6.1). */
  challenge(error: 'invalid_token' | undefined): string
  /**
   * @returns the principal, or undefined when the request carries no credential of this kind
   * @throws ERR_AUTH_INVALID when it carries one that does not hold
   */
  authenticate(request: Trusted): Principal | undefined | Promise<Principal | undefined>
  /** True while the credential behind a principal it has named is still good. */
  vouchesFor(principal: Principal): boolean
}

/** Whether a session or stream of this principal may go on under these authenticators. */
export function stillTrusted(principal: Principal, authenticators: readonly Authenticator[]): boolean {
  if (authenticators.length === 0) return principal.id === anonymous.id
  return authenticators.some((each) => each.vouchesFor(principal))
}

/**
 * The layer that finds out who is calling, from the headers alone: no body of a stranger is read. With no
 * authenticator everyone is the one anonymous principal. All failures look alike to the client.
 */
export function authenticate<I extends Trusted>(
  authenticators: () => readonly Authenticator[],
): Layer<I, I & Pick<Identified, 'principal'>> {
  return (trusted, next) => {
    const all = authenticators()
    if (all.length === 0) return next({ ...trusted, principal: anonymous })
    const found = firstOf(all, trusted)
    if (found instanceof Promise) return found.then((principal) => next({ ...trusted, principal }))
    return next({ ...trusted, principal: found })
  }
}

function firstOf(all: readonly Authenticator[], request: Trusted, from = 0): Principal | Promise<Principal> {
  const refusal = (thrown: unknown): SidecarError => {
    const error = SidecarError.from(thrown)
    return error.code === 'ERR_AUTH_INVALID' ? challenged(all, error.detail, 'invalid_token') : error
  }
  for (let i = from; i < all.length; i++) {
    let found: Principal | undefined | Promise<Principal | undefined>
    try {
      found = all[i]?.authenticate(request)
    } catch (thrown) {
      throw refusal(thrown)
    }
    if (found instanceof Promise) {
      return found.then(
        (known) => known ?? firstOf(all, request, i + 1),
        (thrown: unknown) => Promise.reject(refusal(thrown)),
      )
    }
    if (found !== undefined) return found
  }
  throw challenged(all, undefined, undefined)
}

function challenged(
  all: readonly Authenticator[],
  detail: string | undefined,
  error: 'invalid_token' | undefined,
): SidecarError {
  const headers = { 'WWW-Authenticate': all.map((each) => each.challenge(error)).join(', ') }
  const code = error === undefined ? 'ERR_AUTH_MISSING' : 'ERR_AUTH_INVALID'
  return new SidecarError(code, detail === undefined ? { headers } : { detail, headers })
}
