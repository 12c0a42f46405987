import { hash, type X509Certificate } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import type { CertificateMethod } from '../core/policy.ts'
import type { Identity, PresentedCertificate, Trusted } from '../core/types.ts'
import type { Attempt, Authenticator } from './authenticator.ts'
import { type Certificate, readCertificate } from './certificate.ts'
import { ChainError, type Path, type Trust, verifyChain } from './certificate-chain.ts'
import { type CertificateNames, type ChosenName, NameRules, namesOf } from './certificate-names.ts'
import { readTrust } from './certificate-trust.ts'
import { DerError } from './der.ts'
import { type ForwardedCertificate, readForwarded } from './forwarded-certificate.ts'
import { refusal, type TokenDeps, TokenMethodError } from './token-method.ts'

export interface CertificateDeps extends Pick<TokenDeps, 'clock' | 'readText'> {
  /** Whether the peer of a connection is a proxy whose headers are believed. */
  readonly trustsPeer: (address: string) => boolean
}

interface Known {
  readonly identity: Identity
  /** Milliseconds since 1970. */
  readonly until: number
}

const method = 'clientCertificate'
/** Of forwarded certificates. */
const maxKnown = 1000
/** Certificates between that of a client and the root that are looked at. */
const maxChain = 10

/**
 * Client certificates: those of the TLS handshake with our own listener, or those that a trusted proxy forwards.
 *
 * Both are held against the files of this method, read when it is built: a certificate of the handshake, too, so that a
 * connection that is older than a revocation list or a change of authorities is judged by them with its next request.
 *
 * @throws TokenMethodError for files that cannot be used, or options that no certificate could meet
 */
