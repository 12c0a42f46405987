/** Makes what the engine is called with out of a question. */
import { hintNames } from '../core/tool-hints.ts'
import type { Principal } from '../core/types.ts'
import { AskedArguments } from './cedar-arguments.ts'
import type { Call, EntityJson, Json, Uid } from './cedar-ast.ts'
import { uidKey } from './cedar-ast.ts'
import { evaluator } from './cedar-evaluation.ts'
import type { ActionFacts, Wish } from './cedar-lowering.ts'
import type { Slice } from './cedar-slices.ts'
import { cedarText, Unreadable } from './cedar-values.ts'
import type { Question } from './decider.ts'
import {
  type KnownEntities,
  type KnownEntity,
  type Subject,
  type SubjectOptions,
  subjectOf,
} from './entities.ts'

export interface CallOptions extends SubjectOptions {
  /** The id of the entity of type `MCP` that every resource is in; empty for none. */
  readonly server: string
}

/** A slice with everything that is known of its questions beforehand. */
export interface Plan {
  readonly slice: Slice
  readonly facts: ActionFacts
  /** Decides without the engine, where it can. */
  readonly evaluate: ReturnType<typeof evaluator>
  readonly asked: AskedArguments
  /** Where in the context an argument goes, by its attribute. */
  readonly argumentKeys: ReadonlyMap<string, readonly string[]>
  readonly principalWishes: readonly Wish[]
  readonly resourceWishes: readonly Wish[]
}

type Context = Record<string, Json>

/** What is the same in every question of a caller about a slice: members of the context, or why there is no deciding. */
type Share = readonly (readonly [key: string, value: Json])[] | string

interface Prepared {
  readonly subject: Subject
  readonly shares: Map<Plan, Share>
}

const none: readonly EntityJson[] = Object.freeze([])

export function planOf(slice: Slice, facts: ActionFacts): Plan {
  const wishes = slice.wishes ?? []
  const argumentKeys = new Map<string, string[]>()
  for (const wish of wishes) {
    if (wish.of !== 'argument' && !(wish.of === 'resource' && wish.attribute.startsWith('arg_'))) continue
    argumentKeys.set(wish.attribute, [...(argumentKeys.get(wish.attribute) ?? []), wish.key])
  }
  return {
    slice,
    facts,
    evaluate: evaluator(slice.policies),
    asked: new AskedArguments(slice.attributes, slice.whole),
    argumentKeys,
    principalWishes: wishes.filter(({ of }) => of === 'claim' || of === 'principal' || of === 'principal in'),
    resourceWishes: wishes.filter(({ of }) => of === 'resource' || of === 'resource in'),
  }
}

export class Calls {
  readonly #options: CallOptions
  readonly #known: KnownEntities
  readonly #server: readonly Uid[]
  /** The work of preparing a caller is kept as long as the caller; no decision is. */
  readonly #prepared = new WeakMap<Principal, Prepared>()

  constructor(options: CallOptions, known: KnownEntities) {
    this.#options = options
    this.#known = known
    this.#server = options.server === '' ? [] : [{ type: 'MCP', id: options.server }]
  }

  /** What an action's resources have in common. */
  facts(id: string, resourceType: string, constants: Readonly<Record<string, string>>): ActionFacts {
    return { uid: { type: 'Action', id }, resourceType, constants, within: this.#known.above(this.#server) }
  }

  /** @returns the call, or why there is no deciding */
  make(question: Question, plan: Plan, preparsedPolicySetId: string): Call | string {
    const { principal, target } = question
    let prepared = this.#prepared.get(principal)
    if (prepared === undefined) {
      prepared = { subject: subjectOf(principal, this.#options, this.#known), shares: new Map() }
      this.#prepared.set(principal, prepared)
    }
    const { subject } = prepared
    if (subject.problem !== undefined) return subject.problem
    if (cedarText(target.name) instanceof Unreadable)
      return `the name of the ${target.type} is too long or ill-formed`
    const resource: Uid = { type: plan.facts.resourceType, id: target.name }
    const inputs =
      plan.slice.wishes === undefined
        ? this.#withEntities(question, plan, subject, resource)
        : this.#withoutEntities(question, plan, prepared, resource)
    if (typeof inputs === 'string') return inputs
    const { context, entities } = inputs
    const action = plan.facts.uid
    return {
      principal: subject.uid,
      action,
      resource,
      context,
      entities,
      preparsedPolicySetId,
      validateRequest: false,
    }
  }

  #withoutEntities(
    question: Question,
    plan: Plan,
    prepared: Prepared,
    resource: Uid,
  ): Pick<Call, 'context' | 'entities'> | string {
    let share = prepared.shares.get(plan)
    if (share === undefined) {
      share = shareOf(prepared.subject, plan)
      prepared.shares.set(plan, share)
    }
    if (typeof share === 'string') return share
    const context: Context = {}
    for (const [key, value] of share) context[key] = value
    if (plan.resourceWishes.length > 0) {
      const known = this.#known.all.get(uidKey(resource))
      for (const wish of plan.resourceWishes) {
        const value =
          wish.of === 'resource in'
            ? this.#isIn(resource, known, wish.keys)
            : resourceAttribute(question, known, (wish as { readonly attribute: string }).attribute)
        if (value !== undefined) context[wish.key] = value
      }
    }
    const problem = plan.asked.read(question.message, this.#options.decimalNumbers, (attribute, value) => {
      for (const key of plan.argumentKeys.get(attribute) ?? []) context[key] = value
    })
    return problem ?? { context, entities: none }
  }

  #isIn(resource: Uid, known: KnownEntity | undefined, keys: readonly string[]): boolean {
    const own = uidKey(resource)
    if (keys.includes(own)) return true
    if (known === undefined) return false
    const above = this.#known.above(known.parents)
    return keys.some((key) => above.has(key))
  }

