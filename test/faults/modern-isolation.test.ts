import { setTimeout as pause } from 'node:timers/promises'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { forwardClock } from '../support/forward-clock.ts'
import {
  ask,
  begin,
  everything,
  type Id,
  type Json,
  modern,
  type Request,
  retry,
  said,
  serverCommand,
  tool,
} from '../support/modern.ts'
import { connectPeer, type Peer } from '../support/peers.ts'
import { startTestSidecar, type TestOptions, type TestSidecar, until } from '../support/sidecar.ts'
import { openSocket, type SocketClient } from '../support/streams.ts'
import { bearerTokens } from '../support/tokens.ts'
import { call as legacyCall } from '../support/wire.ts'

/*
 * Several principals have calls under way at once during which the server asks, over every transport, with the same ids
 * and progress tokens, and leave some of them. Each client makes one call after the other, so how the calls of all of
 * them interleave is another matter each time. Everything a server says names whose call it was said in, and everything
 * a client answers names the client and the call, so that whatever goes astray shows.
 */

// On a busy machine this takes minutes.
t.setTimeout(300_000)

const people = bearerTokens(t, 'alice', 'bob', 'carol')
const principals = ['alice', 'bob', 'carol'] as const
const kinds = ['elicitation', 'sampling', 'roots'] as const
type Kind = (typeof kinds)[number]

interface Plan {
  readonly id: Id
  readonly token: Id | undefined
  readonly level: string | undefined
  readonly rounds: readonly (readonly Kind[])[]
  /** Before each round, at the server. */
  readonly ms: number
  /** Before each retry, at the client. */
  readonly thinks: number
  /** `leave`: while the server works; `abandon`: when it was asked, without a word. */
  readonly ends: 'well' | 'leave' | 'abandon'
  /** In milliseconds. */
  readonly leavesAfter: number
  /** Answers in two goes. */
  readonly halves: boolean
  /** Takes a state that another principal was given first. */
  readonly steals: boolean
}

const plans = (mayAbandon: boolean): fc.Arbitrary<Plan> =>
  fc.record({
    id: fc.constantFrom<Id>(1, '1', 0, 'same'),
    token: fc.constantFrom<Id | undefined>(1, '1', 'same', undefined),
    level: fc.constantFrom('info', 'debug', undefined),
    rounds: fc.array(fc.array(fc.constantFrom(...kinds), { maxLength: 3 }), { minLength: 1, maxLength: 3 }),
    ms: fc.nat(4),
    thinks: fc.nat(8),
    ends: fc.oneof(
      { arbitrary: fc.constant('well' as const), weight: 12 },
      { arbitrary: fc.constant('leave' as const), weight: 4 },
      { arbitrary: fc.constant('abandon' as const), weight: mayAbandon ? 1 : 0 },
    ),
    leavesAfter: fc.nat(40),
    halves: fc.boolean(),
    steals: fc.boolean(),
  })

const count = { answers: 0, questions: 0, refused: 0, progress: 0, logs: 0, left: 0, abandoned: 0, stolen: 0 }
type Count = typeof count

interface Kept {
  readonly principal: string
  readonly request: Request
  readonly state: string
}

/** What all clients of one sidecar have in common. */
interface Scene {
  readonly sidecar: TestSidecar
  readonly violations: string[]
  readonly count: Count
  /** States that are out, for others to try. */
  readonly states: Kept[]
  /** How a call is made here, and what its answer holds of what clients said. */
  readonly server: 'interview' | 'modern'
  /** Where it cannot be told whose a question is, it is refused. */
  readonly mayRefuse: boolean
}

const wordsOf: Readonly<Record<string, (answer: Json) => unknown>> = {
  'elicitation/create': (answer) => answer.content?.by,
  'sampling/createMessage': (answer) => answer.content?.text,
  'roots/list': (answer) => answer.roots?.[0]?.uri.slice('file:///'.length),
}
const methods: Readonly<Record<Kind, string>> = {
  elicitation: 'elicitation/create',
  sampling: 'sampling/createMessage',
  roots: 'roots/list',
}

let names = 0

