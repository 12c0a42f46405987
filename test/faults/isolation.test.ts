import fc from 'fast-check'
import tap, { type Test } from 'tap'
import { connectPeer, type Json, type Peer, type TransportName, transports } from '../support/peers.ts'
import { startTestSidecar, type TestOptions, type TestSidecar, until } from '../support/sidecar.ts'
import { openSocket, openSse, type SocketClient } from '../support/streams.ts'
import { bearerTokens } from '../support/tokens.ts'
import { call, follow, held, initialize, open, openSession, post, released, send } from '../support/wire.ts'

// On a busy machine the property takes minutes.
tap.setTimeout(300_000)

/*
 * The property. Clients of all transports and several principals use one server process at once, with the same ids and
 * progress tokens. Their calls are scripts that the server carries out step by step, on notifications, so that the
 * order in which everything happens is the one that was drawn. What a script emits names its owner.
 */

const ids = [1, '1', 2, '2', 0] as const
const tokens = [1, '1', 't', undefined, 2] as const
const principals = ['alice', 'bob', 'carol'] as const
const questionMethods = new Set(['sampling/createMessage', 'elicitation/create', 'roots/list'])

interface PeerPlan {
  readonly transport: TransportName
  readonly principal: (typeof principals)[number]
  readonly listens: boolean
}

type StepKind = 'progress' | 'log' | 'sampling' | 'elicitation' | 'roots'

type Deed =
  | { readonly do: 'call'; readonly id: number; readonly token: number; readonly steps: readonly StepKind[] }
  | { readonly do: 'list' | 'reflect'; readonly id: number }
  | { readonly do: 'step' | 'finish' | 'cancel' | 'cut'; readonly nth: number }
  | { readonly do: 'reply' | 'pause' }
  | { readonly do: 'forge'; readonly what: 'response' | 'cancelled' | 'progress' }

interface Act {
  readonly peer: number
  readonly deed: Deed
  /** The next act waits until this one has been accepted. */
  readonly waits: boolean
}

interface Plan {
  readonly peers: readonly PeerPlan[]
  readonly acts: readonly Act[]
}

const peerPlan: fc.Arbitrary<PeerPlan> = fc.record({
  transport: fc.constantFrom(...transports),
  principal: fc.constantFrom(...principals),
  listens: fc.boolean(),
})

const stepKind: fc.Arbitrary<StepKind> = fc.constantFrom(
  'progress',
  'progress',
  'log',
  'log',
  'sampling',
  'elicitation',
  'roots',
)

function deeds(pauses: boolean): fc.Arbitrary<Deed> {
  const id = fc.nat(ids.length - 1)
  const nth = fc.nat(3)
  const of = <D extends Deed>(deed: fc.Arbitrary<D>, weight: number) => ({ arbitrary: deed, weight })
  return fc.oneof(
    of(
      fc.record({
        do: fc.constant('call' as const),
        id,
        token: fc.nat(tokens.length - 1),
        steps: fc.array(stepKind, { maxLength: 4 }),
      }),
      6,
    ),
    of(fc.record({ do: fc.constantFrom('list' as const, 'reflect' as const), id }), 2),
    of(fc.record({ do: fc.constant('step' as const), nth }), 10),
    of(fc.record({ do: fc.constant('finish' as const), nth }), 4),
    of(fc.record({ do: fc.constant('cancel' as const), nth }), 2),
    of(fc.record({ do: fc.constant('cut' as const), nth }), 1),
    of(fc.record({ do: fc.constant('reply' as const) }), 4),
    of(
      fc.record({
        do: fc.constant('forge' as const),
        what: fc.constantFrom('response', 'cancelled', 'progress'),
      }),
      2,
    ),
    of(fc.record({ do: fc.constant('pause' as const) }), pauses ? 2 : 0),
  )
}

const plans = (peers: number, pauses: boolean): fc.Arbitrary<Plan> =>
  fc.record({
    peers: fc.array(peerPlan, { minLength: peers, maxLength: peers }),
    acts: fc.array(fc.record({ peer: fc.nat(peers - 1), deed: deeds(pauses), waits: fc.boolean() }), {
      minLength: 6,
      maxLength: 24,
      size: 'max',
    }),
  })

interface Call {
  readonly key: string
  readonly id: string | number
  readonly token: string | number | undefined
  readonly method: string
  /** `sealed`: cancelled, and nothing may come any more. */
  state: 'in flight' | 'answered' | 'cancelled' | 'sealed' | 'cut'
  progress: number
  /** On Streamable HTTP: its response has ended. Elsewhere: it has been accepted. */
  sent: Promise<void>
}

