/** SDK clients behind one interface: version 1 and 2 of the SDK, over every transport, for the same scenarios. */
import {
  Client as ClientV2,
  SSEClientTransport as SseV2,
  StreamableHTTPClientTransport as StreamableV2,
} from '@modelcontextprotocol/client'
import { StdioClientTransport as StdioV2 } from '@modelcontextprotocol/client/stdio'
import { Client as ClientV1 } from '@modelcontextprotocol/sdk/client/index.js'
import { SSEClientTransport as SseV1 } from '@modelcontextprotocol/sdk/client/sse.js'
import {
  getDefaultEnvironment,
  StdioClientTransport as StdioV1,
} from '@modelcontextprotocol/sdk/client/stdio.js'
import { StreamableHTTPClientTransport as StreamableV1 } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { WebSocketClientTransport as WebSocketV1 } from '@modelcontextprotocol/sdk/client/websocket.js'
import { InMemoryTaskStore } from '@modelcontextprotocol/sdk/experimental/tasks'
import type { Transport as TransportV1 } from '@modelcontextprotocol/sdk/shared/transport.js'
import {
  CallToolResultSchema,
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ListRootsRequestSchema,
  type LoggingLevel,
} from '@modelcontextprotocol/sdk/types.js'
import { WebSocket } from 'ws'
import { z } from 'zod'
import { WebSocketTransport } from './web-socket-transport.ts'

// Node 20 has no WebSocket of its own; the transport of the SDK looks for a global one.
if (!('WebSocket' in globalThis)) Object.assign(globalThis, { WebSocket })

export { getDefaultEnvironment }

// biome-ignore lint/suspicious/noExplicitAny: tests look into messages of any shape
export type Json = any

export interface Route {
  readonly sdk: 'v1' | 'v2'
  readonly over: 'stdio' | 'Streamable HTTP' | 'HTTP+SSE' | 'WebSocket'
  /** SDK v2 only: find out the era with a modern request first. */
  readonly auto?: true
  /** SDK v2 only: the modern era and no other. */
  readonly pinned?: true
  /** The one that initialize proposes; default: the newest of the SDK. */
  readonly version?: string
}

/** A server started here, or one behind a sidecar. */
export interface Target {
  readonly command: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  /** Of the sidecar, without a path. */
  readonly base?: string
}

export function nameOf({ sdk, over, auto, pinned, version }: Route): string {
  const how = auto ? ' with era negotiation' : pinned ? ' in the modern era' : ''
  return `SDK ${sdk} over ${over}${how}${version === undefined ? '' : ` with version ${version}`}`
}

export interface CallOptions {
  readonly token?: string | number
  readonly signal?: AbortSignal
  readonly onprogress?: (progress: { readonly progress: number }) => void
  /** In the modern era: which log messages of this call are wanted. */
  readonly logLevel?: LoggingLevel
}

export interface HttpExchange {
  readonly method: string
  readonly sent: Json
  readonly status: number
  readonly contentType: string | null
  readonly body: string
}

/** What a client of these tests can do for its server. */
export interface Abilities {
  readonly roots?: boolean
  /** Carries out sampling and elicitation as tasks of its own (SDK v1). */
  readonly tasks?: boolean
  readonly sampling?: boolean
  /** The modes of elicitation; default: both. */
  readonly elicits?: readonly ('form' | 'url')[]
}

/** Every message as it passed the transport, and a way to wait for one. */
export class Wiretap {
  readonly received: Json[] = []
  readonly sent: Json[] = []
  readonly #waiting = new Set<() => void>()

  took(message: unknown): void {
    this.received.push(message)
    for (const wake of [...this.#waiting]) wake()
  }

  /** Requests and notifications of the server. */
  get fromServer(): Json[] {
    return this.received.filter(({ method }) => method !== undefined)
  }

  /** Waits until the server has sent `count` messages of this kind since the connection began. */
  async until(what: string, check: (message: Json) => boolean, count = 1, ms = 20_000): Promise<void> {
    const enough = (): boolean => this.fromServer.filter(check).length >= count
    if (enough()) return
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(look)
        reject(new Error(`waited ${ms} ms in vain: ${what}`))
      }, ms)
      const look = (): void => {
        if (!enough()) return
        clearTimeout(timer)
        this.#waiting.delete(look)
        resolve()
      }
      this.#waiting.add(look)
    })
  }
}

