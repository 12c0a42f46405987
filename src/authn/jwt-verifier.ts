import { compactVerify, errors } from 'jose'
import { type ClaimRules, identityOf } from './claims.ts'
import type { Keys } from './jwks.ts'
import type { KeySet } from './key-set.ts'
import type { Verified } from './token-cache.ts'
import { own, type ReadJwt } from './token-format.ts'
import { messageOf, refusal, shown, type TokenDeps } from './token-method.ts'

export interface JwtVerifierOptions extends ClaimRules {
  readonly keys: Keys
  /** At least one, all for the kind of the keys. */
  readonly algorithms: readonly string[]
  readonly deps: TokenDeps
}

/** `typ` of an access token (RFC 9068 section 2.1), and of those before there was one. */
const types = /^(?:(?:application\/)?at\+jwt|jwt)$/i
/** A token cannot say where its key is, nor bring it along. */
const keySources = ['jku', 'x5u', 'jwk']
/** Keys that a token without `kid` is tried with. */
const maxTries = 10

/**
 * Verifies a JWT: header, signature, claims, in this order, so that no claim is believed, or logged as fact, before the
 * issuer has vouched for it.
 *
 * @param signal asked for only when keys have to be fetched
 * @throws ERR_AUTH_INVALID (detail: which check failed), ERR_SCOPE
 */
export async function verifyJwt(
  jwt: ReadJwt,
  options: JwtVerifierOptions,
  signal: () => AbortSignal,
): Promise<Verified> {
  const { keys, deps } = options
  checkHeader(jwt, options.algorithms)
  let used = keys.current ?? (await keys.ready(signal))
  try {
    await verifySignature(jwt, used, options.algorithms)
  } catch (thrown) {
    // Without a `kid` a new key looks like a bad signature.
    const newKey =
      thrown instanceof errors.JWKSNoMatchingKey ||
      (thrown instanceof errors.JWSSignatureVerificationFailed && own(jwt.header, 'kid') === undefined)
    const renewed = newKey ? await keys.renewed(signal) : undefined
    if (renewed === undefined || renewed === used) throw described(thrown, jwt)
    used = renewed
    await verifySignature(jwt, used, options.algorithms).catch((again: unknown) => {
      throw described(again, jwt)
    })
  }
  const identity = identityOf(jwt.claims, options, deps.clock.epoch())
  const until = identity.expiresAt as number
  return { identity, until, keys: used, size: jwt.token.length }
}

function checkHeader({ token, header }: ReadJwt, algorithms: readonly string[]): void {
  const alg = own(header, 'alg')
  if (typeof alg !== 'string' || !algorithms.includes(alg)) {
    throw refusal(`its algorithm is ${shown(alg)}, not one of ${algorithms.join(', ')}`)
  }
  const typ = own(header, 'typ')
  if (typ !== undefined && !(typeof typ === 'string' && types.test(typ))) {
    throw refusal(`its typ is ${shown(typ)}, which is no access token`)
  }
  if (own(header, 'crit') !== undefined)
    throw refusal('it has critical extensions (crit), and none is understood')
  const source = keySources.find((each) => own(header, each) !== undefined)
  if (source !== undefined)
    throw refusal(`its header says where its key is (${source}), which is never followed`)
  const kid = own(header, 'kid')
  if (kid !== undefined && typeof kid !== 'string') throw refusal('its kid is not a text')
  // Bits that no decoder looks at would make several tokens of one.
  const signature = token.slice(token.lastIndexOf('.') + 1)
  if (Buffer.from(signature, 'base64url').toString('base64url') !== signature) {
    throw refusal('its signature is not base64url as RFC 7515 has it')
  }
}

async function verifySignature(
  { token }: ReadJwt,
  { find }: KeySet,
  algorithms: readonly string[],
): Promise<void> {
  const options = { algorithms: [...algorithms] }
  try {
    await compactVerify(token, find, options)
  } catch (thrown) {
    if (!(thrown instanceof errors.JWKSMultipleMatchingKeys)) throw thrown
    let tries = 0
    for await (const key of thrown) {
      if (++tries > maxTries) break
      const good = await compactVerify(token, key, options).then(
        () => true,
        () => false,
      )
      if (good) return
    }
    throw new errors.JWSSignatureVerificationFailed()
  }
}

function described(thrown: unknown, { header }: ReadJwt): Error {
  if (thrown instanceof errors.JWKSNoMatchingKey) {
    return refusal(
      `there is no key with kid ${shown(own(header, 'kid'))} for ${shown(own(header, 'alg'))}`,
      thrown,
    )
  }
  if (thrown instanceof errors.JWSSignatureVerificationFailed) {
    return refusal('its signature is not that of any key', thrown)
  }
  return refusal(`its signature cannot be verified: ${messageOf(thrown)}`, thrown)
}
