import { dirname, resolve } from 'node:path'
import type { Config } from './config.ts'
import type { ReadFile } from './disk.ts'
import { BASE_ENVIRONMENT } from './environment.ts'
import { ConfigError, type Problem } from './error.ts'
import type { Field, SettingKey, ValueOf } from './field.ts'
import { FIELDS, fieldList } from './fields.ts'
import type { Flags } from './flags.ts'
import type { Layer, Setting } from './layer.ts'
import { RULES } from './rules.ts'
import { configFile, type Environment, readFlags, readVariables } from './sources.ts'

export type { Config, ConfigKey, LogLevel } from './config.ts'
export { ConfigError, type Problem } from './error.ts'
export { FLAGS, type FlagSpec, type Flags } from './flags.ts'

export interface LoadInput {
  /** Parsed options, by `FlagSpec.key`; an option that was not given is undefined. */
  readonly flags: Flags
  readonly env: Environment
  /** Absolute; where relative paths of flags and variables start. */
  readonly cwd: string
  /** What follows `--`; empty when nothing does. */
  readonly command: readonly string[]
  /** Default: the file system, at most 1 MiB. */
  readonly readFile?: ReadFile
}

export interface LoadedConfig {
  readonly config: Config
  /** Every value as it was given, with its origin. */
  readonly settings: ReadonlyMap<SettingKey, Setting>
  /** Absolute paths of the configuration file and the files it names: what to watch for a reload. */
  readonly files: readonly string[]
}

/**
 * The configuration from flags, `MCP_SIDECAR_*` variables, file and defaults, in this order of precedence. Reads only
 * what it is given, so that a reload is a second call with the same input. YAML and schema code is loaded only when
 * there is a file. Throws `ConfigError` with everything that is wrong.
 */
export async function loadConfig(input: LoadInput): Promise<LoadedConfig> {
  const layers = [readFlags(input.flags, input.command, input.cwd), await readVariables(input.env, input.cwd)]
  const named = configFile(input.flags, input.env)
  if (named !== undefined) {
    // Only now: this import costs more than the rest of the start.
    const { readConfigFile } = await import('./file.ts')
    layers.push(await readConfigFile(named, input.cwd, input.readFile))
  }

  const settings = settingsOf(layers)
  const config = assemble(settings)
  const problems = layers.flatMap((layer) => layer.problems)
  problems.push(...(await missingFiles(settings)))
  if (!layers.some(({ unreadable }) => unreadable)) problems.push(...brokenRules(config, settings, layers))
  if (problems.length > 0) throw new ConfigError(problems)
  const file = named === undefined ? undefined : resolve(input.cwd, named.path)
  const files = [file, config.auth.bearerTokenFile].filter((path) => path !== undefined)
  return { config, settings, files }
}

function settingsOf(layers: readonly Layer[]): Map<SettingKey, Setting> {
  const settings = new Map<SettingKey, Setting>()
  for (const [key, field] of fieldList) {
    const given = layers.find((layer) => layer.settings.has(key))?.settings.get(key)
    // What a field inherits from stands before it in the table.
    const inherited = 'inherits' in field ? settings.get(field.inherits) : undefined
    settings.set(key, given ?? inherited ?? { value: fallback(field), where: 'default', at: () => 'default' })
  }
  return settings
}

function fallback(field: Field<unknown>): unknown {
  if (!('default' in field)) return 'absent' in field ? field.absent : undefined
  const parsed = field.type.parse(field.default)
  if (!parsed.ok) throw new TypeError(`the default of ${field.file} is not valid`)
  return parsed.value
}

function assemble(settings: ReadonlyMap<SettingKey, Setting>): Config {
  const config: Record<string, unknown> = {}
  for (const [key, { value }] of settings) {
    if (key === 'server.envAllowDangerous') continue
    const [head, name] = key.split('.') as [string, string?]
    if (name === undefined) config[head] = value
    else config[head] = { ...(config[head] as object | undefined), [name]: value }
  }
  // The type of the table demands one field for each value of `Config`, so nothing is left out.
  const complete = config as unknown as Config
  const envAllow = [...new Set([...BASE_ENVIRONMENT, ...complete.server.envAllow])]
  return { ...complete, server: { ...complete.server, envAllow } }
}

function brokenRules(
  config: Config,
  settings: ReadonlyMap<SettingKey, Setting>,
  layers: readonly Layer[],
): readonly Problem[] {
  const failed = (key: SettingKey): boolean => layers.some((layer) => layer.failed.has(key))
  return RULES.filter(({ reads }) => !reads.some(failed)).flatMap(({ check }) =>
    check({
      config,
      value: <K extends SettingKey>(key: K) => settings.get(key)?.value as ValueOf<K>,
      at: (key, path = []) => settings.get(key)?.at(path) ?? 'default',
    }),
  )
}

async function missingFiles(settings: ReadonlyMap<SettingKey, Setting>): Promise<readonly Problem[]> {
  const problems: Problem[] = []
  for (const [key, { value, where }] of settings) {
    const { file, type }: Field<unknown> = FIELDS[key]
    if (type.onDisk === undefined || typeof value !== 'string') continue
    const { missing } = await import('./disk.ts')
    const reason = await missing(type.onDisk, value)
    // Only the folder is repeated: a token written where its file belongs must not get into a log.
    if (reason !== undefined)
      problems.push({
        where,
        message: `the ${type.onDisk} of ${file} ${reason} (looked in ${dirname(value)})`,
      })
  }
  return problems
}