/** How often the interesting things happened, so that the property is known not to be empty. */
const seen = {
  answers: 0,
  progress: 0,
  logs: 0,
  questions: 0,
  refusedQuestions: 0,
  cancelled: 0,
  timedOut: 0,
  cut: 0,
}

let named = 0

/** One client with what it knows and the checks of what it gets. */
class Actor {
  readonly name: string
  readonly calls: Call[] = []
  readonly questions: Json[] = []
  /** Of all questions that were not withdrawn. */
  readonly asked = new Set<unknown>()
  readonly replies: Promise<void>[] = []
  readonly violations: string[]
  readonly #mayTimeOut: boolean
  peer: Peer | undefined
  gone = false
  /** Answers questions as they come. */
  obliging = false
  #pings = 0
  readonly #pinged = new Map<string, () => void>()

  constructor(plan: PeerPlan, violations: string[], mayTimeOut: boolean) {
    this.name = `${plan.principal}-${plan.transport.replace(/\W/g, '')}-${++named}`
    this.violations = violations
    this.#mayTimeOut = mayTimeOut
  }

  take(message: Json): void {
    if (message.method === 'notifications/progress') this.#progress(message)
    else if (message.method === 'notifications/message') {
      seen.logs++
      this.#isMine(message.params?.data, message)
    } else if (questionMethods.has(message.method)) this.#question(message)
    else if (message.method === 'notifications/cancelled') {
      // One that was answered may be withdrawn while the answer is on its way.
      const { requestId } = message.params
      const at = this.questions.findIndex(({ id }) => id === requestId)
      if (!this.asked.delete(requestId))
        this.#wrong('a cancellation of a question that was not asked here', message)
      else if (at >= 0) this.questions.splice(at, 1)
    } else if (message.method === undefined) this.#answer(message)
    else this.#wrong('an unexpected message', message)
  }

