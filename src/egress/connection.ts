import type { Socket } from 'node:net'
import type { Clock, Timer } from '../core/types.ts'
import { ByteReader } from './byte-reader.ts'
import type { Child } from './child.ts'
import type { Connector } from './connector.ts'
import { Ending } from './ending.ts'

/** One connection of a client to the proxy. */
export interface ClientConnection {
  readonly socket: Socket
  readonly reader: ByteReader
  /** Of the connection. */
  readonly gone: Ending
  /** Undefined until it has shown a token. */
  child: Child | undefined
  /** Ends the connection after so many milliseconds, unless it is called again. */
  endAfter(ms: number): void
  /** Something has happened: the wait starts anew. */
  touch(): void
}

/** What a connection brought is worth. */
export type Admission = { readonly child: Child } | { readonly refusal: 'token' | 'busy' }

/** What serves a connection, whatever it speaks. */
export interface Front {
  readonly clock: Clock
  readonly connector: Connector
  /** Binds the connection to the child with this token; it stays with that one. */
  admit(connection: ClientConnection, token: string | undefined): Admission
  /** How a connection of a child ended, and what passed through it. */
  ended(end: EgressEnd): void
}

/** One relayed connection or request, when it is over. */
export interface EgressEnd {
  /** Name of the child. */
  readonly child: string
  readonly host: string
  readonly port: number
  /** Bytes from the child. */
  readonly sent: number
  /** Bytes to the child. */
  readonly received: number
}

export function clientConnection(socket: Socket, clock: Clock): ClientConnection {
  const gone = new Ending()
  let timer: Timer | undefined
  socket.on('error', () => {})
  socket.once('close', () => {
    timer?.cancel()
    gone.tell()
  })
  return {
    socket,
    reader: new ByteReader(socket),
    gone,
    child: undefined,
    endAfter: (ms) => {
      timer?.cancel()
      timer = clock.after(ms, () => socket.destroy())
    },
    touch: () => timer?.refresh(),
  }
}

/** Resolves when more may be written. @throws Error when the socket has closed */
export function written(socket: Socket, data: Buffer | string): Promise<void> | undefined {
  if (socket.destroyed) return Promise.reject(new Error('the connection has closed'))
  if (socket.write(data)) return undefined
  return new Promise((resolve, reject) => {
    const settle = (error?: Error): void => {
      socket.off('drain', onDrain)
      socket.off('close', onClose)
      if (error === undefined) resolve()
      else reject(error)
    }
    const onDrain = (): void => settle()
    const onClose = (): void => settle(new Error('the connection has closed'))
    socket.on('drain', onDrain)
    socket.on('close', onClose)
  })
}

/** How long what was sent last may take to be read. Milliseconds. */
const lingerMs = 1000

/**
 * Ends with a last answer. What still comes is thrown away for a moment: closing over unread bytes would reset the
 * connection, and with it the answer.
 */
export function endWith(connection: ClientConnection, text: string): void {
  const { socket, reader } = connection
  reader.release()
  connection.endAfter(lingerMs)
  socket.resume()
  socket.end(text, 'latin1')
  if (socket.readableEnded) return
  socket.once('end', () => socket.destroySoon())
}
