import type { ServerResponse } from 'node:http'
import type { SidecarError } from '../core/errors.ts'
import type { Outlet } from '../core/exchange.ts'
import { byteLength, type Chunks } from '../core/jsonrpc.ts'
import type { Clock, Timer } from '../core/types.ts'

const retryMs = 1000
const end = Buffer.from('\n\n')
const copyLimit = 64 * 1024

export interface EventStreamOptions {
  readonly clock: Clock
  /** Milliseconds of silence after which a comment is sent, so that proxies keep the connection. */
  readonly keepAliveMs: number
}

/** One Server-Sent Events response (HTML standard, section 9.2). */
export class EventStream implements Outlet {
  readonly #response: ServerResponse
  readonly #options: EventStreamOptions
  readonly #headers: Readonly<Record<string, string>>
  #keepAlive: Timer | undefined
  #closed = false

  constructor(
    response: ServerResponse,
    options: EventStreamOptions,
    headers: Readonly<Record<string, string>>,
  ) {
    this.#response = response
    this.#options = options
    this.#headers = headers
    response.on('close', () => {
      this.#closed = true
      this.#keepAlive?.cancel()
    })
  }

  get queuedBytes(): number {
    return this.#response.writableLength
  }

  /** Sends the response headers; the first message does so too. */
  open(): void {
    const response = this.#response
    if (response.headersSent || this.#closed) return
    response.writeHead(200, {
      ...this.#headers,
      'Content-Type': 'text/event-stream',
      'Cache-Control': 'no-store',
      // Nginx and others would hold the events back to fill their buffers.
      'X-Accel-Buffering': 'no',
    })
    response.flushHeaders()
    const { clock, keepAliveMs } = this.#options
    const keepAlive = clock.after(keepAliveMs, () => {
      response.write(':\n\n')
      keepAlive.refresh()
    })
    this.#keepAlive = keepAlive
  }

  /** An event without data: its id lets a client resume from the start, its retry says how soon (SEP-1699). */
  prime(id: string): void {
    this.open()
    this.#response.write(`id: ${id}\nretry: ${retryMs}\ndata: \n\n`)
  }

  send(chunks: Chunks, eventId?: string): void {
    this.#event('message', chunks, eventId)
  }

  /** An event of another type; `data` has no line breaks. */
  event(type: string, data: string): void {
    this.#event(type, [Buffer.from(data)], undefined)
  }

  onceDrained(then: () => void): void {
    onceDrained(this.#response, then)
  }

  close(_error?: SidecarError): void {
    if (this.#closed) return
    this.open()
    this.#closed = true
    this.#keepAlive?.cancel()
    this.#response.end()
  }

  onClosed(then: () => void): void {
    if (this.#response.destroyed) then()
    else this.#response.once('close', then)
  }

  #event(type: string, chunks: Chunks, eventId: string | undefined): void {
    if (this.#closed) return
    this.open()
    const response = this.#response
    const head = Buffer.from(`${eventId === undefined ? '' : `id: ${eventId}\n`}event: ${type}\ndata: `)
    const all = [head, ...chunks, end]
    if (byteLength(chunks) <= copyLimit) response.write(Buffer.concat(all))
    else {
      response.cork()
      for (const chunk of all) response.write(chunk)
      response.uncork()
    }
    this.#keepAlive?.refresh()
  }
}

/** Calls once when what was written to a response has left, or the response has closed. */
export function onceDrained(response: ServerResponse, then: () => void): void {
  const events = ['drain', 'finish', 'close'] as const
  const done = (): void => {
    if (response.writableLength > 0 && !response.destroyed) return
    for (const event of events) response.off(event, done)
    then()
  }
  if (response.destroyed) {
    then()
    return
  }
  for (const event of events) response.on(event, done)
}