  #progress(message: Json): void {
    const { progressToken, progress, message: text } = message.params
    const [owner, key] = String(text).split(' ')
    const found = this.calls.find((each) => each.key === key)
    if (owner !== this.name || found === undefined) this.#wrong('progress of someone else', message)
    else if (found.token !== progressToken)
      this.#wrong(`progress without the own token ${found.token}`, message)
    else if (found.state === 'answered') this.#wrong('progress after the answer', message)
    else if (found.state === 'sealed') this.#wrong('progress after the cancellation', message)
    else if (progress !== found.progress + 1) this.#wrong(`progress after ${found.progress}`, message)
    else {
      found.progress = progress
      seen.progress++
    }
  }

  #question(message: Json): void {
    seen.questions++
    this.asked.add(message.id)
    this.#isMine(message.params?.metadata, message)
    if (this.obliging) this.replies.push(this.reply(message))
    else this.questions.push(message)
  }

  #answer(message: Json): void {
    const ping = this.#pinged.get(message.id)
    if (ping !== undefined) {
      this.#pinged.delete(message.id)
      ping()
      return
    }
    const found = this.calls.find(
      ({ id, state }) => id === message.id && (state === 'in flight' || state === 'cancelled'),
    )
    if (found === undefined) {
      this.#wrong('an answer to no call in flight', message)
      return
    }
    found.state = 'answered'
    if (message.error !== undefined) {
      const { reason } = message.error.data ?? {}
      if (reason === 'ERR_TIMEOUT' && this.#mayTimeOut) seen.timedOut++
      else this.#wrong('an error', message)
      return
    }
    seen.answers++
    if (found.method === 'tools/list') {
      if (!Array.isArray(message.result.tools)) this.#wrong('no list of tools', message)
    } else if (found.method === 'x/reflect') this.#isMine(message.result.params, message, found.key)
    else {
      const body = JSON.parse(message.result.content[0].text)
      this.#isMine(body, message, found.key)
      for (const reply of body.replies) {
        if (reply.error === undefined) {
          if (reply.result.by !== this.name) this.#wrong('the server got the reply of someone else', message)
        } else {
          seen.refusedQuestions++
          if (reply.error.data?.source !== 'mcp-sidecar') this.#wrong('an unknown refusal', message)
        }
      }
    }
  }

  #isMine(data: Json, message: Json, key?: string): void {
    if (data?.owner !== this.name) this.#wrong('a message of someone else', message)
    else if (key !== undefined && data.call !== key) this.#wrong(`not the answer to ${key}`, message)
  }

  #wrong(what: string, message: Json): void {
    this.violations.push(`${this.name} got ${what}: ${JSON.stringify(message).slice(0, 500)}`)
  }

  begin(method: string, id: number, token: number, steps: readonly StepKind[]): Promise<void> {
    const running = this.calls.filter(({ state }) => state !== 'answered' && state !== 'sealed')
    const pick = <T>(from: readonly T[], at: number, taken: (value: T) => boolean): T | undefined =>
      [...from.slice(at), ...from.slice(0, at)].find((value) => !taken(value))
    const own = pick(ids, id, (value) => running.some((each) => each.id === value))
    if (own === undefined) return Promise.resolve()
    const withToken = pick(
      tokens,
      token,
      (value) => value !== undefined && running.some((each) => each.token === value),
    )
    const begun: Call = {
      key: `${this.name}:${this.calls.length}`,
      id: own,
      token: method === 'tools/call' ? withToken : undefined,
      method,
      state: 'in flight',
      progress: 0,
      sent: Promise.resolve(),
    }
    this.calls.push(begun)
    const about = { owner: this.name, call: begun.key }
    const message =
      method === 'tools/call'
        ? call(
            own,
            'script',
            { ...about, steps },
            begun.token === undefined ? undefined : { progressToken: begun.token },
          )
        : { jsonrpc: '2.0', id: own, method, params: method === 'x/reflect' ? about : {} }
    begun.sent = this.#send(async (peer) => {
      await peer.request(message)
      // A response of its own that ended is all there will be of it.
      if (peer.transport === 'Streamable HTTP' && begun.state === 'in flight' && !this.gone) {
        this.violations.push(`${this.name}: the response to ${begun.key} ended without an answer`)
      }
    })
    return begun.sent
  }

  async cancel(which: Call): Promise<void> {
    which.state = 'cancelled'
    seen.cancelled++
    const seal = (): void => {
      if (which.state === 'cancelled') which.state = 'sealed'
    }
    const ownResponse = this.peer?.transport === 'Streamable HTTP'
    // Each POST has a connection of its own: a cancellation that arrives before the call means nothing.
    if (!ownResponse) await which.sent
    await this.tell({
      jsonrpc: '2.0',
      method: 'notifications/cancelled',
      params: { requestId: which.id },
    })
    if (ownResponse) void which.sent.then(seal)
    else {
      await this.ping()
      seal()
    }
  }

  /** Resolves when everything written to this client before has arrived, where there is one stream for everything. */
  async ping(): Promise<void> {
    if (this.gone) return
    const id = `ping-${++this.#pings}`
    const pinged = new Promise<void>((resolve) => {
      this.#pinged.set(id, resolve)
    })
    await this.#send((peer) => peer.request({ jsonrpc: '2.0', id, method: 'ping' }))
    if (!this.gone) await pinged
  }

  tell(message: object): Promise<void> {
    return this.#send((peer) => peer.tell(message))
  }

  reply(question: Json | undefined): Promise<void> {
    if (question === undefined) return Promise.resolve()
    return this.tell({ jsonrpc: '2.0', id: question.id, result: { by: this.name } })
  }

  cut(which: Call): void {
    seen.cut++
    if (this.peer?.transport === 'Streamable HTTP') {
      if (which.state === 'in flight') which.state = 'cut'
    } else {
      this.gone = true
      for (const resolve of this.#pinged.values()) resolve()
    }
    this.peer?.cut(which.id)
  }

  /** What a client sends while it is cut off may fail. */
  async #send(deed: (peer: Peer) => Promise<void>): Promise<void> {
    if (this.gone || this.peer === undefined) return
    try {
      await deed(this.peer)
    } catch (thrown) {
      if (!this.gone) throw thrown
    }
  }
}

interface Stage {
  readonly sidecar: TestSidecar
  readonly authorization: (principal: string) => { readonly Authorization: string }
  /** A client beside the others that takes all scripts to their end. */
  readonly steward: {
    tell(message: object): Promise<void>
    /** The calls that the server is still busy with. */
    unfinished(): Promise<string[]>
  }
}

async function setStage(t: Test, limits: object): Promise<Stage> {
  const all = bearerTokens(t, ...principals, 'steward')
  const sidecar = await startTestSidecar(t, {
    flags: { ...all.flags, topology: 'shared', webSocket: true },
    config: { limits: { clientInputMs: 400, ...limits } },
  })
  const { base } = sidecar
  const waiting = new Map<number, (calls: string[] | undefined) => void>()
  let lastId = 0
  const peer = await connectPeer({
    transport: 'WebSocket',
    base,
    headers: all.of('steward'),
    onMessage: ({ id, result }) => waiting.get(id)?.(result?.calls),
  })
  const unfinished = async (): Promise<string[]> => {
    const id = ++lastId
    const calls = new Promise<string[] | undefined>((resolve) => waiting.set(id, resolve))
    await peer.request({ jsonrpc: '2.0', id, method: 'x/scripts' })
    // On a busy machine even this may have timed out.
    return (await calls) ?? unfinished()
  }
  return { sidecar, authorization: all.of, steward: { tell: peer.tell, unfinished } }
}

