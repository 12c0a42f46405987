/** Follows what passes on the wire of one sidecar and checks each message by the version that is in force for it. */
import { type Asked, checkWire, type Fault } from './schema.ts'
import { isVersion, type Version } from './schemas.ts'
import type { Seen } from './wire-tap.ts'

// biome-ignore lint/suspicious/noExplicitAny: messages of any shape are looked into
type Json = any

export interface WireFault {
  readonly version: Version
  readonly where: string
  readonly text: string
  readonly faults: readonly Fault[]
}

/** What one side has asked the other, by id. */
class Questions {
  readonly #asked = new Map<unknown, Asked & { readonly version: Version | undefined }>()
  /** The last one that a request named for itself. */
  version: Version | undefined

  note(message: Json): void {
    const { id, method, params } = message ?? {}
    if (id === undefined || typeof method !== 'string') return
    const version = envelopeVersion(message)
    this.#asked.set(id, { method, params, version })
    this.version = version ?? this.version
  }

  get(id: unknown) {
    return this.#asked.get(id)
  }
}

/** Whoever speaks the handshake once: a client's session, or a server process. */
class Conversation {
  version: Version | undefined
  readonly asked = new Questions()
  readonly answered = new Questions()
}

interface HttpExchange {
  readonly port: number
  readonly path: string
  session: Conversation | undefined
  readonly claimed: Version | undefined
  readonly asked: Questions
  type: string
  /** Of a body, or of an event, that is not complete yet. */
  parts: string[]
}

interface Piped extends Conversation {
  /** Of lines that are not complete yet. */
  readonly said: string[]
  readonly told: string[]
}

/** What is in force before anything is agreed on. */
const latest: Version = '2025-11-25'

function envelopeVersion({ params }: Json): Version | undefined {
  const version = params?._meta?.['io.modelcontextprotocol/protocolVersion']
  return isVersion(version) ? version : undefined
}

export class WireWatch {
  readonly faults: WireFault[] = []
  /** How many messages of the sidecar, by where they went. */
  readonly checked: Record<string, number> = {}
  readonly #mine: (seen: Seen) => boolean
  readonly #exchanges = new Map<number, HttpExchange>()
  readonly #sessions = new Map<string, Conversation>()
  readonly #sockets = new Map<number, Conversation>()
  readonly #processes = new Map<number, Piped>()
  readonly #illFormed: Set<string>

  /**
   * @param mine what belongs to this sidecar of what a process has several of
   * @param illFormed what came in ill-formed, and is not the sidecar's fault when it goes out word for word
   */
  constructor(mine: (seen: Seen) => boolean = () => true, illFormed = new Set<string>()) {
    this.#mine = mine
    this.#illFormed = illFormed
  }

  note(seen: Seen): void {
    if (seen.kind === 'response' || seen.kind === 'sent') {
      const exchange = this.#exchanges.get(seen.exchange)
      if (exchange === undefined) return
      if (seen.kind === 'response') this.#begin(exchange, seen.headers)
      else this.#sent(exchange, seen.text, seen.last)
    } else if (this.#mine(seen)) {
      if (seen.kind === 'request') this.#request(seen)
      else if (seen.kind === 'frame') this.#frame(seen)
      else if (seen.kind === 'pipe') this.#pipe(seen)
      else this.#toClient(seen.text.slice(seen.text.indexOf('\r\n\r\n') + 4), 'to a bare connection', {})
    }
  }

