/** Clients of the two transports whose session is one long-lived stream. */
import type { IncomingHttpHeaders } from 'node:http'
import { WebSocket } from 'ws'
import { until } from './sidecar.ts'
import { collect, type Following, follow, initialize, open, post, type RawResponse } from './wire.ts'

// biome-ignore lint/suspicious/noExplicitAny: tests look into messages of any shape
type Json = any

export interface SseClient extends Following {
  /** Where to post, as an absolute URL. */
  readonly endpoint: string
  send(message: unknown, headers?: Record<string, string>): Promise<RawResponse>
  /** The answer to a request, waited for. */
  request(message: { readonly id: string | number }): Promise<Json>
}

/** Opens an HTTP+SSE stream; with `version` it is initialized too. */
export async function openSse(
  base: string,
  options: { headers?: Record<string, string>; version?: string; capabilities?: object } = {},
): Promise<SseClient> {
  const { headers = {} } = options
  const response = await open(`${base}/sse`, 'GET', { Accept: 'text/event-stream', ...headers })
  if (response.statusCode !== 200) throw new Error(`no stream: ${JSON.stringify(await collect(response))}`)
  const stream = follow(response)
  await until(() => stream.events.length > 0, 'the endpoint event')
  const endpoint = new URL(stream.events[0]?.data ?? '', base).href
  const send = (message: unknown, more: Record<string, string> = {}): Promise<RawResponse> =>
    post(endpoint, message, { ...headers, ...more })
  const client: SseClient = Object.create(stream, {
    endpoint: { value: endpoint },
    send: { value: send },
    request: {
      value: async (message: { readonly id: string | number }) => {
        const before = stream.messages.length
        await send(message)
        return awaited(() => stream.messages.slice(before), message.id)
      },
    },
  })
  if (options.version !== undefined) {
    await client.request(initialize(options.version, options.capabilities))
    await send({ jsonrpc: '2.0', method: 'notifications/initialized' })
  }
  return client
}

export interface SocketClient {
  readonly socket: WebSocket
  readonly messages: Json[]
  readonly closed: () => { readonly code: number; readonly reason: string } | undefined
  send(message: unknown): void
  request(message: { readonly id: string | number }): Promise<Json>
  close(): void
}

/** Opens a WebSocket; with `version` it is initialized too. @throws UpgradeRefused */
export async function openSocket(
  base: string,
  options: {
    headers?: Record<string, string>
    protocols?: string[]
    path?: string
    version?: string
    capabilities?: object
  } = {},
): Promise<SocketClient> {
  const { headers = {}, protocols = ['mcp'], path = '/ws' } = options
  const socket = new WebSocket(base.replace(/^http/, 'ws') + path, protocols, { headers })
  const messages: Json[] = []
  let closed: { code: number; reason: string } | undefined
  socket.on('message', (data: Buffer) => {
    messages.push(JSON.parse(data.toString()))
  })
  socket.on('close', (code, reason) => {
    closed = { code, reason: reason.toString() }
  })
  await new Promise<void>((resolve, reject) => {
    socket.on('open', resolve)
    socket.on('error', reject)
    socket.on('unexpected-response', (_request, response) => {
      collect(response).then((answer) => reject(new UpgradeRefused(answer)), reject)
    })
  })
  const send = (message: unknown): void =>
    socket.send(typeof message === 'string' || Buffer.isBuffer(message) ? message : JSON.stringify(message))
  const client: SocketClient = {
    socket,
    messages,
    closed: () => closed,
    send,
    request: (message) => {
      const before = messages.length
      send(message)
      return awaited(() => messages.slice(before), message.id)
    },
    close: () => socket.close(1000),
  }
  if (options.version !== undefined) {
    await client.request(initialize(options.version, options.capabilities))
    send({ jsonrpc: '2.0', method: 'notifications/initialized' })
  }
  return client
}

/** What came back instead of a WebSocket. */
export class UpgradeRefused extends Error {
  readonly answer: RawResponse

  constructor(answer: RawResponse) {
    super(`refused with ${answer.status}: ${answer.body}`)
    this.answer = answer
  }
}

/** The answer to an upgrade that is expected to be refused. */
export async function upgradeAnswer(
  base: string,
  headers: Record<string, string>,
  options: { protocols?: string[]; path?: string } = {},
): Promise<RawResponse> {
  try {
    const { socket } = await openSocket(base, { headers, ...options })
    socket.terminate()
  } catch (thrown) {
    if (thrown instanceof UpgradeRefused) return thrown.answer
    throw thrown
  }
  const nothing: IncomingHttpHeaders = {}
  return { status: 101, headers: nothing, body: '', json: undefined, messages: [] }
}

/** The message with this id and a result or an error, as soon as it is there. */
export async function awaited(messages: () => readonly Json[], id: string | number): Promise<Json> {
  const find = (): Json =>
    messages().find((message) => message?.id === id && ('result' in message || 'error' in message))
  await until(() => find() !== undefined, `the answer to ${JSON.stringify(id)}`)
  return find()
}
