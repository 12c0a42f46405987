import type { Identity, Trusted } from '../core/types.ts'

/** One try of a request to prove who is calling; what the methods may use of it. */
export interface Attempt {
  /**
   * To be called before anything that costs more than a hash: a signature, a password, a request to somebody else.
   *
   * @throws ERR_RATE_LIMITED with Retry-After when too many attempts of this address have failed
   */
  beforeWork(): void
  /** Aborts when the time for authentication is over; made when it is asked for. */
  readonly signal: AbortSignal
  /**
   * Does this if the request is let in: what a method remembers of a credential must not show, by the time it takes the
   * next time, that it was right beside another that was wrong.
   */
  onAdmitted(then: () => void): void
  /** Why a method passes over a credential, for the log: `jwt: its issuer is not one of ours`. Never the credential. */
  note(why: string): void
}

/**
 * As the cause of a refusal: what a method needs of somebody else is not there, and nothing was done for the request. It
 * says nothing of who sent it, and does not count as a failed attempt.
 */
export class Unavailable extends Error {
  override readonly name = 'Unavailable'
}

/** One way to prove who is calling. */
export interface Authenticator {
  /** As in the configuration: `bearer`, `jwt`. */
  readonly name: string
  /** Headers it reads, in lower case. One that stands twice is refused before any method sees it. */
  readonly headers: readonly string[]
  /** Schemes of WWW-Authenticate that lead to it (RFC 9110 section 11.6.1); `Bearer` challenges are shared by all. */
  readonly scheme: 'Bearer' | 'Basic' | undefined
  /** OAuth authorization servers (issuers) whose tokens it accepts, for RFC 9728. */
  readonly authorizationServers: readonly string[]
  /** Scopes that it demands of every token. */
  readonly scopes: readonly string[]
  /**
   * @returns the identity, or undefined when the request carries no credential that is recognisably this method's
   * @throws ERR_AUTH_INVALID (detail: which check failed), ERR_SCOPE (`data.scopes`: what is needed), ERR_RATE_LIMITED
   */
  authenticate(request: Trusted, attempt: Attempt): Identity | undefined | Promise<Identity | undefined>
  /**
   * False when credentials like the one behind an identity are not accepted any more, as far as it knows without asking.
   * That one token has ended does not matter: the caller comes back with the next.
   */
  vouchesFor(identity: Identity): boolean
  /** Ends what it keeps open. */
  close?(): void
}
