import type { Field } from './field.ts'
import { FIELDS, fieldList } from './fields.ts'
import { CONFIG_FLAG, type Flags, flagOf, VARIABLE_PREFIX, VARIABLES } from './flags.ts'
import { Layer } from './layer.ts'
import { bad } from './parsed.ts'

/** The environment, as `process.env` gives it. */
export type Environment = Readonly<Record<string, string | undefined>>

/** Reads the flags and the command that follows `--`; relative paths start at `cwd`. */
export function readFlags(flags: Flags, command: readonly string[], cwd: string): Layer {
  const layer = new Layer()
  if (command.length > 0)
    layer.enter('server.command', FIELDS['server.command'].type.parse(command), cwd, () => 'command line')
  for (const [key, field] of fieldList) {
    const spec = flagOf(field)
    const given = spec === undefined ? undefined : flags[spec.key]
    if (spec === undefined || given === undefined) continue
    // A repeated flag gives one item each time: commas in it are part of the item.
    const input = spec.repeatable && typeof given === 'string' ? [given] : given
    const parsed = typeof input === 'string' ? field.type.parseText(input) : field.type.parse(input)
    layer.enter(key, parsed, cwd, () => spec.flag)
  }
  return layer
}

/**
 * Reads the `MCP_SIDECAR_*` variables; relative paths start at `cwd`. One that is not known is an error: a misspelt
 * setting would otherwise silently do nothing.
 */
export async function readVariables(env: Environment, cwd: string): Promise<Layer> {
  const layer = new Layer()
  for (const [name, value] of Object.entries(env)) {
    if (!name.startsWith(VARIABLE_PREFIX) || value === undefined || isServiceLink(name, value)) continue
    // What documents refer to may stand in one; which, they say.
    if (/^MCP_SIDECAR_(SECRET|CONFIGMAP)_/.test(name)) continue
    const key = VARIABLES.get(name)
    if (key !== undefined) {
      const { type }: Field<unknown> = FIELDS[key]
      const parsed = value === '' ? bad('is empty: give it a value or unset it') : type.parseText(value)
      layer.enter(key, parsed, cwd, () => name)
    } else if (!VARIABLES.has(name))
      layer.problems.push({ where: name, message: await unknownVariable(name) })
  }
  return layer
}

/** A file and who names it: a flag or a variable. */
export interface NamedFile {
  readonly path: string
  readonly where: string
}

/** The configuration file; undefined when none is named. */
export function configFile(flags: Flags, env: Environment): NamedFile | undefined {
  const flag = flags[CONFIG_FLAG.key]
  if (typeof flag === 'string') return { path: flag, where: CONFIG_FLAG.flag }
  const variable = env[CONFIG_FLAG.variable]
  return variable === undefined ? undefined : { path: variable, where: CONFIG_FLAG.variable }
}

async function unknownVariable(name: string): Promise<string> {
  // Needed for mistakes only, and each module costs time at every start.
  const { nearest } = await import('./nearest.ts')
  const known = [...VARIABLES.keys()]
  const bare = known.map((variable) => variable.slice(VARIABLE_PREFIX.length))
  const near = nearest(name.slice(VARIABLE_PREFIX.length), bare)
  const advice =
    near === undefined ? `known are ${known.join(', ')}` : `did you mean ${VARIABLE_PREFIX}${near}?`
  return `is not a variable of mcp-sidecar: ${advice}`
}

/**
 * Kubernetes gives every container of a namespace variables about each Service in it. A Service whose name begins with
 * `mcp-sidecar` makes `MCP_SIDECAR_PORT=tcp://10.0.0.1:80` and the like, which nobody meant as configuration.
 */
function isServiceLink(name: string, value: string): boolean {
  if (/_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)$/.test(name)) return true
  if (/_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$/.test(name)) return true
  return name.endsWith('_PORT') && /^(tcp|udp|sctp):\/\//.test(value)
}
