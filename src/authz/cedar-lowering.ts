/**
 * Rewrites policies so that the engine needs no entities for them: attributes of principal and resource, and membership
 * in entities that the policy names, become attributes of the context under names that no claim and no argument has.
 */
import {
  type Expr,
  type Json,
  literals,
  type PolicyJson,
  parted,
  rebuilt,
  type Scope,
  type Uid,
  uidKey,
  uidOf,
} from './cedar-ast.ts'
import { foldedPolicy, scalar } from './cedar-folding.ts'
import type { KnownEntities } from './entities.ts'

/** An attribute of the context that stands for something about the principal or the resource. */
export type Wish = { readonly key: string } & (
  | { readonly of: 'claim' | 'principal' | 'resource' | 'argument'; readonly attribute: string }
  | { readonly of: 'principal in' | 'resource in'; readonly keys: readonly string[] }
)

/** What one action does, as far as it is known before any request. */
export interface ActionFacts {
  /** `Action::"call_tool"`. */
  readonly uid: Uid
  readonly resourceType: string
  /** Attributes that every resource of the action has with the same value. */
  readonly constants: Readonly<Record<string, string>>
  /** {@link uidKey} of what every resource is in. */
  readonly within: ReadonlySet<string>
}

/** The names of resources in a comparison of the resource, or its name, with literals; undefined for anything else. */
export function comparedNames(expr: Expr, facts: ActionFacts): readonly string[] | undefined {
  const [op, body] = parted(expr)
  const { left, right } = (body ?? {}) as { readonly left: Expr; readonly right: Expr }
  if (op === '==' || op === '!=') {
    if (left['Var'] === 'resource') return namesOf([right], facts)
    if (right['Var'] === 'resource') return namesOf([left], facts)
    if (isName(left, facts)) return textsOf([right])
    return isName(right, facts) ? textsOf([left]) : undefined
  }
  if (op !== 'contains' || !('Set' in left)) return undefined
  const items = left['Set'] as readonly Expr[]
  if (right['Var'] === 'resource') return namesOf(items, facts)
  return isName(right, facts) ? textsOf(items) : undefined
}

/** `resource.name`, and of a resource `resource.uri`. */
function isName(expr: Expr, { resourceType }: ActionFacts): boolean {
  const { left, attr } = (expr['.'] ?? {}) as { readonly left?: Expr; readonly attr?: string }
  return left?.['Var'] === 'resource' && (attr === 'name' || (attr === 'uri' && resourceType === 'Resource'))
}

function textsOf(items: readonly Expr[]): readonly string[] | undefined {
  const texts = items.map(scalar)
  return texts.every((text) => typeof text === 'string') ? texts : undefined
}

/** Of entity literals: the ids of those that a resource of the action can be. */
function namesOf(items: readonly Expr[], { resourceType }: ActionFacts): readonly string[] | undefined {
  const uids = items.map((item) => ('Value' in item ? literals(item)?.[0] : undefined))
  if (!uids.every((uid) => uid !== undefined)) return undefined
  return uids.filter(({ type }) => type === resourceType).map(({ id }) => id)
}

/** The entities of an `in`. */
export function membersOf({ entity, entities, in: within }: Scope): readonly Uid[] {
  return (entities ?? [entity ?? within?.entity]).filter((uid) => uid !== undefined).map(uidOf)
}

/** Something is read that only an entity can tell. */
export class EntitiesNeeded extends Error {
  override readonly name = 'EntitiesNeeded'
}

const claimName = /^claim(?:set)?_/
const context: Expr = { Var: 'context' }

/** Rewrites policies so that they read the context alone. */
export class Lowering {
  readonly wishes = new Map<string, Wish>()
  readonly #facts: ActionFacts
  /** The name of the resource, if the slice is for one alone. */
  readonly #name: string | undefined
  /** Names that the resource does not have. */
  readonly #others: ReadonlySet<string>
  readonly #action: ReadonlySet<string>
  readonly #known: KnownEntities

  constructor(
    facts: ActionFacts,
    name: string | undefined,
    others: ReadonlySet<string>,
    action: ReadonlySet<string>,
    known: KnownEntities,
  ) {
    this.#facts = facts
    this.#name = name
    this.#others = others
    this.#action = action
    this.#known = known
  }

