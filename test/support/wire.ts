/** A raw MCP client over node:http: every byte and header of a request is the test's own choice. */
import { Agent, type IncomingHttpHeaders, type IncomingMessage, request } from 'node:http'

export interface RawResponse {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: string
  /** The body as JSON, or undefined. */
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of any shape
  readonly json: any
  /** The messages in it, whether it was JSON or an event stream. */
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of any shape
  readonly messages: any[]
}

export interface SseEvent {
  readonly id?: string
  readonly event?: string
  readonly retry?: string
  readonly data?: string
}

const agent = new Agent({ keepAlive: false })
export const accept = 'application/json, text/event-stream'

export function open(
  url: string,
  method: string,
  headers: Record<string, string | string[]> = {},
  body?: string | Buffer,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const outgoing = request(url, { method, headers, agent }, resolve)
    outgoing.on('error', reject)
    outgoing.end(body)
  })
}

export async function send(
  url: string,
  method: string,
  headers: Record<string, string | string[]> = {},
  body?: string | Buffer,
): Promise<RawResponse> {
  return collect(await open(url, method, headers, body))
}

export async function collect(response: IncomingMessage): Promise<RawResponse> {
  const parts: Buffer[] = []
  for await (const part of response) parts.push(part as Buffer)
  const text = Buffer.concat(parts).toString()
  const isStream = response.headers['content-type'] === 'text/event-stream'
  const json = isStream ? undefined : parse(text)
  const events = isStream ? parseEvents(text) : []
  const messages = isStream ? messagesOf(events) : json === undefined ? [] : [json].flat()
  return { status: response.statusCode ?? 0, headers: response.headers, body: text, json, messages }
}

/** Posts one message (or any text) to an endpoint with the usual headers; `headers` win. */
export function post(
  url: string,
  message: unknown,
  headers: Record<string, string | string[]> = {},
): Promise<RawResponse> {
  const body = typeof message === 'string' || Buffer.isBuffer(message) ? message : JSON.stringify(message)
  return send(url, 'POST', { 'Content-Type': 'application/json', Accept: accept, ...headers }, body)
}

export const initialize = (version = '2025-11-25', capabilities: object = {}, id: string | number = 0) => ({
  jsonrpc: '2.0',
  id,
  method: 'initialize',
  params: { protocolVersion: version, capabilities, clientInfo: { name: 'test', version: '1' } },
})

export const call = (id: string | number, name: string, args: object = {}, meta?: object) => ({
  jsonrpc: '2.0',
  id,
  method: 'tools/call',
  params: { name, arguments: args, ...(meta === undefined ? {} : { _meta: meta }) },
})

/**
 * A call that the scripted server leaves open until it is {@link released}, whatever time that takes. Callers of one server
 * process who may choose the same id give it different names.
 */
export const held = (id: string | number, name = String(id)) => call(id, 'script', { call: name, steps: [] })

/** What has the server answer the call of that name. */
export const released = (name: string | number) => ({
  jsonrpc: '2.0',
  method: 'notifications/step',
  params: { call: String(name) },
})

/** A Streamable HTTP session: its headers, for further requests. */
export async function openSession(
  url: string,
  options: { version?: string; capabilities?: object; headers?: Record<string, string> } = {},
): Promise<Record<string, string>> {
  const { version = '2025-11-25', capabilities = {}, headers = {} } = options
  const answer = await post(url, initialize(version, capabilities), headers)
  const id = answer.headers['mcp-session-id']
  if (typeof id !== 'string') throw new Error(`no session: ${answer.status} ${answer.body}`)
  const session = { ...headers, 'Mcp-Session-Id': id, 'MCP-Protocol-Version': version }
  await post(url, { jsonrpc: '2.0', method: 'notifications/initialized' }, session)
  return session
}

export function parseEvents(text: string): SseEvent[] {
  return text
    .split('\n\n')
    .filter((block) => block.trim() !== '' && !block.startsWith(':'))
    .map(
      (block) =>
        Object.fromEntries(block.split('\n').map((line) => line.split(/: ?(.*)/s).slice(0, 2))) as SseEvent,
    )
}

/** An open event stream; `events` and `messages` grow as they arrive. */
export interface Following {
  readonly response: IncomingMessage
  readonly events: SseEvent[]
  // biome-ignore lint/suspicious/noExplicitAny: tests look into messages of any shape
  readonly messages: any[]
  /** Everything received, comments included. */
  readonly text: () => string
  readonly isClosed: () => boolean
  readonly closed: Promise<void>
  /** Goes away without a word. */
  readonly cut: () => void
}

/** Reads an open event stream until closed. */
export function follow(response: IncomingMessage): Following {
  const events: SseEvent[] = []
  const messages: unknown[] = []
  let text = ''
  /** Of an event that is not complete yet; a large one comes in many parts, of which none is looked at twice. */
  let rest: string[] = []
  let last = ''
  let isClosed = false
  response.setEncoding('utf8')
  response.on('data', (part: string) => {
    text += part
    const end = `${last}${part}`.lastIndexOf('\n\n')
    const complete = end < 0 ? 0 : end + 2 - last.length
    if (complete > 0) {
      const come = parseEvents([...rest, part.slice(0, complete)].join(''))
      events.push(...come)
      messages.push(...messagesOf(come))
      rest = []
    }
    rest.push(part.slice(complete))
    last = part.slice(complete).slice(-1)
  })
  const closed = new Promise<void>((resolve) => {
    response.once('close', () => {
      isClosed = true
      resolve()
    })
  })
  response.on('error', () => {})
  return {
    response,
    events,
    get messages() {
      return [...messages]
    },
    text: () => text,
    isClosed: () => isClosed,
    closed,
    cut: () => response.destroy(),
  }
}

function messagesOf(events: readonly SseEvent[]): unknown[] {
  return events.flatMap(({ data, event }) =>
    data !== undefined && data !== '' && event !== 'endpoint' ? [parse(data)] : [],
  )
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
