import { isIP } from 'node:net'
import { bad, good, type Parsed, quote } from './parsed.ts'
import { text, type ValueType } from './values.ts'

// The last label must not be a number: the resolver reads 127.1 and 0x7f.1 as addresses, which no check expects.
const NAME =
  /^(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*(?![0-9]+$|0x[0-9a-f]*$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/

function splitPort(authority: string): { host: string; port: string | undefined } {
  const match = /^(.*):([0-9]{1,5})$/.exec(authority)
  // More colons outside of brackets: an IPv6 address without a port.
  if (match?.[1] === undefined || (match[1].includes(':') && !match[1].endsWith(']')))
    return { host: authority, port: undefined }
  return { host: match[1], port: match[2] }
}

function isHost(host: string): boolean {
  if (host.startsWith('[') && host.endsWith(']')) return isIP(host.slice(1, -1)) === 6
  return isIP(host) === 4 || NAME.test(host)
}

function unbracketed(host: string): string {
  return host.replace(/^\[(.*)\]$/, '$1')
}

/** An address to listen on: an IP address, IPv6 without brackets, or a name. */
export const listenHost: ValueType<string> = text('address or name', {}, (input) => {
  const host = input.toLowerCase()
  if (host === '*') return bad('"*" is not an address: write 0.0.0.0 (IPv4) or :: (IPv6 too)')
  if (isIP(host) !== 0 || NAME.test(host)) return good(host)
  const parts = splitPort(host)
  if (parts.port !== undefined && isHost(parts.host))
    return bad(`has a port in it: write ${unbracketed(parts.host)}, the port is a key of its own`)
  if (host.startsWith('[') && isHost(host)) return bad(`write ${unbracketed(host)}, without brackets`)
  return bad(`${quote(input)} is not an IP address or host name`)
})

/** A value of the Host header: `host` stands for any port, `host:port` for that one. */
export const allowedHost: ValueType<string> = text('`host` or `host:port`', {}, (input) => {
  const host = input.toLowerCase()
  if (host.includes('*'))
    return bad(
      'wildcards are not allowed: any name would then pass, and the check is what stops DNS rebinding',
    )
  if (host.includes('://')) return bad('has a scheme: write only host or host:port')
  if (isIP(host) === 6) return bad(`an IPv6 address stands in brackets here: write [${host}]`)
  const parts = splitPort(host)
  if (isHost(parts.host) && Number(parts.port ?? 1) <= 65_535) return good(host)
  return bad(`${quote(input)} is not a host or host:port`)
})

/** A value of the Origin header (RFC 6454 section 6.2). */
export const origin: ValueType<string> = text(
  'origins',
  { examples: ['https://app.example.com'] },
  (input) => {
    if (input.includes('*'))
      return bad(
        'wildcards are not allowed: any web page could then use the server through its visitor’s browser',
      )
    if (input === 'null') return bad('null is the origin of every sandboxed page, so it cannot be trusted')
    const match = /^([a-z][a-z0-9+.-]*):\/\/([^/?#]*)(.*)$/i.exec(input)
    if (match?.[1] === undefined || match[2] === undefined)
      return bad(`${quote(input)} is not an origin: write scheme://host or scheme://host:port`)
    const [, scheme, authority, rest] = match
    if (authority.includes('@'))
      return bad('has credentials in it: write scheme://host or scheme://host:port')
    if (rest !== '') return bad(`has a path: write ${scheme}://${authority}`)
    return canonicalOrigin(scheme.toLowerCase(), authority.toLowerCase(), input)
  },
)

function canonicalOrigin(scheme: string, authority: string, input: string): Parsed<string> {
  if (scheme === 'http' || scheme === 'https') {
    // Browsers leave the default port out and write names in ASCII; `URL` does exactly that.
    const url = URL.canParse(`${scheme}://${authority}`) ? new URL(`${scheme}://${authority}`) : undefined
    if (url !== undefined && isHost(url.hostname)) return good(url.origin)
  } else {
    const parts = splitPort(authority)
    // Extensions and applications have origins with a scheme of their own, such as vscode-webview://id.
    if (isHost(parts.host) && Number(parts.port ?? 1) <= 65_535) return good(`${scheme}://${authority}`)
  }
  return bad(`${quote(input)} is not an origin: write scheme://host or scheme://host:port`)
}
