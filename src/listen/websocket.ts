import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { WebSocket, WebSocketServer } from 'ws'
import { rpcErrorText, SidecarError } from '../core/errors.ts'
import type { Outlet } from '../core/exchange.ts'
import type { Message } from '../core/jsonrpc.ts'
import type { Handler } from '../core/pipeline.ts'
import type { Clock, Connection, Identified, Parsed, Sessions } from '../core/types.ts'
import { type Wire, wireBuffers, wireOfText } from '../core/wire.ts'
import { decode, submit } from './decode.ts'
import { endWithCredential, unsent } from './event-stream.ts'
import type { HttpIdentified, HttpReceived, Refusals } from './http.ts'
import { OutletExchange } from './outlet-exchange.ts'

export interface WebSocketContext {
  readonly sessions: Sessions
  readonly refusals: Refusals
  /** Before a connection is served. @throws ERR_AUDIT */
  readonly mayOpen: () => void
  /** It is, for the audit log. */
  readonly opened: (identified: Identified) => void
  readonly clock: Clock
  readonly maxBatch: number
  /** Longest message of a client. */
  readonly maxPayloadBytes: number
  /** Milliseconds between pings; a client that has not answered the last one is cut off. */
  readonly pingMs: number
  readonly messages: Handler<Parsed>
}

interface Upgrading {
  readonly socket: Duplex
  readonly head: Buffer
}

/** A request to switch protocols. */
export type UpgradeReceived = HttpReceived & Upgrading
/** The same, its headers checked and its caller known. */
export type UpgradeIdentified = HttpIdentified & Upgrading

/**
 * MCP over WebSocket: subprotocol `mcp`, one JSON-RPC message in each text frame, stdio semantics. The session
 * lives as long as the socket. Browsers apply no CORS here, so Origin was checked before.
 */
export async function webSocket(context: WebSocketContext): Promise<Handler<UpgradeIdentified>> {
  const { WebSocketServer: Server } = await import('ws')
  const server: WebSocketServer = new Server({
    noServer: true,
    maxPayload: context.maxPayloadBytes,
    perMessageDeflate: false,
    handleProtocols: (offered) => (offered.has('mcp') ? 'mcp' : false),
  })
  // What is wrong with a handshake is answered like everything else.
  let wrong: Error | undefined
  server.on('wsClientError', (error) => {
    wrong = error
  })
  return (identified) => {
    const { request, socket, head, path } = identified
    if (path !== '/ws') throw new SidecarError('ERR_NOT_FOUND', { detail: `an upgrade of ${path}` })
    if (!offersMcp(request)) {
      throw new SidecarError('ERR_HTTP', { detail: 'the WebSocket subprotocol mcp was not offered' })
    }
    wrong = undefined
    server.handleUpgrade(request, socket, head, (ws) => serve(context, identified, ws))
    if (wrong !== undefined) {
      throw new SidecarError('ERR_HTTP', { detail: `the WebSocket handshake: ${(wrong as Error).message}` })
    }
  }
}

function offersMcp(request: IncomingMessage): boolean {
  const offered = request.headers['sec-websocket-protocol']
  return offered?.split(',').some((name) => name.trim() === 'mcp') === true
}

