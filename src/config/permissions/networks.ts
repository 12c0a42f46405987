import { isIP } from 'node:net'
import { plainAddress } from '../../core/net.ts'
import { bad, good, type Parsed, quote } from '../parsed.ts'
import { text, type ValueType } from '../values.ts'

/** A network in its one spelling, without host bits. */
export const cidr: ValueType<string> = text('networks such as 10.0.0.0/8', {}, parseCidr)

function parseCidr(input: string): Parsed<string> {
  const refused = bad(`${quote(input)} is neither an IP address nor a network such as 10.0.0.0/8`)
  const [written = '', length, ...rest] = input.split('/')
  const address = isIP(written) === 0 ? undefined : addressOf(written)
  if (address === undefined || rest.length > 0) return refused
  if (length === undefined) return bad(`${quote(input)} has no prefix length: write ${single(address)}`)
  if (!/^(0|[1-9][0-9]{0,2})$/.test(length)) return refused
  // An IPv4-mapped network (RFC 4291 section 2.5.5.2) is one of IPv4.
  const mapped = isIP(written) === 6 && isIP(address) === 4
  const prefix = Number(length) - (mapped ? 96 : 0)
  if (prefix < 0) return bad(`${quote(input)} holds more than the IPv4-mapped addresses: write 0.0.0.0/0`)
  if (prefix > bitsOf(address)) return refused
  const network = `${masked(address, prefix)}/${prefix}`
  const plain = `${address}/${prefix}`
  return network === plain
    ? good(network)
    : bad(`${quote(input)} has bits behind its prefix: write ${network}, or ${single(address)}`)
}

/** The network of one address alone. */
export function single(address: string): string {
  return `${address}/${bitsOf(address)}`
}

/** An address in its one spelling, brackets of IPv6 taken off; undefined for anything else. */
export function addressOf(written: string): string | undefined {
  const bare = /^\[[^\]]*:[^\]]*\]$/.test(written) ? written.slice(1, -1) : written
  // A zone names an interface of one machine.
  return bare.includes('%') ? undefined : plainAddress(bare)
}

function bitsOf(address: string): 32 | 128 {
  return address.includes(':') ? 128 : 32
}

/** Its first `prefix` bits, the rest zero. */
function masked(address: string, prefix: number): string {
  const bits = bitsOf(address)
  const mask = ((1n << BigInt(prefix)) - 1n) << BigInt(bits - prefix)
  const value = numberOf(address) & mask
  const width = bits === 32 ? 8n : 16n
  const count = bits === 32 ? 4 : 8
  const groups = Array.from({ length: count }, (_, index) => {
    const group = (value >> (width * BigInt(count - 1 - index))) & ((1n << width) - 1n)
    return group.toString(bits === 32 ? 10 : 16)
  })
  if (bits === 32) return groups.join('.')
  const plain = plainAddress(groups.join(':'))
  return plain ?? groups.join(':')
}

function numberOf(address: string): bigint {
  if (!address.includes(':')) return address.split('.').reduce((sum, part) => (sum << 8n) | BigInt(part), 0n)
  // The last two groups may be written as IPv4.
  const dotted = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(address)
  const pair = (high = '0', low = '0'): string => ((Number(high) << 8) | Number(low)).toString(16)
  const plain =
    dotted === null ? address : `${dotted[1]}${pair(dotted[2], dotted[3])}:${pair(dotted[4], dotted[5])}`
  const [head = '', tail] = plain.split('::', 2)
  const front = head === '' ? [] : head.split(':')
  const back = tail === undefined || tail === '' ? [] : tail.split(':')
  const groups = [...front, ...Array<string>(8 - front.length - back.length).fill('0'), ...back]
  return groups.reduce((sum, group) => (sum << 16n) | BigInt(`0x${group}`), 0n)
}
