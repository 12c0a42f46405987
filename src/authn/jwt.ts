import type { JwtMethod, TokenChecks } from '../core/policy.ts'
import { fingerprint } from '../core/secret.ts'
import type { Identity } from '../core/types.ts'
import type { Attempt, Authenticator } from './authenticator.ts'
import { scopePattern } from './claim-values.ts'
import { createFetcher } from './fetching.ts'
import { fixedKeys, type Keys, remoteKeys } from './jwks.ts'
import { type JwtVerifierOptions, verifyJwt } from './jwt-verifier.ts'
import { algorithmsFor, configuredKeys, type KeySet, secretKey } from './key-set.ts'
import { TokenCache } from './token-cache.ts'
import { bearerToken, own, readJwt } from './token-format.ts'
import { readFile, readSecret, shown, type TokenDeps, TokenMethodError } from './token-method.ts'

/**
 * JWT access tokens in `Authorization: Bearer` (RFC 7519, 9068, 8725). A JWT is this method's when its `iss`, on its own
 * word, is the configured issuer, or any JWT when none is configured.
 *
 * A verified token is remembered by its hash until it ends, or until the keys change: one whose key was removed from
 * the JWKS ends within 5 minutes of that (see {@link remoteKeys}).
 *
 * @throws TokenMethodError for keys that cannot be used, or options that contradict each other
 */
export function jwtAuthenticator(method: JwtMethod, deps: TokenDeps): Authenticator {
  checkOptions(method)
  const { keys, algorithms, digest, close } = keysOf(method, deps)
  if (deps.prefetch === true) void keys.current
  return tokenAuthenticator({
    method: method.method,
    checks: method,
    issuer: method.issuer,
    proof: proofOf(method, digest),
    keys,
    algorithms,
    deps,
    close,
  })
}

interface JwtAuthenticatorOptions extends JwtVerifierOptions {
  readonly close: () => void
}

/** An authenticator of JWTs from these keys. */
function tokenAuthenticator(options: JwtAuthenticatorOptions): Authenticator {
  const { method, issuer, keys, deps, close } = options
  const cache = new TokenCache(deps.clock)
  return {
    ...traitsOf(options),
    authenticate: (request, attempt) => {
      const token = bearerToken(request, attempt, method)
      if (token === undefined) return undefined
      const key = TokenCache.key(token)
      const known = cache.get(key, keys.current)
      if (known !== undefined) return known
      const jwt = readJwt(token)
      if (jwt === undefined) {
        attempt.note(`${method}: it is not a JWT`)
        return undefined
      }
      if (!isOf(issuer, own(jwt.claims, 'iss'), method, attempt)) return undefined
      attempt.beforeWork()
      return verifyJwt(jwt, options, () => attempt.signal).then((verified) => cache.put(key, verified))
    },
    close,
  }
}

/** Whether a token says that it is of this issuer; notes when it does not. */
export function isOf(issuer: string | undefined, iss: unknown, method: string, attempt: Attempt): boolean {
  if (issuer === undefined || iss === issuer) return true
  attempt.note(`${method}: its issuer is ${shown(iss)}, not ${issuer}`)
  return false
}

type Traits = Omit<Authenticator, 'authenticate' | 'close'>

/** What all token methods are alike in. */
export function traitsOf(
  options: Pick<JwtVerifierOptions, 'method' | 'checks' | 'issuer' | 'proof'>,
): Traits {
  const { method, checks, issuer, proof } = options
  const isServer = issuer !== undefined && /^https?:\/\//.test(issuer)
  return {
    name: method,
    headers: ['authorization'],
    scheme: 'Bearer',
    authorizationServers: isServer ? [issuer] : [],
    scopes: checks.scopes,
    // Whenever its token ends: a session goes on with the next one, and streams end by themselves.
    vouchesFor: (identity: Identity) => identity.method === method && identity.proof === proof,
  }
}

/**
 * The same for all tokens of an issuer under one configuration: a client that renews its token keeps its sessions, and
 * they end when the issuer, its keys or what is asked of its tokens are configured otherwise.
 */
export function proofOf(method: object, digest: string): string {
  return fingerprint(JSON.stringify([method, digest]))
}

/** @throws TokenMethodError */
export function checkOptions(checks: TokenChecks & { readonly issuer?: string | undefined }): void {
  const scope = checks.scopes.find((each) => !scopePattern.test(each))
  if (scope !== undefined) {
    throw new TokenMethodError(
      `${JSON.stringify(scope)} is no scope: one word without quotes or backslashes (RFC 6749)`,
    )
  }
  if (checks.audiences.includes('')) throw new TokenMethodError('an audience is empty')
  if (checks.subjectClaim === '') throw new TokenMethodError('the name of the subject claim is empty')
  if (checks.issuer === '') throw new TokenMethodError('the issuer is empty')
}

interface FoundKeys {
  readonly keys: Keys
  readonly algorithms: readonly string[]
  /** Of keys that the configuration holds; empty for those that change by themselves. */
  readonly digest: string
  readonly close: () => void
}

function keysOf({ keys, algorithms: wanted }: JwtMethod, deps: TokenDeps): FoundKeys {
  const fixed = (set: KeySet, algorithms: readonly string[]): FoundKeys => ({
    keys: fixedKeys(set),
    algorithms,
    digest: set.digest,
    close: () => {},
  })
  if ('secret' in keys) {
    const secret = secretKey(readSecret(keys.secret, 'the secret for JWT', deps))
    return fixed(secret, algorithmsFor(wanted, secret))
  }
  const algorithms = algorithmsFor(wanted, 'public')
  if ('file' in keys) {
    return fixed(configuredKeys(readFile(keys.file, 'the key file', deps), keys.file, algorithms), algorithms)
  }
  if ('text' in keys) return fixed(configuredKeys(keys.text, 'the keys for JWT', algorithms), algorithms)
  const { url, fetching } = keys
  const fetcher = createFetcher(fetching, deps)
  fetcher.check(url, 'the URL of the keys')
  const { clock, log } = deps
  const found = remoteKeys({ fetcher, url: () => url, what: `the keys of ${url}`, clock, log })
  return { keys: found, algorithms, digest: '', close: () => fetcher.close() }
}
