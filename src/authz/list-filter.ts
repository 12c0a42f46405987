import { elements, type Member, members, removal } from '../core/json.ts'
import type { Message, Span } from '../core/jsonrpc.ts'
import { folded, privateScope, settled } from './answer.ts'
import type { ListedType } from './rules.ts'

/** An object that a list names. */
export interface Listed {
  readonly type: ListedType
  /** A template's URI template, a resource's URI. */
  readonly name: string
  readonly message: Message
  readonly span: Span
}

const kinds: Readonly<Record<string, { readonly type: ListedType; readonly key: string }>> = {
  tools: { type: 'tool', key: 'name' },
  prompts: { type: 'prompt', key: 'name' },
  resources: { type: 'resource', key: 'uri' },
  resourceTemplates: { type: 'template', key: 'uriTemplate' },
}

/**
 * Takes the objects out of a list that are not to be seen; everything else stays byte for byte, but `cacheScope`, which
 * becomes "private". An object goes, too, if readers may differ about its name: there twice, in unusual letter case, no
 * string, or not there.
 *
 * @param list the member of the result that holds the objects
 * @throws Error for a result in which the list is not there, twice, or no array
 */
export function filteredList(answer: Message, list: string, keeps: (item: Listed) => boolean): Message {
  if (answer.isError) return answer
  const message = settled(answer)
  const { bytes, result } = message
  const { type, key } = kinds[list] as (typeof kinds)[string]
  const parts = result === undefined ? [] : members(bytes, result)
  const items = elements(bytes, theList(bytes, parts, list))
  const hidden = new Set(
    items.filter((span) => {
      const name = nameOf(message, span, key)
      return name === undefined || !keeps({ type, name, message, span })
    }),
  )
  const edits = removal(items, (span) => hidden.has(span))
  edits.push(...privateScope(message, parts))
  if (edits.length > 1) edits.sort((a, b) => a.start - b.start)
  return message.edited(...edits)
}

function theList(bytes: Buffer, parts: readonly Member[], list: string): Span {
  const alike = parts.filter(({ key }) => folded(key) === list.toLowerCase())
  const [only] = alike
  if (only === undefined || alike.length > 1 || only.key !== list)
    throw new Error(`the result has ${alike.length} members like ${JSON.stringify(list)}`)
  if (bytes[only.value.start] !== 0x5b) throw new Error(`${JSON.stringify(list)} is no array`)
  return only.value
}

function nameOf(message: Message, item: Span, key: string): string | undefined {
  const alike = members(message.bytes, item).filter((each) => folded(each.key) === key.toLowerCase())
  const [only] = alike
  return alike.length === 1 && only?.key === key ? message.string(only.value) : undefined
}
