import { dirname } from 'node:path'
import { explainReadError, type ReadFile, shortName } from '../disk.ts'
import { type Document, readDocuments } from '../document.ts'
import type { Problem } from '../error.ts'
import { nearest } from '../nearest.ts'
import { isSection, object, optional, required } from '../object.ts'
import { bad, kindOf, type Parsed, quote } from '../parsed.ts'
import type { ValueType } from '../values.ts'
import { Place } from './place.ts'
import {
  GATEWAY_KEYS,
  type GatewayDefaults,
  gatewayDefaults,
  type RouteSpec,
  routeSpec,
} from './route-values.ts'
import { anything, type ServerSpec, serverSpec } from './server-values.ts'
import { objectName } from './values.ts'

interface Read<Kind extends string, Spec> {
  readonly kind: Kind
  readonly spec: Spec
  /** Of `spec`. */
  readonly place: Place
  /** For people, and in the audit log: `MCPRoute team-a/search`. */
  readonly title: string
  readonly name: string | undefined
  readonly namespace: string | undefined
  /** Where relative paths in it start. */
  readonly folder: string
}

export type ServerManifest = Read<'MCPServer', ServerSpec>
export type RouteManifest = Read<'MCPRoute', RouteSpec>
export type GatewayManifest = Read<'gateway defaults', GatewayDefaults>
export type Manifest = ServerManifest | RouteManifest | GatewayManifest

export interface ManifestFile {
  /** Absolute. */
  readonly path: string
  readonly where: string
}

/** Reads files of documents. What is wrong goes to `problems`. */
export async function readManifests(
  files: readonly ManifestFile[],
  cwd: string,
  read: ReadFile,
  problems: Problem[],
): Promise<readonly Manifest[]> {
  const manifests: Manifest[] = []
  for (const { path, where } of files) {
    let text: string
    try {
      text = await read(path)
    } catch (error) {
      problems.push({
        where,
        message: `a file of manifests ${explainReadError(error)} (looked in ${dirname(path)})`,
      })
      continue
    }
    const documents = readDocuments(text, shortName(path, cwd))
    if ('problems' in documents) {
      problems.push(...documents.problems)
      continue
    }
    if (documents.length === 0) problems.push({ where, message: 'a file of manifests holds no document' })
    for (const [index, document] of documents.entries()) {
      const manifest = readManifest(document, index + 1, dirname(path), problems)
      if (manifest !== undefined) manifests.push(manifest)
    }
  }
  return manifests
}

const metadata = object(
  {
    name: required(objectName, 'The name of the object.'),
    namespace: optional(objectName, 'none', 'Its namespace.'),
  },
  { open: true },
)

/** What surrounds a spec. */
const envelope = object({
  apiVersion: required(anything, 'ome.io/v1alpha1'),
  kind: required(anything, 'MCPServer or MCPRoute'),
  metadata: required(metadata, 'Name and namespace.'),
  spec: required(anything, 'What is wanted.'),
  status: optional(anything, 'none', 'Of the operator.'),
})

const KINDS = ['MCPServer', 'MCPRoute', 'ConfigMap']

function readManifest(
  document: Document,
  index: number,
  folder: string,
  problems: Problem[],
): Manifest | undefined {
  const { value } = document
  const kind = isSection(value) && typeof value['kind'] === 'string' ? value['kind'] : undefined
  const title = `document ${index}`
  const place = new Place(document, title)
  const refuse = (message: string, path: readonly string[] = []): undefined => {
    problems.push(place.problem({ path, message }))
  }
  if (!isSection(value)) return refuse(`must be a section of keys, not ${kindOf(value)}`)
  if (kind === undefined && 'kind' in value) return refuse(`${quote(value['kind'])} is not a kind`, ['kind'])
  if (kind === undefined) {
    if (!Object.keys(value).some((name) => nearest(name, GATEWAY_KEYS) !== undefined))
      return refuse(
        `is neither an MCPServer, an MCPRoute nor gateway defaults (${GATEWAY_KEYS.join(', ')}): kind is missing`,
      )
    return gateway(
      gatewayDefaults.parse(value),
      new Place(document, `${title} (gateway defaults)`),
      folder,
      problems,
    )
  }
  if (kind === 'ConfigMap') return configMap(document, value, title, folder, problems)
  if (kind !== 'MCPServer' && kind !== 'MCPRoute')
    return refuse(`${quote(kind)} is not read here: there are ${KINDS.join(', ')}`, ['kind'])
  if (!/^ome\.io\/v1(alpha1|beta1)?$/.test(String(value['apiVersion'])))
    return refuse(`${quote(value['apiVersion'])} is not known: write ome.io/v1alpha1`, ['apiVersion'])
  return omeDocument(document, value, kind, title, folder, problems)
}

