import { type ChildProcess, spawn } from 'node:child_process'
import { PassThrough, type Readable, type Writable } from 'node:stream'
import { LineReader } from '../core/framing.ts'
import type { Confinement, Launch } from '../core/sandbox.ts'
import type { Clock, Logger, Metrics } from '../core/types.ts'
import type { Reaper } from './reaper.ts'
import { StderrLines } from './stderr-lines.ts'
import { Turns } from './turns.ts'

export interface ServerCommand {
  readonly command: readonly string[]
  readonly cwd: string | undefined
  /** The whole environment; nothing is inherited. */
  readonly env: Readonly<Record<string, string>>
  /** What starts it within its permissions; undefined: it is started as it is. */
  readonly confinement?: Confinement | undefined
  /** Where a launcher in another container starts it; undefined: it is started here. */
  readonly elsewhere?: ServerSocket | undefined
  /** What {@link ServerProcess.stderr} starts with; default: `log`. */
  readonly stderr?: 'log' | 'discard'
}

/** The unix socket of a launcher in mode `serve`: each connection is a server process there. */
export interface ServerSocket {
  /** Absolute. */
  readonly path: string
  /** Names of variables, or `PREFIX*`, that the server gets as they are in that container. */
  readonly pass: readonly string[]
  /** How long the socket may be missing, or nobody listen on it. Milliseconds. */
  readonly waitMs: number
}

export interface ProcessContext {
  readonly clock: Clock
  readonly log: Logger
  readonly metrics: Metrics
  readonly reaper: Reaper
}

/** A server process, wherever it runs. */
export interface ServerProcess {
  /** Undefined while it was not started; in another container, its number there. */
  readonly pid: number | undefined
  readonly stdin: Writable
  readonly stdout: Readable
  /** Where lines on its stderr go from now on. */
  stderr: 'log' | 'discard'
  /** It is on its way out. */
  readonly stopping: boolean
  /** Resolves when it is over, with all that it started. */
  readonly gone: Promise<void>
  /**
   * Closes stdin, then SIGTERM, then SIGKILL to all that it started. Output that nobody reads may keep it from ending sooner.
   * Resolves with {@link gone}.
   */
  stop(): Promise<void>
}

/** Milliseconds. */
export const patience = {
  /** From the end of stdin to SIGTERM. */
  eofMs: 2000,
  /** From SIGTERM to SIGKILL. */
  termMs: 3000,
  /** How long an exit code is waited for after stdout ended, and pipes for after the exit. */
  settleMs: 300,
  /**
   * From the request to end the tree until a launcher that is still there is killed itself. It takes the tree along only
   * while it lives, and gives it 10 s in which the kernel may hold some of it in a wait: one that takes longer hangs.
   */
  launcherMs: 20_000,
} as const
const { eofMs, termMs, settleMs, launcherMs } = patience

const statusLineBytes = 64 * 1024

/**
 * One server process in a process group of its own, started without a shell. Its stderr goes to the log. When its
 * first process is gone, or {@link stop} was called and its time has run out, the whole group is killed.
 */
export class SpawnedProcess implements ServerProcess {
  readonly stdin: Writable
  readonly stdout: Readable
  /** Resolves when the group has been killed and the first process reaped. */
  readonly gone: Promise<void>
  readonly #context: ProcessContext
  readonly #stderr: StderrLines
  readonly #launch: Launch | undefined
  /** Of the process that was spawned, and its group: the server, or the launcher around it. */
  readonly #group: number | undefined
  #onEnd: ((reason: string) => void) | undefined
  #ended = false
  #stopping = false
  #exited = false
  /** Its launcher has not reported yet. */
  #held = false

