/** The way out of server processes: a proxy on loopback that only they can use, each within its own rules. */
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import type { EgressChild, EgressVerdict, NetworkPolicy } from '../core/sandbox.ts'
import { Credential, sha256 } from '../core/secret.ts'
import type { Clock, Logger } from '../core/types.ts'
import { Child, tokenUser } from './child.ts'
import {
  type Admission,
  type ClientConnection,
  clientConnection,
  type EgressEnd,
  type Front,
} from './connection.ts'
import { Connector } from './connector.ts'
import { type Dial, dialTcp } from './dial.ts'
import { serveHttp } from './http-proxy.ts'
import { defaultLimits, type EgressLimits } from './limits.ts'
import { Lookups, type Resolve, systemResolve } from './lookups.ts'
import { OwnAddresses } from './own-addresses.ts'
import { openFilesLimit, Places } from './places.ts'
import type { OwnMachine } from './rules.ts'
import { serveSocks5 } from './socks5.ts'

export type { EgressEnd } from './connection.ts'
export type { EgressLimits } from './limits.ts'

export interface EgressContext {
  readonly clock: Clock
  readonly log: Logger
  /** All addresses of a name; rejects with the code ENOTFOUND for one that does not exist. Default: the system's. */
  readonly resolve?: Resolve
  /** Default: TCP. */
  readonly dial?: Dial
  /** Ports of the sidecar's own listeners, which no child may reach; the proxy's is added. */
  readonly ownPorts: () => readonly number[]
  /** Default: those of this machine's interfaces, read anew every few seconds. */
  readonly ownAddresses?: () => readonly string[]
  /** Called for each decision; the caller limits what it makes of a flood. */
  readonly onVerdict: (verdict: EgressVerdict) => void
  /** Called when a connection, or one request of plain HTTP, is over. */
  readonly onEnd?: (end: EgressEnd) => void
  /** Descriptors that this process may have. Default: its soft limit. */
  readonly openFiles?: number | undefined
  /** Connections of all children at once; each needs two descriptors. Default 1024, or a quarter of `openFiles` if that is less. */
  readonly maxConnections?: number
}

/** From the first byte to a token that is right. Milliseconds. */
const strangerMs = 10_000
/**
 * Connections without a token at once. Beyond it, the one whose arrival, or first byte, is longest ago makes room: they may
 * be anybody's. A broker sends its token with its first byte, which is read before so many others can be accepted.
 */
const mostStrangers = 512
const mostConnections = 1024
/** Of connections that are not yet accepted, as far as the kernel allows (somaxconn): one that finds it full waits a second. */
const backlog = 4096
const loopback = '127.0.0.1'
const socksVersion = 5

export class Egress {
  readonly port: number
  readonly #context: EgressContext
  readonly #server: Server
  readonly #front: Front
  readonly #own: OwnMachine
  /** By the start of the token's digest. */
  readonly #children = new Map<string, Child>()
  /** Children so far. */
  #admitted = 0
  readonly #places: Places
  readonly #mostStrangers: number
  readonly #strangers = new Set<Socket>()
  readonly #sockets = new Set<Socket>()

