import type { Field } from './field.ts'
import { fieldList } from './fields.ts'
import type { Path } from './parsed.ts'

/** One level of the file: the values and the sections in it, by name. A name can be both (`auth`: a word or a section). */
export interface Section {
  /** The keys it can have, in the order of the table. */
  readonly names: readonly string[]
  readonly fields: ReadonlyMap<string, Field<unknown>>
  readonly sections: ReadonlyMap<string, Section>
}

function sectionOf(prefix: string): Section {
  const fields = new Map<string, Field<unknown>>()
  const sections = new Map<string, Section>()
  const names = new Set<string>()
  for (const [, field] of fieldList) {
    if (!field.file.startsWith(prefix)) continue
    const [name = '', ...deeper] = field.file.slice(prefix.length).split('.')
    names.add(name)
    if (deeper.length === 0) fields.set(name, field)
    else if (!sections.has(name)) sections.set(name, sectionOf(`${prefix}${name}.`))
  }
  return { names: [...names], fields, sections }
}

/** The whole file. */
export const ROOT: Section = sectionOf('')

/** The section at `path`, or the last one on the way there. */
export function sectionAt(path: Path): Section {
  let section = ROOT
  for (const part of path) section = section.sections.get(String(part)) ?? section
  return section
}
