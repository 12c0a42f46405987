/** Whether a policy can be carried out at all; everything here is known when it is loaded. */
import type { AccessRule, AuthzPolicy, RuleLayer, RulePermission, ScopeDemand } from '../core/policy.ts'
import { ruleActions } from '../core/policy.ts'
import { compileCondition } from './conditions.ts'
import { type AuthzFault, problemOf, quoted } from './fault.ts'
import { compilePrincipals } from './principals.ts'

type Path = readonly (string | number)[]

/** Every mistake of a policy; none if it can be carried out. Cedar is checked where it is compiled. */
export function checkAuthz(policy: AuthzPolicy): AuthzFault[] {
  return [
    ...policy.layers.flatMap((layer, i) => ruleProblems(layer, ['layers', i])),
    ...policy.scopes.flatMap((demand, i) => demandProblems(demand, ['scopes', i])),
    ...Object.entries(policy.impliedScopes).flatMap(([scope, implied]) =>
      tokenProblems([scope, ...implied], ['impliedScopes', scope]),
    ),
    ...policy.toolsFilters.flatMap((names, i) => filterProblems(names, ['toolsFilters', i])),
  ]
}

/** @param path where the layer stands */
export function ruleProblems(layer: RuleLayer, path: Path = []): AuthzFault[] {
  return layer.rules.flatMap((rule, i) => {
    const faults = problemsOfRule(rule, layer)
    return faults.map((fault) => ({
      path: [...path, 'rules', i, ...fault.path],
      message: `${layer.name}, rule ${quoted(rule.id)}: ${fault.message}`,
    }))
  })
}

const empty = (path: Path, what: string): AuthzFault[] => [{ path, message: `${what}: name at least one` }]

function problemsOfRule(rule: AccessRule, layer: RuleLayer): AuthzFault[] {
  const { principals, permissions, conditions } = rule
  const faults: AuthzFault[] = []
  if (principals.length === 0) faults.push(...empty(['principals'], 'it is for no principals'))
  for (const [i, each] of principals.entries()) {
    const problem = problemOf(() => compilePrincipals([each], layer.namespace))
    if (problem !== undefined) faults.push({ path: ['principals', i], message: problem })
  }
  if (permissions.length === 0) faults.push(...empty(['permissions'], 'it grants no permissions'))
  for (const [i, each] of permissions.entries()) {
    const found = permissionProblems(each)
    faults.push(...found.map(({ path, message }) => ({ path: ['permissions', i, ...path], message })))
  }
  for (const [i, each] of conditions.entries()) {
    // What time it is does not matter for whether a condition can be read.
    const problem = problemOf(() => compileCondition(each, { epoch: () => 0 }))
    if (problem !== undefined) faults.push({ path: ['conditions', i], message: problem })
  }
  return faults
}

const objects = [
  ['tools', ['tools/call', 'tools/list']],
  ['resources', ['resources/read']],
  ['prompts', ['prompts/get']],
] as const

/** A permission that grants nothing, in whole or in part, is not what its author meant. */
function permissionProblems(permission: RulePermission): AuthzFault[] {
  const { actions } = permission
  if (actions.length === 0) return empty(['actions'], 'a permission without actions grants nothing')
  const unknown = actions.findIndex((each) => !(ruleActions as readonly string[]).includes(each))
  if (unknown >= 0) {
    const message = `the action ${quoted(actions[unknown] as string)} is unknown: ${ruleActions.join(', ')} are known`
    return [{ path: ['actions', unknown], message }]
  }
  const faults = objects.flatMap(([name, uses]): AuthzFault[] => {
    const names = permission[name]
    const blank = names.indexOf('')
    if (blank >= 0) return [{ path: [name, blank], message: 'an empty pattern fits nothing' }]
    if (names.length === 0 || actions.includes('*') || uses.some((use) => actions.includes(use))) return []
    return [{ path: [name], message: `nothing may be done with these: actions needs ${uses.join(' or ')}` }]
  })
  if (faults.length === 0 && objects.every(([name]) => permission[name].length === 0))
    return empty([], 'a permission without tools, resources or prompts grants nothing')
  return faults
}

/** Of clients, in any revision; methods of extensions can be named with a pattern. */
const requests = new Set([
  ...['initialize', 'ping', 'server/discover', 'subscriptions/listen', 'logging/setLevel'],
  ...['tools/list', 'tools/call', 'prompts/list', 'prompts/get', 'completion/complete'],
  ...['resources/list', 'resources/templates/list', 'resources/read', 'resources/subscribe'],
  ...['resources/unsubscribe', 'tasks/get', 'tasks/result', 'tasks/list', 'tasks/cancel', 'tasks/update'],
])

function demandProblems(demand: ScopeDemand, path: Path): AuthzFault[] {
  const { methods, tools, resources, prompts, scopes } = demand
  const faults = tokenProblems(scopes, [...path, 'scopes'])
  if (scopes.length === 0) faults.push(...empty([...path, 'scopes'], 'a demand for no scopes'))
  if (methods.length + tools.length + resources.length + prompts.length === 0) {
    const message =
      'say for which methods, tools, resources or prompts: scopes that every token needs belong to its authentication method'
    faults.push({ path, message })
  }
  methods.forEach((method, i) => {
    if (method.includes('*') || requests.has(method)) return
    // A demand that is never made leaves open what it was to close.
    const message = `${quoted(method)} is no method of MCP; write one of an extension with a *`
    faults.push({ path: [...path, 'methods', i], message })
  })
  for (const [name] of objects) {
    const blank = demand[name].indexOf('')
    if (blank >= 0) faults.push({ path: [...path, name, blank], message: 'an empty pattern fits nothing' })
  }
  return faults
}

/** RFC 6749 section 3.3: they also stand between quotes in a challenge. */
function tokenProblems(scopes: readonly string[], path: Path): AuthzFault[] {
  return scopes
    .filter((scope) => !/^[\x21\x23-\x5b\x5d-\x7e]+$/.test(scope))
    .map((scope) => ({
      path,
      message: `${quoted(scope)} is no scope: blanks, quotes and \\ cannot be in one`,
    }))
}

function filterProblems(names: readonly string[], path: Path): AuthzFault[] {
  return names.flatMap((name, i): AuthzFault[] => {
    if (name !== '' && !name.includes('*')) return []
    return [
      { path: [...path, i], message: `${quoted(name)} is no name of a tool: the filter has no wildcards` },
    ]
  })
}
