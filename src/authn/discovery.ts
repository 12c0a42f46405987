import {
  type AuthorizationServer,
  allowInsecureRequests,
  customFetch,
  discoveryRequest,
  processDiscoveryResponse,
} from 'oauth4webapi'
import type { Clock, Logger } from '../core/types.ts'
import { FetchError, type Fetcher, type JsonObject } from './fetching.ts'
import { Refreshed } from './refreshed.ts'
import { messageOf, refusal, shown } from './token-method.ts'

/** What an issuer says of itself. */
export interface Discovery {
  /** Fetched in the background, if it is not known. */
  start(): void
  /**
   * An https URL of its document.
   *
   * @throws ERR_AUTH_INVALID when there is no document, or not in time, or no such URL in it
   */
  endpoint(member: 'jwks_uri' | 'introspection_endpoint', signal?: () => AbortSignal): Promise<string>
}

const maxAgeMs = 10 * 60_000
const maxBytes = 256 * 1024
/** For those who wait with others' patience: the fetcher has a timeout of its own. */
const patient = new AbortController().signal

/**
 * OpenID Connect Discovery 1.0 section 4, else RFC 8414 section 3. The document must name exactly this issuer. Kept for
 * 10 minutes, then renewed in the background; for up to 24 hours while the issuer does not answer.
 */
export function createDiscovery(
  issuer: string,
  fetcher: Fetcher,
  { clock, log }: { readonly clock: Clock; readonly log: Logger },
): Discovery {
  const refreshed = new Refreshed<AuthorizationServer>({
    what: `the metadata of ${issuer}`,
    load: () => discover(issuer, fetcher),
    clock,
    log,
    maxAgeMs,
  })
  return {
    start: () => void refreshed.value,
    endpoint: async (member, signal = () => patient) => {
      const url = (await refreshed.ready(signal))[member]
      if (typeof url !== 'string') throw refusal(`the metadata of ${issuer} has no ${member}`)
      return url
    },
  }
}

async function discover(issuer: string, fetcher: Fetcher): Promise<AuthorizationServer> {
  try {
    return await discoverBy('oidc', issuer, fetcher)
  } catch (first) {
    // Neither does whoever is down have another document, nor is that of somebody else a reason to look further.
    if (!(first instanceof FetchError && first.answered)) throw first
    return await discoverBy('oauth2', issuer, fetcher).catch((second: unknown) => {
      throw new FetchError(`${messageOf(first)}; ${messageOf(second)}`, { cause: first })
    })
  }
}

async function discoverBy(
  algorithm: 'oidc' | 'oauth2',
  issuer: string,
  fetcher: Fetcher,
): Promise<AuthorizationServer> {
  const url = new URL(issuer)
  let document: JsonObject = {}
  const response = await discoveryRequest(url, {
    algorithm,
    // Which URLs may be asked is decided by the fetcher.
    [allowInsecureRequests]: true,
    [customFetch]: async (at) => {
      document = await fetcher.json(at, { maxBytes })
      return Response.json(document)
    },
  })
  const said = document['issuer']
  if (said !== issuer) {
    throw refusal(`it says that its issuer is ${shown(said)}; if that is right, configure exactly that`)
  }
  return processDiscoveryResponse(url, response)
}
