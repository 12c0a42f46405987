import type { Socket } from 'node:net'
import { Readable, Writable } from 'node:stream'
import type { Launch } from '../core/sandbox.ts'
import type { Timer } from '../core/types.ts'
import { FrameReader, frame, inputFrames, type ReceivedType } from './frames.ts'
import { instructions } from './instructions.ts'
import {
  type ProcessContext,
  patience,
  type ServerCommand,
  type ServerProcess,
  type ServerSocket,
} from './process.ts'
import { reach } from './server-socket.ts'
import { StderrLines } from './stderr-lines.ts'
import { Turns } from './turns.ts'

const { eofMs, termMs, settleMs } = patience
/** Of stdin and stdout, in bytes: as much as a frame. */
const highWaterMark = 64 * 1024
const signals = { SIGTERM: 15, SIGKILL: 9 } as const

/**
 * One server process in another container: one connection to the launcher there, which starts it within its permissions
 * and ends its whole tree when the connection ends. Nothing is written to its stdin before the launcher has reported
 * what holds for it.
 */
export class AttachedProcess implements ServerProcess {
  readonly stdin: Writable
  readonly stdout: Readable
  readonly gone: Promise<void>
  readonly #context: ProcessContext
  readonly #path: string
  readonly #launch: Launch | undefined
  readonly #stderr: StderrLines
  readonly #errors: Readable
  readonly #frames = new FrameReader()
  #onEnd: ((reason: string) => void) | undefined
  #resolveGone: () => void = () => {}
  #cancelReach: () => void = () => {}
  #socket: Socket | undefined
  /** What waits until the server runs. */
  #held: (() => void) | undefined
  #pid: number | undefined
  #running = false
  #stopping = false
  /** Why it can serve no more. */
  #reason: string | undefined
  #over = false

