import { type BuiltinName, builtinNames, builtinProfile } from '../../core/profile.ts'
import { nearest } from '../nearest.ts'
import { isSection } from '../object.ts'
import { bad, good, type Parsed, quote } from '../parsed.ts'
import { text, type ValueType } from '../values.ts'
import { type ProfileSettings, profileSettings } from './profile-values.ts'

/** A builtin profile, a file that holds one, or one that is written out. */
export type PermissionsSetting =
  | { readonly builtin: BuiltinName }
  | { readonly file: string }
  | { readonly inline: ProfileSettings }

const named = text('', {}, good)

function parseName(input: unknown): Parsed<PermissionsSetting> {
  const word = named.parse(input)
  if (!word.ok) return word
  const known = builtinProfile(word.value)
  if (known !== undefined) return good({ builtin: known.name as BuiltinName })
  // What looks like a file is one, however near its name.
  const near = /[./]/.test(word.value) ? undefined : nearest(word.value, [...builtinNames, 'network-only'])
  return near === undefined
    ? good({ file: word.value })
    : bad(`${quote(word.value)} is no builtin profile: did you mean ${near}? (a file: ./${word.value})`)
}

/** `none`, `network`, `full-access`, the path of a file, or a profile written out in the notation of the sidecar. */
export const permissionsType: ValueType<PermissionsSetting> = {
  name: '`none`, `network`, `full-access`, path of a file, or section',
  json: {
    anyOf: [
      { type: 'string', minLength: 1 },
      { ...profileSettings.json, minProperties: 1 },
    ],
  },
  parse: (input) => {
    if (!isSection(input)) return parseName(input)
    if (Object.keys(input).length === 0)
      return bad('is empty: the profile that grants nothing is written permissions: none')
    const parsed = profileSettings.parse(input)
    return parsed.ok ? good({ inline: parsed.value }) : parsed
  },
  parseText: parseName,
  show: (setting) => {
    if ('builtin' in setting) return setting.builtin
    return 'file' in setting ? setting.file : profileSettings.show(setting.inline)
  },
  mapPaths: (setting, visit, at) => ('file' in setting ? { file: visit(setting.file, 'file', at) } : setting),
  members: profileSettings.members ?? [],
}
