/** What X.509 certificates say beyond what Node.js reads out of them (RFC 5280 section 4.1). */
import { hash, X509Certificate } from 'node:crypto'
import {
  bitsOf,
  childrenOf,
  DerError,
  expectTag,
  integerOf,
  oidOf,
  readElement,
  tags,
  timeOf,
} from './der.ts'

export interface Extension {
  readonly critical: boolean
  /** DER of the extension's own value. */
  readonly value: Buffer
}

export interface Certificate {
  readonly x509: X509Certificate
  /** Hexadecimal. */
  readonly serial: string
  /** DER of the Name. */
  readonly issuer: Buffer
  readonly subject: Buffer
  /** Milliseconds since 1970. */
  readonly notBefore: number
  readonly notAfter: number
  /** Of its issuer's signature, as an object identifier. */
  readonly signature: string
  readonly extensions: ReadonlyMap<string, Extension>
  /** It may issue certificates (basicConstraints); how many authorities may follow below it, undefined: any number. */
  readonly ca: boolean
  readonly pathLength: number | undefined
  /** The first byte of keyUsage (RFC 5280 section 4.2.1.3); undefined: not restricted. */
  readonly keyUsage: number | undefined
  /** Object identifiers; undefined: not restricted. */
  readonly extendedKeyUsage: readonly string[] | undefined
  /** SHA-256 of the whole, in hexadecimal. */
  readonly fingerprint: string
}

export const extensionIds = {
  subjectKeyIdentifier: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  nameConstraints: '2.5.29.30',
  certificatePolicies: '2.5.29.32',
  authorityKeyIdentifier: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
} as const

export const keyUsages = {
  digitalSignature: 0x80,
  keyAgreement: 0x08,
  keyCertSign: 0x04,
  crlSign: 0x02,
} as const

/** RFC 5280 section 4.1.2.2 knows 20 bytes; some authorities use more. */
const maxSerialBytes = 32
const maxExtensions = 64

/** @throws DerError for one that Node.js can read, but which is not as RFC 5280 wants it */
export function readCertificate(x509: X509Certificate): Certificate {
  const [body] = childrenOf(readElement(x509.raw, tags.sequence))
  const fields = childrenOf(expectTag(body, tags.sequence))
  // Version 1 leaves its number out; it has no extensions and cannot be restricted to anything.
  if (fields[0]?.tag !== 0xa0) throw new DerError('a certificate of X.509 version 1')
  const [, serialField, algorithm, issuer, validity, subject] = fields
  const serial = integerOf(serialField)
  if (serial.length > 2 * maxSerialBytes) throw new DerError('a serial number beyond measure')
  const [notBefore, notAfter] = childrenOf(expectTag(validity, tags.sequence))
  const extensions = extensionsOf(fields.find(({ tag }) => tag === 0xa3)?.content)
  const constraints = valueIn(extensions, extensionIds.basicConstraints)
  const [first, second] = constraints === undefined ? [] : childrenOf(readElement(constraints, tags.sequence))
  const ca = first?.tag === tags.boolean && first.content[0] === 0xff
  const usage = valueIn(extensions, extensionIds.keyUsage)
  const extended = valueIn(extensions, extensionIds.extendedKeyUsage)
  return {
    x509,
    serial,
    issuer: expectTag(issuer, tags.sequence).whole,
    subject: expectTag(subject, tags.sequence).whole,
    notBefore: timeOf(notBefore),
    notAfter: timeOf(notAfter),
    signature: oidOf(childrenOf(expectTag(algorithm, tags.sequence))[0]),
    extensions,
    ca,
    pathLength: ca && second !== undefined ? Number.parseInt(integerOf(second), 16) : undefined,
    keyUsage: usage === undefined ? undefined : (bitsOf(readElement(usage, tags.bits))[0] ?? 0),
    extendedKeyUsage:
      extended === undefined ? undefined : childrenOf(readElement(extended, tags.sequence)).map(oidOf),
    fingerprint: hash('sha256', x509.raw, 'hex'),
  }
}

/**
 * @param sequence DER of Extensions
 * @throws DerError, also for an extension that stands twice: each reader would believe another one
 */
export function extensionsOf(sequence: Buffer | undefined): ReadonlyMap<string, Extension> {
  const extensions = new Map<string, Extension>()
  if (sequence === undefined) return extensions
  const all = childrenOf(readElement(sequence, tags.sequence))
  if (all.length > maxExtensions) throw new DerError(`more than ${maxExtensions} extensions`)
  for (const each of all) {
    const parts = childrenOf(expectTag(each, tags.sequence))
    const id = oidOf(parts[0])
    if (extensions.has(id)) throw new DerError(`the extension ${id} stands twice`)
    const critical = parts[1]?.tag === tags.boolean && parts[1].content[0] !== 0
    extensions.set(id, { critical, value: expectTag(parts.at(-1), tags.octets).content })
  }
  return extensions
}

export function valueIn(extensions: ReadonlyMap<string, Extension>, id: string): Buffer | undefined {
  return extensions.get(id)?.value
}

/**
 * The certificates of a PEM text, in their order; what else stands there is ignored.
 *
 * @throws Error that says which one cannot be read, and why
 */
export function certificatesOf(pem: string): Certificate[] {
  return pemBlocks(pem, 'CERTIFICATE').map((block, i) => {
    try {
      return readCertificate(new X509Certificate(block))
    } catch (cause) {
      const why = cause instanceof DerError ? cause.message : 'it is not X.509'
      throw new Error(`certificate ${i + 1} cannot be read: ${why}`, { cause })
    }
  })
}

/** @throws Error for a block that does not end */
export function pemBlocks(pem: string, label: string): string[] {
  const begin = `-----BEGIN ${label}-----`
  const blocks = pem.match(new RegExp(`${begin}[^-]*-----END ${label}-----`, 'g')) ?? []
  if (pem.split(begin).length - 1 !== blocks.length) throw new Error(`a block ${begin} does not end`)
  return blocks
}
