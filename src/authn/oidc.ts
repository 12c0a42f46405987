import type { OidcMethod } from '../core/policy.ts'
import type { Identity } from '../core/types.ts'
import type { Attempt, Authenticator } from './authenticator.ts'
import { createDiscovery, type Discovery } from './discovery.ts'
import { createFetcher, type Fetcher } from './fetching.ts'
import { type IntrospectionOptions, introspect } from './introspection.ts'
import { remoteKeys } from './jwks.ts'
import { checkOptions, isOf, proofOf, traitsOf } from './jwt.ts'
import { type JwtVerifierOptions, verifyJwt } from './jwt-verifier.ts'
import { algorithmsFor } from './key-set.ts'
import { TokenCache } from './token-cache.ts'
import { bearerToken, own, type ReadJwt, readJwt } from './token-format.ts'
import { readSecret, type TokenDeps, TokenMethodError, within } from './token-method.ts'

/**
 * Access tokens of an OpenID provider that is found by its issuer: JWT verified with its keys, others introspected, as
 * `method.tokens` says. A JWT of another issuer is never this method's; an opaque token says nothing of whose it is, so
 * that with introspection every one that reaches this method is sent to the issuer.
 *
 * @throws TokenMethodError for options that contradict each other, or URLs that must not be asked
 */
export function oidcAuthenticator(method: OidcMethod, deps: TokenDeps): Authenticator {
  checkOptions(method)
  const { issuer, tokens } = method
  const { clock, log } = deps
  const fetcher = createFetcher(method.fetching, deps)
  fetcher.check(issuer, 'the issuer')
  if (/[?#]/.test(issuer))
    throw new TokenMethodError(`the issuer ${issuer} has a query or fragment (RFC 8414)`)
  const discovery = createDiscovery(issuer, fetcher, deps)
  const rules = { method: method.method, checks: method, issuer, proof: proofOf(method, ''), deps }
  const jwts: JwtVerifierOptions = {
    ...rules,
    algorithms: algorithmsFor(method.algorithms, 'public'),
    keys: remoteKeys({
      fetcher,
      url: () => discovery.endpoint('jwks_uri'),
      what: `the keys of ${issuer}`,
      clock,
      log,
    }),
  }
  const opaque = introspectionOf(method, rules, discovery, fetcher)
  const cache = new TokenCache(clock)
  const byKeys = tokens !== 'introspection'
  if (deps.prefetch === true) {
    if (byKeys) void jwts.keys.current
    else if (method.introspectionUrl === undefined) discovery.start()
  }

  const verified = (key: string, jwt: ReadJwt, attempt: Attempt): Promise<Identity> =>
    verifyJwt(jwt, jwts, () => attempt.signal).then((found) => cache.put(key, found))

  return {
    ...traitsOf(rules),
    authenticate: (request, attempt) => {
      const token = bearerToken(request, attempt, method.method)
      if (token === undefined) return undefined
      const key = TokenCache.key(token)
      const known = cache.get(key, byKeys ? jwts.keys.current : undefined)
      if (known !== undefined) return known
      const jwt = readJwt(token)
      if (jwt !== undefined && !isOf(issuer, own(jwt.claims, 'iss'), method.method, attempt)) return undefined
      if (jwt !== undefined && byKeys) {
        attempt.beforeWork()
        return verified(key, jwt, attempt)
      }
      if (opaque === undefined) {
        attempt.note(`${method.method}: it is not a JWT, and others are not introspected`)
        return undefined
      }
      attempt.beforeWork()
      const asked = cache.once(key, () => introspect(token, opaque), attempt)
      return within(attempt.signal, asked, 'the introspection endpoint')
    },
    close: () => fetcher.close(),
  }
}

function introspectionOf(
  method: OidcMethod,
  rules: Pick<IntrospectionOptions, 'method' | 'checks' | 'issuer' | 'proof' | 'deps'>,
  discovery: Discovery,
  fetcher: Fetcher,
): IntrospectionOptions | undefined {
  const { clientId, clientSecret: source, introspectionUrl: url, tokens, cacheMs } = method
  if (tokens === 'jwt') return undefined
  if (clientId === undefined || source === undefined) {
    if (tokens === 'auto' && url === undefined && source === undefined) return undefined
    throw new TokenMethodError('introspection needs both a client id and its secret (RFC 7662 section 2.1)')
  }
  if (url !== undefined) fetcher.check(url, 'the introspection URL')
  const clientSecret = readSecret(source, 'the client secret', rules.deps)
  const endpoint = (): string | Promise<string> => url ?? discovery.endpoint('introspection_endpoint')
  return { ...rules, endpoint, clientId, clientSecret, cacheMs, fetcher }
}
