/** A profile held against the files that are there: what it grants must exist, be what it says, and open nothing of ours. */
import type { Profile } from '../core/sandbox.ts'

/** What stands at a path, all symbolic links followed. */
export type FileFact =
  | { readonly kind: 'file' | 'folder' | 'other'; readonly real: string }
  /** Nothing, or a link that leads to nothing. */
  | { readonly kind: 'missing' }
  /** Something that this user may not look at, or a loop of links. */
  | { readonly kind: 'unreadable' }

export interface FileFacts {
  at(path: string): FileFact
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
 */
export function checkPaths(
  profile: Profile,
  files: FileFacts,
  protectedPaths: readonly string[],
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

/** The first of `protectedPaths` that lies in what is granted with `path`, or around it; links followed and not. */
export function exposedBy(
  path: string,
  files: FileFacts,
  protectedPaths: readonly string[],
): string | undefined {
  const open = spellings(path, files)
  return protectedPaths.find((own) =>
    spellings(own, files).some((each) => open.some((other) => within(each, other) || within(other, each))),
  )
}

/** Where a path leads; itself where that cannot be seen. */
export function followed(path: string, files: FileFacts): string {
  return realOf(path, files) ?? path
}

/**
 * What has to be hidden to hide `protectedPaths`: they themselves and, behind links, what they lead to. Kubernetes swaps
 * the files of a mounted Secret or ConfigMap behind a link named `..data`, so that the folder of such a file goes with it.
 */
export function hiddenPaths(files: FileFacts, protectedPaths: readonly string[]): readonly string[] {
  const all = protectedPaths.flatMap((path) => {
    const fact = files.at(path)
    if (!('real' in fact)) return [path]
    const folder = parent(path)
    return fact.real === path || files.at(`${folder}/..data`).kind !== 'folder'
      ? [path, fact.real]
      : [folder, fact.real]
  })
  // What lies in a hidden folder is hidden with it.
  return [...new Set(all)].filter((path) => !all.some((other) => other !== path && within(path, other)))
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
  const folder = realOf(parent(path), files) ?? parent(path)
  if (real === join(folder, base(path))) return undefined
  const known = granted.some((other) => {
    const target = other.path === path ? undefined : realOf(other.path, files)
    return target !== undefined && within(real, target)
  })
  // A link right beside its target is how versions are switched. At the top of the file system everything is beside it.
  if (known || (parent(real) === folder && folder !== '/')) return undefined
  return `is a symbolic link to ${real}: name that instead, or the folder around both`
}

function spellings(path: string, files: FileFacts): readonly string[] {
  const real = realOf(path, files) ?? realOfNearest(path, files)
  return real === path ? [path] : [path, real]
}

/** Of what does not exist yet: the folder around it, and the rest as it is written. */
function realOfNearest(path: string, files: FileFacts): string {
  const folder = parent(path)
  if (folder === path) return path
  return join(realOf(folder, files) ?? realOfNearest(folder, files), base(path))
}

function realOf(path: string, files: FileFacts): string | undefined {
  const fact = files.at(path)
  return 'real' in fact ? fact.real : undefined
}

/** Whether `inner` is `outer`, or lies below it. */
function within(inner: string, outer: string): boolean {
  return inner === outer || inner.startsWith(outer.endsWith('/') ? outer : `${outer}/`)
}

function parent(path: string): string {
  const end = path.lastIndexOf('/')
  return end <= 0 ? '/' : path.slice(0, end)
}

function base(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1)
}

function join(folder: string, name: string): string {
  return folder === '/' ? `/${name}` : `${folder}/${name}`
}
