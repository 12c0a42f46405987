import { SidecarError } from '../core/errors.ts'
import { fingerprint, Secret, sha256 } from '../core/secret.ts'
import { anonymous, type Principal, type Trusted } from '../core/types.ts'
import type { Authenticator } from './authenticate.ts'

interface Token {
  readonly principal: Principal
  readonly secret: Secret
}

/** A token file that cannot be used. The message has the line, never the token. */
export class TokenFileError extends Error {
  override readonly name = 'TokenFileError'
}

const minLength = 16
const maxTokens = 10_000
/** RFC 6750 section 2.1, `b68token`. */
const tokenPattern = /^[A-Za-z0-9._~+/-]+=*$/
const namePattern = /^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$/

/**
 * Static bearer tokens from a file: one `NAME:TOKEN` a line, or a single line with the token alone (its name is then
 * `default`); blank lines and lines starting with `#` are skipped. Several names may be valid at once, for rotation.
 *
 * @param text the file's content
 * @param file its name, for errors
 * @throws TokenFileError with file:line for a line that is neither, a name given twice, a token of fewer than 16
 *   characters or with characters no bearer token has, or an empty file
 */
export function parseTokens(text: string, file: string): readonly Token[] {
  const tokens: Token[] = []
  const names = new Set<string>()
  const digests = new Set<string>()
  const lines = text.split('\n').map((line) => line.replace(/\r$/, '').trim())
  const bare = lines.filter((line) => line !== '' && !line.startsWith('#')).length === 1
  for (const [i, line] of lines.entries()) {
    if (line === '' || line.startsWith('#')) continue
    const where = `${file}:${i + 1}`
    const colon = line.indexOf(':')
    if (colon < 0 && !bare) {
      throw new TokenFileError(
        `${where}: a token without a name; write NAME:TOKEN (only a file with one token may omit it)`,
      )
    }
    const name = colon < 0 ? 'default' : line.slice(0, colon).trim()
    const value = line.slice(colon + 1).trim()
    if (!namePattern.test(name)) {
      throw new TokenFileError(
        `${where}: the name before ':' must be 1 to 64 letters, digits, dots, dashes, @ or _`,
      )
    }
    if (names.has(name)) throw new TokenFileError(`${where}: this name stands twice`)
    if (value.length < minLength) {
      throw new TokenFileError(`${where}: the token has fewer than ${minLength} characters`)
    }
    if (!tokenPattern.test(value)) {
      throw new TokenFileError(`${where}: the token has characters that no bearer token has (RFC 6750)`)
    }
    const digest = sha256(value).toString('hex')
    if (digests.has(digest)) {
      throw new TokenFileError(`${where}: this token stands in an earlier line under another name`)
    }
    digests.add(digest)
    names.add(name)
    if (tokens.length >= maxTokens) throw new TokenFileError(`${where}: more than ${maxTokens} tokens`)
    tokens.push({
      principal: Object.freeze({
        ...anonymous,
        id: `bearer:${name}`,
        method: 'bearer',
        kind: 'user' as const,
        subject: name,
        proof: fingerprint(value),
      }),
      secret: new Secret(value),
    })
  }
  if (tokens.length === 0) throw new TokenFileError(`${file}: there is no token in it; write NAME:TOKEN`)
  return tokens
}

/** `Authorization: Bearer` against a list of tokens (RFC 6750). */
export function bearerAuthenticator(tokens: () => readonly Token[]): Authenticator {
  return {
    name: 'bearer',
    challenge: (error) => (error === undefined ? 'Bearer' : `Bearer error="${error}"`),
    authenticate: (request: Trusted) => {
      const header = request.headers.authorization
      if (header === undefined || !/^bearer /i.test(header)) return undefined
      // Every entry is compared, whichever matches: the time says nothing about where in the file it stands.
      const digest = sha256(header.slice(7).trim())
      let found: Principal | undefined
      for (const { principal, secret } of tokens()) if (secret.matches(digest)) found = principal
      if (found === undefined)
        throw new SidecarError('ERR_AUTH_INVALID', { detail: 'an unknown bearer token' })
      return found
    },
    vouchesFor: ({ id, proof }) =>
      tokens().some(({ principal }) => principal.id === id && principal.proof === proof),
  }
}
