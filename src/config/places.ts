import type { Document } from './document.ts'
import type { Setting } from './layer.ts'
import type { Path } from './parsed.ts'

/** Where the parts of the value at `parts` stand. */
export function places(document: Document, parts: Path): [at: Setting['at'], given: Setting['given']] {
  const at = (inner: Path): string =>
    document.where(document.offset(written(document.value, [...parts, ...inner]).path))
  return [at, (inner) => (written(document.value, [...parts, ...inner]).there ? at(inner) : undefined)]
}

/** The path as it was written: where one item may stand without a list around it, it has no number. */
function written(value: unknown, path: Path): { readonly path: Path; readonly there: boolean } {
  let inner = value
  const real: (string | number)[] = []
  for (const part of path) {
    if (part === 0 && typeof inner === 'object' && inner !== null && !Array.isArray(inner)) continue
    real.push(part)
    const there = typeof inner === 'object' && inner !== null && Object.hasOwn(inner, part)
    inner = there ? (inner as Record<string | number, unknown>)[part] : undefined
    if (!there) return { path: real, there }
  }
  return { path: real, there: true }
}
