/** A launcher in mode `serve` that does what a test says: frames on a unix socket, and no process. */
import { chmodSync, mkdirSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import type { Test } from 'tap'
import { folder } from './processes.ts'
import { until } from './sidecar.ts'

export interface Frame {
  readonly type: string
  readonly payload: Buffer
}

export function frameOf(type: string, payload: string | Buffer = ''): Buffer {
  const bytes = Buffer.from(payload)
  const header = Buffer.alloc(5)
  header.write(type, 'latin1')
  header.writeUInt32BE(bytes.length, 1)
  return Buffer.concat([header, bytes])
}

/** What a launcher reports of a server that it starts. */
export const report = JSON.stringify({ event: 'report', pid: 4711 })

export interface Connection {
  readonly socket: Socket
  /** So far. */
  readonly frames: readonly Frame[]
  /** Bytes of stdin so far. */
  readonly input: Buffer
  readonly closed: boolean
  say(type: string, payload?: string | Buffer): void
  /** Waits for a frame of this type. */
  heard(type: string): Promise<Frame>
}

export interface ScriptedLauncher {
  readonly path: string
  readonly connections: readonly Connection[]
  /** Waits for a connection. */
  connection(number?: number): Promise<Connection>
  listen(): Promise<void>
}

/** The path of a socket in a folder that only user and group may write to. */
export function socketPath(t: Test): string {
  const place = join(folder(t), 'mcp')
  mkdirSync(place)
  chmodSync(place, 0o770)
  return join(place, 'stdio.sock')
}

/** @param reads false: connections are taken, and nothing is read from them until the test does */
export async function scriptedLauncher(
  t: Test,
  { listening = true, reads = true }: { readonly listening?: boolean; readonly reads?: boolean } = {},
): Promise<ScriptedLauncher> {
  const path = socketPath(t)
  const connections: Connection[] = []
  const server = createServer({ allowHalfOpen: true }, (socket) => connections.push(follow(socket, reads)))
  t.teardown(() => {
    server.close()
    for (const { socket } of connections) socket.destroy()
  })
  const listen = (): Promise<void> =>
    new Promise((resolve) => {
      const before = process.umask(0o117)
      server.listen(path, () => resolve())
      process.umask(before)
    })
  if (listening) await listen()
  return {
    path,
    connections,
    listen,
    connection: async (number = 0) => {
      await until(() => connections.length > number, `connection ${number}`)
      return connections[number] as Connection
    },
  }
}

function follow(socket: Socket, reads: boolean): Connection {
  const frames: Frame[] = []
  let rest = Buffer.alloc(0)
  let closed = false
  socket.on('error', () => {})
  // The end of what the sidecar sends is the end for a launcher.
  socket.on('end', () => socket.destroy())
  socket.on('close', () => {
    closed = true
  })
  socket.on('data', (chunk: Buffer) => {
    rest = Buffer.concat([rest, chunk])
    while (rest.length >= 5 && rest.length >= 5 + rest.readUInt32BE(1)) {
      const end = 5 + rest.readUInt32BE(1)
      frames.push({ type: rest.toString('latin1', 0, 1), payload: Buffer.from(rest.subarray(5, end)) })
      rest = rest.subarray(end)
    }
  })
  if (!reads) socket.pause()
  return {
    socket,
    frames,
    get input() {
      return Buffer.concat(frames.filter(({ type }) => type === 'I').map(({ payload }) => payload))
    },
    get closed() {
      return closed
    },
    say: (type, payload) => socket.write(frameOf(type, payload)),
    heard: async (type) => {
      const find = (): Frame | undefined => frames.find((each) => each.type === type)
      await until(() => find() !== undefined, `a frame ${type}`)
      return find() as Frame
    },
  }
}
