import type { Config } from './config.ts'
import type { Problem } from './error.ts'
import type { Field, SettingKey, ValueOf } from './field.ts'
import { FIELDS } from './fields.ts'
import type { Origins } from './origins.ts'
import type { Path } from './parsed.ts'
import type { Addition } from './policy.ts'

/** What a rule sees: the values, and where each was given (`default` where nobody gave it). */
export interface Checked {
  readonly config: Config
  /** A value as it was given, without the base set that `config.server.envAllow` holds too. */
  readonly value: <K extends SettingKey>(key: K) => ValueOf<K>
  readonly at: (key: SettingKey, path?: Path) => string
  /** Where the parts of `config.policy` come from. */
  readonly origins: Origins
  /** What the documents say. */
  readonly addition: Addition
}

/** A demand on several values at once. */
export interface Rule {
  /** It is skipped when one of these was given wrongly. */
  readonly reads: readonly SettingKey[]
  /** The demand, for the reference. */
  readonly doc: string
  readonly check: (checked: Checked) => readonly Problem[]
}

/** The first of `keys` that somebody gave; all at their default: the first. */
export function given({ at }: Checked, ...keys: readonly [SettingKey, ...SettingKey[]]): string {
  return at(keys.find((key) => at(key) !== 'default') ?? keys[0])
}

export function show(key: SettingKey, value: unknown): string {
  const { file, type }: Field<unknown> = FIELDS[key]
  return `${file} ${type.show(value)}`
}
