/** What belongs to an executable or a script and is given with it: whoever wrote that must not choose folders of others. */
import { type Family, interpreterOf } from './interpreters.ts'
import { baseOf, foldersAbove, isPersonal, isShared, joined, parentOf, within } from './path-names.ts'
import { type FileFacts, followed } from './profile.ts'

export interface ProgramFacts {
  /** Whether it is a file that this user may execute. */
  runs(path: string): boolean
  /** How a file begins: up to 4 KiB; empty when it cannot be read. */
  start(path: string): string
  /** All of a file; undefined when it cannot be read, or has more than 1 MiB. */
  text(path: string): string | undefined
  /** The uid; of a link, of the link itself. Undefined when it cannot be seen. */
  owner(path: string): number | undefined
}

export interface ProgramSurroundings {
  readonly files: FileFacts & ProgramFacts
  /** Absolute paths of the sidecar's own. */
  readonly protectedPaths: readonly string[]
  /** Of the user who runs the server. */
  readonly homes: readonly string[]
  /** Of that user; undefined where there are none. */
  readonly uid: number | undefined
  /** The server's PATH. */
  readonly path: string | undefined
  /** Where the server runs. Absolute. */
  readonly cwd: string
}

/** Where the launcher looks without a PATH. */
const defaultPath = '/usr/local/bin:/usr/bin:/bin'

/** Where programs are looked for by their name. Absolute. */
export function searched({ path = defaultPath }: ProgramSurroundings): readonly string[] {
  return path.split(':').filter((folder) => folder.startsWith('/'))
}

/** @param named by the first line of a script, not by the command */
export function executableParts(
  file: string,
  named: boolean,
  around: ProgramSurroundings,
): readonly string[] {
  const { files } = around
  const real = followed(file, files)
  const folder = followed(parentOf(file), files)
  const alone = interpreterOf(baseOf(real)) === undefined && (named || straysFrom(folder, file, around))
  const found = named && interpreterOf(baseOf(file)) === undefined ? real : wholeOr(folder, real, around)
  return [found, alone ? real : wholeOr(parentOf(real), real, around), ...pythonParts(file, real, around)]
}

/** A virtual environment around the interpreter, and the standard library where that is not the system's. */
function pythonParts(file: string, real: string, { files, homes }: ProgramSurroundings): readonly string[] {
  if (interpreterOf(baseOf(real), baseOf(file))?.family !== 'python') return []
  const around = followed(parentOf(parentOf(file)), files)
  const library = joined(parentOf(parentOf(real)), 'lib')
  const environment = isPersonal(around, homes)
    ? [joined(around, 'pyvenv.cfg'), joined(around, 'lib')]
    : [around]
  return [
    ...(files.at(joined(around, 'pyvenv.cfg')).kind === 'file' ? environment : []),
    ...(files.at(joined(library, baseOf(real))).kind === 'folder' ? [library] : []),
  ]
    .map((each) => followed(each, files))
    .filter((each) => !isShared(each, homes))
}

/** @returns undefined for a link that leads out of what is around it: it has to be named, or granted */
export function scriptParts(
  path: string,
  family: Family,
  around: ProgramSurroundings,
): readonly string[] | undefined {
  const { files, homes } = around
  const found = followed(parentOf(path), files)
  const own = family === 'javascript' ? (packageAround(found, around) ?? found) : found
  if (straysFrom(own, path, around)) return undefined
  const real = followed(path, files)
  const folder = files.at(path).kind === 'folder' ? real : parentOf(real)
  if (family !== 'javascript') return [wholeOr(folder, real, around)]
  const packaged = packageAround(folder, around)
  const modules = modulesAbove(folder, real, around)
  if (packaged === undefined) return [wholeOr(folder, real, around), ...modules]
  if (!isPersonal(packaged, homes)) return [packaged, ...modules]
  // What the file is, a module or not, stands there.
  return [wholeOr(folder, real, around), joined(packaged, 'package.json'), ...modules]
}

/**
 * Where Node looks for packages. A link would be a folder of its author's choosing, and in a folder of everybody anyone may
 * have put one.
 */
function modulesAbove(
  folder: string,
  script: string,
  { files, homes, uid }: ProgramSurroundings,
): readonly string[] {
  const owners = [0, uid, files.owner(script)]
  return foldersAbove(folder)
    .filter((each) => each !== '/' && (homes.includes(each) || !isShared(each, homes)))
    .map((each) => joined(each, 'node_modules'))
    .filter((each) => files.at(each).kind === 'folder' && followed(each, files) === each)
    .filter((each) => owners.includes(files.owner(each)))
}

/** The nearest package with a name: one without only says how the files beside it are to be read. */
function packageAround(folder: string, { files }: ProgramSurroundings): string | undefined {
  const above = foldersAbove(folder)
  const top = above.findIndex((each) => baseOf(each) === 'node_modules')
  const packages = (top < 0 ? above : above.slice(0, top)).filter(
    (each) => !['missing', 'folder'].includes(files.at(joined(each, 'package.json')).kind),
  )
  return packages.find((each) => isNamed(files.text(joined(each, 'package.json')))) ?? packages[0]
}

/** What cannot be told ends the search: further out lies what belongs to other projects. */
function isNamed(text: string | undefined): boolean {
  try {
    const { name } = JSON.parse(text ?? '')
    return name !== undefined
  } catch {
    return true
  }
}

/** Whether a path is a link that leads out of `own` and is not how programs are installed. */
function straysFrom(own: string, path: string, around: ProgramSurroundings): boolean {
  const { files, homes } = around
  const real = followed(path, files)
  const folder = followed(parentOf(path), files)
  if (real === joined(folder, baseOf(path)) || (parentOf(real) === folder && folder !== '/')) return false
  if (programFolders(around).includes(folder)) return false
  const trees = [own, ...installedWith(folder)].filter((each) => !isPersonal(each, homes))
  return !trees.some((each) => within(real, each))
}

/** Where a user installs programs, as links to wherever they are. */
function programFolders(around: ProgramSurroundings): readonly string[] {
  const own = around.homes.flatMap((home) => ['bin', '.local/bin'].map((each) => joined(home, each)))
  return [...searched(around), ...own].map((each) => followed(each, around.files))
}

/** Where the links of a folder of programs lead: `bin` to what was installed with it, `node_modules/.bin` to packages. */
function installedWith(folder: string): readonly string[] {
  const parent = parentOf(folder)
  if (baseOf(folder) === 'bin') return [parent, joined(parent, 'lib/node_modules')]
  const local = baseOf(folder) === '.bin' && baseOf(parent) === 'node_modules'
  return local ? [parent, parentOf(parent)] : []
}

function wholeOr(folder: string, file: string, { homes }: ProgramSurroundings): string {
  return isPersonal(folder, homes) ? file : folder
}