async function perform(
  { sidecar, authorization, steward }: Stage,
  plan: Plan,
  mayTimeOut: boolean,
): Promise<void> {
  const violations: string[] = []
  const actors = plan.peers.map((each) => new Actor(each, violations, mayTimeOut))
  await Promise.all(
    actors.map(async (actor, i) => {
      const { transport, principal, listens } = plan.peers[i] as PeerPlan
      // A question may be meant for a response that was cut off; it can then only come on the GET stream.
      const isCut = plan.acts.some(({ peer, deed }) => peer === i && deed.do === 'cut')
      actor.peer = await connectPeer({
        transport,
        listens: listens || isCut,
        base: sidecar.base,
        headers: authorization(principal),
        capabilities: { sampling: {}, elicitation: {}, roots: {} },
        onMessage: (message) => {
          if (message.id !== 'init') actor.take(message)
        },
      })
    }),
  )
  const step = (key: string, all: boolean): object => ({
    jsonrpc: '2.0',
    method: 'notifications/step',
    params: { call: key, all },
  })
  const background: Promise<void>[] = []
  for (const { peer, deed, waits } of plan.acts) {
    const actor = actors[peer] as Actor
    const begun = carryOut(actor, deed)
    // A call is not waited for: its answer comes when its script has ended.
    const watched = begun.catch((error: unknown) => void violations.push(`${actor.name}: ${String(error)}`))
    if (!waits || deed.do === 'call') background.push(watched)
    else await watched
  }

  function carryOut(actor: Actor, deed: Deed): Promise<void> {
    switch (deed.do) {
      case 'call':
        return actor.begin('tools/call', deed.id, deed.token, deed.steps)
      case 'list':
        return actor.begin('tools/list', deed.id, 0, [])
      case 'reflect':
        return actor.begin('x/reflect', deed.id, 0, [])
      case 'reply':
        return actor.reply(actor.questions.shift())
      case 'pause':
        return new Promise((resolve) => {
          setTimeout(resolve, 160)
        })
      case 'forge':
        return forge(actor, deed.what)
    }
    const calls = actor.calls.filter(({ method }) => method === 'tools/call')
    const which = calls.at(-1 - (deed.nth % Math.max(1, calls.length)))
    if (which === undefined) return Promise.resolve()
    if (deed.do === 'step' || deed.do === 'finish') return actor.tell(step(which.key, deed.do === 'finish'))
    if (which.state !== 'in flight') return Promise.resolve()
    if (deed.do === 'cancel') return actor.cancel(which)
    actor.cut(which)
    return Promise.resolve()
  }

  /** What a client says of ids and tokens that are not its own. */
  async function forge(actor: Actor, what: string): Promise<void> {
    const others = actors.filter((each) => each !== actor)
    const question = others.flatMap(({ questions }) => questions).find(Boolean)
    const foreign = others.flatMap(({ calls }) => calls).find(({ state }) => state === 'in flight')
    if (what === 'response' && question !== undefined) {
      await actor.tell({ jsonrpc: '2.0', id: question.id, result: { by: `${actor.name} who was not asked` } })
    } else if (
      what === 'cancelled' &&
      foreign !== undefined &&
      !actor.calls.some(({ id }) => id === foreign.id)
    ) {
      await actor.tell({
        jsonrpc: '2.0',
        method: 'notifications/cancelled',
        params: { requestId: foreign.id },
      })
    } else if (what === 'progress') {
      const params = { progressToken: 'p1', progress: 1, message: 'forged' }
      await actor.tell({ jsonrpc: '2.0', method: 'notifications/progress', params })
    }
  }

  // The end: all questions are answered and all scripts completed, those of clients that have gone too.
  for (const actor of actors) {
    actor.obliging = true
    for (const question of actor.questions.splice(0)) actor.replies.push(actor.reply(question))
  }
  const open = (): string[] =>
    actors.flatMap(({ gone, calls }) =>
      gone ? [] : calls.flatMap(({ state, key }) => (state === 'in flight' ? [key] : [])),
    )
  const end = performance.now() + 30_000
  for (;;) {
    // What a client sent last, before it went, may arrive as late as in the next round.
    const busy = await steward.unfinished()
    for (const key of busy) await steward.tell(step(key, true))
    if (violations.length > 0 || (busy.length === 0 && open().length === 0)) break
    if (performance.now() > end) violations.push(`no end of ${busy}, no answer to ${open()}`)
    await new Promise((resolve) => {
      setTimeout(resolve, 2)
    })
  }
  const check = (): void => {
    if (violations.length > 0) throw new Error(violations.join('\n'))
  }
  check()
  await Promise.all(background)
  await Promise.all(actors.flatMap(({ replies }) => replies))
  await Promise.all(actors.map((actor) => actor.ping()))
  for (const actor of actors) if (!actor.gone) await actor.peer?.close()
  check()
}

