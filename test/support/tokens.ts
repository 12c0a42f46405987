/** Several principals, each with a bearer token. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { folder } from './processes.ts'

export interface Tokens {
  readonly file: string
  /** For the options of a test sidecar. */
  readonly flags: { readonly bearerTokenFile: string }
  token(name: string): string
  /** The headers of a request of this principal. */
  of(name: string): { readonly Authorization: string }
  /** Replaces who is in the file. */
  write(...names: string[]): void
}

export function bearerTokens(t: Test, ...names: string[]): Tokens {
  const file = join(folder(t), 'tokens')
  const token = (name: string): string => `${name}-token-0123456789abcdef`
  const write = (...all: string[]): void =>
    writeFileSync(file, all.map((name) => `${name}:${token(name)}\n`).join(''), { mode: 0o600 })
  write(...names)
  return {
    file,
    flags: { bearerTokenFile: file },
    token,
    of: (name) => ({ Authorization: `Bearer ${token(name)}` }),
    write,
  }
}
