/** One caller in every way there is to speak to a sidecar: each transport, in each era that it carries. */
import type { IncomingHttpHeaders } from 'node:http'
import { ask as askModern, modern as modernRequest } from './modern.ts'
import { until } from './sidecar.ts'
import { openSocket, openSse } from './streams.ts'
import { openSession, parseEvents, post, type RawResponse } from './wire.ts'

// biome-ignore lint/suspicious/noExplicitAny: tests look into messages of any shape
type Json = any

export const voiceNames = [
  'Streamable HTTP',
  'HTTP+SSE',
  'WebSocket',
  'modern HTTP',
  'modern WebSocket',
] as const
export type VoiceName = (typeof voiceNames)[number]

export interface Reply {
  /** Of the HTTP response that carried it; undefined where it came on a stream of its own. */
  readonly status: number | undefined
  readonly headers: IncomingHttpHeaders
  /** The JSON-RPC message as it was spelled. */
  readonly text: string
  readonly json: Json
}

export interface Voice {
  readonly name: VoiceName
  readonly era: 'legacy' | 'modern'
  /** Sends a request and waits for what comes back. @param headers where each request has some of its own */
  ask(method: string, params?: object, headers?: Record<string, string>): Promise<Reply>
}

export interface Spoken {
  readonly url: string
  readonly base: string
}

/** Connects in each of these ways; the sidecar needs `listen.webSocket` for those of WebSocket. */
export function openVoices(
  sidecar: Spoken,
  headers: Record<string, string>,
  names: readonly VoiceName[] = voiceNames,
): Promise<Voice[]> {
  return Promise.all(names.map((name) => voices[name](sidecar, headers)))
}

type Opening = (sidecar: Spoken, headers: Record<string, string>) => Promise<Voice>

const voices: Readonly<Record<VoiceName, Opening>> = {
  'Streamable HTTP': streamable,
  'HTTP+SSE': sse,
  WebSocket: (sidecar, headers) => socket(sidecar, headers, 'legacy'),
  'modern HTTP': (sidecar, headers) => Promise.resolve(modernHttp(sidecar, headers)),
  'modern WebSocket': (sidecar, headers) => socket(sidecar, headers, 'modern'),
}

/** What a voice said without what differs from one answer to the next: the ids of request and message. */
export function anonymous({ text, json }: Reply): string {
  const id = JSON.stringify(json.id)
  return text.replace(`"id":${id}`, '"id":ID').replace(json.error?.data?.requestId ?? /$^/, 'REQUEST')
}

let asked = 0
const nextId = (): string => `q${++asked}`

function legacyRequest(id: string, method: string, params: object | undefined) {
  return { jsonrpc: '2.0', id, method, ...(params === undefined ? {} : { params }) }
}

async function streamable({ url }: Spoken, headers: Record<string, string>): Promise<Voice> {
  const session = await openSession(url, { headers })
  return {
    name: 'Streamable HTTP',
    era: 'legacy',
    ask: async (method, params, more) =>
      replied(await post(url, legacyRequest(nextId(), method, params), { ...session, ...more })),
  }
}

function modernHttp({ url }: Spoken, headers: Record<string, string>): Voice {
  return {
    name: 'modern HTTP',
    era: 'modern',
    ask: async (method, params, more) =>
      replied(await askModern(url, modernRequest(nextId(), method, params), { ...headers, ...more })),
  }
}

function replied({ status, headers, body, messages }: RawResponse): Reply {
  if (headers['content-type'] !== 'text/event-stream')
    return { status, headers, text: body, json: messages[0] }
  const texts = parseEvents(body).flatMap(({ data }) => (data ? [data] : []))
  const text = texts.at(-1) ?? ''
  return { status, headers, text, json: messages.at(-1) }
}

async function sse({ base }: Spoken, headers: Record<string, string>): Promise<Voice> {
  const client = await openSse(base, { headers, version: '2024-11-05' })
  return {
    name: 'HTTP+SSE',
    era: 'legacy',
    ask: async (method, params, more) => {
      const id = nextId()
      const posted = await client.send(legacyRequest(id, method, params), more)
      if (posted.status !== 202) return replied(posted)
      return answerIn(() => client.events.flatMap(({ data }) => (data ? [data] : [])), id)
    },
  }
}

async function socket({ base }: Spoken, headers: Record<string, string>, era: Voice['era']): Promise<Voice> {
  const texts: string[] = []
  const version = era === 'legacy' ? { version: '2025-11-25' } : {}
  const client = await openSocket(base, { headers, ...version })
  client.socket.on('message', (data: Buffer) => texts.push(data.toString()))
  return {
    name: era === 'legacy' ? 'WebSocket' : 'modern WebSocket',
    era,
    ask: (method, params) => {
      const id = nextId()
      client.send(era === 'legacy' ? legacyRequest(id, method, params) : modernRequest(id, method, params))
      return answerIn(() => texts, id)
    },
  }
}

async function answerIn(texts: () => readonly string[], id: string): Promise<Reply> {
  const find = (): string | undefined =>
    texts().findLast((text) => text.includes(`"${id}"`) && !text.includes('"method":'))
  await until(() => find() !== undefined, `the answer to ${id}`, 10_000)
  const text = find() as string
  return { status: undefined, headers: {}, text, json: JSON.parse(text) }
}
