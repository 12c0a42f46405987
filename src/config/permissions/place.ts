import type { LoadedConfig } from '../load.ts'
import type { Path } from '../parsed.ts'

/**
 * Where a part of `config.permissions` stands, as `file:line:column`, or the nearest thing around it; where the profile
 * was named, when it is a builtin one.
 *
 * @param path in the profile: `['filesystem', 'read', 0]`, `['network', 'hosts', 1]`
 */
export function permissionPlace(
  { config, origins }: Pick<LoadedConfig, 'config' | 'origins'>,
  path: Path,
): string {
  const { permissions } = config
  return (permissions && origins.of(permissions)?.at(path)) ?? 'default'
}
