/** From the files that a server used to the paths of a profile. Pure but for what it is told of the disk. */
import {
  crowded,
  type Given,
  givenAnyway,
  isProtected,
  isSounding,
  isTemporary,
  isWhole,
  type PathSurroundings,
  partsOf,
} from './learned-paths.ts'
import type { FileAccess, Seen } from './observed.ts'
import { parentOf, within } from './path-names.ts'

export interface LearnedPath {
  readonly path: string
  readonly execute: boolean
  readonly optional: boolean
  /** What was seen, for the comment. */
  readonly why: string
}

export interface LearnedFiles {
  readonly read: readonly LearnedPath[]
  readonly write: readonly LearnedPath[]
  readonly proc: 'self' | 'all'
  /** What was used and is not granted, and what is granted widely: to be looked at by a person. */
  readonly review: readonly string[]
}

/** So many files of one folder are named; of more, the folder. */
export const mostSiblings = 8

export function learnedFiles(seen: Pick<Seen, 'files' | 'commands'>, around: PathSurroundings): LearnedFiles {
  const review = new Set<string>()
  const given = givenAnyway(seen.commands, around.files)
  const used = usable(seen, around, review)
  const write = writtenPaths(used, given, around, review)
  const written = (path: string): boolean => write.some((each) => within(path, each.path))
  const read = readPaths(used, given, { ...around, written }, review)
  return { read, write, proc: procOf(seen, review), review: [...review] }
}

type Used = readonly (readonly [path: string, accesses: ReadonlySet<FileAccess>])[]

/** Without what is never granted as a path. */
function usable({ files }: Pick<Seen, 'files'>, around: PathSurroundings, review: Set<string>): Used {
  return [...files].filter(([path]) => {
    if (within(path, '/proc') || isSounding(path)) return false
    if (path.includes('\uFFFD')) {
      review.add(`${path} has a name that is no UTF-8 text: it cannot be granted`)
      return false
    }
    if (isProtected(path, around) && around.files.at(path).kind !== 'folder') {
      review.add(`it used ${path}, which belongs to the sidecar: it will not get it`)
      return false
    }
    return true
  })
}

function writtenPaths(
  used: Used,
  given: Given,
  around: PathSurroundings,
  review: Set<string>,
): readonly LearnedPath[] {
  const { files } = around
  const folders = new Map<string, string[]>()
  const single = new Set<string>()
  for (const [path, accesses] of used) {
    if (accesses.has('create') || accesses.has('remove')) {
      const folder = parentOf(path)
      if (isWhole(folder, around) || (isTemporary(folder) && !isProtected(folder, around)))
        folders.set(folder, [...(folders.get(folder) ?? []), path])
      else if (files.at(path).kind === 'file' || isWholeFolder(path, around)) single.add(path)
      else if (isTemporary(folder))
        review.add(
          `it made temporary files in ${folder}, which holds something of the sidecar: move that, or see that it keeps to TMPDIR`,
        )
      else review.add(`it made or removed ${path}, and ${folder} is not granted as a whole`)
    } else if (accesses.has('write') && !given.writes(path)) {
      const { kind } = files.at(path)
      if (kind === 'file') single.add(path)
      else if (kind !== 'missing') review.add(`it used ${path}, which is no file that can be granted`)
    }
  }
  const [many, few] = crowded([...single], mostSiblings, around)
  for (const [folder, paths] of many) folders.set(folder, [...(folders.get(folder) ?? []), ...paths])
  // What it removed again needs no grant of its own: it lay in a folder that has one.
  const existing = [...folders].filter(([folder]) => files.at(folder).kind === 'folder')
  const outer = outermost(existing.map(([folder]) => folder))
  for (const folder of outer.filter(isTemporary))
    review.add(`it may write everywhere in ${folder}: give it a folder of its own with env.set.TMPDIR`)
  return [
    ...outer.map((folder): LearnedPath => {
      const paths = existing.filter(([each]) => within(each, folder)).flatMap(([, all]) => all)
      const what = `${counted(paths.length, 'entry', 'entries')} made, changed or removed`
      return { path: folder, execute: false, optional: false, why: example(what, paths) }
    }),
    ...few
      .filter((path) => !outer.some((folder) => within(path, folder)))
      .map((path): LearnedPath => {
        const made = used.some(([each, accesses]) => each === path && accesses.has('create'))
        const why = made ? `made by it; ${parentOf(path)} is not granted as a whole` : 'written'
        return { path, execute: false, optional: made, why }
      }),
  ].toSorted(byPath)
}

