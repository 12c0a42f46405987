/** A proxy with a resolver of the test's own, servers on loopback, and clients that speak bytes. */
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import type { EgressChild, EgressVerdict, HostRule, NetworkPolicy } from '../../src/core/sandbox.ts'
import type { Clock, Logger } from '../../src/core/types.ts'
import { Egress, type EgressContext, type EgressEnd } from '../../src/egress/egress.ts'
import { forwardClock } from '../support/forward-clock.ts'

export interface Teardown {
  teardown(then: () => unknown): void
}

export interface TestEgress {
  readonly egress: Egress
  readonly verdicts: EgressVerdict[]
  readonly ends: EgressEnd[]
  /** Names that were asked of the resolver. */
  readonly asked: string[]
  /** What the resolver knows; a function is asked each time. */
  readonly names: Map<string, readonly string[] | (() => readonly string[] | Promise<readonly string[]>)>
  /** Warnings of the proxy: what it did not expect. */
  readonly warnings: object[]
}

export const silent: Logger = { debug() {}, info() {}, warn() {}, error() {} }

export async function startEgress(t: Teardown, context: Partial<EgressContext> = {}): Promise<TestEgress> {
  const verdicts: EgressVerdict[] = []
  const ends: EgressEnd[] = []
  const asked: string[] = []
  const warnings: object[] = []
  const names: TestEgress['names'] = new Map()
  const egress = await Egress.start({
    clock: forwardClock(),
    log: { ...silent, warn: (fields) => void warnings.push(fields) },
    resolve: async (name) => {
      asked.push(name)
      const found = names.get(name.replace(/\.$/, ''))
      if (found === undefined) throw Object.assign(new Error('no such name'), { code: 'ENOTFOUND' })
      return typeof found === 'function' ? await found() : found
    },
    ownPorts: () => [],
    onVerdict: (verdict) => void verdicts.push(verdict),
    onEnd: (end) => void ends.push(end),
    ...context,
  })
  t.teardown(() => egress.close())
  return { egress, verdicts, ends, asked, names, warnings }
}

export const realClock: Clock = forwardClock()

/** `example.com`, `*.example.com` or `*`. */
export function hostRules(...hosts: string[]): HostRule[] {
  return hosts.map((host) =>
    host === '*'
      ? { kind: 'any' }
      : host.startsWith('*.')
        ? { kind: 'below', name: host.slice(2) }
        : { kind: 'exact', name: host },
  )
}

/** An allowlist; what is left out is empty. */
export function allow(
  parts: { hosts?: string[]; cidrs?: string[]; ports?: number[]; checkSni?: boolean } = {},
): NetworkPolicy {
  const { hosts = [], cidrs = [], ports = [], checkSni = false } = parts
  return { mode: 'allowlist', hosts: hostRules(...hosts), cidrs, ports, checkSni }
}

/** What names resolve to here, and what it takes to be let through to it. */
export const toLoopback = ['127.0.0.1/32']

/** @returns the port */
export async function startTcp(
  t: Teardown,
  serve: (socket: Socket) => void,
  host = '127.0.0.1',
  port = 0,
): Promise<number> {
  const sockets = new Set<Socket>()
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', () => {})
    serve(socket)
  })
  server.listen(port, host)
  await once(server, 'listening')
  t.teardown(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  return (server.address() as AddressInfo).port
}

/** Sends back what it gets, and ends when the other side has. */
export const echo = (socket: Socket): void => void socket.pipe(socket)

/** A port of loopback at which nobody listens. */
export async function closedPort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

/** A connection of which everything that comes is kept. */
export class Wire {
  readonly socket: Socket
  #bytes = Buffer.alloc(0)
  /** How it ended: `end` when the other side ended its half, or a code such as ECONNRESET. */
  outcome: string | undefined
  closed = false
  readonly #listeners = new Set<() => void>()

