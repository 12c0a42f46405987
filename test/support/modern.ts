/** A bare client of revision 2026-07-28: complete envelopes and headers, each part of which is the test's own choice. */
import { type IncomingMessage, request } from 'node:http'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import { accept, collect, type Following, follow, open, post, type RawResponse } from './wire.ts'

// biome-ignore lint/suspicious/noExplicitAny: tests look into messages of any shape
export type Json = any
export type Headers = Record<string, string | string[]>
export type Id = string | number

export const revision = '2026-07-28'
export const key = (name: string): string => `io.modelcontextprotocol/${name}`

/** A client that can be asked anything. */
export const everything = {
  roots: {},
  sampling: { tools: {}, context: {} },
  elicitation: { form: {}, url: {} },
}

/** The command of a server of test/fixtures, or of any other path; without the hooks of the test runner. */
export const serverCommand = (file: string, ...args: string[]): readonly string[] => [
  ...['/usr/bin/env', '-u', 'NODE_OPTIONS', process.execPath],
  fileURLToPath(new URL(file.includes('/') ? file : `../fixtures/${file}`, import.meta.url)),
  ...args,
]

export interface Envelope {
  readonly capabilities?: object
  readonly level?: string
  readonly token?: Id
  /** Further members of `_meta`. */
  readonly meta?: object
}

export interface Request {
  readonly jsonrpc: '2.0'
  readonly id: Id
  readonly method: string
  readonly params: Json
}

export function envelope({
  capabilities = {},
  level,
  token,
  meta = {},
}: Envelope = {}): Record<string, unknown> {
  return {
    [key('protocolVersion')]: revision,
    [key('clientInfo')]: { name: 'modern-test', version: '1' },
    [key('clientCapabilities')]: capabilities,
    ...(level === undefined ? {} : { [key('logLevel')]: level }),
    ...(token === undefined ? {} : { progressToken: token }),
    ...meta,
  }
}

export function modern(id: Id, method: string, params: object = {}, options: Envelope = {}): Request {
  return { jsonrpc: '2.0', id, method, params: { ...params, _meta: envelope(options) } }
}

export function tool(id: Id, name: string, args: object = {}, options: Envelope = {}): Request {
  return modern(id, 'tools/call', { name, arguments: args }, options)
}

/** The same request once more, with answers. */
export function retry(
  first: Request,
  id: Id,
  inputResponses: object | undefined,
  requestState?: unknown,
): Request {
  const answers = inputResponses === undefined ? {} : { inputResponses }
  const state = requestState === undefined ? {} : { requestState }
  return { ...first, id, params: { ...first.params, ...answers, ...state } }
}

export const sentinel = (text: string): string => `=?base64?${Buffer.from(text).toString('base64')}?=`

/** A header value for a text, encoded only where it has to be. */
export function headerOf(text: string): string {
  const isPlain = /^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/.test(text) && !/^=\?base64\?.*\?=$/.test(text)
  return isPlain ? text : sentinel(text)
}

const named: Readonly<Record<string, string>> = {
  'tools/call': 'name',
  'prompts/get': 'name',
  'resources/read': 'uri',
  'tasks/get': 'taskId',
  'tasks/update': 'taskId',
  'tasks/cancel': 'taskId',
}

/** The headers that repeat a request. */
export function headersOf({ method, params }: Pick<Request, 'method' | 'params'>): Record<string, string> {
  const name = params[named[method] ?? '']
  return {
    'MCP-Protocol-Version': params._meta?.[key('protocolVersion')] ?? revision,
    'Mcp-Method': method,
    ...(typeof name === 'string' ? { 'Mcp-Name': headerOf(name) } : {}),
  }
}

const patienceMs = 30_000

/** Fails where nothing comes, with the request, rather than to wait until the runner gives up. */
function soon<T>(coming: Promise<T>, message: unknown): Promise<T> {
  return new Promise((resolve, reject) => {
    const text = typeof message === 'string' ? message : JSON.stringify(message)
    const giveUp = (): void => reject(new Error(`waited in vain for the answer to ${text}`))
    const timer = setTimeout(giveUp, patienceMs)
    coming.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}

/** Sends a request and collects its answer; `headers` win, those that are empty are left out. */
export function ask(url: string, message: Request, headers: Headers = {}): Promise<RawResponse> {
  return soon(post(url, message, merged(headersOf(message), headers)), message)
}

/** The same with a body of the test's own spelling. */
export function askText(url: string, body: string, headers: Headers = {}): Promise<RawResponse> {
  return soon(post(url, body, merged(headersOf(JSON.parse(body)), headers)), body)
}

function merged(own: Record<string, string>, headers: Headers): Headers {
  return Object.fromEntries(Object.entries({ ...own, ...headers }).filter(([, value]) => value !== ''))
}

/** Sends a request whose answer is a stream, and follows it. */
export async function streamed(url: string, message: Request, headers: Headers = {}): Promise<Following> {
  const all = { 'Content-Type': 'application/json', Accept: accept, ...headersOf(message), ...headers }
  const response = await soon(open(url, 'POST', all, JSON.stringify(message)), message)
  if (response.headers['content-type'] !== 'text/event-stream') {
    throw new Error(`no stream: ${JSON.stringify(await collect(response))}`)
  }
  return follow(response)
}

export const listenTo = (id: Id, notifications: object): Request =>
  modern(id, 'subscriptions/listen', { notifications })

/** A request under way, which can be left at any time, before its answer has begun too. */
export interface Begun {
  readonly answer: Promise<RawResponse | undefined>
  leave(): void
}

export function begin(url: string, message: Request, headers: Headers = {}): Begun {
  const all = { 'Content-Type': 'application/json', Accept: accept, ...headersOf(message), ...headers }
  let left = false
  const outgoing = request(url, { method: 'POST', headers: all, agent: false })
  const answer = new Promise<RawResponse | undefined>((resolve, reject) => {
    outgoing.on('response', (response: IncomingMessage) => {
      collect(response).then(resolve, (error: unknown) => (left ? resolve(undefined) : reject(error)))
    })
    outgoing.on('error', (error) => (left ? resolve(undefined) : reject(error)))
  })
  outgoing.end(JSON.stringify(message))
  return {
    answer,
    leave: () => {
      left = true
      outgoing.destroy()
    },
  }
}

/** What a tool said, parsed where it is JSON. */
export function said(message: Json): Json {
  const text = message?.result?.content?.[0]?.text
  if (typeof text !== 'string') throw new Error(`no text in ${JSON.stringify(message)}`)
  return /^[[{]/.test(text) ? JSON.parse(text) : text
}

/** Calls a tool that is known to answer with JSON, and reads what it says. */
export async function toolSays(
  url: string,
  name: string,
  args: object = {},
  headers: Headers = {},
): Promise<Json> {
  const { json, body } = await ask(url, tool(`says ${name}`, name, args), headers)
  if (json === undefined) throw new Error(`no JSON: ${body}`)
  return said(json)
}

/** The answer is this refusal of the sidecar; with an id that of the request, else with none. */
export function refusedWith(
  t: Test,
  { status, json, body }: RawResponse,
  wanted: readonly [status: number, rpc: number, reason: string],
  id?: Id,
): Json {
  const { code, data } = json?.error ?? {}
  t.same(
    [status, code, data?.reason, data?.source],
    [...wanted, 'mcp-sidecar'],
    `${wanted}: ${body.slice(0, 200)}`,
  )
  t.equal(json?.id, id, 'the id of the request')
  return data
}
