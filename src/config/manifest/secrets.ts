import { createHash, scryptSync } from 'node:crypto'
import type { SecretSource } from '../../core/policy.ts'
import { Credential } from '../../core/secret.ts'
import type { TypeOf } from '../object.ts'
import type { Path } from '../parsed.ts'
import type { credential } from './auth-values.ts'
import type { Building } from './building.ts'
import type { Place } from './place.ts'
import type { Reference } from './values.ts'

type CredentialValue = TypeOf<typeof credential>

/** Cost of the hash of a password that a document gives in clear: it never leaves this process. */
const COST = { N: 2 ** 15, r: 8, p: 1, maxmem: 2 ** 26 }

/** Where a credential is; a literal one is accepted with a warning. */
export async function sourceOf(
  value: CredentialValue,
  { references, warnings }: Building,
  place: Place,
  path: Path,
): Promise<SecretSource | undefined> {
  const { secretRef, value: literal } = value
  if (secretRef !== undefined)
    return await references.source('Secret', secretRef, place, [...path, 'secretRef'])
  if (literal === undefined) return undefined
  warnings.push(literalWarning(place, [...path, 'value']))
  return { text: new Credential(literal) }
}

/** The text of a credential now. */
export async function textOf(
  value: CredentialValue,
  { references, warnings }: Building,
  place: Place,
  path: Path,
): Promise<string | undefined> {
  const { secretRef, value: literal } = value
  if (secretRef !== undefined)
    return await references.text('Secret', secretRef, place, [...path, 'secretRef'])
  if (literal !== undefined) warnings.push(literalWarning(place, [...path, 'value']))
  return literal
}

export function literalWarning(place: Place, path: Path): ReturnType<Place['problem']> {
  return place.problem({ path, message: 'a secret stands here in clear: put it into a Secret and name that' })
}

/** One of several secrets, and what its holder is called. */
export interface NamedSecret {
  readonly name: string
  readonly secret: string
  readonly path: Path
}

/** The lines `NAME:SECRET` that static methods read. */
export function linesOf(
  secrets: readonly NamedSecret[],
  { problems }: Building,
  place: Place,
): SecretSource | undefined {
  const wrong = secrets.filter(
    ({ secret }) => secret.trim() !== secret || /[\r\n]/.test(secret) || secret === '',
  )
  problems.push(
    ...wrong.map(({ path }) =>
      place.problem({ path, message: 'must be one line of text without blanks around it, and not empty' }),
    ),
  )
  if (wrong.length > 0 || secrets.length === 0) return undefined
  return { text: new Credential(secrets.map(({ name, secret }) => `${name}:${secret}`).join('\n')) }
}

/** What the holder of a referred secret is called: a name that static methods take. */
export function holderOf({ name, key }: Reference): string {
  const full = `${name}.${key}`
  return full.length <= 64
    ? full
    : `${full.slice(0, 51)}-${createHash('sha256').update(full).digest('hex').slice(0, 12)}`
}

/** What a Basic method reads of a password: its line as `mcp-sidecar hash` makes it, or the password in clear. */
export function passwordLine(username: string, password: string): string {
  if (password.startsWith('scrypt$')) return password
  // The same at each reload, so that sessions go on; nobody else ever sees the hash.
  const salt = createHash('sha256').update(`mcp-sidecar ${username}`).digest().subarray(0, 16)
  const hash = scryptSync(Buffer.from(password.normalize('NFC')), salt, 32, COST)
  return `scrypt$${COST.N}$${COST.r}$${COST.p}$${salt.toString('base64url')}$${hash.toString('base64url')}`
}
