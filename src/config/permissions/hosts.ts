import { domainToASCII } from 'node:url'
import { networkOf } from '../../core/net.ts'
import type { HostRule } from '../../core/sandbox.ts'
import { specialRangeOf } from '../../core/special-addresses.ts'
import { bad, good, type Parsed, quote } from '../parsed.ts'
import { text, type ValueType } from '../values.ts'
import { addressOf, single } from './networks.ts'

/** What an entry of a list of hosts comes to: a name, or the network of one address. */
export type HostEntry = { readonly rule: HostRule } | { readonly cidr: string }

const LABEL = /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/
const LONGEST_NAME = 253

/** A value of text that `take` makes something of. */
function hostValue<T>(
  name: string,
  take: (entry: HostEntry, written: string) => Parsed<T>,
  show: (value: T) => string,
): ValueType<T> {
  const word = text(name, {}, good)
  const parse = (input: unknown): Parsed<T> => {
    const written = word.parse(input)
    if (!written.ok) return written
    const entry = parseHost(written.value)
    return entry.ok ? take(entry.value, written.value) : entry
  }
  return { name, json: word.json, parse, parseText: parse, show }
}

/** A name, `*.name` for one or more labels below it, or `*` for any public name. */
export const hostRule: ValueType<HostRule> = hostValue(
  'names, `*.name` or `*`',
  (entry, written) =>
    'rule' in entry
      ? good(entry.rule)
      : bad(`${quote(written)} is an address, not a name: write ${entry.cidr} under allowCIDR`),
  hostText,
)

/**
 * The same, or a public IP address, which other notations have among their hosts. A private, link-local or metadata
 * address is refused: it would be opened by what reads like a name.
 */
export const hostEntry: ValueType<HostEntry> = hostValue(
  'names, `*.name`, `*` or public IP addresses',
  (entry, written) => {
    const range = 'cidr' in entry ? specialRangeOf(networkOf(entry.cidr).address) : undefined
    return range === undefined || 'rule' in entry
      ? good(entry)
      : bad(
          `${quote(written)} is in ${range.cidr}, which no list of hosts opens: write ${entry.cidr} under allowCIDR (ToolHive's notation has none: write the profile in the sidecar's own)`,
        )
  },
  (entry) => ('cidr' in entry ? entry.cidr : hostText(entry.rule)),
)

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