async function never(t: Test, stage: Stage, peers: number, numRuns: number, pauses = false): Promise<void> {
  const property = fc.asyncProperty(plans(peers, pauses), (plan) => perform(stage, plan, pauses))
  await fc.assert(property, { numRuns, endOnFailure: true })
  t.pass(`${numRuns} interleavings`)
}

tap.test('clients that use the same ids and tokens at once never see each other’s messages', async (t) => {
  const stage = await setStage(t, {})
  await t.test('two clients', (t) => never(t, stage, 2, 180))
  await t.test('three clients', (t) => never(t, stage, 3, 100))
  t.comment(JSON.stringify(seen))
  for (const [what, count] of Object.entries(seen)) {
    if (what !== 'timedOut') t.ok(count >= 20, `${what}: ${count}`)
  }
})

tap.test('neither do they when calls time out and the server goes on with them', async (t) => {
  const stage = await setStage(t, { requestTimeoutMs: 120, maxRequestTimeoutMs: 5000 })
  // Whether a drawn plan waits long enough is chance: on until some did.
  for (let rounds = 0; rounds < 10 && (rounds === 0 || seen.timedOut < 5); rounds++)
    await never(t, stage, 2, 40, true)
  t.ok(seen.timedOut >= 5, `timed out: ${seen.timedOut}`)
})

/*
 * One thing at a time. Two clients of different principals on WebSockets: what has come before the answer to a ping is
 * all there is.
 */

interface Pair {
  readonly sidecar: TestSidecar
  readonly a: SocketClient
  readonly b: SocketClient
}

async function pair(t: Test, options: TestOptions = {}): Promise<Pair> {
  const all = bearerTokens(t, 'alice', 'bob')
  const flags = { ...all.flags, topology: 'shared', webSocket: true }
  const sidecar = await startTestSidecar(t, { ...options, flags, config: { shutdownGraceMs: 0 } })
  const connect = (name: string): Promise<SocketClient> =>
    openSocket(sidecar.base, {
      headers: all.of(name),
      version: '2025-11-25',
      capabilities: { sampling: {}, elicitation: {}, roots: {} },
    })
  return { sidecar, a: await connect('alice'), b: await connect('bob') }
}

const notification = (method: string, params: object = {}): object => ({ jsonrpc: '2.0', method, params })
const rpc = (id: string | number, method: string, params: object = {}) => ({
  jsonrpc: '2.0',
  id,
  method,
  params,
})
const textOf = (message: Json): string => message.result.content[0].text

/** What this client has been sent besides answers. */
async function unasked(client: SocketClient): Promise<Json[]> {
  await client.request(rpc(`barrier ${Math.random()}`, 'ping'))
  return client.messages.filter(({ method }) => method !== undefined)
}

/** What the server has received from clients besides tool calls. */
async function receivedByServer(client: SocketClient): Promise<Json[]> {
  return JSON.parse(textOf(await client.request(call(`look ${Math.random()}`, 'notifications'))))
}

/** Waits until so many calls of both clients are in flight. */
const inFlight = ({ sidecar }: Pair, count: number): Promise<void> =>
  until(async () => (await sidecar.metric('mcp_sidecar_calls_in_flight ')) === count, `${count} in flight`)

tap.test('an update of a resource reaches its subscribers and nobody else', async (t) => {
  const { a, b } = await pair(t)
  await a.request(rpc(1, 'resources/subscribe', { uri: 'test://folder' }))
  for (const uri of ['test://folder', 'test://folder/file', 'test://folders', 'test://other']) {
    await b.request(call(1, 'notify', { method: 'notifications/resources/updated', params: { uri } }))
  }
  t.strictSame(
    (await unasked(a)).map(({ params }) => params),
    [{ uri: 'test://folder' }, { uri: 'test://folder/file' }],
  )
  t.strictSame(await unasked(b), [])
})

tap.test('a changed list is announced to every session on every transport', async (t) => {
  const { a, b, sidecar } = await pair(t)
  const all = { Authorization: 'Bearer alice-token-0123456789abcdef' }
  const session = await openSession(sidecar.url, { headers: all })
  const stream = follow(await open(sidecar.url, 'GET', { ...session, Accept: 'text/event-stream' }))
  const sse = await openSse(sidecar.base, { headers: all, version: '2024-11-05' })
  const methods = ['tools', 'prompts', 'resources'].map((list) => `notifications/${list}/list_changed`)
  for (const method of methods) await a.request(call(1, 'notify', { method }))
  for (const client of [a, b]) {
    t.strictSame(
      (await unasked(client)).map(({ method }) => method),
      methods,
    )
  }
  await until(() => stream.messages.length === 3 && sse.messages.length >= 4, 'the streams have it too')
  t.strictSame(
    stream.messages.map(({ method }) => method),
    methods,
  )
  sse.cut()
})

