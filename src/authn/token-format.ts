import type { Trusted } from '../core/types.ts'
import type { Attempt } from './authenticator.ts'
import { schemeValue } from './credentials.ts'
import type { JsonObject } from './fetching.ts'
import { refusal } from './token-method.ts'

/** A JWT that was read, not verified. */
export interface ReadJwt {
  readonly token: string
  readonly header: JsonObject
  readonly claims: JsonObject
}

/** Of a token. Larger than any issuer makes them, and small enough to hash and to parse for anybody. */
const maxTokenLength = 8192
/** RFC 6750 section 2.1, `b68token`. */
const tokenPattern = /^[A-Za-z0-9._~+/-]+=*$/
/** JWS Compact Serialization (RFC 7515 section 7.1); an empty signature is that of `none`. */
const jwtPattern = /^([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)$/

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * The token of `Authorization: Bearer` (RFC 6750 section 2.1); undefined without one, or when what follows is none.
 *
 * @param name of the method, for notes
 * @throws ERR_AUTH_INVALID for more than 8192 characters
 */
export function bearerToken(request: Trusted, attempt: Attempt, name: string): string | undefined {
  const token = schemeValue(request, 'Bearer')
  if (token === undefined) return undefined
  if (token.length > maxTokenLength) throw refusal(`the token has more than ${maxTokenLength} characters`)
  if (tokenPattern.test(token)) return token
  attempt.note(`${name}: what follows Bearer is not one token (RFC 6750)`)
  return undefined
}

/** The parts of a JWT, on its own word; undefined for anything else. */
export function readJwt(token: string): ReadJwt | undefined {
  const [, header, claims] = jwtPattern.exec(token) ?? []
  if (header === undefined || claims === undefined) return undefined
  const [readHeader, readClaims] = [jsonPart(header), jsonPart(claims)]
  return readHeader === undefined || readClaims === undefined
    ? undefined
    : { token, header: readHeader, claims: readClaims }
}

function jsonPart(part: string): JsonObject | undefined {
  try {
    const value: unknown = JSON.parse(utf8.decode(Buffer.from(part, 'base64url')))
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as JsonObject)
      : undefined
  } catch {
    return undefined
  }
}

/** A member that an object has itself. */
export function own(object: JsonObject, name: string): unknown {
  return Object.hasOwn(object, name) ? object[name] : undefined
}
