import type { LookupAddress } from 'node:dns'
import { readFileSync } from 'node:fs'
import { SidecarError } from '../core/errors.ts'
import type { SecretSource } from '../core/policy.ts'
import { Credential } from '../core/secret.ts'
import type { Clock, Logger } from '../core/types.ts'

/** A token method that cannot work as it is configured; thrown when it is built. Holds no secret. */
export class TokenMethodError extends Error {
  override readonly name = 'TokenMethodError'
}

/** What the token methods need from outside. */
export interface TokenDeps {
  readonly clock: Clock
  readonly log: Logger
  /** This server as clients name it: the audience where none is configured. */
  readonly resource: () => string
  /** Other names of this server, which are good audiences where none is configured. Default: none. */
  readonly aliases?: () => readonly string[]
  /** Default: from the disk, as UTF-8. */
  readonly readText?: (file: string) => string
  /** Whether scopes that were granted stand for the one needed. Default: only the same one does. */
  readonly grants?: (granted: readonly string[], needed: string) => boolean
  /** Asks issuers when a method is built. Default: with the first token. An issuer that is down keeps nothing from starting. */
  readonly prefetch?: boolean
  /** All addresses of a name. Default: those the system resolves it to. */
  readonly resolve?: (name: string) => Promise<LookupAddress[]>
}

/**
 * @param what names the file for the error
 * @throws TokenMethodError for a file that cannot be read
 */
export function readFile(file: string, what: string, { readText }: Pick<TokenDeps, 'readText'>): string {
  try {
    return readText === undefined ? readFileSync(file, 'utf8') : readText(file)
  } catch (cause) {
    throw new TokenMethodError(`${what} ${file} cannot be read: ${messageOf(cause)}`, { cause })
  }
}

/**
 * The secret without the line break that ends its file.
 *
 * @throws TokenMethodError for a file that cannot be read, or an empty secret
 */
export function readSecret(
  source: SecretSource,
  what: string,
  deps: Pick<TokenDeps, 'readText'>,
): Credential {
  const value =
    'file' in source ? readFile(source.file, what, deps).replace(/\r?\n$/, '') : source.text.reveal()
  if (value === '') throw new TokenMethodError(`${what} is empty`)
  return new Credential(value)
}

/** @param detail which check failed, for the log; holds no part of a credential */
export function refusal(detail: string, cause?: unknown): SidecarError {
  return new SidecarError('ERR_AUTH_INVALID', cause === undefined ? { detail } : { detail, cause })
}

/** A value out of a token or answer as it may stand in the log: short, and on one line. */
export function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? 'undefined'
  return text.length > 100 ? `${text.slice(0, 100)}...` : text
}

export function messageOf(thrown: unknown): string {
  if (thrown instanceof SidecarError) return thrown.detail ?? thrown.message
  if (!(thrown instanceof Error)) return String(thrown)
  // The error of several addresses that cannot be reached has a code alone.
  return thrown.message === '' && 'code' in thrown ? String(thrown.code) : thrown.message
}

/** What `work` comes to, unless the time for authentication is over before. `work` itself goes on: others share it. */
export function within<T>(signal: AbortSignal, work: Promise<T>, what: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const late = (): void => reject(refusal(`the time for authentication was over while waiting for ${what}`))
    if (signal.aborted) return late()
    signal.addEventListener('abort', late, { once: true })
    const done = (): void => signal.removeEventListener('abort', late)
    work.then(resolve, reject).then(done, done)
  })
}
