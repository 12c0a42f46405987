/** JSON text within a limit, without what is not to be shown; what comes out is JSON in any case. */

/** In place of what is not shown. */
export const hidden = '[redacted]'

export interface Redacted {
  /** Valid JSON, or empty where not even a part has room. */
  readonly text: string
  /** Something was left out for its size; what is there is still valid JSON. */
  readonly truncated: boolean
}

export interface Hiding {
  /** True for the name of a member whose value is not shown. */
  readonly hides: (name: string) => boolean
  /** A string as it may be shown. */
  readonly mask: (text: string) => string
}

/** The value in these bytes as JSON text of at most `maxBytes`; looks at no more than four times as many and 4 KiB. */
export function redactedJson(bytes: Buffer, maxBytes: number, hiding: Hiding): Redacted {
  const window = maxBytes * 4 + 4096
  return new Walk(bytes.toString('utf8', 0, window), bytes.length <= window, maxBytes, hiding).run()
}

/** Deeper values are left out. Messages have been refused from 256 on. */
const maxDepth = 256
/** For what ends a string that was cut. */
const ellipsis = '\u2026'
const literal = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null/y
/** So near to the end of the window the rest of a literal may stand behind it. */
const margin = 12
const blanks = /[ \t\r\n]*/y

/** Ends the walk: there is no room for more, or nothing more to be seen. */
const enough = Symbol('enough')
const broken = Symbol('broken')

/** One way through a JSON text. */
class Walk {
  readonly #text: string
  readonly #complete: boolean
  readonly #max: number
  readonly #hiding: Hiding
  #at = 0
  #out = ''
  #outBytes = 0
  #open = ''

  constructor(text: string, complete: boolean, max: number, hiding: Hiding) {
    this.#text = text
    this.#complete = complete
    this.#max = max
    this.#hiding = hiding
  }

  run(): Redacted {
    try {
      this.#value('')
      if (this.#peek() !== undefined) throw broken
      return { text: this.#out, truncated: false }
    } catch (thrown) {
      if (thrown === enough) return { text: this.#out + this.#open, truncated: true }
      return { text: JSON.stringify('[not JSON]').slice(0, this.#max >= 12 ? 12 : 0), truncated: true }
    }
  }

  /** @param before what stands before the value and is only written with it */
  #value(before: string): void {
    const first = this.#peek()
    if (first === '{') this.#object(before)
    else if (first === '[') this.#array(before)
    else if (first === '"') this.#string(before)
    else {
      literal.lastIndex = this.#at
      const found = literal.exec(this.#text)?.[0]
      if (found === undefined) throw this.#ends(broken)
      this.#at = literal.lastIndex
      // Half a number would be another one.
      if (this.#ends(broken) === enough) throw enough
      this.#put(before + found)
    }
  }

  #object(before: string): void {
    this.#enter(`${before}{`, '}')
    for (let comma = ''; this.#peek() !== '}'; comma = ',') {
      if (comma !== '') this.#take(',')
      if (this.#peek() !== '"') throw this.#ends(broken)
      const key = this.#stringText()
      this.#take(':')
      if (this.#hiding.hides(key.text)) {
        this.#put(`${comma}${JSON.stringify(key.text)}:"${hidden}"`)
        this.#skip()
      } else this.#value(`${comma}${JSON.stringify(this.#hiding.mask(key.text))}:`)
    }
    this.#leave('}')
  }

  #array(before: string): void {
    this.#enter(`${before}[`, ']')
    for (let comma = ''; this.#peek() !== ']'; comma = ',') {
      if (comma !== '') this.#take(',')
      this.#value(comma)
    }
    this.#leave(']')
  }

  #string(before: string): void {
    const { text, whole } = this.#stringText(true)
    const shown = this.#hiding.mask(text)
    if (whole) {
      const encoded = JSON.stringify(shown)
      if (this.#fits(before + encoded)) {
        this.#put(before + encoded)
        return
      }
    }
    let low = 0
    let high = Math.min(shown.length, this.#max)
    const cut = (length: number): string => before + JSON.stringify(shown.slice(0, length) + ellipsis)
    // Escapes make the length in bytes unforeseeable.
    while (low < high) {
      const middle = Math.ceil((low + high) / 2)
      if (this.#fits(cut(middle))) low = middle
      else high = middle - 1
    }
    if (low > 0) this.#put(cut(low))
    throw enough
  }

  /** The string that begins here. @param partial whether one that goes on behind the window is wanted, too */
  #stringText(partial = false): { readonly text: string; readonly whole: boolean } {
    const start = this.#at
    for (let i = start + 1; i < this.#text.length; i++) {
      const c = this.#text.charCodeAt(i)
      if (c === 0x5c) i++
      else if (c === 0x22) {
        this.#at = i + 1
        return { text: decoded(this.#text.slice(start, this.#at)), whole: true }
      }
    }
    if (this.#complete) throw broken
    if (!partial) throw enough
    this.#at = this.#text.length
    // The last characters may be half an escape, or half a character.
    const inside = this.#text.slice(start + 1, -margin)
    const halfEscape = /\\(?:u[\da-fA-F]{0,3})?$/.exec(inside.replaceAll('\\\\', '__'))
    return { text: decoded(`"${inside.slice(0, halfEscape?.index)}"`), whole: false }
  }

  /** Passes over a value. */
  #skip(): void {
    let depth = 0
    do {
      const first = this.#peek()
      if (first === '"') this.#stringText()
      else if (first === '{' || first === '[') {
        depth++
        this.#at++
      } else if (first === '}' || first === ']') {
        depth--
        this.#at++
      } else if (depth > 0 && (first === ',' || first === ':')) this.#at++
      else {
        literal.lastIndex = this.#at
        if (!literal.test(this.#text)) throw this.#ends(broken)
        this.#at = literal.lastIndex
      }
    } while (depth > 0)
  }

  #peek(): string | undefined {
    blanks.lastIndex = this.#at
    blanks.test(this.#text)
    this.#at = blanks.lastIndex
    return this.#text[this.#at]
  }

  #take(wanted: string): void {
    if (this.#peek() !== wanted) throw this.#ends(broken)
    this.#at++
  }

  #ends(otherwise: symbol): symbol {
    return !this.#complete && this.#text.length - this.#at < margin ? enough : otherwise
  }

  #enter(opening: string, closing: string): void {
    if (this.#open.length >= maxDepth || !this.#fits(opening + closing)) throw enough
    this.#open = closing + this.#open
    this.#put(opening)
    this.#at++
  }

  #leave(closing: string): void {
    this.#open = this.#open.slice(1)
    this.#put(closing)
    this.#at++
  }

  #fits(text: string): boolean {
    return this.#outBytes + Buffer.byteLength(text) + this.#open.length <= this.#max
  }

  #put(text: string): void {
    if (!this.#fits(text)) throw enough
    this.#out += text
    this.#outBytes += Buffer.byteLength(text)
  }
}

function decoded(json: string): string {
  try {
    return JSON.parse(json) as string
  } catch {
    throw broken
  }
}
