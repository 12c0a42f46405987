/** A profile held against the files that are there: what it grants must exist, be what it says, and open nothing of ours. */
import type { Profile } from '../core/sandbox.ts'
import { baseOf, joined, parentOf, within } from './path-names.ts'

/** What stands at a path, all symbolic links followed. */
export type FileFact =
  | { readonly kind: 'file' | 'folder' | 'other'; readonly real: string }
  /** Nothing, or a link that leads to nothing. */
  | { readonly kind: 'missing' }
  /** Something that this user may not look at, or a loop of links. */
  | { readonly kind: 'unreadable' }

export interface FileFacts {
  at(path: string): FileFact
  /** Where the symbolic links lie that are followed on the way to a path; the folders around each are real. */
  links(path: string): readonly string[]
}

export interface PathProblem {
  /** `['filesystem', 'read', 0]`. */
  readonly path: readonly (string | number)[]
  /** What is wrong and what would be right. */
  readonly message: string
  /** Where a link leads. */
  readonly target?: string
}

/** A profile that cannot be used here; {@link faults} has everything that is wrong. */
export class ProfileError extends Error {
  override readonly name = 'ProfileError'
  readonly faults: readonly PathProblem[]

  constructor(faults: readonly PathProblem[]) {
    super(faults.map(({ message }) => `permissions: ${message}`).join('\n'))
    this.faults = faults
  }
}

/** What `filesystem.proc` is about. */
const processes = '/proc'

interface Granted {
  readonly path: string
  readonly optional: boolean
  readonly place: readonly (string | number)[]
}

/**
 * Everything wrong with the paths of a profile on this host; empty when it can be used.
 *
 * @param protectedPaths absolute paths of the sidecar's own; they need not exist
 * @param readonly what may be read, and not be changed; without links on the way
 */
export function checkPaths(
  profile: Profile,
  files: FileFacts,
  protectedPaths: readonly string[],
  readonly: readonly string[] = [],
): readonly PathProblem[] {
  const { read, write } = profile.filesystem
  const granted = [
    ...read.map((grant, index): Granted => ({ ...grant, place: ['filesystem', 'read', index] })),
    ...write.map((grant, index): Granted => ({ ...grant, place: ['filesystem', 'write', index] })),
  ]
  const writable = write.map(({ path }) => path)
  return granted.flatMap(({ path, optional, place }) => {
    const fact = files.at(path)
    const problem = (message: string, target?: string): PathProblem[] => [
      { path: place, message: `${path} ${message}`, ...(target === undefined ? {} : { target }) },
    ]
    // First, and of what is not there yet, too: it may be when the server is started.
    const exposed = exposedBy(path, files, protectedPaths)
    if (exposed !== undefined)
      return problem(`opens ${exposed}, which belongs to the sidecar: grant something beside it`)
    const target = place[1] === 'write' ? followed(path, files) : undefined
    const changed = readonly.find(
      (own) => target !== undefined && (within(own, target) || within(target, own)),
    )
    if (changed !== undefined)
      return problem(
        `would let the server change ${changed}, which the sidecar runs or goes by: grant a folder beside it`,
      )
    if (fact.kind === 'missing')
      return optional ? [] : problem('does not exist: create it, or say optional: true for this path')
    if (fact.kind === 'unreadable')
      return problem('cannot be looked at: a part of it is closed to this user, or links go in circles')
    // Device nodes, sockets and pipes lead to whatever is at their other end.
    if (fact.kind === 'other') return problem('is neither a file nor a folder')
    if (fact.real === '/' || fact.real === '/dev' || within(fact.real, processes))
      return problem(`leads to ${fact.real}, which is no path to grant`, fact.real)
    const stray = strayLink(path, fact.real, granted, writable, files)
    return stray === undefined ? [] : problem(stray, fact.real)
  })
}

/**
 * What is granted without being written down, and opens something of the sidecar's.
 *
 * @param implied paths, such as the folder of the server's program
 */
export function checkImplied(
  { filesystem: { scope } }: Profile,
  implied: readonly string[],
  files: FileFacts,
  protectedPaths: readonly string[],
): readonly PathProblem[] {
  if (scope === 'all') return []
  return implied.flatMap((path) => {
    const exposed = exposedBy(path, files, protectedPaths)
    // Around the whole of it there is always something.
    if (exposed === undefined || within(path, exposed)) return []
    const message = `every server may read ${path}, and so ${exposed}, which belongs to the sidecar: move that elsewhere`
    return [{ path: ['filesystem'], message }]
  })
}

