/** TLS of our own listener: its certificate, what it asks clients for, and both anew while connections stay. */
import { constants, createPrivateKey, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { ServerOptions } from 'node:https'
import { createSecureContext, type TLSSocket } from 'node:tls'
import type { PresentedCertificate } from '../core/types.ts'

export interface TlsSettings {
  /** PEM: the server's certificate, then those of the authorities above it. */
  readonly certFile: string
  /** PEM, not encrypted. */
  readonly keyFile: string
  readonly minVersion: 'TLSv1.2' | 'TLSv1.3'
  /** From the connection to the end of the handshake. Milliseconds. */
  readonly handshakeTimeoutMs: number
  /** Undefined: clients are not asked for a certificate. */
  readonly client: ClientTrust | undefined
}

export interface ClientTrust {
  /** PEM bundles, together the trust anchors; each leads up to a root in one of them. */
  readonly caFiles: readonly string[]
  /**
   * PEM revocation lists. With any, OpenSSL wants one for each certificate of a chain below its root, so that all
   * authorities of `caFiles` need theirs.
   */
  readonly crlFiles: readonly string[]
}

export interface TlsMaterial {
  /** For `https.createServer`, beside what is meant for HTTP. */
  readonly options: ServerOptions
  /** For people: a certificate that is about to end, or has ended. */
  readonly warnings: readonly string[]
  /** When our own certificate ends. Milliseconds since 1970. */
  readonly expiresAt: number
}

/** Files that no TLS listener can be made of. The message names them and holds nothing of a key. */
export class TlsError extends Error {
  override readonly name = 'TlsError'
}

/** Forward secrecy and authenticated encryption alone, for TLS 1.2 as for 1.3 (RFC 9325 section 4.2). */
const ciphers = [
  ...['TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256'],
  ...['ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-RSA-AES128-GCM-SHA256', 'ECDHE-ECDSA-AES256-GCM-SHA384'],
  ...['ECDHE-RSA-AES256-GCM-SHA384', 'ECDHE-ECDSA-CHACHA20-POLY1305', 'ECDHE-RSA-CHACHA20-POLY1305'],
].join(':')

/** A certificate that ends sooner is worth a warning when it is read: whoever renews it should have by now. */
const warnBeforeMs = 24 * 60 * 60_000

/**
 * Reads the files as they are now. A listener that runs takes them with `setSecureContext(options)`: for connections to
 * come, while those that are open stay. Whether clients are asked for a certificate is settled when it is made.
 *
 * @param now milliseconds since 1970
 * @throws TlsError
 */
export function loadTls(settings: TlsSettings, now: number): TlsMaterial {
  const { certFile, keyFile, minVersion, handshakeTimeoutMs, client } = settings
  const cert = read(certFile, 'the TLS certificate')
  const key = read(keyFile, 'the TLS key')
  const leaf = firstCertificate(cert, certFile)
  const privateKey = parsedKey(key, keyFile)
  if (!leaf.checkPrivateKey(privateKey))
    throw new TlsError(`the TLS key ${keyFile} does not belong to the first certificate of ${certFile}`)
  const options: ServerOptions = {
    cert,
    key,
    minVersion,
    ciphers,
    handshakeTimeout: handshakeTimeoutMs,
    ALPNProtocols: ['http/1.1'],
    // A renegotiation could bring another certificate than the one that was judged.
    secureOptions:
      constants.SSL_OP_NO_RENEGOTIATION | (client === undefined ? 0 : constants.SSL_OP_NO_TICKET),
    ...(client === undefined ? {} : clientOptions(client)),
  }
  try {
    createSecureContext(options)
  } catch (cause) {
    const files = [certFile, keyFile, ...(client?.caFiles ?? []), ...(client?.crlFiles ?? [])].join(', ')
    throw new TlsError(`TLS cannot be set up with ${files}: ${(cause as Error).message}`, { cause })
  }
  return { options, ...validity(leaf, certFile, now) }
}

/**
 * Clients are asked for a certificate, and whatever they present the handshake succeeds: a refusal is the same answer as
 * any other, from authentication.
 *
 * No session is ever resumed: there would be no chain any more, and the verdict would be that of the first handshake,
 * whatever was revoked meanwhile. Node.js keeps no sessions itself, and tickets are off.
 */
function clientOptions(trust: ClientTrust): ServerOptions {
  const [caFiles, crlFiles] = [[...new Set(trust.caFiles)], [...new Set(trust.crlFiles)]]
  const ca = caFiles.map((file) => withBlocks(file, 'CERTIFICATE', 'the CA file'))
  // Of several lists in one text Node.js would take the first and no other.
  const crl = crlFiles.flatMap((file) => blocksOf(withBlocks(file, 'X509 CRL', 'the CRL file'), 'X509 CRL'))
  // Without any, Node.js would take the public authorities, which vouch for anybody.
  if (ca.length === 0) throw new TlsError('client certificates are asked for, and no CA file says whose')
  requireRoots(ca, caFiles)
  return {
    requestCert: true,
    rejectUnauthorized: false,
    ca,
    ...(crl.length === 0 ? {} : { crl }),
  }
}

/** OpenSSL ends a chain at a root alone (Node.js 20 hands it no wish to end it earlier), and says so to nobody but clients. */
function requireRoots(texts: readonly string[], files: readonly string[]): void {
  const bundle = texts.flatMap((text, i) => certificatesIn(text, files[i] as string))
  for (const { x509, file } of bundle) {
    if (bundle.some((other) => x509.checkIssued(other.x509))) continue
    const name = x509.subject.replaceAll('\n', ', ')
    throw new TlsError(
      `the CA file ${file} holds ${name} without the authority above it: add those up to the root, which is self-signed`,
    )
  }
}

function certificatesIn(
  text: string,
  file: string,
): { readonly x509: X509Certificate; readonly file: string }[] {
  try {
    return blocksOf(text, 'CERTIFICATE').map((block) => ({ x509: new X509Certificate(block), file }))
  } catch (cause) {
    throw new TlsError(`the CA file ${file} holds a certificate that cannot be read`, { cause })
  }
}

const judged = new WeakMap<object, PresentedCertificate | null>()

/** What the client of this connection presented, and what OpenSSL said of it then; undefined without a certificate. */
export function certificateOf(socket: object): PresentedCertificate | undefined {
  let known = judged.get(socket)
  if (known === undefined) {
    known = presented(socket as TLSSocket) ?? null
    judged.set(socket, known)
  }
  return known ?? undefined
}

function presented(socket: TLSSocket): PresentedCertificate | undefined {
  // A plain connection has no such function.
  const x509 = socket.encrypted === true ? socket.getPeerX509Certificate() : undefined
  if (x509 === undefined) return undefined
  if (socket.isSessionReused()) return { x509, refusal: 'SESSION_RESUMED' }
  if (socket.authorized) return { x509, refusal: undefined }
  // Node.js has an Error in its types and puts the code there.
  const reason: unknown = socket.authorizationError
  return { x509, refusal: reason instanceof Error ? reason.message : String(reason ?? 'UNVERIFIED') }
}

function read(file: string, what: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    throw new TlsError(`${what} ${file} cannot be read: ${(cause as Error).message}`, { cause })
  }
}

