/** Cedar's JSON form of policies and entities, as far as it is looked into, and the part of the engine that is used. */

export type Json = string | number | boolean | null | readonly Json[] | { readonly [name: string]: Json }

export interface Uid {
  readonly type: string
  readonly id: string
}

/** `{ type, id }`, or the same inside `__entity`. */
export type UidJson = Uid | { readonly __entity: Uid }

/** An object with one member, named after the operator. */
export type Expr = Readonly<Record<string, Json>>

export interface Scope {
  readonly op: 'All' | '==' | 'in' | 'is'
  readonly entity?: UidJson
  readonly entities?: readonly UidJson[]
  readonly entity_type?: string
  readonly in?: { readonly entity: UidJson }
}

export interface PolicyJson {
  readonly effect: 'permit' | 'forbid'
  readonly principal: Scope
  readonly action: Scope
  readonly resource: Scope
  readonly conditions: readonly { readonly kind: 'when' | 'unless'; readonly body: Expr }[]
  readonly annotations?: Readonly<Record<string, string | null>>
}

export interface EntityJson {
  readonly uid: UidJson
  readonly attrs: Readonly<Record<string, Json>>
  readonly parents: readonly UidJson[]
  readonly tags?: Readonly<Record<string, Json>>
}

export interface EngineError {
  readonly message: string
  readonly help?: string | null
  /** Offsets in UTF-8 bytes. */
  readonly sourceLocations?: readonly { readonly start: number; readonly end: number }[]
  readonly related?: readonly EngineError[]
}

export interface Failure {
  readonly type: 'failure'
  readonly errors: readonly EngineError[]
}

export interface PolicySet {
  readonly staticPolicies: Readonly<Record<string, string | PolicyJson>>
}

export interface Call {
  readonly principal: Uid
  readonly action: Uid
  readonly resource: Uid
  readonly context: Readonly<Record<string, Json>>
  readonly entities: readonly EntityJson[]
  readonly preparsedPolicySetId: string
  readonly validateRequest: false
}

interface Judgement {
  readonly type: 'success'
  readonly response: {
    readonly decision: 'allow' | 'deny'
    readonly diagnostics: {
      readonly reason: readonly string[]
      readonly errors: readonly { readonly policyId: string; readonly error: EngineError }[]
    }
  }
}

/** `@cedar-policy/cedar-wasm`; everything is synchronous. */
export interface Engine {
  policySetTextToParts(text: string):
    | {
        readonly type: 'success'
        readonly policies: readonly string[]
        readonly policy_templates: readonly string[]
      }
    | Failure
  policyToJson(policy: string): { readonly type: 'success'; readonly json: PolicyJson } | Failure
  checkParseSchema(schema: string | object): { readonly type: 'success' } | Failure
  checkParseEntities(call: {
    readonly entities: readonly EntityJson[]
    readonly schema?: string | object
  }): { readonly type: 'success' } | Failure
  validate(call: { readonly schema: string | object; readonly policies: PolicySet }):
    | {
        readonly type: 'success'
        readonly validationErrors: readonly { readonly policyId: string; readonly error: EngineError }[]
      }
    | Failure
  preparsePolicySet(id: string, policies: PolicySet): { readonly type: 'success' } | Failure
  statefulIsAuthorized(call: Call): Judgement | Failure
}

/** A mistake in the policies, the entities or the schema. */
export interface Problem {
  /** `file:line:column` of a policy, else the option it stands in. */
  readonly where: string
  readonly message: string
}

export function uidOf(uid: UidJson): Uid {
  return '__entity' in uid ? uid.__entity : uid
}

/** As Cedar writes it; different for different entities, since a type has no quotes. */
export function uidKey(uid: UidJson): string {
  const { type, id } = uidOf(uid)
  return `${type}::${JSON.stringify(id)}`
}

/** The operator and what it works on. */
export function parted(expr: Expr): readonly [op: string, body: Json] {
  for (const op in expr) return [op, expr[op] as Json]
  throw new Error('an expression without an operator')
}

/** Members of an operator's body that are expressions themselves. */
const operands = new Set(['left', 'right', 'arg', 'if', 'then', 'else', 'in'])

const operators = new Set([
  ...[
    '!',
    'neg',
    '==',
    '!=',
    'in',
    '<',
    '<=',
    '>',
    '>=',
    '&&',
    '||',
    '+',
    '-',
    '*',
    '.',
    'has',
    'like',
    'is',
  ],
  ...['contains', 'containsAll', 'containsAny', 'isEmpty', 'getTag', 'hasTag', 'if-then-else'],
])

/** An operator that is not known here: nothing can be said of what the expression reads. */
export class UnknownOperator extends Error {
  override readonly name = 'UnknownOperator'
}

/**
 * The expression with each of its direct operands changed.
 *
 * @throws UnknownOperator
 */
export function rebuilt(expr: Expr, change: (operand: Expr) => Expr): Expr {
  const [op, body] = parted(expr)
  if (op === 'Value' || op === 'Var' || op === 'Slot') return expr
  // Sets, and extension functions with their arguments.
  if (Array.isArray(body)) return { [op]: (body as Expr[]).map(change) }
  const members = body as Readonly<Record<string, Json>>
  if (op === 'Record') return { Record: mapped(members, (_, value) => change(value as Expr)) }
  if (!operators.has(op)) throw new UnknownOperator(op)
  return { [op]: mapped(members, (name, value) => (operands.has(name) ? change(value as Expr) : value)) }
}

function mapped(members: Readonly<Record<string, Json>>, change: (name: string, value: Json) => Json): Expr {
  return Object.fromEntries(Object.entries(members).map(([name, value]) => [name, change(name, value)]))
}

/** Calls `visit` with the expression and everything in it. @throws UnknownOperator */
export function walk(expr: Expr, visit: (expr: Expr) => void): void {
  visit(expr)
  rebuilt(expr, (operand) => {
    walk(operand, visit)
    return operand
  })
}

/** The entities of an entity literal or a set of such; undefined for anything else. */
export function literals(expr: Expr): readonly Uid[] | undefined {
  const [op, body] = parted(expr)
  if (op === 'Value') {
    const { __entity } = (body ?? {}) as { readonly __entity?: Uid }
    return __entity === undefined ? undefined : [__entity]
  }
  if (op !== 'Set') return undefined
  const found = (body as readonly Expr[]).map((each) => ('Value' in each ? literals(each)?.[0] : undefined))
  return found.every((uid) => uid !== undefined) ? found : undefined
}
