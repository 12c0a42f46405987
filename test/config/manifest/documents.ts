/** OME documents for tests, and what they come to. */
import type { Test } from 'tap'
import { ConfigError, type Flags, type LoadedConfig, loadConfig } from '../../../src/config/load.ts'

export interface Documents {
  /** `NAME/KEY` and content. */
  readonly secrets?: Readonly<Record<string, string>>
  readonly configMaps?: Readonly<Record<string, string>>
  /** The configuration file beside them. */
  readonly config?: string
  readonly flags?: Flags
  readonly env?: Readonly<Record<string, string>>
}

/** An MCPServer whose spec has these lines more. */
export function server(lines = '', container = ''): string {
  return `apiVersion: ome.io/v1alpha1
kind: MCPServer
metadata: { name: github, namespace: team-a }
spec:
  hosted: { podSpec: { spec: { containers: [{ name: mcp-server, command: [github-mcp]${container} }] } } }
${indented(lines)}`
}

/** An MCPRoute to it. */
export function route(lines = ''): string {
  return `apiVersion: ome.io/v1alpha1
kind: MCPRoute
metadata: { name: search, namespace: team-a }
spec:
  backendRefs: [{ serverRef: { name: github } }]
${indented(lines)}`
}

function indented(lines: string): string {
  return lines.replaceAll(/^(?=.)/gm, '  ')
}

/** Loads one file of documents, with the folders of Secrets and ConfigMaps as they are mounted. */
export async function load(
  t: Test,
  documents: readonly string[],
  { secrets = {}, configMaps = {}, config = '', flags = {}, env = {} }: Documents = {},
): Promise<LoadedConfig> {
  const mounts = `secretsDir: secrets\nconfigMapsDir: configmaps\n`
  const cwd = t.testdir({
    'c.yaml': mounts + config,
    'm.yaml': documents.join('\n---\n'),
    keys: '',
    secrets: folders(secrets),
    configmaps: folders(configMaps),
  })
  const given = { config: 'c.yaml', manifest: ['m.yaml'], ...flags }
  return await loadConfig({ flags: given, env, cwd, command: [] })
}

/** What is wrong, one text each; none when they load. The folder of the test is written as DIR. */
export async function problems(
  t: Test,
  documents: readonly string[],
  more: Documents = {},
): Promise<string[]> {
  try {
    await load(t, documents, more)
    return []
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return error.problems.map(({ where, message }) => `${where}: ${message}`.replaceAll(t.testdirName, 'DIR'))
  }
}

function folders(files: Readonly<Record<string, string>>): Record<string, Record<string, string>> {
  const result: Record<string, Record<string, string>> = {}
  for (const [path, content] of Object.entries(files)) {
    const [name = '', key = ''] = path.split('/')
    result[name] = { ...result[name], [key]: content }
  }
  return result
}
