import { type Message, valueKey } from '../core/jsonrpc.ts'
import type { Clock, Timer } from '../core/types.ts'
import type { SessionCall } from './call.ts'

interface Question {
  /** The call during which the server asked, if that is known. */
  readonly call: SessionCall | undefined
  readonly timer: Timer
  /** The server's progress token, as a map key. */
  readonly tokenKey: string | undefined
}

const maxOpen = 100

/**
 * What the server has asked this session's client and not been answered: only these ids may be answered, only these
 * tokens reported on, by nobody but this client.
 */
export class Questions {
  readonly #clock: Clock
  readonly #waitMs: number
  readonly #onExpired: (request: Message, call: SessionCall | undefined) => void
  readonly #open = new Map<string, Question>()

  /**
   * @param waitMs how long the client has for an answer
   * @param onExpired calls when the client has not answered in time; the question is forgotten then
   */
  constructor(
    clock: Clock,
    waitMs: number,
    onExpired: (request: Message, call: SessionCall | undefined) => void,
  ) {
    this.#clock = clock
    this.#waitMs = waitMs
    this.#onExpired = onExpired
  }

  /** @returns false when too many are open, or one with this id is */
  add(request: Message, call: SessionCall | undefined): boolean {
    const key = request.idKey as string
    if (this.#open.size >= maxOpen || this.#open.has(key)) return false
    const timer = this.#clock.after(this.#waitMs, () => {
      this.close(key)
      this.#onExpired(request, call)
    })
    const token = request.progressToken
    const tokenKey = token === undefined ? undefined : valueKey(request.text(token))
    this.#open.set(key, { call, timer, tokenKey })
    call?.handle?.waitForInput(true)
    return true
  }

  /** True if the client was asked with this progress token. */
  hasToken(tokenKey: string | undefined): boolean {
    if (tokenKey === undefined) return false
    for (const question of this.#open.values()) if (question.tokenKey === tokenKey) return true
    return false
  }

  /**
   * Answered, or withdrawn by the server.
   *
   * @param key the id as a map key
   * @returns undefined if there is no such question, else the call it belongs to, if it has one
   */
  close(key: string | undefined): { readonly call: SessionCall | undefined } | undefined {
    const question = key === undefined ? undefined : this.#open.get(key)
    if (key === undefined || question === undefined) return undefined
    this.#open.delete(key)
    question.timer.cancel()
    question.call?.handle?.waitForInput(false)
    return question
  }

  clear(): void {
    for (const { timer } of this.#open.values()) timer.cancel()
    this.#open.clear()
  }
}
