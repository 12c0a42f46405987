import { randomBytes } from 'node:crypto'
import { sha256 } from '../core/secret.ts'

/** Keys of one limit that have a count of their own. */
export const defaultMaxKeys = 100_000
const sharedWindows = 1024
/** Longer keys are counted under their hash. */
const longestKey = 200

/** What one key has used up. */
export interface Window {
  readonly count: number
  /** By the clock of the caller. */
  readonly end: number
}

class OpenWindow implements Window {
  count = 0
  readonly key: string
  readonly end: number
  /** The one that was opened next. */
  next: OpenWindow | undefined = undefined

  constructor(key: string, end: number) {
    this.key = key
    this.end = end
  }
}

/**
 * The open windows of one limit, in memory that is bounded whatever the keys: those that find no room share 1,024
 * windows by a secret hash. Nobody gets more than the limit that way, and whoever wants others to get nothing has to use
 * up all of those. Ended windows make room for new ones, so there are no timers.
 */
export class Windows {
  readonly #windowMs: number
  readonly #maxKeys: number
  readonly #onCrowded: () => void
  readonly #open = new Map<string, OpenWindow>()
  /** All windows last equally long, so they end in the order in which they were opened. */
  #first: OpenWindow | undefined
  #last: OpenWindow | undefined
  #size = 0
  readonly #salt = randomBytes(16).toString('hex')
  #shared: (OpenWindow | undefined)[] = []
  /** When the last of the shared windows ends. */
  #sharedEnd = Number.NEGATIVE_INFINITY

  /** @param onCrowded is called when windows begin to be shared, at most once while any are */
  constructor(windowMs: number, onCrowded: () => void, maxKeys = defaultMaxKeys) {
    this.#windowMs = windowMs
    this.#maxKeys = maxKeys
    this.#onCrowded = onCrowded
  }

  /** Windows in memory, ended ones included. */
  get size(): number {
    return this.#size + this.#shared.length
  }

  /** The window in which a request of this key counts now; undefined if it would open one. */
  find(key: string, now: number): Window | undefined {
    return this.#find(short(key), now)
  }

  /** Counts one request. */
  count(key: string, now: number): void {
    const name = short(key)
    const window = this.#find(name, now) ?? this.#begin(name, now)
    window.count++
  }

  #find(name: string, now: number): OpenWindow | undefined {
    const own = this.#open.get(name)
    if (own !== undefined && own.end > now) return own
    if (this.#sharedEnd <= now) return undefined
    // Also once there is room again: what was counted here is not forgotten before its time.
    const shared = this.#shared[this.#place(name)]
    return shared !== undefined && shared.end > now ? shared : undefined
  }

  #begin(name: string, now: number): OpenWindow {
    // More than one, so that they become fewer; few, so that no request pays for all.
    for (let i = 0; i < 4 && this.#first !== undefined && this.#first.end <= now; i++)
      this.#forget(this.#first)
    const window = new OpenWindow(name, now + this.#windowMs)
    if (this.#size >= this.#maxKeys) {
      if (this.#sharedEnd <= now) {
        this.#shared = new Array<OpenWindow | undefined>(sharedWindows).fill(undefined)
        this.#onCrowded()
      }
      this.#shared[this.#place(name)] = window
      this.#sharedEnd = window.end
      return window
    }
    if (this.#last === undefined) this.#first = window
    else this.#last.next = window
    this.#last = window
    this.#size++
    this.#open.set(name, window)
    return window
  }

  #forget(first: OpenWindow): void {
    this.#first = first.next
    if (first.next === undefined) this.#last = undefined
    this.#size--
    if (this.#open.get(first.key) === first) this.#open.delete(first.key)
  }

  #place(name: string): number {
    return sha256(this.#salt + name).readUInt16BE() % sharedWindows
  }
}

function short(key: string): string {
  return key.length <= longestKey ? key : sha256(key).toString('base64url')
}