  #withEntities(
    question: Question,
    { slice, facts, asked }: Plan,
    subject: Subject,
    resource: Uid,
  ): Pick<Call, 'context' | 'entities'> | string {
    const sees = (name: string): boolean => slice.whole || slice.attributes.has(name)
    const context: Context = {}
    // The configuration may name one `__proto__`.
    const attrs: Context = Object.create(null) as Context
    for (const [name, value] of subject.attrs) {
      if (!sees(name)) continue
      if (value instanceof Unreadable) return `${name} is ${value.why}`
      attrs[name] = value
      const claim = subject.claims.get(name)
      if (claim !== undefined) context[name] = claim as Json
    }
    const known = this.#known.all.get(uidKey(resource))
    const features: Context = known === undefined ? {} : Object.fromEntries(known.attrs)
    for (const name of ['name', 'uri', ...hintNames]) {
      const value = resourceAttribute(question, undefined, name)
      if (value !== undefined) features[name] = value
    }
    Object.assign(features, facts.constants)
    const problem = asked.read(question.message, this.#options.decimalNumbers, (name, value) => {
      context[name] = value
      features[name] = value
    })
    if (problem !== undefined) return problem
    const action = this.#known.all.get(uidKey(facts.uid))
    const entities: EntityJson[] = [
      { uid: subject.uid, attrs, parents: subject.parents, tags: subject.tags },
      {
        uid: resource,
        attrs: features,
        parents: unique([...this.#server, ...(known?.parents ?? [])]),
        tags: known?.tags ?? {},
      },
      {
        uid: facts.uid,
        attrs: { ...Object.fromEntries(action?.attrs ?? []), operation: facts.uid.id },
        parents: action?.parents ?? [],
        tags: action?.tags ?? {},
      },
    ]
    const own = new Set(entities.map(({ uid }) => uidKey(uid)))
    for (const [key, { uid, attrs: fixed, parents, tags }] of this.#known.all)
      if (!own.has(key)) entities.push({ uid, attrs: Object.fromEntries(fixed), parents, tags })
    return { context, entities }
  }
}

function shareOf(subject: Subject, plan: Plan): Share {
  const members: [string, Json][] = []
  for (const wish of plan.principalWishes) {
    let value: Json | Unreadable | undefined
    if (wish.of === 'principal in') value = wish.keys.some((key) => subject.ancestors.has(key))
    else
      value = (wish.of === 'claim' ? subject.claims : subject.attrs).get(
        (wish as { attribute: string }).attribute,
      )
    if (value instanceof Unreadable) return `${wish.key} is ${value.why}`
    if (value !== undefined) members.push([wish.key, value])
  }
  return members
}

/** What the request says, before what the configuration says. Arguments are put in where they are read. */
function resourceAttribute(
  question: Question,
  known: KnownEntity | undefined,
  name: string,
): Json | undefined {
  switch (name) {
    case 'name':
      return question.target.name
    case 'uri':
      if (question.action === 'resources/read') return question.target.name
      break
    case 'readOnlyHint':
    case 'destructiveHint':
    case 'idempotentHint':
    case 'openWorldHint': {
      const hint = question.action === 'tools/call' ? question.hints?.[name] : undefined
      if (hint !== undefined) return hint
    }
  }
  return known?.attrs.get(name)
}

function unique(uids: readonly Uid[]): readonly Uid[] {
  return [...new Map(uids.map((uid) => [uidKey(uid), uid])).values()]
}
