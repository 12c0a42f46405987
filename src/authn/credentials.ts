/** What can be said of the credentials of a request before any of them is looked at. */
import type { Trusted } from '../core/types.ts'
import type { Authenticator } from './authenticator.ts'

/** A credential of more bytes is refused unseen. */
export const maxCredentialBytes = 12 * 1024

/**
 * What follows a scheme in the Authorization header (RFC 9110 section 11.4), or undefined when the header names another
 * one, or the scheme alone.
 */
export function schemeValue(
  request: Pick<Trusted, 'headers'>,
  scheme: 'Bearer' | 'Basic',
): string | undefined {
  const header = request.headers.authorization
  if (header === undefined || header[scheme.length] !== ' ') return undefined
  if (header.slice(0, scheme.length).toLowerCase() !== scheme.toLowerCase()) return undefined
  return trimmed(header, scheme.length + 1)
}

/**
 * Blanks and tabs alone: trim() would also take a no-break space, which others hold for part of the credential. A loop, since
 * a regular expression takes the square of the length for blanks that something follows.
 */
function trimmed(text: string, from: number): string {
  let start = from
  let end = text.length
  while (start < end && isBlank(text.charCodeAt(start))) start++
  while (end > start && isBlank(text.charCodeAt(end - 1))) end--
  return text.slice(start, end)
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09
}

/** Whether the request carries anything that this method would look at. Says nothing of its worth. */
export function presents(request: Trusted, { headers, scheme }: Authenticator): boolean {
  if (headers.length === 0) return request.certificate !== undefined
  return headers.some((name) => {
    if (name === 'authorization' && scheme !== undefined) return schemeValue(request, scheme) !== undefined
    const value = request.headers[name]
    return value !== undefined && value !== ''
  })
}

/**
 * Why the credentials are not to be looked at: a header twice, of which whoever stands in front of us may have
 * believed the other one; one that is too large; a token in the URL, which logs and referrers repeat (OAuth 2.1 forbids
 * RFC 6750 section 2.3).
 *
 * @param names of the headers with credentials, in lower case
 * @returns for the log; undefined when there is nothing to object to
 */
export function objection(
  { rawHeaders, query }: Pick<Trusted, 'rawHeaders' | 'query'>,
  names: ReadonlySet<string>,
  maxBytes: number,
): string | undefined {
  const seen: string[] = []
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = (rawHeaders[i] as string).toLowerCase()
    if (!names.has(name)) continue
    if (seen.includes(name)) return `two ${name} headers`
    seen.push(name)
    const bytes = rawHeaders[i + 1]?.length ?? 0
    if (bytes > maxBytes) return `${bytes} bytes in the header ${name}; ${maxBytes} are allowed`
  }
  return query !== '' && namesToken(query) ? 'an access_token in the query of the URL' : undefined
}

/** Whether a query has a parameter `access_token`, in whatever letter case and spelling. */
function namesToken(query: string): boolean {
  return query.split(/[&;]/).some((part) => {
    const name = part.split('=', 1)[0] as string
    return decoded(name).trim().toLowerCase() === 'access_token'
  })
}

/** Never fails: what is no escape stands for itself, and everything that matters here is ASCII. */
function decoded(name: string): string {
  return name
    .replaceAll('+', ' ')
    .replace(/%([0-9a-fA-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
}
