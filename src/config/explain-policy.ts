import type { AccessRule, AuthLayer, AuthMethod, AuthzPolicy, Policy, RuleLayer } from '../core/policy.ts'
import { permissionRows, type Row } from './explain-permissions.ts'
import type { Field, SettingKey } from './field.ts'
import { FIELDS } from './fields.ts'
import { dotted } from './layer.ts'
import type { LoadedConfig } from './load.ts'
import { DURATION, formatQuantity } from './units.ts'

/** Widest column before the origins. */
const MAX_WIDTH = 90

/**
 * The policy that is in force, for a person: who may come in, what they may do, how often, what is recorded, what the
 * server may touch and what is not enforced, each with where it comes from. Holds no secrets.
 *
 * @param notEnforced default: what the policy itself leaves to others
 * @param program files and folders of the server's program, which any profile opens
 */
export function explainPolicy(
  loaded: LoadedConfig,
  notEnforced: readonly string[] = loaded.config.policy.notEnforced,
  program: readonly string[] = [],
): readonly string[] {
  const { config, warnings } = loaded
  const { auth, authz, rates, timeouts, audit } = config.policy
  const rows = [
    ...authRows(auth, loaded),
    ...authzRows(authz, loaded),
    ...limitRows(rates, timeouts, loaded),
    ...auditRows(audit, loaded),
    ...permissionRows(loaded, program),
    row(0, 'not enforced here', ''),
    ...notEnforced.map((text) => row(1, text, '')),
    ...(notEnforced.length === 0 ? [row(1, 'nothing is left to others', '')] : []),
    ...(warnings.length === 0 ? [] : [row(0, 'warnings', '')]),
    ...warnings.map(({ message, where }) => row(1, message, where)),
  ]
  const texts = rows.map(({ depth, text }) => `${'  '.repeat(depth)}${text}`)
  const placed = texts.filter((_text, index) => rows[index]?.where !== '')
  const width = Math.min(MAX_WIDTH, Math.max(...placed.map(({ length }) => length)))
  return texts.map((text, index) => {
    const where = rows[index]?.where ?? ''
    return where === '' ? text : `${text.padEnd(width)}  ${where}`
  })
}

function row(depth: number, text: string, where: string): Row {
  return { depth, text, where }
}

/** A value as it was given. */
function settingRow(depth: number, key: SettingKey, { settings }: LoadedConfig): Row {
  const { file, type, ...field }: Field<unknown> = FIELDS[key]
  const setting = settings.get(key)
  const absent = 'means' in field ? field.means : 'not set'
  const value = setting?.value === undefined ? absent : type.show(setting.value)
  return row(depth, `${file}: ${value}`, setting?.where ?? 'default')
}

/** What a part of the policy was made of, member by member. */
function memberRows(depth: number, part: object, { origins }: LoadedConfig): Row[] {
  const origin = origins.of(part)
  if (origin === undefined) return []
  return origin
    .parts()
    .filter(({ path }) => path.length > 0)
    .map(({ path, shown }) =>
      row(depth, `${dotted('', path).slice(1)}: ${shown}`, origin.given(path) ?? 'default'),
    )
}

function placeOf(part: object, { origins }: LoadedConfig): string {
  return origins.of(part)?.at([]) ?? ''
}

function authRows({ layers, timeoutMs, resource }: Policy['auth'], loaded: LoadedConfig): Row[] {
  if (layers.length === 0) {
    const { where = 'default' } = loaded.settings.get('auth.none') ?? {}
    return [row(0, 'authentication: off, every caller is anonymous', where)]
  }
  const several = layers.length > 1 ? ', all layers must be met' : ''
  return [
    row(0, `authentication: on${several}`, ''),
    ...layers.flatMap((layer) => layerRows(layer, loaded)),
    row(
      1,
      `time for authentication: ${formatQuantity(DURATION, timeoutMs)}`,
      fromSetting('auth.timeoutMs', timeoutMs, loaded),
    ),
    row(
      1,
      `audience of tokens: ${resource ?? 'the URL that is listened on'}`,
      fromSetting('auth.resource', resource, loaded),
    ),
    settingRow(1, 'auth.failures.attempts', loaded),
    settingRow(1, 'auth.failures.windowMs', loaded),
    settingRow(1, 'auth.authorizationServers', loaded),
    settingRow(1, 'auth.scopesSupported', loaded),
    settingRow(1, 'auth.fetching.caFile', loaded),
    settingRow(1, 'auth.fetching.timeoutMs', loaded),
    settingRow(1, 'auth.fetching.allowPrivateAddresses', loaded),
    settingRow(1, 'auth.fetching.allowHttp', loaded),
  ]
}

