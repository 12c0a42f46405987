import { dirname, resolve } from 'node:path'
import { explainReadError, type ReadFile, readTextFile } from './disk.ts'
import { type Document, readDocument } from './document.ts'
import type { Problem } from './error.ts'
import { fileFaults } from './faults.ts'
import { fieldList } from './fields.ts'
import { dotted, Layer } from './layer.ts'
import { isSection } from './object.ts'
import type { Path } from './parsed.ts'
import { places } from './places.ts'
import type { NamedFile } from './sources.ts'

/**
 * Reads the configuration file. Its name is taken from `cwd`, relative paths in it start at its own folder. What is
 * wrong with the file as a whole is reported where it was named, the rest at its line and column.
 */
export async function readConfigFile(
  named: NamedFile,
  cwd: string,
  read: ReadFile = readTextFile,
): Promise<Layer> {
  if (named.path === '') return unreadable([{ where: named.where, message: 'is empty: name a file' }])
  const path = resolve(cwd, named.path)
  let text: string
  try {
    text = await read(path)
  } catch (error) {
    const message = `${named.path} ${explainReadError(error)} (looked in ${dirname(path)})`
    return unreadable([{ where: named.where, message }])
  }
  const document = readDocument(text, named.path)
  if (!('value' in document)) return unreadable(document)
  if (isManifest(document.value)) {
    const message =
      'this is an OME document: name its file with --manifest (or in manifests), not with --config'
    return unreadable([{ where: document.where(document.offset([])), message }])
  }
  return readValues(document, dirname(path))
}

function isManifest(value: unknown): boolean {
  return isSection(value) && Object.hasOwn(value, 'apiVersion') && Object.hasOwn(value, 'kind')
}

function unreadable(problems: readonly Problem[]): Layer {
  const layer = new Layer()
  layer.problems.push(...problems)
  layer.unreadable = true
  return layer
}

function readValues(document: Document, folder: string): Layer {
  const layer = new Layer()
  const faults = fileFaults(document.value)
  const placed = faults.map((fault) => ({
    ...fault,
    offset: document.offset(fault.path, fault.key ? 'key' : undefined),
  }))
  for (const { path, key, message, offset } of placed.sort((a, b) => a.offset - b.offset)) {
    const name = key || path.length === 0 ? '' : `${dotted('', path).slice(1)}: `
    layer.problems.push({ where: document.where(offset), message: name + message })
  }
  for (const [key, field] of fieldList) {
    const parts = field.file.split('.')
    if (faults.some(({ about }) => related(about, parts))) layer.failed.add(key)
    const input = given(document.value, parts)
    const parsed = field.type.parse(input)
    // What is wrong is in the list already; and where a section stands for a word (`auth`), its values are read.
    if (input !== undefined && parsed.ok) layer.enter(key, parsed, folder, ...places(document, parts))
  }
  return layer
}

/** One lies inside the other. */
function related(a: Path, b: Path): boolean {
  return a.every((part, index) => index >= b.length || b[index] === part)
}

function given(value: unknown, parts: readonly string[]): unknown {
  let inner = value
  for (const part of parts) {
    if (typeof inner !== 'object' || inner === null || !Object.hasOwn(inner, part)) return undefined
    inner = (inner as Record<string, unknown>)[part]
  }
  return inner
}
