import { SidecarError } from '../core/errors.ts'
import type { Message } from '../core/jsonrpc.ts'
import { localResult } from '../core/local.ts'
import { isLegacyVersion, logLevels } from '../core/mcp.ts'
import type {
  CallHandle,
  CallLease,
  InitializeResult,
  LeaseWish,
  UpstreamCall,
  UpstreamOwner,
} from '../core/types.ts'

/** What a lease needs of the shared process. */
export interface SharedProcess {
  readonly server: InitializeResult | undefined
  readonly queuedBytes: number
  call(lease: SharedLease, call: UpstreamCall): CallHandle
  send(message: Message): void
  respond(lease: SharedLease, message: Message): void
  request(method: string, params: object): void
  levelChanged(): void
  isSubscribed(uri: string): boolean
  released(lease: SharedLease): void
}

/** `notifications/message` that a session gets without having asked for a level. */
export const defaultLevel = logLevels.indexOf('info')

const done: CallHandle = { cancel: () => {}, waitForInput: () => {} }

/**
 * One session's share of a process that others use too. What would touch their state (initialize, the log level,
 * subscriptions) ends here.
 */
export class SharedLease implements CallLease {
  readonly exclusive = false
  readonly owner: UpstreamOwner
  readonly subscriptions = new Set<string>()
  /** Index into logLevels, once the client has set one. */
  level: number | undefined
  /** There is only one process, for everybody. */
  readonly instance = ''
  parked = false
  readonly #process: SharedProcess
  readonly #standsAlone: boolean
  #capabilities: Readonly<Record<string, unknown>> = {}
  #released = false

  constructor(process: SharedProcess, owner: UpstreamOwner, wish?: LeaseWish) {
    this.#process = process
    this.owner = owner
    this.#standsAlone = wish !== undefined
    const level = (logLevels as readonly (string | undefined)[]).indexOf(wish?.logLevel)
    if (level >= 0) this.level = level
  }

  get server(): InitializeResult | undefined {
    return this.#process.server
  }

  log(level: string | undefined): void {
    const index = (logLevels as readonly (string | undefined)[]).indexOf(level)
    this.level = index < 0 ? undefined : index
    if (index >= 0) this.#process.levelChanged()
  }

  watch(uris: readonly string[]): void {
    for (const uri of uris) {
      if (!this.#process.isSubscribed(uri)) this.#process.request('resources/subscribe', { uri })
      this.subscriptions.add(uri)
    }
  }

  get queuedBytes(): number {
    return this.#process.queuedBytes
  }

  call(call: UpstreamCall): CallHandle {
    const { method } = call.message
    switch (method) {
      case 'ping':
        return this.#answer(call, {})
      case 'initialize':
        return this.#initialize(call)
      case 'logging/setLevel':
        return this.#setLevel(call)
      case 'resources/subscribe':
        return this.#subscribe(call)
      case 'resources/unsubscribe':
        return this.#unsubscribe(call)
    }
    // Task ids are the server's; nothing says whose they are, so tasks are not offered here.
    if (method.startsWith('tasks/')) {
      queueMicrotask(() => call.fail(new SidecarError('ERR_UNSUPPORTED')))
      return done
    }
    return this.#process.call(this, call)
  }

  send(message: Message): void {
    if (message.kind === 'response') this.#process.respond(this, message)
    else if (
      message.method !== 'notifications/initialized' &&
      message.method !== 'notifications/roots/list_changed'
    ) {
      this.#process.send(message)
    }
  }

  // A reader that does not read must not slow the others: the session ends instead (see session/).
  pause(): void {}
  resume(): void {}

  release(): void {
    if (this.#released) return
    this.#released = true
    this.#process.released(this)
  }

  /** True if this session's client declared what a request of the server needs. */
  declares(method: string): boolean {
    if (this.#standsAlone) return true
    if (method === 'sampling/createMessage') return this.#capabilities['sampling'] !== undefined
    if (method === 'elicitation/create') return this.#capabilities['elicitation'] !== undefined
    if (method === 'roots/list') return this.#capabilities['roots'] !== undefined
    return true
  }

  /** Subscribed to the resource, or to one it is part of (server/resources, "Subscriptions"). */
  watches(uri: string): boolean {
    if (this.subscriptions.has(uri)) return true
    for (const each of this.subscriptions)
      if (uri.startsWith(each.endsWith('/') ? each : `${each}/`)) return true
    return false
  }

  hears(level: string | undefined): boolean {
    return (logLevels as readonly (string | undefined)[]).indexOf(level) >= (this.level ?? defaultLevel)
  }

  /** Tells the client that a question put to it is void. */
  withdraw(notification: Message): void {
    this.owner.onNotification(notification, undefined)
  }

  /** Waits for the server if it is starting, then answers in its name. */
  #initialize(call: UpstreamCall): CallHandle {
    const { server } = this.#process
    if (server === undefined) return this.#process.call(this, call)
    const { params } = call.message.parsed() as {
      params?: { protocolVersion?: unknown; capabilities?: Record<string, unknown> }
    }
    const asked = params?.protocolVersion
    this.#capabilities = params?.capabilities ?? {}
    const { tasks: _, ...capabilities } = server.capabilities
    const protocolVersion =
      typeof asked === 'string' && isLegacyVersion(asked) ? asked : server.protocolVersion
    return this.#answer(call, { ...server, protocolVersion, capabilities })
  }

  #setLevel(call: UpstreamCall): CallHandle {
    const level = (logLevels as readonly string[]).indexOf(call.message.paramString('level') ?? '')
    // A bad level, or a server without logging, gets the server's own answer.
    if (level < 0 || this.#process.server?.capabilities['logging'] === undefined) {
      return this.#process.call(this, call)
    }
    this.level = level
    this.#process.levelChanged()
    return this.#answer(call, {})
  }

  #subscribe(call: UpstreamCall): CallHandle {
    const uri = call.message.paramString('uri')
    if (uri === undefined || this.subscriptions.has(uri)) return this.#process.call(this, call)
    if (this.subscriptions.size >= maxSubscriptions) {
      queueMicrotask(() =>
        call.fail(new SidecarError('ERR_OVERLOADED', { detail: 'too many subscriptions' })),
      )
      return done
    }
    // From now on, not from the answer: meanwhile another session's unsubscribe must not end it.
    this.subscriptions.add(uri)
    return this.#process.call(this, {
      message: call.message,
      reachable: false,
      deadline: call.deadline,
      progress: (message) => call.progress(message),
      answer: (message) => {
        if (message.isError) this.subscriptions.delete(uri)
        call.answer(message)
      },
      fail: (error) => {
        this.subscriptions.delete(uri)
        call.fail(error)
      },
    })
  }

  #unsubscribe(call: UpstreamCall): CallHandle {
    const uri = call.message.paramString('uri')
    if (uri === undefined || !this.subscriptions.delete(uri)) return this.#answer(call, {})
    return this.#process.isSubscribed(uri) ? this.#answer(call, {}) : this.#process.call(this, call)
  }

  #answer(call: UpstreamCall, result: object): CallHandle {
    queueMicrotask(() => call.answer(localResult('0', result)))
    return done
  }
}

const maxSubscriptions = 1000
