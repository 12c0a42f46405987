import type { Field, SettingKey } from './field.ts'
import { fieldList } from './fields.ts'

/** One option of the command line, for whatever registers the options. */
export interface FlagSpec {
  /** Its key among the parsed flags: `bearerTokenFile`. */
  readonly key: string
  /** `--bearer-token-file`. */
  readonly flag: string
  /** What stands for its value in the help; undefined for a flag that takes none. */
  readonly placeholder: string | undefined
  /** One sentence without a full stop, default included. Pass no default to the option itself: it would hide file and variables. */
  readonly description: string
  /** May be given several times; the values are then collected in an array. */
  readonly repeatable: boolean
  /** The variable that says the same. */
  readonly variable: string
}

/** What parsed options look like: by `FlagSpec.key`; other keys are ignored. */
export type Flags = Readonly<Record<string, string | boolean | readonly string[] | undefined>>

export const VARIABLE_PREFIX = 'MCP_SIDECAR_'

/** `bearer-token-file` as `MCP_SIDECAR_BEARER_TOKEN_FILE`. */
function variableOf(flag: string): string {
  return VARIABLE_PREFIX + flag.toUpperCase().replaceAll('-', '_')
}

function keyOf(flag: string): string {
  return flag.replace(/-([a-z])/g, (_match, letter: string) => letter.toUpperCase())
}

function describe(field: Field<unknown>): string {
  const sentence = (/^.*?\.(?=\s|$)/.exec(field.doc)?.[0] ?? field.doc).replace(/\.$/, '').replaceAll('`', '')
  const fallback =
    'default' in field && !Array.isArray(field.default) ? ` (default ${String(field.default)})` : ''
  return sentence + fallback
}

/** The flag and the variable that name the configuration file; they are no part of the configuration itself. */
export const CONFIG_FLAG: FlagSpec = {
  key: 'config',
  flag: '--config',
  placeholder: 'FILE',
  description: 'Configuration file (YAML)',
  repeatable: false,
  variable: `${VARIABLE_PREFIX}CONFIG`,
}

/** The flag of a field, if it has one. */
export function flagOf(field: Field<unknown>): FlagSpec | undefined {
  if (field.flag === undefined) return undefined
  return {
    key: keyOf(field.flag),
    flag: `--${field.flag}`,
    placeholder: field.placeholder,
    description: describe(field),
    repeatable: field.repeatable === true,
    variable: variableOf(field.flag),
  }
}

/** Every option of the command line, `--config` first: the only list of them. */
export const FLAGS: readonly FlagSpec[] = [
  CONFIG_FLAG,
  ...fieldList.flatMap(([, field]) => flagOf(field) ?? []),
]

/** Every variable, with the setting it gives; undefined for the one that names the file. */
export const VARIABLES: ReadonlyMap<string, SettingKey | undefined> = new Map([
  [CONFIG_FLAG.variable, undefined],
  ...fieldList.flatMap(([key, field]): [string, SettingKey][] => {
    const variable = field.variable ?? (field.flag === undefined ? undefined : variableOf(field.flag))
    return variable === undefined ? [] : [[variable, key]]
  }),
])
