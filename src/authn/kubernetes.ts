import type { KubernetesMethod, TokenChecks } from '../core/policy.ts'
import type { Identity } from '../core/types.ts'
import type { Attempt, Authenticator } from './authenticator.ts'
import type { Fetcher } from './fetching.ts'
import { remoteKeys } from './jwks.ts'
import { checkOptions, isOf, proofOf, traitsOf } from './jwt.ts'
import { type JwtVerifierOptions, verifyJwt } from './jwt-verifier.ts'
import { algorithmsFor } from './key-set.ts'
import { KubernetesApi } from './kubernetes-api.ts'
import {
  identityOf,
  isServiceAccountToken,
  memberOf,
  plainText,
  serviceAccountOf,
} from './service-account.ts'
import { TokenCache } from './token-cache.ts'
import { bearerToken, own, type ReadJwt, readJwt } from './token-format.ts'
import { refusal, type TokenDeps, TokenMethodError, within } from './token-method.ts'
import { reviewer } from './token-review.ts'

/** Where a cluster publishes the keys of its service accounts, for those it knows. */
const keysPath = '/openid/v1/jwks'
const keysPermission = 'get /openid/v1/jwks (ClusterRole system:service-account-issuer-discovery)'
const clockToleranceMs = 30_000

/**
 * Tokens of Kubernetes service accounts in `Authorization: Bearer`, each for an audience of ours. In mode `token-review`
 * the API server judges them; in mode `jwks` they are verified with the keys of the cluster, which sees nothing of
 * accounts and pods that are gone, and only takes tokens that end.
 *
 * @throws TokenMethodError for files that cannot be read, or options that contradict each other
 */
export function kubernetesAuthenticator(method: KubernetesMethod, deps: TokenDeps): Authenticator {
  const { audiences, mode } = method
  // Without, the API server would accept tokens that are meant for itself, and we could use them there.
  if (audiences.length === 0)
    throw new TokenMethodError('kubernetes needs audiences: those that tokens are made for')
  const checks: TokenChecks = {
    ...{ audiences, algorithms: [], clockToleranceMs, requiredClaims: {}, scopes: [] },
    ...{ subjectClaim: 'sub', groupsClaim: undefined },
  }
  const issuer = mode === 'jwks' ? method.issuer : undefined
  checkOptions({ ...checks, issuer })
  const api = new KubernetesApi(method, deps)
  const rules = { method: 'kubernetes', checks, issuer, proof: proofOf(method, ''), deps }
  const judge = mode === 'jwks' ? byKeys(api, rules) : byReview(method, api, rules)
  return {
    ...traitsOf(rules),
    // Nobody can ask a cluster for a token over OAuth.
    authorizationServers: [],
    authenticate: (request, attempt) => {
      const token = bearerToken(request, attempt, 'kubernetes')
      if (token === undefined) return undefined
      const key = TokenCache.key(token)
      const known = judge.known(key)
      if (known !== undefined) return known
      const jwt = readJwt(token)
      if (jwt === undefined || !isServiceAccountToken(jwt.claims)) {
        attempt.note('kubernetes: it is not the token of a service account')
        return undefined
      }
      if (!isOf(issuer, own(jwt.claims, 'iss'), 'kubernetes', attempt)) return undefined
      attempt.beforeWork()
      return judge.judge(key, jwt, attempt)
    },
    close: () => api.close(),
  }
}

interface Judge {
  known(key: string): Identity | undefined
  judge(key: string, jwt: ReadJwt, attempt: Attempt): Promise<Identity>
}

type Rules = Pick<JwtVerifierOptions, 'method' | 'checks' | 'issuer' | 'proof' | 'deps'>

function byReview(method: KubernetesMethod, api: KubernetesApi, { proof, deps }: Rules): Judge {
  const cache = new TokenCache(deps.clock)
  const { review } = reviewer(method, api, proof, deps)
  return {
    known: (key) => cache.get(key, undefined),
    judge: (key, jwt, attempt) =>
      within(
        attempt.signal,
        cache.once(key, () => review(jwt), attempt),
        'the Kubernetes API server',
      ),
  }
}

function byKeys(api: KubernetesApi, rules: Rules): Judge {
  const { clock, log } = rules.deps
  const cache = new TokenCache(clock)
  const fetcher: Fetcher = {
    check: () => {},
    json: () => api.ask(keysPath, keysPermission),
    close: () => {},
  }
  const keys = remoteKeys({ fetcher, url: () => keysPath, what: 'the keys of the cluster', clock, log })
  if (rules.deps.prefetch === true) void keys.current
  const options: JwtVerifierOptions = { ...rules, keys, algorithms: algorithmsFor([], 'public') }
  return {
    known: (key) => cache.get(key, keys.current),
    judge: async (key, jwt, attempt) => {
      const verified = await verifyJwt(jwt, options, () => attempt.signal)
      return cache.put(key, { ...verified, identity: serviceAccount(verified.identity, jwt) })
    },
  }
}

/** @param verified of the same token: what it says is true */
function serviceAccount({ kind, proof, expiresAt }: Identity, { claims }: ReadJwt): Identity {
  const account = serviceAccountOf(own(claims, 'sub'))
  if (kind !== 'serviceaccount')
    throw refusal('its claim kubernetes.io does not name the service account that its sub names')
  const fact = (...names: readonly string[]): string | undefined =>
    plainText(memberOf(own(claims, 'kubernetes.io'), ...names))
  return identityOf({
    ...account,
    // As the API server would say.
    groups: ['system:serviceaccounts', `system:serviceaccounts:${account.namespace}`, 'system:authenticated'],
    claims: {
      uid: fact('serviceaccount', 'uid'),
      pod: fact('pod', 'name'),
      podUid: fact('pod', 'uid'),
      node: fact('node', 'name'),
      nodeUid: fact('node', 'uid'),
    },
    proof,
    expiresAt,
  })
}
