/** What a server writes, taken in turns with everything else: one that floods would have the event loop to itself. */
import type { Readable } from 'node:stream'
import type { Clock } from '../core/types.ts'

/** Of one turn: about a millisecond of work. */
const linesInTurn = 64
/** A chunk as large as libuv reads at once. It would go on reading, 32 times in a turn. Bytes. */
const fullChunk = 64 * 1024

/** A turn that took longer is followed by a pause as long as it was, at most the second: a line may be large. Milliseconds. */
const longTurnMs = 20
const longestPauseMs = 100

/** @returns how many bytes of `chunk` it took: fewer than there are when it has seen so many `lines` in them */
export type TakeLines = (chunk: Buffer, lines: number) => number

export class Turns {
  readonly #stream: Readable
  readonly #take: TakeLines
  readonly #clock: Clock
  /** What the next turn begins with. */
  #rest: Buffer | undefined
  #held = false

  constructor(stream: Readable, take: TakeLines, clock: Clock) {
    this.#clock = clock
    this.#stream = stream
    this.#take = take
    stream.on('data', (chunk: Buffer) => this.#arrived(chunk))
    // Whoever hears of the end has to know all that came before.
    stream.on('end', () => {
      const rest = this.#rest
      this.#rest = undefined
      if (rest !== undefined) take(rest, Number.POSITIVE_INFINITY)
    })
  }

  /** Takes no more until {@link resume}, but for what was read already. */
  pause(): void {
    this.#held = true
    this.#stream.pause()
  }

  resume(): void {
    this.#held = false
    if (this.#rest === undefined) this.#stream.resume()
  }

  // Node.js resumes the pipes of a process that has exited, whoever paused them.
  #arrived(chunk: Buffer): void {
    if (this.#rest === undefined) this.#turn(chunk)
    else {
      this.#rest = Buffer.concat([this.#rest, chunk])
      this.#stream.pause()
    }
  }

  #turn(chunk: Buffer): void {
    const start = this.#clock.now()
    const taken = this.#take(chunk, linesInTurn)
    const tookMs = this.#clock.now() - start
    const long = tookMs > longTurnMs
    if (taken === chunk.length && chunk.length < fullChunk && !long) return
    this.#rest = chunk.subarray(taken)
    this.#stream.pause()
    // What another call needs are many turns of the event loop, and not just the next.
    if (long) this.#clock.after(Math.min(tookMs, longestPauseMs), () => this.#next())
    else setImmediate(() => this.#next())
  }

  #next(): void {
    const rest = this.#rest
    this.#rest = undefined
    if (rest === undefined || this.#stream.destroyed) return
    if (rest.length > 0) this.#turn(rest)
    if (this.#rest === undefined && !this.#held) this.#stream.resume()
  }
}