  /** @param onEnd calls once when it can no longer serve: it exited, closed stdout, never started, or the launcher is gone */
  constructor(
    what: ServerCommand,
    to: ServerSocket,
    context: ProcessContext,
    onEnd: (reason: string) => void,
  ) {
    this.#context = context
    this.#path = to.path
    this.#onEnd = onEnd
    this.#stderr = new StderrLines(what.stderr ?? 'log', context, () => this.#pid)
    this.gone = new Promise((resolve) => {
      this.#resolveGone = resolve
    })
    this.stdin = new Writable({
      highWaterMark,
      writev: (chunks, done) =>
        this.#write(
          chunks.map(({ chunk }) => chunk as Buffer),
          done,
        ),
      final: (done) => this.#endInput(done),
    })
    // One socket carries both: the one that is read does not open it while the other is full.
    this.stdout = new Readable({ highWaterMark, read: () => this.#resumeBeside(this.#errors) })
    this.#errors = new Readable({ highWaterMark, read: () => this.#resumeBeside(this.stdout) })
    new Turns(this.#errors, (chunk, lines) => this.#stderr.push(chunk, lines), context.clock)
    this.stdin.on('error', () => {})
    this.stdout.on('error', () => {})
    this.#launch = what.confinement?.launch(what.command, what.env)
    let orders: Buffer
    try {
      orders = instructions(this.#launch, what, to)
    } catch (thrown) {
      queueMicrotask(() => this.#finish(`it could not be started: ${(thrown as Error).message}`))
      return
    }
    const { connected, cancel } = reach(to, context)
    this.#cancelReach = cancel
    connected.then(
      (socket) => this.#attach(socket, orders),
      (error: Error) => this.#finish(`it could not be started: ${error.message}`),
    )
  }

  get pid(): number | undefined {
    return this.#pid
  }

  get stderr(): 'log' | 'discard' {
    return this.#stderr.to
  }

  set stderr(to: 'log' | 'discard') {
    this.#stderr.to = to
  }

  get stopping(): boolean {
    return this.#stopping
  }

  stop(): Promise<void> {
    if (this.#stopping || this.#reason !== undefined) return this.gone
    this.#stopping = true
    if (!this.#running) {
      this.#cancelReach()
      this.#socket?.destroy()
      return this.gone
    }
    const { clock } = this.#context
    this.stdin.end()
    const steps = [
      clock.after(eofMs, () => this.#signal('SIGTERM')),
      clock.after(eofMs + termMs, () => this.#signal('SIGKILL')),
      // The launcher ends the tree by itself when nobody is there any more.
      clock.after(eofMs + termMs + settleMs * 3, () => this.#socket?.destroy()),
    ]
    void this.gone.then(() => {
      for (const step of steps) step.cancel()
    })
    return this.gone
  }

  #signal(name: keyof typeof signals): void {
    const socket = this.#socket
    // Behind stdin that the server does not read no signal arrives; the end of the connection does.
    if (socket !== undefined && socket.writableLength > 0) socket.destroy()
    else socket?.write(frame('K', Buffer.of(signals[name])))
  }

  #attach(socket: Socket, orders: Buffer): void {
    this.#socket = socket
    let failure: Error | undefined
    socket.on('error', (error) => {
      failure = error
    })
    socket.once('close', () => this.#finish(this.#lost(failure)))
    socket.on('data', (chunk: Buffer) => {
      try {
        this.#frames.push(chunk, (type, bytes) => this.#take(type, bytes))
      } catch (thrown) {
        this.#fail((thrown as Error).message)
      }
    })
    socket.write(orders)
    if (this.#stopping) socket.destroy()
  }

  #take(type: ReceivedType, bytes: Buffer): void {
    if (this.#reason !== undefined) return
    if (type === 'E') {
      if (bytes.length > 0 && !this.#errors.push(bytes)) this.#socket?.pause()
    } else if (type === 'X') this.#exited(bytes.toString())
    else if (type === 'R') this.#report(bytes.toString())
    else if (!this.#running) this.#fail('output before the report')
    else if (bytes.length === 0) this.#outputEnded()
    else if (!this.stdout.destroyed && !this.stdout.push(bytes)) this.#socket?.pause()
  }

  #resumeBeside(other: Readable): void {
    if (other.readableLength < highWaterMark) this.#socket?.resume()
  }

  /** What the launcher says before the server runs, and while it does. */
  #report(line: string): void {
    const launch = this.#launch
    let event: unknown
    let fate: ReturnType<Launch['status']>
    try {
      const said = JSON.parse(line) as { event?: unknown; pid?: unknown }
      event = said.event
      if (event === 'report' && typeof said.pid === 'number') this.#pid = said.pid
      fate = launch?.status(line)
    } catch (thrown) {
      const { message } = thrown as Error
      if (!this.#running) this.#fail(`a report that cannot be read: ${message}`)
      else this.#context.log.warn({ pid: this.#pid, err: message }, 'the launcher cannot be understood')
      return
    }
    if (event === 'refused' || fate === 'end') this.#finish(launch?.reason ?? 'it was not started')
    else if (event === 'report' && !this.#running) {
      this.#running = true
      this.#context.metrics.processStarted()
      this.#release()
    }
  }

  #exited(line: string): void {
    let ended: { signal?: unknown; code?: unknown } = {}
    try {
      ended = JSON.parse(line) as typeof ended
      this.#launch?.status(line)
    } catch (thrown) {
      this.#fail(`an exit that cannot be read: ${(thrown as Error).message}`)
      return
    }
    this.#finish(this.#launch?.reason ?? 'it exited', typeof ended.signal === 'string' ? 'signal' : 'exit')
  }

  #outputEnded(): void {
    this.stdout.push(null)
    this.#context.clock.after(settleMs, () => {
      this.#end('it closed its stdout')
      void this.stop()
    })
  }

  #fail(what: string): void {
    this.#finish(`its launcher at ${this.#path} does not keep to the protocol: ${what}`)
  }

  #lost(failure: Error | undefined): string {
    if (this.#stopping) return 'it was stopped'
    const how = failure === undefined ? 'was closed' : `broke: ${failure.message}`
    if (this.#running) return `the connection to its launcher at ${this.#path} ${how}`
    return `its launcher at ${this.#path} did not take it, the connection ${how}; the launcher's own output says why (it lets in one user, from another container, and so many connections)`
  }

  /** The last thing that happens, whatever it was. */
  #finish(reason: string, how: 'exit' | 'signal' | 'lost' = 'lost'): void {
    if (this.#reason !== undefined) return
    this.#reason = reason
    const { clock, metrics } = this.#context
    this.#launch?.ended()
    if (this.#running) metrics.processExited(this.#stopping ? 'stopped' : how)
    const socket = this.#socket
    if (socket === undefined || socket.destroyed) this.#resolveGone()
    else {
      socket.once('close', () => this.#resolveGone())
      socket.destroy()
    }
    this.#release()
    this.stdin.destroy()
    this.#errors.push(null)
    if (!this.stdout.readableEnded && !this.stdout.destroyed) this.stdout.push(null)
    // What it wrote before it ended may not have been read yet.
    const settle: Timer = clock.after(settleMs, () => {
      this.stdout.destroy()
      this.#end(reason)
    })
    const done = (): void => {
      settle.cancel()
      this.#end(reason)
    }
    // Nor does an empty buffer say that its reader, who takes it in turns, has come to the end of it.
    if (this.stdout.readableEnded || this.stdout.destroyed) queueMicrotask(done)
    else this.stdout.once('end', done)
  }

  #end(reason: string): void {
    if (this.#over) return
    this.#over = true
    this.#onEnd?.(reason)
    this.#onEnd = undefined
  }

  #write(chunks: readonly Buffer[], done: () => void): void {
    this.#whenRunning(() => {
      const socket = this.#socket as Socket
      const buffers = inputFrames(chunks)
      const last = buffers.pop()
      if (last === undefined) {
        done()
        return
      }
      if (buffers.length > 0) socket.cork()
      for (const each of buffers) socket.write(each)
      // Only when the kernel has it: so long it counts as unread. That it is lost is known from the end of the socket.
      socket.write(last, () => done())
      if (buffers.length > 0) socket.uncork()
    }, done)
  }

  #endInput(done: () => void): void {
    this.#whenRunning(() => {
      this.#socket?.write(frame('C'))
      done()
    }, done)
  }

  /** Streams write one thing at a time, so that never more than one waits. */
  #whenRunning(then: () => void, over: () => void): void {
    if (this.#reason !== undefined) over()
    else if (this.#running) then()
    else this.#held = () => this.#whenRunning(then, over)
  }

  #release(): void {
    const held = this.#held
    this.#held = undefined
    held?.()
  }
}
