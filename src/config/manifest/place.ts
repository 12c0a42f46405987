import type { Document } from '../document.ts'
import type { Problem } from '../error.ts'
import { dotted, type Setting } from '../layer.ts'
import type { Fault, Path } from '../parsed.ts'
import { places } from '../places.ts'

/** A part of a document, and how errors name it. */
export class Place implements Pick<Setting, 'at' | 'given'> {
  readonly at: Setting['at']
  readonly given: Setting['given']
  readonly #document: Document
  readonly #title: string
  readonly #base: Path

  /** @param title which document it is: `document 2 (MCPRoute team-a/search)` */
  constructor(document: Document, title: string, base: Path = []) {
    this.#document = document
    this.#title = title
    this.#base = base
    const [at, given] = places(document, base)
    this.at = at
    this.given = given
  }

  within(path: Path): Place {
    return new Place(this.#document, this.#title, [...this.#base, ...path])
  }

  /** Something wrong at a path, with all that tells where. */
  problem({ path, message, key }: Fault): Problem {
    const full = [...this.#base, ...path]
    const name = dotted('', key === true ? full.slice(0, -1) : full).replace(/^\./, '')
    return {
      where: key === true ? this.#document.where(this.#document.offset(full, 'key')) : this.at(path),
      message: `${this.#title}: ${name === '' ? '' : `${name}: `}${message}`,
    }
  }
}
