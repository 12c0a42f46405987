import { dirname, resolve } from 'node:path'
import type { Config, MadeKey } from './config.ts'
import { type ReadFile, readTextFile } from './disk.ts'
import { BASE_ENVIRONMENT } from './environment.ts'
import { ConfigError, type Problem } from './error.ts'
import type { Field, SettingKey } from './field.ts'
import { FIELDS, fieldList, isPolicyKey } from './fields.ts'
import type { Flags } from './flags.ts'
import { givenBy, nowhere } from './given.ts'
import { dotted, Layer, type Setting } from './layer.ts'
import type { Documents } from './manifest/load.ts'
import type { Start } from './manifest/server.ts'
import { Origins } from './origins.ts'
import type { Path } from './parsed.ts'
import { buildPermissions } from './permissions/build.ts'
import { type OwnPath, protectedPaths } from './permissions/protected.ts'
import { buildPolicy, NO_ADDITION } from './policy.ts'
import { RULES } from './rules.ts'
import { configFile, type Environment, readFlags, readVariables } from './sources.ts'

export type { Config, ConfigKey, LogLevel } from './config.ts'
export { ConfigError, type Problem } from './error.ts'
export { FLAGS, type FlagSpec, type Flags } from './flags.ts'
export type { Origin } from './origins.ts'

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
  /** Where the layers, methods, rules and limits of `config.policy` come from. */
  readonly origins: Origins
  /** What works and should still be known. */
  readonly warnings: readonly Problem[]
  /** Absolute paths of the configuration file and the files it names: what to watch for a reload. */
  readonly files: readonly string[]
}

/**
 * The configuration from flags, `MCP_SIDECAR_*` variables, file and defaults, in this order of precedence. Reads only
 * what it is given, so that a reload is a second call with the same input. YAML and schema code is loaded only when
 * there is a file. Throws `ConfigError` with everything that is wrong.
 */
export async function loadConfig(input: LoadInput): Promise<LoadedConfig> {
  const read = input.readFile ?? readTextFile
  const layers = [readFlags(input.flags, input.command, input.cwd), await readVariables(input.env, input.cwd)]
  const named = configFile(input.flags, input.env)
  if (named !== undefined) {
    // Only now: this import costs more than the rest of the start.
    const { readConfigFile } = await import('./file.ts')
    layers.push(await readConfigFile(named, input.cwd, read))
  }
  const problems: Problem[] = []
  const origins = new Origins()
  const documents = await documentsOf(settingsOf(layers), input, read, origins)
  if (documents !== undefined) layers.push(documentLayer(documents, layers, input.cwd))

  const settings = settingsOf(layers)
  if (documents?.start !== undefined) addVariables(settings, documents.start)
  const frame = assemble(settings)
  const given = givenBy(settings)
  const addition = documents?.addition ?? NO_ADDITION
  const policy = await buildPolicy({ given, config: frame, addition, origins, read, problems })
  const warnings = [...(documents?.warnings ?? [])]
  const chosen = await buildPermissions({ given, origins, read, cwd: input.cwd, problems, warnings })
  const paths = pathsOf(settings)
  const file = named === undefined ? [] : [resolve(input.cwd, named.path)]
  const permissions = chosen ?? documents?.permissions
  const own = protectedPaths(paths, [...file, ...(documents?.files ?? [])])
  const config: Config = { ...frame, policy, permissions, protectedPaths: own }

  problems.unshift(...layers.flatMap((layer) => layer.problems))
  // In another container nothing can be looked at.
  const here = config.server.socket === undefined ? paths : paths.filter(({ use }) => use !== 'folder')
  const unread = await unusable(here)
  // Whoever tried to read one of them has said so already.
  problems.push(...unread.filter(({ where }) => !problems.some((other) => other.where === where)))
  if (!layers.some(({ unreadable }) => unreadable)) {
    const failed = (key: SettingKey): boolean => layers.some((layer) => layer.failed.has(key))
    const { value, setting } = given
    const at = (key: SettingKey, path: Path = []): string => setting(key).at(path)
    const rules = RULES.filter(({ reads }) => !reads.some(failed))
    problems.push(...rules.flatMap(({ check }) => check({ config, value, at, origins, addition })))
  }
  if (problems.length > 0) throw new ConfigError(problems)
  const watched = paths.filter(({ use }) => use === 'file').map(({ path }) => path)
  const files = [...new Set([...file, ...watched, ...(documents?.files ?? [])])]
  return { config, settings, origins, warnings, files }
}

async function documentsOf(
  settings: ReadonlyMap<SettingKey, Setting>,
  { env, cwd }: LoadInput,
  read: ReadFile,
  origins: Origins,
): Promise<Documents | undefined> {
  const given = givenBy(settings)
  if (given.value('manifests').length === 0) return undefined
  const { loadManifests } = await import('./manifest/load.ts')
  return await loadManifests({ given, env, cwd, read, origins })
}

