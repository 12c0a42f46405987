/** Number of letters to insert, drop, change or swap with a neighbour to get from `a` to `b`. */
function distance(a: string, b: string): number {
  let [before, previous] = [[] as number[], Array.from({ length: b.length + 1 }, (_, index) => index)]
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const change = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      let least = Math.min((previous[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, change)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        least = Math.min(least, (before[j - 2] ?? 0) + 1)
      row.push(least)
    }
    ;[before, previous] = [previous, row]
  }
  return previous[b.length] ?? 0
}

/**
 * The name that `name` was probably meant to be: case, `-` and `_` do not count, and up to a third of the letters may
 * be wrong. Undefined when none is near.
 */
export function nearest(name: string, known: Iterable<string>): string | undefined {
  const bare = (text: string): string => text.toLowerCase().replaceAll(/[-_]/g, '')
  // Longer than any name there is: not worth the comparison.
  if (name.length > 64) return undefined
  let best: string | undefined
  let least = Math.max(1, Math.floor(bare(name).length / 3)) + 1
  for (const candidate of known) {
    const far = distance(bare(name), bare(candidate))
    if (far < least) [best, least] = [candidate, far]
  }
  return best
}
