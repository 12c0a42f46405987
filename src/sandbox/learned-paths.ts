/** Paths as a learned profile sees them: what is given anyway, what is never given as a whole, what belongs together. */
import { isShared, parentOf, within } from './path-names.ts'
import { exposedBy, type FileFacts } from './profile.ts'
import { baseRead } from './records.ts'

export interface PathSurroundings {
  readonly files: FileFacts
  /** Absolute paths of the sidecar's own. */
  readonly protectedPaths: readonly string[]
  /** The HOME of the server. */
  readonly home: string | undefined
  /** Home folders of the user who runs it. */
  readonly homes: readonly string[]
}

/** Where programs make temporary files under names that nobody can foresee. */
const temporary = new Set(['/tmp', '/var/tmp', '/dev/shm'])
/** Runtimes look at them to size themselves, and go on without them. */
const soundings = [
  '/proc/meminfo',
  '/proc/filesystems',
  '/proc/version_signature',
  '/proc/sys',
  '/proc/cgroups',
  ...['/sys/fs/cgroup', '/sys/devices/system', '/sys/kernel/mm'],
]
const packageFolder = /^(.*?\/(?:node_modules|site-packages|dist-packages))\//
/** So many files of a git checkout stand for all of it. */
const checkoutFiles = 4

export function isTemporary(folder: string): boolean {
  return temporary.has(folder)
}

export function isSounding(path: string): boolean {
  return soundings.some((each) => within(path, each))
}

/** Whether a folder may be granted with all that is in it. */
export function isWhole(folder: string, { files, protectedPaths, homes }: PathSurroundings): boolean {
  if (isShared(folder, homes)) return false
  return exposedBy(folder, files, protectedPaths) === undefined
}

export function isProtected(path: string, { files, protectedPaths }: PathSurroundings): boolean {
  return exposedBy(path, files, protectedPaths) !== undefined
}

/** What every profile gives. */
export interface Given {
  reads(path: string): boolean
  executes(path: string): boolean
  writes(path: string): boolean
}

/** @param commands programs that are run as the server: what lies beside them may be read and executed */
export function givenAnyway(commands: ReadonlySet<string>, files: FileFacts): Given {
  const real = (paths: readonly string[]): string[] =>
    paths.flatMap((path) => {
      const fact = files.at(path)
      return 'real' in fact ? [fact.real] : []
    })
  const execute = [...real(baseRead.execute), ...[...commands].map(parentOf)]
  const read = [...execute, ...real(baseRead.data)]
  const devices = new Set(real(baseRead.devices))
  return {
    reads: (path) => devices.has(path) || read.some((each) => within(path, each)),
    executes: (path) => execute.some((each) => within(path, each)),
    writes: (path) => devices.has(path),
  }
}

/**
 * Files by what they are parts of: a folder of packages, a git checkout, or nothing more than themselves (the second part
 * of the result).
 */
export function partsOf(
  paths: readonly string[],
  around: PathSurroundings,
): readonly [folders: ReadonlyMap<string, readonly string[]>, single: readonly string[]] {
  const folders = new Map<string, string[]>()
  const rest: { readonly path: string; readonly checkout: string | undefined }[] = []
  const note = (folder: string, path: string): void => {
    folders.set(folder, [...(folders.get(folder) ?? []), path])
  }
  const known = new Map<string, string | undefined>()
  for (const path of paths) {
    const packages = packageFolder.exec(path)?.[1]
    if (packages !== undefined && isWhole(packages, around)) note(packages, path)
    else rest.push({ path, checkout: checkoutOf(parentOf(path), around, known) })
  }
  const single: string[] = []
  for (const [checkout, all] of grouped(rest, (each) => each.checkout)) {
    for (const { path } of all) {
      if (checkout !== undefined && all.length >= checkoutFiles) note(checkout, path)
      else single.push(path)
    }
  }
  return [folders, single]
}

function checkoutOf(
  folder: string,
  around: PathSurroundings,
  known: Map<string, string | undefined>,
): string | undefined {
  if (!isWhole(folder, around)) return undefined
  if (known.has(folder)) return known.get(folder)
  const marked = around.files.at(`${folder === '/' ? '' : folder}/.git`).kind !== 'missing'
  const found = marked ? folder : checkoutOf(parentOf(folder), around, known)
  known.set(folder, found)
  return found
}

/** Folders with more than `most` of these paths directly in them, as far as they may be granted, and the other paths. */
export function crowded(
  paths: readonly string[],
  most: number,
  around: PathSurroundings,
): readonly [folders: ReadonlyMap<string, readonly string[]>, single: readonly string[]] {
  const byParent = grouped(paths, parentOf)
  const folders = new Map(
    [...byParent].filter(([folder, all]) => all.length > most && isWhole(folder, around)),
  )
  return [folders, paths.filter((path) => !folders.has(parentOf(path)))]
}

function grouped<K, T>(values: readonly T[], keyOf: (value: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>()
  for (const value of values) {
    const key = keyOf(value)
    const group = groups.get(key)
    if (group === undefined) groups.set(key, [value])
    else group.push(value)
  }
  return groups
}
