import type { StaticMethod } from '../core/policy.ts'
import { Credential, fingerprint, Secret, sha256 } from '../core/secret.ts'
import type { Identity, Trusted } from '../core/types.ts'
import type { Attempt, Authenticator } from './authenticator.ts'
import { schemeValue } from './credentials.ts'
import { type LineShape, namedLines, onlyOnce, SecretFileError } from './secret-lines.ts'

/** One token or API key with the name of its owner. */
export interface NamedSecret {
  readonly name: string
  readonly secret: Credential
  /** Where it comes from, for errors: `FILE:LINE`, or the place in a document. */
  readonly where: string
}

interface Entry {
  readonly identity: Identity
  readonly secret: Secret
}

/** Fewer could be guessed: these are compared without any limit on attempts. */
const minLength = 16

const shapes = {
  bearer: {
    ...{ what: 'token', form: 'NAME:TOKEN', bare: true },
    // RFC 6750 section 2.1, `b68token`.
    pattern: /^[A-Za-z0-9._~+/-]+=*$/,
    allowed: 'the token has characters that no bearer token has (RFC 6750); a line is NAME:TOKEN',
  },
  apiKey: {
    ...{ what: 'API key', form: 'NAME:KEY', bare: true },
    // What a header can carry as it is, without blanks, whose number would be in doubt.
    pattern: /^[!-~]+$/,
    allowed: 'the API key has characters beside visible ASCII; a line is NAME:KEY',
  },
} as const satisfies Record<StaticMethod['method'], LineShape & { pattern: RegExp; allowed: string }>

/**
 * Static bearer tokens or API keys from a file: one `NAME:SECRET` a line, or a single line with the secret alone (its
 * name is then `default`); blank lines and lines starting with `#` are skipped. Several names may be valid at once, for
 * rotation.
 *
 * @param text the content of the file
 * @param where its name, for errors
 * @throws SecretFileError with file:line for a line that is neither, a name or a secret that stands twice, a secret of
 *   fewer than 16 characters or with characters that its header cannot carry, or a file without any
 */
export function buildStatic(
  method: Pick<StaticMethod, 'method' | 'header'>,
  text: string,
  where: string,
): Authenticator {
  const lines = namedLines(text, where, shapes[method.method])
  return staticAuthenticator(
    method,
    lines.map((line) => ({ name: line.name, secret: new Credential(line.rest), where: line.where })),
  )
}

/**
 * The same from secrets that have their names elsewhere, as those of an OME document.
 *
 * @throws SecretFileError as {@link buildStatic} does
 */
export function staticAuthenticator(
  { method, header }: Pick<StaticMethod, 'method' | 'header'>,
  secrets: readonly NamedSecret[],
): Authenticator {
  if (method === 'apiKey' && header === undefined) {
    throw new SecretFileError('API keys need a header of their own, such as X-API-Key')
  }
  const entries = entriesOf(method, secrets)
  const byId = new Map(entries.map(({ identity }) => [identity.id, identity]))
  const { what } = shapes[method]
  return {
    name: method,
    headers: [header ?? 'authorization'],
    scheme: header === undefined ? 'Bearer' : undefined,
    authorizationServers: [],
    scopes: [],
    authenticate(request: Trusted, attempt: Attempt): Identity | undefined {
      const value = header === undefined ? schemeValue(request, 'Bearer') : request.headers[header]
      if (typeof value !== 'string' || value === '') return undefined
      // Every entry is compared, whichever matches: the time says nothing about where in the file it stands.
      const digest = sha256(value)
      let found: Identity | undefined
      for (const { identity, secret } of entries) if (secret.matches(digest)) found = identity
      if (found === undefined) attempt.note(`${method}: an unknown ${what}`)
      return found
    },
    vouchesFor: ({ id, method: by, proof }) => by === method && byId.get(id)?.proof === proof,
  }
}

function entriesOf(method: StaticMethod['method'], secrets: readonly NamedSecret[]): readonly Entry[] {
  const { what, form, pattern, allowed } = shapes[method]
  if (secrets.length === 0) throw new SecretFileError(`there is no ${what}; write ${form}`)
  const digests = new Set<string>()
  return onlyOnce(secrets, shapes[method]).map(({ name, secret, where }) => {
    const value = secret.reveal()
    if (value.length < minLength) {
      throw new SecretFileError(`${where}: the ${what} has fewer than ${minLength} characters`)
    }
    if (!pattern.test(value)) throw new SecretFileError(`${where}: ${allowed}`)
    const digest = sha256(value).toString('hex')
    if (digests.has(digest)) {
      throw new SecretFileError(`${where}: this ${what} stands in an earlier line under another name`)
    }
    digests.add(digest)
    return { identity: namedIdentity(method, name, fingerprint(value)), secret: new Secret(value) }
  })
}

/** Somebody who has no more than a name. */
export function namedIdentity(method: string, name: string, proof: string): Identity {
  return Object.freeze({
    ...{ id: `${method}:${name}`, method, kind: 'user' as const, subject: name },
    ...{ groups: Object.freeze([]), scopes: undefined, claims: Object.freeze({}) },
    ...{ proof, expiresAt: undefined },
  })
}