tap.test('each session has its own log level', async (t) => {
  const { a, b } = await pair(t)
  await a.request(rpc(1, 'logging/setLevel', { level: 'debug' }))
  await b.request(rpc(1, 'logging/setLevel', { level: 'error' }))
  for (const client of [a, b]) {
    for (const level of ['debug', 'info', 'error'])
      await client.request(call(1, 'log', { level, data: level }))
  }
  const levels = async (client: SocketClient) => (await unasked(client)).map(({ params }) => params.level)
  t.strictSame(await levels(a), ['debug', 'info', 'error'])
  t.strictSame(await levels(b), ['error'])
  const unknown = await a.request(rpc(2, 'logging/setLevel', { level: 'shouting' }))
  t.ok(unknown, 'a level that does not exist is the answer of the server')
})

tap.test('the log level of one session takes nothing from a session that has set none', async (t) => {
  const { a, b } = await pair(t)
  await a.request(rpc(1, 'logging/setLevel', { level: 'emergency' }))
  await b.request(call(1, 'log-at', { level: 'info', data: 'for b' }))
  t.match(await unasked(b), [{ method: 'notifications/message', params: { level: 'info', data: 'for b' } }])
})

tap.test('a subscription at the server ends with its last subscriber', async (t) => {
  const { a, b } = await pair(t)
  const uri = 'test://shared'
  const unsubscribed = async () =>
    (await receivedByServer(b)).filter(({ method }) => method === 'resources/unsubscribe').length
  for (const client of [a, b, a]) await client.request(rpc(1, 'resources/subscribe', { uri }))
  t.match(await a.request(rpc(2, 'resources/unsubscribe', { uri })), { id: 2, result: {} })
  t.equal(await unsubscribed(), 0)
  await b.request(call(3, 'notify', { method: 'notifications/resources/updated', params: { uri } }))
  t.equal((await unasked(a)).length, 0)
  t.equal((await unasked(b)).length, 1)
  await a.request(rpc(4, 'resources/subscribe', { uri }))
  t.match(await b.request(rpc(4, 'resources/unsubscribe', { uri })), { id: 4, result: {} })
  t.equal(await unsubscribed(), 0)
  a.close()
  await until(async () => (await unsubscribed()) === 1, 'the end of a session counts')
})

tap.test('a subscription that is under way counts when another one ends', async (t) => {
  const both = await pair(t, { server: ['--subscribe-held'] })
  const { a, b } = both
  const uri = 'test://shared'
  const first = a.request(rpc(1, 'resources/subscribe', { uri }))
  await inFlight(both, 1)
  a.send(released('subscribe'))
  await first
  const subscribing = b.request(rpc(1, 'resources/subscribe', { uri }))
  await inFlight(both, 1)
  await a.request(rpc(2, 'resources/unsubscribe', { uri }))
  b.send(released('subscribe'))
  t.match(await subscribing, { id: 1, result: {} })
  const methods = (await receivedByServer(b)).map(({ method }) => method)
  t.notOk(methods.includes('resources/unsubscribe'), `the server was told ${methods.join(', ')}`)
})

tap.test('the response of a client that was not asked is ignored', async (t) => {
  const both = await pair(t)
  const { a, b, sidecar } = both
  const asking = a.request(call(1, 'ask', { method: 'sampling/createMessage' }))
  await until(() => a.messages.some(({ method }) => method === 'sampling/createMessage'), 'a is asked')
  const { id } = a.messages.find(({ method }) => method === 'sampling/createMessage')
  b.send({ jsonrpc: '2.0', id, result: { by: 'b' } })
  b.send({ jsonrpc: '2.0', id, error: { code: -1, message: 'by b' } })
  b.send({ jsonrpc: '2.0', id: String(id), result: { by: 'b' } })
  t.strictSame(await unasked(b), [])
  a.send({ jsonrpc: '2.0', id, result: { by: 'a' } })
  a.send({ jsonrpc: '2.0', id, result: { by: 'a, again' } })
  t.match(JSON.parse(textOf(await asking)), { result: { by: 'a' } })
  t.equal(await sidecar.metric('mcp_sidecar_dropped_messages_total{reason="unexpected_response"}'), 4)
  const lines = textOf(await a.request(call(2, 'lines')))
  t.notMatch(lines, /by b|\\"by\\":\\"b\\"|again/)
})