function serve(context: WebSocketContext, identified: UpgradeIdentified, ws: WebSocket): void {
  const outlet = new SocketOutlet(ws, identified.socket)
  // Errors of the protocol (a frame too large, bad UTF-8) close the socket with the code that belongs to them.
  ws.on('error', () => {})
  keepAlive(context, ws)
  endWithCredential(context.clock, identified.principal, outlet)
  let sessionId: string
  let version: () => string | undefined
  try {
    context.mayOpen()
    const session = context.sessions.open(identified.principal, 'websocket', outlet)
    sessionId = session.id
    context.opened(identified)
    version = () => session.version
  } catch (thrown) {
    const error = SidecarError.from(thrown)
    context.refusals.note(error, identified)
    outlet.close(error)
    return
  }
  const connection: Connection = { era: undefined }
  const inOrder = new InOrder(ws)
  const submitted = (message: Message): void | Promise<void> => {
    const idText = message.kind === 'request' ? message.idText : undefined
    const exchange = new OutletExchange(outlet, idText, identified.requestId)
    const refused = (error: SidecarError): void => context.refusals.noteMessage(error, identified)
    return submit(context.messages, identified, { message, sessionId, exchange, connection }, refused)
  }
  ws.on('message', (data: Buffer, isBinary: boolean) => {
    if (isBinary) {
      outlet.close(new SidecarError('ERR_CONTENT_TYPE', { detail: 'a binary frame' }))
      return
    }
    try {
      for (const message of decode(data, version, context.maxBatch).messages) {
        inOrder.run(() => submitted(message))
      }
    } catch (thrown) {
      const error = SidecarError.from(thrown)
      context.refusals.note(error, identified)
      outlet.sendError(error, identified.requestId)
    }
  })
}

function keepAlive({ clock, pingMs }: WebSocketContext, ws: WebSocket): void {
  let answered = true
  ws.on('pong', () => {
    answered = true
  })
  const timer = clock.after(pingMs, () => {
    // Nothing is read from it, its pongs neither, while a message waits its turn.
    if (ws.isPaused) {
      answered = true
      timer.refresh()
      return
    }
    if (!answered) {
      ws.terminate()
      return
    }
    answered = false
    ws.ping()
    timer.refresh()
  })
  ws.on('close', () => timer.cancel())
}

/**
 * Runs one thing after the other where one has to wait: a cancellation must not overtake what it cancels. Nothing more
 * is read meanwhile, so that what waits is bounded.
 */
class InOrder {
  readonly #ws: WebSocket
  #last: Promise<void> | undefined

  constructor(ws: WebSocket) {
    this.#ws = ws
  }

  run(job: () => void | Promise<void>): void {
    const pending = this.#last === undefined ? job() : this.#last.then(job)
    if (pending === undefined) return
    this.#ws.pause()
    const last = pending.then(() => {
      if (this.#last !== last) return
      this.#last = undefined
      this.#ws.resume()
    })
    this.#last = last
  }
}

class SocketOutlet implements Outlet {
  readonly #ws: WebSocket
  readonly #socket: Duplex
  #waiting: (() => void)[] = []

  constructor(ws: WebSocket, socket: Duplex) {
    this.#ws = ws
    this.#socket = socket
    ws.on('close', () => this.#drained())
  }

  get queuedBytes(): number {
    return this.#ws.bufferedAmount
  }

  get pulse(): number {
    return unsent(this.#socket)
  }

  send(wire: Wire): void {
    if (this.#ws.readyState !== this.#ws.OPEN) return
    const pieces = wireBuffers(wire)
    const data = pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces)
    this.#ws.send(data, { binary: false }, () => {
      if (this.#ws.bufferedAmount === 0) this.#drained()
    })
  }

  sendError(error: SidecarError, requestId: string): void {
    this.send(wireOfText(rpcErrorText(error, undefined, requestId)))
  }

  onceDrained(then: () => void): void {
    if (this.#ws.bufferedAmount === 0) then()
    else this.#waiting.push(then)
  }

  /** 1000 without an error; else the code of the error table, with its name as the reason. */
  close(error?: SidecarError): void {
    if (error === undefined) this.#ws.close(1000)
    else this.#ws.close(error.close, error.code)
  }

  destroy(): void {
    this.#ws.terminate()
  }

  onClosed(then: () => void): void {
    if (this.#ws.readyState === this.#ws.CLOSED) then()
    else this.#ws.once('close', then)
  }

  #drained(): void {
    const waiting = this.#waiting
    this.#waiting = []
    for (const then of waiting) then()
  }
}
