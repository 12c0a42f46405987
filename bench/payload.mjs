const ROW_BYTES = 64
const cache = new Map()

/**
 * Numbered rows of text with quotes and newlines, so that a lost, doubled or moved part is noticed. `bytes`, a
 * multiple of 64, counts the JSON encoding between its quotes: that is what travels and what line limits count.
 */
export function payload(bytes) {
  let known = cache.get(bytes)
  if (!known) {
    const rows = []
    for (let row = 0; row < bytes / ROW_BYTES; row++) {
      rows.push(`${String(row).padStart(10, '0')} the quick brown fox jumps over the lazy dogs, "a"\n`)
    }
    const text = rows.join('')
    const encoded = Buffer.from(JSON.stringify(text))
    if (encoded.length !== bytes + 2)
      throw new Error(`a payload of ${bytes} bytes takes ${encoded.length - 2}`)
    known = { text, encoded }
    cache.set(bytes, known)
  }
  return known
}