interface Tappable {
  onmessage?: ((message: never, extra?: never) => void) | undefined
  send(message: never, options?: never): Promise<void>
}

function tap(transport: Tappable, wire: Wiretap): void {
  transport.onmessage = (message: unknown) => wire.took(message)
  const send = transport.send.bind(transport) as (...args: unknown[]) => Promise<void>
  transport.send = (message: unknown, options?: unknown) => {
    wire.sent.push(message)
    return send(message, options)
  }
}

/** SDK v1 always proposes its newest version, but goes on with an older one. */
function propose(transport: Tappable, version: string): void {
  const send = transport.send.bind(transport) as (...args: unknown[]) => Promise<void>
  transport.send = (message: Json, options?: unknown) => {
    if (message.method !== 'initialize') return send(message, options)
    return send({ ...message, params: { ...message.params, protocolVersion: version } }, options)
  }
}

export interface Peer {
  readonly wire: Wiretap
  /** What the client reported as an error of the connection. */
  readonly errors: string[]
  /** Requests over HTTP and their answers; of an event stream the body is left out. */
  readonly http: HttpExchange[]
  readonly user: User
  /** What the server said about itself. */
  readonly server: { readonly info: Json; readonly capabilities: Json; readonly instructions: Json }
  /** `modern` or `legacy`; SDK v2 only. */
  readonly era: string | undefined
  listTools(): Promise<{ tools: { name: string }[] }>
  listPrompts(): Promise<{ prompts: { name: string }[] }>
  listResources(): Promise<{ resources: { uri: string }[] }>
  listResourceTemplates(): Promise<Json>
  readResource(uri: string): Promise<Json>
  getPrompt(name: string, args?: Record<string, string>): Promise<Json>
  complete(params: Json): Promise<Json>
  setLevel(level: LoggingLevel): Promise<Json>
  subscribe(uri: string): Promise<Json>
  unsubscribe(uri: string): Promise<Json>
  /** In the modern era: opens a stream of notifications. */
  listen(filter: object): Promise<{ honoredFilter: Json; closed: Promise<string>; close(): Promise<void> }>
  ping(): Promise<Json>
  call(name: string, args?: object, options?: CallOptions): Promise<Json>
  /** A request of a method that the specification does not know, or not with these params. */
  request(method: string, params?: object): Promise<Json>
  rootsChanged(): Promise<void>
  startTask(name: string, args: object): Promise<{ taskId: string }>
  /** Calls a tool as a task and follows it to its result: the messages on the way. */
  followTask(name: string, args: object): Promise<Json[]>
  getTask(taskId: string): Promise<Json>
  taskResult(taskId: string): Promise<Json>
  listTasks(): Promise<{ tasks: Json[] }>
  cancelTask(taskId: string): Promise<Json>
  close(): Promise<void>
}

type ElicitAnswer = {
  action: 'accept' | 'decline' | 'cancel'
  content?: Record<string, string | number | boolean | string[]>
}

/** The person and the model on the client's side. */
export class User {
  roots: { uri: string; name?: string }[] = [{ uri: 'file:///somewhere/project', name: 'project' }]
  /** Answers to come; when none is left, the answer is `cancel`. */
  readonly answers: ElicitAnswer[] = []
  refusesSampling = false
  /** What was asked, in order. */
  readonly asked: { method: string; params: Json }[] = []

  elicit(params: Json): ElicitAnswer {
    this.asked.push({ method: 'elicitation/create', params })
    return this.answers.shift() ?? { action: 'cancel' }
  }

  listRoots() {
    this.asked.push({ method: 'roots/list', params: undefined })
    return { roots: this.roots }
  }

  sample(params: Json) {
    this.asked.push({ method: 'sampling/createMessage', params })
    if (this.refusesSampling) throw Object.assign(new Error('The user refused'), { code: -1 })
    const { text } = params.messages[0].content
    return {
      model: 'test-model',
      role: 'assistant' as const,
      stopReason: 'endTurn',
      content: { type: 'text' as const, text: `You said: ${text} 🙂` },
    }
  }
}

