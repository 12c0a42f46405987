import { SidecarError } from '../core/errors.ts'
import type { CallHandle, Clock, Timer, UpstreamCall } from '../core/types.ts'

interface Waiting<T, O> {
  readonly call: T
  readonly owner: O
  readonly send: (call: T) => CallHandle
  timer: Timer | undefined
  handle: CallHandle | undefined
}

/** Calls that wait for a server process, each no longer than its own timeout. */
export class WaitingCalls<T extends UpstreamCall, O> {
  readonly #clock: Clock
  #calls: Waiting<T, O>[] = []

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get size(): number {
    return this.#calls.length
  }

  /**
   * @param owner on whose behalf it waits
   * @param send puts the call on its way, once there is one
   */
  add(call: T, owner: O, send: (call: T) => CallHandle): CallHandle {
    const waiting: Waiting<T, O> = { call, owner, send, timer: undefined, handle: undefined }
    this.#calls.push(waiting)
    const { timeoutMs } = call.deadline
    if (Number.isFinite(timeoutMs)) {
      waiting.timer = this.#clock.after(timeoutMs, () => {
        this.#forget(waiting)
        call.fail(new SidecarError('ERR_TIMEOUT', { detail: 'no server process was free in time' }))
      })
    }
    return {
      cancel: (reason) => {
        this.#forget(waiting)
        waiting.handle?.cancel(reason)
      },
      waitForInput: (on) => waiting.handle?.waitForInput(on),
    }
  }

  /** Sends all of them, in the order they came. */
  release(): void {
    const calls = this.#calls
    this.#calls = []
    for (const each of calls) this.#send(each)
  }

  /** Sends the first for which there is room; false if none was sent. */
  releaseFirst(fits: (owner: O) => boolean): boolean {
    const at = this.#calls.findIndex(({ owner }) => fits(owner))
    if (at < 0) return false
    const [first] = this.#calls.splice(at, 1)
    this.#send(first as Waiting<T, O>)
    return true
  }

  fail(error: SidecarError): void {
    const calls = this.#calls
    this.#calls = []
    for (const { call, timer } of calls) {
      timer?.cancel()
      call.fail(error)
    }
  }

  #send(waiting: Waiting<T, O>): void {
    waiting.timer?.cancel()
    waiting.handle = waiting.send(waiting.call)
  }

  #forget(waiting: Waiting<T, O>): void {
    waiting.timer?.cancel()
    const at = this.#calls.indexOf(waiting)
    if (at >= 0) this.#calls.splice(at, 1)
  }
}

/** The handle of a call that has ended, or will without further ado. */
export const noHandle: CallHandle = Object.freeze({ cancel: () => {}, waitForInput: () => {} })