/**
 * The first of `protectedPaths` that lies in what is granted with `path`, or around it; links followed and not. What begins
 * with the name of a file was made of it: a log that was rotated, a backup.
 */
export function exposedBy(
  path: string,
  files: FileFacts,
  protectedPaths: readonly string[],
): string | undefined {
  return firstOwn(path, files, protectedPaths, (own, open) => within(own, open) || covers(own, open, files))
}

/** The first of `protectedPaths` that a path is hidden with. */
export function hiddenBy(
  path: string,
  files: FileFacts,
  protectedPaths: readonly string[],
): string | undefined {
  return firstOwn(path, files, protectedPaths, (own, open) => covers(own, open, files))
}

function firstOwn(
  path: string,
  files: FileFacts,
  protectedPaths: readonly string[],
  meets: (own: string, open: string) => boolean,
): string | undefined {
  const open = spellings(path, files)
  return protectedPaths.find((own) =>
    hidingPlaces(own, files).some((each) => open.some((other) => meets(each, other))),
  )
}

function covers(hidden: string, path: string, files: FileFacts): boolean {
  return within(path, hidden) || (files.at(hidden).kind !== 'folder' && path.startsWith(hidden))
}

/** Where a path leads; of what does not exist, where the folder leads that it would lie in. */
export function followed(path: string, files: FileFacts): string {
  return realOf(path, files) ?? realOfNearest(path, files)
}

/** What has to be hidden to hide `protectedPaths`; what lies in a hidden folder is hidden with it. */
export function hiddenPaths(files: FileFacts, protectedPaths: readonly string[]): readonly string[] {
  const all = protectedPaths.flatMap((path) => hidingPlaces(path, files))
  return [...new Set(all)].filter((path) => !all.some((other) => other !== path && within(path, other)))
}

/**
 * What no server may change although it may read it: what the sidecar runs, and the links that lead there or to
 * `protectedPaths`, since whoever lays another decides what the sidecar reads.
 *
 * @param code absolute paths
 */
export function readonlyPaths(
  files: FileFacts,
  protectedPaths: readonly string[],
  code: readonly string[],
): readonly string[] {
  const laid = [...protectedPaths, ...code].flatMap((path) => files.links(path))
  return [...new Set([...code.map((path) => followed(path, files)), ...laid])]
}

/**
 * A path itself and, behind links, what it leads to. Kubernetes swaps the files of a mounted Secret or ConfigMap behind a
 * link named `..data`, so that the whole folder of such a file goes with it.
 */
function hidingPlaces(path: string, files: FileFacts): readonly string[] {
  const [, real = path] = spellings(path, files)
  const folder = parentOf(path)
  const mounted = real !== path && files.at(joined(folder, '..data')).kind === 'folder'
  return [...new Set(mounted ? [folder, followed(folder, files), real] : [path, real])]
}

/** Why a link is not followed; undefined for what is none, or leads nowhere else. */
function strayLink(
  path: string,
  real: string,
  granted: readonly Granted[],
  writable: readonly string[],
  files: FileFacts,
): string | undefined {
  if (real === path) return undefined
  // The server itself could have put it there, to be given something else at its next start.
  const around = writable.filter((other) => other !== path && within(path, other))
  const escaped = around.find((other) => !within(real, realOf(other, files) ?? other))
  if (escaped !== undefined)
    return `leads to ${real}, out of ${escaped}, which the server may write: name ${real} itself, if that is meant`
  const folder = realOf(parentOf(path), files) ?? parentOf(path)
  if (real === joined(folder, baseOf(path))) return undefined
  const known = granted.some((other) => {
    const target = other.path === path ? undefined : realOf(other.path, files)
    return target !== undefined && within(real, target)
  })
  // A link right beside its target is how versions are switched. At the top of the file system everything is beside it.
  if (known || (parentOf(real) === folder && folder !== '/')) return undefined
  return `is a symbolic link to ${real}: name that instead, or the folder around both`
}

function spellings(path: string, files: FileFacts): readonly string[] {
  const real = followed(path, files)
  return real === path ? [path] : [path, real]
}

/** Of what does not exist yet: the folder around it, and the rest as it is written. */
function realOfNearest(path: string, files: FileFacts): string {
  const folder = parentOf(path)
  if (folder === path) return path
  return joined(realOf(folder, files) ?? realOfNearest(folder, files), baseOf(path))
}

function realOf(path: string, files: FileFacts): string | undefined {
  const fact = files.at(path)
  return 'real' in fact ? fact.real : undefined
}
