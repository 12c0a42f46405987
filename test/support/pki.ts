/**
 * Certificate authorities, certificates and revocation lists for tests, valid or wrong in any way a test wants.
 *
 *     const ca = authority('Test CA')
 *     const server = ca.issue({ cn: 'localhost', dns: ['localhost'], ips: ['127.0.0.1'], usage: 'server' })
 *     const client = ca.subordinate('Team CA').issue({ uris: ['spiffe://example.org/ns/a'] })
 *     https.createServer({ cert: server.chain, key: server.key, ca: ca.certificate, requestCert: true })
 *     ca.revocationList({ revoked: [client] })
 *
 * Everything is PEM. Keys are P-256, made in well under a millisecond; RSA-2048 ones are made once per process.
 */
import {
  createPublicKey,
  generateKeyPairSync,
  hash,
  type KeyObject,
  randomBytes,
  sign,
  X509Certificate,
} from 'node:crypto'
import { isIP } from 'node:net'
import * as der from './der.ts'

export interface Issued {
  /** The certificate alone. */
  readonly certificate: string
  /** The certificate and those of the authorities between it and the root, as servers and clients present it. */
  readonly chain: string
  /** PKCS #8. */
  readonly key: string
  readonly x509: X509Certificate
  /** Hexadecimal, in lower case. */
  readonly serial: string
}

export interface CertificateOptions {
  readonly cn?: string
  /** The whole subject (DER of a Name) instead of `cn`. */
  readonly subject?: Uint8Array
  readonly uris?: readonly string[]
  readonly dns?: readonly string[]
  readonly emails?: readonly string[]
  readonly ips?: readonly string[]
  /** Extended key usage; default `client`. `none`: the extension is left out. */
  readonly usage?: 'client' | 'server' | 'both' | 'none'
  /** Milliseconds since 1970; default from a day ago on. */
  readonly notBefore?: number
  /** Milliseconds since 1970; default in ten years. */
  readonly notAfter?: number
  /** Hexadecimal; default random. */
  readonly serial?: string
  readonly keyType?: KeyType
  /** The digest under the signature; default sha256. */
  readonly digest?: 'sha1' | 'sha256' | 'sha384' | 'sha512'
  /** Makes the certificate one of an authority; default for what issues others. */
  readonly ca?: boolean
  /** Whether it names its key and that of its issuer; default true. */
  readonly keyIdentifiers?: boolean
  /** basicConstraints pathLenConstraint. */
  readonly pathLength?: number
  /** The first byte of keyUsage (RFC 5280 section 4.2.1.3); default digitalSignature, or keyCertSign and cRLSign. */
  readonly keyUsage?: number
  /** Further ones, from {@link extension}. */
  readonly extensions?: readonly Uint8Array[]
}

export interface RevocationOptions {
  /** Certificates, or hexadecimal serial numbers. */
  readonly revoked?: readonly (string | Issued)[]
  /** Milliseconds since 1970; default a day ago. */
  readonly thisUpdate?: number
  /** Milliseconds since 1970; default in ten years; undefined leaves it out. */
  readonly nextUpdate?: number | undefined
  /** Of the list; default the CRL number. */
  readonly extensions?: readonly Uint8Array[]
  readonly digest?: 'sha1' | 'sha256' | 'sha384' | 'sha512'
}

export interface Authority extends Issued {
  issue(options?: CertificateOptions): Issued
  /** An authority below this one. */
  subordinate(name: string, options?: CertificateOptions): Authority
  revocationList(options?: RevocationOptions): string
}

/** `rsa-1024` is what nobody should accept. */
export type KeyType = 'ec' | 'rsa' | 'rsa-1024' | 'ed25519'

const day = 86_400_000

/** A self-signed root. */
export function authority(name: string, options: CertificateOptions = {}): Authority {
  const key = newKey(options.keyType)
  const subject = options.subject ?? commonName(name)
  const made = build({ ca: true, ...options, subject }, key, { key, subject })
  return asAuthority(made, { key, subject, chain: '' })
}

