/** One call over each transport in each era, for tests of what must be the same on all of them. */
import { ask, type Json, tool } from './modern.ts'
import { openSocket, openSse } from './streams.ts'
import { call, openSession, post } from './wire.ts'

/** How one call ended. */
export interface Ended {
  readonly json: Json
  /** On Streamable HTTP, where each call has a response of its own. */
  readonly status: number | undefined
  readonly retryAfter: string | undefined
}

export interface Caller {
  callTool(name: string, args?: object): Promise<Ended>
  close(): void
}

type Headers = Record<string, string>

export const waysIn: Readonly<Record<string, (base: string, headers: Headers) => Promise<Caller>>> = {
  'Streamable HTTP, legacy': async (base, headers) => {
    const session = await openSession(`${base}/mcp`, { headers })
    return posting((id, name, args) => post(`${base}/mcp`, call(id, name, args), session))
  },
  'Streamable HTTP, modern': async (base, headers) =>
    posting((id, name, args) => ask(`${base}/mcp`, tool(id, name, args), headers)),
  'HTTP+SSE': async (base, headers) => {
    const client = await openSse(base, { headers, version: '2024-11-05' })
    return streaming(client, (id, name, args) => call(id, name, args), client.cut)
  },
  'WebSocket, legacy': async (base, headers) => {
    const client = await openSocket(base, { headers, version: '2025-11-25' })
    return streaming(client, (id, name, args) => call(id, name, args), client.close)
  },
  'WebSocket, modern': async (base, headers) => {
    const client = await openSocket(base, { headers })
    return streaming(client, (id, name, args) => tool(id, name, args), client.close)
  },
}

type Send = (id: string, name: string, args: object) => ReturnType<typeof post>
let calls = 0

function posting(send: Send): Caller {
  return {
    callTool: async (name, args = {}) => {
      const id = `call ${++calls}`
      const { status, headers, json, messages } = await send(id, name, args)
      return {
        status,
        retryAfter: headers['retry-after'],
        json: json ?? messages.find((each) => each.id === id),
      }
    },
    close: () => {},
  }
}

function streaming(
  client: { request(message: { readonly id: string | number }): Promise<Json> },
  message: (id: string, name: string, args: object) => { readonly id: string | number },
  close: () => void,
): Caller {
  return {
    callTool: async (name, args = {}) => {
      const json = await client.request(message(`call ${++calls}`, name, args))
      return { status: undefined, retryAfter: undefined, json }
    },
    close,
  }
}
