/** Remembers what was made of texts that come again and again: names of programs and sessions. Bounded in both ways. */
export class Memo {
  readonly #make: (text: string) => string
  readonly #maxTexts: number
  readonly #maxLength: number
  readonly #made = new Map<string, string>()

  /** @param maxLength longer texts are not kept: peers choose them */
  constructor(maxTexts: number, maxLength: number, make: (text: string) => string) {
    this.#make = make
    this.#maxTexts = maxTexts
    this.#maxLength = maxLength
  }

  of(text: string): string {
    const known = this.#made.get(text)
    if (known !== undefined) return known
    const made = this.#make(text)
    if (text.length > this.#maxLength) return made
    // All at once: what is in use is back soon, and nobody has to know what was used last.
    if (this.#made.size >= this.#maxTexts) this.#made.clear()
    this.#made.set(text, made)
    return made
  }
}
