import {
  type CST,
  type ErrorCode,
  isMap,
  isNode,
  isScalar,
  isSeq,
  LineCounter,
  type Document as Parsed,
  Parser,
  parseAllDocuments,
  parseDocument,
  visit,
  type YAMLError,
} from 'yaml'
import type { Problem } from './error.ts'
import type { Path } from './parsed.ts'

/** How many nodes aliases may stand for: enough to share a list, too few to fill the memory (the "billion laughs"). */
const MAX_ALIASES = 100
/** How deep collections may lie in each other; the configuration itself needs five. */
const MAX_DEPTH = 32
/** Keys and list items in all. Finding duplicate keys takes the square of their number. */
const MAX_ITEMS = 5000

/** A YAML file as plain values, with the way back to the place of each. */
export interface Document {
  readonly value: unknown
  /**
   * Where the value at `path` begins (its key with `key`), or the nearest thing around it that exists, in characters
   * from the start of the file.
   */
  readonly offset: (path: Path, key?: 'key') => number
  /** `name:line:column`. */
  readonly where: (offset: number) => string
}

const OPTIONS = {
  // The message of a pretty error repeats lines of the file, which may hold secrets.
  prettyErrors: false,
  stringKeys: true,
  // Stated, so that a %YAML 1.1 directive cannot turn `no` into false or switch on more tags.
  schema: 'core',
  resolveKnownTags: false,
} as const

/** Reads one YAML 1.2 document. `name` is what the file is called in messages. Returns everything wrong with it. */
export function readDocument(text: string, name: string): Document | readonly Problem[] {
  const read = reader(text, name)
  if (!('where' in read)) return read
  const converted = convert(parseDocument(text, OPTIONS), read.where)
  return 'problems' in converted ? converted.problems : converted
}

/** Reads all documents of a YAML 1.2 file; empty ones are left out. Returns everything wrong with them. */
export function readDocuments(
  text: string,
  name: string,
): readonly Document[] | { readonly problems: readonly Problem[] } {
  const read = reader(text, name)
  if (!('where' in read)) return { problems: read }
  const converted = [...parseAllDocuments(text, OPTIONS)].flatMap((document) =>
    isEmpty(document) ? [] : [convert(document, read.where)],
  )
  const problems = converted.flatMap((each) => ('problems' in each ? each.problems : []))
  return problems.length > 0 ? { problems } : converted.filter((each) => 'value' in each)
}

/** `---` with nothing, or a comment, behind it. */
function isEmpty({ contents, errors }: Parsed): boolean {
  return errors.length === 0 && (contents === null || (isScalar(contents) && contents.value === null))
}

/** How to name places in the text, unless there is too much of it. */
function reader(text: string, name: string): Pick<Document, 'where'> | readonly Problem[] {
  const lines = new LineCounter()
  const where = (offset: number): string => {
    const { line, col } = lines.linePos(offset)
    // The counter answers 0 for an empty file.
    return `${name}:${Math.max(line, 1)}:${Math.max(col, 1)}`
  }
  const tooMuch = excess(text, lines)
  return tooMuch === undefined ? { where } : [{ where: where(tooMuch.offset), message: tooMuch.message }]
}

function convert(
  document: Parsed,
  where: Document['where'],
): Document | { readonly problems: readonly Problem[] } {
  const wrong = relevant([...document.errors, ...document.warnings])
  if (wrong.length > 0) {
    const problems = wrong.map(({ code, pos }) => ({
      where: where(pos[0]),
      message: EXPLAINED[code] ?? 'not valid YAML',
    }))
    return { problems }
  }
  let alias = 0
  visit(document, {
    Alias(_key, node) {
      alias = start(node) ?? 0
      return visit.BREAK
    },
  })
  try {
    const value: unknown = document.toJS({ maxAliasCount: MAX_ALIASES }) ?? {}
    return { value, offset: (path: Path, key?: 'key') => offsetOf(document.contents, path, key), where }
  } catch (error) {
    // Thrown, not collected: aliases beyond the limit or without an anchor.
    if (!(error instanceof ReferenceError)) throw error
    const message = `aliases (*name) point nowhere or stand for more than ${MAX_ALIASES} nodes: write the values out, and put quotes around text that begins with *`
    return { problems: [{ where: where(alias), message }] }
  }
}

