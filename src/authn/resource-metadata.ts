/** What an OAuth client is told about this server: where to get tokens, and what was wrong with the last one. */
import type { BearerError } from './challenge.ts'
import { scopePattern } from './claim-values.ts'
import { TokenMethodError } from './token-method.ts'

export interface ResourceMetadataOptions {
  /** This server as clients name it: an http(s) URL without fragment. May change while the server starts. */
  readonly resource: () => string
  /** Issuers; none: there is no document, and challenges name none. */
  readonly authorizationServers: readonly string[]
  /** Scopes that a client may ask for. `offline_access` is left out: it is no scope of a resource. */
  readonly scopesSupported: readonly string[]
  /** Paths of this server that clients are given, such as `/mcp`: they look for the document by these, too. */
  readonly endpoints?: readonly string[]
  /** For people. */
  readonly resourceName?: string | undefined
}

export interface ResourceMetadata {
  /** The document of RFC 9728 section 2; undefined when no authorization server is known. */
  document(): Readonly<Record<string, unknown>> | undefined
  /** Whether the document belongs to a path: the well-known one, alone or followed by that of the resource or an endpoint. */
  serves(path: string): boolean
  /**
   * A value of WWW-Authenticate (RFC 6750 section 3, RFC 9728 section 5.1).
   *
   * @param error undefined: no token came with the request
   * @param scopes all that the operation needs; what is no scope is left out
   */
  bearerChallenge(error: BearerError | undefined, scopes: readonly string[]): string
}

export const wellKnownPath = '/.well-known/oauth-protected-resource'

/** One sentence for each, whatever the reason was: who guesses tokens learns nothing from it. */
const descriptions: Readonly<Record<BearerError, string>> = {
  invalid_token: 'The access token is not valid here.',
  insufficient_scope: 'The access token lacks a scope that this operation needs.',
}

/**
 * OAuth 2.0 Protected Resource Metadata (RFC 9728), as MCP asks for it (2026-07-28, basic/authorization).
 *
 * @throws TokenMethodError for a scope or an authorization server that is none
 */
export function createResourceMetadata(options: ResourceMetadataOptions): ResourceMetadata {
  const servers = [...new Set(options.authorizationServers)]
  for (const server of servers) {
    if (!URL.canParse(server) || !/^https?:$/.test(new URL(server).protocol)) {
      throw new TokenMethodError(`the authorization server ${JSON.stringify(server)} is not an https URL`)
    }
  }
  const supported = [...new Set(options.scopesSupported)].filter((scope) => scope !== 'offline_access')
  const wrong = supported.find((scope) => !scopePattern.test(scope))
  if (wrong !== undefined) {
    throw new TokenMethodError(
      `${JSON.stringify(wrong)} is no scope: one word without quotes or backslashes (RFC 6749)`,
    )
  }
  const name = options.resourceName === undefined ? {} : { resource_name: options.resourceName }

  const byEndpoint = new Set(options.endpoints?.map((path) => wellKnownPath + path))
  let last: Place | undefined
  const place = (): Place => {
    const resource = options.resource()
    if (last?.resource !== resource) last = placeOf(resource)
    return last
  }

  return {
    document: () =>
      servers.length === 0
        ? undefined
        : {
            resource: place().resource,
            authorization_servers: servers,
            ...(supported.length === 0 ? {} : { scopes_supported: supported }),
            bearer_methods_supported: ['header'],
            ...name,
          },
    serves: (path) =>
      servers.length > 0 && (path === wellKnownPath || path === place().path || byEndpoint.has(path)),
    bearerChallenge: (error, scopes) => {
      const asked = scopes.filter((scope) => scope !== 'offline_access' && scopePattern.test(scope))
      const parameters = [
        ...(error === undefined
          ? []
          : [`error=${quoted(error)}`, `error_description=${quoted(descriptions[error])}`]),
        ...(asked.length === 0 ? [] : [`scope=${quoted([...new Set(asked)].join(' '))}`]),
        ...(servers.length === 0 ? [] : [`resource_metadata=${quoted(place().url)}`]),
      ]
      return parameters.length === 0 ? 'Bearer' : `Bearer ${parameters.join(', ')}`
    },
  }
}

interface Place {
  readonly resource: string
  readonly path: string
  readonly url: string
}

/** RFC 9728 section 3.1: the well-known path stands between the host and the path of the resource. */
function placeOf(resource: string): Place {
  const url = URL.canParse(resource) ? new URL(resource) : undefined
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.hash !== '' || url.username !== '') {
    throw new TokenMethodError(
      `the resource ${JSON.stringify(resource)} is not a URL of this server: write https://HOST/PATH, without fragment`,
    )
  }
  const path = `${wellKnownPath}${url.pathname === '/' ? '' : url.pathname}`
  return { resource, path, url: `${url.origin}${path}${url.search}` }
}

/** A quoted-string (RFC 9110 section 5.6.4), of characters that may stand in a header. */
function quoted(text: string): string {
  return `"${text.replace(/[^\x20-\x7e]/g, '').replace(/["\\]/g, '\\$&')}"`
}
