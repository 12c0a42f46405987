import { isLoopback } from '../core/net.ts'
import type {
  AuthLayer,
  AuthMethod,
  AuthzPolicy,
  CedarPolicy,
  Policy,
  RateLimit,
  RatePolicy,
  RuleLayer,
  TimeoutRule,
} from '../core/policy.ts'
import { authFrame, ownLayer } from './auth-policy.ts'
import { accessRule, accessRules, permissionsOf, type RuleSettings, scopeDemand } from './authz-values.ts'
import { ownCedar } from './cedar-policy.ts'
import type { Config, MadeKey } from './config.ts'
import type { ReadFile } from './disk.ts'
import type { Problem } from './error.ts'
import type { Given } from './given.ts'
import { rateLimit, timeoutRule } from './limit-values.ts'
import { type Origins, originOf } from './origins.ts'

/** What documents add to the policy of the file. Every layer is one more demand. */
export interface Addition {
  readonly authLayers: readonly AuthLayer[]
  readonly ruleLayers: readonly RuleLayer[]
  readonly cedar: { readonly policy: CedarPolicy; readonly where: string } | undefined
  readonly toolsFilters: readonly (readonly string[])[]
  readonly capabilities: AuthzPolicy['capabilities']
  readonly limits: readonly RateLimit[]
  readonly timeouts: readonly TimeoutRule[]
  readonly notEnforced: readonly string[]
  /** Of the MCPServer. */
  readonly serverName: string | undefined
  /** Of the route. */
  readonly namespace: string | undefined
  readonly resource: string | undefined
  /** The shortest time for authentication that a method asks for. */
  readonly authTimeoutMs: number | undefined
  /** Where a document says that nobody is asked who he is. */
  readonly open: string | undefined
  /** Where a document says that somebody must be. */
  readonly requireAuthentication: string | undefined
}

export const NO_ADDITION: Addition = {
  authLayers: [],
  ruleLayers: [],
  cedar: undefined,
  toolsFilters: [],
  capabilities: undefined,
  limits: [],
  timeouts: [],
  notEnforced: [],
  serverName: undefined,
  namespace: undefined,
  resource: undefined,
  authTimeoutMs: undefined,
  open: undefined,
  requireAuthentication: undefined,
}

export interface PolicyContext {
  readonly given: Given
  readonly config: Omit<Config, MadeKey>
  readonly addition: Addition
  readonly origins: Origins
  readonly read: ReadFile
  readonly problems: Problem[]
}

/** The policy of the file and of the documents together. What is wrong goes to `problems`. */
export async function buildPolicy(context: PolicyContext): Promise<Policy> {
  const { given, addition, config } = context
  const frame = authFrame(given)
  const own = ownLayer(given, context.origins)
  const layers = [...addition.authLayers, ...(own === undefined ? [] : [own])]
  const rates = ratePolicy(context)
  const authz = await authzPolicy(context)
  return {
    auth: {
      ...frame,
      layers,
      timeoutMs: Math.min(frame.timeoutMs, addition.authTimeoutMs ?? frame.timeoutMs),
      resource: frame.resource ?? addition.resource,
    },
    authz,
    rates,
    timeouts: [...ownTimeouts(context), ...addition.timeouts],
    audit: auditPolicy(context),
    notEnforced: [...addition.notEnforced, ...gaps(config, layers, authz.layers, rates)],
  }
}

/** What the combination of values leaves open. */
function gaps(
  { listen }: Omit<Config, MadeKey>,
  layers: readonly AuthLayer[],
  rules: readonly RuleLayer[],
  { limits, redis }: RatePolicy,
): string[] {
  const open: string[] = []
  if (layers.length > 0 && listen.tls === undefined && !isLoopback(listen.host))
    open.push(
      'encryption on the way: credentials travel unencrypted unless a proxy in front terminates TLS (listen.tls)',
    )
  if (limits.length > 0 && redis === undefined)
    open.push('rate limits across replicas: each sidecar counts for itself (rateLimitStore)')
  if (areNamesAmbiguous(layers, rules))
    open.push(
      'which issuer or method proved a name: rules that say user:, group: or serviceaccount: go by the name alone; id: names one exactly',
    )
  return open
}

/** Which methods can prove what a rule goes by; `kubernetes` knows no users, and secrets and certificates no groups. */
const provers: Readonly<Record<string, (method: AuthMethod['method']) => boolean>> = {
  user: (method) => method !== 'kubernetes',
  group: (method) => method === 'jwt' || method === 'oidc' || method === 'kubernetes',
  serviceaccount: (method) => method === 'jwt' || method === 'oidc' || method === 'kubernetes',
}

/** Counted over all layers: with several demands, too, a rule is content with a name that any one of them has proven. */
function areNamesAmbiguous(layers: readonly AuthLayer[], rules: readonly RuleLayer[]): boolean {
  const methods = layers.flatMap((layer) => layer.methods)
  const principals = rules.flatMap((layer) => layer.rules.flatMap((rule) => rule.principals))
  const kinds = new Set(principals.map((each) => each.slice(0, Math.max(0, each.indexOf(':')))))
  return Object.entries(provers).some(([kind, proves]) => {
    if (!kinds.has(kind)) return false
    const able = methods.filter(({ method }) => proves(method))
    const sources = able.map((each) =>
      'issuer' in each && each.method !== 'kubernetes' ? each.issuer : each.method,
    )
    // Without an issuer it is any that the keys vouch for.
    return sources.includes(undefined) || new Set(sources).size > 1
  })
}

