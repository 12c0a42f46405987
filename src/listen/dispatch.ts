import { SidecarError } from '../core/errors.ts'
import type { Handler, Layer } from '../core/pipeline.ts'
import type { HttpIdentified, HttpTrusted } from './http.ts'
import { httpSse } from './http-sse.ts'
import { corsHeaders, preflightHeaders } from './origin.ts'
import { streamableHttp, type TransportContext } from './streamable-http.ts'

/** The client endpoints. */
export const paths = { streamableHttp: '/mcp', sse: '/sse', messages: '/messages', webSocket: '/ws' } as const

export interface Served {
  readonly streamableHttp: boolean
  readonly httpSse: boolean
}

/** Hands an identified request to the transport its path belongs to. */
export function dispatch(served: () => Served, context: TransportContext): Handler<HttpIdentified> {
  const streamable = streamableHttp(context)
  const sse = httpSse(context)
  return (identified) => {
    const on = served()
    const { path } = identified
    if (path === paths.streamableHttp && on.streamableHttp) return streamable(identified)
    if (path === paths.sse && on.httpSse) return sse.stream(identified)
    if (path === paths.messages && on.httpSse) return sse.messages(identified)
    throw new SidecarError('ERR_NOT_FOUND', { detail: `${identified.httpMethod} ${path}` })
  }
}

/**
 * CORS for pages of allowed origins. A preflight is answered here: browsers send it without credentials, so it
 * cannot pass authentication (Fetch standard, "CORS-preflight fetch").
 *
 * @param credentials headers that carry them, in lower case
 */
export function cors(credentials: () => Iterable<string>): Layer<HttpTrusted, HttpTrusted> {
  return (trusted, next) => {
    const { origin, response, httpMethod, headers } = trusted
    if (origin === undefined) return next(trusted)
    for (const [name, value] of Object.entries(corsHeaders(origin))) response.setHeader(name, value)
    if (httpMethod !== 'OPTIONS' || headers['access-control-request-method'] === undefined)
      return next(trusted)
    const requested = headers['access-control-request-headers']
    response.writeHead(204, preflightHeaders(requested, credentials())).end()
  }
}