tap.test('progress and cancellation of a client touch only what is its own', async (t) => {
  const both = await pair(t)
  const { a, b } = both
  const params = { _meta: { progressToken: 'of the server' } }
  const asking = a.request(call(1, 'ask', { method: 'sampling/createMessage', params }))
  await until(() => a.messages.some(({ method }) => method === 'sampling/createMessage'), 'a is asked')
  const { id } = a.messages.find(({ method }) => method === 'sampling/createMessage')
  const other = b.request(held(2, 'other'))
  await inFlight(both, 2)
  const progress = (by: string) =>
    notification('notifications/progress', { progressToken: 'of the server', progress: 1, message: by })
  b.send(progress('b'))
  for (const requestId of [1, '1', '2', id]) b.send(notification('notifications/cancelled', { requestId }))
  await unasked(b)
  a.send(progress('a'))
  a.send({ jsonrpc: '2.0', id, result: {} })
  t.match(await asking, { id: 1, result: {} })
  b.send(released('other'))
  t.match(await other, { id: 2, result: {} })
  t.match(await receivedByServer(a), [
    { method: 'notifications/initialized' },
    { method: 'notifications/progress', params: { message: 'a' } },
  ])
  t.equal((await receivedByServer(a)).length, 2)
})

tap.test('tasks are not offered by a shared server, and do not work there', async (t) => {
  const { url, base } = await startTestSidecar(t, { flags: { topology: 'shared' } })
  const { json, headers } = await post(url, initialize())
  t.strictSame(json.result.capabilities, {
    tools: {},
    resources: { subscribe: true },
    prompts: {},
    logging: {},
  })
  const session = { 'Mcp-Session-Id': String(headers['mcp-session-id']) }
  for (const method of ['tasks/list', 'tasks/get', 'tasks/result', 'tasks/cancel']) {
    const refused = await post(url, rpc(1, method, { taskId: 'x' }), session)
    t.equal(refused.status, 200)
    t.match(refused.json, { id: 1, error: { code: -32601, data: { reason: 'ERR_UNSUPPORTED' } } })
  }
  const sse = await openSse(base, { version: '2024-11-05' })
  const calling = post(url, call(2, 'sleep', { ms: 100 }), session)
  await post(
    url,
    call(3, 'notify', { method: 'notifications/tasks/status', params: { taskId: 'x' } }),
    session,
  )
  t.equal((await calling).messages.length, 1)
  t.equal(sse.messages.filter(({ method }) => method !== undefined).length, 0)
  sse.cut()
})

tap.test('with a process of its own a session has tasks', async (t) => {
  const { url } = await startTestSidecar(t)
  t.match((await post(url, initialize())).json, { result: { capabilities: { tasks: {} } } })
})

tap.test('a question is refused while calls of two sessions may have caused it', async (t) => {
  const both = await pair(t)
  const { a, b, sidecar } = both
  const other = b.request(held(1, 'other'))
  await inFlight(both, 1)
  const asked = await a.request(call(1, 'ask', { method: 'elicitation/create' }))
  t.match(JSON.parse(textOf(asked)), { error: { code: -32603, data: { reason: 'ERR_NO_CLIENT' } } })
  b.send(released('other'))
  await other
  t.strictSame([...(await unasked(a)), ...(await unasked(b))], [])
  t.equal(
    await sidecar.metric('mcp_sidecar_dropped_messages_total{reason="server_request_ambiguous"}'),
    1,
    'and counted',
  )
  const alone = a.request(call(2, 'ask', { method: 'elicitation/create' }))
  await until(() => a.messages.some(({ method }) => method === 'elicitation/create'), 'then a is asked')
  a.send({ jsonrpc: '2.0', id: a.messages.at(-1).id, result: { action: 'decline' } })
  t.match(JSON.parse(textOf(await alone)), { result: { action: 'decline' } })
})

tap.test('a question of a cancelled call goes to nobody while another session has a call', async (t) => {
  const both = await pair(t)
  const { a, b } = both
  a.send(call(1, 'script', { owner: 'a', call: 'c', steps: ['sampling', 'log'] }))
  await inFlight(both, 1)
  a.send(notification('notifications/cancelled', { requestId: 1 }))
  await inFlight(both, 0)
  const other = b.request(held(1, 'other'))
  await inFlight(both, 1)
  a.send(notification('notifications/step', { call: 'c', all: true }))
  // The answer to the ping says that the step has been passed on before what follows.
  await unasked(a)
  b.send(released('other'))
  await other
  t.strictSame([...(await unasked(a)), ...(await unasked(b))], [])
})