const modernVersion = '2026-07-28'
const clientInfo = { name: 'real-servers-test', version: '1.0.0' }

function capabilitiesOf({
  roots = true,
  tasks = false,
  sampling = true,
  elicits = ['form', 'url'],
}: Abilities) {
  const modes = {
    ...(elicits.includes('form') ? { form: { applyDefaults: true } } : {}),
    ...(elicits.includes('url') ? { url: {} } : {}),
  }
  return {
    ...(sampling ? { sampling: {} } : {}),
    ...(elicits.length > 0 ? { elicitation: modes } : {}),
    ...(roots ? { roots: { listChanged: true } } : {}),
    ...(tasks
      ? {
          tasks: {
            list: {},
            cancel: {},
            requests: { sampling: { createMessage: {} }, elicitation: { create: {} } },
          },
        }
      : {}),
  }
}

export async function connect(route: Route, target: Target, abilities: Abilities = {}): Promise<Peer> {
  return route.sdk === 'v1' ? connectV1(route, target, abilities) : connectV2(route, target, abilities)
}

/** Connects, plays the scenario and closes, whatever happens. */
export async function play<T>(
  route: Route,
  target: Target,
  scenario: (peer: Peer) => Promise<T>,
  abilities: Abilities = {},
): Promise<T> {
  const peer = await connect(route, target, abilities)
  try {
    return await scenario(peer)
  } finally {
    await peer.close()
  }
}

function recordingFetch(http: HttpExchange[]): typeof fetch {
  return async (input, init) => {
    const response = await fetch(input, init)
    const contentType = response.headers.get('content-type')
    const body = contentType === 'text/event-stream' ? '' : await response.clone().text()
    const sent = typeof init?.body === 'string' ? JSON.parse(init.body) : undefined
    http.push({ method: init?.method ?? 'GET', sent, status: response.status, contentType, body })
    return response
  }
}

function stdioParams({ command: [command = '', ...args], env }: Target) {
  return { command, args, stderr: 'ignore' as const, ...(env === undefined ? {} : { env: { ...env } }) }
}

