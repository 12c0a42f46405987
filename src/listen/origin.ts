import { SidecarError } from '../core/errors.ts'
import { hostOf, isLoopback } from '../core/net.ts'
import type { Draft, Layer } from '../core/pipeline.ts'
import type { Received, Trusted } from '../core/types.ts'

export interface OriginOptions {
  /** The address listened on. */
  readonly host: string
  /** Whether callers must authenticate. */
  readonly authenticated: boolean
  /** Host names (with or without port) this server is reached by. */
  readonly allowedHosts: readonly string[]
  /** Origins of web pages that may call, as browsers write them. */
  readonly allowedOrigins: readonly string[]
}

export interface HostAndOrigin {
  /** @throws ERR_HOST, ERR_ORIGIN */
  check(host: string | undefined, origin: string | undefined): void
}

/**
 * Which Host and Origin are served. A web page on a name that its attacker re-points at this address (DNS rebinding)
 * sends that name as Host and as Origin; a page elsewhere sends a foreign Origin. Requests without Origin come from
 * programs, not from pages.
 *
 * On a loopback address only loopback names are served, and pages of this machine may call. On other addresses
 * without authentication, names that an outsider can point here (with a dot, outside cluster-local zones) must be
 * allowed explicitly; with authentication a rebound page has no credential, so any name is served unless names are
 * configured.
 */
export function hostAndOrigin(options: OriginOptions): HostAndOrigin {
  const hosts = new Set(options.allowedHosts.map((host) => host.toLowerCase()))
  const origins = new Set(options.allowedOrigins.map((origin) => origin.toLowerCase()))
  const local = isLoopback(options.host)

  const servesHost = (authority: string): boolean => {
    const host = hostOf(authority)
    if (host === undefined) return false
    if (hosts.has(host) || hosts.has(authority.toLowerCase())) return true
    if (local) return isLoopback(host)
    if (options.authenticated) return hosts.size === 0
    return isLoopback(host) || cannotBeRebound(host)
  }
  const servesOrigin = (origin: string): boolean => {
    if (origins.has(origin.toLowerCase())) return true
    if (!local) return false
    const match = /^https?:\/\/([^/]+)$/.exec(origin)
    const host = match === null ? undefined : hostOf(match[1] as string)
    return host !== undefined && isLoopback(host)
  }

  let lastServed: string | undefined
  return {
    check(host, origin) {
      if (host === undefined || (host !== lastServed && !servesHost(host))) {
        const detail = `Host ${JSON.stringify(host ?? '')} (listen.allowedHosts, --allow-host)`
        throw new SidecarError('ERR_HOST', { detail })
      }
      lastServed = host
      if (origin !== undefined && !servesOrigin(origin)) {
        const detail = `Origin ${JSON.stringify(origin)} (listen.allowedOrigins, --allow-origin)`
        throw new SidecarError('ERR_ORIGIN', { detail })
      }
    },
  }
}

/** Addresses, names of one label and cluster-local names: no public DNS zone answers for them. */
function cannotBeRebound(host: string): boolean {
  return (
    host.startsWith('[') ||
    /^\d+(\.\d+){3}$/.test(host) ||
    !host.includes('.') ||
    host.endsWith('.svc') ||
    host.endsWith('.cluster.local')
  )
}

/** The layer: refuses what {@link hostAndOrigin} does not serve. */
export function checkOrigin<I extends Received>(
  policy: () => HostAndOrigin,
): Layer<I, I & Pick<Trusted, 'origin'>> {
  return (received, next) => {
    const { host, origin } = received.headers
    policy().check(host, origin)
    const trusted = received as I & Draft<Pick<Trusted, 'origin'>>
    trusted.origin = origin
    return next(trusted)
  }
}

/** CORS response headers for a request from an allowed origin (Fetch standard, "HTTP extensions"). */
export function corsHeaders(origin: string): Record<string, string> {
  return {
    'Access-Control-Allow-Origin': origin,
    'Access-Control-Expose-Headers': 'Mcp-Session-Id, X-Request-Id, WWW-Authenticate, Retry-After',
    Vary: 'Origin',
  }
}

const allowedHeaders = [
  ...['accept', 'authorization', 'content-type', 'last-event-id', 'mcp-method', 'mcp-name'],
  ...['mcp-protocol-version', 'mcp-session-id', 'x-api-key'],
]

/** Tools name these, so there is no list of them (2026-07-28, server/tools, "x-mcp-header"). */
const parameterHeader = /^mcp-param-[\w.!#$%&'*+^`|~-]{1,100}$/
const maxParameterHeaders = 100

/**
 * What a preflight is told on top of {@link corsHeaders}.
 *
 * @param requested its Access-Control-Request-Headers
 * @param credentials headers of credentials, beside the usual ones
 */
export function preflightHeaders(
  requested: string | undefined,
  credentials: Iterable<string> = [],
): Readonly<Record<string, string>> {
  const parameters = (requested ?? '')
    .toLowerCase()
    .split(',', maxParameterHeaders)
    .map((name) => name.trim())
    .filter((name) => parameterHeader.test(name))
  return {
    'Access-Control-Allow-Methods': 'GET, POST, DELETE',
    'Access-Control-Allow-Headers': [...new Set([...allowedHeaders, ...credentials, ...parameters])].join(
      ', ',
    ),
    'Access-Control-Max-Age': '7200',
  }
}
