/** Certificate revocation lists (RFC 5280 section 5), complete ones of the authority itself. */
import { type KeyObject, verify } from 'node:crypto'
import { type Certificate, extensionsOf, keyUsages, pemBlocks } from './certificate.ts'
import {
  childrenOf,
  DerError,
  expectTag,
  integerOf,
  oidOf,
  readElement,
  signatureOf,
  tags,
  timeOf,
} from './der.ts'

export interface RevocationList {
  /** DER of the Name. */
  readonly issuer: Buffer
  /** Milliseconds since 1970. */
  readonly thisUpdate: number
  readonly nextUpdate: number
  /** Serial numbers, in hexadecimal. */
  readonly revoked: ReadonlySet<string>
  /** Whether this authority has signed it. */
  isBy(authority: Certificate): boolean
}

/** Signatures that are understood; the rest is too weak or carries parameters of its own. */
export const signatureDigests: Readonly<Record<string, string | null>> = {
  '1.2.840.113549.1.1.11': 'sha256',
  '1.2.840.113549.1.1.12': 'sha384',
  '1.2.840.113549.1.1.13': 'sha512',
  '1.2.840.10045.4.3.2': 'sha256',
  '1.2.840.10045.4.3.3': 'sha384',
  '1.2.840.10045.4.3.4': 'sha512',
  '1.3.101.112': null,
  '1.3.101.113': null,
}

/** @throws Error for one that cannot be read, or that only says a part of what is revoked */
export function revocationListsOf(pem: string): RevocationList[] {
  return pemBlocks(pem, 'X509 CRL').map((block, i) => {
    try {
      return readList(Buffer.from(block.replace(/-----[^-]*-----/g, ''), 'base64'))
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause)
      throw new Error(`revocation list ${i + 1} cannot be used: ${why}`, { cause })
    }
  })
}

function readList(bytes: Buffer): RevocationList {
  const [body, algorithm, signatureField] = childrenOf(readElement(bytes, tags.sequence))
  const { whole: signed } = expectTag(body, tags.sequence)
  const signature = signatureOf(signatureField)
  const id = oidOf(childrenOf(expectTag(algorithm, tags.sequence))[0])
  const digest = signatureDigests[id]
  if (digest === undefined) throw new DerError(`it is signed with ${id}, which is not accepted`)
  const fields = childrenOf(expectTag(body, tags.sequence))
  if (fields[0]?.tag === tags.integer) fields.shift()
  const [inner, issuer, thisUpdate, nextUpdate, ...rest] = fields
  if (!expectTag(inner, tags.sequence).whole.equals(expectTag(algorithm, tags.sequence).whole))
    throw new DerError('it names two algorithms for its signature')
  if (nextUpdate?.tag !== tags.utcTime && nextUpdate?.tag !== tags.generalizedTime)
    throw new DerError('it does not say until when it is valid (nextUpdate)')
  const entries = rest[0]?.tag === tags.sequence ? childrenOf(rest[0]) : []
  refuseCritical(extensionsOf(rest.find(({ tag }) => tag === 0xa0)?.content))
  const revoked = new Set<string>()
  for (const entry of entries) {
    const [serial, , extensions] = childrenOf(expectTag(entry, tags.sequence))
    revoked.add(integerOf(serial))
    refuseCritical(extensionsOf(extensions?.whole))
  }
  const known = new WeakMap<Certificate, boolean>()
  return {
    issuer: expectTag(issuer, tags.sequence).whole,
    thisUpdate: timeOf(thisUpdate),
    nextUpdate: timeOf(nextUpdate),
    revoked,
    isBy: (authority) => {
      let is = known.get(authority)
      if (is === undefined) {
        is = maySign(authority) && isSignedBy(authority.x509.publicKey, digest, signed, signature)
        known.set(authority, is)
      }
      return is
    },
  }
}

/** Critical is what changes the meaning: a delta, a part, entries of other authorities (RFC 5280 section 5.2). */
function refuseCritical(extensions: ReturnType<typeof extensionsOf>): void {
  for (const [id, { critical }] of extensions)
    if (critical) throw new DerError(`it has the critical extension ${id}, so that it may not be complete`)
}

function maySign({ keyUsage }: Certificate): boolean {
  return keyUsage === undefined || (keyUsage & keyUsages.crlSign) !== 0
}

function isSignedBy(key: KeyObject, digest: string | null, signed: Buffer, signature: Buffer): boolean {
  try {
    return verify(digest, signed, key, signature)
  } catch {
    // A key of another type.
    return false
  }
}
