/** Where a request comes from when proxies stand between: what those that are trusted say, read from the nearest on. */
import { isIP } from 'node:net'
import { SidecarError } from '../core/errors.ts'
import { addressSet, plainAddress } from '../core/net.ts'

export interface TrustedProxies {
  /** Whether this peer may say for whom it speaks: in headers of addresses and of certificates. */
  has(address: string): boolean
  /** The one header that the proxies write; undefined: either. */
  readonly header: ForwardingHeader | undefined
}

export type ForwardingHeader = 'forwarded' | 'x-forwarded-for'

/** Of the chain of proxies; what lies beyond is not looked at. */
const maxHops = 32

/**
 * @param entries addresses and networks of the proxies; empty: nobody is believed
 * @throws Error for an entry that is neither
 */
export function trustedProxies(entries: readonly string[], header?: ForwardingHeader): TrustedProxies {
  const set = addressSet(entries)
  return { has: (address) => set.has(address), header }
}

/**
 * The peer, unless it is trusted; else the last address of `Forwarded` (RFC 7239) or `X-Forwarded-For` that is not a
 * trusted one: whoever wrote it could see it. Where a proxy hides the address (`unknown`, `_hidden`) or wrote none that
 * can be read, it is that of the proxy. What a client put into the header itself is never reached.
 *
 * @param headers as Node.js joins them; lines of one name are one list (RFC 9110 section 5.3)
 * @throws ERR_HTTP when both headers are there and lead to different addresses: the proxies write one of them and pass
 *   the other on as the client made it, and to be mistaken for the proxy could be an advantage, too
 */
export function clientAddress(
  peer: string,
  headers: {
    readonly forwarded?: string | undefined
    readonly 'x-forwarded-for'?: string | string[] | undefined
  },
  trusted: TrustedProxies,
): string {
  const from = plainAddress(peer) ?? peer
  const { header } = trusted
  const forwarded = header === 'x-forwarded-for' ? undefined : headers.forwarded
  const given = header === 'forwarded' ? undefined : headers['x-forwarded-for']
  if ((forwarded === undefined && given === undefined) || !trusted.has(from)) return from
  const list = typeof given === 'object' ? given.join(',') : given
  const standard =
    forwarded === undefined ? undefined : lastUntrusted(from, forwardedHops(forwarded), trusted)
  const customary = list === undefined ? undefined : lastUntrusted(from, listedHops(list), trusted)
  if (standard !== undefined && customary !== undefined && standard !== customary) {
    const detail = `the trusted proxy ${from} sent Forwarded for ${standard} and X-Forwarded-For for ${customary}: only one of them can be its own`
    throw new SidecarError('ERR_HTTP', { detail })
  }
  return standard ?? customary ?? from
}

function lastUntrusted(peer: string, hops: Iterable<string | undefined>, trusted: TrustedProxies): string {
  let nearest = peer
  let count = 0
  for (const hop of hops) {
    const address = hop === undefined ? undefined : nodeAddress(hop)
    if (address === undefined || ++count > maxHops) return nearest
    if (!trusted.has(address)) return address
    nearest = address
  }
  return nearest
}

/** `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`; undefined for anything else. */
function nodeAddress(node: string): string | undefined {
  const match = /^\[([^\]]*)\](?::\d{1,5})?$/.exec(node)
  if (match !== null) return isIP(match[1] as string) === 6 ? plainAddress(match[1] as string) : undefined
  return plainAddress(node) ?? plainAddress(/^([\d.]+):\d{1,5}$/.exec(node)?.[1] ?? '')
}

/** The elements of X-Forwarded-For, last first. */
function* listedHops(list: string): Generator<string> {
  let end = list.length
  while (end >= 0) {
    const comma = end === 0 ? -1 : list.lastIndexOf(',', end - 1)
    yield list.slice(comma + 1, end).trim()
    end = comma
  }
}

/**
 * The `for` of the elements of Forwarded, last first; undefined for one without.
 *
 * Read from the right, so that a quote that a client left open on the left swallows nothing of what proxies added. An
 * escaped quote cannot be told from an open one that way, and no address needs one: it ends the reading.
 */
function* forwardedHops(list: string): Generator<string | undefined> {
  let end = list.length
  let quoted = false
  for (let at = list.length - 1; at >= -1; at--) {
    const char = list[at]
    if (char === '"') quoted = !quoted
    if (char === '\\' || (at < 0 && quoted)) return
    if (at >= 0 && (quoted || char !== ',')) continue
    yield forOf(list.slice(at + 1, end))
    end = at
  }
}

/** RFC 7239 section 4: `for=192.0.2.1;proto=https`, `for="[2001:db8::1]:80"`; undefined when `for` is not there once. */
function forOf(element: string): string | undefined {
  const pairs = (element.match(/(?:[^";]|"[^"]*")+/g) ?? []).filter((pair) => /^\s*for\s*=/i.test(pair))
  const [pair] = pairs
  if (pair === undefined || pairs.length > 1) return undefined
  const value = pair.slice(pair.indexOf('=') + 1).trim()
  return /^"[^"]*"$/.test(value) ? value.slice(1, -1) : value
}
