/**
 * Newline framing of the stdio transport (one JSON message per line), in linear time for lines of any length,
 * and bounded: what grows beyond the limit is thrown away as it arrives, and only the id of the message in it is
 * kept, so that the call it belongs to can be failed.
 */

export interface Line {
  /** Without its line break; empty lines are not reported. */
  readonly bytes: Buffer
}

/** A line over the limit. */
export interface Overlong {
  readonly overlongBytes: number
  /** JSON text of the top-level `id` in it, if there was one. */
  readonly idText: string | undefined
}

const NEWLINE = 0x0a

export class LineReader {
  readonly #limit: number
  #parts: Buffer[] = []
  #size = 0
  #finder: IdFinder | undefined

  /** @param limitBytes longest line accepted, without its line break */
  constructor(limitBytes: number) {
    this.#limit = limitBytes
  }

  /** Bytes of the unfinished line that are held. */
  get held(): number {
    return this.#finder === undefined ? this.#size : 0
  }

  /** Takes what arrived and calls back for every line it completes, in order. */
  push(chunk: Buffer, online: (line: Line | Overlong) => void): void {
    let from = 0
    for (;;) {
      const newline = chunk.indexOf(NEWLINE, from)
      if (newline < 0) break
      this.#take(chunk.subarray(from, newline))
      this.#end(online)
      from = newline + 1
    }
    if (from < chunk.length) this.#take(from === 0 ? chunk : chunk.subarray(from))
  }

  #take(part: Buffer): void {
    this.#size += part.length
    if (this.#finder !== undefined) this.#finder.push(part)
    else if (this.#size <= this.#limit) this.#parts.push(part)
    else {
      this.#finder = new IdFinder()
      for (const held of this.#parts) this.#finder.push(held)
      this.#finder.push(part)
      this.#parts = []
    }
  }

  #end(online: (line: Line | Overlong) => void): void {
    const finder = this.#finder
    const parts = this.#parts
    const size = this.#size
    this.#parts = []
    this.#size = 0
    this.#finder = undefined
    if (finder !== undefined) {
      online({ overlongBytes: size, idText: finder.idText })
      return
    }
    let bytes = parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts, size)
    if (bytes.at(-1) === 0x0d) bytes = bytes.subarray(0, -1)
    if (bytes.length > 0) online({ bytes })
  }
}

/**
 * Finds the value of the top-level `id` member in a text that passes by in pieces. It trusts the text to be
 * JSON; if it is not, the worst it finds is a wrong id of the same server's making.
 */
class IdFinder {
  idText: string | undefined
  #depth = 0
  #inString = false
  #escaped = false
  #word = ''
  #lastString = ''
  #capturing = false

  push(part: Buffer): void {
    for (let i = 0; i < part.length; i++) {
      const c = part[i] as number
      if (this.#inString) {
        if (this.#escaped) this.#escaped = false
        else if (c === 0x5c) this.#escaped = true
        else if (c === 0x22) this.#inString = false
        if (this.#depth === 1 && this.#word.length < 256) this.#word += String.fromCharCode(c)
        if (!this.#inString && this.#depth === 1 && !this.#capturing) this.#lastString = this.#word
        continue
      }
      if (c === 0x22) {
        this.#inString = true
        if (this.#depth === 1) this.#word = '"'
      } else if (c === 0x7b || c === 0x5b) this.#depth++
      else if (c === 0x7d || c === 0x5d || (c === 0x2c && this.#depth === 1)) {
        if (this.#capturing) {
          this.#capturing = false
          this.idText ??= this.#word.trim()
        }
        if (c !== 0x2c) this.#depth--
        this.#word = ''
      } else if (this.#depth === 1) {
        if (c === 0x3a) {
          this.#capturing = this.#lastString === '"id"'
          this.#word = ''
        } else if (this.#word.length < 256) this.#word += String.fromCharCode(c)
      }
    }
  }
}
