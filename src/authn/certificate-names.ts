/**
 * Whom a certificate names. The names are read from its bytes: the text form of them that OpenSSL prints can be forged by
 * a name with commas and colons in it (CVE-2021-44532).
 */
import { anyGlob } from '../core/glob.ts'
import type { CertificateMethod } from '../core/policy.ts'
import { type Certificate, extensionIds, valueIn } from './certificate.ts'
import { childrenOf, DerError, type Element, expectTag, oidOf, readElement, tags } from './der.ts'
import { refusal, shown } from './token-method.ts'

export interface CertificateNames {
  readonly uri: readonly string[]
  readonly dns: readonly string[]
  readonly email: readonly string[]
  /** The common name of the subject; empty when it has several. */
  readonly cn: readonly string[]
}

export type NameKind = CertificateMethod['names'][number]

export interface ChosenName {
  readonly kind: NameKind
  readonly name: string
}

const maxNames = 100
const maxLength = 2048
/** GeneralName, RFC 5280 section 4.2.1.6. */
const generalNames = { 129: 'email', 130: 'dns', 134: 'uri' } as const

/**
 * @throws DerError for alternative names that are no plain text (a blank, a NUL), more than 100 of them, or one of more
 *   than 2,048 bytes
 */
export function namesOf(certificate: Certificate): CertificateNames {
  const names = { uri: [] as string[], dns: [] as string[], email: [] as string[] }
  const alternative = valueIn(certificate.extensions, extensionIds.subjectAltName)
  const general = alternative === undefined ? [] : childrenOf(readElement(alternative, tags.sequence))
  if (general.length > maxNames) throw new DerError(`more than ${maxNames} names`)
  for (const { tag, content } of general) {
    const kind = generalNames[tag as keyof typeof generalNames]
    if (kind === undefined) continue
    const text = content.toString('latin1')
    if (!/^[\x21-\x7e]+$/.test(text) || text.length > maxLength)
      throw new DerError(`a subjectAltName of type ${kind} that is no plain text: ${shown(text)}`)
    names[kind].push(text)
  }
  return { ...names, cn: commonNames(certificate) }
}

/** The common name, when there is one and no other. */
function commonNames({ subject }: Certificate): readonly string[] {
  const found: (string | undefined)[] = []
  for (const relative of childrenOf(readElement(subject, tags.sequence))) {
    for (const attribute of childrenOf(expectTag(relative, tags.set))) {
      const [type, value] = childrenOf(expectTag(attribute, tags.sequence))
      if (oidOf(type) === '2.5.4.3' && value !== undefined) found.push(commonName(value))
    }
  }
  return found.length === 1 && found[0] !== undefined ? [found[0]] : []
}

/** Undefined for what is no plain text. */
function commonName({ tag, content }: Element): string | undefined {
  const isAscii = tag === 0x13 || tag === 0x16
  if (tag !== tags.utf8 && !isAscii) return undefined
  if (isAscii && content.some((byte) => byte > 0x7e)) return undefined
  const text = content.toString('utf8')
  const isPlain = Buffer.from(text).equals(content) && /^[^\p{Cc}\p{Cs}\u2028\u2029]{1,256}$/u.test(text)
  return isPlain ? text : undefined
}

/** How a method picks the name of the caller, and what it accepts. */
export class NameRules {
  readonly #kinds: readonly NameKind[]
  readonly #trustDomains: ReadonlySet<string>
  readonly #allows: (name: string) => boolean

  constructor({ names, trustDomains, allow }: Pick<CertificateMethod, 'names' | 'trustDomains' | 'allow'>) {
    this.#kinds = names
    this.#trustDomains = new Set(trustDomains)
    this.#allows = allow.length === 0 ? () => true : anyGlob(allow)
  }

  /**
   * The first kind of name that the certificate has; among several of that kind the first that is allowed.
   *
   * @throws ERR_AUTH_INVALID when it names nobody, or nobody who is allowed
   */
  choose(names: CertificateNames): ChosenName {
    for (const kind of this.#kinds) {
      const found = this.#namesOf(kind, names)
      if (found.length === 0) continue
      const name = found.find((each) => this.#allows(each))
      if (name === undefined)
        throw refusal(`the certificate names ${shown(found[0])} (${kind}), which is not one of those allowed`)
      return { kind, name }
    }
    throw refusal(`the certificate has no name of these kinds: ${this.#kinds.join(', ')}`)
  }

  /** Whether this name would be accepted now. */
  accepts({ kind, name }: ChosenName): boolean {
    if (!this.#kinds.includes(kind) || !this.#allows(name)) return false
    return kind !== 'spiffe' || this.#trusts(trustDomainOf(name) ?? '')
  }

  #trusts(domain: string): boolean {
    return this.#trustDomains.size === 0 || this.#trustDomains.has(domain)
  }

  #namesOf(kind: NameKind, names: CertificateNames): readonly string[] {
    switch (kind) {
      case 'spiffe':
        return this.#spiffeIds(names.uri)
      case 'uri':
      case 'cn':
        return names[kind]
      case 'email':
        return names.email.map((address) => {
          const at = address.lastIndexOf('@')
          return address.slice(0, at + 1) + address.slice(at + 1).toLowerCase()
        })
      case 'dns':
        // A pattern is nobody's name.
        if (names.dns.some((name) => name.includes('*')))
          throw refusal('the certificate has a wildcard DNS name')
        return names.dns.map((name) => name.toLowerCase().replace(/\.$/, ''))
    }
  }

  /** SPIFFE X509-SVID section 2: exactly one URI, or it is none; then nothing else in the certificate counts. */
  #spiffeIds(uris: readonly string[]): readonly string[] {
    const [id] = uris.filter((uri) => /^spiffe:/i.test(uri))
    if (id === undefined) return []
    if (uris.length > 1) throw refusal('the certificate has a SPIFFE ID beside another URI')
    const domain = trustDomainOf(id)
    if (domain === undefined) throw refusal(`the certificate has a malformed SPIFFE ID: ${shown(id)}`)
    if (!this.#trusts(domain)) throw refusal(`the trust domain ${domain} is not one of ours`)
    return [id]
  }
}

/** The trust domain of the SPIFFE ID of a workload (SPIFFE-ID section 2); undefined for anything else. */
export function trustDomainOf(id: string): string | undefined {
  const match = /^spiffe:\/\/([a-z0-9._-]{1,255})((?:\/[A-Za-z0-9._-]+)+)$/.exec(id)
  if (match === null || id.length > maxLength) return undefined
  const dots = match[2]?.split('/').some((segment) => segment === '.' || segment === '..')
  return dots === true ? undefined : match[1]
}
