import { rpcErrorText, type SidecarError } from '../core/errors.ts'
import { Exchange, type Outlet } from '../core/exchange.ts'
import { type Wire, wireBuffers, wireLength, wireOfText } from '../core/wire.ts'
import {
  EventStream,
  type EventStreamOptions,
  isGone,
  onceDrained,
  onceGone,
  unsent,
} from './event-stream.ts'
import { type HttpIo, writeError } from './http.ts'

type Io = HttpIo & { readonly requestId: string }

const comma = Buffer.from(',')

/**
 * The response to a POST: `application/json` if answers are all there is, an event stream from the moment something
 * precedes one. A batch (2025-03-26) is answered with one array, or with every message on one stream.
 */
export class PostReply {
  readonly io: Io
  readonly headers: Record<string, string>
  readonly #options: EventStreamOptions
  readonly #batch: boolean
  readonly #answers: Wire[] = []
  /** Of a JSON answer. */
  status = 200
  /** Messages of the POST that have not been dealt with. */
  #open: number
  #stream: EventStream | undefined

  /** @param elements messages in the batch; undefined for a message that stands alone */
  constructor(io: Io, options: EventStreamOptions, elements: number | undefined) {
    this.io = io
    this.headers = { 'X-Request-Id': io.requestId }
    this.#options = options
    this.#batch = elements !== undefined
    this.#open = elements ?? 1
  }

  get streaming(): boolean {
    return this.#stream !== undefined
  }

  begin(primingId: string | undefined): void {
    this.#stream ??= new EventStream(this.io.response, this.#options, this.headers)
    if (primingId === undefined) this.#stream.open()
    else this.#stream.prime(primingId)
  }

  send(wire: Wire, eventId?: string): void {
    this.#stream?.send(wire, eventId)
  }

  /** One message is done; `wire` is its answer, if it has one. */
  settle(wire: Wire | undefined, eventId?: string): void {
    if (wire !== undefined) {
      if (this.#stream === undefined) this.#answers.push(wire)
      else this.#stream.send(wire, eventId)
    }
    if (--this.#open === 0) this.#finish()
  }

  /** One message failed. Alone it decides the HTTP status; in a batch it is an element like the others. */
  fail(error: SidecarError, idText: string | undefined, eventId?: string): void {
    if (!this.#batch && this.#stream === undefined) {
      if (!this.io.response.destroyed) writeError(this.io, error, idText)
      return
    }
    const text = rpcErrorText(error, idText, this.io.requestId)
    this.settle(idText === undefined ? undefined : wireOfText(text), eventId)
  }

  #finish(): void {
    const { response } = this.io
    if (response.destroyed) return
    const stream = this.#stream
    if (stream !== undefined) {
      for (const answer of this.#answers) stream.send(answer)
      stream.close()
    } else if (this.#answers.length === 0) response.writeHead(202, this.headers).end()
    else if (this.#batch) {
      const joined = this.#answers.flatMap((answer, i) => [
        comma.subarray(i === 0 ? 1 : 0),
        ...wireBuffers(answer),
      ])
      this.#json([Buffer.from('['), ...joined, Buffer.from(']')])
    } else this.#json(this.#answers[0] as Wire)
  }

  #json(wire: Wire): void {
    const { response } = this.io
    this.headers['Content-Type'] = 'application/json'
    this.headers['Content-Length'] = String(wireLength(wire))
    response.writeHead(this.status, this.headers)
    if (typeof wire === 'string') {
      response.end(wire, 'latin1')
      return
    }
    response.cork()
    for (const piece of wire) response.write(piece)
    response.end()
  }
}

/** The way back for one message of a POST. */
export class PostExchange extends Exchange {
  readonly outlet: Outlet | undefined = undefined
  readonly #reply: PostReply
  readonly #idText: string | undefined

  constructor(reply: PostReply, idText: string | undefined) {
    super()
    this.#reply = reply
    this.#idText = idText
  }

  get attached(): boolean {
    return !this.settled && !isGone(this.#reply.io.response)
  }

  get streaming(): boolean {
    return this.#reply.streaming
  }

  get queuedBytes(): number {
    const { response } = this.#reply.io
    return isGone(response) ? 0 : response.writableLength
  }

  get pulse(): number {
    return unsent(this.#reply.io.request.socket)
  }

  onceDrained(then: () => void): void {
    onceDrained(this.#reply.io.response, then)
  }

  destroy(): void {
    this.#reply.io.request.socket.destroy()
  }

  onGone(then: () => void): void {
    const { response } = this.#reply.io
    const gone = (): void => {
      if (!response.writableFinished) then()
    }
    // What has gone already says nothing any more.
    if (isGone(response)) gone()
    else onceGone(response, gone)
  }

  setHeader(name: string, value: string): void {
    this.#reply.headers[name] = value
  }

  override setStatus(status: number): void {
    this.#reply.status = status
  }

  begin(primingId: string | undefined): void {
    this.#reply.begin(primingId)
  }

  send(wire: Wire, eventId?: string): void {
    this.#reply.send(wire, eventId)
  }

  protected writeAnswer(wire: Wire, eventId?: string): void {
    this.#reply.settle(wire, eventId)
  }

  protected writeError(error: SidecarError, eventId?: string): void {
    this.#reply.fail(error, this.#idText, eventId)
  }

  protected writeNothing(): void {
    this.#reply.settle(undefined)
  }
}
