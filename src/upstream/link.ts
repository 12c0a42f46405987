import { SidecarError } from '../core/errors.ts'
import { identify, type Line, LineReader, type Overlong } from '../core/framing.ts'
import { type Message, readMessages, type Span } from '../core/jsonrpc.ts'
import { localNotification, localRefusal, localResult } from '../core/local.ts'
import { mayAsk } from '../core/mcp.ts'
import { Throttle } from '../core/throttle.ts'
import type { CallHandle, UpstreamCall } from '../core/types.ts'
import type { Wire } from '../core/wire.ts'
import { LinkCall } from './link-call.ts'
import { Deadlines, type PendingCall, PendingTable, type Suspect } from './pending.ts'
import type { ProcessContext, ServerCommand, ServerProcess } from './process.ts'
import { startProcess } from './start.ts'
import { Turns } from './turns.ts'

export interface LinkHandler {
  onRequest(message: Message): void
  onNotification(message: Message): void
  /** The process cannot serve any more; every pending call has been failed. Called once. */
  onEnd(error: SidecarError): void
}

export interface LinkOptions {
  /** Longest line accepted from the server. */
  readonly maxMessageBytes: number
}

const maxAbandoned = 1000
/** Messages in one line of a server on 2025-03-26. */
const maxServerBatch = 1000
/** Requests of a server that does not read the answers. */
const maxUnheard = 1000

/**
 * One JSON-RPC link to one server process: newline framing, and correlation by ids of its own, so that callers
 * may use the same ids and progress tokens without ever meeting.
 */
export class Link {
  readonly context: ProcessContext
  readonly process: ServerProcess
  readonly output: Turns
  readonly #pending = new PendingTable<LinkCall>()
  readonly #deadlines: Deadlines<LinkCall>
  readonly #throttle = new Throttle(5)
  /** By internal id. */
  readonly #abandoned = new Map<number, Suspect & { readonly until: number }>()
  #abandonedOverflowUntil = 0
  #handler: LinkHandler | undefined
  /** Written and not yet flushed: large messages in pieces, then the small ones after them. */
  #large: Buffer[] = []
  #small = ''
  #flushing = false
  /** Requests of the server since it last had read all that was written to it. */
  #unheard = 0
  #ended: SidecarError | undefined

  constructor(command: ServerCommand, context: ProcessContext, options: LinkOptions) {
    this.context = context
    this.#deadlines = new Deadlines(context.clock, this.#pending, (pending) => this.#tooLate(pending))
    const reader = new LineReader(options.maxMessageBytes)
    this.process = startProcess(command, context, (reason) => this.#end(reason))
    const onLine = (line: Line | Overlong): void => this.#guarded(line)
    this.output = new Turns(
      this.process.stdout,
      (chunk, lines) => reader.push(chunk, onLine, lines),
      context.clock,
    )
  }

  get ended(): SidecarError | undefined {
    return this.#ended
  }

  /** Bytes written that the process has not read. */
  get queuedBytes(): number {
    return this.process.stdin.writableLength
  }

  /** In the order they were sent. */
  get pending(): readonly PendingCall[] {
    return this.#pending.all()
  }

  /** The call under way with this id of the link. */
  find(id: number): PendingCall | undefined {
    return this.#pending.get(id)
  }

  /**
   * Calls that were given up on and may still be running in the server, until their hard deadline; one
   * of nobody when there were too many to remember.
   */
  *suspects(): Generator<Suspect> {
    const now = this.context.clock.now()
    if (now < this.#abandonedOverflowUntil) yield { owner: undefined, logs: true, since: now }
    for (const [id, suspect] of this.#abandoned) {
      if (suspect.until <= now) this.#abandoned.delete(id)
      else yield suspect
    }
  }

  get hasSuspects(): boolean {
    return this.#abandoned.size + this.#abandonedOverflowUntil > 0 && !this.suspects().next().done
  }

  attach(handler: LinkHandler): void {
    this.#handler = handler
    if (this.#ended !== undefined) handler.onEnd(this.#ended)
  }

  call(call: UpstreamCall, owner: unknown): CallHandle {
    const id = this.#pending.nextId()
    const { message } = call
    const pending = new LinkCall(this, id, call, owner, this.context.clock.now())
    const ended = this.#ended
    if (ended !== undefined) {
      queueMicrotask(() => call.fail(ended))
      return pending
    }
    this.#pending.add(pending)
    this.#deadlines.watch()
    const at = message.id as Span
    const idEdit = { start: at.start, end: at.end, text: String(id) }
    const token = message.progressToken
    if (token === undefined) this.#write(message.wireWith(idEdit))
    else {
      const tokenEdit = { ...token, text: `"p${id}"` }
      this.#write(
        token.start < at.start ? message.wireWith(tokenEdit, idEdit) : message.wireWith(idEdit, tokenEdit),
      )
    }
    return pending
  }

  /** A message that needs no mapping: a notification, or a response to a request of the server. */
  send(message: Message): void {
    this.#write(message.wire)
  }

  stop(): Promise<void> {
    // Unread output must not keep the process from ending.
    this.output.resume()
    return this.process.stop()
  }

  abandon(pending: LinkCall, reason: string | undefined): void {
    if (!this.#pending.delete(pending.id)) return
    const { method } = pending.call.message
    if (mayAsk(method)) {
      const since = this.context.clock.now()
      const until = since + pending.call.deadline.maxMs
      if (this.#abandoned.size >= maxAbandoned) this.#abandonedOverflowUntil = until
      else {
        const logs = pending.call.logLevel !== undefined
        this.#abandoned.set(pending.id, { owner: pending.owner, logs, since, until })
      }
    }
    // Initialize must not be cancelled (lifecycle, "Cancellation"); its process is about to be stopped anyway.
    if (method === 'initialize') return
    const params = reason === undefined ? { requestId: pending.id } : { requestId: pending.id, reason }
    this.send(localNotification('notifications/cancelled', params))
  }

  #tooLate(pending: LinkCall): void {
    this.abandon(pending, 'the deadline passed')
    const detail = `no answer to ${pending.call.message.method}`
    pending.call.fail(new SidecarError('ERR_TIMEOUT', { detail }))
  }

  // Everything written while one batch of I/O events is handled leaves in one system call.
  #write(wire: Wire): void {
    if (this.#ended !== undefined) return
    if (typeof wire === 'string') this.#small += `${wire}\n`
    else {
      this.#large.push(Buffer.from(this.#small, 'latin1'), ...wire)
      this.#small = '\n'
    }
    if (this.#flushing) return
    this.#flushing = true
    setImmediate(() => this.#flush())
  }

  #flush(): void {
    const small = this.#small
    const large = this.#large
    this.#small = ''
    this.#large = []
    this.#flushing = false
    const { stdin } = this.process
    if (!stdin.writable) return
    if (large.length > 0) {
      stdin.cork()
      for (const piece of large) stdin.write(piece)
    }
    stdin.write(small, 'latin1')
    if (large.length > 0) stdin.uncork()
  }

  /** Whatever a server says, and whatever it makes us do, must not end the sidecar. */
  #guarded(line: Line | Overlong): void {
    try {
      this.#read(line)
    } catch (err) {
      this.context.metrics.dropped('internal_error')
      this.context.log.error({ pid: this.process.pid, err }, 'a message of the server could not be handled')
    }
  }

  #read(line: Line | Overlong): void {
    const { metrics } = this.context
    if (!('bytes' in line)) {
      metrics.dropped('overlong_line')
      this.#warn(
        { bytes: line.overlongBytes },
        'a message of the server is larger than allowed and was dropped',
      )
      this.#unusable(line, `the message had ${line.overlongBytes} bytes`)
      return
    }
    let messages: Message[]
    try {
      messages = readMessages(line.bytes, maxServerBatch).messages
    } catch (thrown) {
      metrics.dropped('stdout_garbage')
      const { detail } = SidecarError.from(thrown)
      this.#warn(
        { bytes: line.bytes.length, detail },
        'a line on stdout is no JSON-RPC message and was dropped',
      )
      // Whoever waits for it need not wait for the timeout.
      if (line.bytes[0] === 0x7b) this.#unusable(identify(line.bytes), detail ?? 'not JSON-RPC')
      return
    }
    for (const message of messages) this.#dispatch(message)
  }

