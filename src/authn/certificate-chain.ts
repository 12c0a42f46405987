/**
 * Whether a certificate of a client leads to an authority that is trusted (RFC 5280 section 6), without a TLS handshake.
 *
 * Where TLS has verified it, this ties it to the authorities of one method, as its files are now: a connection lives
 * longer than a revocation list. Where a proxy has forwarded it, this is all there is; then what is not evaluated here
 * (name constraints, policies, weak signatures) is refused.
 */
import { type Certificate, extensionIds, keyUsages } from './certificate.ts'
import { type RevocationList, signatureDigests } from './revocation.ts'

export interface Trust {
  readonly anchors: readonly Certificate[]
  /** Undefined: nobody asks. Else each certificate below an anchor needs a list of its issuer that is valid now. */
  readonly revocations: readonly RevocationList[] | undefined
}

export interface Path {
  /** From the client's certificate up; the anchor is not one of them. */
  readonly certificates: readonly Certificate[]
  readonly anchor: Certificate
  /** The first of these times that all certificates of the path end. Milliseconds since 1970. */
  readonly notAfter: number
  /** Until when this result holds: until the path ends or a revocation list is to be replaced. */
  readonly until: number
}

/** Why a certificate is refused; starts with the name that OpenSSL has for it. */
export class ChainError extends Error {
  override readonly name = 'ChainError'
}

/** Authorities between the client's certificate and the anchor. */
const maxIntermediates = 6
/** Signatures that one verification may cost, however the certificates that were sent are interwoven. */
const maxSignatures = 24
const clientAuth = '1.3.6.1.5.5.7.3.2'
const minRsaBits = 2048
const evaluated: ReadonlySet<string> = new Set(
  Object.values(extensionIds).filter((id) => id !== extensionIds.nameConstraints),
)

/** A name for logs: the subject, on one line. */
export function nameOf({ x509 }: Certificate): string {
  const subject = x509.subject?.replaceAll('\n', ', ') ?? ''
  return subject === '' ? `serial number ${x509.serialNumber}` : subject.slice(0, 200)
}

/**
 * @param given further certificates that the client or the proxy sent; none of them is trusted
 * @param thorough nobody else has verified it
 * @param now milliseconds since 1970
 * @throws ChainError
 */
export function verifyChain(
  leaf: Certificate,
  given: readonly Certificate[],
  trust: Trust,
  { now, thorough }: { readonly now: number; readonly thorough: boolean },
): Path {
  checkLeaf(leaf)
  let signatures = 0
  let nearest: ChainError | undefined

  const isIssuer = (issuer: Certificate, { x509, issuer: name }: Certificate): boolean => {
    if (!issuer.subject.equals(name) || !x509.checkIssued(issuer.x509)) return false
    if (++signatures > maxSignatures)
      throw new ChainError('CERT_CHAIN_TOO_LONG: too many certificates to try')
    return x509.verify(issuer.x509.publicKey)
  }
  const climb = (path: readonly Certificate[]): Path | undefined => {
    const top = path.at(-1) as Certificate
    if (thorough) checkEvaluated(top)
    checkDates(top, now)
    for (const anchor of trust.anchors) {
      const found = isIssuer(anchor, top) ? attempt(() => finish(path, anchor)) : undefined
      if (found !== undefined) return found
    }
    if (path.length > maxIntermediates) return undefined
    for (const next of given) {
      if (path.some(({ fingerprint }) => fingerprint === next.fingerprint) || !isIssuer(next, top)) continue
      const found = attempt(() => {
        checkAuthority(next, path.length - 1)
        return climb([...path, next])
      })
      if (found !== undefined) return found
    }
    return undefined
  }
  /** One way up; what is wrong with it counts only when no other leads to the top. */
  const attempt = (go: () => Path | undefined): Path | undefined => {
    try {
      return go()
    } catch (thrown) {
      if (!(thrown instanceof ChainError)) throw thrown
      nearest ??= thrown
      return undefined
    }
  }
  const finish = (certificates: readonly Certificate[], anchor: Certificate): Path => {
    checkAuthority(anchor, certificates.length - 1)
    checkDates(anchor, now)
    if (thorough) checkEvaluated(anchor, false)
    const issuers = [...certificates.slice(1), anchor]
    const updates = certificates.map((each, i) =>
      checkRevocation(each, issuers[i] as Certificate, trust, now),
    )
    const notAfter = Math.min(anchor.notAfter, ...certificates.map((each) => each.notAfter))
    return { certificates, anchor, notAfter, until: Math.min(notAfter, ...updates) }
  }

  const path = climb([leaf])
  if (path !== undefined) return path
  throw (
    nearest ??
    new ChainError(`${withoutIssuer(leaf)}: ${nameOf(leaf)} leads to none of the authorities in caFile`)
  )
}

