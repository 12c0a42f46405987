/** Callers, requests and policies for tests of what decides who may do what. */
import { type AuthzContext, createAuthorizer } from '../../src/authz/authorize.ts'
import type { Decider, Decision, Question } from '../../src/authz/decider.ts'
import { SidecarError } from '../../src/core/errors.ts'
import { Exchange } from '../../src/core/exchange.ts'
import type { Message } from '../../src/core/jsonrpc.ts'
import { messageOf } from '../../src/core/local.ts'
import type {
  AccessRule,
  AuthzPolicy,
  Condition,
  RuleLayer,
  RulePermission,
  ScopeDemand,
} from '../../src/core/policy.ts'
import {
  anonymous,
  type Decoded,
  type Era,
  type Identity,
  type Permitted,
  type Principal,
} from '../../src/core/types.ts'
import { type Json, ManualClock, written } from './modern-calls.ts'

class Way extends Exchange {
  readonly attached = true
  readonly streaming = false
  readonly outlet = undefined
  readonly queuedBytes = 0
  readonly pulse = 0
  destroy(): void {}
  onceDrained(): void {}
  onGone(): void {}
  begin(): void {}
  send(): void {}
  setHeader(): void {}
  protected writeAnswer(): void {}
  protected writeError(): void {}
  protected writeNothing(): void {}
}

export function identity(more: Partial<Identity>): Identity {
  const { others: _, ...base } = anonymous
  const id = more.id ?? `${more.kind ?? 'user'}:${more.subject ?? ''}`
  return { ...base, method: 'jwt', kind: 'user', id, proof: 'p', ...more }
}

export function principal(more: Partial<Identity>, ...others: Identity[]): Principal {
  return { ...identity(more), others }
}

export const alice = principal({ subject: 'alice', groups: ['dev', 'staff'] })
export const bob = principal({ subject: 'bob', groups: ['ops'] })
export const robot = principal({ kind: 'serviceaccount', subject: 'team-a/robot' })
export { anonymous }

export interface RequestWish {
  readonly principal?: Principal
  readonly era?: Era
  readonly clientAddress?: string
  readonly rawHeaders?: readonly string[]
}

/** A message as the stage gets it. @param sent a method with params, or the whole text */
export function decoded(
  sent: string,
  params?: object,
  wish: RequestWish = {},
): Decoded & { exchange: Exchange } {
  const text = sent.startsWith('{') ? sent : JSON.stringify({ jsonrpc: '2.0', id: 1, method: sent, params })
  return {
    requestId: 'req-1',
    transport: 'streamable-http',
    remoteAddress: '192.0.2.1',
    clientAddress: wish.clientAddress ?? '192.0.2.1',
    httpMethod: 'POST',
    path: '/mcp',
    query: '',
    headers: {},
    rawHeaders: wish.rawHeaders ?? [],
    certificate: undefined,
    origin: undefined,
    principal: wish.principal ?? alice,
    message: messageOf(text),
    sessionId: undefined,
    exchange: new Way(),
    era: wish.era ?? 'legacy',
  }
}

export const permission = (more: Partial<RulePermission>): RulePermission => ({
  tools: [],
  resources: [],
  prompts: [],
  actions: ['*'],
  ...more,
})

export const condition = (
  type: Condition['type'],
  operator: Condition['operator'],
  value: string,
  key?: string,
): Condition => ({ type, operator, value, key })

export const rule = (
  principals: readonly string[],
  permissions: readonly Partial<RulePermission>[],
  more: Partial<AccessRule> = {},
): AccessRule => ({
  id: 'rule',
  conditions: [],
  ...more,
  principals,
  permissions: permissions.map(permission),
})

export const layer = (rules: readonly AccessRule[], more: Partial<RuleLayer> = {}): RuleLayer => ({
  name: 'rules',
  evaluation: 'any',
  namespace: undefined,
  ...more,
  rules,
})

export const demand = (scopes: readonly string[], more: Partial<ScopeDemand>): ScopeDemand => ({
  methods: [],
  tools: [],
  resources: [],
  prompts: [],
  ...more,
  scopes,
})

export const policyOf = (more: Partial<AuthzPolicy>): AuthzPolicy => ({
  layers: [],
  cedar: undefined,
  scopes: [],
  impliedScopes: {},
  toolsFilters: [],
  capabilities: undefined,
  ...more,
})

/** Any will do: the decider is given separately. */
export const cedarPolicy: NonNullable<AuthzPolicy['cedar']> = {
  policies: [],
  entities: '[]',
  schema: undefined,
  groupClaim: undefined,
  roleClaim: undefined,
  groupEntityType: 'THVGroup',
  multiValuedClaims: [],
  decimalNumbers: false,
  server: 'test',
}

export interface Outcome {
  /** `ok`, or the code of the refusal. */
  readonly code: string
  readonly error: SidecarError | undefined
  readonly permitted: Permitted
  /** What becomes of an answer with this result, or this text. */
  answered(result: object | string): Message
}

/** The stage with this policy; each call of it is one message of a client. */
export function stage(
  more: Partial<AuthzPolicy>,
  context: Partial<AuthzContext> = {},
): ((request: Decoded) => Outcome) & { readonly logged: object[] } {
  const logged: object[] = []
  const note = (fields: object): void => void logged.push(fields)
  const authorize = createAuthorizer(policyOf(more), {
    clock: new ManualClock(),
    log: { debug: note, info: note, warn: note, error: note },
    cedar: undefined,
    baseScopes: [],
    bearerChallenge: (error, scopes) => `Bearer error="${error}", scope="${scopes.join(' ')}"`,
    ...context,
  })
  const run = (request: Decoded): Outcome => {
    let passed = 0
    let error: SidecarError | undefined
    try {
      const waits = authorize(request, () => void passed++)
      if (waits !== undefined) throw new Error('it is not synchronous')
    } catch (thrown) {
      if (!(thrown instanceof SidecarError)) throw thrown
      error = thrown
    }
    if (passed !== (error === undefined ? 1 : 0)) throw new Error(`it passed ${passed} times`)
    return {
      code: error?.code ?? 'ok',
      error,
      permitted: request as Permitted,
      answered: (result) =>
        request.exchange.filtered(
          messageOf(typeof result === 'string' ? result : JSON.stringify({ jsonrpc: '2.0', id: 7, result })),
        ),
    }
  }
  return Object.assign(run, { logged })
}

export const json = (message: Message): Json => JSON.parse(written(message))

/** Decides as a test says, and keeps what it was asked. */
export class Oracle implements Decider {
  readonly asked: Question[] = []
  readonly readsHints: boolean
  readonly #answer: (question: Question) => Partial<Decision>

  constructor(answer: (question: Question) => Partial<Decision>, readsHints = false) {
    this.#answer = answer
    this.readsHints = readsHints
  }

  decide(question: Question): Decision {
    this.asked.push(question)
    return { allow: false, ids: [], errors: [], ...this.#answer(question) }
  }
}
