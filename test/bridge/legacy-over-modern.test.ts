import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import t from 'tap'
import { ModernBehindSessions } from '../../src/bridge/legacy-over-modern.ts'
import { envelopeFaults, metaKey } from '../../src/core/envelope.ts'
import { SidecarError } from '../../src/core/errors.ts'
import { type Message, readMessages } from '../../src/core/jsonrpc.ts'
import { localNotification, messageOf } from '../../src/core/local.ts'
import type {
  CallHandle,
  Clock,
  DiscoverResult,
  Logger,
  Metrics,
  ModernCall,
  Principal,
  Timer,
  Upstream,
  UpstreamCall,
  UpstreamOwner,
} from '../../src/core/types.ts'
import { anonymous } from '../../src/core/types.ts'
import { wireBuffers } from '../../src/core/wire.ts'
import { holds } from '../support/property.ts'

// biome-ignore lint/suspicious/noExplicitAny: JSON of any shape
type Json = any

const text = (message: Message): string => Buffer.concat(wireBuffers(message.wire)).toString()
const json = (message: Message): Json => JSON.parse(text(message))

/** Time that passes when a test says so. */
class Hand implements Clock {
  #now = 0
  readonly timers = new Set<{ at: number; then: () => void }>()

  now(): number {
    return this.#now
  }

  epoch(): number {
    return this.#now
  }

