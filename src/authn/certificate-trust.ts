/** The authorities that a method trusts, out of its files. */
import type { CertificateMethod } from '../core/policy.ts'
import { certificatesOf, extensionIds } from './certificate.ts'
import { nameOf, type Trust } from './certificate-chain.ts'
import { revocationListsOf } from './revocation.ts'
import { messageOf, readFile, type TokenDeps, TokenMethodError } from './token-method.ts'

/**
 * @throws TokenMethodError for files that cannot be read or hold nothing of what they should, a certificate that is no
 *   authority's, one that this method could not evaluate, or a revocation list of none of the authorities
 */
export function readTrust(method: CertificateMethod, deps: Pick<TokenDeps, 'readText'>): Trust {
  const { caFile, crlFile } = method
  const anchors = read(caFile, 'the CA file', deps, certificatesOf)
  if (anchors.length === 0) throw new TokenMethodError(`the CA file ${caFile} holds no certificate in PEM`)
  for (const [i, anchor] of anchors.entries()) {
    const which = `certificate ${i + 1} of the CA file ${caFile} (${nameOf(anchor)})`
    if (!anchor.ca) throw new TokenMethodError(`${which} is not one of an authority (basicConstraints CA)`)
    // With TLS, OpenSSL has seen to them.
    if (method.from === 'forwarded' && anchor.extensions.has(extensionIds.nameConstraints))
      throw new TokenMethodError(
        `${which} has name constraints, which are not evaluated for forwarded certificates`,
      )
  }
  if (crlFile === undefined) return { anchors, revocations: undefined }
  const revocations = read(crlFile, 'the CRL file', deps, revocationListsOf)
  if (revocations.length === 0)
    throw new TokenMethodError(`the CRL file ${crlFile} holds no revocation list in PEM (BEGIN X509 CRL)`)
  for (const [i, list] of revocations.entries()) {
    const authority = anchors.find(({ subject }) => subject.equals(list.issuer))
    if (authority !== undefined && !list.isBy(authority))
      throw new TokenMethodError(
        `list ${i + 1} of the CRL file ${crlFile} is not signed by ${nameOf(authority)}, whose name it bears`,
      )
  }
  return { anchors, revocations }
}

function read<T>(
  file: string,
  what: string,
  deps: Pick<TokenDeps, 'readText'>,
  parse: (text: string) => readonly T[],
): readonly T[] {
  const text = readFile(file, what, deps)
  try {
    return parse(text)
  } catch (cause) {
    throw new TokenMethodError(`${what} ${file}: ${messageOf(cause)}`, { cause })
  }
}