/** A certificate that nobody but itself vouches for. */
export function selfSigned(options: CertificateOptions = {}): Issued {
  const key = newKey(options.keyType)
  const subject = options.subject ?? commonName(options.cn)
  return build(options, key, { key, subject })
}

/** One X.509 extension. */
export function extension(dotted: string, value: Uint8Array, critical = false): Buffer {
  return der.sequence(der.oid(dotted), ...(critical ? [der.truth()] : []), der.octets(value))
}

/** subjectAltName with names that {@link CertificateOptions} would not make: tag and content of each GeneralName. */
export function alternativeNames(
  ...names: readonly (readonly [tag: number, content: string | Uint8Array])[]
): Buffer {
  const encoded = names.map(([tag, content]) =>
    der.tlv(tag, typeof content === 'string' ? Buffer.from(content, 'latin1') : content),
  )
  return extension('2.5.29.17', der.sequence(...encoded))
}

/** A Name of one attribute each; the common name is `2.5.4.3`. */
export function distinguishedName(
  ...attributes: readonly (readonly [dotted: string, value: Uint8Array])[]
): Buffer {
  return der.sequence(...attributes.map(([id, value]) => der.setOf(der.sequence(der.oid(id), value))))
}

/** A key of its own each time, but for RSA, which takes a tenth of a second. */
export function newKey(type: KeyType = 'ec'): KeyObject {
  if (type === 'ec') return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
  if (type === 'ed25519') return generateKeyPairSync('ed25519').privateKey
  const bits = type === 'rsa' ? 2048 : 1024
  const key = rsaKeys.get(bits) ?? generateKeyPairSync('rsa', { modulusLength: bits }).privateKey
  rsaKeys.set(bits, key)
  return key
}
const rsaKeys = new Map<number, KeyObject>()

interface Signer {
  readonly key: KeyObject
  /** DER of its name. */
  readonly subject: Uint8Array
}

function asAuthority(made: Issued, signer: Signer & { readonly chain: string }): Authority {
  return {
    ...made,
    issue: (options = {}) => build(options, newKey(options.keyType), signer, signer.chain),
    subordinate: (name, options = {}) => {
      const key = newKey(options.keyType)
      const subject = options.subject ?? commonName(name)
      const below = build({ ca: true, ...options, subject }, key, signer, signer.chain)
      return asAuthority(below, { key, subject, chain: below.chain })
    },
    revocationList: (options = {}) => revocationList(options, signer),
  }
}

function commonName(name: string | undefined): Buffer {
  return name === undefined ? distinguishedName() : distinguishedName(['2.5.4.3', der.utf8(name)])
}

function keyIdentifiers(own: KeyObject, issuer: KeyObject): Buffer[] {
  return [
    extension('2.5.29.14', der.octets(keyIdentifier(own))),
    extension('2.5.29.35', der.sequence(der.tlv(0x80, keyIdentifier(issuer)))),
  ]
}

/** Of a key: how RFC 5280 derives it (section 4.2.1.2), the SHA-1 of the public key's bits. */
function keyIdentifier(key: KeyObject): Buffer {
  const spki = createPublicKey(key).export({ type: 'spki', format: 'der' })
  return hash('sha1', spki, 'buffer')
}

const usages = { client: ['1.3.6.1.5.5.7.3.2'], server: ['1.3.6.1.5.5.7.3.1'], none: [] }
const extendedUsage = { ...usages, both: [...usages.server, ...usages.client] }

