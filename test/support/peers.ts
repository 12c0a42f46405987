/** Bare clients of all three transports behind one interface; everything they receive is handed on in order. */
import { Agent, type IncomingMessage, request } from 'node:http'
import { WebSocket } from 'ws'
import { initialize, parseEvents } from './wire.ts'

// biome-ignore lint/suspicious/noExplicitAny: tests look into messages of any shape
export type Json = any

export const transports = ['Streamable HTTP', 'HTTP+SSE', 'WebSocket'] as const
export type TransportName = (typeof transports)[number]

export interface PeerOptions {
  readonly transport: TransportName
  /** Of the sidecar, without a path. */
  readonly base: string
  readonly headers?: Record<string, string>
  readonly capabilities?: object
  /** On Streamable HTTP: opens the GET stream. */
  readonly listens?: boolean
  /** @param stream the id of the request on whose response it came; undefined for the long-lived stream */
  onMessage(message: Json, stream: string | number | undefined): void
}

export interface Peer {
  readonly transport: TransportName
  /** Sends a request; resolves when its response has ended, or at once where the answer comes on the long stream. */
  request(message: Json): Promise<void>
  /** Sends a notification or a response; resolves when it has been accepted, as far as the transport tells. */
  tell(message: object): Promise<void>
  /** Cuts the connection that the answer to this request would come on. */
  cut(id: string | number): void
  /** Ends the session. */
  close(): Promise<void>
}

export async function connectPeer(options: PeerOptions): Promise<Peer> {
  const peer = await connections[options.transport](options)
  await peer.tell({ jsonrpc: '2.0', method: 'notifications/initialized' })
  return peer
}

const connections: Record<TransportName, (options: PeerOptions) => Promise<Peer>> = {
  'Streamable HTTP': connectStreamable,
  'HTTP+SSE': connectSse,
  WebSocket: connectSocket,
}

const json = { 'Content-Type': 'application/json', Accept: 'application/json, text/event-stream' }

async function connectStreamable(options: PeerOptions): Promise<Peer> {
  const { base, onMessage } = options
  const url = `${base}/mcp`
  const agent = new Agent({ keepAlive: true })
  const open = new Map<string | number, () => void>()
  let session: Record<string, string> = { ...options.headers }
  const send = (message: Json): Promise<void> =>
    exchange(agent, url, 'POST', { ...json, ...session }, message, {
      sent: (cut) => {
        if (message.method !== undefined && message.id !== undefined) open.set(message.id, cut)
      },
      started: (response) => {
        const id = response.headers['mcp-session-id']
        if (typeof id === 'string') session = { ...session, 'Mcp-Session-Id': id }
      },
      message: (received) => onMessage(received, message.id),
    }).finally(() => {
      if (message.method !== undefined) open.delete(message.id)
    })
  await send(initialize('2025-11-25', options.capabilities, 'init'))
  let stopListening = (): void => {}
  if (options.listens) {
    const headers = { ...session, Accept: 'text/event-stream' }
    await new Promise<void>((listening) => {
      const started = (response: IncomingMessage): void => {
        stopListening = () => response.destroy()
        listening()
      }
      const message = (received: Json): void => onMessage(received, undefined)
      exchange(agent, url, 'GET', headers, undefined, { started, message }).catch(() => {})
    })
  }
  return {
    transport: 'Streamable HTTP',
    request: send,
    tell: send,
    cut: (id) => open.get(id)?.(),
    close: async () => {
      stopListening()
      await exchange(agent, url, 'DELETE', session, undefined, {})
      agent.destroy()
    },
  }
}

async function connectSse(options: PeerOptions): Promise<Peer> {
  const { base, onMessage, headers = {} } = options
  const agent = new Agent({ keepAlive: true })
  let cut = (): void => {}
  let initialized = (): void => {}
  const ready = new Promise<void>((resolve) => {
    initialized = resolve
  })
  let endpoint = ''
  await new Promise<void>((resolve, reject) => {
    exchange(agent, `${base}/sse`, 'GET', { ...headers, Accept: 'text/event-stream' }, undefined, {
      started: (response) => {
        cut = () => response.destroy()
      },
      endpoint: (path) => {
        endpoint = new URL(path, base).href
        resolve()
      },
      message: (received) => {
        if (received.id === 'init') initialized()
        else onMessage(received, undefined)
      },
    }).catch(reject)
  })
  const send = (message: object): Promise<void> =>
    exchange(agent, endpoint, 'POST', { ...json, ...headers }, message, {})
  await send(initialize('2024-11-05', options.capabilities, 'init'))
  await ready
  return {
    transport: 'HTTP+SSE',
    request: send,
    tell: send,
    cut: () => cut(),
    close: async () => {
      cut()
      agent.destroy()
    },
  }
}

async function connectSocket(options: PeerOptions): Promise<Peer> {
  const { base, onMessage, headers = {} } = options
  const socket = new WebSocket(`${base.replace(/^http/, 'ws')}/ws`, ['mcp'], { headers })
  await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject))
  const ready = new Promise<void>((resolve) => {
    socket.on('message', (data: Buffer) => {
      const received: Json = JSON.parse(data.toString())
      if (received.id === 'init') resolve()
      else onMessage(received, undefined)
    })
  })
  socket.on('error', () => {})
  const send = async (message: object): Promise<void> => {
    if (socket.readyState === socket.OPEN) socket.send(JSON.stringify(message))
  }
  await send(initialize('2025-11-25', options.capabilities, 'init'))
  await ready
  return {
    transport: 'WebSocket',
    request: send,
    tell: send,
    cut: () => socket.terminate(),
    close: async () => socket.close(1000),
  }
}

interface Listener {
  /** @param cut breaks the connection off; nothing more is received then */
  sent?(cut: () => void): void
  started?(response: IncomingMessage): void
  endpoint?(path: string): void
  message?(received: Json): void
}

/** One HTTP request; resolves when its response has ended, however it ended. */
function exchange(
  agent: Agent,
  url: string,
  method: string,
  headers: Record<string, string>,
  body: object | undefined,
  listener: Listener,
): Promise<void> {
  return new Promise((resolve, reject) => {
    let isCut = false
    const outgoing = request(url, { method, headers, agent }, (response) => {
      listener.started?.(response)
      const isStream = response.headers['content-type'] === 'text/event-stream'
      let rest = ''
      response.setEncoding('utf8')
      response.on('error', () => {})
      response.on('data', (part: string) => {
        rest += part
        if (!isStream || isCut) return
        const end = rest.lastIndexOf('\n\n')
        if (end < 0) return
        const events = parseEvents(rest.slice(0, end + 2))
        rest = rest.slice(end + 2)
        for (const { event, data } of events) {
          if (event === 'endpoint') listener.endpoint?.(data ?? '')
          else if (data) listener.message?.(JSON.parse(data))
        }
      })
      response.on('close', () => {
        if (!isStream && !isCut && rest !== '' && response.complete) listener.message?.(JSON.parse(rest))
        resolve()
      })
    })
    outgoing.on('error', (error) => (isCut ? resolve() : reject(error)))
    listener.sent?.(() => {
      isCut = true
      outgoing.destroy()
    })
    outgoing.end(body === undefined ? undefined : JSON.stringify(body))
  })
}