async function authzPolicy(context: PolicyContext): Promise<AuthzPolicy> {
  const { given, addition, origins } = context
  const toolsFilter = given.value('authorization.toolsFilter')
  const setting = given.setting('authorization.toolsFilter')
  const capabilities = given.value('authorization.capabilities')
  if (capabilities !== undefined)
    origins.note(capabilities, { ...given.setting('authorization.capabilities'), parts: () => [] })
  if (toolsFilter !== undefined) origins.note(toolsFilter, { ...setting, parts: () => [] })
  return {
    layers: [...addition.ruleLayers, ...ownRules(context)],
    cedar: await cedarPolicy(context),
    scopes: (given.value('authorization.scopes') ?? []).map((demand, index) =>
      origins.note(
        { ...demand },
        originOf(given.setting('authorization.scopes'), [index], scopeDemand, demand),
      ),
    ),
    impliedScopes: given.value('authorization.impliedScopes') ?? {},
    toolsFilters: [...addition.toolsFilters, ...(toolsFilter === undefined ? [] : [toolsFilter])],
    capabilities: both(addition.capabilities, capabilities),
  }
}

/** Only what both serve. */
function both(a: AuthzPolicy['capabilities'], b: AuthzPolicy['capabilities']): AuthzPolicy['capabilities'] {
  if (a === undefined || b === undefined) return a ?? b
  return {
    tools: a.tools && b.tools,
    resources: a.resources && b.resources,
    prompts: a.prompts && b.prompts,
  }
}

function ownRules({ given, origins, addition }: PolicyContext): RuleLayer[] {
  const rules = given.value('authorization.rules')
  if (rules === undefined) return []
  const setting = given.setting('authorization.rules')
  const layer: RuleLayer = {
    name: 'authorization',
    evaluation: given.value('authorization.ruleEvaluation'),
    rules: rules.map((rule, index) =>
      origins.note(ruleOf(rule, index), originOf(setting, [index], accessRule, rule)),
    ),
    namespace: given.value('namespace') ?? addition.namespace ?? 'default',
  }
  return [origins.note(layer, originOf(setting, [], accessRules, rules))]
}

/** A rule as it is judged. */
export function ruleOf(rule: RuleSettings, index: number): RuleLayer['rules'][number] {
  const { id = `rule-${index + 1}`, principals, conditions } = rule
  return { id, principals, permissions: permissionsOf(rule), conditions }
}

async function cedarPolicy(context: PolicyContext): Promise<CedarPolicy | undefined> {
  const { given, addition, problems, read, origins } = context
  const settings = given.value('authorization.cedar')
  if (settings === undefined) return addition.cedar?.policy
  const setting = given.setting('authorization.cedar')
  if (addition.cedar !== undefined)
    problems.push({
      where: setting.where,
      message: `Cedar policies stand here and in ${addition.cedar.where}: put them into one place, since one set could permit what the other does not`,
    })
  const policy = await ownCedar(settings, setting, addition.serverName ?? 'mcp-server', read, problems)
  return policy && origins.note(policy, { ...setting, parts: () => [] })
}

function ratePolicy({ given, addition, origins }: PolicyContext): RatePolicy {
  const setting = given.setting('rateLimits')
  const own = (given.value('rateLimits') ?? []).map((limit, index) =>
    origins.note<RateLimit>(
      {
        name: limit.name ?? `limit-${index + 1}`,
        dimension: limit.per,
        tools: limit.tools,
        requests: limit.requests,
        windowMs: limit.window,
      },
      originOf(setting, [index], rateLimit, limit),
    ),
  )
  const redis = given.value('rateLimitStore')?.redis
  return {
    limits: [...addition.limits, ...own],
    namespace: given.value('namespace') ?? addition.namespace ?? 'default',
    redis:
      redis === undefined
        ? undefined
        : {
            url: redis.url,
            password: redis.passwordFile === undefined ? undefined : { file: redis.passwordFile },
            caFile: redis.caFile,
            prefix: redis.prefix,
            whenAway: redis.whenAway,
            timeoutMs: redis.timeout,
          },
  }
}

/** None is longer than what a document allows for all calls. */
function ownTimeouts({ given, config, addition, origins }: PolicyContext): TimeoutRule[] {
  const longest = Math.min(...addition.timeouts.map(({ timeoutMs }) => timeoutMs))
  const longestInAll = Math.min(...addition.timeouts.map(({ maxMs }) => maxMs))
  const setting = given.setting('timeouts')
  return (given.value('timeouts') ?? []).map((rule, index) => {
    const {
      methods,
      tools,
      timeout,
      maxTimeout = Math.max(timeout, config.limits.maxRequestTimeoutMs),
    } = rule
    const [timeoutMs, maxMs] = [Math.min(timeout, longest), Math.min(maxTimeout, longestInAll)]
    const made = { methods, tools, timeoutMs, maxMs }
    return origins.note(made, originOf(setting, [index], timeoutRule, rule))
  })
}

function auditPolicy({ given, addition }: PolicyContext): Policy['audit'] {
  const settings = given.value('audit')
  if (settings === undefined) return undefined
  const { destination, maxData, component, ...rest } = settings
  return {
    ...rest,
    destination: destination === 'stdout' ? destination : { file: destination },
    maxDataBytes: maxData,
    component: component ?? addition.serverName ?? 'mcp-sidecar',
  }
}