function withoutIssuer({ issuer, subject }: Certificate): string {
  return issuer.equals(subject) ? 'DEPTH_ZERO_SELF_SIGNED_CERT' : 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY'
}

function checkLeaf(leaf: Certificate): void {
  const signing = keyUsages.digitalSignature | keyUsages.keyAgreement
  if (leaf.ca) throw new ChainError('INVALID_PURPOSE: it is the certificate of an authority, not of a client')
  if (leaf.keyUsage !== undefined && (leaf.keyUsage & signing) === 0)
    throw new ChainError('INVALID_PURPOSE: its key is not for signatures (keyUsage)')
  checkPurpose(leaf)
}

/** An authority that is restricted to other purposes issues for no client either. */
function checkPurpose(certificate: Certificate): void {
  if (certificate.extendedKeyUsage?.includes(clientAuth) === false)
    throw new ChainError(
      `INVALID_PURPOSE: ${nameOf(certificate)} is not for clients (extendedKeyUsage lacks clientAuth)`,
    )
}

function checkDates(certificate: Certificate, now: number): void {
  const { notBefore, notAfter } = certificate
  if (now < notBefore)
    throw new ChainError(
      `CERT_NOT_YET_VALID: ${nameOf(certificate)}, before ${new Date(notBefore).toISOString()}`,
    )
  if (now > notAfter)
    throw new ChainError(`CERT_HAS_EXPIRED: ${nameOf(certificate)}, at ${new Date(notAfter).toISOString()}`)
}

/** @param below authorities between it and the client's certificate */
function checkAuthority(authority: Certificate, below: number): void {
  const { ca, keyUsage, pathLength } = authority
  if (!ca || (keyUsage !== undefined && (keyUsage & keyUsages.keyCertSign) === 0))
    throw new ChainError(`INVALID_CA: ${nameOf(authority)} may not issue certificates`)
  if (pathLength !== undefined && below > pathLength)
    throw new ChainError(
      `PATH_LENGTH_EXCEEDED: ${nameOf(authority)} allows ${pathLength} authorities below it`,
    )
  checkPurpose(authority)
}

/** @param signed whether it counts who has signed it, and how; of an anchor it does not */
function checkEvaluated(certificate: Certificate, signed = true): void {
  for (const [id, { critical }] of certificate.extensions) {
    if (id === extensionIds.nameConstraints || (critical && !evaluated.has(id)))
      throw new ChainError(
        `UNHANDLED_CRITICAL_EXTENSION: ${nameOf(certificate)} has ${id}, which is not evaluated here`,
      )
  }
  if (signed && !(certificate.signature in signatureDigests))
    throw new ChainError(`CA_MD_TOO_WEAK: ${nameOf(certificate)} is signed with ${certificate.signature}`)
  const { asymmetricKeyType, asymmetricKeyDetails } = certificate.x509.publicKey
  if (
    asymmetricKeyType?.startsWith('rsa') === true &&
    (asymmetricKeyDetails?.modulusLength ?? 0) < minRsaBits
  )
    throw new ChainError(
      `EE_KEY_TOO_SMALL: ${nameOf(certificate)} has an RSA key of fewer than ${minRsaBits} bits`,
    )
}

/** @returns until when that is known */
function checkRevocation(certificate: Certificate, issuer: Certificate, trust: Trust, now: number): number {
  const { revocations } = trust
  if (revocations === undefined) return Number.POSITIVE_INFINITY
  const lists = revocations.filter((list) => list.issuer.equals(issuer.subject) && list.isBy(issuer))
  if (lists.some(({ revoked }) => revoked.has(certificate.serial)))
    throw new ChainError(
      `CERT_REVOKED: ${nameOf(certificate)}, serial number ${certificate.x509.serialNumber}`,
    )
  if (lists.length === 0)
    throw new ChainError(`UNABLE_TO_GET_CRL: crlFile has no revocation list of ${nameOf(issuer)}`)
  const current = lists.filter(({ thisUpdate, nextUpdate }) => thisUpdate <= now && now <= nextUpdate)
  if (current.length === 0)
    throw new ChainError(`CRL_HAS_EXPIRED: the revocation list of ${nameOf(issuer)} is not valid now`)
  return Math.max(...current.map(({ nextUpdate }) => nextUpdate))
}
