/**
 * What the engine is asked, cut to what can matter. An engine call costs by the policies, entities and attributes that
 * it is given, most of them beside the point: policies for other actions and tools, claims that nobody reads, whole
 * entities for one attribute. So the policies are cut into slices, one for each action and, where policies name
 * resources, one for each of those; a policy whose scope cannot match is never evaluated by Cedar either. A slice that
 * looks at principal and resource only by attribute and by membership in entities that it names is rewritten to read the
 * context alone (cedar-lowering.ts), and no entities are passed at all. Such a slice is evaluated without the engine where
 * that is sure to come to the same (cedar-evaluation.ts). Each question is decided anew.
 */
import {
  type Expr,
  type PolicyJson,
  parted,
  type Uid,
  UnknownOperator,
  uidKey,
  uidOf,
  walk,
} from './cedar-ast.ts'
import {
  type ActionFacts,
  comparedNames,
  EntitiesNeeded,
  Lowering,
  membersOf,
  type Wish,
} from './cedar-lowering.ts'
import type { Policy } from './cedar-policies.ts'
import type { KnownEntities } from './entities.ts'

/** The policies that can match for one action, and maybe one resource. */
export interface Slice {
  readonly policies: Readonly<Record<string, string | PolicyJson>>
  /** What to put into the context when no entities are needed; undefined when they are. */
  readonly wishes: readonly Wish[] | undefined
  /** Every attribute that some policy names; nothing else can be read, unless {@link whole}. */
  readonly attributes: ReadonlySet<string>
  /** The context is compared or passed on as one value. */
  readonly whole: boolean
}

/** The policies of one action. */
export interface SlicedAction {
  /** By the names of resources that policies compare with; undefined when no policy can match. */
  readonly named: ReadonlyMap<string, Slice | undefined>
  /** For every other resource. */
  readonly others: Slice | undefined
}

/** Copies of policies in slices of named resources; beyond it all resources share the slice of their action. */
const maxCopies = 5000

export function sliceAction(
  policies: readonly Policy[],
  facts: ActionFacts,
  known: KnownEntities,
): SlicedAction {
  const action = groupsOf(facts, known)
  const fitting = policies.filter(({ json }) => mayMatch(json, facts, action))
  const names = new Set<string>()
  for (const { json } of fitting) addNames(json, facts, names)
  const make = (name: string | undefined, others: ReadonlySet<string>): Slice | undefined => {
    const some = fitting.filter(({ json: { resource } }) => {
      if (resource.op !== '==') return true
      const { id } = uidOf(resource.entity as Uid)
      return id === name || (name === undefined && !others.has(id))
    })
    return sliceOf(some, new Lowering(facts, name, others, action, known))
  }
  const none: ReadonlySet<string> = new Set()
  const general = fitting.filter(({ json }) => json.resource.op !== '==')
  if (general.length * (names.size + 1) + fitting.length > maxCopies)
    return { named: new Map(), others: make(undefined, none) }
  return {
    named: new Map([...names].map((name) => [name, make(name, none)])),
    others: make(undefined, names),
  }
}

/** Whether a policy that can match for the action names one of these attributes, or cannot be looked into. */
export function readsAttributes(
  policies: readonly Policy[],
  facts: ActionFacts,
  known: KnownEntities,
  names: readonly string[],
): boolean {
  const action = groupsOf(facts, known)
  const attributes = new Set<string>()
  try {
    for (const { json } of policies)
      if (mayMatch(json, facts, action)) for (const { body } of json.conditions) collect(body, attributes)
  } catch (thrown) {
    if (!(thrown instanceof UnknownOperator)) throw thrown
    return true
  }
  return names.some((name) => attributes.has(name))
}

/** The action, and what it is in. */
function groupsOf({ uid }: ActionFacts, known: KnownEntities): ReadonlySet<string> {
  return known.above(known.all.get(uidKey(uid))?.parents ?? []).add(uidKey(uid))
}

/** Adds the names of resources that the policy compares with: each is a case of its own. */
function addNames({ resource, conditions }: PolicyJson, facts: ActionFacts, names: Set<string>): void {
  if (resource.op === '==') names.add(uidOf(resource.entity as Uid).id)
  for (const { body } of conditions) {
    try {
      walk(body, (expr) => {
        for (const name of comparedNames(expr, facts) ?? []) names.add(name)
      })
    } catch (thrown) {
      if (!(thrown instanceof UnknownOperator)) throw thrown
    }
  }
}

/** Whether the scope can match some request of the action. */
function mayMatch(
  { principal, action, resource }: PolicyJson,
  facts: ActionFacts,
  above: ReadonlySet<string>,
): boolean {
  if (action.op === '==' && uidKey(action.entity as Uid) !== uidKey(facts.uid)) return false
  if (action.op === 'in' && !membersOf(action).some((uid) => above.has(uidKey(uid)))) return false
  if (principal.op === 'is' && principal.entity_type !== 'Client') return false
  if (resource.op === '==' && uidOf(resource.entity as Uid).type !== facts.resourceType) return false
  return resource.op !== 'is' || resource.entity_type === facts.resourceType
}

/** @returns undefined if no policy can match, nor err */
function sliceOf(policies: readonly Policy[], lowering: Lowering): Slice | undefined {
  const attributes = new Set<string>()
  let whole = false
  try {
    for (const { json } of policies)
      for (const { body } of json.conditions) whole = collect(body, attributes) || whole
    const lowered = new Map<string, PolicyJson>()
    for (const { id, json } of policies) {
      const policy = lowering.policy(json)
      if (policy !== undefined) lowered.set(id, policy)
    }
    return lowered.size === 0 ? undefined : lowSlice(lowered, lowering.wishes)
  } catch (thrown) {
    if (!(thrown instanceof EntitiesNeeded) && !(thrown instanceof UnknownOperator)) throw thrown
    whole ||= thrown instanceof UnknownOperator
    const texts = policies.map(({ id, text }): [string, string] => [id, text])
    return { policies: Object.fromEntries(texts), wishes: undefined, attributes, whole }
  }
}

/** What the policies still ask for, now that they are rewritten. */
function lowSlice(policies: ReadonlyMap<string, PolicyJson>, wishes: ReadonlyMap<string, Wish>): Slice {
  const keys = new Set<string>()
  for (const { conditions } of policies.values()) for (const { body } of conditions) collect(body, keys)
  const some = [...wishes.values()].filter(({ key }) => keys.has(key))
  const attributes = some.flatMap((wish) => ('attribute' in wish ? [wish.attribute] : []))
  return {
    policies: Object.fromEntries(policies),
    wishes: some,
    attributes: new Set(attributes),
    whole: false,
  }
}

/** Adds the attributes that are named. @returns whether the context is used as one value */
function collect(body: Expr, attributes: Set<string>): boolean {
  let contexts = 0
  walk(body, (expr) => {
    const [op, operand] = parted(expr)
    if (op === 'Var' && operand === 'context') contexts++
    if (op !== '.' && op !== 'has') return
    const { left, attr } = operand as { readonly left: Expr; readonly attr: string | readonly string[] }
    for (const name of typeof attr === 'string' ? [attr] : attr) attributes.add(name)
    if (left['Var'] === 'context') contexts--
  })
  return contexts > 0
}
