/** MCP over WebSocket for clients of SDK v2, which brings no such transport: one message in each text frame. */
import type { JSONRPCMessage, Transport } from '@modelcontextprotocol/client'
import { type ClientOptions, WebSocket } from 'ws'

/** A single channel like stdio: cancellation is a notification, and nothing is said about the version. */
export class WebSocketTransport implements Transport {
  onclose?: () => void
  onerror?: (error: Error) => void
  onmessage?: Transport['onmessage']
  readonly #url: URL
  readonly #options: ClientOptions
  #socket: WebSocket | undefined

  constructor(url: URL, options: ClientOptions = {}) {
    this.#url = url
    this.#options = options
  }

  start(): Promise<void> {
    const socket = new WebSocket(this.#url, ['mcp'], this.#options)
    this.#socket = socket
    socket.on('message', (data: Buffer) => this.onmessage?.(JSON.parse(data.toString()) as JSONRPCMessage))
    socket.on('close', () => this.onclose?.())
    return new Promise((resolve, reject) => {
      socket.on('open', resolve)
      socket.on('error', (error) => {
        this.onerror?.(error)
        reject(error)
      })
    })
  }

  send(message: JSONRPCMessage): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#socket === undefined) reject(new Error('not started'))
      else this.#socket.send(JSON.stringify(message), (error) => (error ? reject(error) : resolve()))
    })
  }

  async close(): Promise<void> {
    const socket = this.#socket
    if (socket === undefined || socket.readyState === socket.CLOSED) return
    await new Promise((resolve) => {
      socket.once('close', resolve)
      socket.close(1000)
    })
  }
}
