/** Addresses that are not, or not surely, somewhere on the public internet. */
import { isIP } from 'node:net'
import { type AddressSet, addressSet, networkOf, plainAddress } from './net.ts'

export interface SpecialRange {
  /** As it is written: `169.254.0.0/16`. */
  readonly cidr: string
  /** Bits. */
  readonly prefix: number
  /** Where clouds hand out credentials: a network around it that is allowed does not mean it. */
  readonly metadata: boolean
}

interface Range extends SpecialRange {
  readonly set: AddressSet
}

const range = (cidr: string, metadata = false): Range => ({
  cidr,
  prefix: networkOf(cidr).prefix,
  metadata,
  set: addressSet([cidr]),
})

/** Metadata and credential services of AWS, ECS, EKS, Azure, Alibaba, Oracle and Google. */
const metadata = [
  ...['169.254.169.254/32', '169.254.170.2/32', '169.254.170.23/32', '168.63.129.16/32'],
  ...['100.100.100.200/32', '192.0.0.192/32', 'fd00:ec2::/32', 'fd20:ce::254/128'],
].map((cidr) => range(cidr, true))

/** IANA special-purpose registries (RFC 6890). A narrower network stands before the one that it is in. */
const ranges: Readonly<Record<4 | 6, readonly Range[]>> = {
  4: [
    ...metadata.filter(({ cidr }) => !cidr.includes(':')),
    ...['0.0.0.0/8', '10.0.0.0/8', '100.64.0.0/10', '127.0.0.0/8', '169.254.0.0/16', '172.16.0.0/12'],
    ...['192.0.0.0/24', '192.0.2.0/24', '192.88.99.0/24', '192.168.0.0/16', '198.18.0.0/15'],
    ...['198.51.100.0/24', '203.0.113.0/24', '224.0.0.0/4', '240.0.0.0/4'],
  ].map((each) => (typeof each === 'string' ? range(each) : each)),
  6: [
    ...metadata.filter(({ cidr }) => cidr.includes(':')),
    ...['::/128', '::1/128', '64:ff9b::/96', '64:ff9b:1::/48', '100::/64'],
    // Teredo, ORCHID and others; documentation; 6to4, which hides an IPv4 address; documentation.
    ...['2001::/32', '2001::/23', '2001:db8::/32', '2002::/16', '3fff::/20'],
    ...['fc00::/7', 'fe80::/10', 'fec0::/10', 'ff00::/8'],
    // What IPv6 hands out to the internet is 2000::/3; this is all the rest.
    ...['::/3', '4000::/2', '8000::/1'],
  ].map((each) => (typeof each === 'string' ? range(each) : each)),
}

/** The narrowest such network around an address, IPv4-mapped ones as IPv4; undefined for all others. */
export function specialRangeOf(address: string): SpecialRange | undefined {
  const plain = plainAddress(address)
  if (plain === undefined) return undefined
  return ranges[plain.includes(':') ? 6 : 4].find(({ set }) => set.has(plain))
}

/** True for an address of the public internet; false for anything else, also for what is no address. */
export function isPublicAddress(address: string): boolean {
  // A mapped address is one that somebody disguised.
  if (isIP(address) === 0 || plainAddress(address)?.includes(':') !== address.includes(':')) return false
  return specialRangeOf(address) === undefined
}

/**
 * The IPv4 addresses that traffic to an IPv6 address ends at, or passes: NAT64 (RFC 6052), 6to4 (RFC 3056), and both
 * the server and the client of Teredo (RFC 4380). Empty for all others.
 */
export function embeddedIPv4(address: string): readonly string[] {
  const groups = groupsOf(address)
  if (groups === undefined) return []
  const at = (i: number, mask = 0): string => {
    const [high, low] = [(groups[i] as number) ^ mask, (groups[i + 1] as number) ^ mask]
    return `${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`
  }
  if (groups[0] === 0x64 && groups[1] === 0xff9b && groups.slice(2, 6).every((group) => group === 0)) {
    return [at(6)]
  }
  if (groups[0] === 0x2002) return [at(1)]
  if (groups[0] === 0x2001 && groups[1] === 0) return [at(2), at(6, 0xffff)]
  return []
}

/** The eight numbers of an IPv6 address; undefined for any other text. */
function groupsOf(address: string): number[] | undefined {
  const plain = plainAddress(address)
  if (plain === undefined || !plain.includes(':')) return undefined
  const numbers = (text: string): number[] =>
    text === ''
      ? []
      : text.split(':').flatMap((each) => (each.includes('.') ? pairOf(each) : [Number.parseInt(each, 16)]))
  const [head = '', tail = ''] = plain.split('::', 2)
  const [before, after] = [numbers(head), numbers(tail)]
  return [...before, ...Array<number>(8 - before.length - after.length).fill(0), ...after]
}

function pairOf(dotted: string): number[] {
  const [a = 0, b = 0, c = 0, d = 0] = dotted.split('.').map(Number)
  return [a * 256 + b, c * 256 + d]
}
