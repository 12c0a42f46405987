import { hash, timingSafeEqual } from 'node:crypto'
import { inspect } from 'node:util'

/** A value that no log, error or JSON document shows. Holds the SHA-256 of the secret, never the secret itself. */
export class Secret {
  readonly #digest: Buffer

  constructor(value: string) {
    this.#digest = sha256(value)
  }

  /** Constant time in the digest: neither length nor common prefix of the secret can be measured. */
  matches(digest: Buffer): boolean {
    return timingSafeEqual(this.#digest, digest)
  }

  toString(): string {
    return '[redacted]'
  }

  toJSON(): string {
    return '[redacted]'
  }

  [inspect.custom](): string {
    return '[redacted]'
  }
}

/** A secret that has to be presented to somebody else (a client secret); it shows itself to nobody else. */
export class Credential {
  readonly #value: string

  constructor(value: string) {
    this.#value = value
  }

  /** The secret itself, to be used at once and kept nowhere. */
  reveal(): string {
    return this.#value
  }

  toString(): string {
    return '[redacted]'
  }

  toJSON(): string {
    return '[redacted]'
  }

  [inspect.custom](): string {
    return '[redacted]'
  }
}

export function sha256(value: string): Buffer {
  return hash('sha256', value, 'buffer')
}

/** A short name for a secret handle (a session id) that may stand in logs: 12 hex digits of its SHA-256. */
export function fingerprint(value: string): string {
  return sha256(value).toString('hex', 0, 6)
}
