import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface AdminOptions {
  readonly host: string
  readonly port: number
}

export interface AdminContext {
  /** Whether clients can be served now; when not, why, in words without secrets. */
  readiness(): {
    readonly ready: boolean
    readonly reason: string
    /** What holds for the server process. */
    readonly enforcement?: unknown
  }
  /** The exposition text and its content type. */
  metrics(): Promise<{ readonly text: string; readonly type: string }>
}

/**
 * The operator's port, apart from the clients': `/healthz` (the sidecar runs), `/readyz` (the server process
 * answers and no shutdown is under way), `/metrics` (Prometheus text).
 */
export function listenAdmin(
  options: AdminOptions,
  context: AdminContext,
): Promise<{ readonly port: number; close(): Promise<void> }> {
  const server = createServer({ maxHeaderSize: 8192, headersTimeout: 5000, requestTimeout: 5000 })
  server.maxConnections = 100
  server.on('request', (request, response) => {
    const reply = (status: number, body: string, type = 'application/json'): void => {
      response.writeHead(status, { 'Content-Type': type, 'Content-Length': Buffer.byteLength(body) })
      response.end(request.method === 'HEAD' ? undefined : body)
    }
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      reply(405, '{"error":"only GET is answered here"}')
      return
    }
    switch (request.url?.split('?', 1)[0]) {
      case '/healthz':
        reply(200, '{"status":"ok"}')
        return
      case '/readyz': {
        const { ready, reason, enforcement } = context.readiness()
        reply(ready ? 200 : 503, JSON.stringify({ ready, reason, enforcement }))
        return
      }
      case '/metrics':
        context.metrics().then(
          ({ text, type }) => reply(200, text, type),
          () => reply(500, '{"error":"metrics could not be collected"}'),
        )
        return
    }
    reply(404, '{"error":"try /healthz, /readyz or /metrics"}')
  })
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(options.port, options.host, () => {
      server.off('error', reject)
      resolve({
        port: (server.address() as AddressInfo).port,
        close: () =>
          new Promise((closed) => {
            server.close(() => closed())
            server.closeAllConnections()
          }),
      })
    })
  })
}
