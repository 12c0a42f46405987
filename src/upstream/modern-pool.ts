import { SidecarError } from '../core/errors.ts'
import type { Message } from '../core/jsonrpc.ts'
import type {
  CallHandle,
  DiscoverResult,
  Lifecycle,
  ModernCall,
  Principal,
  StatelessServer,
  Timer,
} from '../core/types.ts'
import { type Discovered, ModernProcess } from './modern.ts'
import type { PoolOptions } from './pool.ts'
import type { ProcessContext } from './process.ts'
import { noHandle } from './waiting.ts'

export interface ModernPoolOptions extends PoolOptions {
  /** One process for each principal instead of one for all. */
  readonly perPrincipal: boolean
  /** A principal's process ends after this time without use. Milliseconds. */
  readonly idleMs: number
  /** Calls when the server, started again, turns out not to be a modern one any more. */
  readonly onLegacy?: (reason: string) => void
}

interface Member {
  readonly process: ModernProcess
  lastUsed: number
}

/** The processes of a modern server: one for everybody, or one for each principal. */
export class ModernPool implements StatelessServer, Lifecycle {
  readonly #options: ModernPoolOptions
  readonly #context: ProcessContext
  /** By principal id; with one process for all under the empty key. */
  readonly #members = new Map<string, Member>()
  /** Started before anybody called; the first who does gets it. */
  #first: ModernProcess | undefined
  #discovered: DiscoverResult | undefined
  /** Until it is started. */
  #found: Discovered | undefined
  readonly #sweep: Timer
  #closed = false
  #retired = false

  /** @param first what a probe has found, if there was one */
  constructor(options: ModernPoolOptions, context: ProcessContext, first: Discovered | undefined) {
    this.#options = options
    this.#context = context
    this.#discovered = first?.discovered
    this.#found = first
    const sweep: Timer = context.clock.after(Math.max(50, options.idleMs / 4), () => {
      this.#endIdle()
      sweep.refresh()
    })
    this.#sweep = sweep
  }

  start(): void {
    this.#first = this.#start(this.#found)
    this.#found = undefined
  }

  get ready(): boolean {
    const all = this.#all
    // Where the last one has ended for want of use, the next one is expected to answer as it did.
    return all.length === 0 ? this.#discovered !== undefined : all.some((process) => process.ready)
  }

  get processes(): number {
    return this.#all.reduce((sum, process) => sum + process.processes, 0)
  }

  queuedBytesOf(principal: Principal): number {
    return this.#members.get(this.#options.perPrincipal ? principal.id : '')?.process.queuedBytes ?? 0
  }

  get queuedBytes(): number {
    return this.#all.reduce((sum, process) => sum + process.queuedBytes, 0)
  }

  /** @returns what the server says of itself, now or when it has started. @throws ERR_UPSTREAM_EXIT */
  discovered(): DiscoverResult | Promise<DiscoverResult> {
    const process = this.#first ?? this.#members.values().next().value?.process
    if (process === undefined) {
      if (this.#discovered !== undefined) return this.#discovered
      throw new SidecarError('ERR_UPSTREAM_EXIT', { detail: 'the server is down' })
    }
    return process.discovered()
  }

  /**
   * Keeps the principal's process for somebody who will come back, and tells what the server says about its lists.
   * Where none can be had nothing happens: each call is told so.
   *
   * @returns stops it
   */
  attend(
    principal: Principal,
    onListChanged: (message: Message) => void,
    onEnd: (error: SidecarError) => void,
  ): () => void {
    const member = this.#memberOf(principal)
    if (member === undefined) return () => {}
    const stop = member.process.attend(onListChanged, onEnd)
    return () => {
      stop()
      member.lastUsed = this.#context.clock.now()
      if (this.#retired) this.#endIdle()
    }
  }

  call(call: ModernCall): CallHandle {
    const member = this.#memberOf(call.principal)
    if (member !== undefined) {
      member.lastUsed = this.#context.clock.now()
      return member.process.call(call)
    }
    const error = this.#over
      ? new SidecarError('ERR_UPSTREAM_EXIT', { detail: 'the server is down' })
      : new SidecarError('ERR_OVERLOADED', {
          detail: `${this.#options.maxProcesses} server processes are in use (limits.processes)`,
          headers: { 'Retry-After': '5' },
        })
    queueMicrotask(() => call.fail(error))
    return noHandle
  }

  /** Ends with the last call and the last who attends, or at once if there is none. */
  retire(): void {
    this.#retired = true
    for (const process of this.#all) process.retire()
    this.#endIdle()
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#sweep.cancel()
    await Promise.all([this.#found?.link?.stop(), ...this.#all.map((process) => process.close())])
  }

  get #all(): ModernProcess[] {
    const members = [...this.#members.values()].map(({ process }) => process)
    return this.#first === undefined ? members : [this.#first, ...members]
  }

  /** No process is started any more. */
  get #over(): boolean {
    return this.#closed || (this.#retired && this.#first === undefined)
  }

  /** Undefined where there is none, and no room for one. */
  #memberOf({ id }: Principal): Member | undefined {
    const key = this.#options.perPrincipal ? id : ''
    return this.#members.get(key) ?? this.#add(key)
  }

  #add(key: string): Member | undefined {
    if (this.#over) return undefined
    if (this.#members.size >= this.#options.maxProcesses && !this.#giveUpOne()) return undefined
    const process =
      this.#first ??
      this.#start(
        this.#discovered === undefined
          ? undefined
          : {
              discovered: this.#discovered,
              link: undefined,
            },
      )
    this.#first = undefined
    const member = { process, lastUsed: this.#context.clock.now() }
    this.#members.set(key, member)
    return member
  }

  #start(first: Discovered | undefined): ModernProcess {
    const process = new ModernProcess(this.#options, this.#context, first, (reason) => {
      if (!this.#closed) this.#options.onLegacy?.(reason)
    })
    return process
  }

  /** The longest unused process that nobody needs at the moment makes way. */
  #giveUpOne(): boolean {
    let oldest: [string, Member] | undefined
    for (const entry of this.#members) {
      if (entry[1].process.idle && (oldest === undefined || entry[1].lastUsed < oldest[1].lastUsed))
        oldest = entry
    }
    if (oldest === undefined) return false
    this.#end(...oldest)
    return true
  }

  #end(key: string, { process }: Member): void {
    this.#members.delete(key)
    this.#discovered = process.known ?? this.#discovered
    void process.close()
  }

  #endIdle(): void {
    const now = this.#context.clock.now()
    if (this.#retired && this.#all.every((process) => process.idle)) {
      void this.close()
      return
    }
    if (!this.#options.perPrincipal) return
    const idleMs = this.#retired ? 0 : this.#options.idleMs
    for (const [key, member] of this.#members) {
      if (member.process.idle && now - member.lastUsed >= idleMs) this.#end(key, member)
    }
  }
}
