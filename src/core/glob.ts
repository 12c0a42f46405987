/**
 * A pattern in which each `*` stands for any text, the empty one included, and everything else for itself: names of
 * tools and hosts have no path semantics. Never goes back, however many stars there are.
 */
export function glob(pattern: string): (text: string) => boolean {
  return globOfParts(pattern.split('*'))
}

/** The same, of the texts between the stars. */
export function globOfParts([head = '', ...rest]: readonly string[]): (text: string) => boolean {
  const tail = rest.pop()
  if (tail === undefined) return (text) => text === head
  return (text) => {
    if (text.length < head.length + tail.length || !text.startsWith(head) || !text.endsWith(tail))
      return false
    const end = text.length - tail.length
    let at = head.length
    for (const part of rest) {
      const found = text.indexOf(part, at)
      if (found < 0 || found + part.length > end) return false
      at = found + part.length
    }
    return true
  }
}

/** True for a text that any of the patterns fits. */
export function anyGlob(patterns: readonly string[]): (text: string) => boolean {
  const exact = new Set(patterns.filter((pattern) => !pattern.includes('*')))
  const globs = patterns.filter((pattern) => pattern.includes('*')).map(glob)
  return (text) => exact.has(text) || globs.some((matches) => matches(text))
}
