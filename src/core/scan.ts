/**
 * A validating JSON scanner (RFC 8259) over bytes. It builds nothing: it walks a text once, in linear time,
 * refuses what is not JSON, and tells its caller where the members it asked for stand, so that values are
 * relayed as the bytes they arrived in (big integers, number spellings and unknown members survive).
 */

/** Byte offsets into the scanned buffer: from `start` up to but not including `end`. */
export interface Span {
  readonly start: number
  readonly end: number
}

/** The text is not JSON. `at` is a byte offset. */
export class ScanError extends Error {
  override readonly name = 'ScanError'
  readonly at: number

  constructor(expected: string, at: number) {
    super(`expected ${expected} at byte ${at}`)
    this.at = at
  }
}

/** Nesting that is still accepted; deeper texts are refused, for the sake of recursive parsers behind us. */
export const maxDepth = 256

const QUOTE = 0x22
const BACKSLASH = 0x5c
const COMMA = 0x2c
const COLON = 0x3a
const OPEN_ARRAY = 0x5b
const CLOSE_ARRAY = 0x5d
const OPEN_OBJECT = 0x7b
const CLOSE_OBJECT = 0x7d

const isHex = (c: number): boolean =>
  (c >= 0x30 && c <= 0x39) || (c >= 0x41 && c <= 0x46) || (c >= 0x61 && c <= 0x66)
const isDigit = (c: number): boolean => c >= 0x30 && c <= 0x39

/** Member names that are looked for. */
export class Names {
  readonly #byLength: { readonly name: string; readonly bytes: Buffer }[][] = []

  constructor(...names: readonly string[]) {
    for (const name of names) {
      const bytes = Buffer.from(name)
      this.#byLength[bytes.length] ??= []
      this.#byLength[bytes.length]?.push({ name, bytes })
    }
  }

  /** The name that stands at these bytes, spelled without escapes. */
  find(text: Buffer, start: number, end: number): string | undefined {
    const candidates = this.#byLength[end - start]
    if (candidates === undefined) return undefined
    for (const { name, bytes } of candidates) {
      let i = 0
      while (i < bytes.length && bytes[i] === text[start + i]) i++
      if (i === bytes.length) return name
    }
    return undefined
  }
}

export class Scanner {
  readonly bytes: Buffer
  /** The next byte to be read. */
  position: number
  /** Where the key of the member that {@link object} is at begins. */
  keyStart = 0
  readonly #end: number
  #depth = 0

  constructor(bytes: Buffer, start = 0, end = bytes.length) {
    this.bytes = bytes
    this.position = start
    this.#end = end
  }

  /** The first byte of the next value, or 0 at the end of the text. */
  peek(): number {
    this.#space()
    return this.position < this.#end ? (this.bytes[this.position] as number) : 0
  }

  /** Refuses anything but white space after the value. */
  finish(): void {
    this.#space()
    if (this.position < this.#end) throw new ScanError('the end of the text', this.position)
  }

  /**
   * Walks the object at the position and calls `member` with each key, the position being at its value.
   * `member` must consume that value, with {@link skip}, {@link object}, {@link array} or {@link span}. Keys among
   * `known` are recognised without building a string for each.
   */
  object(member: (key: string) => void, known?: Names): void {
    this.#enter(OPEN_OBJECT, 'an object')
    if (this.peek() === CLOSE_OBJECT) {
      this.#leave()
      return
    }
    for (;;) {
      const key = this.#key(known)
      member(key)
      const c = this.peek()
      if (c === CLOSE_OBJECT) break
      if (c !== COMMA) throw new ScanError("',' or '}'", this.position)
      this.position++
    }
    this.#leave()
  }

  /** Walks the array at the position; `element` must consume each value. */
  array(element: () => void): void {
    this.#enter(OPEN_ARRAY, 'an array')
    if (this.peek() === CLOSE_ARRAY) {
      this.#leave()
      return
    }
    for (;;) {
      element()
      const c = this.peek()
      if (c === CLOSE_ARRAY) break
      if (c !== COMMA) throw new ScanError("',' or ']'", this.position)
      this.position++
    }
    this.#leave()
  }

  /** Consumes one value and tells where it stood, without surrounding white space. */
  span(): Span {
    this.#space()
    const start = this.position
    this.skip()
    return { start, end: this.position }
  }

  /** Consumes one value of any kind, without recursion. */
  skip(): void {
    const bytes = this.bytes
    const base = this.#depth
    for (;;) {
      const c = this.peek()
      if (c === OPEN_OBJECT) {
        this.#enter(OPEN_OBJECT, 'an object')
        if (this.peek() !== CLOSE_OBJECT) {
          this.#skipKey()
          continue
        }
        this.#leave()
      } else if (c === OPEN_ARRAY) {
        this.#enter(OPEN_ARRAY, 'an array')
        if (this.peek() !== CLOSE_ARRAY) continue
        this.#leave()
      } else if (c === QUOTE) this.#string()
      else this.#scalar(c)
      for (;;) {
        if (this.#depth === base) return
        const next = this.peek()
        const inObject = kinds[this.#depth] === OPEN_OBJECT
        if (next === COMMA) {
          this.position++
          if (inObject) {
            this.#space()
            this.#skipKey()
          }
          break
        }
        if (next !== (inObject ? CLOSE_OBJECT : CLOSE_ARRAY)) {
          throw new ScanError(inObject ? "',' or '}'" : "',' or ']'", this.position)
        }
        this.#leave()
      }
      if (this.position >= bytes.length) throw new ScanError('a value', this.position)
    }
  }

  #enter(open: number, expected: string): void {
    if (this.peek() !== open) throw new ScanError(expected, this.position)
    if (++this.#depth > maxDepth) throw new ScanError(`at most ${maxDepth} levels of nesting`, this.position)
    kinds[this.#depth] = open
    this.position++
  }

  #leave(): void {
    this.position++
    this.#depth--
  }

  #space(): void {
    const bytes = this.bytes
    let at = this.position
    for (;;) {
      const c = bytes[at]
      if (c !== 0x20 && c !== 0x0a && c !== 0x0d && c !== 0x09) break
      at++
    }
    this.position = at
  }

  /** The key as a JavaScript string; an escaped spelling is the same key. */
  #key(known: Names | undefined): string {
    this.#space()
    const start = this.position
    this.keyStart = start
    const escaped = this.#string()
    const end = this.position
    const name = escaped ? undefined : known?.find(this.bytes, start + 1, end - 1)
    if (name !== undefined) {
      this.#colon()
      return name
    }
    const key = escaped
      ? (JSON.parse(this.bytes.toString('utf8', start, end)) as string)
      : this.bytes.toString('utf8', start + 1, end - 1)
    this.#colon()
    return key
  }

  #skipKey(): void {
    this.#string()
    this.#colon()
  }