  constructor(port: number, host = '127.0.0.1') {
    this.socket = connect({ port, host, allowHalfOpen: true, noDelay: true })
    this.socket.on('data', (chunk: Buffer) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk])
      this.#changed()
    })
    this.socket.on('end', () => {
      this.outcome ??= 'end'
      this.#changed()
    })
    this.socket.on('error', (cause: NodeJS.ErrnoException) => {
      this.outcome = cause.code ?? cause.message
    })
    this.socket.on('close', () => {
      this.closed = true
      this.outcome ??= 'closed'
      this.#changed()
    })
  }

  #changed(): void {
    for (const listener of this.#listeners) listener()
  }

  write(data: string | Buffer): this {
    this.socket.write(typeof data === 'string' ? Buffer.from(data, 'latin1') : data)
    return this
  }

  get bytes(): Buffer {
    return this.#bytes
  }

  get text(): string {
    return this.#bytes.toString('latin1')
  }

  async when(met: () => boolean, what: string, ms = 20_000): Promise<void> {
    if (met()) return
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(
        () => settle(new Error(`${what} did not happen; got ${JSON.stringify(this.text)}, ${this.outcome}`)),
        ms,
      )
      const listener = (): void => {
        if (met()) settle()
      }
      const settle = (error?: Error): void => {
        clearTimeout(timer)
        this.#listeners.delete(listener)
        if (error === undefined) resolve()
        else reject(error)
      }
      this.#listeners.add(listener)
    })
  }

  /** Waits for so many bytes, and takes them. */
  async take(bytes: number): Promise<Buffer> {
    await this.when(() => this.#bytes.length >= bytes, `${bytes} bytes`)
    const taken = this.#bytes.subarray(0, bytes)
    this.#bytes = this.#bytes.subarray(bytes)
    return taken
  }

  /** Waits for a text, and takes everything up to its end. */
  async until(text: string): Promise<string> {
    await this.when(() => this.text.includes(text) || this.outcome !== undefined, JSON.stringify(text))
    const end = this.text.indexOf(text)
    if (end < 0)
      throw new Error(`no ${JSON.stringify(text)}, but ${JSON.stringify(this.text)}, ${this.outcome}`)
    return (await this.take(end + text.length)).toString('latin1')
  }

  /** Takes a head of HTTP. */
  async status(): Promise<number> {
    return Number((await this.until('\r\n\r\n')).split(' ')[1])
  }

  /** How it ended. */
  async end(ms = 20_000): Promise<string> {
    await this.when(() => this.outcome !== undefined, 'the end', ms)
    return this.outcome as string
  }

  close(): void {
    this.socket.destroy()
  }
}

export function basic(child: Pick<EgressChild, 'token'>): string {
  return `Basic ${Buffer.from(`child:${child.token.reveal()}`).toString('base64')}`
}

/** The head of a CONNECT as the proxy variables of a child make clients send it; with `broker`, as the broker does. */
export function connectHead(
  child: Pick<EgressChild, 'token'>,
  target: string,
  broker?: 'wait' | 'early',
): string {
  const lines = [`CONNECT ${target} HTTP/1.1`, `Host: ${target}`]
  if (broker === undefined) lines.push(`Proxy-Authorization: ${basic(child)}`)
  else lines.push(`Proxy-Authorization: Bearer ${child.token.reveal()}`, `Mcp-Sidecar-Broker: ${broker}`)
  return `${lines.join('\r\n')}\r\n\r\n`
}

/** Asks for a tunnel. The wire goes on behind the answer. */
export async function tunnelTo(
  { egress }: Pick<TestEgress, 'egress'>,
  child: Pick<EgressChild, 'token'>,
  target: string,
  broker?: 'wait' | 'early',
): Promise<{ wire: Wire; status: number }> {
  const wire = new Wire(egress.port).write(connectHead(child, target, broker))
  return { wire, status: await wire.status() }
}

/** The status of a CONNECT whose connection is closed at once. */
export async function statusOf(
  proxy: Pick<TestEgress, 'egress'>,
  child: Pick<EgressChild, 'token'>,
  target: string,
  broker?: 'wait' | 'early',
): Promise<number> {
  const { wire, status } = await tunnelTo(proxy, child, target, broker)
  wire.close()
  return status
}
