import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { SidecarError } from '../core/errors.ts'
import { addressGroup } from '../core/net.ts'
import type { Clock, Identity, Trusted } from '../core/types.ts'
import type { Attempt, Authenticator } from './authenticator.ts'
import { schemeValue } from './credentials.ts'
import { type Derive, deriveScrypt, hasControls, PasswordHash } from './password-hash.ts'
import { namedLines } from './secret-lines.ts'
import { Slots } from './slots.ts'
import { namedIdentity } from './static-secrets.ts'

export interface BasicOptions {
  readonly clock: Pick<Clock, 'now'>
  /** Default: scrypt on the thread pool of libuv. */
  readonly derive?: Derive
  /** Default: two at once in the whole process, which leaves half of that pool to others; 64 may wait. */
  readonly slots?: Slots
}

interface User {
  readonly identity: Identity
  readonly hash: PasswordHash
}

interface Credentials {
  readonly name: string
  readonly password: string
}

interface Verified {
  readonly digest: Buffer
  /** Other passwords that were tried since. */
  misses: number
}

/** A password that was verified is known so long. Milliseconds. */
const rememberMs = 5 * 60_000
const maxRemembered = 10_000
/** Guesses against a verified password, which cost next to nothing, before it is verified anew. */
const maxMisses = 10

const sharedSlots = new Slots(2, 64)

/**
 * Basic (RFC 7617) against lines `NAME:scrypt$...`. A password that was verified is remembered for five minutes, as a
 * digest under a key of this process; nothing is remembered beyond a reload of the file.
 *
 * An unknown name costs the same as a wrong password. Remembered passwords are those of one address each, and ten
 * wrong ones end the memory: who has used up the attempts of his address cannot go on guessing against it.
 *
 * @param text the content of the file
 * @param where its name, for errors
 * @throws SecretFileError with file:line
 */
export function buildBasic(text: string, where: string, options: BasicOptions): Authenticator {
  const { derive = deriveScrypt, slots = sharedSlots, clock } = options
  const users = readUsers(text, where)
  const strangers = [...users.values()].map(({ hash }) => hash.unmatched())
  const memory = new PasswordMemory(clock)

  /** Which cost it has must not tell an unknown name: any of those in the file, but for one name always the same. */
  const stranger = (name: string): PasswordHash =>
    strangers[memory.digest(name).readUInt32LE() % strangers.length] as PasswordHash

  async function verify(
    { name, password }: Credentials,
    attempt: Attempt,
    place: string,
    digest: Buffer,
  ): Promise<Identity> {
    const user = users.get(name)
    // While this one waited its client may have been verified, given up, or failed too often.
    if (user !== undefined && memory.holds(place, digest)) return user.identity
    if (attempt.signal.aborted) throw refusal('no time was left to verify the password')
    attempt.beforeWork()
    const good = await (user?.hash ?? stranger(name)).matches(password, derive)
    if (user === undefined) throw refusal('an unknown user name')
    if (!good) throw refusal(`a wrong password for ${name}`)
    attempt.onAdmitted(() => memory.keep(place, digest))
    return user.identity
  }

  return {
    name: 'basic',
    headers: ['authorization'],
    scheme: 'Basic',
    authorizationServers: [],
    scopes: [],
    authenticate(request: Trusted, attempt: Attempt): Identity | undefined | Promise<Identity> {
      const encoded = schemeValue(request, 'Basic')
      if (encoded === undefined) return undefined
      const credentials = decode(encoded)
      const { name, password } = credentials
      const group = addressGroup(request.clientAddress)
      const place = `${group} ${name}`
      const digest = memory.digest(`${name}:${password}`)
      if (memory.holds(place, digest)) return users.get(name)?.identity
      memory.missed(place)
      attempt.beforeWork()
      return slots.run(() => verify(credentials, attempt, place, digest), group)
    },
    vouchesFor: ({ id, method, subject, proof }) => {
      const identity = users.get(subject)?.identity
      return method === 'basic' && identity?.id === id && identity.proof === proof
    },
  }
}

/** Which passwords were good a short while ago, by address and name. */
class PasswordMemory {
  readonly #key = randomBytes(32)
  readonly #verified: LRUCache<string, Verified>

  constructor(clock: Pick<Clock, 'now'>) {
    // An entry made at 0 would be one without an end.
    const perf = { now: () => clock.now() + 1 }
    this.#verified = new LRUCache({ max: maxRemembered, ttl: rememberMs, ttlResolution: 0, perf })
  }

  digest(text: string): Buffer {
    return createHmac('sha256', this.#key).update(text).digest()
  }

  holds(place: string, digest: Buffer): boolean {
    const verified = this.#verified.get(place)
    return verified !== undefined && timingSafeEqual(verified.digest, digest)
  }

  missed(place: string): void {
    const verified = this.#verified.get(place)
    if (verified !== undefined && ++verified.misses >= maxMisses) this.#verified.delete(place)
  }

  keep(place: string, digest: Buffer): void {
    this.#verified.set(place, { digest, misses: 0 })
  }
}

function readUsers(text: string, where: string): ReadonlyMap<string, User> {
  const shape = { what: 'user', form: 'NAME:scrypt$N$r$p$SALT$HASH', bare: false }
  return new Map(
    namedLines(text, where, shape).map((line) => {
      const hash = PasswordHash.parse(line.rest, line.where)
      return [line.name, { hash, identity: namedIdentity('basic', line.name, hash.fingerprint) }]
    }),
  )
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** @throws ERR_AUTH_INVALID for what is no `user-pass` of RFC 7617 section 2 */
function decode(encoded: string): Credentials {
  const bytes = Buffer.from(encoded, 'base64')
  if (bytes.toString('base64') !== encoded) throw refusal('the credentials are not base64')
  let text: string
  try {
    text = utf8.decode(bytes)
  } catch {
    throw refusal('the credentials are not UTF-8')
  }
  if (hasControls(text)) throw refusal('the credentials have control characters')
  const colon = text.indexOf(':')
  if (colon < 0) throw refusal('the credentials have no colon')
  return { name: text.slice(0, colon), password: text.slice(colon + 1) }
}

function refusal(why: string): SidecarError {
  return new SidecarError('ERR_AUTH_INVALID', { detail: `basic: ${why}` })
}
