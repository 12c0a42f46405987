/** One spelling for each target. */
import { isIP } from 'node:net'
import { domainToASCII } from 'node:url'
import { plainAddress, urlHost } from '../core/net.ts'

/** A name in IDNA ASCII, lower case, without a trailing dot; or an address, IPv4-mapped ones as IPv4. */
export type Host =
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'address'; readonly address: string }

export interface Target {
  readonly host: Host
  readonly port: number
}

/** What is wrong with a target, for the verdict. */
export class TargetError extends Error {
  override readonly name = 'TargetError'
}

const longestName = 253
const longestLabel = 63

/**
 * A host as browsers and resolvers understand it: `2130706433`, `0177.1` and `0x7f.1` are 127.0.0.1 (the WHATWG URL
 * parser, that all spellings pass through), `[::ffff:127.0.0.1]` too.
 *
 * @throws TargetError for anything that is neither a name nor an address, percent-encoding and zones included
 */
export function canonicalHost(text: string): Host {
  const bracketed = /^\[([0-9a-fA-F:.]+)\]$/.exec(text)?.[1]
  if (bracketed !== undefined || isIP(text) === 6) {
    const address =
      isIP(bracketed ?? text) === 6 && !text.includes('%') ? plainAddress(bracketed ?? text) : undefined
    if (address === undefined)
      throw new TargetError('brackets are for IPv6 addresses, and zones have no place here')
    return { kind: 'address', address }
  }
  if (isIP(text) === 4) return { kind: 'address', address: text }
  // What a URL parser would take for a part of its own must not reach it.
  if (/[\0-,/:-@[-^`{-\x7f]/.test(text))
    throw new TargetError('a host has letters, digits, dots, hyphens and underscores')
  const ascii = domainToASCII(text)
  if (isIP(ascii) === 4) return { kind: 'address', address: ascii }
  const name = ascii.endsWith('.') ? ascii.slice(0, -1) : ascii
  if (!/^[a-z0-9_-]+(?:\.[a-z0-9_-]+)*$/.test(name))
    throw new TargetError('this is neither a name nor an address')
  if (name.length > longestName || name.split('.').some((label) => label.length > longestLabel))
    throw new TargetError('a name has at most 253 characters, and each label 63')
  return { kind: 'name', name }
}

/**
 * `HOST:PORT`, IPv6 in brackets.
 *
 * @param defaultPort where none is written; undefined: one must be
 * @throws TargetError
 */
export function authority(text: string, defaultPort?: number): Target {
  const match = /^(\[[^\]]*\]|[^:]*)(?::([1-9]\d{0,4}))?$/.exec(text)
  const port = match?.[2] === undefined ? defaultPort : Number(match[2])
  if (match?.[1] === undefined || port === undefined || port > 65_535)
    throw new TargetError('the target is no HOST:PORT with a port from 1 to 65535')
  return { host: canonicalHost(match[1]), port }
}

export interface HttpTarget extends Target {
  /** What the Host header has to be. */
  readonly authority: string
  /** Path and query, as they were written. */
  readonly path: string
}

/**
 * An absolute `http://` URL of a request line (RFC 9112 section 3.2.2).
 *
 * @throws TargetError
 */
export function absoluteTarget(text: string): HttpTarget {
  const match = /^http:\/\/([^/?#]*)([/?][^#]*)?$/i.exec(text)
  if (match === null) throw new TargetError('the target is no http:// URL; other schemes go through CONNECT')
  const { host, port } = authority(match[1] as string, 80)
  const written = match[2] ?? '/'
  const shown = hostText(host)
  return {
    host,
    port,
    authority: port === 80 ? urlHost(shown) : `${urlHost(shown)}:${port}`,
    path: written.startsWith('?') ? `/${written}` : written,
  }
}

export function hostText(host: Host): string {
  return host.kind === 'name' ? host.name : host.address
}
