import * as z from 'zod'
import type { Field } from './field.ts'
import { FILLED_SECTIONS, SECTIONS } from './headings.ts'
import { ROOT, type Section } from './sections.ts'

export type { Config, ConfigKey, LogLevel } from './config.ts'

/** A value: its check is the parser of the table, and what the JSON Schema says of it stands there too. */
function valueSchema(field: Field<unknown>): z.ZodType {
  const description = 'means' in field ? `${field.doc} Default: ${field.means}.` : field.doc
  const fallback = 'default' in field ? { default: field.default } : {}
  return z
    .unknown()
    .superRefine((input, context) => {
      const parsed = field.type.parse(input)
      if (parsed.ok) return
      // Not to be continued: in a union, a form that may go on hides what the other form has to say.
      for (const { path, message, key = false } of parsed.faults)
        context.addIssue({ code: 'custom', path: [...path], message, params: { key }, continue: false })
    })
    .meta({ ...field.type.json, ...fallback, description })
}

function sectionSchema(section: Section, path: string): z.ZodType {
  const shape: Record<string, z.ZodType> = {}
  for (const name of section.names) {
    const [field, inner] = [section.fields.get(name), section.sections.get(name)]
    const value = field && valueSchema(field)
    const below = inner && sectionSchema(inner, path === '' ? name : `${path}.${name}`)
    const forms = [value, below].filter((form) => form !== undefined)
    shape[name] = (forms.length === 1 ? (forms[0] as z.ZodType) : z.union(forms)).optional()
  }
  const object = z.strictObject(shape)
  const description = SECTIONS[path] ?? ''
  const needed = FILLED_SECTIONS.get(path)
  if (needed === undefined) return object.meta({ description })
  return object
    .refine((input) => Object.keys(input).length > 0, {
      error: `is empty: it needs ${needed}`,
      abort: true,
      // With an unknown key in it, that is what is wrong.
      when: ({ issues }) => issues.length === 0,
    })
    .meta({ description, minProperties: 1 })
}

/** The configuration file: no key is required and none that is unknown is accepted. */
export const fileSchema: z.ZodType = sectionSchema(ROOT, '')
