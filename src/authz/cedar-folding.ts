/**
 * Works out what in a policy does not depend on the request. Only what Cedar would find without an error, in the order
 * in which Cedar finds it, is replaced, so that the policy matches, and errs, when it did before.
 */
import { type Expr, type Json, literals, type PolicyJson, parted, rebuilt, uidKey } from './cedar-ast.ts'

/** Operators that give a boolean or an error. */
const booleans = new Set([
  ...['==', '!=', '<', '<=', '>', '>=', '&&', '||', '!', 'in', 'has', 'like', 'is'],
  ...['contains', 'containsAll', 'containsAny', 'isEmpty', 'hasTag'],
])

type Scalar = string | number | boolean

/** The expression with its constant parts worked out. @throws UnknownOperator */
export function folded(expr: Expr): Expr {
  const inner = rebuilt(expr, folded)
  const [op, body] = parted(inner)
  const { left, right, arg, ...rest } = (body ?? {}) as Readonly<Record<string, Expr>>
  switch (op) {
    case '==':
    case '!=': {
      const equal = equality(left as Expr, right as Expr)
      return equal === undefined ? inner : { Value: equal === (op === '==') }
    }
    case 'contains': {
      const value = scalar(right as Expr)
      const items = ((left as Expr)['Set'] as readonly Expr[] | undefined)?.map(scalar)
      if (value === undefined || items === undefined || items.includes(undefined)) return inner
      return { Value: items.includes(value) }
    }
    case '!': {
      const value = scalar(arg as Expr)
      return typeof value === 'boolean' ? { Value: !value } : inner
    }
    case '&&':
    case '||': {
      const value = scalar(left as Expr)
      if (typeof value !== 'boolean') return inner
      if (value === (op === '||')) return { Value: value }
      return isBoolean(right as Expr) ? (right as Expr) : inner
    }
    case 'if-then-else': {
      const value = scalar(rest['if'] as Expr)
      return typeof value === 'boolean' ? (rest[value ? 'then' : 'else'] as Expr) : inner
    }
  }
  return inner
}

/** The value of a literal that is no entity. */
export function scalar(expr: Expr): Scalar | undefined {
  const value: Json | undefined = expr['Value']
  return typeof value === 'object' ? undefined : value
}

function equality(left: Expr, right: Expr): boolean | undefined {
  const one = scalar(left)
  const other = scalar(right)
  // Values of different types are different.
  if (one !== undefined && other !== undefined) return one === other
  if (!('Value' in left) || !('Value' in right)) return undefined
  const [uid] = literals(left) ?? []
  const [same] = literals(right) ?? []
  return uid === undefined || same === undefined ? undefined : uidKey(uid) === uidKey(same)
}

function isBoolean(expr: Expr): boolean {
  return typeof scalar(expr) === 'boolean' || booleans.has(parted(expr)[0])
}

/**
 * The policy with its conditions worked out; undefined if it cannot match, nor err.
 *
 * @param scope what the scope demands beside what is left in it; can be evaluated without an error
 */
export function foldedPolicy(policy: PolicyJson, scope: readonly Expr[]): PolicyJson | undefined {
  const conditions: PolicyJson['conditions'][number][] = []
  for (const body of scope) {
    const value = scalar(body)
    if (value === false) return undefined
    if (value !== true) conditions.push({ kind: 'when', body })
  }
  const safe = conditions.length
  for (const { kind, body } of policy.conditions) {
    const found = folded(body)
    const value = scalar(found)
    if (value === (kind === 'when')) continue
    // Behind a condition that may err, this one is not what decides.
    if (typeof value === 'boolean' && conditions.length === safe) return undefined
    conditions.push({ kind, body: found })
  }
  return { ...policy, conditions }
}
