import { createServer, type IncomingMessage, type Server, ServerResponse } from 'node:http'
import { createServer as createSecureServer, type Server as SecureServer } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { type ErrorCode, rpcErrorText, SidecarError } from '../core/errors.ts'
import type { Draft, Handler } from '../core/pipeline.ts'
import type { Transport } from '../core/types.ts'
import { clientAddress, type TrustedProxies } from './client-address.ts'
import type { HttpIdentified, HttpReceived, Refusals } from './http.ts'
import { certificateOf, type TlsMaterial } from './tls.ts'
import type { UpgradeReceived } from './websocket.ts'

export interface ListenerOptions {
  readonly host: string
  readonly port: number
  readonly maxConnections: number
  /** From the connection's first byte to the end of the headers. Milliseconds. */
  readonly headerTimeoutMs: number
  /** From the end of the headers to the end of the body. Milliseconds. */
  readonly bodyTimeoutMs: number
  /** Undefined: plain HTTP. */
  readonly tls: TlsMaterial | undefined
}

export interface Doors {
  readonly http: Handler<HttpReceived>
  /** Undefined when WebSocket is off. */
  readonly upgrade: Handler<UpgradeReceived> | undefined
  readonly refusals: Refusals
  /** The proxies of the moment whose word is taken. */
  readonly proxies: () => TrustedProxies
}

export interface Listener {
  readonly port: number
  /** Serves new connections with these files; those that are open go on. */
  secureWith(tls: TlsMaterial): void
  /** Stops accepting; idle connections close, busy ones after their response. */
  stopAccepting(): void
  /** Cuts what is left. */
  close(): Promise<void>
}

type HttpServer = Server | SecureServer

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
  const http = {
    maxHeaderSize: maxHeaderBytes,
    headersTimeout: options.headerTimeoutMs,
    requestTimeout: options.headerTimeoutMs + options.bodyTimeoutMs,
    connectionsCheckingInterval: Math.min(checkEveryMs, options.headerTimeoutMs),
    keepAliveTimeout: keepAliveTimeoutMs,
    // We answer a missing Host ourselves, as JSON.
    requireHostHeader: false,
    noDelay: true,
  }
  const { tls } = options
  const server = tls === undefined ? createServer(http) : createSecureServer({ ...http, ...tls.options })
  server.maxConnections = options.maxConnections
  // Node drops headers beyond a number without a word, an Origin among them; their size is bounded anyway.
  server.maxHeadersCount = 0

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
      requireOneHost(received.request)
      const located: Draft<Pick<HttpReceived, 'clientAddress'>> = received
      located.clientAddress = clientAddress(received.remoteAddress, received.headers, doors.proxies())
      const pending = door(received)
      if (pending !== undefined) pending.catch(fail)
    } catch (thrown) {
      fail(thrown)
    }
  }
  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    const socket: Busy = request.socket
    socket[openResponses] ??= new Set()
    const responses = socket[openResponses]
    responses.add(response)
    response.on('close', () => responses.delete(response))
    enter(doors.http, receive(nextId(), request, response))
  }

  server.on('request', onRequest)
  // `Expect: 100-continue`: whoever reads the body says so; a refused request is not asked for one.
  server.on('checkContinue', onRequest)
  server.on('checkExpectation', (request, response) => {
    const refusal = new SidecarError('ERR_EXPECTATION', { detail: `Expect ${request.headers.expect}` })
    doors.refusals.refuse(refusal, receive(nextId(), request, response))
  })
  const { upgrade } = doors
  if (upgrade !== undefined) {
    server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      // Node hands the connection over although earlier requests on it wait: whatever is said now would stand in the
      // midst of their answers.
      if (((socket as Busy)[openResponses]?.size ?? 0) > 0) {
        const refusal = new SidecarError('ERR_HTTP', { detail: 'an upgrade before earlier answers' })
        const remoteAddress = (socket as Socket).remoteAddress ?? ''
        doors.refusals.note(refusal, { requestId: nextId(), remoteAddress })
        socket.destroy()
        return
      }
      if (request.headers.upgrade?.toLowerCase() !== 'websocket') {
        readmit(server, tls === undefined ? 'connection' : 'secureConnection', request, socket, head)
        return
      }
      socket.on('error', () => {})
      const response = new ServerResponse(request)
      response.shouldKeepAlive = false
      enter(upgrade, { ...receive(nextId(), request, response), socket, head }, () => {
        response.assignSocket(socket as Socket)
        response.on('finish', () => endSoon(socket))
      })
    })
  }
  // Node would end the connection without a word, and nobody would learn who has asked.
  server.on('connect', (request: IncomingMessage, socket: Duplex) => {
    const refusal = new SidecarError('ERR_HTTP', { detail: 'CONNECT: this is no proxy' })
    const requestId = nextId()
    const { remoteAddress = '' } = socket as Socket
    const { url: path = '', headers } = request
    doors.refusals.note(refusal, { requestId, remoteAddress, httpMethod: 'CONNECT', path, headers })
    socket.on('error', () => {})
    if (((socket as Busy)[openResponses]?.size ?? 0) > 0) socket.destroy()
    else endSoon(socket, rawResponse(refusal, requestId))
  })
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex) => {
    // No handshake, so that nobody there could read an answer; Node.js has often ended the connection by now.
    if (/^ERR_(SSL|TLS)_/.test(error.code ?? '')) {
      doors.refusals.note(new SidecarError('ERR_HTTP', { detail: `TLS: ${error.code}` }), {
        requestId: nextId(),
        remoteAddress: (socket as Socket).remoteAddress ?? '',
      })
      socket.destroy()
      return
    }
    if (error.code === 'ECONNRESET' || !socket.writable) {
      socket.destroy()
      return
    }
    const refusal = new SidecarError(clientErrorCode(error.code), { detail: error.code ?? error.message })
    const requestId = nextId()
    doors.refusals.note(refusal, { requestId, remoteAddress: (socket as Socket).remoteAddress ?? '' })
    // What is written now must not pass for the answer to an earlier request, nor stand in the middle of one: only the
    // request that could not be read to its end may be waiting.
    const waiting = [...((socket as Busy)[openResponses] ?? [])]
    const other = waiting.find(({ req, headersSent }) => req.complete || headersSent)
    if (other !== undefined || waiting.length > 1) socket.destroy()
    else endSoon(socket, rawResponse(refusal, requestId))
  })
  return open(server, options)
}