  #colon(): void {
    if (this.peek() !== COLON) throw new ScanError("':'", this.position)
    this.position++
    this.#space()
  }

  /** Consumes a string; true if it has escapes. */
  #string(): boolean {
    const bytes = this.bytes
    const end = this.#end
    let at = this.position
    if (at >= end || bytes[at] !== QUOTE) throw new ScanError('a string', at)
    at++
    let escaped = false
    for (;;) {
      let c = bytes[at] as number
      while (c !== QUOTE && c !== BACKSLASH && c >= 0x20) c = bytes[++at] as number
      if (at >= end) throw new ScanError('the end of a string', at)
      if (c === QUOTE) break
      if (c !== BACKSLASH) throw new ScanError('no control character in a string', at)
      escaped = true
      const e = bytes[at + 1]
      if (e === 0x75) {
        for (let i = 2; i < 6; i++) {
          if (at + i >= end || !isHex(bytes[at + i] as number)) throw new ScanError('four hex digits', at + i)
        }
        at += 6
      } else if (
        e === QUOTE ||
        e === BACKSLASH ||
        e === 0x2f ||
        e === 0x62 ||
        e === 0x66 ||
        e === 0x6e ||
        e === 0x72 ||
        e === 0x74
      ) {
        at += 2
      } else throw new ScanError('an escape', at)
    }
    this.position = at + 1
    return escaped
  }

  #scalar(c: number): void {
    if (c === 0x74) this.#word('true')
    else if (c === 0x66) this.#word('false')
    else if (c === 0x6e) this.#word('null')
    else if (c === 0x2d || isDigit(c)) this.#number()
    else throw new ScanError('a value', this.position)
  }

  #word(word: string): void {
    for (let i = 0; i < word.length; i++) {
      if (this.bytes[this.position + i] !== word.charCodeAt(i)) throw new ScanError('a value', this.position)
    }
    this.position += word.length
    if (this.position > this.#end) throw new ScanError('a value', this.#end)
  }

  #number(): void {
    const bytes = this.bytes
    const end = this.#end
    let at = this.position
    const digits = (): void => {
      const first = at
      while (at < end && isDigit(bytes[at] as number)) at++
      if (at === first) throw new ScanError('a digit', at)
    }
    if (bytes[at] === 0x2d) at++
    if (at < end && bytes[at] === 0x30) at++
    else digits()
    if (at < end && bytes[at] === 0x2e) {
      at++
      digits()
    }
    if (at < end && (bytes[at] === 0x65 || bytes[at] === 0x45)) {
      at++
      if (at < end && (bytes[at] === 0x2b || bytes[at] === 0x2d)) at++
      digits()
    }
    this.position = at
  }
}

// What is open at each depth. One array serves all scanners: only skip() reads it, it reads what it wrote
// itself, and it calls nobody in between.
const kinds = new Uint8Array(maxDepth + 2)
