import { builtinProfile } from '../../core/profile.ts'
import { nearest } from '../nearest.ts'
import { isSection } from '../object.ts'
import { bad, good, kindOf, type Parsed } from '../parsed.ts'
import type { Made } from './made.ts'
import { type OmeSettings, omeProfile, omeSettings } from './ome.ts'
import { ownProfile, profileSettings } from './profile-values.ts'
import { toolhiveProfile, toolhiveSettings } from './toolhive.ts'

/** Keys that only one notation has. `network` is of two, told apart by what is in it. */
const marks = {
  own: ['filesystem', 'env', 'limits', 'allowDegraded'],
  ome: ['builtin', 'configMap', 'inline', 'type'],
  toolhive: ['read', 'write', 'privileged', 'name'],
} as const
type Notation = keyof typeof marks

/** A profile in any notation, known by its keys. `name` is that of the file or document. */
export function profileOf(value: unknown, name: string): Parsed<Made> {
  if (!isSection(value))
    return bad(`must be a section of keys (${marks.own.join(', ')}, network), not ${kindOf(value)}`)
  if (Object.keys(value).length === 0)
    return bad('is empty: the profile that grants nothing is the builtin none')
  if (Object.hasOwn(value, 'apiVersion') && Object.hasOwn(value, 'kind'))
    return bad('this is an OME document: name its file with --manifest (or in manifests)')
  switch (notationOf(value)) {
    case 'own': {
      const parsed = profileSettings.parse(value)
      return parsed.ok ? good(ownProfile(parsed.value, name)) : parsed
    }
    case 'toolhive': {
      const parsed = toolhiveSettings.parse(value)
      return parsed.ok ? good(toolhiveProfile(parsed.value, name)) : parsed
    }
    case 'ome': {
      const parsed = omeSettings.parse(value)
      return parsed.ok ? writtenOut(parsed.value, name) : parsed
    }
  }
}

/** What an MCPServer says, as far as it does not lead to a ConfigMap. */
export function writtenOut({ builtin, inline }: OmeSettings, name: string): Parsed<Made> {
  const known = builtin === undefined ? undefined : builtinProfile(builtin)
  if (known !== undefined) return good({ profile: known, warnings: [], source: () => ['builtin'] })
  if (inline !== undefined) return good(omeProfile(inline, name))
  return bad('names a ConfigMap, which only an MCPServer can: write the profile out', ['configMap'])
}

function notationOf(value: Readonly<Record<string, unknown>>): Notation {
  const keys = Object.keys(value)
  const { network } = value
  const inside = isSection(network) ? Object.keys(network) : []
  const order = ['own', 'ome', 'toolhive'] as const
  const sure = order.find((notation) => keys.some((key) => marks[notation].some((mark) => mark === key)))
  if (sure !== undefined) return sure
  if (inside.some((key) => ['outbound', 'inbound', 'mode'].includes(key))) return 'toolhive'
  // A misspelt key is best explained by those who know the right one.
  return order.find((notation) => keys.some((key) => nearest(key, marks[notation]) !== undefined)) ?? 'own'
}