export function certificateAuthenticator(options: CertificateMethod, deps: CertificateDeps): Authenticator {
  if (options.names.length === 0)
    throw new TokenMethodError('names is empty: no certificate could name anybody')
  const judge = new CertificateJudge(options, deps)
  const traits = {
    name: method,
    scheme: undefined,
    authorizationServers: [],
    scopes: [],
    vouchesFor: (identity: Identity) => judge.vouchesFor(identity),
  }
  if (options.from === 'tls')
    return {
      ...traits,
      headers: [],
      authenticate: ({ certificate }, attempt) =>
        certificate === undefined ? undefined : judge.presented(certificate, attempt),
    }
  const { header } = options
  if (!/^[a-z0-9!#$%&'*+.^_`|~-]+$/.test(header))
    throw new TokenMethodError(`${JSON.stringify(header)} is not the name of a header in lower case`)
  return {
    ...traits,
    headers: [header],
    authenticate: (request, attempt) => {
      const value = request.headers[header]
      // Proxies send it empty when the client has none.
      if (value === undefined || value.length === 0) return undefined
      return judge.forwarded(value, request, attempt)
    },
  }
}

class CertificateJudge {
  readonly #options: CertificateMethod
  readonly #deps: CertificateDeps
  readonly #trust: Trust
  readonly #rules: NameRules
  readonly #presented = new WeakMap<X509Certificate, Known>()
  /** By the hash of the header. */
  readonly #forwarded = new LRUCache<string, Known>({ max: maxKnown })

  constructor(options: CertificateMethod, deps: CertificateDeps) {
    this.#options = options
    this.#deps = deps
    this.#trust = readTrust(options, deps)
    this.#rules = new NameRules(options)
  }

  /** @throws ERR_AUTH_INVALID */
  presented({ x509, refusal: reason }: PresentedCertificate, attempt: Attempt): Identity {
    if (reason !== undefined)
      throw refusal(`the client certificate was not accepted in the TLS handshake: ${reason}`)
    const known = this.#presented.get(x509)
    if (known !== undefined && this.#deps.clock.epoch() < known.until) return known.identity
    attempt.beforeWork()
    const found = this.#judge(() => {
      const given: Certificate[] = []
      for (let next = x509.issuerCertificate; next !== undefined && given.length < maxChain; ) {
        given.push(readCertificate(next))
        next = next.issuerCertificate
      }
      return { leaf: readCertificate(x509), given }
    }, false)
    this.#presented.set(x509, found)
    return found.identity
  }

  /** @throws ERR_AUTH_INVALID */
  forwarded(value: string | string[], { remoteAddress }: Trusted, attempt: Attempt): Identity {
    const { header } = this.#options
    if (!this.#deps.trustsPeer(remoteAddress))
      throw refusal(`${header} was sent by ${remoteAddress}, which is not a trusted proxy`)
    if (typeof value !== 'string') throw refusal(`${header} stands there more than once`)
    const key = hash('sha256', value, 'base64')
    const known = this.#forwarded.get(key)
    if (known !== undefined && this.#deps.clock.epoch() < known.until) return known.identity
    attempt.beforeWork()
    const found = this.#judge(() => readForwarded(header, value), true)
    this.#forwarded.set(key, found)
    return found.identity
  }

  /** Whether the identity would still be given, as far as what it was given for can tell. */
  vouchesFor(identity: Identity): boolean {
    const { anchors, revocations } = this.#trust
    const chosen = chosenOf(identity)
    const path = identity.method === method ? writtenPath(identity.proof) : undefined
    if (chosen === undefined || path === undefined || !this.#rules.accepts(chosen)) return false
    if (identity.expiresAt !== undefined && this.#deps.clock.epoch() >= identity.expiresAt) return false
    if (!anchors.some(({ fingerprint }) => fingerprint === path.anchor)) return false
    return !path.links.some(({ issuer, serial }) =>
      revocations?.some((list) => list.revoked.has(serial) && nameDigest(list.issuer) === issuer),
    )
  }

  #judge(read: () => ForwardedCertificate, thorough: boolean): Known {
    try {
      const { leaf, given } = read()
      const path = verifyChain(leaf, given, this.#trust, { now: this.#deps.clock.epoch(), thorough })
      const names = namesOf(leaf)
      return { identity: identityOf(path, names, this.#rules.choose(names)), until: path.until }
    } catch (thrown) {
      if (thrown instanceof ChainError)
        throw refusal(`the client certificate is not accepted: ${thrown.message}`)
      if (thrown instanceof DerError)
        throw refusal(`the client certificate cannot be read: ${thrown.message}`)
      throw thrown
    }
  }
}

function identityOf(path: Path, names: CertificateNames, { kind, name }: ChosenName): Identity {
  const [leaf] = path.certificates as readonly [Certificate]
  return Object.freeze({
    id: `certificate:${kind}:${name}`,
    method,
    kind: 'user' as const,
    subject: name,
    groups: Object.freeze([]),
    scopes: undefined,
    claims: Object.freeze({
      issuer: leaf.x509.issuer,
      serial: leaf.x509.serialNumber,
      fingerprint256: leaf.fingerprint,
      uris: Object.freeze([...names.uri]),
      dns: Object.freeze([...names.dns]),
      emails: Object.freeze([...names.email]),
      ...(names.cn[0] === undefined ? {} : { commonName: names.cn[0] }),
    }),
    proof: proofOf(path),
    expiresAt: path.notAfter,
  })
}

const idPattern = /^certificate:(spiffe|uri|dns|email|cn):/

function chosenOf({ id, subject }: Identity): ChosenName | undefined {
  const kind = idPattern.exec(id)?.[1] as ChosenName['kind'] | undefined
  return kind === undefined ? undefined : { kind, name: subject }
}

/**
 * What a later look at the revocation lists needs, of each certificate of the path: its issuer and serial number; then
 * the anchor. An authenticator that is built anew from changed files must know them without having seen the certificate.
 */
function proofOf({ certificates, anchor }: Path): string {
  const links = certificates.map(({ issuer, serial }) => `${nameDigest(issuer)}.${serial}`)
  return [...links, anchor.fingerprint].join('/')
}

interface WrittenPath {
  readonly links: readonly { readonly issuer: string; readonly serial: string }[]
  readonly anchor: string
}

function writtenPath(proof: string): WrittenPath | undefined {
  const parts = proof.split('/')
  const anchor = parts.pop()
  if (anchor === undefined || parts.length === 0) return undefined
  const links = parts.map((part) => {
    const [issuer = '', serial = ''] = part.split('.')
    return { issuer, serial }
  })
  return { links, anchor }
}

function nameDigest(name: Buffer): string {
  return hash('sha256', name, 'hex').slice(0, 32)
}
