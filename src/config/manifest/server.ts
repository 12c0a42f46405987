import type { Building } from './building.ts'
import { reported } from './building.ts'
import type { ServerManifest } from './read.ts'
import type { EnvironmentEntry, ServerSpec } from './server-values.ts'

/** How a document starts the server. */
export interface Start {
  readonly command: readonly string[]
  /** Where it is said. */
  readonly commandWhere: string
  readonly env: Readonly<Record<string, string>>
  readonly envWhere: (name: string | undefined) => string
}

const OPERATOR = 'belongs to the operator'

/**
 * Program and variables of the container `mcp-server`, which is not the one that this runs in: image, folder and whatever
 * Kubernetes alone knows are reported. Undefined for a server without a command.
 */
export async function startOf(manifest: ServerManifest, building: Building): Promise<Start | undefined> {
  const { spec, place } = manifest
  const report = (key: string, why: string): void => reported(building, manifest, key, why)
  reportServer(spec, report)
  if (spec.hosted === undefined) return undefined
  const { containers } = spec.hosted.podSpec.spec
  const index = containers.findIndex(({ name }) => name === 'mcp-server')
  const found = containers[index]
  if (found === undefined) return undefined
  const inside = place.within(['hosted', 'podSpec', 'spec', 'containers', index])
  if (containers.length > 1) report('other containers', OPERATOR)
  if (found.envFrom !== undefined) report('envFrom', 'set the variables in server.env')
  if (found.workingDir !== undefined) report('workingDir', 'set server.cwd')

  const env: Record<string, string> = {}
  for (const [at, entry] of found.env.entries()) {
    const value = await variableValue(entry, at, inside, building, report)
    if (value !== undefined) env[entry.name] = expand(value, env)
  }
  const words = [...(found.command ?? []), ...(found.args ?? [])].map((word) => expand(word, env))
  if (found.command === undefined || found.command.length === 0) {
    if (found.args !== undefined)
      report('args of the container', 'they have no command: the entrypoint of the image is not known')
    return { command: [], commandWhere: inside.at([]), env, envWhere: where(inside, found.env) }
  }
  return { command: words, commandWhere: inside.at(['command']), env, envWhere: where(inside, found.env) }
}

function where(
  inside: ServerManifest['place'],
  entries: readonly EnvironmentEntry[],
): (name: string | undefined) => string {
  return (name) => {
    const index = entries.findIndex((entry) => entry.name === name)
    return inside.at(index < 0 ? ['env'] : ['env', index])
  }
}

async function variableValue(
  { name, value, valueFrom }: EnvironmentEntry,
  index: number,
  inside: ServerManifest['place'],
  { references }: Building,
  report: (key: string, why: string) => void,
): Promise<string | undefined> {
  if (valueFrom === undefined) return value ?? ''
  const path = ['env', index, 'valueFrom']
  const { secretKeyRef, configMapKeyRef } = valueFrom
  if (secretKeyRef !== undefined)
    return await references.text('Secret', secretKeyRef, inside, [...path, 'secretKeyRef'])
  if (configMapKeyRef !== undefined)
    return await references.text('ConfigMap', configMapKeyRef, inside, [...path, 'configMapKeyRef'])
  report(`variable ${name}`, 'only Kubernetes knows its value: set it in server.env')
  return undefined
}

/** `$(NAME)` as Kubernetes expands it: of variables before it, `$$` is a `$`, what is not known stays. */
function expand(text: string, env: Readonly<Record<string, string>>): string {
  return text.replaceAll(/\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)/g, (whole, name: string | undefined) => {
    if (name === undefined) return '$'
    return Object.hasOwn(env, name) ? (env[name] ?? '') : whole
  })
}

function reportServer(spec: ServerSpec, report: (key: string, why: string) => void): void {
  const { hosted, remote } = spec
  if (remote !== undefined) report('remote', 'a server elsewhere is reached by the gateway')
  if (hosted?.replicas !== undefined) report('replicas', OPERATOR)
  for (const key of ['version', 'serviceAccount', 'secrets', 'port', 'targetPort'] as const)
    if (spec[key] !== undefined) report(key, OPERATOR)
}