/** One client, one call after the other. */
abstract class Client {
  readonly owner: string
  readonly principal: string
  readonly scene: Scene
  /** The call under way. */
  name = ''
  progress = 0

  constructor(scene: Scene, principal: string, transport: string) {
    this.scene = scene
    this.principal = principal
    this.owner = `${principal}-${transport}-${++names}`
  }

  abstract run(plan: Plan): Promise<void>
  abstract close(): Promise<void> | void

  get headers(): { readonly Authorization: string } {
    return people.of(this.principal)
  }

  wrong(what: string, message: unknown): void {
    this.scene.violations.push(
      `${this.owner} (${this.name}): ${what}: ${JSON.stringify(message)?.slice(0, 600)}`,
    )
  }

  begin(calls: number): void {
    this.name = `${this.owner}/${calls}`
    this.progress = 0
  }

  args({ rounds, ms }: Plan): { name: string; args: object } {
    const { owner, name: call } = this
    if (this.scene.server === 'interview') return { name: 'interview', args: { owner, call, rounds, ms } }
    const asked = rounds.flat().map((kind, i) => {
      const params = {
        elicitation: { mode: 'form', message: 'm', requestedSchema: { type: 'object', properties: {} } },
        sampling: { messages: [], maxTokens: 1 },
        roots: {},
      }[kind]
      return [`k${i}`, { method: methods[kind], params: { ...params, metadata: { owner, call } } }]
    })
    return {
      name: 'ask',
      args: { inputRequests: Object.fromEntries(asked), requestState: `state of ${call}` },
    }
  }

  answerTo(method: string): object {
    if (method === 'elicitation/create') return { action: 'accept', content: { by: this.name } }
    if (method === 'roots/list') return { roots: [{ uri: `file:///${this.name}` }] }
    return { role: 'assistant', model: 'm', content: { type: 'text', text: this.name } }
  }

  isMine(metadata: Json, message: Json): void {
    if (metadata?.owner !== this.owner || metadata?.call !== this.name) this.wrong('of another call', message)
  }

  /** Anything but an answer. */
  hear(message: Json, { token, level }: Plan): void {
    const { count } = this.scene
    if (message.method === 'notifications/message') {
      count.logs++
      if (level === undefined) this.wrong('a log message unasked', message)
      this.isMine(message.params.data, message)
    } else if (message.method === 'notifications/progress') {
      count.progress++
      const { progressToken, progress, message: text } = message.params
      if (token === undefined || progressToken !== token) this.wrong('the token of another', message)
      if (text !== `${this.owner} ${this.name}`) this.wrong('progress of another', message)
      if (progress <= this.progress) this.wrong('progress that does not increase', message)
      this.progress = progress
    } else this.wrong('unexpected', message)
  }

  /** The last answer of a call. */
  conclude(message: Json, { rounds }: Plan): void {
    const { server, count, mayRefuse } = this.scene
    if (message.result === undefined) {
      this.wrong('an error', message)
      return
    }
    count.answers++
    const body = said(message)
    if (server === 'interview') {
      this.isMine(body, message)
      for (const [i, replies] of (body.replies as Json[][]).entries()) {
        for (const [at, { result, error }] of replies.entries()) {
          const method = methods[rounds[i]?.[at] as Kind]
          if (result !== undefined) {
            if (wordsOf[method]?.(result) !== this.name) this.wrong('the server heard another', message)
          } else if (mayRefuse && error.data?.source === 'mcp-sidecar') count.refused++
          else this.wrong('a question that was not answered', message)
        }
      }
      if (body.replies.length !== rounds.length) this.wrong('not all rounds', message)
      return
    }
    if (body.requestState !== `state of ${this.name}`) this.wrong('the state of another', message)
    for (const [i, kind] of rounds.flat().entries()) {
      const answer = body.inputResponses?.[`k${i}`]
      if (wordsOf[methods[kind]]?.(answer ?? {}) !== this.name)
        this.wrong('the server heard another', message)
    }
  }
}

/** What modern clients have in common, on whatever transport. */
abstract class ModernClient extends Client {
  #calls = 0

