/** Gates for a composition that has a list of methods; gone once it has gates of its own. */
import type { Clock } from '../core/types.ts'
import type { Authenticator } from './authenticator.ts'
import type { BearerChallenge } from './challenge.ts'
import { Failures } from './failures.ts'
import { type AuthGate, createGate } from './gate.ts'
import { buildStatic } from './static-secrets.ts'

const clock: Pick<Clock, 'now' | 'after'> = {
  now: () => performance.now(),
  after: (ms, then) => {
    const timer = setTimeout(then, ms).unref()
    return { refresh: () => void timer.refresh(), cancel: () => clearTimeout(timer) }
  },
}

export function parseTokens(text: string, file: string): Authenticator {
  return buildStatic({ method: 'bearer', header: undefined }, text, file)
}

export function bearerAuthenticator(tokens: () => Authenticator): Authenticator {
  return tokens()
}

const gates = new WeakMap<readonly Authenticator[], AuthGate>()

export function inOneLayer(authenticators: readonly Authenticator[]): AuthGate {
  const known = gates.get(authenticators)
  if (known !== undefined) return known
  const layers =
    authenticators.length === 0 ? [] : [{ name: 'auth', require: 'any' as const, authenticators }]
  // Without a limit on attempts, as such a composition has none.
  const failures = { attempts: Number.MAX_SAFE_INTEGER, windowMs: 60_000 }
  const gate = createGate({ layers, timeoutMs: 10_000, failures })
  gates.set(authenticators, gate)
  return gate
}

const bearerChallenge: BearerChallenge = (error) =>
  error === undefined ? 'Bearer' : `Bearer error="${error}"`

export function listed(authenticators: () => readonly Authenticator[]): {
  gate: () => AuthGate
  failures: Failures
  clock: Pick<Clock, 'after'>
  bearerChallenge: BearerChallenge
} {
  const gate = (): AuthGate => inOneLayer(authenticators())
  return { gate, failures: new Failures(clock), clock, bearerChallenge }
}
