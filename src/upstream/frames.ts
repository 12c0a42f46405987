/**
 * The frames between the sidecar and a launcher in mode `serve`: one byte type, four bytes length (big-endian, at most
 * 64 KiB), payload. To the launcher: `P` policy, once and first; `I` stdin; `C` end of stdin; `K` number of a signal.
 * From it: `R` report or refusal, before the server's program runs; `O` stdout, empty at its end; `E` stderr; `X` exit, last.
 */

export const maxPayloadBytes = 64 * 1024
const headerBytes = 5

/** What arrives is not what a launcher sends. */
export class FrameError extends Error {
  override readonly name = 'FrameError'
}

export type ReceivedType = 'R' | 'O' | 'E' | 'X'

interface Kind {
  readonly type: ReceivedType
  /** Its payload is handed over in one piece. */
  readonly whole: boolean
}

const received: ReadonlyMap<number, Kind> = new Map<number, Kind>([
  [0x52, { type: 'R', whole: true }],
  [0x4f, { type: 'O', whole: false }],
  [0x45, { type: 'E', whole: false }],
  [0x58, { type: 'X', whole: true }],
])

/** Takes frames apart, wherever the stream was cut. */
export class FrameReader {
  readonly #header = Buffer.alloc(headerBytes)
  #headerLength = 0
  #kind: Kind | undefined
  /** Bytes of the payload that are still to come. */
  #left = 0
  #parts: Buffer[] = []

  /**
   * @param onframe gets whole payloads of `R` and `X`, and pieces of those of `O` and `E` as they come; an empty one where
   * the frame is empty
   * @throws FrameError; nothing more can be read then
   */
  push(chunk: Buffer, onframe: (type: ReceivedType, bytes: Buffer) => void): void {
    let at = 0
    while (at < chunk.length) {
      if (this.#kind === undefined) {
        const taken = chunk.copy(this.#header, this.#headerLength, at)
        at += taken
        this.#headerLength += taken
        if (this.#headerLength < headerBytes) return
        this.#begin()
        if (this.#left > 0) continue
      }
      const { type, whole } = this.#kind as Kind
      const part = chunk.subarray(at, at + this.#left)
      at += part.length
      this.#left -= part.length
      if (whole) this.#parts.push(part)
      if (this.#left === 0) this.#kind = undefined
      if (!whole) onframe(type, part)
      else if (this.#left === 0) onframe(type, Buffer.concat(this.#parts.splice(0)))
    }
  }

  #begin(): void {
    const code = this.#header[0] as number
    this.#kind = received.get(code)
    this.#left = this.#header.readUInt32BE(1)
    this.#headerLength = 0
    if (this.#kind === undefined)
      throw new FrameError(`a frame of the unknown type 0x${code.toString(16).padStart(2, '0')}`)
    if (this.#left > maxPayloadBytes)
      throw new FrameError(`a frame of ${this.#left} bytes; the most is ${maxPayloadBytes}`)
  }
}

/** @param payload at most {@link maxPayloadBytes} */
export function frame(type: 'P' | 'C' | 'K', payload: Buffer = Buffer.alloc(0)): Buffer {
  return Buffer.concat([header(type, payload.length), payload])
}

/** The buffers to be written for bytes of stdin, without copying what is large. */
export function inputFrames(pieces: readonly Buffer[]): Buffer[] {
  const total = pieces.reduce((sum, piece) => sum + piece.length, 0)
  if (total === 0) return []
  if (total <= smallBytes) return [Buffer.concat([header('I', total), ...pieces])]
  const buffers: Buffer[] = []
  for (const piece of pieces) {
    for (let at = 0; at < piece.length; at += maxPayloadBytes) {
      const part = piece.subarray(at, at + maxPayloadBytes)
      buffers.push(header('I', part.length), part)
    }
  }
  return buffers
}

/** Up to here one copy is cheaper than one more buffer. */
const smallBytes = 16 * 1024

function header(type: string, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(headerBytes)
  bytes.write(type, 0, 'latin1')
  bytes.writeUInt32BE(length, 1)
  return bytes
}