  /** @param onEnd calls once when the process can no longer serve: it exited, closed stdout or never started */
  constructor(what: ServerCommand, context: ProcessContext, onEnd: (reason: string) => void) {
    this.#context = context
    this.#onEnd = onEnd
    const launch = what.confinement?.launch(what.command, what.env)
    this.#launch = launch
    const [file, ...args] = (launch ?? what).command as [string, ...string[]]
    const child = spawn(file, args, {
      cwd: what.cwd,
      env: (launch ?? what).env,
      detached: true,
      stdio:
        launch?.policy === undefined ? ['pipe', 'pipe', 'pipe'] : ['pipe', 'pipe', 'pipe', 'pipe', 'pipe'],
      windowsHide: true,
    })
    this.#group = child.pid
    // Where not even pipes could be made, the error event that follows tells why.
    const { stdin, stdout, stderr, stdio = [] } = child as Partial<ChildProcess>
    if (launch?.policy !== undefined) this.#instruct(launch, launch.policy, stdio)
    this.stdin = stdin ?? new PassThrough()
    this.stdout = stdout ?? new PassThrough()
    // What is written meanwhile waits: a server whose launcher enforces less than it should gets no message.
    this.#held = launch?.policy !== undefined
    if (this.#held) this.stdin.cork()
    this.#stderr = new StderrLines(what.stderr ?? 'log', context, () => this.pid)
    if (child.pid !== undefined) {
      // A launcher sees for itself that the sidecar is gone. Killed at its work, it would leave the tree behind.
      if (launch?.policy === undefined) context.reaper.add(child.pid)
      context.metrics.processStarted()
    }
    this.stdin.on('error', () => {})
    this.stdout.on('error', () => {})
    stderr?.on('error', () => {})
    if (stderr) new Turns(stderr, (chunk, lines) => this.#stderr.push(chunk, lines), context.clock)
    let resolveGone = (): void => {}
    this.gone = new Promise((resolve) => {
      resolveGone = resolve
    })
    child.once('error', (cause) => {
      if (child.pid === undefined) {
        this.#exited = true
        launch?.ended()
        this.#end(`it could not be started: ${cause.message}`)
        resolveGone()
      }
    })
    child.once('exit', (code, signal) => {
      this.#exited = true
      launch?.ended()
      const exit = signal === null ? `it exited with code ${code}` : `it was ended by ${signal}`
      this.#kill()
      context.reaper.remove(child.pid as number)
      context.metrics.processExited(this.#stopping ? 'stopped' : signal === null ? 'exit' : 'signal')
      resolveGone()
      // What it wrote before it ended is still in the pipe. A process that left the group may hold the pipe open.
      child.once('close', () => this.#end(launch?.reason ?? exit))
      context.clock.after(settleMs, () => {
        this.stdout.destroy()
        this.#end(launch?.reason ?? exit)
      })
    })
    this.stdout.once('end', () => {
      context.clock.after(settleMs, () => {
        this.#end('it closed its stdout')
        void this.stop()
      })
    })
  }

  get pid(): number | undefined {
    return this.#launch?.pid ?? this.#group
  }

  get stopping(): boolean {
    return this.#stopping
  }

  get stderr(): 'log' | 'discard' {
    return this.#stderr.to
  }

  set stderr(to: 'log' | 'discard') {
    this.#stderr.to = to
  }

  stop(): Promise<void> {
    if (this.#stopping || this.#exited) return this.gone
    this.#stopping = true
    const { clock } = this.#context
    if (this.#held) this.stdin.destroy()
    else this.stdin.end()
    const steps = [
      clock.after(eofMs, () => this.killGroup('SIGTERM')),
      clock.after(eofMs + termMs, () => this.#kill()),
    ]
    // A launcher ends its whole tree, and then itself.
    if (this.#launch?.policy !== undefined) {
      steps.push(clock.after(eofMs + termMs + launcherMs, () => this.#killLauncher()))
    }
    void this.gone.then(() => {
      for (const step of steps) step.cancel()
    })
    return this.gone
  }

  #killLauncher(): void {
    this.#context.log.error(
      { pid: this.pid },
      'the launcher does not end and is killed; processes that the server started may be left',
    )
    this.killGroup('SIGKILL')
  }

  #kill(): void {
    this.killGroup(this.#launch?.policy === undefined || this.#exited ? 'SIGKILL' : 'SIGQUIT')
  }

  /** To the whole group. */
  killGroup(signal: 'SIGTERM' | 'SIGQUIT' | 'SIGKILL'): void {
    if (this.#group === undefined) return
    try {
      process.kill(-this.#group, signal)
    } catch {
      // ESRCH: nobody left in the group.
    }
  }

  /** Tells the launcher what it may let the server do, and hears what became of it. */
  #instruct(launch: Launch, policy: Buffer, stdio: ChildProcess['stdio'] | readonly never[]): void {
    const { log } = this.#context
    const [, , , orders, status] = stdio as readonly (Writable & Readable)[]
    // It may end before it has read everything; its status then says why.
    orders?.on('error', () => {})
    orders?.end(policy)
    const reader = new LineReader(statusLineBytes)
    status?.on('error', () => {})
    status?.on('data', (chunk: Buffer) => {
      reader.push(chunk, (line) => {
        try {
          if (!('bytes' in line)) throw new Error(`a line of ${line.overlongBytes} bytes`)
          const fate = launch.status(line.bytes.toString())
          if (fate === 'end') this.#refuse(launch.reason ?? 'it was not started')
          else if (fate === 'serve' && this.#held) {
            this.#held = false
            this.stdin.uncork()
          }
        } catch (thrown) {
          const { message } = thrown as Error
          log.warn({ pid: this.pid, err: message }, 'the launcher cannot be understood')
          if (this.#held) this.#refuse(`its launcher cannot be understood: ${message}`)
        }
      })
    })
  }

  /** It gets nothing of what was meant for it. */
  #refuse(reason: string): void {
    this.stdin.destroy()
    this.#kill()
    this.#end(reason)
  }

  #end(reason: string): void {
    if (this.#ended) return
    this.#ended = true
    this.#onEnd?.(reason)
    this.#onEnd = undefined
  }
}