async function connectV1(route: Route, target: Target, abilities: Abilities): Promise<Peer> {
  const http: HttpExchange[] = []
  const transport = (): StdioV1 | StreamableV1 | SseV1 | WebSocketV1 => {
    const { base = '' } = target
    switch (route.over) {
      case 'stdio':
        return new StdioV1(stdioParams(target))
      case 'Streamable HTTP':
        return new StreamableV1(new URL('/mcp', base), { fetch: recordingFetch(http) })
      case 'HTTP+SSE':
        return new SseV1(new URL('/sse', base))
      case 'WebSocket':
        return new WebSocketV1(new URL('/ws', base.replace(/^http/, 'ws')))
    }
  }
  const connection = transport()
  const store = new InMemoryTaskStore()
  const client = new ClientV1(clientInfo, {
    capabilities: capabilitiesOf(abilities),
    ...(abilities.tasks === true ? { taskStore: store } : {}),
  })
  const user = new User()
  const wire = new Wiretap()
  const errors: string[] = []
  tap(connection as Tappable, wire)
  if (route.version !== undefined) propose(connection as Tappable, route.version)
  client.onerror = (error) => errors.push(error.message)

  type Extra = Parameters<Parameters<typeof client.setRequestHandler>[1]>[1]
  const asTask = async (extra: Extra, answer: () => object) => {
    const { taskStore } = extra
    if (taskStore === undefined) throw new Error('a task was asked for, but this client has no tasks')
    const task = await taskStore.createTask({ ttl: extra.taskRequestedTtl ?? null })
    setImmediate(() => void taskStore.storeTaskResult(task.taskId, 'completed', { ...answer() }))
    return { task }
  }
  const { elicitation, sampling } = capabilitiesOf(abilities)
  if (sampling !== undefined) {
    client.setRequestHandler(CreateMessageRequestSchema, ({ params }, extra) =>
      params.task === undefined ? user.sample(params) : asTask(extra, () => user.sample(params)),
    )
  }
  if (elicitation !== undefined) {
    client.setRequestHandler(ElicitRequestSchema, ({ params }, extra) =>
      params.task === undefined ? user.elicit(params) : asTask(extra, () => user.elicit(params)),
    )
  }
  if (abilities.roots !== false) client.setRequestHandler(ListRootsRequestSchema, () => user.listRoots())

  await client.connect(connection as TransportV1)
  const tasks = client.experimental.tasks
  const anything = z.looseObject({})
  return {
    wire,
    errors,
    http,
    user,
    server: {
      info: client.getServerVersion(),
      capabilities: client.getServerCapabilities(),
      instructions: client.getInstructions(),
    },
    era: undefined,
    listTools: () => client.listTools(),
    listPrompts: () => client.listPrompts(),
    listResources: () => client.listResources(),
    listResourceTemplates: () => client.listResourceTemplates(),
    readResource: (uri) => client.readResource({ uri }),
    getPrompt: (name, args) => client.getPrompt({ name, ...(args === undefined ? {} : { arguments: args }) }),
    complete: (params) => client.complete(params),
    setLevel: (level) => client.setLoggingLevel(level),
    subscribe: (uri) => client.subscribeResource({ uri }),
    unsubscribe: (uri) => client.unsubscribeResource({ uri }),
    listen: () => Promise.reject(new Error('SDK v1 knows no modern era')),
    ping: () => client.ping(),
    call: (name, args = {}, { token, signal, onprogress } = {}) =>
      client.callTool(
        {
          name,
          arguments: { ...args },
          ...(token === undefined ? {} : { _meta: { progressToken: token } }),
        },
        undefined,
        { ...(signal === undefined ? {} : { signal }), ...(onprogress === undefined ? {} : { onprogress }) },
      ),
    request: (method, params) =>
      client.request({ method, ...(params === undefined ? {} : { params }) } as never, anything),
    rootsChanged: () => client.sendRootsListChanged(),
    startTask: async (name, args) => {
      const stream = tasks.callToolStream({ name, arguments: { ...args } }, CallToolResultSchema, {
        task: {},
      })
      for await (const message of stream) {
        if (message.type === 'taskCreated') return message.task
        throw message.type === 'error' ? message.error : new Error(`no task but ${message.type}`)
      }
      throw new Error('no task')
    },
    followTask: async (name, args) => {
      const messages: Json[] = []
      const stream = tasks.callToolStream({ name, arguments: { ...args } }, CallToolResultSchema, {
        task: {},
      })
      for await (const message of stream) messages.push(message)
      return messages
    },
    getTask: (taskId) => tasks.getTask(taskId),
    taskResult: (taskId) => tasks.getTaskResult(taskId, CallToolResultSchema),
    listTasks: () => tasks.listTasks(),
    cancelTask: (taskId) => tasks.cancelTask(taskId),
    close: async () => {
      client.onerror = () => {}
      if (connection instanceof StreamableV1) await connection.terminateSession()
      await client.close()
      store.cleanup()
    },
  }
}

const metaOf = (token: CallOptions['token'], level: CallOptions['logLevel']) => ({
  ...(token === undefined ? {} : { progressToken: token }),
  ...(level === undefined ? {} : { 'io.modelcontextprotocol/logLevel': level }),
})

const taskSchema = z.looseObject({ taskId: z.string(), status: z.string() })

