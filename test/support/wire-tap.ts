/**
 * Sees every byte that a sidecar in this process exchanges with clients and server processes, from outside: through
 * the diagnostics channels of Node and the two classes that write to clients. It changes nothing of what passes. A
 * sidecar in a process of its own is started with this module preloaded; what it sees is appended to the file that is
 * named in the query of the module's URL then.
 */
import type { ChildProcess } from 'node:child_process'
import { channel } from 'node:diagnostics_channel'
import { appendFileSync } from 'node:fs'
import { type IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { WebSocketServer } from 'ws'

/** Text is one character for each byte. */
export type Seen =
  | {
      readonly kind: 'request'
      readonly exchange: number
      readonly port: number
      readonly path: string
      readonly headers: Readonly<Record<string, string | string[] | undefined>>
      readonly text: string
    }
  | {
      readonly kind: 'response'
      readonly exchange: number
      readonly headers: Readonly<Record<string, string>>
    }
  | { readonly kind: 'sent'; readonly exchange: number; readonly text: string; readonly last: boolean }
  /** A response that was written without HTTP machinery, since the request could not be read. */
  | { readonly kind: 'refusal'; readonly port: number; readonly text: string }
  | {
      readonly kind: 'frame'
      readonly socket: number
      readonly port: number
      readonly by: 'client' | 'sidecar'
      readonly text: string
    }
  | {
      readonly kind: 'pipe'
      readonly process: number
      readonly command: readonly string[]
      readonly by: 'server' | 'sidecar'
      readonly text: string
    }

type Listener = (seen: Seen) => void

const listeners = new Set<Listener>()
let tapped = false
let count = 0

/** @returns stops listening */
export function listenToWire(listener: Listener): () => void {
  if (!tapped) tap()
  tapped = true
  listeners.add(listener)
  return () => listeners.delete(listener)
}

function say(seen: Seen): void {
  for (const listener of listeners) listener(seen)
}

function textOf(chunk: unknown, encoding?: unknown): string {
  if (typeof chunk === 'string') {
    return Buffer.from(chunk, typeof encoding === 'string' ? (encoding as BufferEncoding) : 'utf8').toString(
      'latin1',
    )
  }
  return chunk instanceof Uint8Array ? Buffer.from(chunk).toString('latin1') : ''
}

function tap(): void {
  channel('http.server.request.start').subscribe((message) => {
    tapRequest((message as { request: IncomingMessage }).request)
  })
  channel('net.server.socket').subscribe((message) => tapSocket((message as { socket: Socket }).socket))
  channel('child_process').subscribe((message) => {
    // Clients of tests start servers, too; only what the sidecar starts is its wire, its reaper excepted.
    const [, starter] = /[\\/]upstream[\\/]([\w-]+)\.[jt]s/.exec(new Error().stack ?? '') ?? []
    if (starter === undefined || starter === 'reaper') return
    tapProcess((message as { process: ChildProcess }).process)
  })
  tapResponses()
  tapWebSockets()
}

const exchanges = new WeakMap<IncomingMessage, number>()

function exchangeOf(request: IncomingMessage): number {
  const exchange = exchanges.get(request) ?? ++count
  exchanges.set(request, exchange)
  return exchange
}

function announce(request: IncomingMessage, text: string): void {
  say({
    kind: 'request',
    exchange: exchangeOf(request),
    port: request.socket.localPort ?? 0,
    path: request.url ?? '',
    headers: request.headers,
    text,
  })
}

function tapRequest(request: IncomingMessage): void {
  const parts: string[] = []
  const { push } = request
  // The headers count from the start: a refusal may come before the body does, if ever.
  announce(request, '')
  request.push = (chunk, encoding) => {
    if (chunk !== null) parts.push(textOf(chunk))
    else if (parts.length > 0) announce(request, parts.join(''))
    return push.call(request, chunk, encoding)
  }
}

function tapResponses(): void {
  const { prototype } = ServerResponse
  const { writeHead, write, end } = prototype
  prototype.writeHead = function (this: ServerResponse, ...args: unknown[]): ServerResponse {
    // Nobody announces an upgrade; when it is refused, there is a response to it all the same.
    if (!exchanges.has(this.req)) announce(this.req, '')
    const headers: Record<string, string> = {}
    const given = typeof args[1] === 'string' ? args[2] : args[1]
    for (const [name, value] of Object.entries({ ...this.getHeaders(), ...(given as object) })) {
      headers[name.toLowerCase()] = String(value)
    }
    say({ kind: 'response', exchange: exchangeOf(this.req), headers })
    return Reflect.apply(writeHead, this, args)
  }
  prototype.write = function (this: ServerResponse, ...args: unknown[]): boolean {
    say({ kind: 'sent', exchange: exchangeOf(this.req), text: textOf(args[0], args[1]), last: false })
    return Reflect.apply(write, this, args)
  }
  prototype.end = function (this: ServerResponse, ...args: unknown[]): ServerResponse {
    say({ kind: 'sent', exchange: exchangeOf(this.req), text: textOf(args[0], args[1]), last: true })
    return Reflect.apply(end, this, args)
  }
}

function tapSocket(socket: Socket): void {
  const { end } = socket
  socket.end = (...args: unknown[]) => {
    const text = textOf(args[0], args[1])
    if (text !== '') say({ kind: 'refusal', port: socket.localPort ?? 0, text })
    return Reflect.apply(end, socket, args)
  }
}

function tapWebSockets(): void {
  const { prototype } = WebSocketServer
  const { handleUpgrade } = prototype
  prototype.handleUpgrade = function (request, socket, head, accepted) {
    handleUpgrade.call(this, request, socket, head, (ws, ...more) => {
      const port = (socket as Socket).localPort ?? 0
      const number = ++count
      const frame = (by: 'client' | 'sidecar', data: unknown): void =>
        say({ kind: 'frame', socket: number, port, by, text: textOf(data) })
      ws.on('message', (data: unknown) => frame('client', data))
      const { send } = ws
      ws.send = (...args: unknown[]) => {
        frame('sidecar', args[0])
        Reflect.apply(send, ws, args)
      }
      accepted(ws, ...more)
    })
  }
}

function tapProcess(child: ChildProcess): void {
  const number = ++count
  const pipe = (by: 'server' | 'sidecar', text: string): void =>
    say({ kind: 'pipe', process: number, command: child.spawnargs, by, text })
  onceSet(child, 'stdin', (stdin) => {
    const { write } = stdin
    stdin.write = (...args: unknown[]) => {
      pipe('sidecar', textOf(args[0], args[1]))
      return Reflect.apply(write, stdin, args)
    }
  })
  onceSet(child, 'stdout', (stdout) => {
    const { push } = stdout
    stdout.push = (chunk, encoding) => {
      if (chunk !== null) pipe('server', textOf(chunk))
      return push.call(stdout, chunk, encoding)
    }
  })
}

/** The pipes of a process do not exist yet when it is announced, and are used before anyone hears of it again. */
function onceSet<K extends 'stdin' | 'stdout'>(
  child: ChildProcess,
  name: K,
  then: (stream: NonNullable<ChildProcess[K]>) => void,
): void {
  Object.defineProperty(child, name, {
    configurable: true,
    enumerable: true,
    get: () => undefined,
    set: (stream: ChildProcess[K]) => {
      Object.defineProperty(child, name, {
        configurable: true,
        enumerable: true,
        writable: true,
        value: stream,
      })
      if (stream !== null && stream !== undefined) then(stream as NonNullable<ChildProcess[K]>)
    },
  })
}

const file = new URL(import.meta.url).searchParams.get('to')
// Written at once: the process may be killed at any time.
if (file !== null) listenToWire((seen) => appendFileSync(file, `${JSON.stringify(seen)}\n`))
