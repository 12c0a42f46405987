/** One plain HTTP request through the proxy. Its upstream connection serves nothing else. */
import { type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http'
import type { Child } from './child.ts'
import { type ClientConnection, type Front, written } from './connection.ts'
import type { Refusal } from './connector.ts'
import { bodyBytes } from './http-body.ts'
import { HeadError, type Header, type RequestHead, valuesOf } from './http-head.ts'
import { absoluteTarget, type HttpTarget } from './target.ts'

/** RFC 9110 section 7.6.1, and what is between client and proxy alone. */
const hopByHop = new Set([
  ...['connection', 'keep-alive', 'proxy-connection', 'proxy-authorization', 'proxy-authenticate'],
  ...['proxy-authentication-info', 'te', 'trailer', 'transfer-encoding', 'upgrade', 'mcp-sidecar-broker'],
])
const bodiless = new Set(['GET', 'HEAD', 'DELETE', 'OPTIONS', 'TRACE'])

/**
 * Passes a request on, and its response back.
 *
 * @returns true when another request may follow, false when the connection has ended or must, or what to answer
 * @throws HeadError, TargetError before anything was answered
 */
export async function forward(
  connection: ClientConnection,
  head: RequestHead,
  child: Child,
  front: Front,
): Promise<boolean | Refusal> {
  const { socket, gone } = connection
  const target = absoluteTarget(head.target)
  const expected = valuesOf(head.headers, 'expect')
  if (expected.length > 1 || (expected[0] ?? '100-continue').toLowerCase() !== '100-continue')
    throw new HeadError(417, 'nothing but 100-continue can be expected')
  const startedAt = front.clock.now()
  const decision = await front.connector.decide(child, target, gone)
  const opened = await front.connector.open(child, 'http', decision, startedAt, gone)
  if (opened.refusal !== undefined) return opened.refusal
  front.connector.connected(child, 'http', decision, opened.address)

  const upstream = opened.socket
  const request = httpRequest({
    createConnection: () => upstream,
    method: head.method,
    path: head.method === 'OPTIONS' && target.path === '/' && !head.target.endsWith('/') ? '*' : target.path,
    headers: requestHeaders(head, target).flat(),
  })
  upstream.resume()
  const close = (): void => void upstream.destroy()
  socket.once('close', close)
  try {
    return await exchange(connection, head, request)
  } finally {
    socket.off('close', close)
    const { bytesWritten: sent, bytesRead: received } = upstream
    upstream.destroy()
    front.ended({ child: child.name, host: decision.host, port: target.port, sent, received })
  }
}

async function exchange(
  connection: ClientConnection,
  head: RequestHead,
  request: ClientRequest,
): Promise<boolean | Refusal> {
  const { socket } = connection
  // One, for whoever waits for it: an upstream can send them without end, and they would pile up for a client that does not read.
  if (head.minor === 1 && valuesOf(head.headers, 'expect').length > 0)
    request.once('continue', () => void socket.write('HTTP/1.1 100 Continue\r\n\r\n'))
  const answered = new Promise<IncomingMessage | undefined>((resolve) => {
    request.on('response', resolve)
    // Also after an answer, when nobody waits for it any more.
    request.on('error', () => resolve(undefined))
    request.on('close', () => resolve(undefined))
  })
  let fault: unknown
  let sentAll = false
  const sending = send(connection, head, request).then(
    () => {
      sentAll = true
    },
    (cause: unknown) => {
      fault = cause
      request.destroy()
    },
  )
  const response = await answered
  if (response === undefined) {
    if (fault !== undefined) throw fault
    return 'unreachable'
  }
  const whole = await passBack(connection, head, response).catch(() => false)
  if (!whole) {
    // What was cut off must not look complete.
    socket.resetAndDestroy()
    return false
  }
  if (sentAll) await sending
  const goOn = sentAll && fault === undefined && wantsMore(head)
  if (!goOn) socket.end()
  return goOn
}

/** @throws HeadError, EndedEarly */
async function send(
  { reader, touch }: ClientConnection,
  head: RequestHead,
  request: ClientRequest,
): Promise<void> {
  for await (const part of bodyBytes(reader, head.body)) {
    touch()
    if (request.destroyed) return
    if (!request.write(part)) await drained(request)
  }
  request.end()
}

function drained(request: ClientRequest): Promise<void> {
  return new Promise((resolve) => {
    const settle = (): void => {
      request.off('drain', settle)
      request.off('close', settle)
      resolve()
    }
    request.on('drain', settle)
    request.on('close', settle)
  })
}

function requestHeaders(head: RequestHead, target: HttpTarget): Header[] {
  const passed = endToEnd(head.headers).filter(
    ([name]) => !['host', 'content-length', 'via'].includes(name.toLowerCase()),
  )
  const via = [...valuesOf(head.headers, 'via'), `1.${head.minor} mcp-sidecar`].join(', ')
  const length = head.body === 'none' && !bodiless.has(head.method) ? 0 : head.body
  const framing: Header[] =
    length === 'none'
      ? []
      : length === 'chunked'
        ? [['Transfer-Encoding', 'chunked']]
        : [['Content-Length', String(length)]]
  return [['Host', target.authority], ...passed, ...framing, ['Via', via], ['Connection', 'close']]
}

/** Without those that are for the next hop alone. */
function endToEnd(headers: readonly Header[]): Header[] {
  const named = valuesOf(headers, 'connection').flatMap((value) => value.toLowerCase().split(','))
  const dropped = new Set([...hopByHop, ...named.map((name) => name.trim())])
  return headers.filter(([name]) => !dropped.has(name.toLowerCase()))
}

/** @returns false when the response was cut off */
async function passBack(
  connection: ClientConnection,
  head: RequestHead,
  response: IncomingMessage,
): Promise<boolean> {
  const { socket, touch } = connection
  const { statusCode: status = 502, statusMessage = '' } = response
  // Whoever reads it hears of it; once nobody does, nobody needs to.
  response.on('error', () => {})
  const pairs: Header[] = []
  for (let i = 0; i + 1 < response.rawHeaders.length; i += 2) {
    pairs.push([response.rawHeaders[i] as string, response.rawHeaders[i + 1] as string])
  }
  const noBody = head.method === 'HEAD' || status === 204 || status === 304
  const lengths = valuesOf(pairs, 'content-length')
  const chunked = !noBody && lengths.length !== 1 && head.minor === 1
  const passed = endToEnd(pairs).filter(([name]) => name.toLowerCase() !== 'content-length')
  // The framing is ours to say, whatever a Connection header names: without it, the next response would be read as this one.
  const framing: Header[] = chunked
    ? [['Transfer-Encoding', 'chunked']]
    : lengths.map((length) => ['Content-Length', length])
  const lines = [
    `HTTP/1.1 ${status} ${statusMessage.replace(/[^\t -~]/g, '?')}`,
    ...[...passed, ...framing].map(([name, value]) => `${name}: ${value}`),
    // Without a length, the end of the connection is that of the body.
    `Connection: ${wantsMore(head) ? 'keep-alive' : 'close'}`,
  ]
  await written(socket, Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'))
  for await (const part of response as AsyncIterable<Buffer>) {
    touch()
    if (chunked) socket.write(`${part.length.toString(16)}\r\n`)
    await written(socket, part)
    if (chunked) socket.write('\r\n')
  }
  if (!response.complete) return false
  if (chunked) await written(socket, '0\r\n\r\n')
  return true
}

function wantsMore({ minor, headers }: RequestHead): boolean {
  const words = [...valuesOf(headers, 'connection'), ...valuesOf(headers, 'proxy-connection')]
    .join(',')
    .toLowerCase()
  return minor === 1 && !words.split(',').some((word) => word.trim() === 'close')
}