function originOf(key: SettingKey, { settings }: LoadedConfig): string {
  return settings.get(key)?.where ?? 'default'
}

/** Where a value that documents may give, too, comes from. */
function fromSetting(key: SettingKey, value: unknown, { settings }: LoadedConfig): string {
  const setting = settings.get(key)
  return setting?.value === value ? (setting?.where ?? 'default') : 'the documents'
}

function layerRows(layer: AuthLayer, loaded: LoadedConfig): Row[] {
  const { name, require, methods } = layer
  const all = require === 'all' ? 'each must accept' : 'the first that recognises its credential decides'
  const how = methods.length > 1 ? `: ${all}` : ''
  return [
    row(1, `${name}${how}`, name === 'auth' ? originOf('auth.require', loaded) : placeOf(layer, loaded)),
    ...methods.flatMap((method) => [
      row(2, describeMethod(method), placeOf(method, loaded)),
      ...memberRows(3, method, loaded),
    ]),
  ]
}

function describeMethod(method: AuthMethod): string {
  switch (method.method) {
    case 'bearer':
      return `bearer: static tokens in Authorization, ${source(method.source)}`
    case 'apiKey':
      return `apiKey: keys in the header ${method.header}, ${source(method.source)}`
    case 'basic':
      return `basic: names and passwords, ${source(method.source)}`
    case 'jwt':
      return `jwt: tokens of ${method.issuer ?? 'any issuer that the keys vouch for'}${audience(method)}`
    case 'oidc':
      return `oidc: tokens of ${method.issuer}${audience(method)} (${method.tokens})`
    case 'kubernetes':
      return `kubernetes: service accounts, by ${method.mode}`
    case 'clientCertificate':
      return `clientCertificate: ${method.from === 'tls' ? 'mutual TLS' : `forwarded in ${method.header}`}`
  }
}

function audience({ audiences }: { readonly audiences: readonly string[] }): string {
  return audiences.length === 0 ? '' : ` for ${audiences.join(' or ')}`
}

function source(from: { readonly file: string } | { readonly text: unknown }): string {
  return 'file' in from ? from.file : 'not shown'
}

function authzRows(authz: AuthzPolicy, loaded: LoadedConfig): Row[] {
  const { layers, cedar, scopes, impliedScopes, toolsFilters, capabilities } = authz
  const any =
    layers.length + scopes.length + toolsFilters.length > 0 ||
    cedar !== undefined ||
    capabilities !== undefined
  if (!any) return [row(0, 'authorization: off, every operation is permitted', 'default')]
  const served = Object.entries(capabilities ?? {}).filter(([, on]) => on)
  return [
    row(0, 'authorization: on, each of these must permit', ''),
    ...toolsFilters.map((names) => row(1, `only the tools ${names.join(', ')}`, placeOf(names, loaded))),
    ...(capabilities === undefined
      ? []
      : [
          row(
            1,
            `only the capabilities ${served.map(([name]) => name).join(', ') || '(none)'}`,
            placeOf(capabilities, loaded),
          ),
        ]),
    ...scopes.map((demand) =>
      row(1, `scopes ${demand.scopes.join(' ')} for ${objects(demand)}`, placeOf(demand, loaded)),
    ),
    ...Object.entries(impliedScopes).map(([scope, implied]) =>
      row(1, `scope ${scope} implies ${implied.join(', ')}`, originOf('authorization.impliedScopes', loaded)),
    ),
    ...layers.flatMap((layer) => ruleRows(layer, loaded)),
    ...(cedar === undefined ? [] : cedarRows(cedar, loaded)),
  ]
}

function ruleRows(layer: RuleLayer, loaded: LoadedConfig): Row[] {
  const { name, evaluation, rules } = layer
  const how = evaluation === 'any' ? 'one rule that permits is enough' : 'each rule must permit'
  return [
    row(1, `${name}: ${how}`, placeOf(layer, loaded)),
    ...rules.flatMap((rule) => [
      row(2, `${rule.id}: ${rule.principals.join(', ')}`, placeOf(rule, loaded)),
      ...ruleDetailRows(rule, loaded),
    ]),
  ]
}

