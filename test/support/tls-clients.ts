/** Clients that speak TLS, with a certificate of their own or without one. */
import type { IncomingMessage } from 'node:http'
import { Agent, request } from 'node:https'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { Readable } from 'node:stream'
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls'
import type { Test } from 'tap'
import { collect, type RawResponse } from './wire.ts'

/** What a client presents and trusts. */
export type ClientTls = Pick<
  ConnectionOptions,
  'ca' | 'cert' | 'key' | 'minVersion' | 'maxVersion' | 'ciphers'
>

export interface Tunnel {
  /** `http://127.0.0.1:PORT`. */
  readonly base: string
  /** The same with `/mcp`. */
  readonly url: string
}

/**
 * A port on this machine that carries plain HTTP over TLS to another, each connection by one of its own: so every client
 * of these tests, of whatever transport, comes with a certificate and knows nothing of it.
 */
export async function tunnel(t: Test, port: number, tls: ClientTls): Promise<Tunnel> {
  const open = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true }, (plain) => {
    const secure = connect({ host: '127.0.0.1', port, servername: 'localhost', ...tls })
    for (const socket of [plain, secure]) {
      open.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => {
        open.delete(socket)
        plain.destroy()
        secure.destroy()
      })
    }
    plain.pipe(secure)
    secure.pipe(plain)
  })
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  t.teardown(() => {
    for (const socket of open) socket.destroy()
    return new Promise((closed) => server.close(closed))
  })
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return { base, url: `${base}/mcp` }
}

/** `fetch` over TLS with a certificate, as an MCP client of an SDK takes it. */
export function secureFetch(tls: ClientTls): typeof fetch {
  return async (input, init = {}) => {
    const asked = new Request(input, init)
    const body = asked.body === null ? undefined : Buffer.from(await asked.arrayBuffer())
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const { method, signal } = asked
      const headers = Object.fromEntries(asked.headers)
      const outgoing = request(asked.url, { method, headers, signal, ...tls, agent: false }, resolve)
      outgoing.on('error', reject)
      outgoing.end(body)
    })
    const { statusCode: status = 0, headers } = response
    const pairs = Object.entries(headers).map(([name, value]): [string, string] => [name, String(value)])
    const empty = [204, 205, 304].includes(status)
    if (empty) response.resume()
    const stream = empty
      ? null
      : (Readable.toWeb(response) as unknown as ConstructorParameters<typeof Response>[0])
    return new Response(stream, { status, headers: pairs })
  }
}

export interface OneConnection {
  send(method: string, headers?: Record<string, string>, body?: unknown): Promise<RawResponse>
  /** Of the connection that all requests have gone over. */
  readonly socket: TLSSocket
  close(): void
}

/** Requests one after another on one connection. */
export function oneConnection(t: Test, url: string, tls: ClientTls): OneConnection {
  const agent = new Agent({ keepAlive: true, maxSockets: 1, ...tls })
  t.teardown(() => agent.destroy())
  let used: TLSSocket | undefined
  return {
    send: async (method, headers = {}, body) => {
      const response = await new Promise<IncomingMessage>((resolve, reject) => {
        const outgoing = request(url, { method, headers, agent }, resolve)
        outgoing.on('socket', (socket) => {
          if (used !== undefined && used !== socket) reject(new Error('another connection was made'))
          used = socket as TLSSocket
        })
        outgoing.on('error', reject)
        outgoing.end(body === undefined ? undefined : JSON.stringify(body))
      })
      return collect(response)
    },
    get socket() {
      if (used === undefined) throw new Error('nothing was sent yet')
      return used
    },
    close: () => agent.destroy(),
  }
}

/** How a handshake ends: the protocol that was agreed on, or the code of its error. */
export function handshake(port: number, tls: ClientTls): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port, servername: 'localhost', ...tls })
    socket.on('secureConnect', () => {
      // TLS 1.3 has the last word of the server after ours; what was agreed on stays.
      resolve(socket.getProtocol() ?? 'none')
      socket.destroy()
    })
    socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
    socket.on('close', () => resolve('closed'))
  })
}
