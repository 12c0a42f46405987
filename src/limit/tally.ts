import { SidecarError } from '../core/errors.ts'

/** Most of something at a time. */
export interface Room {
  readonly perPrincipal: number
  /** Undefined: as many as all principals may have. */
  readonly inAll: number | undefined
}

/** How many of something each principal has. Keeps nothing of a principal that has none. */
export class Tally {
  readonly #what: string
  readonly #setting: string
  readonly #counts = new Map<string, number>()
  #total = 0

  /** @param setting that of the room in all; for one principal it is `PerPrincipal` */
  constructor(what: string, setting: string) {
    this.#what = what
    this.#setting = setting
  }

  get total(): number {
    return this.#total
  }

  /** @throws ERR_OVERLOADED with Retry-After when there is no room for one more */
  check(principalId: string, { perPrincipal, inAll }: Room): void {
    const count = this.#counts.get(principalId) ?? 0
    if (count >= perPrincipal)
      throw full(`${principalId} has ${count} ${this.#what} (${this.#setting}PerPrincipal)`)
    if (inAll !== undefined && this.#total >= inAll)
      throw full(`there are ${this.#total} ${this.#what} (${this.#setting})`)
  }

  /** @throws ERR_OVERLOADED as {@link check} does; nothing is counted then */
  add(principalId: string, room: Room): void {
    this.check(principalId, room)
    this.#counts.set(principalId, (this.#counts.get(principalId) ?? 0) + 1)
    this.#total++
  }

  remove(principalId: string): void {
    this.#total--
    const left = (this.#counts.get(principalId) ?? 1) - 1
    if (left === 0) this.#counts.delete(principalId)
    else this.#counts.set(principalId, left)
  }
}

function full(detail: string): SidecarError {
  return new SidecarError('ERR_OVERLOADED', { detail, headers: { 'Retry-After': '1' } })
}
