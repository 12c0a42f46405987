/**
 * The official JSON schemas of the protocol, as the conformance suite ships them: inside its bundle, for it exports
 * nothing. They are cut out once and kept beside the installed packages.
 */
import { mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { runInNewContext } from 'node:vm'

export const versions = ['2024-11-05', '2025-03-26', '2025-06-18', '2025-11-25', '2026-07-28'] as const
export type Version = (typeof versions)[number]

export function isVersion(text: unknown): text is Version {
  return (versions as readonly unknown[]).includes(text)
}

/** A schema, or a part of one. */
// biome-ignore lint/suspicious/noExplicitAny: what it holds is known to its validator alone
export type Schema = Record<string, any>

/** How the schemas are told apart in the bundle, which knows them by minified names: what only that version defines. */
const shipped: readonly (readonly [Version, (names: Schema) => boolean])[] = [
  ['2025-03-26', (names) => 'JSONRPCBatchRequest' in names],
  ['2025-06-18', (names) => 'ElicitRequest' in names && 'JSONRPCError' in names],
  ['2025-11-25', (names) => 'CreateTaskResult' in names],
  ['2026-07-28', (names) => 'DiscoverRequest' in names],
]

const modules = fileURLToPath(new URL('../../node_modules', import.meta.url))
const bundle = join(modules, 'mcp-schemas', 'dist', 'index.js')
let loaded: Readonly<Record<Version, Schema>> | undefined

export function schemas(): Readonly<Record<Version, Schema>> {
  loaded ??= cached() ?? kept(extract(readFileSync(bundle, 'utf8')))
  return loaded
}

export function definitionsOf(schema: Schema): Schema {
  return schema['$defs'] ?? schema['definitions']
}

/** Another bundle, or another way to read it, makes another file. */
function cacheFile(): string {
  const { size, mtimeMs } = statSync(bundle)
  const own = statSync(fileURLToPath(import.meta.url))
  return join(modules, '.cache', 'mcp-schemas', `${size}-${mtimeMs}-${own.size}-${own.mtimeMs}.json`)
}

function cached(): Record<Version, Schema> | undefined {
  try {
    return JSON.parse(readFileSync(cacheFile(), 'utf8')) as Record<Version, Schema>
  } catch {
    return undefined
  }
}

function kept(found: Record<Version, Schema>): Record<Version, Schema> {
  const file = cacheFile()
  mkdirSync(join(file, '..'), { recursive: true })
  // Test files run side by side: none may read what another has half written.
  writeFileSync(`${file}.${process.pid}`, JSON.stringify(found))
  renameSync(`${file}.${process.pid}`, file)
  return found
}

/** @throws when the bundle does not hold what it should: another release of it needs another look */
export function extract(source: string): Record<Version, Schema> {
  const found: Partial<Record<Version, Schema>> = {}
  for (const literal of literals(source)) {
    const names = definitionsOf(literal)
    if (names?.['JSONRPCMessage'] === undefined) continue
    const version = shipped.find(([, is]) => is(names))?.[0]
    if (version === undefined || version in found) throw new Error('the bundled schemas cannot be told apart')
    found[version] = withFractions(literal)
  }
  const missing = shipped.filter(([version]) => !(version in found))
  if (missing.length > 0) throw new Error(`the bundle has no schema of ${missing.map(([name]) => name)}`)
  found['2024-11-05'] = before20250326(found['2025-03-26'] as Schema)
  return found as Record<Version, Schema>
}

/** Object literals that begin with $schema and use no names. */
function literals(source: string): Schema[] {
  const found: Schema[] = []
  for (const { index } of source.matchAll(/\{"?\$schema"?:[`"']https?:/g)) {
    const end = endOfLiteral(source, index)
    try {
      const value = runInNewContext(`(${source.slice(index, end)})`, Object.create(null), { timeout: 5000 })
      // Plain objects of this realm, which compare like any other.
      found.push(JSON.parse(JSON.stringify(value)) as Schema)
    } catch (thrown) {
      if ((thrown as Error).name !== 'ReferenceError') throw thrown
    }
  }
  return found
}

function endOfLiteral(source: string, start: number): number {
  let depth = 0
  for (let i = start; i < source.length; i++) {
    const char = source[i] as string
    if (char === '{' || char === '[') depth++
    else if (char === '}' || char === ']') {
      if (--depth === 0) return i + 1
    } else if (char === '`' || char === '"' || char === "'") {
      for (i++; source[i] !== char; i++) if (source[i] === '\\') i++
    }
  }
  throw new Error('a schema in the bundle has no end')
}

/** The generator once wrote `integer` where the protocol means any number; later official copies are corrected. */
function withFractions(schema: Schema): Schema {
  const { properties } = definitionsOf(schema)['NumberSchema'] ?? {}
  for (const name of ['minimum', 'maximum', 'default']) {
    if (properties?.[name]?.type === 'integer') properties[name].type = 'number'
  }
  return schema
}

/**
 * The suite has no schema of 2024-11-05. 2025-03-26 only added to it: audio, batches, annotations of tools, completions
 * as a capability and the message of a progress notification. Without them it says what 2024-11-05 says.
 */
function before20250326(later: Schema): Schema {
  const schema = structuredClone(later)
  const names = definitionsOf(schema)
  const withoutAudio = (part: unknown): void => {
    if (typeof part !== 'object' || part === null) return
    const { anyOf } = part as Schema
    if (Array.isArray(anyOf)) {
      const kept = anyOf.filter(({ $ref }) => $ref !== '#/definitions/AudioContent')
      ;(part as Schema)['anyOf'] = kept
    }
    for (const inner of Object.values(part)) withoutAudio(inner)
  }
  withoutAudio(schema)
  const message = names['JSONRPCMessage']
  message.anyOf = message.anyOf.filter(({ type }: Schema) => type !== 'array')
  for (const gone of ['AudioContent', 'JSONRPCBatchRequest', 'JSONRPCBatchResponse', 'ToolAnnotations']) {
    delete names[gone]
  }
  delete names['Tool'].properties.annotations
  delete names['ServerCapabilities'].properties.completions
  delete names['ProgressNotification'].properties.params.properties.message
  return schema
}
