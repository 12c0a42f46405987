import { readDocument } from './document.ts'
import type { Problem } from './error.ts'
import { dotted } from './layer.ts'
import type { ValueType } from './values.ts'

/** One value from the text of a YAML or JSON file that is nothing else; `name` is what the file is called in messages. */
export function readValue<T>(
  type: ValueType<T>,
  text: string,
  name: string,
): { readonly ok: true; readonly value: T } | { readonly ok: false; readonly problems: readonly Problem[] } {
  const document = readDocument(text, name)
  if (!('value' in document)) return { ok: false, problems: document }
  const parsed = type.parse(document.value)
  if (parsed.ok) return parsed
  const problems = parsed.faults.map(({ path, key, message }) => {
    const place = dotted('', key === true ? path.slice(0, -1) : path).replace(/^\./, '')
    return {
      where: document.where(document.offset(path, key === true ? 'key' : undefined)),
      message: place === '' ? message : `${place}: ${message}`,
    }
  })
  return { ok: false, problems }
}
