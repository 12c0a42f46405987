/** Keys that tokens are verified with, and the algorithms each is good for. */
import {
  createPublicKey,
  createSecretKey,
  hash,
  type JsonWebKey,
  type KeyObject,
  X509Certificate,
} from 'node:crypto'
import { type CryptoKey, createLocalJWKSet, type JWK, type JWSHeaderParameters } from 'jose'
import type { Credential } from '../core/secret.ts'
import { messageOf, TokenMethodError } from './token-method.ts'

/** Another object whenever a key was added, changed or removed. */
export interface KeySet {
  /** Of what is in it. */
  readonly digest: string
  /** As jose asks for it; rejects with its errors when none fits, or several do. */
  readonly find: (header: JWSHeaderParameters) => Promise<CryptoKey | KeyObject>
}

/** With a public key. None of them can be taken for another with the same key. */
export const publicAlgorithms: readonly string[] = [
  ...['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'],
]
/** With a shared secret, and the bytes it must have at least (RFC 7518 section 3.2). */
const secretAlgorithms: ReadonlyMap<string, number> = new Map([
  ['HS256', 32],
  ['HS384', 48],
  ['HS512', 64],
])
const curveAlgorithms: Readonly<Record<string, readonly string[]>> = {
  'P-256': ['ES256'],
  'P-384': ['ES384'],
  'P-521': ['ES512'],
  Ed25519: ['EdDSA', 'Ed25519'],
}
const minRsaBits = 2048
/** Issuers have two or three; each request without a `kid` looks at all of them. */
const maxKeys = 100
/** Members of private and symmetric keys (RFC 7518 sections 6.2.2, 6.3.2, 6.4.1). */
const secretMembers = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k', 'priv']

/**
 * @param wanted as configured; empty: all that the keys can be good for
 * @throws TokenMethodError for an algorithm that is not known, or that is for the other kind of key
 */
export function algorithmsFor(
  wanted: readonly string[],
  keys: 'public' | (KeySet & { bytes: number }),
): readonly string[] {
  const known = keys === 'public' ? publicAlgorithms : [...secretAlgorithms.keys()]
  const other = wanted.find((algorithm) => !known.includes(algorithm))
  if (other !== undefined) {
    const kind = keys === 'public' ? 'a public key' : 'a shared secret'
    throw new TokenMethodError(
      `${JSON.stringify(other)} is no algorithm for ${kind}; those are ${known.join(', ')}`,
    )
  }
  if (keys === 'public') return wanted.length > 0 ? wanted : known
  const short = wanted.find((algorithm) => (secretAlgorithms.get(algorithm) ?? 0) > keys.bytes)
  if (short !== undefined || keys.bytes < 32) {
    const needed = secretAlgorithms.get(short ?? 'HS256')
    throw new TokenMethodError(
      `the secret for ${short ?? 'HS256'} has ${keys.bytes} bytes; ${needed} are needed`,
    )
  }
  return wanted.length > 0 ? wanted : known.filter((each) => (secretAlgorithms.get(each) ?? 0) <= keys.bytes)
}

/** A shared secret: the bytes of its text. */
export function secretKey(secret: Credential): KeySet & { readonly bytes: number } {
  const bytes = Buffer.from(secret.reveal())
  const key = createSecretKey(bytes)
  return { digest: hash('sha256', bytes), bytes: bytes.length, find: async () => key }
}

/**
 * The keys of an issuer's answer. Those that are of no use for verifying, or are no secret of the issuer any more, are
 * left out.
 *
 * @param last returned again when nothing has changed
 * @throws TokenMethodError for what is no JWKS
 */
export function fetchedKeys(jwks: unknown, last: KeySet | undefined): KeySet {
  const usable = keysOf(jwks).filter((key) => faultOf(key) === undefined)
  return keySet(usable, last)
}

/**
 * Keys that the configuration holds: a JWKS, or public keys and certificates in PEM.
 *
 * @param where names them for errors: a file, or the key of the configuration
 * @throws TokenMethodError when one of them is of no use, or none fits the algorithms
 */