function isWholeFolder(path: string, around: PathSurroundings): boolean {
  return around.files.at(path).kind === 'folder' && isWhole(path, around)
}

function readPaths(
  used: Used,
  given: Given,
  around: PathSurroundings & { readonly written: (path: string) => boolean },
  review: Set<string>,
): readonly LearnedPath[] {
  const { files, written } = around
  const has = (access: FileAccess): string[] =>
    used.filter(([, accesses]) => accesses.has(access)).map(([path]) => path)
  const run = has('execute').filter((path) => !given.executes(path) && files.at(path).kind === 'file')
  const wanted = (path: string): boolean => !given.reads(path) && !written(path) && !run.includes(path)
  const listed = has('list').filter((path) => wanted(path) && files.at(path).kind === 'folder')
  const readable = has('read').filter((path) => {
    const { kind } = files.at(path)
    if (!wanted(path) || kind === 'missing') return false
    if (kind !== 'file') review.add(`it used ${path}, which is no file that can be granted`)
    return kind === 'file'
  })
  for (const path of listed.filter((each) => !isWhole(each, around)))
    review.add(`it listed ${path}, which is not granted as a whole`)
  const [packages, loose] = partsOf([...readable, ...listed.filter((path) => isWhole(path, around))], around)
  const lists = loose.filter((path) => listed.includes(path))
  const [many, few] = crowded(
    loose.filter((path) => !listed.includes(path)),
    mostSiblings,
    around,
  )
  const folders = new Map([...lists.map((path) => [path, [path]] as const), ...many, ...packages])
  const outer = outermost([...folders.keys()])
  const data = (path: string, why: string): LearnedPath => ({ path, execute: false, optional: false, why })
  const [crowds, programs] = crowded(run, mostSiblings, around)
  const program = (path: string, why: string): LearnedPath => ({ path, execute: true, optional: false, why })
  const granted = [
    ...[...crowds].map(([folder, paths]) =>
      program(folder, example(`${counted(paths.length, 'program')} run`, paths)),
    ),
    ...programs.filter((path) => !crowds.has(parentOf(path))).map((path) => program(path, 'run')),
    ...outer
      .filter((folder) => ![...crowds.keys()].some((other) => within(folder, other)))
      .map((folder) => {
        const paths = [...folders].filter(([each]) => within(each, folder)).flatMap(([, all]) => all)
        const within_ = [...paths, ...few.filter((path) => within(path, folder))]
        return data(folder, seenIn(folder, within_, listed))
      }),
    ...few
      .filter((path) => ![...outer, ...crowds.keys()].some((folder) => within(path, folder)))
      .map((path) => data(path, 'read')),
  ]
  return granted.toSorted(byPath)
}

function seenIn(folder: string, paths: readonly string[], listed: readonly string[]): string {
  const files = paths.filter((path) => !listed.includes(path))
  const lists = paths.length - files.length
  const what = [
    ...(lists > 0
      ? [folder === paths[0] && lists === 1 ? 'listed' : `${counted(lists, 'folder')} listed`]
      : []),
    ...(files.length > 0 ? [`${counted(files.length, 'file')} read`] : []),
  ].join(', ')
  return files.length > 0 ? example(what, files) : what
}

/** `/proc` beyond a process's own part. */
function procOf({ files }: Pick<Seen, 'files'>, review: Set<string>): 'self' | 'all' {
  const used = [...files.keys()].filter((path) => within(path, '/proc') && !isSounding(path))
  const own = used.filter((path) => within(path, '/proc/self'))
  const others = used.filter((path) => !within(path, '/proc/self'))
  if (others.length > 0) {
    review.add(
      `proc: all shows it the arguments of all processes here; it used ${others.slice(0, 3).join(', ')}`,
    )
    return 'all'
  }
  if (own.length > 0)
    review.add(
      `a process that it started read ${own.slice(0, 3).join(', ')}: under proc: self only its first process can; say proc: all if that matters`,
    )
  return 'self'
}

function outermost(folders: readonly string[]): string[] {
  return folders.filter((path) => !folders.some((other) => other !== path && within(path, other)))
}

function example(what: string, [first, ...rest]: readonly string[]): string {
  if (first === undefined) return what
  return rest.length === 0 ? `${what}: ${first}` : `${what}, first ${first}`
}

function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`
}

function byPath(a: LearnedPath, b: LearnedPath): number {
  return a.path < b.path ? -1 : a.path > b.path ? 1 : 0
}
