import type { Profile } from '../../core/sandbox.ts'
import { ConfigError } from '../error.ts'
import type { Setting } from '../layer.ts'
import { writtenOut } from '../permissions/notation.ts'
import { readProfile } from '../permissions/read.ts'
import { type Building, reported } from './building.ts'
import type { ServerManifest } from './read.ts'

/**
 * The `permissionProfile` of an MCPServer.
 *
 * @param own what flag, variable or file say instead
 */
export async function permissionsOf(
  manifest: ServerManifest,
  own: Pick<Setting, 'value' | 'where'>,
  building: Building,
): Promise<Profile | undefined> {
  const { spec, title } = manifest
  const settings = spec.permissionProfile
  if (settings === undefined) return undefined
  const { builtin, configMap } = settings
  if (own.value !== undefined) {
    const which = builtin ?? (configMap === undefined ? 'written out' : `in ConfigMap ${configMap.name}`)
    reported(building, manifest, `permissionProfile (${which})`, `${own.where} says another one instead`)
  }
  const place = manifest.place.within(['permissionProfile'])
  if (configMap !== undefined) return await mounted(configMap, place, building)
  const made = writtenOut(settings, title)
  // Faults are those of a ConfigMap, of which there is none here.
  if (!made.ok) return undefined
  const { profile, warnings, source } = made.value
  building.warnings.push(...warnings.map((fault) => place.problem(fault)))
  return building.origins.note(
    { ...profile },
    {
      at: (path) => place.at(source(path)),
      given: (path) => place.given(source(path)),
      parts: () => [],
    },
  )
}

type Reference = NonNullable<NonNullable<ServerManifest['spec']['permissionProfile']>['configMap']>

async function mounted(
  reference: Reference,
  place: ServerManifest['place'],
  { references, problems, warnings, origins }: Building,
): Promise<Profile | undefined> {
  // Without it the server would be left unconfined.
  const text = await references.text('ConfigMap', { ...reference, optional: undefined }, place, ['configMap'])
  if (text === undefined) return undefined
  const name = `${reference.name}/${reference.key}`
  try {
    const found = readProfile(text, name, name)
    warnings.push(...found.warnings)
    return origins.note(found.profile, { at: found.at, given: found.given, parts: () => [] })
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    problems.push(...error.problems)
    return undefined
  }
}
