import { SidecarError } from '../core/errors.ts'
import type { Outlet } from '../core/exchange.ts'
import type { Transport } from '../core/types.ts'
import { type Wire, wireLength } from '../core/wire.ts'
import type { Target } from './flow.ts'
import { mainStream, parseEventId, ReplayBuffer } from './replay.ts'

/** What streams tell their session. */
export interface StreamsHome {
  /** The client may be sent more. */
  admitWrite(): boolean
  wrote(target: Target, bytes: number): void
  dropped(what: string): void
  /** Hands a connection to the call whose stream it resumes; false if that call has ended. */
  resumeCall(stream: number, outlet: Outlet): boolean
}

/**
 * The long-lived ways to one client: the main stream (the GET stream, the HTTP+SSE stream or the WebSocket), and GETs
 * on which it resumed the stream of a POST. On Streamable HTTP the main stream need not be connected: what is sent
 * meanwhile is kept, within bounds, until it is.
 */
export class Streams {
  readonly #transport: Transport
  readonly #home: StreamsHome
  readonly #resumed = new Set<Outlet>()
  readonly #replayBytes: number
  #replay: ReplayBuffer | undefined
  #main: Outlet | undefined
  /** Sequence on the main stream up to which a client has been sent it. */
  #delivered = 0

  constructor(transport: Transport, replayBytes: number, main: Outlet | undefined, home: StreamsHome) {
    this.#transport = transport
    this.#replayBytes = replayBytes
    this.#main = main
    this.#home = home
  }

  /** A client is listening. */
  get connected(): boolean {
    return this.#main !== undefined || this.#resumed.size > 0
  }

  get replay(): ReplayBuffer {
    this.#replay ??= new ReplayBuffer(this.#replayBytes, ({ stream, sequence }) => {
      if (stream === mainStream && sequence > this.#delivered) this.#home.dropped('undelivered_event')
    })
    return this.#replay
  }

  /** A message that belongs to no call. */
  send(wire: Wire): void {
    if (!this.#home.admitWrite()) return
    const main = this.#main
    if (this.#transport !== 'streamable-http') {
      main?.send(wire)
    } else {
      const event = this.replay.append(mainStream, wire)
      if (main !== undefined) {
        main.send(wire, event.id)
        this.#delivered = event.sequence
      }
    }
    if (main !== undefined) this.#home.wrote(main, wireLength(wire))
  }

  /**
   * Connects a GET: as the main stream, or as the rest of the stream that `lastEventId` names.
   *
   * @throws ERR_STREAM_CONFLICT when the main stream is taken, ERR_EVENT_UNKNOWN when the stream is not known (any
   *   more)
   */
  attach(outlet: Outlet, lastEventId: string | undefined): void {
    const from = lastEventId === undefined ? undefined : parseEventId(lastEventId)
    if (lastEventId !== undefined && (from === undefined || !this.replay.knows(from.stream))) {
      throw new SidecarError('ERR_EVENT_UNKNOWN')
    }
    if (from === undefined || from.stream === mainStream) this.#connect(outlet, from?.sequence)
    else this.#resume(outlet, from.stream, from.sequence)
  }

  close(error: SidecarError): void {
    const main = this.#main
    this.#main = undefined
    main?.close(error)
    for (const outlet of this.#resumed) outlet.close(error)
    this.#replay = undefined
  }

  #connect(outlet: Outlet, after: number | undefined): void {
    const old = this.#main
    if (old !== undefined) {
      // A client that resumes has lost its old connection, even if we have not noticed yet.
      if (after === undefined) throw new SidecarError('ERR_STREAM_CONFLICT')
      this.#main = undefined
      old.close()
    }
    this.#main = outlet
    outlet.onClosed(() => {
      if (this.#main === outlet) this.#main = undefined
    })
    for (const event of this.replay.after(mainStream, after ?? this.#delivered)) {
      outlet.send(event.wire, event.id)
      this.#delivered = Math.max(this.#delivered, event.sequence)
    }
    this.#home.wrote(outlet, 0)
  }

  #resume(outlet: Outlet, stream: number, after: number): void {
    for (const event of this.replay.after(stream, after)) outlet.send(event.wire, event.id)
    this.#home.wrote(outlet, 0)
    if (!this.#home.resumeCall(stream, outlet)) {
      outlet.close()
      return
    }
    this.#resumed.add(outlet)
    outlet.onClosed(() => this.#resumed.delete(outlet))
  }
}