async function connectV2(route: Route, target: Target, abilities: Abilities): Promise<Peer> {
  const http: HttpExchange[] = []
  const transport = (): StdioV2 | StreamableV2 | SseV2 | WebSocketTransport => {
    const { base = '' } = target
    switch (route.over) {
      case 'stdio':
        return new StdioV2(stdioParams(target))
      case 'Streamable HTTP':
        return new StreamableV2(new URL('/mcp', base), { fetch: recordingFetch(http) })
      case 'HTTP+SSE':
        return new SseV2(new URL('/sse', base))
      case 'WebSocket':
        return new WebSocketTransport(new URL('/ws', base.replace(/^http/, 'ws')))
    }
  }
  const connection = transport()
  const { tasks: _, ...capabilities } = capabilitiesOf({ ...abilities, tasks: false }) as Json
  const client = new ClientV2(clientInfo, {
    capabilities,
    ...(route.auto === undefined ? {} : { versionNegotiation: { mode: 'auto' } }),
    ...(route.pinned === undefined ? {} : { versionNegotiation: { mode: { pin: modernVersion } } }),
    ...(route.version === undefined ? {} : { supportedProtocolVersions: [route.version] }),
  })
  const user = new User()
  const wire = new Wiretap()
  const errors: string[] = []
  tap(connection as Tappable, wire)
  client.onerror = (error) => errors.push(error.message)
  if (capabilities.sampling !== undefined) {
    client.setRequestHandler('sampling/createMessage', ({ params }) => user.sample(params))
  }
  if (capabilities.elicitation !== undefined) {
    client.setRequestHandler('elicitation/create', ({ params }) => user.elicit(params))
  }
  if (abilities.roots !== false) client.setRequestHandler('roots/list', () => user.listRoots())

  await client.connect(connection)
  const anything = z.looseObject({})
  const startTask = async (name: string, args: object) => {
    const params = { name, arguments: { ...args }, task: {} }
    const { task } = await client.request(
      { method: 'tools/call', params },
      z.looseObject({ task: taskSchema }),
    )
    return task
  }
  const getTask = (taskId: string) => client.request({ method: 'tasks/get', params: { taskId } }, taskSchema)
  const taskResult = (taskId: string) =>
    client.request({ method: 'tasks/result', params: { taskId } }, anything)
  return {
    wire,
    errors,
    http,
    user,
    server: {
      info: client.getServerVersion(),
      capabilities: client.getServerCapabilities(),
      instructions: client.getInstructions(),
    },
    era: client.getProtocolEra(),
    listTools: () => client.listTools(),
    listPrompts: () => client.listPrompts(),
    listResources: () => client.listResources(),
    listResourceTemplates: () => client.listResourceTemplates(),
    readResource: (uri) => client.readResource({ uri }),
    getPrompt: (name, args) => client.getPrompt({ name, ...(args === undefined ? {} : { arguments: args }) }),
    complete: (params) => client.complete(params),
    setLevel: (level) => client.setLoggingLevel(level),
    subscribe: (uri) => client.subscribeResource({ uri }),
    unsubscribe: (uri) => client.unsubscribeResource({ uri }),
    listen: (filter) => client.listen(filter),
    ping: () => client.ping(),
    call: (name, args = {}, { token, signal, onprogress, logLevel } = {}) =>
      client.callTool(
        {
          name,
          arguments: { ...args },
          ...(token === undefined && logLevel === undefined ? {} : { _meta: metaOf(token, logLevel) }),
        },
        { ...(signal === undefined ? {} : { signal }), ...(onprogress === undefined ? {} : { onprogress }) },
      ),
    request: (method, params) =>
      client.request({ method, ...(params === undefined ? {} : { params: { ...params } }) }, anything),
    rootsChanged: () => client.sendRootsListChanged(),
    startTask,
    followTask: async (name, args) => {
      const created = await startTask(name, args)
      const messages: Json[] = [{ type: 'taskCreated', task: created }]
      for (;;) {
        const task = await getTask(created.taskId)
        messages.push({ type: 'taskStatus', task })
        if (task.status === 'completed') {
          messages.push({ type: 'result', result: await taskResult(created.taskId) })
          return messages
        }
        if (task.status !== 'working') throw new Error(`the task is ${task.status}`)
        await new Promise((resolve) => {
          setTimeout(resolve, Number(task['pollInterval']))
        })
      }
    },
    getTask,
    taskResult,
    listTasks: () =>
      client.request({ method: 'tasks/list', params: {} }, z.looseObject({ tasks: z.array(taskSchema) })),
    cancelTask: (taskId) => client.request({ method: 'tasks/cancel', params: { taskId } }, taskSchema),
    close: async () => {
      client.onerror = () => {}
      if (connection instanceof StreamableV2) await connection.terminateSession()
      await client.close()
    },
  }
}
