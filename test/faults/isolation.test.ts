import fc from 'fast-check'
import tap, { type Test } from 'tap'
import { connectPeer, type Json, type Peer, type TransportName, transports } from '../support/peers.ts'
import { startTestSidecar, type TestSidecar, until } from '../support/sidecar.ts'
import { openSocket } from '../support/streams.ts'
import { bearerTokens } from '../support/tokens.ts'
import { call, follow, open, openSession, post } from '../support/wire.ts'

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
  state: 'in flight' | 'answered' | 'cancelled' | 'sealed' | 'cut'
  progress: number
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
      const at = this.questions.findIndex(({ id }) => id === message.params.requestId)
      if (at < 0) this.#wrong('a cancellation of a question that was not asked here', message)
      else this.questions.splice(at, 1)
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
    this.#isMine(message.params?.metadata, message)
    if (this.obliging) void this.reply(message)
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
    return this.#send(async (peer) => {
      await peer.request(message)
      // A response of its own that ended is all there will be of it.
      if (peer.transport === 'Streamable HTTP' && begun.state === 'in flight' && !this.gone) {
        this.violations.push(`${this.name}: the response to ${begun.key} ended without an answer`)
      }
    })
  }

  /** On Streamable HTTP resolves when the notification was accepted, else when the sidecar has gone past it. */
  async cancel(which: Call): Promise<void> {
    which.state = 'cancelled'
    seen.cancelled++
    await this.#send((peer) =>
      peer.tell({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: which.id } }),
    )
    await this.ping()
    if (which.state === 'cancelled') which.state = 'sealed'
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
    /** Which of these calls the server is still busy with. */
    unfinished(keys: readonly string[]): Promise<string[]>
  }
}

async function setStage(t: Test, limits: object): Promise<Stage> {
  const all = bearerTokens(t, ...principals, 'steward')
  const sidecar = await startTestSidecar(t, {
    flags: { ...all.flags, topology: 'shared', webSocket: true },
    config: { limits: { clientInputMs: 400, ...limits } },
  })
  const { base } = sidecar
  const waiting = new Map<number, (calls: string[]) => void>()
  let lastId = 0
  const peer = await connectPeer({
    transport: 'WebSocket',
    base,
    headers: all.of('steward'),
    onMessage: ({ id, result }) => waiting.get(id)?.(result.calls),
  })
  const unfinished = async (keys: readonly string[]): Promise<string[]> => {
    const id = ++lastId
    const calls = new Promise<string[]>((resolve) => waiting.set(id, resolve))
    await peer.request({ jsonrpc: '2.0', id, method: 'x/scripts' })
    return (await calls).filter((key) => keys.includes(key))
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
      actor.peer = await connectPeer({
        transport,
        listens,
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
    for (const question of actor.questions.splice(0)) background.push(actor.reply(question))
  }
  const keys = actors.flatMap(({ calls }) => calls.map(({ key }) => key))
  const open = (): string[] =>
    actors.flatMap(({ gone, calls }) =>
      gone ? [] : calls.flatMap(({ state, key }) => (state === 'in flight' ? [key] : [])),
    )
  const end = performance.now() + 10_000
  for (;;) {
    for (const key of keys) await steward.tell(step(key, true))
    const busy = await steward.unfinished(keys)
    if (violations.length > 0 || (busy.length === 0 && open().length === 0)) break
    if (performance.now() > end) violations.push(`no end of ${busy}, no answer to ${open()}`)
    await new Promise((resolve) => {
      setTimeout(resolve, 2)
    })
  }
  await Promise.all(actors.map((actor) => actor.ping()))
  for (const actor of actors) if (!actor.gone) await actor.peer?.close()
  if (violations.length > 0) throw new Error(violations.join('\n'))
  await Promise.all(background)
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
  await never(t, stage, 2, 40, true)
  t.ok(seen.timedOut >= 5, `timed out: ${seen.timedOut}`)
})
void [follow, open, openSession, openSocket, post, until]
