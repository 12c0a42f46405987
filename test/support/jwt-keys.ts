/** Keys of issuers that exist in tests alone, and tokens signed with them. */
import { createHmac, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'

type Json = Record<string, unknown>

export interface SigningKey {
  readonly kid: string
  /** The public half, as it stands in a JWKS. */
  readonly jwk: Json
  readonly pem: string
  readonly privatePem: string
  /** A compact JWS; members that are undefined are left out. */
  token(claims: Json, header?: Json): string
}

const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')

/** Any header and claims, with this as the signature. */
export function jwtOf(header: Json, claims: Json, signature: (input: string) => Buffer | string): string {
  const input = `${part(header)}.${part(claims)}`
  const signed = signature(input)
  return `${input}.${typeof signed === 'string' ? signed : signed.toString('base64url')}`
}

export const hmac =
  (secret: string | Buffer, algorithm = 'sha256') =>
  (input: string): Buffer =>
    createHmac(algorithm, secret).update(input).digest()

const makers: Readonly<Record<string, () => { publicKey: KeyObject; privateKey: KeyObject }>> = {
  RS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  ES256: () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  EdDSA: () => generateKeyPairSync('ed25519'),
}

/** A new key; ES256 is the quickest to make. */
export function signingKey(kid: string, alg: 'RS256' | 'ES256' | 'EdDSA' = 'ES256'): SigningKey {
  const { publicKey, privateKey } = (makers[alg] as () => { publicKey: KeyObject; privateKey: KeyObject })()
  const digest = alg === 'EdDSA' ? null : 'sha256'
  return {
    kid,
    jwk: { ...publicKey.export({ format: 'jwk' }), kid, alg, use: 'sig' },
    pem: publicKey.export({ format: 'pem', type: 'spki' }).toString(),
    privatePem: privateKey.export({ format: 'pem', type: 'pkcs8' }).toString(),
    token: (claims, header = {}) =>
      jwtOf({ alg, kid, typ: 'at+jwt', ...header }, claims, (input) =>
        sign(digest, Buffer.from(input), { key: privateKey, dsaEncoding: 'ieee-p1363' }),
      ),
  }
}
