import { BlockList, isIP, SocketAddress } from 'node:net'

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

/**
 * One spelling for each address: IPv4-mapped ones (RFC 4291 section 2.5.5.2) as IPv4, IPv6 as RFC 5952 writes it,
 * without a zone. Undefined for anything that is not an IP address.
 */
export function plainAddress(text: string): string | undefined {
  const family = isIP(text)
  if (family === 4) return text
  if (family === 0) return undefined
  const zone = text.indexOf('%')
  const bare = zone < 0 ? text : text.slice(0, zone)
  if (bare.startsWith('::ffff:') && isIP(bare.slice(7)) === 4) return bare.slice(7)
  const { address } = new SocketAddress({ address: bare, family: 'ipv6' })
  return address.startsWith('::ffff:') && address.includes('.') ? address.slice(7) : address
}

/**
 * What counts as one caller where addresses are counted: an IPv4 address as it is, of an IPv6 address its /64, since a
 * single host has all of that to itself (`2001:db8:0:1::/64`). What is not an address stands for itself.
 */
export function addressGroup(address: string): string {
  const plain = plainAddress(address)
  if (plain === undefined) return address
  if (!plain.includes(':')) return plain
  const [head = '', tail = ''] = plain.split('::', 2)
  const groups = head === '' ? [] : head.split(':')
  const after = tail === '' ? 0 : tail.split(':').length + (tail.includes('.') ? 1 : 0)
  // Without `::` there are eight groups, so that nothing is missing.
  const missing = plain.includes('::') ? 8 - groups.length - after : 0
  const full = [...groups, ...Array<string>(missing).fill('0'), ...(tail === '' ? [] : tail.split(':'))]
  return `${full.slice(0, 4).join(':')}::/64`
}

/** Addresses and networks, for membership. */
export interface AddressSet {
  /** False also for what is not an IP address. */
  has(address: string): boolean
}

/**
 * @param entries IP addresses and CIDR networks (`10.0.0.0/8`, `2001:db8::/32`). IPv4-mapped forms are IPv4, here and
 *   in questions; networks of IPv6 hold no IPv4 address, not even `::/0`
 * @throws Error for an entry that is neither
 */
export function addressSet(entries: readonly string[]): AddressSet {
  const ipv4: { readonly base: number; readonly size: number }[] = []
  const ipv6 = new BlockList()
  for (const entry of entries) {
    const { address, prefix } = networkOf(entry)
    const size = 2 ** (32 - prefix)
    if (isIP(address) === 4) ipv4.push({ base: Math.floor(ipv4Number(address) / size), size })
    else ipv6.addSubnet(address, prefix, 'ipv6')
  }
  return {
    has(address) {
      const plain = plainAddress(address)
      if (plain === undefined) return false
      if (plain.includes(':')) return ipv6.check(plain, 'ipv6')
      // A BlockList would make an object of each question.
      const number = ipv4Number(plain)
      return ipv4.some(({ base, size }) => Math.floor(number / size) === base)
    },
  }
}

/** @param address IPv4 */
function ipv4Number(address: string): number {
  let whole = 0
  let part = 0
  for (let i = 0; i < address.length; i++) {
    const code = address.charCodeAt(i)
    if (code === 0x2e) {
      whole = whole * 256 + part
      part = 0
    } else part = part * 10 + code - 0x30
  }
  return whole * 256 + part
}

/**
 * The parts of a CIDR network or an address. IPv4-mapped forms are IPv4.
 *
 * @throws Error for an entry that is neither
 */
export function networkOf(entry: string): { readonly address: string; readonly prefix: number } {
  const match = /^([^/%]+)(?:\/(\d{1,3}))?$/.exec(entry)
  const written = match?.[1] ?? ''
  const address = plainAddress(written)
  const bits = isIP(written) === 4 ? 32 : 128
  const given = match?.[2] === undefined ? bits : Number(match[2])
  // A mapped network that is wider than all of IPv4 has no meaning as one.
  const prefix = address !== undefined && bits === 128 && isIP(address) === 4 ? given - 96 : given
  if (address === undefined || given > bits || prefix < 0)
    throw new Error(`${JSON.stringify(entry)} is neither an IP address nor a network such as 10.0.0.0/8`)
  return { address, prefix }
}
