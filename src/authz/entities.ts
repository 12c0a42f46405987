/**
 * Who asks and what for as Cedar entities, in ToolHive's vocabulary: `Client::"<sub>"` with its claims, in its groups;
 * `Tool`, `Prompt` and `Resource` in `MCP::"<server>"`; merged with the entities of the configuration.
 */
import type { Principal } from '../core/types.ts'
import { type EntityJson, type Json, type Uid, uidKey, uidOf } from './cedar-ast.ts'
import { cedarText, cedarValue, isWellFormed, Unreadable } from './cedar-values.ts'

export type Attributes = ReadonlyMap<string, Json | Unreadable>

/** An entity of the configuration. */
export interface KnownEntity {
  readonly uid: Uid
  readonly attrs: ReadonlyMap<string, Json>
  readonly parents: readonly Uid[]
  readonly tags: Readonly<Record<string, Json>>
}

/** The entities of the configuration, by {@link uidKey}; their graph has no cycle. */
export class KnownEntities {
  readonly all = new Map<string, KnownEntity>()
  /** Types of entities, and of those they refer to. */
  readonly types = new Set<string>()
  /** Some attribute or tag holds an entity: what is read of an attribute may be read of an entity. */
  readonly refer: boolean
  readonly #ancestors = new Map<string, ReadonlySet<string>>()

  constructor(entities: readonly EntityJson[]) {
    let refer = false
    for (const { uid, attrs, parents, tags = {} } of entities) {
      this.all.set(uidKey(uid), {
        uid: uidOf(uid),
        attrs: new Map(Object.entries(attrs)),
        parents: parents.map(uidOf),
        tags,
      })
      for (const each of [uid, ...parents]) this.types.add(uidOf(each).type)
      for (const each of [...Object.values(attrs), ...Object.values(tags)])
        eachReference(each, ({ type }) => {
          refer = true
          this.types.add(type)
        })
    }
    this.refer = refer
  }

  /** Whether an entity of this type has the attribute. */
  defines(type: string, attribute: string): boolean {
    for (const { uid, attrs } of this.all.values()) if (uid.type === type && attrs.has(attribute)) return true
    return false
  }

  /** Everything that an entity with these parents is in, beside itself. */
  above(parents: readonly Uid[]): Set<string> {
    const found = new Set<string>()
    for (const parent of parents) {
      const key = uidKey(parent)
      found.add(key)
      for (const each of this.#above(key)) found.add(each)
    }
    return found
  }

  #above(key: string): ReadonlySet<string> {
    let found = this.#ancestors.get(key)
    if (found !== undefined) return found
    const entity = this.all.get(key)
    if (entity === undefined) return new Set()
    found = this.above(entity.parents)
    this.#ancestors.set(key, found)
    return found
  }
}

function eachReference(value: Json, visit: (uid: Uid) => void): void {
  if (typeof value !== 'object' || value === null) return
  const { __entity } = value as { readonly __entity?: Uid }
  if (__entity === undefined) for (const each of Object.values(value)) eachReference(each as Json, visit)
  else visit(__entity)
}

/** How callers become entities. */
export interface SubjectOptions {
  /** Claims with groups and roles; dots lead into objects where no claim has the whole name. */
  readonly groupClaim: string | undefined
  readonly roleClaim: string | undefined
  readonly groupEntityType: string
  readonly multiValuedClaims: readonly string[]
  readonly decimalNumbers: boolean
}

/** A caller, ready to be judged. */
export interface Subject {
  readonly uid: Uid
  /** `claim_<name>` and `claimset_<name>`; the context has them, too. */
  readonly claims: Attributes
  /** The claims, and what the configuration says of this entity. */
  readonly attrs: Attributes
  readonly tags: Readonly<Record<string, Json>>
  readonly parents: readonly Uid[]
  /** {@link uidKey} of everything that it is in, itself included. */
  readonly ancestors: ReadonlySet<string>
  /** Why no decision can be made for it. */
  readonly problem: string | undefined
}

const wellKnownGroupClaims = ['groups', 'roles', 'cognito:groups']

/** A caller with its `sub`, else its subject, as id. Other identities that its request has proven are left out. */
export function subjectOf(principal: Principal, options: SubjectOptions, known: KnownEntities): Subject {
  const { sub } = principal.claims
  const own = typeof sub === 'string' && sub !== ''
  const uid = { type: 'Client', id: own ? sub : principal.subject }
  const key = uidKey(uid)
  const claims = claimsOf(own ? principal.claims : { ...principal.claims, sub: uid.id }, options)
  const groups = groupsOf(principal, options)
  const entity = known.all.get(key)
  const parents = new Map<string, Uid>()
  for (const id of groups)
    parents.set(uidKey({ type: options.groupEntityType, id }), { type: options.groupEntityType, id })
  for (const parent of entity?.parents ?? []) parents.set(uidKey(parent), parent)
  const ancestors = known.above([...parents.values()])
  let problem: string | undefined
  if (cedarText(uid.id) instanceof Unreadable) problem = 'the subject is too long or no well-formed Unicode'
  else if (ancestors.has(key)) problem = 'its groups make the caller part of itself'
  else if (groups.some((id) => cedarText(id) instanceof Unreadable))
    problem = 'a group is too long or no well-formed Unicode'
  ancestors.add(key)
  const attrs = entity === undefined ? claims : new Map([...entity.attrs, ...claims])
  return { uid, claims, attrs, tags: entity?.tags ?? {}, parents: [...parents.values()], ancestors, problem }
}

function claimsOf(raw: Readonly<Record<string, unknown>>, options: SubjectOptions): Attributes {
  const claims = new Map<string, Json | Unreadable>()
  const put = (name: string, value: unknown): void => {
    const converted = isWellFormed(name) ? cedarValue(value, options.decimalNumbers) : undefined
    if (converted !== undefined) claims.set(name, converted)
  }
  for (const [name, value] of Object.entries(raw)) {
    const elements = options.multiValuedClaims.includes(name) ? elementsOf(value) : undefined
    put(`claim_${name}`, Array.isArray(value) && elements !== undefined ? elements.join(' ') : value)
    if (elements !== undefined) put(`claimset_${name}`, elements)
  }
  return claims
}

/** The strings of a list, or the words of a string. */
function elementsOf(value: unknown): readonly string[] | undefined {
  if (typeof value === 'string') return value.split(/\s+/).filter((word) => word !== '')
  return Array.isArray(value) ? value.filter((each) => typeof each === 'string') : undefined
}

/** As ToolHive: the configured claim, else the first well-known one; what the method found, without any; and roles. */
function groupsOf(
  { claims, groups }: Principal,
  { groupClaim, roleClaim }: SubjectOptions,
): readonly string[] {
  const found = [groupClaim, ...wellKnownGroupClaims].map((name) => listAt(claims, name))
  return [...(found.find((each) => each !== undefined) ?? groups), ...(listAt(claims, roleClaim) ?? [])]
}

function listAt(claims: Readonly<Record<string, unknown>>, path: string | undefined): string[] | undefined {
  if (path === undefined) return undefined
  let value: unknown = claims
  for (const name of Object.hasOwn(claims, path) ? [path] : path.split('.')) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return undefined
    value = (value as Record<string, unknown>)[name]
  }
  return Array.isArray(value) ? value.filter((each): each is string => typeof each === 'string') : undefined
}