tap.test('a question during a method that is not known reaches nobody else', async (t) => {
  const both = await pair(t)
  const { a, b } = both
  const other = b.request(held(1, 'other'))
  await inFlight(both, 1)
  // Whether a is asked or the question is refused does not matter here.
  a.send(rpc(1, 'x/ask', { method: 'sampling/createMessage', params: { secret: 'of a' } }))
  // The answer to the ping says that the question has been passed on before what follows.
  await unasked(a)
  b.send(released('other'))
  await other
  t.strictSame(await unasked(b), [], 'b was not asked')
})

tap.test('questions outside any call are answered by the sidecar', async (t) => {
  const { a, b, sidecar } = await pair(t)
  const answered = (): number =>
    sidecar.logs.filter(({ fields }) => fields['stderr'] === 'answered later').length
  for (const method of ['roots/list', 'sampling/createMessage']) {
    const before = answered()
    await a.request(call(1, 'ask-later', { method, ms: 20 }))
    // To ask the server would be a call, which it might ask in.
    await until(() => answered() > before, 'the server has its response')
  }
  const responses = (await receivedByServer(a)).flatMap(({ response }) => response ?? [])
  t.match(responses[0], { result: { roots: [] } })
  t.match(responses[1], { error: { code: -32601, data: { source: 'mcp-sidecar', reason: 'ERR_NO_CLIENT' } } })
  t.strictSame([...(await unasked(a)), ...(await unasked(b))], [])
})

tap.test('a client is not asked for what it has not declared', async (t) => {
  const { url } = await startTestSidecar(t, { flags: { topology: 'shared' } })
  const session = await openSession(url, { capabilities: { roots: {} } })
  for (const method of ['sampling/createMessage', 'elicitation/create']) {
    const { json } = await post(url, call(1, 'ask', { method }), session)
    t.match(JSON.parse(textOf(json)), { error: { code: -32601, data: { reason: 'ERR_UNSUPPORTED' } } })
  }
})

tap.test('the end of an elicitation and a withdrawn question reach who was asked', async (t) => {
  const both = await pair(t)
  const { a, b } = both
  const params = { mode: 'url', elicitationId: 'e1', url: 'https://example.test/', message: 'go' }
  const asking = a.request(call(1, 'ask', { method: 'elicitation/create', params }))
  await until(() => a.messages.some(({ method }) => method === 'elicitation/create'), 'a is asked')
  const { id } = a.messages.find(({ method }) => method === 'elicitation/create')
  a.send({ jsonrpc: '2.0', id, result: { action: 'accept' } })
  await asking
  const complete = { method: 'notifications/elicitation/complete', params: { elicitationId: 'e1' } }
  await b.request(call(1, 'notify', complete))
  await b.request(call(1, 'notify', { ...complete, params: { elicitationId: 'e2' } }))
  const second = a.request(call(2, 'ask', { method: 'sampling/createMessage' }))
  await until(() => a.messages.some(({ method }) => method === 'sampling/createMessage'), 'a is asked again')
  const question = a.messages.find(({ method }) => method === 'sampling/createMessage')
  const withdrawn = { method: 'notifications/cancelled', params: { requestId: question.id } }
  await b.request(call(1, 'notify', withdrawn))
  t.match((await unasked(a)).slice(1), [complete, { method: 'sampling/createMessage' }, withdrawn])
  t.strictSame(await unasked(b), [])
  second.catch(() => {})
})

tap.test('a session is nobody’s but its principal’s', async (t) => {
  const all = bearerTokens(t, 'alice', 'bob')
  const { url, base } = await startTestSidecar(t, { flags: { ...all.flags, topology: 'shared' } })
  const session = await openSession(url, { headers: all.of('alice') })
  const stolen = { ...session, ...all.of('bob') }
  const unknown = { ...stolen, 'Mcp-Session-Id': 'no-such-session-at-all' }
  const bodies = new Set<string>()
  for (const headers of [stolen, unknown]) {
    const answers = [
      await post(url, call(1, 'echo'), headers),
      await post(url, notification('notifications/cancelled', { requestId: 1 }), headers),
      await send(url, 'GET', { ...headers, Accept: 'text/event-stream' }),
      await send(url, 'DELETE', headers),
    ]
    t.strictSame(
      answers.map(({ status }) => status),
      [404, 404, 404, 404],
    )
    bodies.add(answers.map(({ body }) => body.replace(/"requestId":"[^"]*"/, '')).join('\n'))
  }
  t.equal(bodies.size, 1, 'it looks the same whether the session exists or not')
  const sse = await openSse(base, { headers: all.of('alice'), version: '2024-11-05' })
  t.equal((await sse.send(call(1, 'echo'), all.of('bob'))).status, 404)
  t.equal((await post(url, call(1, 'echo'), session)).status, 200, 'its owner still has it')
  sse.cut()
})