  private constructor(context: EgressContext, server: Server) {
    this.#context = context
    this.#server = server
    this.port = (server.address() as AddressInfo).port
    const { clock, resolve = systemResolve, dial = dialTcp, onVerdict } = context
    const most = context.maxConnections ?? this.#affordable()
    this.#places = new Places(most)
    this.#mostStrangers = Math.min(mostStrangers, Math.ceil(most / 2))
    const addresses = new OwnAddresses(clock, context.ownAddresses)
    this.#own = {
      ports: () => [this.port, ...context.ownPorts()],
      has: (address) => addresses.has(address),
      reaches: (address) => addresses.reaches(address),
    }
    const lookups = new Lookups(resolve, clock)
    this.#front = {
      clock,
      connector: new Connector({ clock, dial, own: this.#own, lookups, onVerdict }),
      admit: (connection, token) => this.#admit(connection, token),
      ended: (end) => context.onEnd?.(end),
    }
    server.on('connection', (socket) => this.#accept(socket))
    // A connection that cannot be accepted is the loss of whoever made it.
    server.on('error', (cause) =>
      context.log.warn({ err: cause }, 'the egress proxy cannot accept a connection'),
    )
  }

  /** Listens on 127.0.0.1 at a port of the system's choice. @throws the operating system's error */
  static start(context: EgressContext): Promise<Egress> {
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true })
    return new Promise((resolve, reject) => {
      server.once('error', reject)
      server.listen({ host: loopback, port: 0, backlog }, () => {
        server.off('error', reject)
        resolve(new Egress(context, server))
      })
    })
  }

  /** @throws Error for a policy with a CIDR that is none */
  admit(
    policy: NetworkPolicy,
    { name, limits }: { name: string; limits?: Partial<EgressLimits> },
  ): EgressChild {
    const { clock } = this.#context
    const child = new Child({ name, number: ++this.#admitted }, policy, {
      limits: { ...defaultLimits, ...limits },
      own: this.#own,
      clock,
    })
    const key = keyOf(child.digest)
    this.#children.set(key, child)
    const address = `${loopback}:${this.port}`
    return {
      token: child.token,
      proxyUrl: new Credential(`http://${tokenUser}:${child.token.reveal()}@${address}`),
      address,
      close: () => {
        this.#children.delete(key)
        child.close()
      },
    }
  }

  /** @param processes that there may be at once; each has a share of the connections. Default 64 */
  share(processes: number): void {
    this.#places.share(processes)
  }

  /** Ends all connections; every token is void. */
  close(): Promise<void> {
    for (const child of this.#children.values()) child.close()
    this.#children.clear()
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()))
    for (const socket of this.#sockets) socket.destroy()
    return closed
  }

  #affordable(): number {
    const openFiles = this.#context.openFiles ?? openFilesLimit()
    const affordable = Math.floor(openFiles / 4)
    if (affordable >= mostConnections) return mostConnections
    this.#context.log.warn(
      { openFiles, connections: affordable, usual: mostConnections },
      'the limit of open files allows fewer connections of server processes; raise it (ulimit -n) for more',
    )
    return affordable
  }

  #accept(socket: Socket): void {
    this.#sockets.add(socket)
    this.#strangers.add(socket)
    if (this.#strangers.size > this.#mostStrangers) this.#strangers.values().next().value?.destroy()
    socket.once('close', () => {
      this.#sockets.delete(socket)
      this.#strangers.delete(socket)
    })
    const connection = clientConnection(socket, this.#context.clock)
    connection.endAfter(strangerMs)
    this.#serve(connection).catch((cause: unknown) => {
      if (!socket.destroyed) this.#context.log.warn({ err: cause }, 'a connection of the egress proxy failed')
      socket.destroy()
    })
  }

  async #serve(connection: ClientConnection): Promise<void> {
    const { reader, socket } = connection
    while (reader.held.length === 0) {
      if (await reader.more()) continue
      socket.destroy()
      return
    }
    if (this.#strangers.delete(socket)) this.#strangers.add(socket)
    if (reader.held[0] === socksVersion) await serveSocks5(connection, this.#front)
    else await serveHttp(connection, this.#front)
  }

  #admit(connection: ClientConnection, token: string | undefined): Admission {
    const digest = token === undefined ? undefined : sha256(token)
    const child = digest === undefined ? undefined : this.#children.get(keyOf(digest))
    if (digest === undefined || child === undefined || !child.matches(digest)) return { refusal: 'token' }
    if (connection.child === child) return { child }
    if (connection.child !== undefined) return { refusal: 'token' }
    const overOwn = child.connections >= child.limits.connections
    if (overOwn || !this.#places.free(child.connections, this.#sockets.size - this.#strangers.size)) {
      const rule = overOwn ? 'limit:connections' : 'limit:all-connections'
      this.#front.connector.tell(child, 'connect', { host: '', port: 0 }, { allowed: false, rule })
      return { refusal: 'busy' }
    }
    connection.child = child
    this.#strangers.delete(connection.socket)
    child.hold(connection.socket)
    return { child }
  }
}

function keyOf(digest: Buffer): string {
  return digest.toString('hex', 0, 8)
}
