import type { CedarPolicy, RateLimit, RuleLayer, TimeoutRule } from '../../core/policy.ts'
import { accessRule } from '../authz-values.ts'
import { toolhiveCedar, toolhiveFile, toolhivePolicy } from '../cedar-policy.ts'
import type { TypeOf } from '../object.ts'
import { originOf } from '../origins.ts'
import { ruleOf } from '../policy.ts'
import { readValue } from '../read-value.ts'
import { type authorization, type authzConfig, PER_UNIT, type rateLimits, timeouts } from './authz-values.ts'
import type { Building } from './building.ts'
import type { Place } from './place.ts'
import type { Manifest } from './read.ts'

const UNITS = { second: 1000, minute: 60_000, hour: 3_600_000, day: 86_400_000 } as const

/** The rules of one document. */
export function ruleLayer(
  { rules, ruleEvaluation }: TypeOf<typeof authorization>,
  place: Place,
  { title }: Manifest,
  namespace: string | undefined,
  { origins }: Building,
): RuleLayer {
  const layer: RuleLayer = {
    name: title,
    evaluation: ruleEvaluation,
    rules: rules.map((rule, index) =>
      origins.note(ruleOf(rule, index), originOf(place, ['rules', index], accessRule, rule)),
    ),
    namespace,
  }
  const rulesPlace = place.within(['rules'])
  return origins.note(layer, { at: rulesPlace.at, given: rulesPlace.given, parts: () => [] })
}

/** The rate limits of one document; every one is enforced. */
export function limitsOf(
  value: TypeOf<typeof rateLimits>,
  place: Place,
  { title }: Manifest,
  { origins }: Building,
): RateLimit[] {
  const limits = (value.limits ?? []).map((limit, index) => {
    const { dimension, tools, requests, unit } = limit
    const made = { name: `${title} limit-${index + 1}`, dimension, tools, requests, windowMs: UNITS[unit] }
    const shown = tools.length === 0 ? '' : ` of ${tools.join(', ')}`
    const text = `${requests} per ${unit} and ${dimension}${shown}`
    return note(origins, made, place, ['limits', index], text)
  })
  const earlier = (['perUser', 'perIP'] as const).flatMap((key) =>
    (['requestsPerSecond', 'requestsPerMinute', 'requestsPerHour'] as const).flatMap((unit): RateLimit[] => {
      const requests = value[key]?.[unit]
      if (requests === undefined) return []
      const dimension = key === 'perUser' ? 'user' : 'ip'
      const made = {
        name: `${title} ${key}.${unit}`,
        dimension,
        tools: [],
        requests,
        windowMs: PER_UNIT[unit],
      } as const
      return [note(origins, made, place, [key, unit], String(requests))]
    }),
  )
  return [...limits, ...earlier]
}

function note<T extends object>(
  origins: Building['origins'],
  made: T,
  place: Place,
  path: readonly (string | number)[],
  shown: string,
): T {
  const inner = place.within(path)
  return origins.note(made, { at: inner.at, given: inner.given, parts: () => [{ path: [], shown }] })
}

/** The times of one route, for all its methods. */
export function timeoutOf(value: TypeOf<typeof timeouts>, place: Place, { origins }: Building): TimeoutRule {
  const { request, backendRequest } = value
  const timeoutMs = backendRequest ?? request ?? 0
  const rule = { methods: ['*'], tools: [], timeoutMs, maxMs: request ?? timeoutMs }
  return origins.note(rule, originOf(place, [], timeouts, value))
}

/** `authzConfig` of ToolHive. */
export async function cedarOf(
  value: TypeOf<typeof authzConfig>,
  place: Place,
  { title }: Manifest,
  server: string,
  { references, problems }: Building,
): Promise<CedarPolicy | undefined> {
  const frame = { server, schema: undefined, decimalNumbers: false }
  const { configMap, inline } = value
  if (inline !== undefined) {
    const written = { policies: inline.policies, entities_json: inline.entitiesJSON }
    const parsed = toolhiveCedar.parse(written)
    if (parsed.ok) return toolhivePolicy(parsed.value, `${title} authzConfig`, frame)
    problems.push(
      ...parsed.faults.map(({ path, message }) =>
        place.problem({
          path: ['inline', ...path.map((part) => (part === 'entities_json' ? 'entitiesJSON' : part))],
          message,
        }),
      ),
    )
    return undefined
  }
  if (configMap === undefined) return undefined
  const reference = { ...configMap, optional: undefined }
  const text = await references.text('ConfigMap', reference, place, ['configMap'])
  if (text === undefined) return undefined
  const name = `${configMap.name}/${configMap.key}`
  const parsed = readValue(toolhiveFile, text, name)
  if (parsed.ok) return toolhivePolicy(parsed.value.cedar, name, frame)
  problems.push(...parsed.problems)
  return undefined
}