  /** @returns undefined if it cannot match, nor err. @throws EntitiesNeeded, UnknownOperator */
  policy({ principal, action, resource, conditions, ...rest }: PolicyJson): PolicyJson | undefined {
    if (![action, principal, resource].every(({ op }) => ['All', '==', 'in', 'is'].includes(op)))
      throw new EntitiesNeeded()
    const scope = [this.#membership('principal', principal), this.#membership('resource', resource)]
    const policy: PolicyJson = {
      ...rest,
      principal: principal.op === '==' ? principal : { op: 'All' },
      action: { op: 'All' },
      resource: resource.op === '==' && this.#name === undefined ? resource : { op: 'All' },
      conditions: conditions.map(({ kind, body }) => ({ kind, body: this.#expr(body) })),
    }
    return foldedPolicy(
      policy,
      scope.filter((body) => body !== undefined),
    )
  }

  #membership(variable: 'principal' | 'resource', scope: Scope): Expr | undefined {
    const uids = scope.op === 'in' || scope.op === 'is' ? membersOf(scope) : []
    return uids.length === 0 ? undefined : this.#in(variable, uids)
  }

  #expr(expr: Expr): Expr {
    const [op, body] = parted(expr)
    const { left, right, attr } = (body ?? {}) as {
      left: Expr
      right: Expr
      attr: string | readonly string[]
    }
    const names = comparedNames(expr, this.#facts)
    if (names?.every((name) => this.#others.has(name)) === true) return { Value: op === '!=' }
    switch (op) {
      case 'Value':
        // Beyond 2^53 the JSON form has not the number that the text has.
        if (typeof body === 'number' && !Number.isSafeInteger(body)) throw new EntitiesNeeded()
        return expr
      case 'Var':
        if (body === 'context') throw new EntitiesNeeded()
        if (body === 'action') return { Value: { __entity: { ...this.#facts.uid } } }
        if (body !== 'resource' || this.#name === undefined) return expr
        return { Value: { __entity: { type: this.#facts.resourceType, id: this.#name } } }
      case 'getTag':
      case 'hasTag':
        throw new EntitiesNeeded()
      case '.':
        return this.#attribute(left, attr as string)
      case 'has':
        return this.#has(left, typeof attr === 'string' ? [attr] : attr)
      case 'in':
        return this.#in(left['Var'], literals(right))
      case 'is': {
        const { entity_type, in: within } = body as { entity_type: string; in?: Expr }
        const is: Expr = { is: { left: this.#expr(left), entity_type } }
        if (within === undefined) return is
        return { '&&': { left: is, right: this.#in(left['Var'], literals(within)) } }
      }
    }
    return rebuilt(expr, (operand) => this.#expr(operand))
  }

  #attribute(left: Expr, name: string): Expr {
    const found = this.#direct(left, name)
    if (found !== undefined)
      return 'value' in found ? { Value: found.value } : { '.': { left: context, attr: found.key } }
    this.#needRecord(left)
    return { '.': { left: this.#expr(left), attr: name } }
  }

  /** `x has a.b.c` is `x has a && x.a has b.c`. */
  #has(left: Expr, [name = '', ...rest]: readonly string[]): Expr {
    const found = this.#direct(left, name)
    if (found === undefined) this.#needRecord(left)
    let has: Expr
    if (found === undefined) has = { has: { left: this.#expr(left), attr: name } }
    else has = 'value' in found ? { Value: true } : { has: { left: context, attr: found.key } }
    if (rest.length === 0) return has
    return { '&&': { left: has, right: this.#has({ '.': { left, attr: name } }, rest) } }
  }

  /** What is reached from a variable by attributes is a record, as long as no attribute holds an entity. */
  #needRecord(left: Expr): void {
    const [op, body] = parted(left)
    if (op !== '.' || this.#known.refer) throw new EntitiesNeeded()
    const inner = (body as { readonly left: Expr }).left
    if (!['principal', 'resource', 'context'].includes(inner['Var'] as string)) this.#needRecord(inner)
  }

  /** An attribute of a variable: where it is in the context, or its value. */
  #direct(left: Expr, attribute: string): { readonly key: string } | { readonly value: Json } | undefined {
    const { resourceType, constants } = this.#facts
    switch (left['Var']) {
      case 'context':
        if (attribute.startsWith('arg_')) return this.#wish({ key: attribute, of: 'argument', attribute })
        // Any other name may be one that is made up here.
        if (!claimName.test(attribute)) throw new EntitiesNeeded()
        return this.#wish({ key: attribute, of: 'claim', attribute })
      case 'principal': {
        // The same in the context, unless the configuration has an attribute of that name.
        if (claimName.test(attribute) && !this.#known.defines('Client', attribute))
          return this.#wish({ key: attribute, of: 'claim', attribute })
        return this.#wish({ key: `principal.${attribute}`, of: 'principal', attribute })
      }
      case 'resource': {
        if (Object.hasOwn(constants, attribute)) return { value: constants[attribute] as string }
        if (this.#name !== undefined && isName({ '.': { left, attr: attribute } }, this.#facts))
          return { value: this.#name }
        if (attribute.startsWith('arg_') && !this.#known.defines(resourceType, attribute))
          return this.#wish({ key: attribute, of: 'argument', attribute })
        return this.#wish({ key: `resource.${attribute}`, of: 'resource', attribute })
      }
      case 'action':
        throw new EntitiesNeeded()
    }
    return undefined
  }

  /** Membership in entities that are named in the policy: decided here if nothing of the request matters. */
  #in(variable: Json | undefined, uids: readonly Uid[] | undefined): Expr {
    if (uids === undefined) throw new EntitiesNeeded()
    const keys = uids.map(uidKey)
    const { within, resourceType } = this.#facts
    switch (variable) {
      case 'action':
        return { Value: keys.some((key) => this.#action.has(key)) }
      case 'principal':
        return this.#member({ key: `principal in ${keys.join()}`, of: 'principal in', keys })
      case 'resource':
        if (keys.some((key) => within.has(key))) return { Value: true }
        if (!this.#known.types.has(resourceType) && uids.every(({ type }) => type !== resourceType))
          return { Value: false }
        return this.#member({ key: `resource in ${keys.join()}`, of: 'resource in', keys })
    }
    throw new EntitiesNeeded()
  }

  #member(wish: Wish): Expr {
    return { '.': { left: context, attr: this.#wish(wish).key } }
  }

  #wish(wish: Wish): Wish {
    this.wishes.set(wish.key, wish)
    return wish
  }
}
