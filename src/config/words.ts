import { addressSet, isLoopback } from '../core/net.ts'
import { bad, good, type Parsed, quote } from './parsed.ts'
import { text, type ValueType } from './values.ts'

/** Longest name or pattern; those of MCP are far shorter. */
const MAX_NAME = 512

/** Any text of up to 512 characters; `name` is what the reference calls it. */
export function word(name: string): ValueType<string> {
  return text(name, { maxLength: MAX_NAME }, (input) =>
    input.length <= MAX_NAME ? good(input) : bad(`is longer than ${MAX_NAME} characters`),
  )
}

/** A pattern in which `*` stands for any text. */
export const globText: ValueType<string> = word('patterns, `*` for any text')

const TRUST_DOMAIN = /^[a-z0-9._-]{1,255}$/

/** Of a SPIFFE ID, which has it in lower case: in another form it would be the name of none. */
export const trustDomain: ValueType<string> = text('trust domains', { maxLength: MAX_NAME }, (input) => {
  if (TRUST_DOMAIN.test(input)) return good(input)
  const meant = input
    .toLowerCase()
    .replace(/^spiffe:\/\//, '')
    .replace(/\/.*$/, '')
  const advice = TRUST_DOMAIN.test(meant) ? `: write ${meant}` : ', such as example.org'
  return bad(`is not the name of a trust domain${advice}`)
})

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$/

/** The name of an HTTP header (RFC 9110 section 5.1), in lower case. */
export const headerName: ValueType<string> = text('name of a header', {}, (input) =>
  TOKEN.test(input) ? good(input.toLowerCase()) : bad('is not the name of a header'),
)

const RESERVED =
  /^(authorization|proxy-authorization|cookie|host|origin|accept|connection|upgrade|te|trailer|transfer-encoding|keep-alive|content-.*|mcp-.*|sec-.*|forwarded|x-forwarded-.*|last-event-id)$/

/** A header that may carry a credential of its own. */
export const credentialHeader: ValueType<string> = text('name of a header', {}, (input) => {
  const name = headerName.parse(input)
  if (!name.ok || !RESERVED.test(name.value)) return name
  return bad(
    `${name.value} has another meaning in HTTP or MCP: choose a header of its own, such as X-API-Key`,
  )
})

/** A scope of OAuth (RFC 6749 section 3.3). */
export const scope: ValueType<string> = text('scopes', {}, (input) => {
  if (/^[\x21\x23-\x5b\x5d-\x7e]{1,256}$/.test(input)) return good(input)
  const advice = input.includes(' ') ? ': write a list, one scope an item' : ''
  return bad(`${quote(input)} is not a scope (visible ASCII without " and \\)${advice}`)
})

/** An IP address or network. */
export const network: ValueType<string> = text('addresses and networks', {}, (input) => {
  try {
    addressSet([input])
    return good(input)
  } catch {
    return bad(`${quote(input)} is neither an IP address nor a network such as 10.0.0.0/8`)
  }
})

/** The same, but not everybody: who is believed must be known. */
export const trustedNetwork: ValueType<string> = {
  ...network,
  parse: (input) =>
    typeof input === 'string' && /\/0+$/.test(input)
      ? bad('is every address: name those of the proxies')
      : network.parse(input),
  parseText: (input) => trustedNetwork.parse(input),
}

interface UrlRules {
  readonly protocols: readonly string[]
  /** What else it must not have; it never has credentials or a fragment. */
  readonly query: boolean
  readonly example: string
}

// What was given is not repeated: addresses are where passwords get pasted.
function checkUrl(input: string, { protocols, query, example }: UrlRules): Parsed<URL> {
  const url = URL.canParse(input) ? new URL(input) : undefined
  if (url === undefined || /\s/.test(input)) return bad(`is not a URL: write one such as ${example}`)
  if (!protocols.includes(url.protocol))
    return bad(`must begin with ${protocols.map((protocol) => `${protocol}//`).join(' or ')}`)
  if (url.username !== '' || url.password !== '')
    return bad('has credentials in it: they do not belong there')
  if (url.hash !== '' || input.includes('#')) return bad('has a fragment: leave out the # and what follows')
  if (!query && (url.search !== '' || input.includes('?')))
    return bad('has a query: leave out the ? and what follows')
  if (url.hostname === '') return bad(`has no host: write one such as ${example}`)
  return good(url)
}

/** A URL to fetch from, as it was written. Whether plain http is good enough is for who fetches to say. */
export const fetchUrl: ValueType<string> = text('URL', { format: 'uri' }, (input) => {
  const url = checkUrl(input, {
    protocols: ['https:', 'http:'],
    query: true,
    example: 'https://id.example.com/jwks',
  })
  return url.ok ? good(input) : url
})

/** An issuer (RFC 8414 section 2), as it was written: it is compared letter by letter. */
export const issuerUrl: ValueType<string> = text('URL', { format: 'uri' }, (input) => {
  const url = checkUrl(input, {
    protocols: ['https:', 'http:'],
    query: false,
    example: 'https://id.example.com',
  })
  return url.ok ? good(input) : url
})

/** This server as clients name it (RFC 8707 section 2): scheme, host, port and path, without a final slash. */
export const resourceUrl: ValueType<string> = text('URL', { format: 'uri' }, (input) => {
  const url = checkUrl(input, {
    protocols: ['https:', 'http:'],
    query: false,
    example: 'https://mcp.example.com/mcp',
  })
  return url.ok ? good(url.value.href.replace(/\/$/, '')) : url
})

/** A Redis server; its password stands in a file. */
export const redisUrl: ValueType<string> = text('`redis://` or `rediss://` URL', {}, (input) => {
  const url = checkUrl(input, {
    protocols: ['rediss:', 'redis:'],
    query: false,
    example: 'rediss://redis:6379',
  })
  if (!url.ok) {
    const inside = URL.canParse(input) && new URL(input).password !== ''
    return inside ? bad('has a password in it: put it into a file and name that as passwordFile') : url
  }
  return good(input)
})

/** Why `address` may not be asked by plain http, unless it is this machine and that is allowed. */
export function plainHttp(address: string, allowHttp: boolean): string | undefined {
  const { protocol, hostname } = new URL(address)
  if (protocol !== 'http:') return undefined
  if (!isLoopback(hostname))
    return 'must begin with https://: whoever is on the way could put in keys of their own'
  return allowHttp ? undefined : 'must begin with https://, or say allowHttp: true for this loopback address'
}
