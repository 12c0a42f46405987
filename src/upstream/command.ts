import { accessSync, closeSync, constants, openSync, readSync, statSync } from 'node:fs'
import { delimiter, isAbsolute, join, resolve } from 'node:path'

/** What execvp falls back to (glibc, confstr). */
const defaultPath = '/bin:/usr/bin'

/**
 * Why a server command cannot be started, found before the first client has to find out; undefined if it can.
 *
 * @param file the program, a path or a name to look for
 * @param cwd where the server will run
 * @param path the server's PATH
 */
export function commandProblem(file: string, cwd: string, path: string | undefined): string | undefined {
  const isPath = file.includes('/')
  const candidates = isPath
    ? [isAbsolute(file) ? file : resolve(cwd, file)]
    : (path ?? defaultPath).split(delimiter).map((folder) => join(resolve(cwd, folder), file))
  let problem = isPath
    ? `there is no file ${candidates[0]}`
    : `there is no program ${file} in PATH (${path ?? 'not set'})`
  for (const candidate of candidates) {
    try {
      if (!statSync(candidate).isFile()) {
        if (isPath) problem = `${candidate} is not a file`
        continue
      }
      accessSync(candidate, constants.X_OK)
      return interpreterProblem(candidate, cwd)
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code === 'EACCES') problem = `${candidate} may not be executed`
    }
  }
  return problem
}

/** The kernel says of a script whose interpreter is missing that the script does not exist. */
function interpreterProblem(script: string, cwd: string): string | undefined {
  // What nothing ends is cut, and no script to the kernel either.
  const interpreter = /^#![ \t]*([^ \t\n\0]+)[ \t\n\0]/.exec(start(script))?.[1]
  // A name that is no UTF-8 cannot be looked for as text.
  if (interpreter === undefined || interpreter.includes('\ufffd')) return undefined
  if (statSync(resolve(cwd, interpreter), { throwIfNoEntry: false }) !== undefined) return undefined
  const advice = interpreter.endsWith('\r') ? ': its lines end as on Windows' : ''
  return `${script} is a script for ${JSON.stringify(interpreter)}, which does not exist${advice}`
}

/** As much as the kernel looks at, with NULs behind a shorter file as it has them; empty where the file may be run and not read. */
function start(file: string): string {
  const buffer = Buffer.alloc(256)
  let descriptor: number | undefined
  try {
    descriptor = openSync(file, 'r')
    readSync(descriptor, buffer, 0, buffer.length, 0)
    return buffer.toString()
  } catch {
    return ''
  } finally {
    if (descriptor !== undefined) closeSync(descriptor)
  }
}