  #dispatch(message: Message): void {
    if (message.kind === 'response') {
      this.settle(Number(message.idText), message)
      return
    }
    if (message.kind === 'request') {
      this.#unheard = this.queuedBytes === 0 ? 0 : this.#unheard + 1
      if (this.#unheard > maxUnheard) {
        this.context.metrics.dropped('unread_request')
        return
      }
    }
    if (message.method === 'ping' && message.kind === 'request') {
      this.send(localResult(message.idText as string, {}))
      return
    }
    if (message.method === 'notifications/progress') {
      const key = message.paramKey('progressToken')
      const pending = key?.startsWith('sp') === true ? this.#pending.get(Number(key.slice(2))) : undefined
      if (pending?.call.message.progressToken === undefined) this.context.metrics.dropped('late_progress')
      else {
        pending.progressed()
        pending.call.progress(message)
      }
      return
    }
    if (this.#handler === undefined) this.context.metrics.dropped('unowned')
    else if (message.kind === 'request') this.#handler.onRequest(message)
    else this.#handler.onNotification(message)
  }

  /** An answer of the server, or one in its name. */
  settle(id: number, message: Message): void {
    const pending = this.#pending.get(id)
    if (pending === undefined) {
      this.#abandoned.delete(id)
      this.context.metrics.dropped('late_answer')
      return
    }
    this.#pending.delete(id)
    try {
      pending.call.answer(message)
    } catch (thrown) {
      // No deadline would end it any more.
      pending.call.fail(SidecarError.from(thrown))
    }
  }

  /** A message that cannot be relayed: the call it answers fails; a question is refused. */
  #unusable({ idText, asks }: Pick<Overlong, 'idText' | 'asks'>, detail: string): void {
    if (idText === undefined || idText.length > 100) return
    if (asks) {
      if (/^("|-?\d)/.test(idText)) this.#refuse(idText)
      return
    }
    const pending = this.#pending.get(Number(idText))
    if (pending === undefined) return
    this.#pending.delete(pending.id)
    pending.call.fail(new SidecarError('ERR_UPSTREAM_MESSAGE', { detail }))
  }

  #refuse(idText: string): void {
    try {
      this.send(localRefusal(idText, -32600, 'ERR_TOO_LARGE'))
    } catch {
      // What stood there is no id.
    }
  }

  #end(reason: string): void {
    this.#ended = new SidecarError('ERR_UPSTREAM_EXIT', { detail: `the server process is gone: ${reason}` })
    for (const each of this.#pending.all()) {
      // The end of another call may have been the end of this one.
      if (this.#pending.delete(each.id)) each.call.fail(this.#ended)
    }
    this.#handler?.onEnd(this.#ended)
  }

  #warn(fields: object, text: string): void {
    const suppressed = this.#throttle.take(this.context.clock.now())
    if (suppressed === false) return
    this.context.log.warn(
      { pid: this.process.pid, ...fields, ...(suppressed > 0 ? { suppressed } : {}) },
      text,
    )
  }
}
