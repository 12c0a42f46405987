/** A file of secrets, or a secret, that cannot be used. The message has file and line, never what stands there. */
export class SecretFileError extends Error {
  override readonly name = 'SecretFileError'
}

/** One `NAME:REST` of a file. */
export interface NamedLine {
  readonly name: string
  /** What follows the colon, without blanks around it. */
  readonly rest: string
  /** `FILE:LINE`. */
  readonly where: string
}

/** What the lines of a file are, for its errors. */
export interface LineShape {
  /** `token`. */
  readonly what: string
  /** `NAME:TOKEN`. */
  readonly form: string
  /** Whether the only line of a file may leave out its name, which is `default` then. */
  readonly bare: boolean
}

/** Entries of one file; each of them is compared on every try. */
export const maxEntries = 10_000
/** A name is part of a principal's id and of log lines. */
export const namePattern = /^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$/

/**
 * The lines of a file of secrets, `NAME:REST` each. Blank lines and lines that start with `#` are skipped, blanks around
 * names and values do not count. One of 10000 lines is the last.
 *
 * @param text the content of the file
 * @param file its name, for errors
 * @throws SecretFileError for a line without a name, a name that is none or stands twice, or a file without any line
 */
export function namedLines(text: string, file: string, shape: LineShape): readonly NamedLine[] {
  const lines = text
    .split('\n')
    .map((line, i) => ({ line: line.trim(), where: `${file}:${i + 1}` }))
    .filter(({ line }) => line !== '' && !line.startsWith('#'))
  if (lines.length === 0)
    throw new SecretFileError(`${file}: there is no ${shape.what} in it; write ${shape.form}`)
  const bare = shape.bare && lines.length === 1
  return onlyOnce(
    lines.map(({ line, where }) => {
      const colon = line.indexOf(':')
      if (colon < 0 && !bare) {
        const hint = shape.bare ? ` (only a file with one ${shape.what} may omit it)` : ''
        throw new SecretFileError(`${where}: a ${shape.what} without a name; write ${shape.form}${hint}`)
      }
      const name = colon < 0 ? 'default' : line.slice(0, colon).trim()
      return { name, rest: line.slice(colon + 1).trim(), where }
    }),
    shape,
  )
}

/**
 * @returns the same entries
 * @throws SecretFileError for a name that is none or stands twice, and beyond 10000 entries
 */
export function onlyOnce<T extends Pick<NamedLine, 'name' | 'where'>>(
  entries: readonly T[],
  { what }: Pick<LineShape, 'what'>,
): readonly T[] {
  const names = new Set<string>()
  for (const { name, where } of entries) {
    if (!namePattern.test(name)) {
      throw new SecretFileError(
        `${where}: the name before ':' must be 1 to 64 letters, digits, dots, dashes, @ or _`,
      )
    }
    if (names.has(name)) throw new SecretFileError(`${where}: this name stands twice`)
    if (names.size >= maxEntries) throw new SecretFileError(`${where}: more than ${maxEntries} ${what}s`)
    names.add(name)
  }
  return entries
}