export function configuredKeys(text: string, where: string, algorithms: readonly string[]): KeySet {
  const keys = text.includes('-----BEGIN') ? pemKeys(text, where) : jwksKeys(text, where)
  for (const [i, key] of keys.entries()) {
    const fault = faultOf(key)
    if (fault !== undefined) throw new TokenMethodError(`${where}: key ${i + 1} ${fault}`)
  }
  if (!keys.some((key) => goodFor(key).some((algorithm) => algorithms.includes(algorithm)))) {
    throw new TokenMethodError(`${where}: none of the keys is for ${algorithms.join(', ')}`)
  }
  return keySet(keys, undefined)
}

function keySet(keys: readonly JWK[], last: KeySet | undefined): KeySet {
  const digest = hash('sha256', JSON.stringify(keys))
  if (last?.digest === digest) return last
  return { digest, find: createLocalJWKSet({ keys: [...keys] }) }
}

function keysOf(jwks: unknown): readonly JWK[] {
  const keys: unknown = typeof jwks === 'object' && jwks !== null && 'keys' in jwks ? jwks.keys : undefined
  if (!Array.isArray(keys)) throw new TokenMethodError('it is no JWKS: there is no list of keys')
  if (keys.length > maxKeys) throw new TokenMethodError(`there are ${keys.length} keys, more than ${maxKeys}`)
  return keys.filter((key): key is JWK => typeof key === 'object' && key !== null && !Array.isArray(key))
}

function jwksKeys(text: string, where: string): readonly JWK[] {
  try {
    const keys = keysOf(JSON.parse(text))
    if (keys.length > 0) return keys
  } catch (cause) {
    // What JSON.parse says has the text in it, which may be a secret that stands in the wrong place.
    const why = cause instanceof TokenMethodError ? cause.message : 'it is neither a JWKS (JSON) nor PEM'
    throw new TokenMethodError(`${where}: ${why}`)
  }
  throw new TokenMethodError(`${where}: there is no key in it`)
}

function pemKeys(text: string, where: string): readonly JWK[] {
  const blocks = text.match(/-----BEGIN [A-Z0-9 ]+-----[\s\S]*?-----END [A-Z0-9 ]+-----/g) ?? []
  if (blocks.length === 0) throw new TokenMethodError(`${where}: the PEM has no end`)
  return blocks.map((block) => {
    const label = /^-----BEGIN ([A-Z0-9 ]+)-----/.exec(block)?.[1] ?? ''
    if (label.includes('PRIVATE')) {
      throw new TokenMethodError(`${where}: there is a private key in it; only public ones belong here`)
    }
    try {
      const key = label === 'CERTIFICATE' ? new X509Certificate(block).publicKey : createPublicKey(block)
      return key.export({ format: 'jwk' }) as JWK
    } catch (cause) {
      throw new TokenMethodError(`${where}: the ${label} cannot be used: ${messageOf(cause)}`)
    }
  })
}

/** Why a key is of no use here. */
function faultOf(key: JWK): string | undefined {
  if (key.kty === 'oct') return 'is a shared secret, not a public key'
  if (secretMembers.some((member) => member in key))
    return 'is a private key; only its public half belongs here'
  if (key.use !== undefined && key.use !== 'sig')
    return `is for ${JSON.stringify(key.use)}, not for signatures`
  if (goodFor(key).length === 0) return 'is of a kind that no algorithm here uses'
  try {
    const { asymmetricKeyDetails } = createPublicKey({ key: key as JsonWebKey, format: 'jwk' })
    const bits = asymmetricKeyDetails?.modulusLength
    return bits !== undefined && bits < minRsaBits ? `has ${bits} bits; ${minRsaBits} are needed` : undefined
  } catch {
    return 'is malformed'
  }
}

function goodFor({ kty, crv, alg }: JWK): readonly string[] {
  const byKind =
    kty === 'RSA'
      ? publicAlgorithms.filter((each) => /^[RP]S/.test(each))
      : kty === 'EC' || kty === 'OKP'
        ? (curveAlgorithms[crv ?? ''] ?? [])
        : []
  return alg === undefined ? byKind : byKind.filter((each) => each === alg)
}
