/** Requests with a token, and what a token method makes of them. */
import type { Attempt, Authenticator } from '../../src/authn/authenticator.ts'
import { SidecarError } from '../../src/core/errors.ts'
import type { TokenChecks } from '../../src/core/policy.ts'
import type { Identity, Logger, Trusted } from '../../src/core/types.ts'

export const request = (authorization: string | undefined): Trusted =>
  ({ headers: { authorization } }) as unknown as Trusted

export interface Outcome {
  readonly identity: Identity | undefined
  /** The code of the refusal. */
  readonly code: string | undefined
  /** For the log. */
  readonly detail: string | undefined
  readonly error: SidecarError | undefined
  readonly notes: readonly string[]
  /** How often it said that it was about to work. */
  readonly works: number
  /** Answered without a promise. */
  readonly atOnce: boolean
}

/** One request with `Authorization: Bearer`. */
export async function attempt(
  method: Authenticator,
  token: string | undefined,
  options: { readonly signal?: AbortSignal; readonly beforeWork?: () => void } = {},
): Promise<Outcome> {
  const notes: string[] = []
  let works = 0
  const { signal = new AbortController().signal, beforeWork } = options
  const made: Attempt = {
    beforeWork: () => {
      works++
      beforeWork?.()
    },
    signal,
    onAdmitted: (then) => then(),
    note: (why) => void notes.push(why),
  }
  let atOnce = true
  try {
    const header = token === undefined ? undefined : `Bearer ${token}`
    const answer = method.authenticate(request(header), made)
    atOnce = !(answer instanceof Promise)
    const identity = await answer
    return { identity, code: undefined, detail: undefined, error: undefined, notes, works, atOnce }
  } catch (thrown) {
    if (!(thrown instanceof SidecarError)) throw thrown
    return {
      identity: undefined,
      code: thrown.code,
      detail: thrown.detail,
      error: thrown,
      notes,
      works,
      atOnce,
    }
  }
}

/** Who it is, or why not. */
export async function whoIs(method: Authenticator, token: string): Promise<string | undefined> {
  const { identity, detail, notes } = await attempt(method, token)
  return identity?.id ?? detail ?? notes.join('; ')
}

export const checks: TokenChecks = {
  audiences: [],
  algorithms: [],
  clockToleranceMs: 30_000,
  requiredClaims: {},
  scopes: [],
  subjectClaim: 'sub',
  groupsClaim: undefined,
}

export interface Log extends Logger {
  /** `LEVEL text reason`. */
  readonly lines: string[]
}

export function recordingLog(): Log {
  const lines: string[] = []
  const at =
    (level: string) =>
    (fields: object, text: string): void =>
      void lines.push(`${level} ${text} ${'reason' in fields ? String(fields.reason) : ''}`.trim())
  return { lines, debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}
