import type { Clock, Lifecycle, Timer } from '../core/types.ts'

interface Retired {
  readonly server: Lifecycle
  /** Until it is stopped whatever still runs there; undefined: it may take as long as whoever uses it. */
  deadline: Timer | undefined
}

/** Servers of before a reload, until the last process of each is gone. */
export class RetiredServers {
  readonly #clock: Clock
  #all: Retired[] = []

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** @param server retired already: it starts nothing any more */
  add(server: Lifecycle): void {
    this.#all = [...this.#all.filter(hasProcesses), { server, deadline: undefined }]
  }

  /** What processes may touch is not what it was when they were started: all of them are stopped after `graceMs`. */
  outdate(graceMs: number): void {
    for (const each of this.#all) {
      const { server } = each
      each.deadline ??= this.#clock.after(graceMs, () => void server.close())
    }
  }

  get processes(): number {
    return this.#all.reduce((sum, { server }) => sum + server.processes, 0)
  }

  /** Processes that may still do what the configuration does not say any more. */
  get outdated(): number {
    return this.#all.reduce(
      (sum, { server, deadline }) => sum + (deadline === undefined ? 0 : server.processes),
      0,
    )
  }

  /** Stops every process and resolves when all are gone. */
  async close(): Promise<void> {
    for (const { deadline } of this.#all) deadline?.cancel()
    await Promise.all(this.#all.map(({ server }) => server.close()))
  }
}

function hasProcesses({ server }: Retired): boolean {
  return server.processes > 0
}
