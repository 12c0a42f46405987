import { join } from 'node:path'
import type { SecretSource } from '../../core/policy.ts'
import { Credential } from '../../core/secret.ts'
import { explainReadError, missing, type ReadFile } from '../disk.ts'
import type { Problem } from '../error.ts'
import type { Path } from '../parsed.ts'
import type { Environment } from '../sources.ts'
import type { Place } from './place.ts'
import type { Reference } from './values.ts'

export type ReferenceKind = 'Secret' | 'ConfigMap'

/** Where what documents refer to is mounted. */
export interface Mounts {
  readonly secretsDir: string
  readonly configMapsDir: string
  readonly env: Environment
  readonly read: ReadFile
}

type Found = { readonly file: string } | { readonly text: string }

/** The variable that stands in for a file: letters in capitals, `_` for any other sign, `__` between name and key. */
export function variableFor(kind: ReferenceKind, { name, key }: Pick<Reference, 'name' | 'key'>): string {
  const plain = (text: string): string => text.toUpperCase().replaceAll(/[^A-Z0-9]/g, '_')
  return `MCP_SIDECAR_${kind.toUpperCase()}_${plain(name)}__${plain(key)}`
}

/**
 * Finds what documents refer to: the file that the operator has mounted, else a variable. Never asks the API server, so
 * that the sidecar needs no right on Secrets. One line break at the end of a text is not part of it.
 */
export class References {
  /** Absolute paths of what was found, to be watched. */
  readonly files = new Set<string>()
  readonly #mounts: Mounts
  readonly #problems: Problem[]
  /** Which reference a variable stands for: two names may lead to one. */
  readonly #variables = new Map<string, string>()

  constructor(mounts: Mounts, problems: Problem[]) {
    this.#mounts = mounts
    this.#problems = problems
  }

  /** Undefined when it is missing; that is a problem unless it is optional. */
  async source(
    kind: ReferenceKind,
    reference: Reference,
    place: Place,
    path: Path,
  ): Promise<SecretSource | undefined> {
    const found = await this.#find(kind, reference, place, path)
    if (found === undefined || 'file' in found) return found
    return { text: new Credential(found.text) }
  }

  /** Its text now. */
  async text(
    kind: ReferenceKind,
    reference: Reference,
    place: Place,
    path: Path,
  ): Promise<string | undefined> {
    const found = await this.#find(kind, reference, place, path)
    if (found === undefined || 'text' in found) return found?.text
    try {
      return withoutLineBreak(await this.#mounts.read(found.file))
    } catch (error) {
      this.#refuse(
        place,
        path,
        `${kind} ${reference.name}, key ${reference.key}: the file ${explainReadError(error)}`,
      )
      return undefined
    }
  }

  /** The file itself, for what is read by others; a variable does not do. */
  async file(
    kind: ReferenceKind,
    reference: Reference,
    place: Place,
    path: Path,
  ): Promise<string | undefined> {
    const found = await this.#find(kind, reference, place, path)
    if (found === undefined || 'file' in found) return found?.file
    this.#refuse(
      place,
      path,
      `${kind} ${reference.name} must be mounted as a file: a variable does not do here`,
    )
    return undefined
  }

  async #find(
    kind: ReferenceKind,
    reference: Reference,
    place: Place,
    path: Path,
  ): Promise<Found | undefined> {
    const { name, key } = reference
    const { secretsDir, configMapsDir, env } = this.#mounts
    const folder = kind === 'Secret' ? secretsDir : configMapsDir
    const file = join(folder, name, key)
    const reason = await missing('file', file)
    if (reason === undefined) {
      this.files.add(file)
      return { file }
    }
    const variable = variableFor(kind, reference)
    const value = env[variable]
    const both = this.#variables.get(variable)
    if (value !== undefined && both !== undefined && both !== file) {
      this.#refuse(
        place,
        path,
        `the variable ${variable} would stand for two of the ${kind}s: mount them as files`,
      )
      return undefined
    }
    if (value !== undefined && value !== '') {
      this.#variables.set(variable, file)
      return { text: withoutLineBreak(value) }
    }
    if (reference.optional !== true)
      this.#refuse(
        place,
        path,
        `${kind} ${name}, key ${key}: ${name}/${key} in ${folder} ${reason}, and there is no variable ${variable}`,
      )
    return undefined
  }

  #refuse(place: Place, path: Path, message: string): void {
    this.#problems.push(place.problem({ path, message }))
  }
}

function withoutLineBreak(text: string): string {
  return text.replace(/\r?\n$/, '')
}
