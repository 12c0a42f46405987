import { SidecarError } from '../core/errors.ts'
import { type Line, LineReader, type Overlong } from '../core/framing.ts'
import { type Chunks, type Edit, type Message, readMessages, splice } from '../core/jsonrpc.ts'
import { localNotification, localResult } from '../core/local.ts'
import { isInteractive } from '../core/mcp.ts'
import { Throttle } from '../core/throttle.ts'
import type { CallHandle, Timer, UpstreamCall } from '../core/types.ts'
import { type ProcessContext, type ServerCommand, ServerProcess } from './process.ts'

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

/** A call on its way: what was sent under which internal id. */
export interface PendingCall {
  readonly id: number
  readonly call: UpstreamCall
  readonly owner: unknown
}

const maxAbandoned = 1000

const newline = Buffer.from('\n')

class Pending implements PendingCall, CallHandle {
  readonly id: number
  readonly call: UpstreamCall
  readonly owner: unknown
  readonly #link: Link
  readonly #startedAt: number
  #timer: Timer
  #waits = 0

  constructor(link: Link, id: number, call: UpstreamCall, owner: unknown) {
    this.#link = link
    this.id = id
    this.call = call
    this.owner = owner
    this.#startedAt = link.context.clock.now()
    this.#timer = this.#arm(call.deadline.timeoutMs)
  }

  cancel(reason: string | undefined): void {
    this.#link.abandon(this, reason)
  }

  waitForInput(waiting: boolean): void {
    this.#waits += waiting ? 1 : -1
    this.#timer.cancel()
    const { inputMs, timeoutMs } = this.call.deadline
    this.#timer = this.#arm(this.#waits > 0 ? inputMs : timeoutMs)
  }

  /** Progress starts the timeout anew, within the hard limit. */
  progressed(): void {
    if (this.#waits > 0) return
    const { timeoutMs, maxMs } = this.call.deadline
    if (this.#startedAt + maxMs - this.#link.context.clock.now() > timeoutMs) this.#timer.refresh()
  }

  settle(): void {
    this.#timer.cancel()
  }

  #arm(ms: number): Timer {
    const { clock } = this.#link.context
    const left = this.#startedAt + this.call.deadline.maxMs - clock.now()
    return clock.after(Math.max(0, Math.min(ms, left)), () => {
      this.#link.abandon(this, 'the deadline passed')
      this.call.fail(new SidecarError('ERR_TIMEOUT', { detail: `no answer to ${this.call.message.method}` }))
    })
  }
}

/**
 * One JSON-RPC link to one server process: newline framing, and correlation by ids of its own, so that callers
 * may use the same ids and progress tokens without ever meeting (D3).
 */
export class Link {
  readonly context: ProcessContext
  readonly process: ServerProcess
  readonly #reader: LineReader
  readonly #pending = new Map<number, Pending>()
  readonly #throttle = new Throttle(5)
  /** Interactive calls given up on that the server may still be working on: internal id to owner and time. */
  readonly #abandoned = new Map<number, { readonly owner: unknown; readonly until: number }>()
  #abandonedOverflowUntil = 0
  #handler: LinkHandler | undefined
  #lastId = 0
  #outgoing: Buffer[] = []
  #flushing = false
  #ended: SidecarError | undefined

