/**
 * Whether policies speak of what there is. Cedar's own validator needs a type for each attribute and a `has` before each
 * optional one; nobody declares the types of claims and arguments, so without a schema of the operator's the names are
 * held against the vocabulary: entity types, actions, and attributes of principal, resource, action and context.
 */
import { hintNames } from '../core/tool-hints.ts'
import {
  type Engine,
  type Expr,
  type Json,
  type Problem,
  parted,
  type Scope,
  type Uid,
  uidKey,
  uidOf,
  walk,
} from './cedar-ast.ts'
import { type Policy, sentence } from './cedar-policies.ts'
import type { KnownEntities } from './entities.ts'

/** Actions that are asked about, and those that ToolHive has beside them: a policy may name them, in vain. */
export const actions = ['call_tool', 'get_prompt', 'read_resource'] as const
const otherActions = ['list_tools', 'list_prompts', 'list_resources']

const types = ['Client', 'Action', 'Tool', 'Prompt', 'Resource', 'MCP', 'FeatureType']

/** Attributes of each variable: exact names, and prefixes. */
const attributes: Readonly<
  Record<string, { readonly names: readonly string[]; readonly open: readonly string[] }>
> = {
  principal: { names: [], open: ['claim_', 'claimset_'] },
  action: { names: ['operation'], open: [] },
  resource: { names: ['name', 'operation', 'feature', 'uri', ...hintNames], open: ['arg_'] },
  context: { names: [], open: ['claim_', 'claimset_', 'arg_'] },
}

/** Types that the variables can have. */
const variableTypes: Readonly<Record<string, readonly string[]>> = {
  principal: ['Client'],
  action: ['Action'],
  resource: ['Tool', 'Prompt', 'Resource'],
  context: [],
}

/** Types that may not be those of groups. */
export const reservedTypes: ReadonlySet<string> = new Set(types)

/** Names in policies that the vocabulary, the groups and the entities of the configuration do not have. */
export function checkVocabulary(
  policies: readonly Policy[],
  known: KnownEntities,
  groupEntityType: string,
  problems: Problem[],
): void {
  const allTypes = new Set([...types, groupEntityType, ...known.types])
  for (const policy of policies) {
    const report = (pattern: RegExp, message: string): void => {
      problems.push({ where: policy.find(pattern), message })
    }
    const checkType = (type: string): void => {
      if (allTypes.has(type)) return
      const pattern = new RegExp(`(?<![\\w:])${type.split('::').join('\\s*::\\s*')}(?!\\w)`)
      report(pattern, `there is no entity type ${type}; there are ${[...allTypes].join(', ')}`)
    }
    const checkUid = (uid: Uid): void => {
      checkType(uid.type)
      if (uid.type !== 'Action' || known.all.has(uidKey(uid))) return
      if ([...actions, ...otherActions].includes(uid.id)) return
      const isParent = [...known.all.values()].some(({ parents }) =>
        parents.some((each) => uidKey(each) === uidKey(uid)),
      )
      if (isParent) return
      report(
        new RegExp(`(?<![\\w:])Action\\s*::\\s*"${escaped(uid.id)}"`),
        `there is no ${uidKey(uid)}; there are ${actions.join(', ')}`,
      )
    }
    const checkAttribute = (variable: string, name: string): void => {
      const own = attributes[variable]
      if (own === undefined || own.names.includes(name) || own.open.some((prefix) => name.startsWith(prefix)))
        return
      if ((variableTypes[variable] ?? []).some((type) => known.defines(type, name))) return
      const pattern = new RegExp(`(?<!\\w)${variable}\\s*(?:\\.|has|\\[)\\s*"?${escaped(name)}(?!\\w)`)
      const there = [...own.names, ...own.open.map((prefix) => `${prefix}<name>`)].join(', ')
      report(pattern, `${variable} has no attribute ${name}; it has ${there}, and what the entities give it`)
    }
    const { principal, action, resource, conditions } = policy.json
    for (const scope of [principal, action, resource]) {
      for (const uid of uidsOf(scope)) checkUid(uid)
      if (scope.entity_type !== undefined) checkType(scope.entity_type)
    }
    for (const { body } of conditions) {
      try {
        walk(body, (expr) => checkExpr(expr, checkUid, checkType, checkAttribute))
      } catch (thrown) {
        problems.push({ where: policy.place(0), message: `it cannot be checked: ${String(thrown)}` })
      }
    }
  }
}

function uidsOf({ entity, entities, in: within }: Scope): readonly Uid[] {
  return [...(entities ?? []), ...[entity, within?.entity].filter((uid) => uid !== undefined)].map(uidOf)
}

function checkExpr(
  expr: Expr,
  checkUid: (uid: Uid) => void,
  checkType: (type: string) => void,
  checkAttribute: (variable: string, name: string) => void,
): void {
  const [op, body] = parted(expr)
  if (op === 'Value') {
    const { __entity } = (body ?? {}) as { readonly __entity?: Uid }
    if (__entity !== undefined) checkUid(__entity)
  } else if (op === 'is') checkType((body as { readonly entity_type: string }).entity_type)
  else if (op === '.' || op === 'has') {
    const { left, attr } = body as { readonly left: Expr; readonly attr: string | readonly string[] }
    const variable: Json | undefined = left['Var']
    const first = typeof attr === 'string' ? attr : attr[0]
    if (typeof variable === 'string' && first !== undefined) checkAttribute(variable, first)
  }
}

function escaped(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
}

/**
 * Holds policies against a schema of the operator's, strictly, as Cedar does.
 *
 * @param schema in Cedar's own or its JSON form
 */
export function checkSchema(
  engine: Engine,
  policies: readonly Policy[],
  schema: string,
  problems: Problem[],
): string | object {
  let form: string | object = schema
  if (schema.trimStart().startsWith('{')) {
    try {
      form = JSON.parse(schema) as object
    } catch (thrown) {
      problems.push({ where: 'schema', message: `not JSON: ${String(thrown)}` })
      return form
    }
  }
  const parsed = engine.checkParseSchema(form)
  if (parsed.type === 'failure') {
    for (const error of parsed.errors)
      problems.push({ where: lineOf(schema, error), message: sentence(error) })
    return form
  }
  const staticPolicies = Object.fromEntries(policies.map(({ id, text }) => [id, text]))
  const answer = engine.validate({ schema: form, policies: { staticPolicies } })
  if (answer.type === 'failure') {
    for (const error of answer.errors) problems.push({ where: 'schema', message: sentence(error) })
    return form
  }
  for (const { policyId, error } of answer.validationErrors) {
    const policy = policies.find(({ id }) => id === policyId)
    const where = policy?.place(error.sourceLocations?.[0]?.start ?? 0) ?? policyId
    problems.push({ where, message: sentence(error) })
  }
  return form
}

function lineOf(
  schema: string,
  { sourceLocations }: { readonly sourceLocations?: readonly { readonly start: number }[] },
): string {
  const start = sourceLocations?.[0]?.start
  if (start === undefined) return 'schema'
  const before = Buffer.from(schema).toString('utf8', 0, start).split('\n')
  return `schema:${before.length}:${[...(before.at(-1) as string)].length + 1}`
}
