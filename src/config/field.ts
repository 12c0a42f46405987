import type { AuditSettings } from './audit-values.ts'
import type { AuthSettings } from './auth-values.ts'
import type { AuthzSettings } from './authz-values.ts'
import type { Config, ConfigKey, ValueAt } from './config.ts'
import type { LimitSettings } from './limit-values.ts'
import type { PermissionsSetting } from './permissions/setting.ts'
import type { ValueType } from './values.ts'

/** A value the file can hold. */
export type FileValue = string | number | boolean | readonly string[] | Readonly<Record<string, string>>

/** What stands in when nobody gives a value. */
export type Fallback<T> =
  /** A value as the file would write it. */
  | { readonly default: FileValue }
  /** No value; `means` says what then happens. */
  | { readonly absent: T; readonly means: string }
  /** The value of another field. */
  | { readonly inherits: ConfigKey }

/** Everything there is to know about one value of the configuration. */
export type Field<T> = Fallback<T> & {
  /** Its place in the file, dotted. */
  readonly file: string
  readonly type: ValueType<Exclude<T, undefined>>
  /** Sentences; the first one, without its full stop, is the help of the flag. */
  readonly doc: string
  /** Its flag without the dashes, from which the variable takes its name too; `placeholder` where a value follows. */
  readonly flag?: string
  readonly placeholder?: string
  /** The flag may be given several times. */
  readonly repeatable?: true
  /** The variable, where there is no flag to name it after. */
  readonly variable?: string
}

/** What `Config.policy` is made of, as the file has it. */
export interface PolicySettings extends AuthSettings, AuthzSettings, LimitSettings, AuditSettings {}

/** What else is not in `Config` as it is in the file: what a profile is made of, and what only the checks read. */
export interface OtherSettings {
  readonly permissions: PermissionsSetting | undefined
  readonly requirePermissions: boolean
  readonly 'server.envAllowDangerous': boolean
}

/** The values of `Config`, and those that others of it are made of. */
export type SettingKey = ConfigKey | keyof PolicySettings | keyof OtherSettings

export type ValueOf<K extends SettingKey> = K extends ConfigKey
  ? ValueAt<Config, K>
  : K extends keyof PolicySettings
    ? PolicySettings[K]
    : K extends keyof OtherSettings
      ? OtherSettings[K]
      : never

/** The fields whose keys begin with one of these words. */
export type FieldsOf<Head extends string> = {
  readonly [K in SettingKey as K extends Head | `${Head}.${string}` ? K : never]: Field<ValueOf<K>>
}