/**
 * Fills `lines`, and says what makes the file too much to compose. The composer calls itself for each level; without
 * stack left, V8 ends the process rather than throw when it has to compile a regular expression. So this comes first.
 */
function excess(text: string, lines: LineCounter): { offset: number; message: string } | undefined {
  const left: [CST.Token | null | undefined, number][] = []
  let items = 0
  for (const token of new Parser(lines.addNewLine).parse(text)) {
    left.push([token, 0])
    for (let next = left.pop(); next !== undefined; next = left.pop()) {
      const [inner, depth] = next
      if (inner?.type === 'document') left.push([inner.value, depth])
      if (!inner || !('items' in inner)) continue
      const { offset } = inner
      if (depth === MAX_DEPTH) return { offset, message: `nested more than ${MAX_DEPTH} levels deep` }
      items += inner.items.length
      if (items > MAX_ITEMS) return { offset, message: `more than ${MAX_ITEMS} keys and list items` }
      for (const item of inner.items) left.push([item.key, depth + 1], [item.value, depth + 1])
    }
  }
  return undefined
}

function offsetOf(contents: unknown, path: Path, key?: 'key'): number {
  let node = contents
  let offset = start(node) ?? 0
  for (const [depth, part] of path.entries()) {
    if (isMap(node)) {
      const pair = node.items.find((item) => String(item.key) === String(part))
      if (pair === undefined) break
      const keyOnly = key === 'key' && depth === path.length - 1
      // A value that is not there has no place of its own.
      offset = (keyOnly ? undefined : start(pair.value)) ?? start(pair.key) ?? offset
      node = pair.value
    } else if (isSeq(node)) {
      node = node.items[Number(part)]
      offset = start(node) ?? offset
    } else break
  }
  return offset
}

/** Undefined for a value that was left empty. */
function start(node: unknown): number | undefined {
  if (!isNode(node) || !node.range) return undefined
  const [begin, end] = node.range
  return begin === end ? undefined : begin
}

// Written here, because some messages of the parser repeat a piece of the file, which may be a secret.
const EXPLAINED: Partial<Record<ErrorCode, string>> = {
  DUPLICATE_KEY: 'this key is there twice: keep one of the two',
  MULTIPLE_DOCS:
    'a second document begins here (---): the file holds only one; OME documents are named with --manifest',
  TAG_RESOLVE_FAILED: 'tags (!name) are not supported: write the plain value',
  NON_STRING_KEY: 'a key must be plain text',
  TAB_AS_INDENT: 'not valid YAML: a tab indents this line, use spaces',
  BAD_INDENT: 'not valid YAML: the indentation does not fit the lines around it, or a bracket is not closed',
  BAD_DIRECTIVE: 'not valid YAML: this %directive is not understood, leave it out',
  BAD_DQ_ESCAPE:
    'not valid YAML: there is no such backslash escape, use single quotes or double the backslash',
  BAD_SCALAR_START: 'not valid YAML: a value cannot start with this character, put quotes around it',
  BLOCK_AS_IMPLICIT_KEY:
    'not valid YAML: a second key on this line, put quotes around the value or start a new line',
  MULTILINE_IMPLICIT_KEY: 'not valid YAML: a key needs a colon after it, on the same line',
  MISSING_CHAR: 'not valid YAML: a colon, comma, quote, bracket or blank is missing here or just before',
  UNEXPECTED_TOKEN:
    'not valid YAML: this does not belong here, look for a missing quote, comma or colon before it',
}

/** Mistakes of content, each worth reporting; of the others only the first counts, the rest follow from it. */
const SEPARATE: ReadonlySet<ErrorCode> = new Set([
  'DUPLICATE_KEY',
  'MULTIPLE_DOCS',
  'NON_STRING_KEY',
  'TAG_RESOLVE_FAILED',
])

function relevant(errors: readonly YAMLError[]): readonly YAMLError[] {
  const first = errors.find(({ code }) => !SEPARATE.has(code))
  return first === undefined ? errors : [first]
}