function omeDocument(
  document: Document,
  value: Readonly<Record<string, unknown>>,
  kind: 'MCPServer' | 'MCPRoute',
  title: string,
  folder: string,
  problems: Problem[],
): Manifest | undefined {
  const head = envelope.parse(value)
  const named = head.ok ? nameOf(head.value.metadata) : ''
  const full = new Place(document, `${title} (${[kind, named].join(' ').trim()})`)
  if (!head.ok) {
    problems.push(...head.faults.map((fault) => full.problem(fault)))
    return undefined
  }
  const { name, namespace } = head.value.metadata
  const common = { place: full.within(['spec']), title: `${kind} ${named}`, name, namespace, folder }
  const report = (parsed: Parsed<unknown>): undefined => {
    if (!parsed.ok) problems.push(...parsed.faults.map((fault) => common.place.problem(fault)))
  }
  if (kind === 'MCPServer') {
    const spec = serverSpec.parse(head.value.spec)
    return spec.ok ? { kind, spec: spec.value, ...common } : report(spec)
  }
  const spec = routeSpec.parse(head.value.spec)
  return spec.ok ? { kind, spec: spec.value, ...common } : report(spec)
}

function nameOf({
  name,
  namespace,
}: {
  readonly name: string
  readonly namespace: string | undefined
}): string {
  return namespace === undefined ? name : `${namespace}/${name}`
}

function gateway(
  parsed: Parsed<GatewayDefaults>,
  place: Place,
  folder: string,
  problems: Problem[],
): GatewayManifest | undefined {
  if (parsed.ok)
    return {
      kind: 'gateway defaults',
      spec: parsed.value,
      place,
      title: 'gateway defaults',
      name: undefined,
      namespace: undefined,
      folder,
    }
  problems.push(...parsed.faults.map((fault) => place.problem(fault)))
  return undefined
}

const configMapData = object(
  {
    apiVersion: required(anything, 'v1'),
    kind: required(anything, 'ConfigMap'),
    metadata: required(metadata, 'Name and namespace.'),
    data: required(
      anything,
      'Gateway defaults, as YAML text in one key, or each of them in a key of its own.',
    ),
  },
  { open: true },
)

/** Gateway defaults in the `data` of a ConfigMap: all of them in the text of one key, or each in a key of its own. */
function configMap(
  document: Document,
  value: Readonly<Record<string, unknown>>,
  title: string,
  folder: string,
  problems: Problem[],
): GatewayManifest | undefined {
  const head = configMapData.parse(value)
  const name = head.ok ? nameOf(head.value.metadata) : ''
  const full = `${title} (ConfigMap ${name})`.replace(' )', ')')
  const place = new Place(document, full)
  if (!head.ok) {
    problems.push(...head.faults.map((fault) => place.problem(fault)))
    return undefined
  }
  const data = isSection(head.value.data) ? head.value.data : {}
  const texts = Object.entries(data).filter(
    (entry): entry is [string, string] => typeof entry[1] === 'string',
  )
  const single = texts.filter(([key]) => nearest(key, GATEWAY_KEYS) !== undefined)
  if (single.length > 0) {
    const own = readTexts(Object.fromEntries(single), place, problems)
    return own === undefined
      ? undefined
      : gateway(keyed(gatewayDefaults, own), place.within(['data']), folder, problems)
  }
  for (const [key, text] of texts) {
    const inner = readDocuments(text, '')
    if ('problems' in inner || inner.length !== 1) continue
    const [content] = inner
    if (content === undefined || !isSection(content.value)) continue
    if (!Object.keys(content.value).some((each) => (GATEWAY_KEYS as readonly string[]).includes(each)))
      continue
    const within = inText(content, place, key, full)
    return gateway(gatewayDefaults.parse(content.value), within, folder, problems)
  }
  problems.push(
    place.problem({ path: ['data'], message: `holds no gateway defaults (${GATEWAY_KEYS.join(', ')})` }),
  )
  return undefined
}

/** Each value from the text that it stands in. */
function readTexts(
  texts: Readonly<Record<string, string>>,
  place: Place,
  problems: Problem[],
): Readonly<Record<string, unknown>> | undefined {
  const values: Record<string, unknown> = {}
  const before = problems.length
  for (const [key, text] of Object.entries(texts)) {
    const read = readDocuments(text, '')
    if (!('problems' in read) && read.length === 1) values[key] = read[0]?.value
    else problems.push(place.problem({ path: ['data', key], message: 'is not one valid YAML document' }))
  }
  return problems.length > before ? undefined : values
}

function keyed<T>(type: ValueType<T>, value: unknown): Parsed<T> {
  return isSection(value) ? type.parse(value) : bad('must be a section of keys')
}

/** A place in a text inside a document: errors name the text, and line and column in it. */
function inText(content: Document, outer: Place, key: string, title: string): Place {
  const around = outer.at(['data', key])
  return new Place(
    { ...content, where: (offset) => `${around} (data.${key}${content.where(offset)})` },
    title,
  )
}
