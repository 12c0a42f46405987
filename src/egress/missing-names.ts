/** How long a name that does not exist is taken not to. Milliseconds. */
const keepMs = 30_000
const most = 512

/** Names that do not exist, for a while: resolvers with a search list ask for the same ones over and over. */
export class MissingNames {
  /** When each is forgotten; the first one first. */
  readonly #until = new Map<string, number>()

  has(name: string, now: number): boolean {
    return (this.#until.get(name) ?? Number.NEGATIVE_INFINITY) > now
  }

  add(name: string, now: number): void {
    this.#until.delete(name)
    this.#until.set(name, now + keepMs)
    if (this.#until.size > most) this.#until.delete(this.#until.keys().next().value as string)
  }
}
