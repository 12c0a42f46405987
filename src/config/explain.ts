import type { Field } from './field.ts'
import { FIELDS } from './fields.ts'
import type { LoadedConfig } from './load.ts'

/**
 * The configuration for a person: one line for each value, as the file would name it, with where it comes from.
 * Values of `server.env.set` are left out, they may be secrets.
 */
export function explainConfig({ settings }: LoadedConfig): readonly string[] {
  const rows = [...settings].map(([key, { value, where }]) => {
    const field: Field<unknown> = FIELDS[key]
    return { name: field.file, shown: value === undefined ? 'not set' : field.type.show(value), where }
  })
  const width = (lengths: number[]): number => Math.min(60, Math.max(...lengths))
  const [names, values] = [
    width(rows.map(({ name }) => name.length)),
    width(rows.map(({ shown }) => shown.length)),
  ]
  return rows.map(({ name, shown, where }) => `${name.padEnd(names)}  ${shown.padEnd(values)}  ${where}`)
}

export { explainPolicy } from './explain-policy.ts'
