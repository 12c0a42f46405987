/** A process that attempts aim at (test/fixtures/escape/victim.c), and what it saw of them. */
import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'

export interface VictimFacts {
  readonly pid: number
  /** Of its secret. */
  readonly address: string
  /** A descriptor of a file that only it has open. */
  readonly file: number
  readonly abstract: string
  readonly abstractDatagram: string
  readonly path: string
  readonly pathDatagram: string
  readonly memory: number
  readonly queue: number
  readonly semaphore: number
  /** Empty where the kernel has no POSIX queues. */
  readonly posixQueue: string
  readonly shared: string
  readonly slowPort: number
}

export interface VictimEnd {
  readonly priority: number
  readonly scheduler: number
  /** 1 for each thing that is not as it was: memory, shared, queue, semaphore, posixQueue, object, held, core. */
  readonly [thing: string]: number | string
}

type Event = { readonly event: string } & Record<string, unknown>

export class Victim {
  readonly facts: VictimFacts
  readonly #child: ChildProcess
  readonly #events: Events

  private constructor(child: ChildProcess, facts: VictimFacts, events: Events) {
    this.#child = child
    this.facts = facts
    this.#events = events
  }

  /**
   * @param folder its own
   * @param reached where it is written what reached it
   */
  static async start(program: string, folder: string, identity: object, reached: string[]): Promise<Victim> {
    const child = spawn(program, [folder], {
      ...identity,
      detached: true,
      env: { VICTIM_SECRET: 'canary-in-environment' },
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    const events = new Events(child, reached)
    const facts = (await events.next('ready')) as unknown as VictimFacts
    return new Victim(child, facts, events)
  }

  /** Resolves when everything that reached it before is written. */
  async settled(): Promise<void> {
    const heard = this.#events.next('heard')
    this.#child.stdin?.write('?')
    await heard
  }

  /** Whether something ended it before its time. */
  get died(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null
  }

  async end(): Promise<VictimEnd> {
    const end = this.#events.next('end')
    await this.close()
    return (await end) as unknown as VictimEnd
  }

  /** Ends it as it should end, which takes its System V objects away; it also does so when this process ends first. */
  async close(): Promise<void> {
    if (this.died) return
    const late = setTimeout(() => this.#child.kill('SIGKILL'), 20_000)
    const closed = new Promise((resolve) => {
      this.#child.once('close', resolve)
    })
    this.#child.stdin?.end()
    await closed
    clearTimeout(late)
  }
}

class Events {
  readonly #waiting: { readonly event: string; readonly resolve: (event: Event) => void }[] = []

  constructor(child: ChildProcess, reached: string[]) {
    if (child.stdout === null) throw new Error('the victim has no stdout')
    createInterface({ input: child.stdout }).on('line', (line) => {
      const event = JSON.parse(line) as Event
      if (event.event === 'reached') reached.push(`${event['by']} ${event['signal'] ?? ''}`.trim())
      const index = this.#waiting.findIndex((each) => each.event === event.event)
      if (index >= 0) this.#waiting.splice(index, 1)[0]?.resolve(event)
    })
    child.stdout.once('close', () => {
      for (const { event, resolve } of this.#waiting) resolve({ event, died: 1 })
    })
  }

  next(event: string): Promise<Event> {
    return new Promise((resolve) => this.#waiting.push({ event, resolve }))
  }
}