/** On a connection: its requests that have not been answered completely. */
const openResponses = Symbol('openResponses')
type Busy = Socket & { [openResponses]?: Set<ServerResponse> }

/** A client that was refused has this long to close its side. Milliseconds. */
const lingerMs = 500

function endSoon(socket: Duplex, last?: string): void {
  socket.end(last)
  setTimeout(() => socket.destroy(), lingerMs).unref()
}

/** @throws ERR_HTTP for two Host headers: whoever stands in front of us may have believed the other one (RFC 9112) */
function requireOneHost({ rawHeaders }: IncomingMessage): void {
  let hosts = 0
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] as string
    if (name.length === 4 && name.toLowerCase() === 'host') hosts++
  }
  if (hosts > 1) throw new SidecarError('ERR_HTTP', { detail: `${hosts} Host headers` })
}

/**
 * An offer to speak something else than WebSocket is not taken (RFC 9110 section 7.8): the request comes in again
 * without it. Node hands over every upgrade once one is listened for.
 */
function readmit(
  server: HttpServer,
  event: 'connection' | 'secureConnection',
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): void {
  const lines = [`${request.method} ${request.url} HTTP/${request.httpVersion}`]
  const { rawHeaders } = request
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] as string
    if (!/^(upgrade|connection|http2-settings)$/i.test(name)) lines.push(`${name}: ${rawHeaders[i + 1]}`)
  }
  socket.unshift(Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), head]))
  server.emit(event, socket)
}

function open(server: HttpServer, options: ListenerOptions): Promise<Listener> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(options.port, options.host, () => {
      server.off('error', reject)
      resolve({
        port: (server.address() as AddressInfo).port,
        secureWith: (tls) => {
          if ('setSecureContext' in server) server.setSecureContext(tls.options)
        },
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

/** What the stages of the door fill in. Room for it is made at once: V8 has properties that are added later apart. */
type Room = { readonly [K in Exclude<keyof HttpIdentified, keyof HttpReceived>]: undefined }

function receive(requestId: string, request: IncomingMessage, response: ServerResponse): HttpReceived {
  const url = request.url ?? '/'
  const query = url.indexOf('?')
  const path = query < 0 ? url : url.slice(0, query)
  const received: HttpReceived & Room = {
    requestId,
    transport: transportOf(path),
    remoteAddress: request.socket.remoteAddress ?? '',
    // Who it is behind a proxy is found out at the door, which can refuse.
    clientAddress: request.socket.remoteAddress ?? '',
    httpMethod: request.method ?? '',
    path,
    query: query < 0 ? '' : url.slice(query + 1),
    headers: request.headers,
    rawHeaders: request.rawHeaders,
    certificate: certificateOf(request.socket),
    request,
    response,
    origin: undefined,
    principal: undefined,
  }
  return received
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