function withBlocks(file: string, label: string, what: string): string {
  const text = read(file, what)
  if (blocksOf(text, label).length === 0)
    throw new TlsError(`${what} ${file} holds nothing of the kind BEGIN ${label}`)
  return text
}

function blocksOf(text: string, label: string): string[] {
  return text.match(new RegExp(`-----BEGIN ${label}-----[^-]*-----END ${label}-----`, 'g')) ?? []
}

function firstCertificate(text: string, file: string): X509Certificate {
  try {
    return new X509Certificate(text)
  } catch (cause) {
    throw new TlsError(
      `the TLS certificate ${file} holds no certificate in PEM: ${(cause as Error).message}`,
      { cause },
    )
  }
}

function parsedKey(text: string, file: string): ReturnType<typeof createPrivateKey> {
  try {
    return createPrivateKey(text)
  } catch (cause) {
    // PKCS #8 and the older form of OpenSSL.
    if (/^-----BEGIN ENCRYPTED |^Proc-Type: 4,ENCRYPTED/m.test(text))
      throw new TlsError(`the TLS key ${file} is encrypted; it has to be without a passphrase`, { cause })
    throw new TlsError(`the TLS key ${file} holds no private key in PEM`, { cause })
  }
}

function validity(
  leaf: X509Certificate,
  file: string,
  now: number,
): Pick<TlsMaterial, 'warnings' | 'expiresAt'> {
  const [from, expiresAt] = [Date.parse(leaf.validFrom), Date.parse(leaf.validTo)]
  const warnings: string[] = []
  const at = (ms: number): string => new Date(ms).toISOString()
  if (now < from) warnings.push(`the TLS certificate ${file} is not valid before ${at(from)}`)
  if (now >= expiresAt) warnings.push(`the TLS certificate ${file} has expired at ${at(expiresAt)}`)
  else if (expiresAt - now < warnBeforeMs)
    warnings.push(`the TLS certificate ${file} expires at ${at(expiresAt)}`)
  return { warnings, expiresAt }
}
