import { randomBytes, scrypt, timingSafeEqual } from 'node:crypto'
import { fingerprint } from '../core/secret.ts'
import { SecretFileError } from './secret-lines.ts'

/** Costs of scrypt (RFC 7914 section 2). */
export interface ScryptCost {
  readonly N: number
  readonly r: number
  readonly p: number
}

/** The key derivation; tests count it. */
export type Derive = (password: string, salt: Buffer, length: number, cost: ScryptCost) => Promise<Buffer>

/**
 * What new hashes cost: about 0.2 s, and 32 MiB, so that two at once fit into the memory of a small container. The same
 * strength as N = 2^17 with p = 1 in 128 MiB.
 */
const newCost: ScryptCost = { N: 2 ** 15, r: 8, p: 3 }
const limits = { minN: 2 ** 14, maxN: 2 ** 18, r: 8, maxP: 4 }
const saltBytes = { min: 16, max: 64 }
const hashBytes = { min: 32, max: 64 }
const maxPasswordBytes = 1024

/** `scrypt$N$r$p$SALT$HASH`, salt and hash as base64url without padding. */
const form = /^scrypt\$(\d{1,7})\$(\d{1,3})\$(\d{1,3})\$([A-Za-z0-9_-]{1,100})\$([A-Za-z0-9_-]{1,100})$/

/** A password that cannot be hashed. The message says why and never holds it. */
export class PasswordError extends Error {
  override readonly name = 'PasswordError'
}

export const deriveScrypt: Derive = (password, salt, length, { N, r, p }) =>
  new Promise((resolve, reject) => {
    // What OpenSSL counts, and a little more; Node.js allows 32 MiB unless told otherwise.
    const maxmem = 128 * r * (N + p + 2) + 4096
    scrypt(normal(password), salt, length, { N, r, p, maxmem }, (error, key) => {
      if (error === null) resolve(key)
      else reject(error)
    })
  })

/** Unicode Normalization Form C, which `charset="UTF-8"` asks of clients (RFC 7617 section 2.1). */
function normal(password: string): Buffer {
  return Buffer.from(password.normalize('NFC'), 'utf8')
}

/** True for text that no user name or password holds (RFC 7617 section 2, `CTL` of RFC 5234). */
export function hasControls(text: string): boolean {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return /[\x00-\x1f\x7f]/.test(text)
}

/**
 * The part of a line that follows `NAME:`, with a new salt.
 *
 * @throws PasswordError for an empty password, one of more than 1024 bytes, or one with control characters (a line
 *   break at its end among them), which no client could send
 */
export async function hashPassword(password: string): Promise<string> {
  if (password === '') throw new PasswordError('the password is empty')
  if (hasControls(password)) throw new PasswordError('the password has control characters or line breaks')
  if (normal(password).length > maxPasswordBytes) {
    throw new PasswordError(`the password has more than ${maxPasswordBytes} bytes`)
  }
  const salt = randomBytes(saltBytes.min)
  const hash = await deriveScrypt(password, salt, hashBytes.min, newCost)
  const { N, r, p } = newCost
  return `scrypt$${N}$${r}$${p}$${salt.toString('base64url')}$${hash.toString('base64url')}`
}

/** A password as it is stored. Shows nothing of itself. */
export class PasswordHash {
  readonly #salt: Buffer
  readonly #hash: Buffer
  readonly #cost: ScryptCost
  /** Tells this entry from any other for the same name; not made from the password. */
  readonly fingerprint: string

  private constructor(cost: ScryptCost, salt: Buffer, hash: Buffer) {
    this.#cost = cost
    this.#salt = salt
    this.#hash = hash
    this.fingerprint = fingerprint(`${salt.toString('base64url')}$${hash.toString('base64url')}`)
  }

  /**
   * @param text what {@link hashPassword} made
   * @param where its file and line, for errors
   * @throws SecretFileError for anything else, for costs that are too low to protect or too high to afford (N a power
   *   of two from 2^14 to 2^18, r 8, p 1 to 4: at most 256 MiB), and for a salt or hash that is too short
   */
  static parse(text: string, where: string): PasswordHash {
    const fail = (why: string): never => {
      throw new SecretFileError(`${where}: ${why}; \`mcp-sidecar hash\` makes such lines`)
    }
    const [, n, r, p, salt64 = '', hash64 = ''] =
      form.exec(text) ?? fail('what follows the name is not scrypt$N$r$p$SALT$HASH')
    const cost = { N: Number(n), r: Number(r), p: Number(p) }
    if (!Number.isInteger(Math.log2(cost.N)) || cost.N < limits.minN || cost.N > limits.maxN) {
      fail(`N must be a power of two from ${limits.minN} to ${limits.maxN}`)
    }
    if (cost.r !== limits.r) fail(`r must be ${limits.r}`)
    if (cost.p < 1 || cost.p > limits.maxP) fail(`p must be 1 to ${limits.maxP}`)
    const part = (text64: string, what: string, { min, max }: typeof saltBytes): Buffer => {
      const bytes = Buffer.from(text64, 'base64url')
      if (bytes.toString('base64url') !== text64 || bytes.length < min || bytes.length > max) {
        fail(`the ${what} must be ${min} to ${max} bytes as base64url without padding`)
      }
      return bytes
    }
    return new PasswordHash(cost, part(salt64, 'salt', saltBytes), part(hash64, 'hash', hashBytes))
  }

  /** A hash that no password has, at the same cost: for names that nobody has. */
  unmatched(): PasswordHash {
    return new PasswordHash(this.#cost, randomBytes(this.#salt.length), randomBytes(this.#hash.length))
  }

  async matches(password: string, derive: Derive): Promise<boolean> {
    return timingSafeEqual(await derive(password, this.#salt, this.#hash.length, this.#cost), this.#hash)
  }
}
