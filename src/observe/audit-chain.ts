/**
 * The hash chain of the audit log. Each line ends with its number and the hash of the line before, so that a line cannot
 * be changed, taken out, put in or moved without the next one saying so. It has no key: whoever can rewrite the file can
 * compute it anew, and nothing follows the last line. What is proven is that the log still is the one of which somebody
 * else has kept a line, up to that line.
 */
import { hash } from 'node:crypto'

/** `prev` of the very first line. */
export const chainStart = `sha256:${'0'.repeat(64)}`

/** A line as the next one, and whoever keeps a copy, refers to it. */
export interface Link {
  readonly seq: number
  /** `sha256:` and 64 hex digits: of the line's bytes, without its line break. */
  readonly hash: string
}

export function lineHash(line: string | Buffer): string {
  return `sha256:${hash('sha256', line, 'hex')}`
}

/** How each line begins and how it goes on at its end; tells lines of this log from whatever else is in a file. */
export const lineStart = '{"metadata":{"auditId":"'

/** More than what is added to an event: `seq` in at most 16 digits, `prev`, the ends. Bytes. */
export const linkBytes = 120

export class Chain {
  #seq: number
  #hash: string

  /** @param last the line to go on from; undefined for a new chain */
  constructor(last?: Link) {
    this.#seq = last?.seq ?? 0
    this.#hash = last?.hash ?? chainStart
  }

  /**
   * The next line, without a line break.
   *
   * @param event JSON text of an object without its closing brace, in ASCII
   */
  next(event: string): string {
    this.#seq++
    const line = `${event},"seq":${this.#seq},"prev":"${this.#hash}"}`
    this.#hash = lineHash(line)
    return line
  }
}

/** What a line says of its place. */
export interface Place {
  readonly seq: number
  readonly prev: string
  /** The type of its event. */
  readonly type: unknown
}

/** Undefined for what is no line of an audit log. */
export function placeOf(line: string): Place | undefined {
  if (!line.startsWith(lineStart)) return undefined
  try {
    const { seq, prev, type } = JSON.parse(line) as Record<string, unknown>
    if (!Number.isSafeInteger(seq) || (seq as number) < 1) return undefined
    if (typeof prev !== 'string' || !/^sha256:[\da-f]{64}$/.test(prev)) return undefined
    return { seq: seq as number, prev, type }
  } catch {
    return undefined
  }
}
