/** The program that a command names: what of the disk it consists of, so that it can start under any profile. */
import type { Profile } from '../core/sandbox.ts'
import { type Family, fileAmong, interpreterOf } from './interpreters.ts'
import { baseOf, isPersonal, joined, parentOf, within } from './path-names.ts'
import { followed, hiddenBy, type PathProblem } from './profile.ts'
import { executableParts, type ProgramSurroundings, scriptParts, searched } from './program-parts.ts'
import { baseRead } from './records.ts'

export interface Program {
  /** Files and folders to be read and executed, without links; what is the sidecar's in them stays hidden. */
  readonly grants: readonly string[]
  /** Why it would not start, and what would be right. */
  readonly problems: readonly PathProblem[]
}

/**
 * The program of a command: its executable's folder; for an interpreter, too, the file that it runs with what belongs to
 * that. A folder that holds things of everybody, such as the home folder, is never given as a whole: then it is the file.
 */
export function programOf(
  command: readonly string[],
  { filesystem }: Pick<Profile, 'filesystem'>,
  around: ProgramSurroundings,
): Program {
  const executable = located(command[0] ?? '', around)
  if (filesystem.scope === 'all' || executable === undefined) return { grants: [], problems: [] }
  const { files, protectedPaths, homes } = around
  const written = filesystem.write.map(({ path }) => path)
  const given = [
    ...baseRead.execute,
    ...filesystem.read.filter(({ execute }) => execute).map(({ path }) => path),
  ]
  const readable = [...given, ...filesystem.read.map(({ path }) => path), ...written]
  const isGiven = (path: string, by: readonly string[]): boolean =>
    by.some((each) => within(path, followed(each, files)))
  const { runs, script, doubt } = runBy(executable, command.slice(1), around)
  const problems: PathProblem[] = []
  const grants = new Set<string>()
  for (const [index, file] of runs.entries()) {
    const parts = executableParts(file, index > 0, around).filter((each) => !isGiven(each, given))
    // A server that writes there chooses what its next start is made of.
    const chosen = [executable, file].some((each) => isLaid(each, written, around))
    const beyond = chosen ? parts.filter((each) => !isGiven(each, written)) : []
    for (const each of parts) if (!beyond.includes(each)) grants.add(each)
    if (beyond.length > 0)
      problems.push(
        problem(
          `${file} was found where the server may write, so that ${listed(beyond)} is not given with it: add that to filesystem.read`,
        ),
      )
  }
  // What can be read already needs no more, and below a written path nothing is to be executed by the way.
  if (script !== undefined && !isGiven(followed(script.path, files), readable)) {
    const parts = isLaid(script.path, written, around)
      ? undefined
      : scriptParts(script.path, script.family, around)
    for (const each of parts ?? []) if (!isGiven(each, readable)) grants.add(each)
    const real = followed(script.path, files)
    if (parts === undefined)
      problems.push(
        problem(
          `${script.path} is a symbolic link to ${real}: name that instead, or add ${isPersonal(parentOf(real), homes) ? real : parentOf(real)} to filesystem.read`,
        ),
      )
  }
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
  return { grants: outermost([...grants]), problems }
}

function outermost(paths: readonly string[]): readonly string[] {
  return paths.filter((path) => !paths.some((other) => other !== path && within(path, other)))
}

/** Whether a file lies where the server may write, or is found through a link that does. */
function isLaid(file: string, written: readonly string[], { files }: ProgramSurroundings): boolean {
  const folders = written.flatMap((each) => [each, followed(each, files)])
  const way = [file, followed(file, files), ...files.links(file)]
  return way.some((path) => folders.some((each) => within(path, each)))
}

function listed(paths: readonly string[]): string {
  return [...new Set(paths)].join(' and ')
}

function problem(message: string): PathProblem {
  return { path: ['filesystem'], message }
}

/** Where the launcher will find a program; undefined: nowhere, which the start itself says. */
function located(name: string, around: ProgramSurroundings): string | undefined {
  const { files, cwd } = around
  if (name.includes('/')) {
    const file = name.startsWith('/') ? name : plain(`${followed(cwd, files)}/${name}`)
    return files.runs(file) ? file : undefined
  }
  return searched(around)
    .map((folder) => joined(plain(folder), name))
    .find((file) => files.runs(file))
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
  const { files } = around
  const cwd = followed(around.cwd, files)
  const real = followed(executable, files)
  const interpreter = interpreterOf(baseOf(real), baseOf(executable))
  if (interpreter === undefined) {
    const named = namedInterpreter(real, around)
    const names = named === undefined ? [] : [followed(named, files), named].map(baseOf)
    const family = interpreterOf(...names)?.family
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
  const { files } = around
  const [, program = '', first = ''] =
    /^#![ \t]*(\/\S+)(?:[ \t]+(?:-S[ \t]+)?(\S+))?/.exec(files.start(file)) ?? []
  if (program === '') return undefined
  const isEnv =
    baseOf(program) === 'env' &&
    ['/usr/bin/env', '/bin/env'].some((each) => followed(each, files) === followed(program, files))
  return located(isEnv ? first : program, around)
}
