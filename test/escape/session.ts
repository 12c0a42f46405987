/** The attacker at work: tool calls to test/fixtures/escape/attacker-server.mjs, through a sidecar or without one. */
import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { call, post, send } from '../support/wire.ts'
import type { Args } from './attempt.ts'
import { endWithUs, plainly } from './children.ts'

export interface Ran {
  readonly exit?: number | null
  readonly signal?: string | null
  readonly error?: string
  readonly stdout?: string
  readonly stderr?: string
}

export interface Evaluated {
  readonly value?: unknown
  readonly error?: string
}

export interface Attempted {
  /** `ok`, an errno, a signal, `exit N`; `gone` where the server did not live to tell. */
  readonly outcome: string
  /** The member `result` of the line that the program printed. */
  readonly result: Readonly<Record<string, unknown>>
}

export interface RunOptions {
  readonly timeoutMs?: number
  readonly stdin?: string
  readonly cwd?: string
  /** Descriptors of the server that the program gets as 3, 4, and so on. */
  readonly shared?: readonly number[]
}

/** Calls a tool of the attacker; undefined where the server has gone. */
export type ToolCall = (name: string, args: object) => Promise<unknown>

export class Session {
  readonly #call: ToolCall
  readonly #program: string
  readonly close: () => Promise<void>

  /** @param program where the attacker finds the program with the attempts */
  constructor(toolCall: ToolCall, program: string, close: () => Promise<void>) {
    this.#call = toolCall
    this.#program = program
    this.close = close
  }

  /** Starts a program as a child of the server. */
  async run(program: string, args: Args = [], options: RunOptions = {}): Promise<Ran> {
    const answer = await this.#call('run', { program, args: args.map(String), ...options })
    return (answer ?? { error: 'gone' }) as Ran
  }

  async attempt(row: number, args: Args, options?: RunOptions): Promise<Attempted> {
    return outcomeOf(await this.run(this.#program, [row, ...args], options))
  }

  async eval(code: string): Promise<Evaluated> {
    return ((await this.#call('eval', { code })) ?? { error: 'gone' }) as Evaluated
  }

  /** The same as one word: the value where it is a text, `ok` for any other, or the error. */
  async outcome(code: string): Promise<string> {
    const { value, error } = await this.eval(code)
    return error ?? (typeof value === 'string' ? value : 'ok')
  }
}

/** Of the last line that a program of attempts printed. */
export function outcomeOf(ran: Ran): Attempted {
  const line = (ran.stdout ?? '').trim().split('\n').at(-1) ?? ''
  if (line.startsWith('{')) {
    const { errno, result } = JSON.parse(line) as { errno: string | null; result: Attempted['result'] | null }
    return { outcome: errno ?? 'ok', result: result ?? {} }
  }
  return { outcome: ran.error ?? ran.signal ?? `exit ${ran.exit}`, result: {} }
}

interface Answer {
  readonly id?: number
  readonly result?: { readonly content: readonly { readonly text: string }[] }
}

const toolAnswer = (answer: Answer | undefined): unknown => {
  const text = answer?.result?.content[0]?.text
  return text === undefined ? undefined : JSON.parse(text)
}

/** @param headers of a session that is open */
export function throughSidecar(url: string, headers: Record<string, string>, program: string): Session {
  let next = 1
  const toolCall: ToolCall = async (name, args) => {
    const id = next++
    const { messages } = await post(url, call(id, name, args), headers)
    return toolAnswer((messages as Answer[]).find((message) => message.id === id))
  }
  return new Session(toolCall, program, async () => {
    await send(url, 'DELETE', headers)
  })
}

/** The same server without a sidecar; `spawnOptions` say as whom. */
export function unconfined(
  command: readonly string[],
  spawnOptions: object,
  program: string,
): Session & { pid: number } {
  const [env, ...plain] = plainly
  const child: ChildProcess = spawn(env, [...plain, ...command], { detached: true, ...spawnOptions })
  endWithUs(child)
  const waiting = new Map<number, (answer: Answer | undefined) => void>()
  let next = 1
  if (child.stdout === null || child.stdin === null) throw new Error('the attacker has no pipes')
  createInterface({ input: child.stdout }).on('line', (line) => {
    if (!line.startsWith('{')) return
    const answer = JSON.parse(line) as Answer
    waiting.get(answer.id ?? -1)?.(answer)
    waiting.delete(answer.id ?? -1)
  })
  const gone = new Promise<void>((resolve) => {
    child.once('close', () => {
      for (const resolveCall of waiting.values()) resolveCall(undefined)
      resolve()
    })
  })
  const { stdin } = child
  stdin.on('error', () => {})
  const toolCall: ToolCall = async (name, given) => {
    const id = next++
    const answered = new Promise<Answer | undefined>((resolve) => waiting.set(id, resolve))
    stdin.write(`${JSON.stringify(call(id, name, given))}\n`)
    return toolAnswer(await answered)
  }
  const session = new Session(toolCall, program, () => {
    child.kill('SIGKILL')
    return gone
  })
  return Object.assign(session, { pid: child.pid as number })
}
