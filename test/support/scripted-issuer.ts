/** A server on 127.0.0.1 that answers as a test says: well, late, too much, with a redirect, not at all. */
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import type { Fetching } from '../../src/core/policy.ts'

type Answer = (response: ServerResponse, request: IncomingMessage) => void

export interface ScriptedIssuer {
  readonly url: string
  readonly port: number
  /** For the methods under test: this server may be asked. */
  readonly fetching: Fetching
  /** By path; `*` for all others. 404 where there is none. */
  readonly answers: Record<string, Answer>
  /** `METHOD path` of every request so far. */
  readonly asked: string[]
}

export const json =
  (value: unknown, status = 200): Answer =>
  (response) => {
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value))
  }
export const html: Answer = (response) => {
  response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><title>Sign in</title>')
}
export const redirect =
  (location: string): Answer =>
  (response) =>
    void response.writeHead(302, { location }).end()
export const silence: Answer = () => {}
export const cut: Answer = (response) => void response.destroy()

/** Listening when it resolves, gone when the test ends. */
export async function scriptedIssuer(
  t: Test,
  tls?: { readonly key: string; readonly cert: string },
): Promise<ScriptedIssuer> {
  const answers: Record<string, Answer> = {}
  const asked: string[] = []
  const listener: RequestListener = (request, response) => {
    const path = (request.url ?? '').split('?', 1)[0] ?? ''
    asked.push(`${request.method} ${path}`)
    const answer = answers[path] ?? answers['*'] ?? json({}, 404)
    answer(response, request)
  }
  const server = tls === undefined ? createServer(listener) : createTlsServer({ ...tls }, listener)
  // A handshake that fails is what some tests are about.
  server.on('tlsClientError', () => {})
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    return new Promise((resolve) => server.close(resolve))
  })
  const { port } = server.address() as AddressInfo
  return {
    url: `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${port}`,
    port,
    fetching: { caFile: undefined, timeoutMs: 5000, allowPrivate: true, allowHttp: tls === undefined },
    answers,
    asked,
  }
}
