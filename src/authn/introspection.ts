import {
  allowInsecureRequests,
  ClientSecretBasic,
  customFetch,
  introspectionRequest,
  processIntrospectionResponse,
} from 'oauth4webapi'
import type { Credential } from '../core/secret.ts'
import { Unavailable } from './authenticator.ts'
import { type ClaimRules, identityOf } from './claims.ts'
import { FetchError, type Fetcher, type JsonObject } from './fetching.ts'
import type { Verified } from './token-cache.ts'
import { own } from './token-format.ts'
import { messageOf, refusal, type TokenDeps } from './token-method.ts'

export interface IntrospectionOptions extends ClaimRules {
  readonly issuer: string
  /** The introspection endpoint; may have to be found out first. */
  readonly endpoint: () => string | Promise<string>
  readonly clientId: string
  readonly clientSecret: Credential
  /** An answer is believed so long, and not beyond `exp`. */
  readonly cacheMs: number
  readonly fetcher: Fetcher
  readonly deps: TokenDeps
}

/** Of an answer. */
const maxBytes = 64 * 1024

/**
 * Asks the issuer what it knows of a token (RFC 7662), with `client_secret_basic`.
 *
 * RFC 7662 leaves most members to the issuer. Here `exp` and `aud` must be there, since a token without end, or for
 * anybody, is not for us; `iss` may be missing, as the endpoint speaks for one issuer; and where the claim that names
 * the caller is `sub` and there is none (a client on its own behalf), `client_id` stands in for it.
 *
 * @throws ERR_AUTH_INVALID (detail: which check failed), ERR_SCOPE
 */
export async function introspect(token: string, options: IntrospectionOptions): Promise<Verified> {
  const { deps, checks, cacheMs, issuer } = options
  const answer = await ask(token, options).catch((thrown: unknown) => {
    const detail = `the issuer cannot be asked about it: ${messageOf(thrown)}`
    throw refusal(detail, isOutage(thrown) ? new Unavailable(detail) : thrown)
  })
  if (answer['active'] !== true) throw refusal('the issuer says that it is not active')
  const type = own(answer, 'token_type')
  if (typeof type === 'string' && /^(?:dpop|pop|mac)$/i.test(type)) {
    throw refusal(`the issuer says that it is of type ${type}, not a bearer token`)
  }
  const claims = withSubject({ iss: issuer, ...answer }, checks.subjectClaim)
  const now = deps.clock.epoch()
  const identity = identityOf(claims, options, now)
  const ends = identity.expiresAt as number
  const size = JSON.stringify(answer).length
  return { identity, until: Math.min(ends, now + cacheMs), keys: undefined, size }
}

/** The issuer is away, or out of order, or does not know us, whatever was asked. One that refuses the token (400) is not. */
function isOutage(thrown: unknown): boolean {
  for (let each = thrown; each instanceof Error; each = each.cause) {
    if (each instanceof Unavailable) return true
    if (each instanceof FetchError && !each.refused) return true
  }
  return false
}

function withSubject(claims: JsonObject, subjectClaim: string): JsonObject {
  const client = own(claims, 'client_id')
  return subjectClaim === 'sub' && own(claims, 'sub') === undefined && client !== undefined
    ? { ...claims, sub: client }
    : claims
}

async function ask(token: string, options: IntrospectionOptions): Promise<JsonObject> {
  const { endpoint, clientId, clientSecret, fetcher, issuer } = options
  const server = { issuer, introspection_endpoint: await endpoint() }
  const client = { client_id: clientId }
  const authentication = ClientSecretBasic(clientSecret.reveal())
  const response = await introspectionRequest(server, client, authentication, token, {
    additionalParameters: { token_type_hint: 'access_token' },
    // Which URLs may be asked is decided by the fetcher.
    [allowInsecureRequests]: true,
    [customFetch]: async (url, { method, headers, body }) =>
      Response.json(await fetcher.json(url, { method, headers, body: body.toString(), maxBytes })),
  })
  return { ...(await processIntrospectionResponse(server, client, response)) }
}
