/** Requests and attempts as authenticators see them. */
import type { IncomingHttpHeaders } from 'node:http'
import type { Attempt, Authenticator } from '../../src/authn/authenticator.ts'
import { SidecarError } from '../../src/core/errors.ts'
import type { Identity, Trusted } from '../../src/core/types.ts'

/** A request with these headers, as Node.js reads them. */
export function trusted(headers: Readonly<Record<string, string>>, more: Partial<Trusted> = {}): Trusted {
  const parsed: IncomingHttpHeaders = {}
  for (const [name, value] of Object.entries(headers)) parsed[name.toLowerCase()] = value
  return {
    requestId: 'r',
    transport: 'streamable-http',
    remoteAddress: '192.0.2.1',
    clientAddress: '192.0.2.1',
    httpMethod: 'POST',
    path: '/mcp',
    query: '',
    headers: parsed,
    rawHeaders: Object.entries(headers).flat(),
    certificate: undefined,
    origin: undefined,
    ...more,
  }
}

export interface TestAttempt extends Attempt {
  readonly notes: string[]
  /** How often a method was about to do something expensive. */
  work: number
  /** Whether that is refused. */
  limited: boolean
  readonly controller: AbortController
}

export function testAttempt(): TestAttempt {
  const controller = new AbortController()
  const attempt: TestAttempt = {
    notes: [],
    work: 0,
    limited: false,
    controller,
    signal: controller.signal,
    onAdmitted: (then) => then(),
    note: (why) => void attempt.notes.push(why),
    beforeWork() {
      if (attempt.limited) throw new SidecarError('ERR_RATE_LIMITED', { headers: { 'Retry-After': '9' } })
      attempt.work++
    },
  }
  return attempt
}

/** Somebody, proven by this method. */
export function identity(name: string, more: Partial<Identity> = {}): Identity {
  const method = more.method ?? 'test'
  return {
    id: `${method}:${name}`,
    method,
    kind: 'user',
    subject: name,
    groups: [],
    scopes: undefined,
    claims: {},
    proof: `proof of ${name}`,
    expiresAt: undefined,
    ...more,
  }
}

/** What a method says: somebody, nothing (undefined), or a refusal. */
export type Answer = Identity | undefined | Error

export interface FakeMethod extends Authenticator {
  /** How often it was asked. */
  asked: number
}

/** A method that reads a header of its own and answers like this, at once or when the promise is settled. */
export function answering(
  name: string,
  answer: Answer | Promise<Answer> | ((attempt: Attempt) => Answer | Promise<Answer>),
  more: Partial<Authenticator> = {},
): FakeMethod {
  const told = (said: Answer): Identity | undefined => {
    if (said instanceof Error) throw said
    return said
  }
  const method: FakeMethod = {
    asked: 0,
    name,
    headers: [`x-${name.toLowerCase()}`],
    scheme: undefined,
    authorizationServers: [],
    scopes: [],
    authenticate({ headers }, attempt) {
      if (!method.headers.some((header) => headers[header] !== undefined)) return undefined
      method.asked++
      const said = typeof answer === 'function' ? answer(attempt) : answer
      return said instanceof Promise ? said.then(told) : told(said)
    },
    vouchesFor: ({ id }) => id === `test:${name}` || id.startsWith(`${name}:`),
    ...more,
  }
  return method
}
