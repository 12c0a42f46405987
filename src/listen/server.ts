import { createServer, type IncomingMessage, type Server, ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { type ErrorCode, rpcErrorText, SidecarError } from '../core/errors.ts'
import type { Handler } from '../core/pipeline.ts'
import type { Transport } from '../core/types.ts'
import type { HttpReceived, Refusals } from './http.ts'
import type { UpgradeReceived } from './websocket.ts'

export interface ListenerOptions {
  readonly host: string
  readonly port: number
  readonly maxConnections: number
  /** From the connection's first byte to the end of the headers. Milliseconds. */
  readonly headerTimeoutMs: number
  /** To the end of the body. Milliseconds. */
  readonly bodyTimeoutMs: number
}

export interface Doors {
  readonly http: Handler<HttpReceived>
  /** Undefined when WebSocket is off. */
  readonly upgrade: Handler<UpgradeReceived> | undefined
  readonly refusals: Refusals
}

export interface Listener {
  readonly port: number
  /** Stops accepting; idle connections close, busy ones after their response. */
  stopAccepting(): void
  /** Cuts what is left. */
  close(): Promise<void>
}

/** Half-open and idle connections are looked for this often. Milliseconds. */
const checkEveryMs = 1000
/** Longer than the idle timeout of common load balancers (60 s), so that they never reuse a closed connection. */
const keepAliveTimeoutMs = 65_000
const maxHeaderBytes = 16 * 1024

/**
 * Opens the one listener of all transports and turns each request into a {@link HttpReceived}.
 *
 * @throws the operating system's error when the address cannot be bound
 */
export function listen(options: ListenerOptions, doors: Doors): Promise<Listener> {
  const nextId = requestIds()
  const server = createServer({
    maxHeaderSize: maxHeaderBytes,
    headersTimeout: options.headerTimeoutMs,
    requestTimeout: options.bodyTimeoutMs,
    connectionsCheckingInterval: Math.min(checkEveryMs, options.headerTimeoutMs),
    keepAliveTimeout: keepAliveTimeoutMs,
    // We answer a missing Host ourselves, as JSON.
    requireHostHeader: false,
    noDelay: true,
  })
  server.maxConnections = options.maxConnections

  const enter = <R extends HttpReceived>(
    door: Handler<R>,
    received: R,
    beforeRefusal = (): void => {},
  ): void => {
    const fail = (thrown: unknown): void => {
      beforeRefusal()
      doors.refusals.refuse(thrown, received)
    }
    try {
      const pending = door(received)
      if (pending !== undefined) pending.catch(fail)
    } catch (thrown) {
      fail(thrown)
    }
  }
  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    enter(doors.http, receive(nextId(), request, response))
  }

  server.on('request', onRequest)
  // `Expect: 100-continue`: whoever reads the body says so; a refused request is not asked for one.
  server.on('checkContinue', onRequest)
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on('error', () => {})
    const response = new ServerResponse(request)
    response.shouldKeepAlive = false
    const upgrade = doors.upgrade ?? refuseUpgrade
    enter(upgrade, { ...receive(nextId(), request, response), socket, head }, () => {
      response.assignSocket(socket as Socket)
      response.on('finish', () => socket.end())
    })
  })
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex) => {
    const code = clientErrorCode(error.code)
    if (error.code === 'ECONNRESET' || !socket.writable) {
      socket.destroy()
      return
    }
    const refusal = new SidecarError(code, { detail: error.code ?? error.message })
    const requestId = nextId()
    doors.refusals.note(refusal, { requestId, remoteAddress: (socket as Socket).remoteAddress ?? '' })
    socket.end(rawResponse(refusal, requestId))
  })
  return open(server, options)
}

function refuseUpgrade(): never {
  const detail = 'an upgrade, but WebSocket is off (listen.webSocket, --web-socket)'
  throw new SidecarError('ERR_NOT_FOUND', { detail })
}

function open(server: Server, options: ListenerOptions): Promise<Listener> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(options.port, options.host, () => {
      server.off('error', reject)
      resolve({
        port: (server.address() as AddressInfo).port,
        stopAccepting: () => {
          server.close()
          server.closeIdleConnections()
        },
        close: () =>
          new Promise((closed) => {
            server.close(() => closed())
            server.closeAllConnections()
          }),
      })
    })
  })
}

function receive(requestId: string, request: IncomingMessage, response: ServerResponse): HttpReceived {
  const url = request.url ?? '/'
  const query = url.indexOf('?')
  const path = query < 0 ? url : url.slice(0, query)
  return {
    requestId,
    transport: transportOf(path),
    remoteAddress: request.socket.remoteAddress ?? '',
    httpMethod: request.method ?? '',
    path,
    headers: request.headers,
    request,
    response,
  }
}

function transportOf(path: string): Transport {
  if (path === '/sse' || path === '/messages') return 'http-sse'
  return path === '/ws' ? 'websocket' : 'streamable-http'
}

/** Short, unique in this process and not confusable with another's: a random prefix and a counter. */
function requestIds(): () => string {
  const prefix = Math.random().toString(36).slice(2, 8)
  let count = 0
  return () => `${prefix}-${(++count).toString(36)}`
}

function clientErrorCode(code: string | undefined): ErrorCode {
  if (code === 'HPE_HEADER_OVERFLOW') return 'ERR_HEADERS'
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') return 'ERR_SLOW'
  return 'ERR_HTTP'
}

function rawResponse(error: SidecarError, requestId: string): string {
  const body = rpcErrorText(error, undefined, requestId)
  return [
    `HTTP/1.1 ${error.httpStatus(false)} Refused`,
    'Content-Type: application/json',
    `Content-Length: ${Buffer.byteLength(body)}`,
    `X-Request-Id: ${requestId}`,
    'Connection: close',
    '',
    body,
  ].join('\r\n')
}