/** What documents say about the server, which everything else comes before. */
function documentLayer({ start, problems }: Documents, layers: readonly Layer[], cwd: string): Layer {
  const layer = new Layer()
  layer.problems.push(...problems)
  if (problems.length > 0) layer.failed.add('manifests')
  if (start === undefined || layers.some(({ settings }) => settings.has('server.command'))) return layer
  const { command, commandWhere } = start
  if (command.length > 0) {
    layer.enter('server.command', FIELDS['server.command'].type.parse(command), cwd, () => commandWhere)
    return layer
  }
  layer.failed.add('server.command')
  const message =
    'the container mcp-server has no command: write it out, since the entrypoint of its image is not known here'
  layer.problems.push({ where: commandWhere, message })
  return layer
}

/** Variables of the document beside those of the file, which win. */
function addVariables(settings: Map<SettingKey, Setting>, { env, envWhere }: Start): void {
  if (Object.keys(env).length === 0) return
  const { setting, value } = givenBy(settings)
  const [own, mine] = [setting('server.envSet'), value('server.envSet')]
  const at = (path: Path): string => {
    const [name] = path
    if (name === undefined) return own.where === 'default' ? envWhere(undefined) : own.where
    return Object.hasOwn(mine, name) ? own.at(path) : envWhere(String(name))
  }
  settings.set('server.envSet', { value: { ...env, ...mine }, where: at([]), at, given: at })
}

function settingsOf(layers: readonly Layer[]): Map<SettingKey, Setting> {
  const settings = new Map<SettingKey, Setting>()
  for (const [key, field] of fieldList) {
    const given = layers.find((layer) => layer.settings.has(key))?.settings.get(key)
    // What a field inherits from stands before it in the table.
    const inherited = 'inherits' in field ? settings.get(field.inherits) : undefined
    settings.set(key, given ?? inherited ?? { ...nowhere, value: fallback(field) })
  }
  return settings
}

function fallback(field: Field<unknown>): unknown {
  if (!('default' in field)) return 'absent' in field ? field.absent : undefined
  const parsed = field.type.parse(field.default)
  if (!parsed.ok) throw new TypeError(`the default of ${field.file} is not valid`)
  return parsed.value
}

/** Read by the checks, or by what is made of them, alone. */
const unused: ReadonlySet<SettingKey> = new Set([
  'server.envAllowDangerous',
  'permissions',
  'requirePermissions',
])

function assemble(settings: ReadonlyMap<SettingKey, Setting>): Omit<Config, MadeKey> {
  const config: Record<string, unknown> = {}
  for (const [key, { value }] of settings) {
    if (unused.has(key) || isPolicyKey(key)) continue
    const [head, name] = key.split('.') as [string, string?]
    if (name === undefined) config[head] = value
    else config[head] = { ...(config[head] as object | undefined), [name]: value }
  }
  // The type of the table demands one field for each value of `Config`, so nothing is left out.
  const complete = config as unknown as Omit<Config, MadeKey>
  const envAllow = [...new Set([...BASE_ENVIRONMENT, ...complete.server.envAllow])]
  const { sessions, sessionsPerPrincipal } = complete.limits
  return {
    ...complete,
    server: { ...complete.server, envAllow },
    limits: { ...complete.limits, sessionsPerPrincipal: Math.min(sessions, sessionsPerPrincipal) },
  }
}

interface NamedPath extends OwnPath {
  readonly where: string
  /** Of the value, for messages. */
  readonly name: string
}

/** Every path that the settings name. */
function pathsOf(settings: ReadonlyMap<SettingKey, Setting>): readonly NamedPath[] {
  const paths: NamedPath[] = []
  for (const [key, { value, at }] of settings) {
    const { file, type }: Field<unknown> = FIELDS[key]
    if (value === undefined) continue
    type.mapPaths?.(
      value,
      (path, use, inner) => {
        paths.push({ path, use, where: at(inner), name: dotted(file, inner) })
        return path
      },
      [],
    )
  }
  return paths
}

async function unusable(paths: readonly NamedPath[]): Promise<readonly Problem[]> {
  const problems: Problem[] = []
  for (const { path, use, where, name } of paths) {
    if (use === 'place') continue
    const { missing } = await import('./disk.ts')
    const kind = use === 'folder' ? 'folder' : 'file'
    const reason = use === 'output' ? await missing('folder', dirname(path)) : await missing(kind, path)
    // Only the folder is repeated: a token written where its file belongs must not get into a log.
    if (reason !== undefined)
      problems.push({
        where,
        message: `the ${use === 'output' ? 'folder' : kind} of ${name} ${reason} (looked in ${dirname(path)})`,
      })
  }
  return problems
}
