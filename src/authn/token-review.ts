import type { KubernetesMethod } from '../core/policy.ts'
import type { Identity, Logger } from '../core/types.ts'
import { Unavailable } from './authenticator.ts'
import type { KubernetesApi } from './kubernetes-api.ts'
import { identityOf, memberOf, plainText, sentenceOf, serviceAccountOf, textsOf } from './service-account.ts'
import type { Verified } from './token-cache.ts'
import { own, type ReadJwt } from './token-format.ts'
import { messageOf, refusal, shown, type TokenDeps } from './token-method.ts'

export interface Reviewer {
  /** @throws ERR_AUTH_INVALID (detail: what the API server said, or why it said nothing) */
  review(jwt: ReadJwt): Promise<Verified>
}

const path = '/apis/authentication.k8s.io/v1/tokenreviews'
const permission = 'create tokenreviews (ClusterRole system:auth-delegator)'
const extraPrefix = 'authentication.kubernetes.io/'

/**
 * Asks the API server about tokens (TokenReview, authentication.k8s.io/v1), which knows of accounts, pods and secrets that
 * are gone. An answer is believed for `cacheMs`, and not beyond the end of the token.
 */
export function reviewer(
  method: KubernetesMethod,
  api: KubernetesApi,
  proof: string,
  { clock, log }: Pick<TokenDeps, 'clock' | 'log'>,
): Reviewer {
  const outage = new Outage(method.apiServer, log)
  return {
    review: async (jwt) => {
      const review = {
        apiVersion: 'authentication.k8s.io/v1',
        kind: 'TokenReview',
        spec: { token: jwt.token, audiences: method.audiences },
      }
      const answer = await api.ask(path, permission, JSON.stringify(review)).catch((thrown: unknown) => {
        outage.failed(messageOf(thrown))
        const detail = `the API server cannot be asked about the token: ${messageOf(thrown)}`
        throw refusal(detail, new Unavailable(detail, { cause: thrown }))
      })
      outage.over()
      const expiresAt = endOf(jwt)
      const identity = accepted(answer, method.audiences, { proof, expiresAt })
      const until = Math.min(expiresAt ?? Number.POSITIVE_INFINITY, clock.epoch() + method.cacheMs)
      return { identity, until, keys: undefined, size: jwt.token.length }
    },
  }
}

/** Accepts what the API server has accepted for us: without its audiences it may have accepted it for somebody else. */
function accepted(
  answer: object,
  audiences: readonly string[],
  more: { readonly proof: string; readonly expiresAt: number | undefined },
): Identity {
  const status = memberOf(answer, 'status')
  if (memberOf(status, 'authenticated') !== true) {
    const why = sentenceOf(memberOf(status, 'error'))
    throw refusal(`the API server does not accept the token${why === undefined ? '' : `: ${why}`}`)
  }
  const accepting = memberOf(status, 'audiences')
  if (!Array.isArray(accepting) || !audiences.some((each) => accepting.includes(each))) {
    throw refusal(
      `the API server accepts the token for ${shown(accepting)}, not for one of ${audiences.join(', ')}`,
    )
  }
  const user = memberOf(status, 'user')
  const extra = (name: string): string | undefined => {
    const values = memberOf(user, 'extra', extraPrefix + name)
    return Array.isArray(values) ? plainText(values[0]) : undefined
  }
  return identityOf({
    ...serviceAccountOf(memberOf(user, 'username')),
    groups: textsOf(memberOf(user, 'groups')),
    claims: {
      uid: plainText(memberOf(user, 'uid')),
      pod: extra('pod-name'),
      podUid: extra('pod-uid'),
      node: extra('node-name'),
      nodeUid: extra('node-uid'),
    },
    ...more,
  })
}

/** Of a token that the API server has accepted; those of Secrets have no end. Milliseconds since 1970. */
function endOf({ claims }: ReadJwt): number | undefined {
  const exp = own(claims, 'exp')
  return typeof exp === 'number' && Number.isFinite(exp) ? exp * 1000 : undefined
}

/** Says once why the API server cannot be asked, however many requests it fails. */
class Outage {
  readonly #server: string
  readonly #log: Logger
  #reason: string | undefined

  constructor(server: string, log: Logger) {
    this.#server = server
    this.#log = log
  }

  failed(reason: string): void {
    if (reason !== this.#reason)
      this.#log.warn({ reason }, `tokens cannot be reviewed by ${this.#server}: they are refused`)
    this.#reason = reason
  }

  over(): void {
    if (this.#reason !== undefined) this.#log.info({}, `tokens can be reviewed by ${this.#server} again`)
    this.#reason = undefined
  }
}