function build(options: CertificateOptions, key: KeyObject, by: Signer, chain = ''): Issued {
  const { ca = false, usage = ca ? 'none' : 'client', digest = 'sha256' } = options
  const serial = options.serial ?? `4${randomBytes(8).toString('hex').slice(1)}`
  const algorithm = signatureAlgorithm(by.key, digest)
  const eku = extendedUsage[usage]
  const names = [
    ...(options.emails ?? []).map((name) => [0x81, name] as const),
    ...(options.dns ?? []).map((name) => [0x82, name] as const),
    ...(options.uris ?? []).map((name) => [0x86, name] as const),
    ...(options.ips ?? []).map((address) => [0x87, addressBytes(address)] as const),
  ]
  const pathLength = options.pathLength === undefined ? [] : [der.integer(options.pathLength)]
  const extensions = [
    extension('2.5.29.19', der.sequence(...(ca ? [der.truth(), ...pathLength] : [])), true),
    extension('2.5.29.15', der.bits(Buffer.from([options.keyUsage ?? (ca ? 0x06 : 0x80)])), true),
    ...(options.keyIdentifiers === false ? [] : keyIdentifiers(key, by.key)),
    ...(eku.length === 0 ? [] : [extension('2.5.29.37', der.sequence(...eku.map(der.oid)))]),
    ...(names.length === 0 ? [] : [alternativeNames(...names)]),
    ...(options.extensions ?? []),
  ]
  const body = der.sequence(
    der.tagged(0, der.integer(2)),
    der.integer(serial),
    algorithm,
    by.subject,
    der.sequence(
      der.time(options.notBefore ?? Date.now() - day),
      der.time(options.notAfter ?? Date.now() + 3650 * day),
    ),
    options.subject ?? commonName(options.cn),
    createPublicKey(key).export({ type: 'spki', format: 'der' }),
    der.tagged(3, der.sequence(...extensions)),
  )
  const certificate = der.pem('CERTIFICATE', signed(body, algorithm, by.key, digest))
  return {
    certificate,
    chain: certificate + chain,
    key: key.export({ type: 'pkcs8', format: 'pem' }) as string,
    x509: new X509Certificate(certificate),
    serial,
  }
}

function revocationList(options: RevocationOptions, by: Signer): string {
  const { digest = 'sha256', revoked = [], thisUpdate = Date.now() - day } = options
  const nextUpdate = 'nextUpdate' in options ? options.nextUpdate : Date.now() + 3650 * day
  const algorithm = signatureAlgorithm(by.key, digest)
  const entries = revoked.map((one) =>
    der.sequence(der.integer(typeof one === 'string' ? one : one.serial), der.time(thisUpdate)),
  )
  const extensions = options.extensions ?? [extension('2.5.29.20', der.integer(1))]
  const body = der.sequence(
    der.integer(1),
    algorithm,
    by.subject,
    der.time(thisUpdate),
    ...(nextUpdate === undefined ? [] : [der.time(nextUpdate)]),
    ...(entries.length === 0 ? [] : [der.sequence(...entries)]),
    ...(extensions.length === 0 ? [] : [der.tagged(0, der.sequence(...extensions))]),
  )
  return der.pem('X509 CRL', signed(body, algorithm, by.key, digest))
}

function signed(body: Buffer, algorithm: Buffer, key: KeyObject, digest: string): Buffer {
  const signature = sign(key.asymmetricKeyType === 'ed25519' ? null : digest, body, key)
  return der.sequence(body, algorithm, der.bits(signature))
}

function signatureAlgorithm(key: KeyObject, digest: 'sha1' | 'sha256' | 'sha384' | 'sha512'): Buffer {
  const at = ['sha256', 'sha384', 'sha512'].indexOf(digest)
  if (key.asymmetricKeyType === 'ed25519') return der.sequence(der.oid('1.3.101.112'))
  if (key.asymmetricKeyType === 'ec')
    return der.sequence(der.oid(at < 0 ? '1.2.840.10045.4.1' : `1.2.840.10045.4.3.${at + 2}`))
  return der.sequence(der.oid(`1.2.840.113549.1.1.${at < 0 ? 5 : at + 11}`), der.nothing())
}

function addressBytes(address: string): Buffer {
  if (isIP(address) === 4) return Buffer.from(address.split('.').map(Number))
  const [head = '', tail = ''] = address.split('::')
  const groups = (text: string): string[] => (text === '' ? [] : text.split(':'))
  const missing = 8 - groups(head).length - groups(tail).length
  const all = [...groups(head), ...Array<string>(missing).fill('0'), ...groups(tail)]
  return Buffer.from(all.map((group) => group.padStart(4, '0')).join(''), 'hex')
}
