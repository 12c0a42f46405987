/** The same credential on every way into a sidecar, for refusals that must not differ. */

import { ask, tool } from './modern.ts'
import { upgradeAnswer } from './streams.ts'
import { collect, initialize, open, post, type RawResponse, send } from './wire.ts'

export type Headers = Record<string, string | string[]>

/** One request with these headers; what is let in is left at once, with the status it began with. */
export type WayIn = (headers: Headers, query?: string) => Promise<RawResponse>

const stream = { Accept: 'text/event-stream' }

async function begun(url: string, headers: Headers): Promise<RawResponse> {
  const response = await open(url, 'GET', { ...stream, ...headers })
  if (response.statusCode !== 200) return collect(response)
  response.destroy()
  return { status: 200, headers: response.headers, body: '', json: undefined, messages: [] }
}

export function waysInto(base: string): Readonly<Record<string, WayIn>> {
  const url = `${base}/mcp`
  return {
    'Streamable HTTP, legacy': (headers, query = '') => post(url + query, initialize(), headers),
    'Streamable HTTP, the GET stream': (headers, query = '') => begun(url + query, headers),
    'Streamable HTTP, the end of a session': (headers, query = '') => send(url + query, 'DELETE', headers),
    'Streamable HTTP, modern': (headers, query = '') => ask(url + query, tool(1, 'echo'), headers),
    'HTTP+SSE, the stream': (headers, query = '') => begun(`${base}/sse${query}`, headers),
    'HTTP+SSE, a message': (headers, query = '') =>
      post(`${base}/messages${query === '' ? '?sessionId=x' : query}`, initialize(), headers),
    'a WebSocket upgrade': (headers, query = '') =>
      upgradeAnswer(base, headers as Record<string, string>, { path: `/ws${query}` }),
  }
}

/** Everything of an answer that must be the same for all who are refused. */
export function alike({ status, headers, body, json }: RawResponse): Record<string, unknown> {
  const { date: _, 'x-request-id': requestId, connection: __, 'keep-alive': ___, ...rest } = headers
  return { status, headers: rest, body: body.replace(json?.error?.data?.requestId ?? requestId ?? '', 'ID') }
}
