import { type Wire, wireLength } from '../core/wire.ts'

/** The stream of a session's GET; POST streams count from 1. */
export const mainStream = 0

export interface StoredEvent {
  readonly stream: number
  readonly sequence: number
  readonly id: string
  readonly wire: Wire
  readonly bytes: number
}

/**
 * What was sent on a session's SSE streams, so that a client can resume with `Last-Event-ID` (basic/transports,
 * "Resumability and Redelivery"). Event ids are `STREAM-SEQUENCE`: unique in the session, and each names its stream.
 * Bounded in bytes; the oldest events of any stream go first.
 */
export class ReplayBuffer {
  readonly #limit: number
  readonly #onEvicted: (event: StoredEvent) => void
  #events: StoredEvent[] = []
  #bytes = 0
  #streams = 0
  readonly #sequences = new Map<number, number>([[mainStream, 0]])

  /** @param onEvicted calls with each event that had to go */
  constructor(limitBytes: number, onEvicted: (event: StoredEvent) => void) {
    this.#limit = limitBytes
    this.#onEvicted = onEvicted
  }

  /** A new POST stream. */
  open(): number {
    const stream = ++this.#streams
    this.#sequences.set(stream, 0)
    return stream
  }

  append(stream: number, wire: Wire): StoredEvent {
    const sequence = (this.#sequences.get(stream) ?? 0) + 1
    this.#sequences.set(stream, sequence)
    const event = { stream, sequence, id: `${stream}-${sequence}`, wire, bytes: wireLength(wire) + 64 }
    this.#events.push(event)
    this.#bytes += event.bytes
    let evicted = 0
    while (this.#bytes > this.#limit) {
      const oldest = this.#events[evicted++] as StoredEvent
      this.#bytes -= oldest.bytes
      this.#onEvicted(oldest)
    }
    if (evicted > 0) this.#events = this.#events.slice(evicted)
    return event
  }

  /** Forgets the counter of a stream that ended; its events stay until they are evicted. */
  end(stream: number): void {
    this.#sequences.delete(stream)
  }

  /** The events of a stream after one of them, as far as they are still here. */
  after(stream: number, sequence: number): StoredEvent[] {
    return this.#events.filter((event) => event.stream === stream && event.sequence > sequence)
  }

  /** True if the stream can be resumed: it is open, or events of it are still here. */
  knows(stream: number): boolean {
    return this.#sequences.has(stream) || this.#events.some((event) => event.stream === stream)
  }
}

/** `STREAM-SEQUENCE` taken apart, or undefined. */
export function parseEventId(id: string): { readonly stream: number; readonly sequence: number } | undefined {
  const match = /^(\d{1,9})-(\d{1,15})$/.exec(id)
  return match === null ? undefined : { stream: Number(match[1]), sequence: Number(match[2]) }
}
