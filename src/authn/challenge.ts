import type { AuthGate } from './gate.ts'

/** RFC 7617 section 2.1. */
export const basicChallenge = 'Basic realm="mcp", charset="UTF-8"'

export type BearerError = 'invalid_token' | 'insufficient_scope'

/**
 * Makes the Bearer challenge of WWW-Authenticate (RFC 6750 section 3, RFC 9728 section 5.1).
 *
 * @param error undefined when no token was sent
 * @param scopes that are needed; may be empty
 */
export type BearerChallenge = (error: BearerError | undefined, scopes: readonly string[]) => string

/**
 * The headers of a refusal: one challenge for each scheme there is. API keys and certificates have none (RFC 9110
 * section 11.6.1 knows schemes alone).
 */
export function challengeHeaders(
  { schemes }: Pick<AuthGate, 'schemes'>,
  bearer: () => string,
): Readonly<Record<string, string>> {
  const challenges = [
    ...(schemes.has('Bearer') ? [bearer()] : []),
    ...(schemes.has('Basic') ? [basicChallenge] : []),
  ]
  return challenges.length === 0 ? {} : { 'WWW-Authenticate': challenges.join(', ') }
}
