/** Callers, calls and configurations to judge by Cedar policies. */

import { loadCedar } from '../../src/authz/cedar.ts'
import type { Decider, Decision, Question } from '../../src/authz/decider.ts'
import { readMessages } from '../../src/core/jsonrpc.ts'
import type { CedarPolicy } from '../../src/core/policy.ts'
import type { ToolHints } from '../../src/core/tool-hints.ts'
import { anonymous, type Decoded, type Principal } from '../../src/core/types.ts'

export function cedarPolicy(text: string, more: Partial<CedarPolicy> = {}): CedarPolicy {
  return {
    policies: [{ name: 'a.cedar', text }],
    entities: '[]',
    schema: undefined,
    groupClaim: undefined,
    roleClaim: undefined,
    groupEntityType: 'THVGroup',
    multiValuedClaims: [],
    decimalNumbers: false,
    server: 'github',
    ...more,
  }
}

export function caller(claims: Record<string, unknown>, more: Partial<Principal> = {}): Principal {
  return { ...anonymous, id: 'i', method: 'jwt', kind: 'user', subject: 'alice', claims, ...more }
}

export interface Ask {
  readonly principal?: Principal
  readonly action?: Question['action']
  readonly name?: string
  /** JSON text of `params.arguments`; undefined without any. */
  readonly arguments?: string
  readonly hints?: ToolHints
  /** An object of a list. */
  readonly listed?: boolean
}

export function question(ask: Ask = {}): Question {
  const action = ask.action ?? 'tools/call'
  const name = ask.name ?? 'echo'
  const type = ({ 'tools/call': 'tool', 'prompts/get': 'prompt', 'resources/read': 'resource' } as const)[
    action
  ]
  const args = ask.arguments === undefined ? '' : `,"arguments":${ask.arguments}`
  const text = `{"jsonrpc":"2.0","id":1,"method":"${action}","params":{"name":"x"${args}}}`
  return {
    principal: ask.principal ?? caller({ sub: 'alice' }),
    action,
    target: { type, name },
    message: ask.listed === true ? undefined : readMessages(Buffer.from(text)).messages[0],
    request: {} as Decoded,
    hints: ask.hints,
  }
}

/** Judges one question by policies. */
export async function judge(text: string, ask?: Ask, more?: Partial<CedarPolicy>): Promise<Decision> {
  return (await loadCedar(cedarPolicy(text, more))).decide(question(ask))
}

export async function allows(text: string, ask?: Ask, more?: Partial<CedarPolicy>): Promise<boolean> {
  return (await judge(text, ask, more)).allow
}

export type { Decider }