  #request({ exchange, port, path, headers, text }: Extract<Seen, { kind: 'request' }>): void {
    const url = new URL(path, 'http://sidecar')
    const name = headers['mcp-session-id'] ?? url.searchParams.get('sessionId')
    const session = this.#sessions.get(String(name))
    const version = headers['mcp-protocol-version']
    const claimed = isVersion(version) ? version : undefined
    const known = this.#exchanges.get(exchange)
    const http = known ?? { port, path, session, claimed, asked: new Questions(), type: '', parts: [] }
    this.#exchanges.set(exchange, http)
    for (const message of messagesOf(text)) {
      http.asked.note(message)
      this.#fromClient(message, http.session)
    }
  }

  #begin(exchange: HttpExchange, headers: Readonly<Record<string, string>>): void {
    exchange.type = headers['content-type']?.split(';')[0] ?? ''
    const name = headers['mcp-session-id']
    if (name !== undefined) this.#openSession(name, exchange)
  }

  #openSession(name: string, exchange: HttpExchange): void {
    const session = this.#sessions.get(name) ?? new Conversation()
    this.#sessions.set(name, session)
    exchange.session = session
  }

  #sent(exchange: HttpExchange, text: string, last: boolean): void {
    const where = `to the client on ${exchange.path.split('?')[0]}`
    if (exchange.type === 'text/event-stream') {
      for (const event of completed(exchange.parts, text, '\n\n')) this.#event(event, where, exchange)
      return
    }
    exchange.parts.push(text)
    if (!last) return
    const body = exchange.parts.splice(0).join('')
    // Metadata of OAuth is JSON, too, but not of this protocol.
    const isMessage = exchange.type === 'application/json' && !exchange.path.startsWith('/.well-known/')
    if (isMessage && body !== '') this.#toClient(body, where, exchange)
  }

  #event(event: string, where: string, exchange: HttpExchange): void {
    const lines = event.split('\n')
    const data = lines.filter((line) => line.startsWith('data:')).map((line) => line.slice(5).trimStart())
    if (lines.includes('event: endpoint')) {
      const name = new URL(data.join(''), 'http://sidecar').searchParams.get('sessionId')
      if (name !== null) this.#openSession(name, exchange)
    } else if (data.join('') !== '') this.#toClient(data.join('\n'), where, exchange)
  }

  #frame({ socket, by, text }: Extract<Seen, { kind: 'frame' }>): void {
    const session = this.#sockets.get(socket) ?? new Conversation()
    this.#sockets.set(socket, session)
    if (by === 'sidecar') this.#toClient(text, 'to the client over WebSocket', { session })
    else for (const message of messagesOf(text)) this.#fromClient(message, session)
  }

  #fromClient(message: Json, session: Conversation | undefined): void {
    session?.asked.note(message)
    const version = envelopeVersion(message) ?? session?.version ?? latest
    this.#received(message, { version, from: 'client', asked: (id) => session?.answered.get(id) })
  }

  #toClient(text: string, where: string, way: Partial<HttpExchange>): void {
    const { session } = way
    const asked = (id: unknown) => way.asked?.get(id) ?? session?.asked.get(id)
    const all = parse(text)
    let agreed: Version | undefined
    let own: Version | undefined
    for (const message of [all].flat()) {
      session?.answered.note(message)
      if (!isAnswer(message)) continue
      const question = asked(message.id)
      own = question?.version ?? own
      const named = question?.method === 'initialize' ? message.result?.protocolVersion : undefined
      if (isVersion(named)) agreed = named
    }
    if (session !== undefined && agreed !== undefined) session.version = agreed
    const modern = own ?? way.asked?.version
    const version = modern ?? agreed ?? session?.version ?? way.claimed ?? session?.asked.version ?? latest
    this.#check(text, all, where, { version, from: 'server', asked })
  }

  #pipe({ process, by, text }: Extract<Seen, { kind: 'pipe' }>): void {
    const server = this.#processes.get(process) ?? Object.assign(new Conversation(), { said: [], told: [] })
    this.#processes.set(process, server)
    for (const line of completed(by === 'server' ? server.said : server.told, text, '\n')) {
      if (by === 'sidecar') this.#toServer(line, server)
      else for (const message of messagesOf(line)) this.#fromServer(message, server)
    }
  }

  #fromServer(message: Json, server: Conversation): void {
    server.answered.note(message)
    const asked = (id: unknown) => server.asked.get(id)
    if (isAnswer(message) && asked(message.id)?.method === 'initialize') {
      const agreed = message.result?.protocolVersion
      if (isVersion(agreed)) server.version = agreed
    }
    const own = isAnswer(message) ? asked(message.id)?.version : undefined
    const version = own ?? server.version ?? server.asked.version ?? latest
    this.#received(message, { version, from: 'server', asked })
  }

  #toServer(line: string, server: Conversation): void {
    const all = parse(line)
    for (const message of [all].flat()) server.asked.note(message)
    const first = [all].flat()[0]
    const proposed = first?.method === 'initialize' ? first.params?.protocolVersion : undefined
    const own = envelopeVersion(first ?? {}) ?? (isVersion(proposed) ? proposed : undefined)
    const version = own ?? server.version ?? server.asked.version ?? latest
    const asked = (id: unknown) => server.answered.get(id)
    this.#check(line, all, 'to the server process', { version, from: 'client', asked })
  }

  #received(message: Json, context: Parameters<typeof checkWire>[1]): void {
    // Between versions of the handshake era messages are handed on as they are, those of methods that the sender's own
    // version does not know included.
    const judges = context.version < latest ? [context.version, latest] : [context.version]
    const faulty = judges.some((version) => checkWire(message, { ...context, version }).length > 0)
    if (!faulty) return
    this.#illFormed.add(content(message))
    // An id or token of its own making comes back to it.
    for (const own of [message.id, message.params?._meta?.progressToken]) this.#illFormed.add(named(own))
  }

  #check(text: string, all: Json, where: string, context: Parameters<typeof checkWire>[1]): void {
    this.checked[where] = (this.checked[where] ?? 0) + 1
    if (all === undefined) {
      const faults = [{ schema: 'JSONRPCMessage', at: '', what: 'not JSON' }]
      this.faults.push({ version: context.version, where, text: utf8(text), faults })
      return
    }
    const whole = Array.isArray(all) ? checkWire(all, context).filter(({ at }) => at === '') : []
    const faults = [...whole, ...[all].flat().flatMap((message) => this.#own(message, context))]
    if (faults.length > 0) this.faults.push({ version: context.version, where, text: utf8(text), faults })
  }

  #own(message: Json, context: Parameters<typeof checkWire>[1]): Fault[] {
    const faults = checkWire(message, context)
    if (faults.length > 0 && this.#illFormed.has(content(message))) return []
    const echoed: Readonly<Record<string, unknown>> = {
      '/id': message?.id,
      '/params/progressToken': message?.params?.progressToken,
    }
    return faults.filter(({ at }) => !(at in echoed && this.#illFormed.has(named(echoed[at]))))
  }
}

/**
 * What is complete with this text; the rest is kept. A large message comes in many texts, of which none is looked at
 * twice: what ends an event is always written in one piece.
 */
function completed(parts: string[], text: string, end: string): string[] {
  const found = text.split(end)
  const rest = found.pop() ?? ''
  if (found.length > 0) found[0] = [...parts.splice(0), found[0]].join('')
  if (rest !== '') parts.push(rest)
  return found
}

function isAnswer(message: Json): boolean {
  return message?.method === undefined && message?.id !== undefined
}

function named(token: unknown): string {
  return `token ${JSON.stringify(token)}`
}

/** Without what the sidecar replaces while it relays. */
function content(message: Json): string {
  if (typeof message !== 'object' || message === null) return JSON.stringify(message)
  const { id: _, ...rest } = message
  return JSON.stringify(rest, (key, value) => (key === 'progressToken' || key === 'requestId' ? null : value))
}

function utf8(text: string): string {
  return Buffer.from(text, 'latin1').toString('utf8')
}

function parse(text: string): Json {
  try {
    return JSON.parse(utf8(text))
  } catch {
    return undefined
  }
}

/** Those in a text that are objects; clients and servers say all sorts of things. */
function messagesOf(text: string): Json[] {
  return [parse(text)].flat().filter((message) => typeof message === 'object' && message !== null)
}

/** For a person to read: what is wrong, by which version, and the message itself. */
export function describe({ version, where, text, faults }: WireFault): string {
  const shown = text.length > 600 ? `${text.slice(0, 600)}… (${text.length} characters)` : text
  const rules = faults.map(({ schema, at, what }) => `    ${at === '' ? '/' : at}: ${what} [${schema}]`)
  return [`not valid in ${version}, ${where}:`, `    ${shown}`, ...new Set(rules)].join('\n')
}
