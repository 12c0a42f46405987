import { domainToASCII } from 'node:url'
import type { HostRule } from '../../core/sandbox.ts'
import { specialRangeOf } from '../../core/special-addresses.ts'
import { bad, good, type Parsed, quote } from '../parsed.ts'
import { text, type ValueType } from '../values.ts'
import { addressOf, single } from './networks.ts'

/** What an entry of a list of hosts comes to: a name, or the network of one address. */
export type HostEntry = { readonly rule: HostRule } | { readonly cidr: string }

const LABEL = /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/
const LONGEST_NAME = 253

/** A name, `*.name` for one or more labels below it, or `*` for any public name. */
export const hostRule: ValueType<HostRule> = text('names, `*.name` or `*`', {}, (input) => {
  const host = parseHost(input)
  if (!host.ok) return host
  return 'rule' in host.value
    ? good(host.value.rule)
    : bad(`${quote(input)} is an address, not a name: write ${host.value.cidr} under allowCIDR`)
}, hostText)

/**
 * The same, or an IP address, which some notations of others have among their hosts. Only a public one: what stands in a
 * list of hosts opens no private, link-local or metadata address.
 */
export const hostEntry: ValueType<HostEntry> = text('names, `*.name`, `*` or public IP addresses', {}, (input) => {
  const host = parseHost(input)
  if (!host.ok || 'rule' in host.value) return host
  const { cidr } = host.value
  const range = specialRangeOf(cidr.replace(/\/.*/, ''))
  return range === undefined
    ? host
    : bad(
        `${quote(input)} is in ${range.cidr}, which no list of hosts opens: write ${cidr} under allowCIDR, in the notation of docs/permissions.md where this one has none`,
      )
}, (entry) => ('cidr' in entry ? entry.cidr : hostText(entry.rule)))

/** As it is written in a profile. */
export function hostText(rule: HostRule): string {
  if (rule.kind === 'any') return '*'
  return rule.kind === 'exact' ? rule.name : `*.${rule.name}`
}

function parseHost(input: string): Parsed<HostEntry> {
  if (input === '*') return good({ rule: { kind: 'any' } })
  const address = addressOf(input)
  if (address !== undefined) return good({ cidr: single(address) })
  if (input.startsWith('*.')) {
    const below = parseName(input.slice(2), input)
    return below.ok ? good({ rule: { kind: 'below', name: below.value } }) : below
  }
  if (input.startsWith('.') && !input.startsWith('..'))
    return bad(
      `${quote(input)} begins with a dot: write ${input.slice(1)} for that name, *${input} for those below it`,
    )
  const name = parseName(input, input)
  return name.ok ? good({ rule: { kind: 'exact', name: name.value } }) : name
}

/** @param whole the entry, for messages */
function parseName(written: string, whole: string): Parsed<string> {
  const refuse = (why: string): Parsed<never> => bad(`${quote(whole)} ${why}`)
  if (written.includes('*'))
    return refuse('has a * that is not its whole first label: write *.example.com, or * for any public name')
  if (/[\s\p{Cc}]/u.test(written)) return refuse('has a blank or a control character in it')
  if (written.includes('://')) return refuse('has a scheme: write only the name of the host')
  if (written.includes('@')) return refuse('has credentials in it: write only the name of the host')
  if (written.includes('/'))
    return refuse('has a / in it: write only the name of the host; networks go into allowCIDR')
  if (/^(\[.*\]|[^:]*):[0-9]*$/.test(written))
    return refuse('has a port in it: write the name alone, ports go into allowPort')
  if (written.includes('%')) return refuse('has a % in it: write the plain name')
  // Lower case, and a final dot says only that a name is complete.
  const plain = written.toLowerCase().replace(/\.$/, '')
  if (/[^ -~]/.test(plain)) {
    const ascii = domainToASCII(plain)
    return refuse(
      isName(ascii) ? `is not in ASCII: write ${ascii}` : 'is not in ASCII, and no name of a host either',
    )
  }
  if (plain === '') return refuse('is not the name of a host')
  const meant = domainToASCII(plain)
  const address = addressOf(meant)
  if (address !== undefined && whole !== written) return refuse('is an address: it has no names below it')
  if (address !== undefined)
    return refuse(`is another spelling of the address ${address}: write that, if it is meant`)
  // What the resolver would take for an unfinished address, and punycode that stands for nothing.
  return meant === plain && isName(plain) ? good(plain) : refuse('is not the name of a host')
}

function isName(name: string): boolean {
  return name.length <= LONGEST_NAME && name.split('.').every((label) => LABEL.test(label))
}
