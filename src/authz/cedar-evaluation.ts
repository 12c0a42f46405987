/**
 * Evaluates the part of Cedar that most policies keep to, since a call of the engine costs many times as much. It never
 * guesses: an operator that is not known here, a value that is compared in a way of its own, and whatever Cedar would
 * call an error have no value here (undefined), and then the engine is asked about the whole slice.
 */
import { globOfParts } from '../core/glob.ts'
import {
  type Call,
  type Expr,
  type Json,
  type PolicyJson,
  parted,
  type Scope,
  type Uid,
  uidOf,
} from './cedar-ast.ts'
import type { Decision } from './decider.ts'

/** What the request says: all that a rewritten policy reads. */
export type Facts = Pick<Call, 'principal' | 'resource' | 'context'>

/** An entity is `{ __entity: { type, id } }`, a set is a list. */
type Value = Exclude<Json, null>
type Evaluate = (facts: Facts) => Value | undefined

interface Evaluated {
  readonly id: string
  readonly forbids: boolean
  readonly matches: (facts: Facts) => boolean | undefined
}

/** Each element with each is right for a few; the engine sorts. */
const maxComparisons = 10_000

const noErrors: readonly string[] = Object.freeze([])
const unknown = (): undefined => undefined

/** @returns what decides as Cedar does by these policies, or returns undefined where only the engine can */
export function evaluator(
  policies: Readonly<Record<string, string | PolicyJson>>,
): (facts: Facts) => Decision | undefined {
  const all = Object.entries(policies).map(
    ([id, policy]): Evaluated =>
      typeof policy === 'string'
        ? { id, forbids: true, matches: unknown }
        : { id, forbids: policy.effect === 'forbid', matches: matcher(policy) },
  )
  return (facts) => {
    const permits: string[] = []
    const forbids: string[] = []
    // Every policy: one that errs denies, whatever the others say.
    for (const { id, forbids: refuses, matches } of all) {
      const matched = matches(facts)
      if (matched === undefined) return undefined
      if (matched) (refuses ? forbids : permits).push(id)
    }
    const allow = forbids.length === 0 && permits.length > 0
    return { allow, ids: allow ? permits : forbids, errors: noErrors }
  }
}

function matcher({ principal, action, resource, conditions }: PolicyJson): Evaluated['matches'] {
  if (action.op !== 'All' || !isPlain(principal) || !isPlain(resource)) return unknown
  const who = principal.entity && uidOf(principal.entity)
  const what = resource.entity && uidOf(resource.entity)
  const bodies = conditions.map(({ kind, body }) => ({ demanded: kind === 'when', value: compiled(body) }))
  return (facts) => {
    if (who !== undefined && !isSame(who, facts.principal)) return false
    if (what !== undefined && !isSame(what, facts.resource)) return false
    for (const { demanded, value } of bodies) {
      const found = value(facts)
      if (typeof found !== 'boolean') return undefined
      if (found !== demanded) return false
    }
    return true
  }
}

/** Demands nothing, or one entity. */
function isPlain({ op, entity }: Scope): boolean {
  return op === (entity === undefined ? 'All' : '==')
}

function compiled(expr: Expr): Evaluate {
  const [op, body] = parted(expr)
  switch (op) {
    case 'Value':
      return literal(body)
    case 'Var':
      return variable(body)
    case 'Set':
      return set((body as readonly Expr[]).map(compiled))
    case '.':
    case 'has': {
      const { left, attr } = body as { readonly left: Expr; readonly attr: Json }
      if (typeof attr !== 'string') return unknown
      const record = left['Var'] === 'context' ? ({ context }: Facts) => context : compiled(left)
      return op === '.' ? attribute(record, attr) : has(record, attr)
    }
    case 'is': {
      const { left, entity_type, ...more } = body as { readonly left: Expr; readonly entity_type: string }
      if (Object.keys(more).length > 0) return unknown
      const value = compiled(left)
      return (facts) => {
        const uid = entityOf(value(facts))
        return uid && uid.type === entity_type
      }
    }
    case 'like':
      return like(body as { readonly left: Expr; readonly pattern: readonly Json[] })
    case 'if-then-else':
      return choice(body as { readonly if: Expr; readonly then: Expr; readonly else: Expr })
    case '!':
    case 'neg':
    case 'isEmpty': {
      const value = compiled((body as { readonly arg: Expr }).arg)
      const apply = unary[op]
      return (facts) => apply(value(facts))
    }
    case '&&':
    case '||': {
      const { left, right } = pair(body)
      return (facts) => {
        const first = left(facts)
        if (typeof first !== 'boolean') return undefined
        if (first === (op === '||')) return first
        const second = right(facts)
        return typeof second === 'boolean' ? second : undefined
      }
    }
  }
  const apply = binary[op]
  if (apply === undefined) return unknown
  const { left, right } = pair(body)
  return (facts) => {
    const first = left(facts)
    if (first === undefined) return undefined
    const second = right(facts)
    return second === undefined ? undefined : apply(first, second)
  }
}

function pair(body: Json): { readonly left: Evaluate; readonly right: Evaluate } {
  const { left, right } = body as { readonly left: Expr; readonly right: Expr }
  return { left: compiled(left), right: compiled(right) }
}

const unary: Readonly<Record<'!' | 'neg' | 'isEmpty', (value: Value | undefined) => Value | undefined>> = {
  '!': (value) => (typeof value === 'boolean' ? !value : undefined),
  neg: (value) => (typeof value === 'number' ? long(-value) : undefined),
  isEmpty: (value) => (Array.isArray(value) ? value.length === 0 : undefined),
}

