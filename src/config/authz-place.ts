import type { LoadedConfig } from './load.ts'
import type { Path } from './parsed.ts'

/**
 * Where a part of `config.policy.authz` stands, as `file:line:column`.
 *
 * @param path below the policy: `['layers', 0, 'rules', 2, 'conditions', 0]`
 */
export function authzPlace({ config, origins, settings }: LoadedConfig, path: Path): string {
  const { layers, scopes, toolsFilters } = config.policy.authz
  const [part, index, ...rest] = path
  const number = Number(index)
  switch (part) {
    case 'layers': {
      const layer = layers[number]
      const [below, which, ...inner] = rest
      const rule = below === 'rules' ? layer?.rules[Number(which)] : undefined
      const origin = rule === undefined ? layer && origins.of(layer) : origins.of(rule)
      return origin?.at(rule === undefined ? [] : inner) ?? 'default'
    }
    case 'scopes':
      return (scopes[number] && origins.of(scopes[number])?.at(rest)) ?? 'default'
    case 'toolsFilters':
      return (toolsFilters[number] && origins.of(toolsFilters[number])?.at(rest)) ?? 'default'
    case 'impliedScopes':
      return settings.get('authorization.impliedScopes')?.at(path.slice(1)) ?? 'default'
    default:
      return settings.get('authorization.cedar')?.at(path.slice(1)) ?? 'default'
  }
}