function ruleDetailRows(rule: AccessRule, { origins }: LoadedConfig): Row[] {
  const at = (...path: (string | number)[]): string => origins.of(rule)?.at(path) ?? ''
  return [
    ...rule.permissions.map((each, index) =>
      row(3, `${each.actions.join(', ')} on ${objects(each)}`, at('permissions', index)),
    ),
    ...rule.conditions.map(({ type, key, operator, value }, index) => {
      const words = [type, key, operator, value].filter((word) => word !== undefined)
      return row(3, `if ${words.join(' ')}`, at('conditions', index))
    }),
  ]
}

function objects(parts: {
  readonly methods?: readonly string[]
  readonly tools: readonly string[]
  readonly resources: readonly string[]
  readonly prompts: readonly string[]
}): string {
  const kinds = (['methods', 'tools', 'resources', 'prompts'] as const).flatMap((kind) => {
    const names = parts[kind] ?? []
    return names.length === 0 ? [] : [`${kind} ${names.join(', ')}`]
  })
  return kinds.join('; ')
}

function cedarRows(cedar: NonNullable<AuthzPolicy['cedar']>, loaded: LoadedConfig): Row[] {
  return [
    row(1, `cedar: MCP::"${cedar.server}", groups are ${cedar.groupEntityType}`, placeOf(cedar, loaded)),
    ...cedar.policies.map(({ name }) => row(2, name, '')),
  ]
}

function limitRows(
  { limits, redis, namespace }: Policy['rates'],
  timeouts: Policy['timeouts'],
  loaded: LoadedConfig,
): Row[] {
  const duration = (ms: number): string => formatQuantity(DURATION, ms)
  return [
    row(0, 'limits: all of them hold', ''),
    ...limits.map((limit) => {
      const tools = limit.tools.length === 0 ? '' : `, tools ${limit.tools.join(', ')}`
      const text = `${limit.name}: ${limit.requests} in ${duration(limit.windowMs)} per ${limit.dimension}${tools}`
      return row(1, text, placeOf(limit, loaded))
    }),
    ...(limits.length === 0 ? [row(1, 'no rate limits', 'default')] : []),
    row(
      1,
      `counted ${redis === undefined ? 'in this process' : `in Redis; while it is away: ${redis.whenAway}`}`,
      originOf('rateLimitStore', loaded),
    ),
    row(
      1,
      `namespace of callers that have none: ${namespace}`,
      namespace === 'default' ? originOf('namespace', loaded) : fromSetting('namespace', namespace, loaded),
    ),
    ...timeouts.map((rule) => {
      const methods = rule.methods.length === 0 ? 'tools/call' : rule.methods.join(', ')
      const tools = rule.tools.length === 0 ? '' : ` of ${rule.tools.join(', ')}`
      const text = `${methods}${tools}: ${duration(rule.timeoutMs)} without progress, ${duration(rule.maxMs)} in all`
      return row(1, text, placeOf(rule, loaded))
    }),
    ...(
      [
        'limits.requestTimeoutMs',
        'limits.maxRequestTimeoutMs',
        'limits.inFlight',
        'limits.inFlightPerPrincipal',
        'limits.sessions',
        'limits.sessionsPerPrincipal',
      ] as const
    ).map((key) => settingRow(1, key, loaded)),
  ]
}

function auditRows(audit: Policy['audit'], loaded: LoadedConfig): Row[] {
  if (audit === undefined) return [row(0, 'audit: off', originOf('audit', loaded))]
  const { destination, onFailure, includeRequestData, includeResponseData, component } = audit
  const data = [...(includeRequestData ? ['arguments'] : []), ...(includeResponseData ? ['results'] : [])]
  const where = originOf('audit', loaded)
  return [
    row(0, `audit: to ${destination === 'stdout' ? 'stdout' : destination.file} as ${component}`, where),
    row(1, `with ${data.length === 0 ? 'neither arguments nor results' : data.join(' and ')}`, where),
    row(
      1,
      onFailure === 'block'
        ? 'no call is served while it cannot be written'
        : 'calls go on while it cannot be written',
      where,
    ),
  ]
}
