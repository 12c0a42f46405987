/** What a server writes, taken in turns with everything else: one that floods would have the event loop to itself. */
import type { Readable } from 'node:stream'

/** Of one turn: about a millisecond of work. */
const linesInTurn = 64
/** A chunk as large as libuv reads at once. It would go on reading, 32 times in a turn. Bytes. */
const fullChunk = 64 * 1024

/** @returns how many bytes of `chunk` it took: fewer than there are when it has seen so many `lines` in them */
export type TakeLines = (chunk: Buffer, lines: number) => number

export class Turns {
  readonly #stream: Readable
  readonly #take: TakeLines
  /** What the next turn begins with. */
  #rest: Buffer | undefined
  #held = false

  constructor(stream: Readable, take: TakeLines) {
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
    const taken = this.#take(chunk, linesInTurn)
    if (taken === chunk.length && chunk.length < fullChunk) return
    this.#rest = chunk.subarray(taken)
    this.#stream.pause()
    setImmediate(() => this.#next())
  }

  #next(): void {
    const rest = this.#rest
    this.#rest = undefined
    if (rest === undefined || this.#stream.destroyed) return
    if (rest.length > 0) this.#turn(rest)
    if (this.#rest === undefined && !this.#held) this.#stream.resume()
  }
}
