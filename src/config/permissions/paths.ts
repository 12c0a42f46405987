import { posix } from 'node:path'
import type { PathGrant, ReadGrant } from '../../core/sandbox.ts'
import { checked, defaulted, isSection, object, required } from '../object.ts'
import { bad, type Fault, good, type Parsed, quote } from '../parsed.ts'
import { flag, list, text, type ValueType } from '../values.ts'

/** PATH_MAX of Linux without the NUL at its end. Bytes. */
const LONGEST = 4095

/** An absolute path in its one spelling: what is granted must be readable from the file, not from a calculation. */
export const grantPath: ValueType<string> = text('absolute path', { pattern: '^/' }, (input) => {
  if (!input.startsWith('/'))
    return bad(
      input.startsWith('~')
        ? `${quote(input)} is not an absolute path: write the home folder out`
        : `${quote(input)} is not an absolute path: paths start with / here, as the server sees them`,
    )
  const plain = normalized(input)
  if (plain !== input) return bad(`${quote(input)} is not the plain spelling of a path: write ${plain}`)
  return grantable(input)
})

/** The same of notations whose own readers clean up paths. */
export const cleanedPath: ValueType<string> = {
  ...grantPath,
  parse: (input) =>
    grantPath.parse(typeof input === 'string' && input.startsWith('/') ? normalized(input) : input),
}

function normalized(path: string): string {
  const plain = posix.normalize(path)
  return plain.length > 1 && plain.endsWith('/') ? plain.slice(0, -1) : plain
}

function grantable(path: string): Parsed<string> {
  if (Buffer.byteLength(path) > LONGEST) return bad(`is longer than ${LONGEST} bytes`)
  if (path === '/')
    return bad('is the whole file system: name folders, or use the builtin profile full-access')
  // It would open the processes of others, whatever `proc` says.
  if (path === '/proc' || path.startsWith('/proc/'))
    return bad('is granted by filesystem.proc (self or all), not as a path')
  if (path === '/dev') return bad('holds every device there is: name what is needed of it, such as /dev/shm')
  return good(path)
}

const members = {
  path: required(grantPath, 'Where the grant begins: a folder with all below it, or one file.'),
  optional: defaulted(flag, false, 'Passed over where it does not exist; else that is an error.'),
}

/** One entry of `read`. */
export const readGrant: ValueType<ReadGrant> = pathOr(
  object({
    ...members,
    execute: defaulted(flag, true, 'Programs in it may be run. Shared libraries need no more than reading.'),
  }),
)

/** One entry of `write`. */
export const writeGrant: ValueType<PathGrant> = pathOr(object(members))

/** Entries of which no two are about the same path. */
export function grants<T extends PathGrant>(entry: ValueType<T>): ValueType<readonly T[]> {
  return checked(list(entry), (entries) => repeated(entries.map(({ path }) => path)))
}

/** Two entries for one path would leave open which of them counts. */
export function repeated(paths: readonly string[]): readonly Fault[] {
  return paths.flatMap((path, index) =>
    paths.indexOf(path) === index ? [] : [{ path: [index], message: `${quote(path)} stands here twice` }],
  )
}

/** A path alone means the section with nothing but it. */
function pathOr<T extends PathGrant>(section: ValueType<T>): ValueType<T> {
  return {
    ...section,
    name: 'absolute path, or section',
    json: { anyOf: [grantPath.json, section.json] },
    parse: (input) => {
      if (isSection(input)) return section.parse(input)
      const parsed = grantPath.parse(input)
      return parsed.ok ? section.parse({ path: parsed.value }) : parsed
    },
    show: ({ path, optional, ...rest }) => {
      const remarks = [
        ...('execute' in rest && rest.execute === false ? ['no execute'] : []),
        ...(optional ? ['optional'] : []),
      ]
      return remarks.length === 0 ? path : `${path} (${remarks.join(', ')})`
    },
  }
}
