import { type RuleAction, ruleActions } from '../core/policy.ts'
import { checked, defaulted, object, optional, record, required, type TypeOf } from './object.ts'
import { bad, type Fault, good, quote } from './parsed.ts'
import { choice, flag, list, path, text, type ValueType } from './values.ts'
import { globText, scope, word } from './words.ts'

/** Who a rule is about (platform decision P2). */
export const principal: ValueType<string> = text('principals', {}, (input) => {
  if (input === '*' || input === 'anonymous' || /^(user|group|id):\S(.*\S)?$/.test(input)) return good(input)
  if (/^serviceaccount:(system:serviceaccount:)?[a-z0-9][a-z0-9.-]*([/:][a-z0-9][a-z0-9.-]*)?$/.test(input))
    return good(input)
  return bad(
    `${quote(input)} is not a principal: write user:ID, group:NAME, serviceaccount:NAME, serviceaccount:NAMESPACE/NAME, id:PRINCIPAL-ID for a name of one issuer or method alone, "*" for every caller that has proven who it is, or anonymous`,
  )
})

const OBSOLETE_ACTIONS = ['read', 'write', 'execute']

export const action: ValueType<RuleAction> = {
  ...choice(...ruleActions),
  parse: (input) => {
    const known = ruleActions.find((each) => each === input)
    if (known !== undefined) return good(known)
    const advice = OBSOLETE_ACTIONS.includes(String(input))
      ? ` (${String(input)} is of an earlier draft: write tools/call, resources/read or prompts/get)`
      : ''
    return bad(`${quote(input)} is not one of ${ruleActions.join(', ')}${advice}`)
  },
}

export const permission = object(
  {
    tools: defaulted(list(globText), [], 'Names of tools, `*` for any text.'),
    resources: defaulted(list(globText), [], 'URIs of resources, `*` for any text.'),
    prompts: defaulted(list(globText), [], 'Names of prompts, `*` for any text.'),
    actions: required(
      list(action, 1),
      'What is permitted with them. A tool that may be called is listed, too.',
    ),
  },
  { check: uselessParts },
)

/** Objects that no action is about, and actions without any object: somebody meant something else. */
function uselessParts(value: {
  readonly tools: readonly string[]
  readonly resources: readonly string[]
  readonly prompts: readonly string[]
  readonly actions: readonly RuleAction[]
}): Fault[] {
  const kinds = [
    { name: 'tools', actions: ['tools/call', 'tools/list'] },
    { name: 'resources', actions: ['resources/read'] },
    { name: 'prompts', actions: ['prompts/get'] },
  ] as const
  const any = value.actions.includes('*')
  const faults = kinds.flatMap(({ name, actions }): Fault[] => {
    const index = value.actions.findIndex((each) => (actions as readonly string[]).includes(each))
    const there = value[name].length > 0
    if (there && index < 0 && !any)
      return [{ path: [name], message: `no action is about ${name}: add ${actions[0]} to actions` }]
    if (!there && index >= 0)
      return [{ path: ['actions', index], message: `needs ${name}, for all of them "*"` }]
    return []
  })
  if (faults.length === 0 && kinds.every(({ name }) => value[name].length === 0))
    faults.push({ path: [], message: 'names no tools, resources or prompts' })
  return faults
}

const conditionTypes = ['IPAddress', 'TimeOfDay', 'RequestHeader'] as const
const operators = ['Equal', 'NotEqual', 'In', 'NotIn', 'Matches', 'NotMatches'] as const

export const condition = object(
  {
    type: required(choice(...conditionTypes), 'What is looked at.'),
    key: optional(word('text'), 'none', 'For `RequestHeader`: the name of the header.'),
    value: required(
      word('text'),
      'What it is compared with: addresses and networks between commas; `HH:MM-HH:MM` ranges between commas, then perhaps a time zone such as Europe/Paris (default UTC); the text of a header, several between commas for `In` and `NotIn`, a pattern for `Matches`.',
    ),
    operator: defaulted(choice(...operators), 'Equal', 'How it is compared.'),
  },
  {
    check: ({ type, key, operator }) => {
      const faults: Fault[] = []
      const header = type === 'RequestHeader'
      if (header && key === undefined)
        faults.push({ path: [], message: 'key is missing: the name of the header' })
      if (header && key !== undefined && !/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(key))
        faults.push({ path: ['key'], message: 'is not the name of a header' })
      if (!header && key !== undefined)
        faults.push({ path: ['key'], key: true, message: `key has no meaning for ${type}: leave it out` })
      if (!header && operator.endsWith('Matches'))
        faults.push({
          path: ['operator'],
          message: `${operator} is for RequestHeader alone: write Equal, NotEqual, In or NotIn`,
        })
      return faults
    },
  },
)

const ruleShape = {
  principals: required(
    list(principal, 1),
    'Who it is about: `user:SUBJECT`, `group:NAME`, `serviceaccount:NAMESPACE/NAME`, `id:PRINCIPAL-ID` for a name of one issuer or method alone (`id:jwt:ISSUER|SUBJECT`, `id:bearer:NAME`), `*` or `anonymous`.',
  ),
  permissions: optional(list(permission, 1), '`tools`', 'What they may do; one of them is enough.'),
  tools: optional(
    list(globText, 1),
    '`permissions`',
    'Short for one permission to list and call these tools.',
  ),
  conditions: defaulted(list(condition), [], 'What else must hold; all of them.'),
} as const