  /** @returns undefined if it was left */
  abstract exchange(request: Request, plan: Plan, leavesAfter: number | undefined): Promise<Json | undefined>

  async run(plan: Plan): Promise<void> {
    const { scene } = this
    const { count } = scene
    this.begin(this.#calls++)
    const { name, args } = this.args(plan)
    const { level, token } = plan
    const options = {
      capabilities: everything,
      ...(level === undefined ? {} : { level }),
      ...(token === undefined ? {} : { token }),
    }
    const first = tool(plan.id, name, args, options)
    let request = first
    // Which round it leaves in is drawn with the time.
    let left = plan.ends === 'leave' ? plan.leavesAfter % 3 : -1
    for (;;) {
      const answer = await this.exchange(request, plan, left-- === 0 ? plan.leavesAfter : undefined)
      if (answer === undefined) {
        count.left++
        return
      }
      if (answer.result?.resultType !== 'input_required') {
        this.conclude(answer, plan)
        return
      }
      const { inputRequests = {}, requestState } = answer.result
      const asked = Object.entries<Json>(inputRequests)
      for (const [, { params }] of asked) {
        count.questions++
        this.isMine(params?.metadata, answer)
      }
      scene.states.push({ principal: this.principal, request, state: requestState })
      if (scene.states.length > 20) scene.states.shift()
      if (plan.steals) await this.#steal()
      if (plan.thinks > 0) await pause(plan.thinks)
      if (plan.ends === 'abandon') {
        count.abandoned++
        return
      }
      const half =
        plan.halves && scene.server === 'interview' && asked.length > 1 && left % 2 === 0 ? 1 : asked.length
      const given = asked.slice(0, half).map(([key, { method }]) => [key, this.answerTo(method)])
      request = retry(first, plan.id, Object.fromEntries(given), requestState)
    }
  }

  async #steal(): Promise<void> {
    const { states, sidecar, count } = this.scene
    const theirs = states.find(({ principal }) => principal !== this.principal)
    if (theirs === undefined) return
    count.stolen++
    const answers = Object.fromEntries(
      ['q1', 'q2', 'q3', 'k0', 'k1'].map((key) => [key, { action: 'accept', content: { by: 'a thief' } }]),
    )
    const answer = await ask(sidecar.url, retry(theirs.request, 'thief', answers, theirs.state), this.headers)
    if (answer.json?.error?.data?.reason !== 'ERR_REQUEST_STATE')
      this.wrong('a stolen state was taken', answer.body)
  }
}

class HttpClient extends ModernClient {
  async exchange(request: Request, plan: Plan, leavesAfter: number | undefined): Promise<Json | undefined> {
    const begun = begin(this.scene.sidecar.url, request, this.headers)
    const timer = leavesAfter === undefined ? undefined : setTimeout(begun.leave, leavesAfter)
    const answer = await begun.answer
    clearTimeout(timer)
    if (answer === undefined) return undefined
    const { messages } = answer
    for (const message of messages.slice(0, -1)) this.hear(message, plan)
    const last = messages.at(-1)
    if (last?.id !== request.id) this.wrong(`not the answer to ${JSON.stringify(request.id)}`, answer.body)
    return last ?? {}
  }

  close(): void {}
}

class SocketClientOfModernEra extends ModernClient {
  #socket: SocketClient | undefined
  #plan: Plan | undefined
  #waiting: { readonly id: Id; resolve(message: Json): void } | undefined
  #barriers = 0
  readonly #barrier = new Map<string, () => void>()

