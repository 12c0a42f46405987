/** What a client and its server said to each other, without what differs from one run to the next. */
import type { Json, Peer } from './clients.ts'

export interface Transcript {
  /** What each step of the scenario came to: its result, or what it threw. */
  readonly steps: Record<string, unknown>
  /** Requests and notifications of the server, in order for each kind (and task, and progress token). */
  readonly fromServer: Record<string, unknown[]>
  readonly errors: readonly unknown[]
}

export class Recorder {
  readonly steps: Record<string, unknown> = {}
  readonly #peer: Peer
  readonly #ownNames: Readonly<Record<string, string>>

  /** @param ownNames texts that only this run has, such as its folder, and what stands for them */
  constructor(peer: Peer, ownNames: Readonly<Record<string, string>> = {}) {
    this.#peer = peer
    this.#ownNames = ownNames
  }

  /** Takes part in the transcript with what it resolves to or rejects with. */
  async step<T>(name: string, action: () => T | Promise<T>): Promise<T | undefined> {
    if (name in this.steps) throw new Error(`two steps are named ${name}`)
    try {
      const value = await action()
      this.steps[name] = value
      return value
    } catch (thrown) {
      const { code, message, data } = thrown as { code?: unknown; message?: unknown; data?: unknown }
      this.steps[name] = { threw: { code, message, data } }
      return undefined
    }
  }

  transcript(): Transcript {
    const channels: Record<string, unknown[]> = {}
    for (const { method, params } of this.#peer.wire.fromServer) {
      const said = isCounted(params?.progressToken) ? { ...params, progressToken: 'counted' } : { ...params }
      const channel = `${method} ${said.progressToken ?? said.taskId ?? ''}`
      channels[channel] ??= []
      channels[channel]?.push(said)
    }
    const errors = this.#peer.errors.filter(
      (text) => !text.includes('progress notification for an unknown token'),
    )
    const ordered = Object.fromEntries(Object.entries(channels).sort(([a], [b]) => sortKey(a, b)))
    const whole = { steps: this.steps, fromServer: ordered, errors }
    return new Normaliser(this.#ownNames).value(whole) as Transcript
  }
}

/** A progress token that an SDK chose: the number of its request, which depends on how often it polled. */
const isCounted = (token: unknown): boolean => typeof token === 'number' && token < 10_000

const sortKey = (a: string, b: string): number => {
  const [methodA, methodB] = [a.split(' ')[0] ?? '', b.split(' ')[0] ?? '']
  return methodA < methodB ? -1 : methodA > methodB ? 1 : 0
}

const id = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{32}\b/g
const times: readonly RegExp[] = [
  /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z/g,
  /\b\d{1,2}:\d\d:\d\d(\s[AP]M)?/g,
  /\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} \d\d \d{4} /g,
]

class Normaliser {
  readonly #ids = new Map<string, string>()
  readonly #ownNames: readonly (readonly [string, string])[]

  constructor(ownNames: Readonly<Record<string, string>>) {
    this.#ownNames = Object.entries(ownNames)
  }

  value(value: unknown): unknown {
    if (typeof value === 'string') return this.#text(value)
    if (Array.isArray(value)) return value.map((each) => this.value(each))
    if (typeof value !== 'object' || value === null) return value
    const entries = Object.entries(value).filter(([, each]) => each !== undefined)
    return Object.fromEntries(
      entries.map(([key, each]) => [
        this.#text(key),
        key === 'blob' && typeof each === 'string' ? this.#blob(each) : this.value(each),
      ]),
    )
  }

  #blob(base64: string): string {
    const text = Buffer.from(base64, 'base64').toString()
    return text.includes(' created at ') ? `base64 of ${this.#text(text)}` : base64
  }

  #text(text: string): string {
    let normal = text
    for (const [own, standIn] of this.#ownNames) normal = normal.replaceAll(own, standIn)
    normal = normal.replace(id, (each) => {
      const known = this.#ids.get(each) ?? `<id ${this.#ids.size + 1}>`
      this.#ids.set(each, known)
      return known
    })
    for (const time of times) normal = normal.replace(time, '<time>')
    return normal
  }
}

/** The messages of a task without how often its state was looked at. */
export function outline(messages: readonly Json[]): Json[] {
  return messages.filter(({ type }) => type !== 'taskStatus')
}
