/** The program that a command names: what of the disk it consists of, so that it can start under any profile. */
import type { Profile } from '../core/sandbox.ts'
import { type Family, fileAmong, interpreterOf } from './interpreters.ts'
import { baseOf, foldersAbove, isShared, joined, parentOf, within } from './path-names.ts'
import { type FileFacts, followed, hiddenBy, type PathProblem } from './profile.ts'
import { baseRead } from './records.ts'

export interface ProgramFacts {
  /** Whether it is a file that this user may execute. */
  runs(path: string): boolean
  /** How a file begins: up to 4 KiB; empty when it cannot be read. */
  start(path: string): string
}

export interface ProgramSurroundings {
  readonly files: FileFacts & ProgramFacts
  /** Absolute paths of the sidecar's own. */
  readonly protectedPaths: readonly string[]
  /** Of the user who runs the server. */
  readonly home: string | undefined
  /** The server's PATH. */
  readonly path: string | undefined
  /** Where the server runs. Absolute. */
  readonly cwd: string
}

export interface Program {
  /** Files and folders to be read and executed, without links; what is the sidecar's in them stays hidden. */
  readonly grants: readonly string[]
  /** Why it would not start, and what would be right. */
  readonly problems: readonly PathProblem[]
}

/** Where the launcher looks without one. */
const defaultPath = '/usr/local/bin:/usr/bin:/bin'

/**
 * The program of a command: its executable's folder; for an interpreter, too, the file that it runs with what belongs to
 * that. A folder that holds things of everybody, such as the home folder, is never given as a whole: then it is the file.
 *
 * @param profile undefined: nothing is confined
 */
export function programOf(
  command: readonly string[],
  { filesystem }: Pick<Profile, 'filesystem'>,
  around: ProgramSurroundings,
): Program {
  const executable = located(command[0] ?? '', around)
  if (filesystem.scope === 'all' || executable === undefined) return { grants: [], problems: [] }
  const { files, protectedPaths } = around
  const given = [
    ...baseRead.execute,
    ...filesystem.read.filter(({ execute }) => execute).map(({ path }) => path),
  ]
  const readable = [
    ...given,
    ...filesystem.read.map(({ path }) => path),
    ...filesystem.write.map(({ path }) => path),
  ]
  const isGiven = (path: string, by: readonly string[]): boolean =>
    by.some((each) => within(path, followed(each, files)))
  const { runs, script, doubt } = runBy(executable, command.slice(1), around)
  // What can be read already needs no more, and below a written path nothing is to be executed by the way.
  const parts =
    script === undefined || isGiven(followed(script.path, files), readable) ? [] : scriptParts(script, around)
  const all = [
    ...runs.flatMap((each) => executableParts(each, around)),
    ...parts.filter((each) => !isGiven(each, readable)),
  ].filter((each) => !isGiven(each, given))
  const grants = [...new Set(all)].filter(
    (path, _, every) => !every.some((other) => other !== path && within(path, other)),
  )
  const problems: PathProblem[] = []
  for (const file of [...runs, ...(script === undefined ? [] : [script.path])]) {
    const real = followed(file, files)
    const own = hiddenBy(real, files, protectedPaths)
    if (own !== undefined)
      problems.push(
        problem(`the server's program ${file} belongs to ${own}, which is the sidecar's: move one of them`),
      )
  }
  if (doubt !== undefined && !isGiven(followed(doubt.file, files), readable))
    problems.push(
      problem(
        `it cannot be told whether ${doubt.file} is what ${command[0]} runs or the value of ${doubt.option}: write ${doubt.option}=VALUE, or add ${parentOf(doubt.file)} to filesystem.read`,
      ),
    )
  return { grants, problems }
}

function problem(message: string): PathProblem {
  return { path: ['filesystem'], message }
}

/** Where the launcher will find a program; undefined: nowhere, which the start itself says. */
function located(name: string, { files, path, cwd }: ProgramSurroundings): string | undefined {
  if (name.includes('/')) {
    const file = name.startsWith('/') ? name : plain(`${cwd}/${name}`)
    return files.runs(file) ? file : undefined
  }
  const folders = (path ?? defaultPath).split(':').filter((folder) => folder.startsWith('/'))
  return folders.map((folder) => joined(plain(folder), name)).find((file) => files.runs(file))
}

/** Without `.`, `..` and repeated slashes. */
function plain(path: string): string {
  const parts: string[] = []
  for (const part of path.split('/')) {
    if (part === '..') parts.pop()
    else if (part !== '' && part !== '.') parts.push(part)
  }
  return `/${parts.join('/')}`
}

