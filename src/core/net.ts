import { isIP } from 'node:net'

/** True for addresses that only this machine can reach: 127.0.0.0/8, ::1 and the name localhost. */
export function isLoopback(host: string): boolean {
  const bare = host.startsWith('[') && host.endsWith(']') ? host.slice(1, -1) : host
  if (bare === 'localhost') return true
  if (bare === '::1') return true
  const address = bare.toLowerCase().startsWith('::ffff:') ? bare.slice(7) : bare
  return isIP(address) === 4 && address.startsWith('127.')
}

/** `host` as it stands in a URL: IPv6 addresses in brackets. */
export function urlHost(host: string): string {
  return isIP(host) === 6 ? `[${host}]` : host
}

/**
 * The host part of a Host header or an authority, in lower case, without port and without a trailing dot.
 * Undefined when it is not one (RFC 9110 section 7.2, RFC 3986 section 3.2.2).
 */
export function hostOf(authority: string): string | undefined {
  const match = /^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?$/.exec(authority)
  const host = match?.[1]?.toLowerCase().replace(/\.$/, '')
  // Brackets are for IPv6 addresses alone; a browser would not go there otherwise.
  if (host === undefined || host === '' || (host.startsWith('[') && isIP(host.slice(1, -1)) !== 6))
    return undefined
  return host
}