export const accessRule = object(
  { id: optional(word('text'), '`rule-1` and so on', 'Names the rule in the audit log.'), ...ruleShape },
  { one: [['permissions', 'tools']] },
)

export type RuleSettings = TypeOf<typeof accessRule>

/** Rules, no two of the same name. */
export const accessRules: ValueType<readonly RuleSettings[]> = checked(list(accessRule, 1), (rules) =>
  rules.flatMap(({ id }, index) =>
    id !== undefined && rules.findIndex((other) => other.id === id) < index
      ? [{ path: [index, 'id'], message: 'is the name of an earlier rule, too' }]
      : [],
  ),
)

export const scopeDemand = object(
  {
    methods: defaulted(
      list(globText),
      [],
      'MCP methods, `*` for any text. Empty: those of the objects named.',
    ),
    tools: defaulted(list(globText), [], 'Names of tools, `*` for any text.'),
    resources: defaulted(list(globText), [], 'URIs of resources, `*` for any text.'),
    prompts: defaulted(list(globText), [], 'Names of prompts, `*` for any text.'),
    scopes: required(list(scope, 1), 'Scopes that a token must carry for them.'),
  },
  {
    check: ({ methods, tools, resources, prompts }) =>
      [methods, tools, resources, prompts].every((names) => names.length === 0)
        ? [
            {
              path: [],
              message:
                'names no methods, tools, resources or prompts: for every token there is auth.jwt.scopes',
            },
          ]
        : [],
  },
)

export const cedarType = object(
  {
    policyFiles: defaulted(list(path('file')), [], 'Files with Cedar policies.'),
    policies: defaulted(list(text('Cedar policies', {}, good)), [], 'Cedar policies as text.'),
    configFile: optional(
      path('file'),
      'none',
      "File in ToolHive's form, JSON: `{version, type: cedarv1, cedar: {policies, entities_json, ...}}`.",
    ),
    entitiesFile: optional(path('file'), 'no entities', 'File with entities, in the JSON form of Cedar.'),
    schemaFile: optional(
      path('file'),
      'the built-in vocabulary',
      'Cedar schema that policies are validated against when they are loaded.',
    ),
    server: optional(
      word('text'),
      'the name of the MCPServer document, else `mcp-server`',
      'Name of the server in policies: `MCP::"NAME"` is the parent of every tool, prompt and resource.',
    ),
    groupClaim: optional(word('text'), 'the groups of the caller', 'Claim with the groups of the caller.'),
    roleClaim: optional(word('text'), 'none', 'Claim with roles, which become groups.'),
    groupEntityType: optional(word('text'), '`THVGroup`', 'Entity type of groups.'),
    multiValuedClaims: optional(
      list(word('text')),
      'none',
      'Claims that policies see as sets, too: `claimset_NAME` in the context.',
    ),
    decimalNumbers: defaulted(
      flag,
      false,
      'Hands over all numbers as `decimal`, as ToolHive does, instead of integers as `Long`.',
    ),
  },
  {
    check: ({ policyFiles, policies, configFile }) =>
      policyFiles.length + policies.length === 0 && configFile === undefined
        ? [{ path: [], message: 'has no policies: name policyFiles, policies or a configFile' }]
        : [],
    most: [
      ['configFile', 'policyFiles'],
      ['configFile', 'policies'],
      ['configFile', 'entitiesFile'],
      ['configFile', 'groupClaim'],
      ['configFile', 'roleClaim'],
      ['configFile', 'groupEntityType'],
      ['configFile', 'multiValuedClaims'],
    ],
  },
)

export const capabilitiesType = object({
  tools: defaulted(flag, false, 'Tools are served.'),
  resources: defaulted(flag, false, 'Resources are served.'),
  prompts: defaulted(flag, false, 'Prompts are served.'),
})

export const impliedScopesType = record(list(scope, 1), 'scope', 1)

export interface AuthzSettings {
  readonly 'authorization.rules': readonly RuleSettings[] | undefined
  readonly 'authorization.ruleEvaluation': 'any' | 'all'
  readonly 'authorization.scopes': readonly TypeOf<typeof scopeDemand>[] | undefined
  readonly 'authorization.impliedScopes': TypeOf<typeof impliedScopesType> | undefined
  readonly 'authorization.cedar': TypeOf<typeof cedarType> | undefined
  readonly 'authorization.toolsFilter': readonly string[] | undefined
  readonly 'authorization.capabilities': TypeOf<typeof capabilitiesType> | undefined
}

/** A rule's `permissions`, or what its bare `tools` mean. */
export function permissionsOf(
  rule: Pick<RuleSettings, 'permissions' | 'tools'>,
): readonly TypeOf<typeof permission>[] {
  if (rule.permissions !== undefined) return rule.permissions
  const actions = ['tools/call', 'tools/list'] as const
  return [{ tools: rule.tools ?? [], resources: [], prompts: [], actions }]
}
