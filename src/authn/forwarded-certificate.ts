/** The certificate of a client, as a proxy that ended the client's TLS writes it into a header. */
import { X509Certificate } from 'node:crypto'
import { type Certificate, certificatesOf, readCertificate } from './certificate.ts'
import { messageOf, refusal } from './token-method.ts'

export interface ForwardedCertificate {
  readonly leaf: Certificate
  /** Authorities that came along. */
  readonly given: readonly Certificate[]
}

/** Envoy's own header; anything else holds a certificate and nothing more. */
export const envoyHeader = 'x-forwarded-client-cert'
const maxCertificates = 10

/**
 * @param value of `x-forwarded-client-cert`: the last element counts, that of the nearest proxy, and needs its `Cert`, as
 *   names alone (`URI`, `Subject`) would have to be believed. Of any other header: one or several PEM certificates,
 *   URL-encoded (nginx `$ssl_client_escaped_cert`), or `:base64:` of the DER (RFC 9440)
 * @throws ERR_AUTH_INVALID
 */
export function readForwarded(header: string, value: string): ForwardedCertificate {
  if (header === envoyHeader) {
    const fields = lastElement(value)
    const cert = fields.get('cert')
    if (cert === undefined)
      throw refusal(`the last element of ${header} has no Cert: without it nothing can be verified`)
    const chain = fields.get('chain')
    const [leaf, ...more] = pem(cert, `Cert of ${header}`)
    const given = chain === undefined ? [] : pem(chain, `Chain of ${header}`)
    if (leaf === undefined || more.length > 0) throw refusal(`Cert of ${header} is not one certificate`)
    return { leaf, given: given.filter(({ fingerprint }) => fingerprint !== leaf.fingerprint) }
  }
  const bytes = /^:([A-Za-z0-9+/]+={0,2}):$/.exec(value)?.[1]
  const [leaf, ...given] = bytes === undefined ? pem(value, header) : [fromDer(bytes, header)]
  if (leaf === undefined)
    throw refusal(`${header} holds no certificate, neither PEM, URL-encoded, nor :base64:`)
  return { leaf, given }
}

function fromDer(base64: string, what: string): Certificate {
  try {
    return readCertificate(new X509Certificate(Buffer.from(base64, 'base64')))
  } catch (thrown) {
    throw refusal(`${what} cannot be read: ${messageOf(thrown)}`)
  }
}

function pem(value: string, what: string): Certificate[] {
  let found: Certificate[]
  try {
    found = certificatesOf(decodeURIComponent(value))
  } catch (thrown) {
    throw refusal(`${what} cannot be read: ${messageOf(thrown)}`)
  }
  if (found.length > maxCertificates) throw refusal(`${what} has more than ${maxCertificates} certificates`)
  return found
}

/**
 * `By=...;Hash=...;Cert="...";Subject="..."`: what follows the last comma outside quotes, by keys in lower case. Read from
 * the right, so that a quote that somebody left open in an earlier element takes nothing of the last one along.
 */
function lastElement(value: string): ReadonlyMap<string, string> {
  const fields = new Map<string, string>()
  let end = value.length
  let quoted = false
  for (let at = value.length - 1; at >= -1; at--) {
    const char = value[at]
    if (char === '"' && !isEscaped(value, at)) quoted = !quoted
    if (at >= 0 && (quoted || (char !== ',' && char !== ';'))) continue
    if (quoted) throw refusal(`${envoyHeader} has a quote that does not end`)
    const field = /^\s*([A-Za-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^"\s]*))\s*$/.exec(value.slice(at + 1, end))
    const key = field?.[1]?.toLowerCase()
    // URI and DNS may stand there several times, and are not looked at.
    if (key === undefined || (fields.has(key) && (key === 'cert' || key === 'chain')))
      throw refusal(`the last element of ${envoyHeader} is malformed`)
    fields.set(key, field?.[2] ?? field?.[3] ?? '')
    if (char === ',') break
    end = at
  }
  return fields
}

function isEscaped(text: string, at: number): boolean {
  let slashes = 0
  while (text[at - 1 - slashes] === '\\') slashes++
  return slashes % 2 === 1
}