  after(ms: number, then: () => void): Timer {
    const timer = { at: this.#now + ms, then }
    this.timers.add(timer)
    return { refresh: () => this.timers.add(timer), cancel: () => this.timers.delete(timer) }
  }

  pass(ms: number): void {
    this.#now += ms
    for (const timer of [...this.timers]) {
      if (timer.at > this.#now || !this.timers.delete(timer)) continue
      timer.then()
    }
  }
}

/** One request as the server has it. */
class Given {
  readonly call: ModernCall
  readonly message: Message
  cancelled = false
  over = false

  constructor(call: ModernCall) {
    this.call = call
    // As the process would read it.
    this.message = readMessages(Buffer.from(text(call.message))).messages[0] as Message
  }

  get params(): Json {
    return json(this.message).params
  }

  answer(result: object): void {
    this.over = true
    this.call.answer(messageOf(JSON.stringify({ jsonrpc: '2.0', id: 77, result })))
  }

  raw(result: string): void {
    this.over = true
    this.call.answer(messageOf(`{"jsonrpc":"2.0","id":77,"result":${result}}`))
  }

  refuse(code: number, data?: object): void {
    this.over = true
    const error = { code, message: 'no', data }
    this.call.answer(messageOf(JSON.stringify({ jsonrpc: '2.0', id: 77, error })))
  }

  ask(inputRequests: object | undefined, requestState?: string): void {
    this.answer({ resultType: 'input_required', inputRequests, requestState })
  }

  fail(): void {
    this.over = true
    this.call.fail(new SidecarError('ERR_UPSTREAM_EXIT'))
  }

  progress(progress: number): void {
    this.call.progress(localNotification('notifications/progress', { progressToken: 'p7', progress }))
  }

  log(level: string): void {
    this.call.notify(localNotification('notifications/message', { level, data: 'said' }))
  }

  notify(method: string, params: object): void {
    const _meta = { [metaKey('subscriptionId')]: 77 }
    this.call.notify(localNotification(`notifications/${method}`, { ...params, _meta }))
  }

  acknowledge(notifications: object = this.params.notifications): void {
    this.notify('subscriptions/acknowledged', { notifications })
  }
}

class Server {
  readonly given: Given[] = []
  queuedBytesOf = (): number => 5
  result: DiscoverResult | SidecarError | Promise<DiscoverResult>
  readonly attendants = new Set<{ readonly principal: Principal; hear(message: Message): void }>()
  /** Happens inside call, as when an answer is there at once. */
  onCall: ((given: Given) => void) | undefined

  constructor(capabilities: object) {
    this.result = {
      supportedVersions: ['2026-07-28'],
      capabilities: capabilities as Record<string, unknown>,
      instructions: 'i',
      _meta: { [metaKey('serverInfo')]: { name: 's', version: '1' } },
    }
  }

  discovered(): DiscoverResult | Promise<DiscoverResult> {
    if (this.result instanceof SidecarError) throw this.result
    return this.result
  }

  attend(principal: Principal, hear: (message: Message) => void): () => void {
    const attendant = { principal, hear }
    this.attendants.add(attendant)
    return () => this.attendants.delete(attendant)
  }

  /** A notification of the server by the subscription that all sessions share. */
  say(method: string, params: object = {}): void {
    const _meta = { [metaKey('subscriptionId')]: 1 }
    const message = localNotification(`notifications/${method}`, { ...params, _meta })
    for (const { hear } of this.attendants) hear(message)
  }

  call(call: ModernCall): CallHandle {
    const given = new Given(call)
    this.given.push(given)
    this.onCall?.(given)
    return {
      cancel: () => {
        given.cancelled = true
      },
      waitForInput: () => {},
    }
  }

  get open(): Given[] {
    return this.given.filter((each) => !each.cancelled && !each.over)
  }

  last(): Given {
    const given = this.given.at(-1)
    if (given === undefined) throw new Error('nothing was sent')
    return given
  }
}

/** A request of the client, with what came of it. */
class Asked implements UpstreamCall {
  readonly message: Message
  readonly reachable = true
  readonly deadline = { timeoutMs: 1000, maxMs: 10_000, inputMs: 500 }
  handle: CallHandle | undefined
  answers: Message[] = []
  errors: SidecarError[] = []
  progressed: number[] = []

  constructor(message: Message) {
    this.message = message
  }

  progress(message: Message): void {
    this.progressed.push(json(message).params.progress)
  }

  answer(message: Message): void {
    this.answers.push(message)
  }

  fail(error: SidecarError): void {
    this.errors.push(error)
  }

  get result(): Json {
    if (this.answers.length !== 1 || this.errors.length > 0)
      throw new Error(`not one answer: ${this.errors[0]?.code}`)
    return json(this.answers[0] as Message).result
  }

  get code(): string | undefined {
    return this.answers.length > 0 ? 'answered' : this.errors.map(({ code }) => code).join()
  }
}

const everything = {
  roots: { listChanged: true },
  sampling: { tools: {} },
  elicitation: { form: {}, url: {} },
}
const allServed = {
  tools: { listChanged: true },
  prompts: { listChanged: true },
  resources: { subscribe: true, listChanged: true },
  logging: {},
}

class World {
  readonly clock = new Hand()
  readonly server: Server
  readonly dropped: string[] = []
  readonly questions: { message: Message; call: UpstreamCall | undefined }[] = []
  readonly told: { message: Message; call: UpstreamCall | undefined }[] = []
  readonly upstream: Upstream
  /** Answers a question at once. */
  onQuestion: ((message: Message) => void) | undefined

  constructor(served: object = allServed) {
    this.server = new Server(served)
    const metrics = { dropped: (what: string) => void this.dropped.push(what) } as unknown as Metrics
    const log: Logger = { debug() {}, info() {}, warn() {}, error() {} }
    const owner: UpstreamOwner = {
      principal: anonymous,
      onRequest: (message, call) => {
        this.questions.push({ message, call })
        this.onQuestion?.(message)
      },
      onNotification: (message, call) => void this.told.push({ message, call }),
      onEnd: () => {
        throw new Error('a session does not end with its server')
      },
    }
    this.upstream = new ModernBehindSessions(this.server, { clock: this.clock, log, metrics }).lease(owner)
  }

  request(method: string, params?: object | string, id: string | number = 1): Asked {
    const rest =
      params === undefined ? '' : `,"params":${typeof params === 'string' ? params : JSON.stringify(params)}`
    const asked = new Asked(
      messageOf(`{"jsonrpc":"2.0","id":${JSON.stringify(id)},"method":"${method}"${rest}}`),
    )
    asked.handle = this.upstream.call(asked)
    return asked
  }

  async initialize(capabilities: object = everything, protocolVersion = '2025-11-25'): Promise<Asked> {
    const clientInfo = { name: 'c', version: '1' }
    const asked = this.request('initialize', { protocolVersion, capabilities, clientInfo })
    await turn()
    return asked
  }

  respond(id: number, outcome: string): void {
    this.upstream.send(messageOf(`{"jsonrpc":"2.0","id":${id},${outcome}}`))
  }

  notify(method: string): void {
    this.upstream.send(localNotification(`notifications/${method}`))
  }

  /** The ids of the questions that have been put since the last time. */
  asked(): number[] {
    return this.questions.splice(0).map(({ message }) => Number(message.idText))
  }

  /** What the client was told since the last time, apart from the answers. */
  heard(): Json[] {
    return this.told.splice(0).map(({ message }) => json(message))
  }
}

async function open(served?: object, capabilities?: object, version?: string): Promise<World> {
  const world = new World(served)
  await world.initialize(capabilities, version)
  return world
}

const form = { method: 'elicitation/create', params: { message: 'm', requestedSchema: { type: 'object' } } }
const roots = { method: 'roots/list' }

t.test('initialize is answered from what the server said of itself', async (t) => {
  const world = new World()
  const asked = await world.initialize()
  t.same(asked.result, {
    protocolVersion: '2025-11-25',
    capabilities: allServed,
    serverInfo: { name: 's', version: '1' },
    instructions: 'i',
  })
  t.same(world.server.given, [], 'it is not asked again')
  t.equal(world.upstream.exclusive, false)
  t.equal(world.upstream.queuedBytes, 5)
  t.equal(world.clock.timers.size, 0)
})

t.test('initialize waits for a server that starts, and not for ever', async (t) => {
  const world = new World()
  const found = world.server.result
  let resolve: ((result: DiscoverResult) => void) | undefined
  world.server.result = new Promise((then) => {
    resolve = then
  })
  const late = await world.initialize()
  const cancelled = await world.initialize()
  cancelled.handle?.cancel('why')
  t.equal(late.code, '')
  world.clock.pass(1000)
  t.equal(late.code, 'ERR_TIMEOUT')
  const intime = await world.initialize()
  resolve?.(found as DiscoverResult)
  await turn()
  t.equal(intime.code, 'answered')
  t.equal(late.code, 'ERR_TIMEOUT')
  t.equal(cancelled.code, '')
  t.equal(world.clock.timers.size, 0)
})

t.test('initialize fails while the server is down', async (t) => {
  const world = new World()
  world.server.result = new SidecarError('ERR_UPSTREAM_EXIT')
  t.equal((await world.initialize()).code, 'ERR_UPSTREAM_EXIT')
  world.server.result = Promise.reject(new SidecarError('ERR_OVERLOADED'))
  t.equal((await world.initialize()).code, 'ERR_OVERLOADED')
  const early = world.request('tools/list')
  await turn()
  t.equal(early.code, 'ERR_SESSION_MISSING')
})

t.test('a request gets its envelope and its answer', async (t) => {
  const world = await open()
  const asked = world.request(
    'tools/call',
    '{"name":"n","arguments":{"big":9007199254740993},"task":{}}',
    'id-1',
  )
  const given = world.server.last()
  t.same(envelopeFaults(given.message), [])
  t.match(text(given.message), '{"name":"n","arguments":{"big":9007199254740993}}'.slice(1, -1))
  t.same(given.params._meta, {
    [metaKey('protocolVersion')]: '2026-07-28',
    [metaKey('clientInfo')]: { name: 'c', version: '1' },
    [metaKey('clientCapabilities')]: { ...everything, roots: {} },
  })
  t.equal(given.call.logLevel, undefined)
  t.equal(given.call.principal, anonymous)
  given.raw('{"resultType":"complete","content":[],"n":1.0}')
  t.equal(text(asked.answers[0] as Message), '{"jsonrpc":"2.0","id":77,"result":{"content":[],"n":1.0}}')
  t.equal(world.clock.timers.size, 0)
})

t.test('what the sidecar answers itself', async (t) => {
  const world = await open()
  const ping = world.request('ping')
  const level = world.request('logging/setLevel', { level: 'warning' })
  const wrong = world.request('logging/setLevel', { level: 'loud' })
  const none = world.request('logging/setLevel')
  const hidden = ['tasks/get', 'tasks/list', 'server/discover', 'subscriptions/listen'].map((method) =>
    world.request(method, {}),
  )
  const given_up = world.request('ping')
  given_up.handle?.cancel(undefined)
  await turn()
  t.same(ping.result, {})
  t.same(level.result, {})
  t.equal(wrong.code, 'ERR_PARAMS')
  t.equal(none.code, 'ERR_PARAMS')
  for (const each of hidden) t.equal(each.code, 'ERR_UNSUPPORTED')
  t.equal(given_up.code, '')
  t.same(world.server.given, [])
  world.request('tools/list')
  t.equal(world.server.last().params._meta[metaKey('logLevel')], 'warning')
  t.equal(world.server.last().call.logLevel, 'warning')
})

t.test('nothing for which the server declares nothing', async (t) => {
  const world = await open({ tools: {}, resources: null })
  const asked = [
    world.request('logging/setLevel', { level: 'info' }),
    world.request('resources/subscribe', { uri: 'a:b' }),
    world.request('resources/unsubscribe', { uri: 'a:b' }),
  ]
  await turn()
  for (const each of asked) t.equal(each.code, 'ERR_UNSUPPORTED', each.message.method)
  t.same(world.server.given, [])
})

t.test('the client is asked on the stream of its call', async (t) => {
  const world = await open()
  const asked = world.request('tools/call', '{"name":"n", "x":1.0}')
  world.server.last().ask({ a: form, b: roots }, 'state')
  const [first, second] = world.questions
  t.equal(first?.call, asked)
  t.equal(second?.call, asked)
  const [one, two] = world.asked() as [number, number]
  world.respond(two, '"result":{"roots":[],"n":1e2}')
  t.equal(world.server.given.length, 1)
  world.respond(one, '"result":{"action":"decline"}')
  const retry = world.server.last()
  t.match(
    text(retry.message),
    '"inputResponses":{"a":{"action":"decline"},"b":{"roots":[],"n":1e2}},"requestState":"state","name":"n", "x":1.0',
  )
  t.same(envelopeFaults(retry.message), [])
  retry.answer({ resultType: 'complete', content: [] })
  t.same(asked.result, { content: [] })
  world.respond(one, '"result":{}')
  t.same(world.dropped, ['unexpected_response'])
  t.equal(world.clock.timers.size, 0)
})

t.test('peers that answer before anybody has looked away', async (t) => {
  const world = await open()
  let round = 0
  world.server.onCall = (given) => {
    if (++round <= 5) given.ask({ a: form, b: roots }, `s${round}`)
    else given.answer({ resultType: 'complete', content: [] })
  }
  world.onQuestion = (message) => world.respond(Number(message.idText), '"result":{"action":"accept"}')
  const asked = world.request('tools/call', { name: 'n' })
  t.same(asked.result, { content: [] })
  t.equal(world.server.given.length, 6)
  t.equal(new Set(world.questions.map(({ message }) => message.idText)).size, 10)
})

t.test('two calls ask with different ids, and each gets its own answers', async (t) => {
  const world = await open()
  const one = world.request('tools/call', { name: 'one' }, 1)
  const two = world.request('prompts/get', { name: 'two' }, '1')
  for (const given of [...world.server.given]) given.ask({ k: roots }, given.params.name)
  const [first, second] = world.asked() as [number, number]
  world.respond(second, '"result":{"of":2}')
  world.respond(first, '"result":{"of":1}')
  for (const given of world.server.given.slice(2)) {
    const { inputResponses, requestState, name } = given.params
    t.equal(requestState, name)
    t.equal(inputResponses.k.of, name === 'one' ? 1 : 2)
    given.answer({ resultType: 'complete', name })
  }
  t.same([one.result, two.result], [{ name: 'one' }, { name: 'two' }])
})

t.test('a URL to visit', async (t) => {
  const world = await open()
  world.request('tools/call', { name: 'n' })
  const params = { mode: 'url', message: 'm', url: 'https://example.com/' }
  world.server.last().ask({ a: { method: 'elicitation/create', params } })
  const { message } = world.questions[0] as { message: Message }
  const { elicitationId, ...rest } = json(message).params
  t.same(rest, params)
  t.match(elicitationId, /^[-0-9a-f]{36}-\d+$/)
})

t.test('state alone is sent back after a pause, within the time of the call', async (t) => {
  const world = await open()
  const asked = world.request('tools/call', { name: 'n' })
  world.server.last().ask(undefined, 's')
  t.equal(world.server.given.length, 1)
  world.clock.pass(250)
  t.equal(world.server.last().params.requestState, 's')
  t.equal(world.server.last().call.deadline.maxMs, 9750)
  world.server.last().ask({ a: form })
  world.clock.pass(9750)
  t.equal(asked.code, 'ERR_TIMEOUT')
  t.match(world.heard(), [{ method: 'notifications/cancelled', params: { requestId: world.asked()[0] } }])
  t.equal(world.clock.timers.size, 0)
})

t.test('whoever gives up the call gives up what is open', async (t) => {
  const world = await open()
  const running = world.request('tools/call', { name: 'n' })
  running.handle?.cancel('why')
  t.ok(world.server.last().cancelled)
  world.server.last().answer({ resultType: 'complete' })
  t.equal(running.code, '')
  const asking = world.request('tools/call', { name: 'n' })
  world.server.last().ask({ a: form, b: roots })
  const [first, second] = world.asked() as [number, number]
  world.respond(second, '"result":{"roots":[]}')
  asking.handle?.cancel('why')
  t.match(world.told, [{ call: asking }])
  t.same(world.heard(), [
    { jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: first, reason: 'why' } },
  ])
  world.respond(first, '"result":{"action":"accept"}')
  t.equal(asking.code, '')
  t.equal(world.server.given.length, 2)
  const pausing = world.request('tools/call', { name: 'n' })
  world.server.last().ask(undefined, 's')
  pausing.handle?.cancel('why')
  world.clock.pass(1000)
  t.equal(world.server.given.length, 3)
  t.equal(world.clock.timers.size, 0)
})

t.test('progress and log messages of all rounds', async (t) => {
  const world = await open()
  world.request('logging/setLevel', { level: 'warning' })
  const asked = world.request('tools/call', { name: 'n', _meta: { progressToken: 't' } })
  const first = world.server.last()
  first.progress(1)
  first.progress(1)
  first.progress(3)
  first.log('error')
  first.log('info')
  first.notify('resources/updated', { uri: 'a:b' })
  first.ask({ a: roots })
  first.progress(4)
  world.respond(world.asked()[0] as number, '"result":{}')
  world.server.last().progress(2)
  world.server.last().progress(5)
  t.same(asked.progressed, [1, 3, 5])
  t.match(world.told, [{ call: asked, message: { method: 'notifications/message' } }])
  t.same(world.dropped, [
    'stale_progress',
    'unwanted_log',
    'unattributable',
    'late_progress',
    'stale_progress',
  ])
  world.server.last().answer({ resultType: 'complete' })
  world.server.last().log('error')
  t.equal(world.told.length, 1)
})

t.test('a server that is not there fails the call, not the session', async (t) => {
  const world = await open()
  const asked = world.request('tools/call', { name: 'n' })
  world.server.last().fail()
  t.equal(asked.code, 'ERR_UPSTREAM_EXIT')
  world.server.onCall = () => {
    throw new SidecarError('ERR_OVERLOADED')
  }
  t.equal(world.request('tools/list').code, 'ERR_OVERLOADED')
})

t.test('lists that change', async (t) => {
  const world = new World()
  const { server } = world
  t.same(
    [...server.attendants].map(({ principal }) => principal),
    [anonymous],
    'the server is kept from the start',
  )
  world.notify('initialized')
  server.say('tools/list_changed')
  await world.initialize()
  t.same(world.heard(), [], 'nobody was told of a server yet')
  const other = new World()
  await other.initialize()
  for (const each of ['tools', 'prompts', 'resources']) other.server.say(`${each}/list_changed`)
  other.notify('roots/list_changed')
  t.same(other.heard(), [], 'not before the client is ready')
  other.notify('initialized')
  other.notify('initialized')
  for (const each of ['tools', 'prompts', 'resources']) other.server.say(`${each}/list_changed`, { x: 1 })
  other.server.say('prompts/list_changed', { _meta: { mine: true } })
  for (const each of ['resources/updated', 'message', 'subscriptions/acknowledged', 'tools/list_changed/x']) {
    other.server.say(each, { uri: 'a:b' })
  }
  t.same(
    other.told.map(({ call }) => call),
    [undefined, undefined, undefined, undefined],
  )
  const told = (list: string, params?: object): Json => {
    return { jsonrpc: '2.0', method: `notifications/${list}/list_changed`, params }
  }
  t.same(other.heard(), [
    told('tools', { x: 1 }),
    told('prompts', { x: 1 }),
    told('resources', { x: 1 }),
    told('prompts', {}),
  ])
  t.same(other.server.given, [], 'and no subscription of its own')
  t.equal(other.server.attendants.size, 1)
  t.equal(other.clock.timers.size, 0)
})

t.test('only what the client was told of', async (t) => {
  const world = await open({ tools: { listChanged: true }, prompts: {}, resources: null })
  world.notify('initialized')
  for (const each of ['prompts', 'resources', 'tools']) world.server.say(`${each}/list_changed`)
  t.match(world.heard(), [{ method: 'notifications/tools/list_changed' }])
})

t.test('a stream that the server ends is opened again', async (t) => {
  const world = await open()
  world.request('resources/subscribe', { uri: 'a:1' })
  const ends: ((given: Given) => void)[] = [
    (given) => given.answer({ resultType: 'complete' }),
    (given) => given.refuse(-32603),
    (given) => given.fail(),
  ]
  for (const end of ends) {
    const listen = world.server.last()
    listen.acknowledge()
    listen.notify('tools/list_changed', {})
    end(listen)
    t.equal(world.server.open.length, 0)
    world.clock.pass(60_000)
    t.equal(world.server.open.length, 1)
    t.same(world.server.last().params.notifications, { resourceSubscriptions: ['a:1'] })
  }
  t.same(world.heard(), [])
  t.same(world.dropped, ['unwanted_notification', 'unwanted_notification', 'unwanted_notification'])
  world.clock.pass(60_000)
  t.equal(world.server.open.length, 0, 'one that is never acknowledged is given up')
  world.clock.pass(60_000)
  world.server.last().refuse(-32601)
  world.clock.pass(600_000)
  t.equal(world.server.open.length, 0, 'and none if there is no such method')
})

t.test('resources that are watched', async (t) => {
  const world = await open()
  const one = world.request('resources/subscribe', { uri: 'a:1' })
  const first = world.server.last()
  t.same(first.params.notifications, { resourceSubscriptions: ['a:1'] })
  t.equal(one.code, '')
  first.acknowledge()
  t.same(one.result, {})
  const two = world.request('resources/subscribe', { uri: 'a:2' })
  const second = world.server.last()
  first.notify('resources/updated', { uri: 'a:1' })
  t.equal(world.heard().length, 1, 'no gap')
  second.acknowledge()
  t.same(two.result, {})
  t.ok(first.cancelled)
  first.notify('resources/updated', { uri: 'a:1' })
  second.notify('resources/updated', { uri: 'a:1' })
  t.same(world.heard(), [
    { jsonrpc: '2.0', method: 'notifications/resources/updated', params: { uri: 'a:1' } },
  ])
  const three = world.request('resources/subscribe', { uri: 'a:3' })
  world.server.last().acknowledge({ resourceSubscriptions: ['a:1', 'a:2', 7] })
  t.equal(three.code, 'ERR_PARAMS')
  const four = world.request('resources/unsubscribe', { uri: 'a:1' })
  world.server.last().acknowledge()
  t.same(four.result, {})
  t.same(world.server.last().params.notifications, { resourceSubscriptions: ['a:2'] })
  const five = world.request('resources/unsubscribe', { uri: 'a:2' })
  t.same(five.result, {})
  t.equal(world.server.open.length, 0)
  const six = world.request('resources/subscribe', {})
  await turn()
  t.equal(six.code, 'ERR_PARAMS')
})

t.test('what becomes of a subscription that fails', async (t) => {
  const world = await open()
  const refused = world.request('resources/subscribe', { uri: 'a:1' })
  world.server.last().refuse(-32602)
  t.equal(refused.code, 'ERR_PARAMS')
  const broken = world.request('resources/subscribe', { uri: 'a:1' })
  world.server.last().refuse(-32603)
  t.equal(broken.code, 'ERR_UPSTREAM_MESSAGE')
  const odd = world.request('resources/subscribe', { uri: 'a:1' })
  world.server.last().acknowledge({ resourceSubscriptions: { 0: 'a:1' } })
  t.equal(odd.code, 'ERR_PARAMS')
  const silent = world.request('resources/subscribe', { uri: 'a:1' })
  world.clock.pass(1000)
  t.equal(silent.code, 'ERR_TIMEOUT')
  t.ok(world.server.last().cancelled)
  const forgotten = world.request('resources/subscribe', { uri: 'a:1' })
  forgotten.handle?.cancel(undefined)
  world.server.last().acknowledge()
  t.equal(forgotten.code, '')
  t.equal(world.server.open.length, 1)
  world.server.onCall = () => {
    throw new SidecarError('ERR_OVERLOADED')
  }
  t.equal(world.request('resources/subscribe', { uri: 'a:2' }).code, 'ERR_OVERLOADED')
})

t.test('nothing is left of a session that has ended', async (t) => {
  const world = await open()
  world.notify('initialized')
  world.request('resources/subscribe', { uri: 'a:1' })
  const running = world.request('tools/call', { name: 'n' })
  const asking = world.request('tools/call', { name: 'n' })
  world.server.last().ask({ a: form })
  world.upstream.release()
  world.upstream.release()
  t.equal(world.server.open.length, 0)
  t.equal(world.server.attendants.size, 0)
  t.equal(world.clock.timers.size, 0)
  t.same(world.heard(), [])
  t.same([running.code, asking.code], ['', ''])
  const late = world.request('tools/list')
  world.notify('initialized')
  await turn()
  t.equal(late.code, 'ERR_SESSION_MISSING')
  t.equal(world.server.open.length, 0)
})

const move = fc.record({
  what: fc.constantFrom(
    ...[
      'call',
      'call',
      'complete',
      'complete',
      'ask',
      'ask',
      'ask',
      'respond',
      'respond',
      'respond',
      'respond',
    ],
    ...[
      'refuse',
      'fail',
      'cancel',
      'pass',
      'pass',
      'progress',
      'log',
      'subscribe',
      'unsubscribe',
      'acknowledge',
      'end',
    ],
  ),
  n: fc.nat(20),
  flag: fc.boolean(),
})

t.test('whatever happens, each request of the client gets one answer of its own', async (t) => {
  const worlds: World[] = []
  const makeWorld = async (): Promise<void> => {
    for (let i = 0; i < 500; i++) worlds.push(await open())
  }
  await makeWorld()
  holds(
    t,
    fc.property(fc.array(move, { maxLength: 60 }), (moves) => {
      const world = worlds.pop() as World
      const { server } = world
      const calls: Asked[] = []
      const cancelled = new Set<Asked>()
      const wishes: Asked[] = []
      const unanswered = new Map<number, Message>()
      const collect = (): void => {
        for (const { message } of world.questions.splice(0)) {
          const id = Number(message.idText)
          if (unanswered.has(id)) throw new Error('the same id twice')
          unanswered.set(id, message)
        }
        for (const each of world.heard()) {
          if (each.method === 'notifications/cancelled' && !unanswered.delete(each.params.requestId)) {
            throw new Error('withdrew what was not asked')
          }
        }
        for (const call of cancelled)
          if (call.code !== '') throw new Error('something after the cancellation')
      }
      for (const { what, n, flag } of moves) {
        const running = server.open.filter(({ message }) => message.method !== 'subscriptions/listen')
        const streams = server.open.filter(({ message }) => message.method === 'subscriptions/listen')
        const given = running[n % Math.max(1, running.length)]
        const stream = streams[n % Math.max(1, streams.length)]
        const id = [...unanswered.keys()][n % Math.max(1, unanswered.size)]
        switch (what) {
          case 'call':
            calls.push(world.request('tools/call', { name: `n${calls.length}` }, flag ? n : `${n}`))
            break
          case 'complete':
            given?.answer({ resultType: 'complete', name: given.params.name })
            break
          case 'ask':
            given?.ask(flag ? { a: form, b: roots } : undefined, given.params.name)
            break
          case 'respond':
          case 'refuse':
            if (id === undefined) break
            unanswered.delete(id)
            world.respond(
              id,
              what === 'refuse' ? '"error":{"code":1,"message":""}' : '"result":{"action":"accept"}',
            )
            break
          case 'fail':
            given?.fail()
            break
          case 'cancel': {
            const call = calls[n % Math.max(1, calls.length)]
            if (call === undefined || call.code !== '') break
            cancelled.add(call)
            call.handle?.cancel(undefined)
            break
          }
          case 'pass':
            world.clock.pass(flag ? 300 : 3000)
            break
          case 'progress':
            given?.progress(n)
            break
          case 'log':
            given?.log('error')
            break
          case 'subscribe':
          case 'unsubscribe':
            wishes.push(world.request(`resources/${what}`, { uri: `a:${n % 4}` }))
            break
          case 'acknowledge':
            stream?.acknowledge(flag ? undefined : { resourceSubscriptions: ['a:1'] })
            break
          default:
            stream?.answer({ resultType: 'complete' })
        }
        collect()
      }
      world.clock.pass(100_000)
      for (const given of server.open) {
        if (given.message.method === 'subscriptions/listen') given.acknowledge()
        else given.answer({ resultType: 'complete', name: given.params.name })
      }
      for (let i = 0; i < 10; i++) {
        for (const given of server.open)
          if (given.message.method === 'subscriptions/listen') given.acknowledge()
      }
      collect()
      for (const [i, call] of calls.entries()) {
        if (call.answers.length + call.errors.length !== (cancelled.has(call) ? 0 : 1)) return false
        const { result } = call.answers.length === 0 ? { result: {} } : json(call.answers[0] as Message)
        if (result.isError !== true && result.name !== undefined && result.name !== `n${i}`) return false
      }
      for (const wish of wishes) if (wish.answers.length + wish.errors.length !== 1) return false
      world.upstream.release()
      return unanswered.size === 0 && server.open.length === 0 && world.clock.timers.size === 0
    }),
    500,
  )
})
