import type * as z from 'zod'
import { fieldList } from './fields.ts'
import { dotted } from './layer.ts'
import { nearest } from './nearest.ts'
import { type Fault, kindOf, type Path } from './parsed.ts'
import { fileSchema } from './schema.ts'
import { sectionAt } from './sections.ts'

/** Something wrong in the file. */
export interface FileFault extends Omit<Fault, 'key'> {
  /** The key itself is wrong, not its value. */
  readonly key: boolean
  /** The value or section that was meant: nothing sure is known about it now. */
  readonly about: Path
}

/** Everything wrong with the content of a file. Empty when it is right. */
export function fileFaults(input: unknown): readonly FileFault[] {
  const result = fileSchema.safeParse(input)
  return result.success ? [] : result.error.issues.flatMap((issue) => faultsOf(issue, [], input))
}

function faultsOf(issue: z.core.$ZodIssue, base: Path, input: unknown): readonly FileFault[] {
  const path: Path = [...base, ...issue.path.map((part) => (typeof part === 'number' ? part : String(part)))]
  if (issue.code === 'unrecognized_keys') return issue.keys.map((name) => unknownKey(path, name))
  if (issue.code === 'invalid_union') {
    // The forms are value and section, in this order: what was written shows which one was meant.
    const meant = kindOf(valueAt(input, path)) === 'a section' ? issue.errors.at(-1) : issue.errors[0]
    return (meant ?? []).flatMap((inner) => faultsOf(inner, path, input))
  }
  if (issue.code !== 'invalid_type') {
    const key = issue.code === 'custom' && issue.params?.['key'] === true
    return [{ path, about: path, key, message: key ? inside(path, issue.message) : issue.message }]
  }
  const given = kindOf(valueAt(input, path))
  const advice = given === 'nothing' ? ': fill it or leave it out' : ''
  const message = `must be a section of keys (${sectionAt(path).names.join(', ')}), not ${given}${advice}`
  return [{ path, about: path, key: false, message }]
}

/** A message about a key, which is not repeated, with the value that it stands in. */
function inside(path: Path, message: string): string {
  return `${dotted('', path.slice(0, -1)).slice(1)}: ${message}`
}

function unknownKey(section: Path, name: string): FileFault {
  const path = [...section, name]
  const known = sectionAt(section).names
  // Beside the credentials, a name that stands where none belongs may be one.
  const shown = section[0] === 'auth' ? 'unknown key' : `unknown key ${JSON.stringify(name.slice(0, 64))}`
  const intro = section.length === 0 ? shown : `${shown} in ${section.join('.')}`
  const near = nearest(name, known)
  if (near !== undefined)
    return { path, about: [...section, near], key: true, message: `${intro}: did you mean ${near}?` }
  const elsewhere = fieldList.map(([, { file }]) => file).filter((file) => file.split('.').at(-1) === name)
  const advice =
    elsewhere.length > 0 ? `did you mean ${elsewhere.join(' or ')}?` : `there are ${known.join(', ')}`
  // Any value of this section may have been meant; at the top that would be any value at all.
  return { path, about: section.length === 0 ? path : section, key: true, message: `${intro}: ${advice}` }
}

function valueAt(input: unknown, path: Path): unknown {
  let value = input
  for (const part of path) value = (value as Record<string | number, unknown> | undefined)?.[part]
  return value
}
