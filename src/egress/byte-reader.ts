import type { Socket } from 'node:net'

/** The other side ended before what was waited for had come. */
export class EndedEarly extends Error {
  override readonly name = 'EndedEarly'
}

const none = Buffer.alloc(0)

/**
 * A socket read on demand: nothing is taken from it that nobody waits for, beyond one chunk. One reader at a time.
 */
export class ByteReader {
  readonly #socket: Socket
  #held: Buffer = none
  #ended = false
  #wake: (() => void) | undefined
  readonly #onData = (chunk: Buffer): void => {
    this.#held = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk])
    this.#socket.pause()
    this.#wake?.()
  }
  readonly #onEnd = (): void => {
    this.#ended = true
    this.#wake?.()
  }

  constructor(socket: Socket) {
    this.#socket = socket
    socket.pause()
    socket.on('data', this.#onData)
    socket.on('end', this.#onEnd)
    socket.on('close', this.#onEnd)
    this.#ended = socket.destroyed || socket.readableEnded
  }

  /** What has come and not been taken. */
  get held(): Buffer {
    return this.#held
  }

  /** Waits for more bytes in {@link held}; false when none will come. */
  async more(): Promise<boolean> {
    if (this.#ended) return false
    const before = this.#held.length
    this.#socket.resume()
    await new Promise<void>((resolve) => {
      this.#wake = resolve
    })
    this.#wake = undefined
    return this.#held.length > before
  }

  /** @throws EndedEarly */
  async atLeast(bytes: number): Promise<Buffer> {
    while (this.#held.length < bytes) {
      if (!(await this.more())) throw new EndedEarly()
    }
    return this.#held
  }

  /** Exactly so many bytes. @throws EndedEarly */
  async take(bytes: number): Promise<Buffer> {
    await this.atLeast(bytes)
    return this.takeNow(bytes)
  }

  /** At most so many of those that have come. */
  takeNow(most: number): Buffer {
    const taken = this.#held.subarray(0, most)
    this.#held = taken.length === this.#held.length ? none : this.#held.subarray(taken.length)
    return taken
  }

  /** Reads no more; the socket is paused, and what was held is the caller's to pass on. */
  release(): Buffer {
    this.#socket.off('data', this.#onData)
    this.#socket.off('end', this.#onEnd)
    this.#socket.off('close', this.#onEnd)
    this.#socket.pause()
    return this.takeNow(this.#held.length)
  }
}