  async open(): Promise<this> {
    const socket = await openSocket(this.scene.sidecar.base, { headers: { ...this.headers } })
    this.#socket = socket
    socket.socket.on('message', (data: Buffer) => this.#take(JSON.parse(data.toString())))
    return this
  }

  #take(message: Json): void {
    const pass = this.#barrier.get(message.id)
    if (pass !== undefined) pass()
    else if (message.method !== undefined) {
      if (this.#plan === undefined) this.wrong('a message of no call', message)
      else this.hear(message, this.#plan)
    } else if (this.#waiting?.id === message.id) this.#waiting?.resolve(message)
    else this.wrong('an answer to no call', message)
  }

  async exchange(request: Request, plan: Plan, leavesAfter: number | undefined): Promise<Json | undefined> {
    this.#plan = plan
    const answered = new Promise<Json>((resolve) => {
      this.#waiting = { id: request.id, resolve }
    })
    this.#socket?.send(request)
    if (leavesAfter === undefined) return answered
    const first = await Promise.race([answered, pause(leavesAfter)])
    if (first !== undefined) return first
    const params = { requestId: request.id }
    this.#socket?.send({ jsonrpc: '2.0', method: 'notifications/cancelled', params })
    // What crossed the cancellation on its way is over when something sent later is answered.
    const id = `barrier ${++this.#barriers}`
    await new Promise<void>((resolve) => {
      this.#barrier.set(id, resolve)
      this.#socket?.send(modern(id, 'tools/list', {}))
    })
    this.#barrier.delete(id)
    this.#plan = undefined
    this.#waiting = undefined
    return undefined
  }

  close(): void {
    this.#socket?.close()
  }
}

class SessionClient extends Client {
  #peer: Peer | undefined
  #plan: Plan | undefined
  #id: Id = 0
  #calls = 0
  #answered: (message: Json) => void = () => {}

  async open(transport: 'Streamable HTTP' | 'WebSocket'): Promise<this> {
    const { base } = this.scene.sidecar
    this.#peer = await connectPeer({
      transport,
      base,
      headers: { ...this.headers },
      capabilities: everything,
      onMessage: (message) => this.#take(message),
    })
    return this
  }

  #take(message: Json): void {
    const plan = this.#plan
    if (message.id === 'init' || message.method === 'notifications/cancelled') return
    if (plan === undefined) {
      if (message.method === undefined) this.wrong('an answer to no call', message)
    } else if (message.method === undefined) {
      if (message.id === this.#id) this.#answered(message)
      else this.wrong('an answer to no call', message)
    } else if (message.id === undefined) this.hear(message, { ...plan, level: 'debug' })
    else {
      this.scene.count.questions++
      this.isMine(message.params?.metadata, message)
      const result = this.answerTo(message.method)
      void pause(plan.thinks).then(() => this.#peer?.tell({ jsonrpc: '2.0', id: message.id, result }))
    }
  }

  async run(plan: Plan): Promise<void> {
    this.begin(this.#calls++)
    // Ids are the session's own, and those of calls that were given up on may still be in use.
    this.#id = this.#calls
    this.#plan = plan
    const { name, args } = this.args(plan)
    const meta = plan.token === undefined ? undefined : { progressToken: plan.token }
    const answer = new Promise<Json>((resolve) => {
      this.#answered = resolve
    })
    void this.#peer?.request(legacyCall(this.#id, name, args, meta))
    this.conclude(await answer, plan)
    this.#plan = undefined
  }

  async close(): Promise<void> {
    await this.#peer?.close()
  }
}

type Where = 'http' | 'socket' | 'session' | 'session on a socket'

async function client(scene: Scene, principal: string, where: Where): Promise<Client> {
  if (where === 'http') return new HttpClient(scene, principal, 'http')
  if (where === 'socket') return new SocketClientOfModernEra(scene, principal, 'socket').open()
  const transport = where === 'session' ? 'Streamable HTTP' : 'WebSocket'
  return new SessionClient(scene, principal, 'session').open(transport)
}

interface Cast {
  readonly command: readonly string[]
  readonly server: Scene['server']
  readonly mayRefuse?: boolean
  readonly mayAbandon?: boolean
  readonly flags?: TestOptions['flags']
  readonly who: readonly (readonly [principal: (typeof principals)[number], where: Where])[]
  /** Of each client. */
  readonly calls: number
  /** Processes that stay when nobody calls. */
  readonly rest: number
}

async function play(t: Test, cast: Cast): Promise<Count> {
  const seed = Math.floor(Math.random() * 2 ** 31)
  t.comment(`seed ${seed}`)
  const clock = forwardClock()
  const sidecar = await startTestSidecar(t, {
    clock,
    command: cast.command,
    flags: { ...people.flags, ...cast.flags },
    config: {
      listen: { webSocket: true },
      server: { poolSize: 4, warmSpares: 1 },
      limits: {
        // Calls that are abandoned keep theirs to the end.
        processes: 120,
        processesPerPrincipal: 40,
        clientInputMs: 60_000,
        requestTimeoutMs: 120_000,
        maxRequestTimeoutMs: 120_000,
        idleSessionMs: 60_000,
      },
    },
  })
  const scene: Scene = {
    sidecar,
    violations: [],
    count: { ...count },
    states: [],
    server: cast.server,
    mayRefuse: cast.mayRefuse === true,
  }
  const clients = await Promise.all(cast.who.map(([principal, where]) => client(scene, principal, where)))
  const scripts = fc.sample(
    fc.array(plans(cast.mayAbandon !== false), { minLength: cast.calls, maxLength: cast.calls }),
    {
      seed,
      numRuns: clients.length,
    },
  )
  await Promise.all(
    clients.map(async (each, i) => {
      for (const [at, plan] of (scripts[i] as Plan[]).entries()) {
        if (scene.violations.length > 0) return
        // Once at least, however the rest was drawn.
        const abandons = i === 0 && at === 1 && cast.mayAbandon !== false
        await each.run(abandons ? { ...plan, rounds: [['elicitation']], ends: 'abandon' } : plan)
      }
    }),
  )
  t.same(scene.violations.slice(0, 5), [], `nothing went astray (seed ${seed})`)
  t.comment(JSON.stringify(scene.count))
  for (const each of clients) await each.close()
  const { metric } = sidecar
  /** Waits for the end of something that has a minute. */
  const ends = (what: string, check: () => Promise<boolean>): Promise<void> =>
    until(async () => {
      clock.forward(10_000)
      return check()
    }, what)
  await ends('nothing is in flight', async () => (await metric('mcp_sidecar_calls_in_flight')) === 0)
  await ends('no session is left', async () => (await metric('mcp_sidecar_sessions ')) === 0)
  await ends('the processes have gone', async () => (await metric('mcp_sidecar_processes ')) <= cast.rest)
  for (const { principal, request, state } of scene.states) {
    if (cast.server === 'modern') break
    const { json } = await ask(sidecar.url, retry(request, 'late', {}, state), people.of(principal))
    t.equal(json.error?.data?.reason, 'ERR_REQUEST_STATE', 'no state of before is good for anything')
  }
  return scene.count
}

const interviewer = serverCommand('../support/interview-server.mjs')

t.test('two principals with calls of all kinds on a legacy server at once', async (t) => {
  const who = (['alice', 'bob'] as const).flatMap((principal) =>
    (['http', 'http', 'socket', 'session'] as const).map((where) => [principal, where] as const),
  )
  const seen = await play(t, { command: interviewer, server: 'interview', who, calls: 16, rest: 1 })
  for (const [what, times] of Object.entries(seen))
    if (what !== 'refused') t.ok(times > 0, `${what}: ${times}`)
})

t.test('three principals on a legacy server at once, on every transport', async (t) => {
  const who = principals.flatMap((principal) =>
    (['http', 'socket', 'session on a socket'] as const).map((where) => [principal, where] as const),
  )
  const seen = await play(t, { command: interviewer, server: 'interview', who, calls: 14, rest: 1 })
  for (const [what, times] of Object.entries(seen))
    if (what !== 'refused') t.ok(times > 0, `${what}: ${times}`)
})

t.test('three principals on one modern process, whose states are wrapped', async (t) => {
  const who = principals.flatMap((principal) =>
    (['http', 'http', 'socket', 'session'] as const).map((where) => [principal, where] as const),
  )
  const command = serverCommand('modern-server.mjs')
  const seen = await play(t, { command, server: 'modern', who, calls: 25, rest: 1 })
  for (const what of ['answers', 'questions', 'left', 'stolen'] as const) t.ok(seen[what] > 0, what)
})

t.test('on one legacy process for everybody, what belongs to nobody for certain is refused', async (t) => {
  const who = [
    ['alice', 'http'],
    ['alice', 'socket'],
    ['bob', 'http'],
    ['bob', 'session'],
    ['carol', 'socket'],
  ] as const
  const seen = await play(t, {
    ...{ command: interviewer, server: 'interview', who, calls: 30, rest: 1 },
    flags: { topology: 'shared' },
    mayRefuse: true,
    mayAbandon: false,
  })
  t.ok(seen.refused > 0, `${seen.refused} questions were refused`)
  t.ok(seen.answers > 0)
})

t.test('on one legacy process, who is alone is asked', async (t) => {
  const { url } = await startTestSidecar(t, {
    command: interviewer,
    flags: { ...people.flags, topology: 'shared' },
  })
  const request = (owner: string): Request =>
    tool(
      1,
      'interview',
      { owner, call: owner, rounds: [['elicitation'], ['roots']] },
      { capabilities: everything },
    )
  for (const owner of ['alice', 'bob']) {
    const headers = people.of(owner)
    const one = await ask(url, request(owner), headers)
    t.same(one.json.result?.inputRequests?.q1?.params.metadata.owner, owner)
    // While one is being asked, another is not: nobody can tell whose the next question would be.
    const other = owner === 'alice' ? 'bob' : 'alice'
    const refused = await ask(url, request(other), people.of(other))
    for (const [{ error }] of said(refused.json).replies)
      t.match(error, { data: { reason: 'ERR_NO_CLIENT' } })
    const answer = { q1: { action: 'accept', content: { by: owner } } }
    const two = await ask(url, retry(request(owner), 2, answer, one.json.result.requestState), headers)
    const roots = { q2: { roots: [{ uri: `file:///${owner}` }] } }
    const last = await ask(url, retry(request(owner), 3, roots, two.json.result.requestState), headers)
    t.same(
      said(last.json).replies.map(([{ result }]: Json) => result?.content?.by ?? result?.roots?.[0]?.uri),
      [owner, `file:///${owner}`],
    )
  }
})

t.test('what a cancelled call of one principal still logs reaches no other principal', async (t) => {
  // The cancellation is on its way while the server logs: here it arrives and is not heeded, which is as late as can be.
  const { url, metric } = await startTestSidecar(t, {
    command: serverCommand('modern-server.mjs', '--ignore-cancel', '--delay=tools/call:300'),
    flags: people.flags,
  })
  const inFlight = (): Promise<number> => metric('mcp_sidecar_calls_in_flight')
  // From then on a call goes straight to the server.
  for (const name of ['alice', 'bob']) await ask(url, tool(1, 'pid'), people.of(name))
  // Once more where the answer came before anybody had seen that the call was in flight.
  for (let left = false; !left; ) {
    const alice = begin(
      url,
      tool(1, 'log', { data: 'a secret of alice' }, { level: 'debug' }),
      people.of('alice'),
    )
    let answered = false
    void alice.answer.then(() => {
      answered = true
    })
    await until(async () => answered || (await inFlight()) === 1, 'the call is in flight')
    left = !answered
    alice.leave()
    await until(async () => (await inFlight()) === 0, 'it has left')
  }
  const bob = await ask(url, tool(1, 'slow', { ms: 400 }, { level: 'debug' }), people.of('bob'))
  t.notMatch(bob.body, /a secret of alice/)
  t.equal(bob.messages.at(-1)?.id, 1)
})

t.test(
  'what a legacy process logs for one call does not reach another on it that asked for logs',
  async (t) => {
    // Without a declared capability several calls share a process (and without authentication a principal).
    const { url } = await startTestSidecar(t, { command: interviewer })
    const run = (owner: string, level?: string) =>
      ask(
        url,
        tool(
          1,
          'interview',
          { owner, call: owner, rounds: Array(5).fill([]), ms: 20 },
          level ? { level } : {},
        ),
      )
    const [loud] = await Promise.all([run('loud', 'info'), run('silent')])
    const owners = loud.messages.slice(0, -1).map(({ params }) => params.data.owner)
    t.same(
      owners.filter((owner) => owner !== 'loud'),
      [],
      'log messages of the other call',
    )
  },
)
