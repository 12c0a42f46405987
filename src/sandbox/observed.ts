/** What a watched server did, collected over all its processes. */
import type { EgressVerdict } from '../core/sandbox.ts'

/** `create` and `remove` are about an entry of a folder; renaming is both. */
export const fileAccesses = ['read', 'list', 'write', 'create', 'remove', 'execute'] as const
export type FileAccess = (typeof fileAccesses)[number]

/** What no profile allows. `socket`: of a kind that is none of the others. */
export const attempts = ['unix', 'udp', 'bind', 'listen', 'socket'] as const
export type Attempt = (typeof attempts)[number]

/** One line of the launcher about a watched server. */
export type Observation =
  /** Of a process below the server's first one, `/proc/self/...` is its own; `/proc/PID/...` is somebody else's. */
  | { readonly event: 'file'; readonly access: FileAccess; readonly path: string }
  | { readonly event: 'tried'; readonly what: Attempt; readonly port: number | undefined }
  /** The largest so far. */
  | { readonly event: 'size'; readonly rssBytes: number; readonly processes: number }
  /** There was more than the launcher can hold. */
  | { readonly event: 'lost' }

export interface Connection {
  /** A name, or an address where no name was given. */
  readonly host: string
  readonly port: number
  /** That were connected to. */
  readonly addresses: ReadonlySet<string>
  readonly count: number
}

/** What was seen, for {@link ./learned.ts}. */
export interface Seen {
  /** Real paths, without links. */
  readonly files: ReadonlyMap<string, ReadonlySet<FileAccess>>
  /** Programs that were started as the server. */
  readonly commands: ReadonlySet<string>
  readonly connections: readonly Connection[]
  /** `HOST:PORT`, and why it was not reached. */
  readonly unreached: ReadonlyMap<string, string>
  /** Names that were only looked up. */
  readonly lookedUp: ReadonlySet<string>
  /** With the ports, where there are any. */
  readonly attempts: ReadonlyMap<Attempt, ReadonlySet<number>>
  readonly rssBytes: number
  readonly processes: number
  /** Something was left out. */
  readonly incomplete: boolean
}

const mostFiles = 50_000
const mostConnections = 2000

interface Counted {
  readonly host: string
  readonly port: number
  readonly addresses: Set<string>
  count: number
}

export class Observed implements Seen {
  readonly files = new Map<string, Set<FileAccess>>()
  readonly commands = new Set<string>()
  readonly unreached = new Map<string, string>()
  readonly attempts = new Map<Attempt, Set<number>>()
  readonly #names = new Set<string>()
  readonly #connections = new Map<string, Counted>()
  rssBytes = 0
  processes = 0
  incomplete = false

  get connections(): readonly Connection[] {
    return [...this.#connections.values()]
  }

  get lookedUp(): ReadonlySet<string> {
    const used = new Set([...this.#connections.values()].map(({ host }) => host))
    return new Set([...this.#names].filter((name) => !used.has(name)))
  }

  /** One start of the server; takes what its launcher tells. */
  start(): (observation: Observation) => void {
    let started = false
    return (observation) => {
      // The launcher itself runs the server's program, before anything else.
      if (!started && observation.event === 'file' && observation.access === 'execute') {
        started = true
        this.commands.add(observation.path)
      }
      this.#take(observation)
    }
  }

  #take(observation: Observation): void {
    switch (observation.event) {
      case 'file': {
        const known = this.files.get(observation.path)
        if (known !== undefined) known.add(observation.access)
        else if (this.files.size < mostFiles) this.files.set(observation.path, new Set([observation.access]))
        else this.incomplete = true
        break
      }
      case 'tried': {
        const ports = this.attempts.get(observation.what) ?? new Set()
        if (observation.port !== undefined) ports.add(observation.port)
        this.attempts.set(observation.what, ports)
        break
      }
      case 'size':
        this.rssBytes = Math.max(this.rssBytes, observation.rssBytes)
        this.processes = Math.max(this.processes, observation.processes)
        break
      case 'lost':
        this.incomplete = true
    }
  }

  /** A decision of the proxy, which lets a watched server reach everything but the sidecar itself. */
  connected({ protocol, allowed, host, port, address, rule, reason }: EgressVerdict): void {
    if (host === '') return
    if (protocol === 'dns') {
      if (allowed && reason === undefined && this.#names.size < mostConnections) this.#names.add(host)
      return
    }
    const key = `${host.includes(':') ? `[${host}]` : host}:${port}`
    if (!allowed || address === undefined || reason !== undefined) {
      const why = rule === 'own-port' ? 'it belongs to the sidecar' : (reason ?? rule)
      if (this.unreached.size < mostConnections) this.unreached.set(key, why)
      return
    }
    const known = this.#connections.get(key)
    if (known !== undefined) {
      known.addresses.add(address)
      known.count++
    } else if (this.#connections.size < mostConnections) {
      this.#connections.set(key, { host, port, addresses: new Set([address]), count: 1 })
    } else this.incomplete = true
  }
}
