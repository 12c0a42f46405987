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
  /** It has a top-level `method`: a request or notification, no answer. */
  readonly asks: boolean
}

/** The id and kind of a message that cannot be read as one. */
export function identify(bytes: Buffer): Pick<Overlong, 'idText' | 'asks'> {
  const finder = new IdFinder()
  finder.push(bytes)
  return finder.found
}

const NEWLINE = 0x0a
const smallPart = 4096

export class LineReader {
  readonly #limit: number
  #parts: Buffer[] = []
  /** Where small pieces are collected, and how much of it is used. */
  #small: Buffer | undefined
  #smallLength = 0
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

  /**
   * Takes what arrived and calls back for every line it completes, in order.
   *
   * @param most lines, empty ones too, after which it takes no more
   * @returns how many bytes it took
   */
  push(chunk: Buffer, online: (line: Line | Overlong) => void, most = Number.POSITIVE_INFINITY): number {
    let from = 0
    for (let lines = 0; lines < most; lines++) {
      const newline = chunk.indexOf(NEWLINE, from)
      if (newline < 0) {
        if (from < chunk.length) this.#take(from === 0 ? chunk : chunk.subarray(from))
        return chunk.length
      }
      const part = chunk.subarray(from, newline)
      if (this.#size === 0 && part.length <= this.#limit) {
        // The common case: a whole line in one chunk.
        const bytes = part.at(-1) === 0x0d ? part.subarray(0, -1) : part
        if (bytes.length > 0) online({ bytes })
      } else {
        this.#take(part)
        this.#end(online)
      }
      from = newline + 1
    }
    return from
  }

  #take(part: Buffer): void {
    if (part.length === 0) return
    this.#size += part.length
    if (this.#finder !== undefined) this.#finder.push(part)
    else if (this.#size <= this.#limit) this.#keep(part)
    // One byte more may be a carriage return, which does not count.
    else if (this.#size === this.#limit + 1 && part.at(-1) === 0x0d) this.#keep(part)
    else {
      this.#finder = this.#find()
      this.#finder.push(part)
    }
  }

  // A small piece is copied: by itself it would cost many times its length, and keep the buffer it came in.
  #keep(part: Buffer): void {
    if (part.length >= smallPart) {
      this.#seal()
      this.#parts.push(part)
      return
    }
    if (this.#small === undefined || this.#smallLength + part.length > this.#small.length) {
      this.#seal()
      this.#small = Buffer.allocUnsafeSlow(this.#parts.length === 0 ? smallPart : 16 * smallPart)
    }
    part.copy(this.#small, this.#smallLength)
    this.#smallLength += part.length
  }

  #seal(): void {
    const small = this.#small?.subarray(0, this.#smallLength)
    this.#smallLength = 0
    if (small === undefined || this.#small === undefined || small.length === 0) return
    if (small.length * 2 > this.#small.length) {
      this.#parts.push(small)
      this.#small = undefined
    } else {
      // A buffer that is hardly used is not kept for the little in it, but used again.
      this.#parts.push(Buffer.from(small))
    }
  }

  /** Gives up what is held for the search of its id. */
  #find(): IdFinder {
    this.#seal()
    const finder = new IdFinder()
    for (const held of this.#parts) finder.push(held)
    this.#parts = []
    return finder
  }

  #end(online: (line: Line | Overlong) => void): void {
    this.#seal()
    let finder = this.#finder
    const size = this.#size
    let bytes = this.#parts.length === 1 ? (this.#parts[0] as Buffer) : Buffer.concat(this.#parts)
    if (bytes.at(-1) === 0x0d) bytes = bytes.subarray(0, -1)
    if (bytes.length > this.#limit) finder ??= this.#find()
    this.#parts = []
    this.#small = undefined
    this.#size = 0
    this.#finder = undefined
    if (finder !== undefined) online({ overlongBytes: size, ...finder.found })
    else if (bytes.length > 0) online({ bytes })
  }
}

/**
 * Finds the value of the top-level `id` member in a text that passes by in pieces. It trusts the text to be
 * JSON; if it is not, the worst it finds is a wrong id of the same server's making.
 */
class IdFinder {
  idText: string | undefined
  #asks = false
  #depth = 0
  #inString = false
  #escaped = false
  #word = ''
  #lastString = ''
  #capturing = false

  get found(): Pick<Overlong, 'idText' | 'asks'> {
    return { idText: this.idText, asks: this.#asks }
  }

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
          this.idText ??= Buffer.from(this.#word, 'latin1').toString().trim()
        }
        if (c !== 0x2c) this.#depth--
        this.#word = ''
      } else if (this.#depth === 1) {
        if (c === 0x3a) {
          const key = keyOf(this.#lastString)
          this.#capturing = key === 'id'
          this.#asks ||= key === 'method'
          this.#word = ''
        } else if (this.#word.length < 256) this.#word += String.fromCharCode(c)
      }
    }
  }
}

/** `"method"` with every letter escaped. */
const longestKey = 38

function keyOf(text: string): string | undefined {
  if (!text.includes('\\')) return text.slice(1, -1)
  if (text.length > longestKey) return undefined
  try {
    return JSON.parse(text) as string
  } catch {
    return undefined
  }
}
