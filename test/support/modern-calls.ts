/** Requests of modern clients, and a client that keeps what it is told, for tests of what serves them. */
import { metaKey } from '../../src/core/envelope.ts'
import type { SidecarError } from '../../src/core/errors.ts'
import { member, members } from '../../src/core/json.ts'
import { type Message, readMessages } from '../../src/core/jsonrpc.ts'
import { messageOf } from '../../src/core/local.ts'
import {
  anonymous,
  type CallHandle,
  type Clock,
  type Deadline,
  type Metrics,
  type ModernCall,
  type Principal,
  type Timer,
} from '../../src/core/types.ts'
import { wireBuffers } from '../../src/core/wire.ts'

// biome-ignore lint/suspicious/noExplicitAny: JSON of any shape
export type Json = any

/** A message as it goes on the wire. */
export const written = (message: Message): string => Buffer.concat(wireBuffers(message.wire)).toString()

export const parsed = (message: Message): Json => JSON.parse(written(message))

/** A message as its receiver reads it: what was edited is where it stands now. */
export const received = (message: Message): Message =>
  readMessages(Buffer.from(written(message))).messages[0] as Message

/** The members of the object at a path into a JSON text, as they are spelled, without the blanks around them. */
export function membersAt(text: string, ...path: string[]): string[] {
  const bytes = Buffer.from(text)
  let span = { start: text.search(/[^ \t\r\n]/), end: bytes.length }
  for (const name of path) {
    const next = member(bytes, span, name)
    if (next === undefined) throw new Error(`no ${name} in ${text}`)
    span = next
  }
  return members(bytes, span).map(({ start, value }) => {
    const key = bytes.toString('utf8', start, bytes.lastIndexOf(0x22, value.start - 1) + 1)
    return `${key}:${bytes.toString('utf8', value.start, value.end)}`
  })
}

export interface RequestParts {
  readonly id?: string | number
  readonly capabilities?: object
  readonly logLevel?: string
  readonly progressToken?: string | number
}

export function modernRequest(method: string, params: object = {}, parts: RequestParts = {}): Message {
  const { id = 1, capabilities = {}, logLevel, progressToken } = parts
  const _meta = {
    [metaKey('protocolVersion')]: '2026-07-28',
    [metaKey('clientInfo')]: { name: 'test', version: '1' },
    [metaKey('clientCapabilities')]: capabilities,
    ...(logLevel === undefined ? {} : { [metaKey('logLevel')]: logLevel }),
    ...(progressToken === undefined ? {} : { progressToken }),
  }
  return messageOf(JSON.stringify({ jsonrpc: '2.0', id, method, params: { ...params, _meta } }))
}

export function principalOf(id: string): Principal {
  return { ...anonymous, id, method: 'bearer', kind: 'user', subject: id, proof: id }
}

/** Somebody who made a call and writes down what becomes of it. */
export class Caller implements ModernCall {
  readonly message: Message
  readonly principal: Principal
  readonly logLevel: string | undefined
  reachable = true
  deadline: Deadline = { timeoutMs: 60_000, maxMs: 600_000, inputMs: 300_000 }
  handle: CallHandle | undefined
  readonly progressed: number[] = []
  readonly notified: Message[] = []
  readonly answers: Message[] = []
  readonly errors: SidecarError[] = []

  constructor(message: Message, principal: Principal = anonymous) {
    this.message = message
    this.principal = principal
    this.logLevel = message.metaString('logLevel')
  }

  progress(message: Message): void {
    this.progressed.push(parsed(message).params.progress)
  }

  notify(message: Message): void {
    this.notified.push(message)
  }

  answer(message: Message): void {
    this.answers.push(message)
  }

  fail(error: SidecarError): void {
    this.errors.push(error)
  }

  /** Answers and failures: 1 once it is over. */
  get outcomes(): number {
    return this.answers.length + this.errors.length
  }

  get result(): Json {
    return this.answers[0] === undefined ? undefined : parsed(this.answers[0]).result
  }

  get error(): Json {
    return this.answers[0] === undefined ? undefined : parsed(this.answers[0]).error
  }

  get code(): string | undefined {
    return this.errors[0]?.code
  }
}

/** Time that passes when a test says so. */
export class ManualClock implements Clock {
  /** Milliseconds between the two ways of telling the time. */
  readonly #epoch = 1_800_000_000_000
  #now = 0
  readonly #timers = new Set<{ at: number; readonly ms: number; readonly then: () => void }>()

  now(): number {
    return this.#now
  }

  epoch(): number {
    return this.#epoch + this.#now
  }

  after(ms: number, then: () => void): Timer {
    const timer = { at: this.#now + ms, ms, then }
    this.#timers.add(timer)
    return {
      refresh: () => {
        timer.at = this.#now + ms
        this.#timers.add(timer)
      },
      cancel: () => void this.#timers.delete(timer),
    }
  }

  /** Timers that have not run and were not cancelled. */
  get waiting(): number {
    return this.#timers.size
  }

  pass(ms: number): void {
    const end = this.#now + ms
    for (;;) {
      const due = [...this.#timers].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0]
      if (due === undefined) break
      this.#now = Math.max(this.#now, due.at)
      this.#timers.delete(due)
      due.then()
    }
    this.#now = end
  }
}

const nothing = (): void => {}

/** Counts what was dropped, by name. */
export function countingMetrics(): Metrics & { readonly drops: Map<string, number> } {
  const drops = new Map<string, number>()
  return {
    drops,
    dropped: (what) => void drops.set(what, (drops.get(what) ?? 0) + 1),
    refused: nothing,
    asked: nothing,
    authenticated: nothing,
    rateStore: nothing,
    auditFailed: nothing,
    auditLost: nothing,
    call: nothing,
    sessionOpened: nothing,
    sessionClosed: nothing,
    egress: nothing,
    egressBytes: nothing,
    processStarted: nothing,
    processExited: nothing,
    processRestarted: nothing,
  }
}