  constructor(command: ServerCommand, context: ProcessContext, options: LinkOptions) {
    this.context = context
    this.#reader = new LineReader(options.maxMessageBytes)
    this.process = new ServerProcess(command, context, (reason) => this.#end(reason))
    this.process.stdout.on('data', (chunk: Buffer) => {
      this.#reader.push(chunk, (line) => this.#read(line))
    })
  }

  get ended(): SidecarError | undefined {
    return this.#ended
  }

  /** Bytes written that the process has not read. */
  get queuedBytes(): number {
    return this.process.stdin.writableLength
  }

  get pending(): Iterable<PendingCall> {
    return this.#pending.values()
  }

  /**
   * Owners of interactive calls that were given up on and may still be running in the server, until their hard
   * deadline; an owner that is nobody when there were too many to remember.
   */
  *suspects(): Iterable<unknown> {
    const now = this.context.clock.now()
    if (now < this.#abandonedOverflowUntil) yield undefined
    for (const [id, { owner, until }] of this.#abandoned) {
      if (until <= now) this.#abandoned.delete(id)
      else yield owner
    }
  }

  attach(handler: LinkHandler): void {
    this.#handler = handler
    if (this.#ended !== undefined) handler.onEnd(this.#ended)
  }

  call(call: UpstreamCall, owner: unknown): CallHandle {
    const id = ++this.#lastId
    const { message } = call
    const edits: Edit[] = [{ ...(message.id as { start: number; end: number }), text: String(id) }]
    if (message.progressToken !== undefined) edits.push({ ...message.progressToken, text: `"p${id}"` })
    edits.sort((a, b) => a.start - b.start)
    const pending = new Pending(this, id, call, owner)
    this.#pending.set(id, pending)
    this.#write(splice(message.bytes, edits))
    return pending
  }

  /** A message that needs no mapping: a notification, or a response to a request of the server. */
  send(message: Message): void {
    this.#write([message.bytes])
  }

  pause(): void {
    this.process.stdout.pause()
  }

  resume(): void {
    this.process.stdout.resume()
  }

  stop(): Promise<void> {
    return this.process.stop()
  }

  abandon(pending: Pending, reason: string | undefined): void {
    if (!this.#pending.delete(pending.id)) return
    pending.settle()
    const { method } = pending.call.message
    if (isInteractive(method)) {
      const until = this.context.clock.now() + pending.call.deadline.maxMs
      if (this.#abandoned.size < maxAbandoned)
        this.#abandoned.set(pending.id, { owner: pending.owner, until })
      else this.#abandonedOverflowUntil = until
    }
    // Initialize must not be cancelled (lifecycle, "Cancellation"); its process is about to be stopped anyway.
    if (method === 'initialize') return
    const params = reason === undefined ? { requestId: pending.id } : { requestId: pending.id, reason }
    this.send(localNotification('notifications/cancelled', params))
  }

  // Everything written while one batch of I/O events is handled leaves in one system call.
  #write(chunks: Chunks): void {
    if (this.#ended !== undefined) return
    this.#outgoing.push(...chunks, newline)
    if (this.#flushing) return
    this.#flushing = true
    setImmediate(() => {
      this.#flushing = false
      const outgoing = this.#outgoing
      this.#outgoing = []
      this.#flush(outgoing)
    })
  }

  #flush(chunks: Buffer[]): void {
    const { stdin } = this.process
    if (!stdin.writable) return
    let small: Buffer[] = []
    stdin.cork()
    for (const chunk of chunks) {
      if (chunk.length < 16384) {
        small.push(chunk)
        continue
      }
      if (small.length > 0) stdin.write(Buffer.concat(small))
      small = []
      stdin.write(chunk)
    }
    if (small.length > 0) stdin.write(Buffer.concat(small))
    stdin.uncork()
  }

  #read(line: Line | Overlong): void {
    const { metrics } = this.context
    if (!('bytes' in line)) {
      metrics.dropped('overlong_line')
      this.#warn(
        { bytes: line.overlongBytes },
        'a message of the server is larger than allowed and was dropped',
      )
      this.#failOverlong(line)
      return
    }
    let messages: Message[]
    try {
      messages = readMessages(line.bytes).messages
    } catch (thrown) {
      metrics.dropped('stdout_garbage')
      const { detail } = SidecarError.from(thrown)
      this.#warn(
        { bytes: line.bytes.length, detail },
        'a line on stdout is no JSON-RPC message and was dropped',
      )
      return
    }
    for (const message of messages) this.#dispatch(message)
  }

  #dispatch(message: Message): void {
    if (message.kind === 'response') {
      this.#answer(message)
      return
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

  #answer(message: Message): void {
    const id = Number(message.idText)
    const pending = this.#pending.get(id)
    if (pending === undefined) {
      this.#abandoned.delete(id)
      this.context.metrics.dropped('late_answer')
      return
    }
    this.#pending.delete(id)
    pending.settle()
    pending.call.answer(message)
  }

  #failOverlong({ overlongBytes, idText }: Overlong): void {
    const pending = this.#pending.get(Number(idText))
    if (pending === undefined) return
    this.#pending.delete(pending.id)
    pending.settle()
    const detail = `the answer had ${overlongBytes} bytes`
    pending.call.fail(new SidecarError('ERR_UPSTREAM_MESSAGE', { detail }))
  }

  #end(reason: string): void {
    this.#ended = new SidecarError('ERR_UPSTREAM_EXIT', { detail: `the server process is gone: ${reason}` })
    const pending = [...this.#pending.values()]
    this.#pending.clear()
    for (const each of pending) {
      each.settle()
      each.call.fail(this.#ended)
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