const binary: Readonly<Record<string, (left: Value, right: Value) => Value | undefined>> = {
  '==': equal,
  '!=': (left, right) => {
    const found = equal(left, right)
    return found === undefined ? undefined : !found
  },
  '<': onLongs((left, right) => left < right),
  '<=': onLongs((left, right) => left <= right),
  '>': onLongs((left, right) => left > right),
  '>=': onLongs((left, right) => left >= right),
  '+': onLongs((left, right) => long(left + right)),
  '-': onLongs((left, right) => long(left - right)),
  '*': onLongs((left, right) => long(left * right)),
  contains: (left, right) => (Array.isArray(left) ? holds(left, right) : undefined),
  containsAll: onSets((left, right) => {
    let all = true
    for (const each of right) {
      const found = holds(left, each)
      if (found === undefined) return undefined
      all &&= found
    }
    return all
  }),
  containsAny: onSets((left, right) => {
    let any = false
    for (const each of right) {
      const found = holds(left, each)
      if (found === undefined) return undefined
      any ||= found
    }
    return any
  }),
}

function onLongs(apply: (left: number, right: number) => Value | undefined) {
  return (left: Value, right: Value): Value | undefined =>
    typeof left === 'number' && typeof right === 'number' ? apply(left, right) : undefined
}

function onSets(apply: (left: readonly Value[], right: readonly Value[]) => boolean | undefined) {
  return (left: Value, right: Value): boolean | undefined => {
    if (!Array.isArray(left) || !Array.isArray(right)) return undefined
    return left.length * right.length <= maxComparisons ? apply(left, right) : undefined
  }
}

/** A Long has 64 bits; what a double cannot hold exactly is not computed here. */
function long(value: number): number | undefined {
  return Number.isSafeInteger(value) ? value : undefined
}

/** Values of different types are different. Sets, records and extension values are not compared here. */
function equal(left: Value, right: Value): boolean | undefined {
  const one = typeof left === 'object' ? entityOf(left) : left
  const other = typeof right === 'object' ? entityOf(right) : right
  if (one === undefined || other === undefined) return undefined
  if (typeof one === 'object' && typeof other === 'object') return isSame(one, other)
  return one === other
}

function holds(set: readonly Value[], value: Value): boolean | undefined {
  let held = false
  for (const each of set) {
    const found = equal(each, value)
    if (found === undefined) return undefined
    held ||= found
  }
  return held
}

/** Exactly what Cedar takes for one: with any other member it is a record. */
function entityOf(value: Value | undefined): Uid | undefined {
  if (typeof value !== 'object' || Array.isArray(value) || !('__entity' in value)) return undefined
  const uid = (value as Fields)['__entity'] as Partial<Uid> | null
  if (typeof uid?.type !== 'string' || typeof uid.id !== 'string') return undefined
  return Object.keys(value).length === 1 ? (uid as Uid) : undefined
}

function isSame(one: Uid, other: Uid): boolean {
  return one.id === other.id && one.type === other.type
}

function literal(body: Json): Evaluate {
  const value = known(body)
  return value === undefined ? unknown : () => value
}

/** Of null and of a number that is no exact integer: undefined. */
function known(value: Json | undefined): Value | undefined {
  if (typeof value === 'number') return long(value)
  return value ?? undefined
}

function variable(name: Json): Evaluate {
  if (name === 'principal') return ({ principal: { type, id } }) => ({ __entity: { type, id } })
  if (name === 'resource') return ({ resource: { type, id } }) => ({ __entity: { type, id } })
  return unknown
}

function set(items: readonly Evaluate[]): Evaluate {
  return (facts) => {
    const values: Value[] = []
    for (const item of items) {
      const value = item(facts)
      if (value === undefined) return undefined
      values.push(value)
    }
    return values
  }
}

type Fields = Readonly<Record<string, Json>>

function recordOf(value: Value | undefined): Fields | undefined {
  if (typeof value !== 'object' || Array.isArray(value)) return undefined
  return '__entity' in value || '__extn' in value ? undefined : (value as Fields)
}

function attribute(left: Evaluate, name: string): Evaluate {
  return (facts) => {
    const record = recordOf(left(facts))
    return record !== undefined && Object.hasOwn(record, name) ? known(record[name]) : undefined
  }
}

function has(left: Evaluate, name: string): Evaluate {
  return (facts) => {
    const record = recordOf(left(facts))
    return record && Object.hasOwn(record, name)
  }
}

function like({ left, pattern }: { readonly left: Expr; readonly pattern: readonly Json[] }): Evaluate {
  const parts = ['']
  for (const each of pattern) {
    const { Literal: text } = (typeof each === 'object' ? each : {}) as { readonly Literal?: Json }
    if (each === 'Wildcard') parts.push('')
    else if (typeof text === 'string') parts.push(`${parts.pop()}${text}`)
    else return unknown
  }
  const fits = globOfParts(parts)
  const value = compiled(left)
  return (facts) => {
    const text = value(facts)
    return typeof text === 'string' ? fits(text) : undefined
  }
}

function choice(body: { readonly if: Expr; readonly then: Expr; readonly else: Expr }): Evaluate {
  const condition = compiled(body.if)
  const positive = compiled(body.then)
  const negative = compiled(body.else)
  return (facts) => {
    const found = condition(facts)
    return typeof found === 'boolean' ? (found ? positive : negative)(facts) : undefined
  }
}
