import type { ServerResponse } from 'node:http'
import { SidecarError } from '../core/errors.ts'
import type { Outlet } from '../core/exchange.ts'
import { atExpiry } from '../core/expiry.ts'
import type { Clock, Principal, Timer } from '../core/types.ts'
import type { Wire } from '../core/wire.ts'

const retryMs = 1000

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
    onceGone(response, () => {
      this.#closed = true
      this.#keepAlive?.cancel()
    })
  }

  get queuedBytes(): number {
    return this.#response.writableLength
  }

  get pulse(): number {
    return unsent(this.#response.req.socket)
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

  send(wire: Wire, eventId?: string): void {
    this.#event('message', wire, eventId)
  }

  /** An event of another type; `data` is ASCII without line breaks. */
  event(type: string, data: string): void {
    this.#event(type, data, undefined)
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

  destroy(): void {
    this.#response.req.socket.destroy()
  }

  onClosed(then: () => void): void {
    if (isGone(this.#response)) then()
    else onceGone(this.#response, then)
  }

  #event(type: string, wire: Wire, eventId: string | undefined): void {
    if (this.#closed) return
    this.open()
    const response = this.#response
    const head = `${eventId === undefined ? '' : `id: ${eventId}\n`}event: ${type}\ndata: `
    if (typeof wire === 'string') response.write(`${head}${wire}\n\n`, 'latin1')
    else {
      response.cork()
      response.write(head, 'latin1')
      for (const piece of wire) response.write(piece)
      response.write('\n\n', 'latin1')
      response.uncork()
    }
    this.#keepAlive?.refresh()
  }
}

/** Closes a long-lived way to the client when the credential that opened it ends: nobody would notice otherwise. */
export function endWithCredential(clock: Clock, { expiresAt }: Principal, outlet: Outlet): void {
  if (expiresAt === undefined) return
  const forget = atExpiry(clock, expiresAt, () => {
    outlet.close(
      new SidecarError('ERR_AUTH_INVALID', { detail: 'the credential that opened it has expired' }),
    )
  })
  outlet.onClosed(forget)
}

/**
 * Bytes of the write under way that the system has not taken. Node's own counters change only when a write is complete,
 * which for a large message and a slow reader may take minutes; its socket timeout looks at this value, too.
 */
export function unsent(socket: object): number {
  return (socket as { _handle?: { writeQueueSize?: number } | null })._handle?.writeQueueSize ?? 0
}

/** The client cannot be reached by this response any more. */
export function isGone(response: ServerResponse): boolean {
  return response.destroyed || response.req.socket.destroyed
}

/**
 * Calls once when a response has ended or its connection is gone. A response that waits behind another one on its
 * connection never hears of the connection's end itself.
 *
 * @returns stops listening
 */
export function onceGone(response: ServerResponse, then: () => void): () => void {
  const { socket } = response.req
  const forget = (): void => {
    response.off('close', gone)
    socket.off('close', gone)
  }
  const gone = (): void => {
    forget()
    then()
  }
  response.on('close', gone)
  socket.on('close', gone)
  return forget
}

/** Calls once when what was written to a response has left, or its client is gone. */
export function onceDrained(response: ServerResponse, then: () => void): void {
  const events = ['drain', 'finish'] as const
  const forget = onceGone(response, () => finish())
  const finish = (): void => {
    for (const event of events) response.off(event, look)
    forget()
    then()
  }
  const look = (): void => {
    if (response.writableLength === 0 || isGone(response)) finish()
  }
  if (isGone(response)) {
    forget()
    then()
    return
  }
  for (const event of events) response.on(event, look)
}