interface Script {
  /** A file, or a folder that is run as a whole. */
  readonly path: string
  readonly family: Family
}

interface Running {
  /** Executables: the command's, and of a script that names its interpreter, that one. */
  readonly runs: readonly string[]
  readonly script: Script | undefined
  readonly doubt: { readonly option: string; readonly file: string } | undefined
}

function runBy(executable: string, args: readonly string[], around: ProgramSurroundings): Running {
  const { files, cwd } = around
  const real = followed(executable, files)
  const interpreter = interpreterOf(baseOf(real))
  if (interpreter === undefined) {
    const named = namedInterpreter(real, around)
    const family = named === undefined ? undefined : interpreterOf(baseOf(followed(named, files)))?.family
    return {
      runs: [executable, ...(named === undefined ? [] : [named])],
      script: family === undefined ? undefined : { path: executable, family },
      doubt: undefined,
    }
  }
  const none = { runs: [executable], script: undefined, doubt: undefined }
  const found = fileAmong(args, interpreter)
  if (found === undefined) return none
  const { family } = interpreter
  const file = plain(joined(cwd, args[found.index] as string))
  const written = args[found.index]?.startsWith('/') ? plain(args[found.index] as string) : file
  const spellings = family === 'javascript' ? [written, `${written}.js`] : [written]
  const script = spellings.find(
    (each) => files.at(each).kind === 'file' || (family !== 'other' && files.at(each).kind === 'folder'),
  )
  if (script === undefined) return none
  if (found.behind !== undefined) return { ...none, doubt: { option: found.behind, file: script } }
  return { ...none, script: { path: script, family } }
}

/** What a script names in its first line: `#!/usr/bin/env node`, `#!/opt/venv/bin/python`. */
function namedInterpreter(file: string, around: ProgramSurroundings): string | undefined {
  const [, program = '', first = ''] =
    /^#!\s*(\/\S+)(?:[ \t]+(?:-S[ \t]+)?(\S+))?/.exec(around.files.start(file)) ?? []
  if (program === '') return undefined
  return located(baseOf(program) === 'env' ? first : program, around)
}

function executableParts(file: string, around: ProgramSurroundings): readonly string[] {
  const { files } = around
  const real = followed(file, files)
  const folders = [file, real].map((each) => wholeOr(followed(parentOf(each), files), real, around))
  return [...folders, ...pythonParts(file, real, around)]
}

/** A virtual environment around the interpreter, and the standard library where that is not the system's. */
function pythonParts(file: string, real: string, { files, home }: ProgramSurroundings): readonly string[] {
  if (interpreterOf(baseOf(real))?.family !== 'python') return []
  const environment = parentOf(parentOf(file))
  const library = joined(parentOf(parentOf(real)), 'lib')
  return [
    ...(files.at(joined(environment, 'pyvenv.cfg')).kind === 'file' ? [environment] : []),
    ...(files.at(joined(library, baseOf(real))).kind === 'folder' ? [library] : []),
  ]
    .map((each) => followed(each, files))
    .filter((each) => !isShared(each, home))
}

function scriptParts({ path, family }: Script, around: ProgramSurroundings): readonly string[] {
  const { files } = around
  const real = followed(path, files)
  const folder = files.at(path).kind === 'folder' ? real : parentOf(real)
  if (family !== 'javascript') return [wholeOr(folder, real, around)]
  const packaged = packageAround(folder, around)
  const modules = foldersAbove(folder)
    .map((each) => joined(each, 'node_modules'))
    .filter((each) => files.at(each).kind === 'folder')
    .map((each) => followed(each, files))
    .filter((each) => !isShared(each, around.home))
  if (packaged === undefined) return [wholeOr(folder, real, around), ...modules]
  if (!isShared(packaged, around.home)) return [packaged, ...modules]
  // What the file is, a module or not, stands there.
  return [wholeOr(folder, real, around), joined(packaged, 'package.json'), ...modules]
}

/** The nearest package with a name: one without only says how the files beside it are to be read. */
function packageAround(folder: string, { files }: ProgramSurroundings): string | undefined {
  const packages = foldersAbove(folder).filter(
    (each) => files.at(joined(each, 'package.json')).kind === 'file',
  )
  return packages.find((each) => /"name"\s*:/.test(files.start(joined(each, 'package.json')))) ?? packages[0]
}

function wholeOr(folder: string, file: string, { home }: ProgramSurroundings): string {
  return isShared(folder, home) ? file : folder
}
