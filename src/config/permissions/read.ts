import type { Profile } from '../../core/sandbox.ts'
import { readDocument } from '../document.ts'
import { ConfigError, type Problem } from '../error.ts'
import { dotted } from '../layer.ts'
import { isSection } from '../object.ts'
import type { Fault, Path } from '../parsed.ts'
import { places } from '../places.ts'
import type { Made } from './made.ts'
import { profileOf } from './notation.ts'

export interface ReadProfile {
  readonly profile: Profile
  readonly warnings: readonly Problem[]
  /** `file:line:column` of a part of the profile, or of the nearest thing around it. */
  readonly at: (path: Path) => string
  /** The same for a part that is written there; undefined where a default stands. */
  readonly given: (path: Path) => string | undefined
}

/** The key around a profile in a document of its own. */
const WRAPPER = 'permissionProfile'

/**
 * A profile out of the text of a YAML or JSON file, in any notation.
 *
 * @param where what the file is called in messages
 * @param name of the profile
 * @throws ConfigError with everything that is wrong
 */
export function readProfile(text: string, where: string, name: string): ReadProfile {
  const document = readDocument(text, where)
  if (!('value' in document)) throw new ConfigError(document)
  const { value } = document
  const wrapped = isSection(value) && Object.hasOwn(value, WRAPPER)
  const base: Path = wrapped ? [WRAPPER] : []
  const others = wrapped ? Object.keys(value).filter((key) => key !== WRAPPER) : []
  const problem = ({ path, key, message }: Fault): Problem & { readonly offset: number } => {
    const offset = document.offset([...base, ...path], key === true ? 'key' : undefined)
    const place = dotted('', key === true ? path.slice(0, -1) : path).replace(/^\./, '')
    return { where: document.where(offset), message: place === '' ? message : `${place}: ${message}`, offset }
  }
  if (!wrapped && isSection(value) && Object.hasOwn(value, 'permissions')) {
    const where = document.where(document.offset(['permissions'], 'key'))
    const message =
      'permissions is a key of the configuration: in a file of its own a profile is written without it'
    throw new ConfigError([{ where, message }])
  }
  const made = profileOf(wrapped ? value[WRAPPER] : value, name)
  const problems = [
    ...others.map((key) => {
      const offset = document.offset([key], 'key')
      return { where: document.where(offset), message: `stands beside ${WRAPPER}: put it inside`, offset }
    }),
    ...(made.ok ? [] : made.faults.map(problem)),
  ]
  if (!made.ok || problems.length > 0)
    throw new ConfigError(
      problems
        .toSorted((a, b) => a.offset - b.offset)
        .map(({ where: at, message }) => ({ where: at, message })),
    )
  return placed(made.value, problem, places(document, base))
}

function placed(
  { profile, warnings, source }: Made,
  problem: (fault: Fault) => Problem,
  [at, given]: ReturnType<typeof places>,
): ReadProfile {
  return {
    profile,
    warnings: warnings.map((fault) => {
      const { where, message } = problem(fault)
      return { where, message }
    }),
    at: (path) => at(source(path)),
    given: (path) => given(source(path)),
  }
}
