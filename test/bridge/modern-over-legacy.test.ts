import { setImmediate as turn } from 'node:timers/promises'
import t from 'tap'
import { LegacyBehindModern } from '../../src/bridge/modern-over-legacy.ts'
import { createSeal } from '../../src/bridge/seal.ts'
import { metaKey } from '../../src/core/envelope.ts'
import { type ErrorCode, SidecarError } from '../../src/core/errors.ts'
import type { Message } from '../../src/core/jsonrpc.ts'
import { localNotification, localResult, messageOf } from '../../src/core/local.ts'
import { maxDepth } from '../../src/core/scan.ts'
import type {
  CallHandle,
  CallLease,
  CallPool,
  InitializeResult,
  LeaseWish,
  UpstreamCall,
  UpstreamOwner,
} from '../../src/core/types.ts'
import {
  Caller,
  countingMetrics,
  type Json,
  ManualClock,
  modernRequest,
  parsed,
  principalOf,
  type RequestParts,
  written,
} from '../support/modern-calls.ts'

const info: InitializeResult = {
  protocolVersion: '2025-11-25',
  capabilities: {
    tools: { listChanged: true },
    resources: { subscribe: true, listChanged: true },
    logging: {},
    tasks: {},
  },
  serverInfo: { name: 's', version: '1' },
  instructions: 'do',
}

/** A share in a process that does what a test says. */
class FakeLease implements CallLease {
  readonly exclusive = false
  readonly queuedBytes = 0
  readonly server = info
  readonly instance: string
  readonly owner: UpstreamOwner
  readonly wish: LeaseWish
  /** What the process was sent beside the call. */
  readonly sent: Json[] = []
  readonly cancelled: (string | undefined)[] = []
  readonly watched: string[] = []
  /** Wanted of its log messages by later rounds. */
  readonly levels: (string | undefined)[] = []
  current: UpstreamCall | undefined
  parked = false
  releases = 0
  /** How many questions the call's clock is stopped for. */
  waits = 0
  over = false

  constructor(owner: UpstreamOwner, wish: LeaseWish, instance: string) {
    this.owner = owner
    this.wish = wish
    this.instance = instance
  }

  call(call: UpstreamCall): CallHandle {
    this.current = call
    if (call.message.method === 'initialize') queueMicrotask(() => call.answer(localResult('0', info)))
    return {
      cancel: (reason) => {
        if (this.over) return
        this.over = true
        this.cancelled.push(reason)
      },
      waitForInput: (on) => {
        this.waits += on ? 1 : -1
      },
    }
  }

  send(message: Message): void {
    this.sent.push(parsed(message))
  }

  log(level: string | undefined): void {
    this.levels.push(level)
  }

  watch(uris: readonly string[]): void {
    this.watched.push(...uris)
  }

  release(): void {
    this.releases++
  }
  pause(): void {}
  resume(): void {}

  /** The request as the process reads it. */
  get request(): Json {
    return parsed((this.current as UpstreamCall).message)
  }

  ask(method: string, params: object = {}, id: string | number = 1): void {
    const message = messageOf(JSON.stringify({ jsonrpc: '2.0', id, method, params }))
    this.owner.onRequest(message, this.current)
  }

  say(method: string, params: object): void {
    this.owner.onNotification(localNotification(`notifications/${method}`, params), this.current)
  }

  answer(result: object): void {
    this.raw(`"result":${JSON.stringify(result)}`)
  }

  refuse(code: number, data?: object): void {
    this.raw(`"error":${JSON.stringify({ code, message: 'no', data })}`)
  }

  raw(text: string): void {
    this.over = true
    this.current?.answer(messageOf(`{"jsonrpc":"2.0","id":5,${text}}`))
  }

  fail(code: ErrorCode): void {
    this.over = true
    this.current?.fail(new SidecarError(code))
  }

  progress(progress: unknown): void {
    this.current?.progress(localNotification('notifications/progress', { progressToken: 'p5', progress }))
  }

  /** Answers of a client that came through, by the id of the question. */
  get told(): Record<string, Json> {
    return Object.fromEntries(this.sent.map(({ id, result, error }) => [id, result ?? error.code]))
  }
}

class FakePool implements CallPool {
  queuedBytesOf = (): number => 3
  readonly leases: FakeLease[] = []
  full: SidecarError | undefined

  lease(owner: UpstreamOwner, wish: LeaseWish): CallLease {
    if (this.full !== undefined) throw this.full
    const lease = new FakeLease(owner, wish, `i${this.leases.length + 1}`)
    this.leases.push(lease)
    return lease
  }

  get last(): FakeLease {
    return this.leases.at(-1) as FakeLease
  }

  /** Leases that have not been given back. */
  get held(): number {
    return this.leases.filter(({ releases }) => releases === 0).length
  }
}

const inputMs = 300_000
const everything = { elicitation: { form: {}, url: {} }, sampling: { tools: {} }, roots: {} }

class Bench {
  readonly clock = new ManualClock()
  readonly metrics = countingMetrics()
  readonly pool = new FakePool()
  readonly server: LegacyBehindModern
  readonly seal = createSeal()

  constructor() {
    const { clock, metrics, seal } = this
    this.server = new LegacyBehindModern(this.pool, { clock, metrics, seal, inputMs })
  }

  call(method: string, params: object = {}, parts: RequestParts = {}, who = 'alice'): Caller {
    const request = modernRequest(method, params, { capabilities: everything, ...parts })
    const caller = new Caller(request, principalOf(who))
    caller.handle = this.server.call(caller)
    return caller
  }

  tool(parts?: RequestParts): Caller {
    return this.call('tools/call', { name: 'a' }, parts)
  }

  /** A call whose client has been asked; q1 is an elicitation with the id 1, q2 wants roots. */
  asked(more = false, parts?: RequestParts): Caller {
    const caller = this.tool(parts)
    this.pool.last.ask('elicitation/create', { message: 'm' }, 1)
    if (more) this.pool.last.ask('roots/list', {}, 'two')
    this.clock.pass(25)
    return caller
  }

  retry(of: Caller, inputResponses: object, extra: object = {}, parts?: RequestParts, who = 'alice'): Caller {
    const { requestState } = of.result
    return this.call(
      'tools/call',
      { name: 'a', inputResponses, requestState, ...extra },
      { id: 2, ...parts },
      who,
    )
  }

  /** Nothing is kept for anybody. */
  get clean(): boolean {
    return this.pool.held === 0 && this.server.parked === 0 && this.clock.waiting === 0
  }
}

const yes = { action: 'accept', content: { n: 1 } }
const roots = { roots: [] }

async function refused(bench: Bench, caller: Caller): Promise<boolean> {
  await turn()
  return caller.code === 'ERR_REQUEST_STATE' && caller.outcomes === 1 && bench.server !== undefined
}

t.test('a call that is asked nothing is answered, its process given back', async (t) => {
  const bench = new Bench()
  const caller = bench.tool({ logLevel: 'info', progressToken: 'x' })
  const { last } = bench.pool
  t.match(last.wish, { use: 'exclusive', logLevel: 'info', instance: undefined })
  t.same(last.request.params, { name: 'a', _meta: { progressToken: 'x' } })
  last.answer({ content: [], resultType: 'task', x: 1 })
  t.same(caller.result, {
    resultType: 'complete',
    _meta: { [metaKey('serverInfo')]: { name: 's', version: '1' } },
    content: [],
    x: 1,
  })
  t.equal(caller.outcomes, 1)
  t.equal(last.releases, 1)
  t.ok(bench.clean)
  t.equal(bench.server.queuedBytesOf(principalOf('alice')), 3)
})

t.test('what the server asks goes to the client, what the client says to the server', async (t) => {
  const bench = new Bench()
  const first = bench.asked(true)
  const { last } = bench.pool
  t.match(first.result, {
    resultType: 'input_required',
    inputRequests: {
      q1: { method: 'elicitation/create', params: { message: 'm' } },
      q2: { method: 'roots/list' },
    },
  })
  t.equal(typeof first.result.requestState, 'string')
  t.same([last.parked, last.waits, bench.server.parked, bench.pool.held], [true, 1, 1, 1])
  first.handle?.cancel('the socket closed')
  const second = bench.retry(first, { q1: yes, q2: roots })
  t.same(last.told, { 1: yes, two: roots })
  t.same([last.parked, last.waits], [false, 0])
  t.equal(bench.pool.leases.length, 1, 'on the same process')
  last.answer({ content: [] })
  t.same(second.result.content, [])
  t.same([first.outcomes, second.outcomes, last.releases], [1, 1, 1])
  t.ok(bench.clean)
})

t.test('the window collects what is asked at once', async (t) => {
  const bench = new Bench()
  const caller = bench.tool()
  bench.pool.last.ask('roots/list', {}, 1)
  bench.clock.pass(24)
  t.equal(caller.outcomes, 0)
  bench.pool.last.ask('roots/list', {}, 2)
  bench.clock.pass(1)
  t.same(Object.keys(caller.result.inputRequests), ['q1', 'q2'])
})

t.test('a state comes back from whom it was given to, with the same request, once', async (t) => {
  const bench = new Bench()
  const first = bench.asked()
  const other = new Bench()
  const wrong: Record<string, () => Caller> = {
    'another principal': () => bench.retry(first, { q1: yes }, {}, {}, 'bob'),
    'other arguments': () => bench.retry(first, { q1: yes }, { arguments: { x: 1 } }),
    'another tool': () => bench.retry(first, { q1: yes }, { name: 'b' }),
    'another method': () =>
      bench.call('prompts/get', { name: 'a', inputResponses: {}, requestState: first.result.requestState }),
    'a forged state': () => bench.retry(first, { q1: yes }, { requestState: 'x' }),
    'a state that is no text': () => bench.retry(first, { q1: yes }, { requestState: { a: 1 } }),
    'a changed state': () =>
      bench.retry(first, { q1: yes }, { requestState: `${first.result.requestState.slice(0, -1)}_` }),
    'a state of another instance': () =>
      bench.retry(first, { q1: yes }, { requestState: other.asked().result.requestState }),
    'a wrapped state': () => {
      const state = { ...open(bench, first), kind: 'wrapped', state: '"x"' }
      return bench.retry(first, { q1: yes }, { requestState: bench.seal.seal(state) })
    },
    'a call that is not': () => {
      const state = { ...open(bench, first), call: '__proto__' }
      return bench.retry(first, { q1: yes }, { requestState: bench.seal.seal(state) })
    },
    'a round to come': () => {
      const state = { ...open(bench, first), round: 2 }
      return bench.retry(first, { q1: yes }, { requestState: bench.seal.seal(state) })
    },
  }
  for (const [name, retry] of Object.entries(wrong)) {
    t.ok(await refused(bench, retry()), name)
    t.same(bench.pool.last.sent, [], 'the server hears nothing')
    t.equal(bench.server.parked, 1, 'and the call waits on')
  }
  const second = bench.retry(first, {})
  t.match(second.result.inputRequests, { q1: {} })
  t.ok(await refused(bench, bench.retry(first, { q1: yes })), 'a stale round')
  const third = bench.retry(second, { q1: yes }, { _meta: undefined })
  t.ok(await refused(bench, bench.retry(second, { q1: yes })), 'a second retry while the first runs')
  t.same(bench.pool.last.told, { 1: yes })
  bench.pool.last.answer({})
  t.equal(third.outcomes, 1)
  t.ok(await refused(bench, bench.retry(second, { q1: yes })), 'a replay when it is over')
  t.ok(bench.clean)
})
const open = (bench: Bench, caller: Caller): object => bench.seal.open(caller.result.requestState) as object

t.test('a state expires', async (t) => {
  const bench = new Bench()
  const first = bench.asked()
  bench.clock.pass(inputMs - 1)
  t.equal(bench.server.parked, 1)
  bench.clock.pass(1)
  t.same(bench.pool.last.told, { 1: -32603 }, 'the server need not wait any longer')
  t.equal(bench.pool.last.cancelled.length, 1)
  t.ok(bench.clean)
  t.ok(await refused(bench, bench.retry(first, { q1: yes })))
  t.equal(bench.pool.leases.length, 1)
})

t.test('each round has its own time', async (t) => {
  const bench = new Bench()
  const first = bench.asked()
  bench.clock.pass(inputMs - 10)
  const second = bench.retry(first, {})
  bench.clock.pass(inputMs - 10)
  t.equal(bench.server.parked, 1)
  t.ok(await refused(bench, bench.retry(first, { q1: yes })), 'also the old state')
  bench.retry(second, { q1: yes })
  t.same(bench.pool.last.told, { 1: yes })
  bench.clock.pass(2 * inputMs)
  t.equal(bench.pool.held, 1, 'who runs does not expire')
})

t.test('partial answers are passed on, the rest is asked again', async (t) => {
  const bench = new Bench()
  const first = bench.asked(true)
  const second = bench.retry(first, { q2: roots, q1: { action: 'maybe' }, q7: yes })
  t.same(bench.pool.last.told, { two: roots })
  t.same(Object.keys(second.result.inputRequests), ['q1'])
  t.not(second.result.requestState, first.result.requestState)
  t.same([bench.pool.last.parked, bench.pool.last.waits], [true, 1])
  bench.retry(second, { q1: yes, q2: { roots: ['late'] } })
  t.same(bench.pool.last.told, { two: roots, 1: yes })
  t.equal(bench.pool.last.sent.length, 2)
})

t.test('an answer that the server cannot be told does not lose the call', async (t) => {
  const bench = new Bench()
  const first = bench.asked()
  const { requestState } = first.result
  const odd = '{"action":"accept","_meta":{},"_meta":{}}'
  const text = written(modernRequest('tools/call', { name: 'a', requestState }, { capabilities: everything }))
  const retry = new Caller(
    messageOf(text.replace('"name":"a"', `"name":"a","inputResponses":{"q1":${odd}}`)),
    principalOf('alice'),
  )
  bench.server.call(retry)
  await turn()
  const isAsked = retry.result?.resultType === 'input_required'
  const isWaiting = isAsked || bench.pool.last.sent.length === 1 || bench.clean
  t.ok(isWaiting, 'it is asked again, told, or given up; but nobody waits for ever')
})

t.test('answers of other questions, or of another call, are nobody’s', async (t) => {
  const bench = new Bench()
  const one = bench.asked()
  const oneLease = bench.pool.last
  const two = bench.asked()
  bench.retry(two, { q1: { action: 'decline' } })
  t.same(oneLease.sent, [])
  t.same(bench.pool.last.told, { 1: { action: 'decline' } })
  bench.retry(one, { q1: yes })
  t.same(oneLease.told, { 1: yes })
})

t.test('the server withdraws its question', async (t) => {
  const bench = new Bench()
  const first = bench.asked(true)
  bench.pool.last.say('cancelled', { requestId: 'two' })
  const second = bench.retry(first, { q2: roots, q1: yes })
  t.same(bench.pool.last.told, { 1: yes })
  bench.pool.last.ask('roots/list', {}, 3)
  bench.pool.last.say('cancelled', { requestId: 3 })
  bench.clock.pass(100)
  t.equal(second.outcomes, 0)
  bench.pool.last.answer({})
  t.equal(second.outcomes, 1)
  t.ok(bench.clean)
})

t.test('a question is withdrawn by its id, however it is spelled', async (t) => {
  for (const [asked, withdrawn] of [
    ['"a\\/b"', '"a\\/b"'],
    ['"\\u00e9"', '"\\u00e9"'],
    ['"\\u0061"', '"a"'],
    ['1.0', '1'],
    ['1e0', '1e0'],
  ]) {
    const bench = new Bench()
    const caller = bench.tool()
    const { last } = bench.pool
    last.owner.onRequest(messageOf(`{"jsonrpc":"2.0","id":${asked},"method":"roots/list"}`), last.current)
    const params = `{"requestId":${withdrawn}}`
    last.owner.onNotification(
      messageOf(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":${params}}`),
      last.current,
    )
    bench.clock.pass(100)
    t.equal(caller.outcomes, 0, `${asked} by ${withdrawn}`)
  }
})

t.test('the server answers while its client is away', async (t) => {
  const bench = new Bench()
  const first = bench.asked()
  bench.pool.last.answer({ content: ['done'] })
  t.same([bench.pool.held, bench.server.parked], [0, 1], 'the process is free, the answer kept')
  t.same(bench.pool.last.told, { 1: -32603 })
  const second = bench.retry(first, { q1: yes })
  t.match(second.result, { resultType: 'complete', content: ['done'] })
  t.equal(bench.pool.last.sent.length, 1)
  t.ok(bench.clean)
  t.ok(await refused(bench, bench.retry(first, { q1: yes })))
})

t.test('a kept answer is not kept for ever', async (t) => {
  const bench = new Bench()
  const first = bench.asked()
  bench.pool.last.fail('ERR_TIMEOUT')
  bench.clock.pass(inputMs)
  t.ok(bench.clean)
  t.ok(await refused(bench, bench.retry(first, { q1: yes })))
})

t.test('the process ends', async (t) => {
  const bench = new Bench()
  const first = bench.asked()
  bench.pool.last.fail('ERR_UPSTREAM_EXIT')
  t.ok(bench.clean)
  t.ok(await refused(bench, bench.retry(first, { q1: yes })), 'while parked: the client starts over')
  const running = bench.tool()
  bench.pool.last.fail('ERR_UPSTREAM_EXIT')
  t.same([running.code, running.outcomes], ['ERR_UPSTREAM_EXIT', 1])
  t.ok(bench.clean)
})

t.test('whoever leaves gives everything up', async (t) => {
  const bench = new Bench()
  const running = bench.tool()
  running.handle?.cancel('gone')
  t.equal(bench.pool.last.cancelled.length, 1)
  t.ok(bench.clean)
  const asking = bench.tool()
  bench.pool.last.ask('roots/list')
  asking.handle?.cancel('gone')
  t.same(bench.pool.last.told, { 1: -32603 })
  t.ok(bench.clean)
  const again = bench.retry(bench.asked(), { q1: yes })
  again.handle?.cancel('gone')
  t.equal(bench.pool.last.cancelled.length, 1)
  t.ok(bench.clean)
  bench.pool.last.raw('"result":{}')
  t.same([running.outcomes, asking.outcomes, again.outcomes], [0, 0, 0])
})

t.test('the handle of a request that is over cancels no other', async (t) => {
  const bench = new Bench()
  const first = bench.asked()
  const second = bench.retry(first, { q1: yes })
  first.handle?.cancel('late')
  t.equal(bench.pool.last.cancelled.length, 0)
  bench.pool.last.answer({})
  t.equal(second.outcomes, 1)
})

t.test('thousands of calls that nobody comes back to leave nothing', async (t) => {
  const bench = new Bench()
  for (let i = 0; i < 2000; i++) {
    const caller = bench.asked(i % 2 === 0)
    if (i % 3 === 0) bench.retry(caller, {})
    if (i % 5 === 0) bench.pool.last.answer({})
    else if (i % 7 === 0) bench.pool.last.fail('ERR_UPSTREAM_EXIT')
  }
  t.ok(bench.server.parked > 1000)
  bench.clock.pass(inputMs)
  t.ok(bench.clean)
  t.ok(bench.pool.leases.every(({ releases }) => releases === 1))
})

t.test('capabilities count per request', async (t) => {
  const bench = new Bench()
  const nothing = bench.tool({ capabilities: { experimental: {} } })
  t.equal(bench.pool.last.wish.use, 'unasked')
  bench.pool.last.ask('elicitation/create')
  t.match(nothing.errors, [{ code: 'ERR_CAPABILITY', data: { requiredCapabilities: { elicitation: {} } } }])
  t.equal(bench.pool.last.cancelled.length, 1)
  t.ok(bench.clean)
  const form = bench.tool({ capabilities: { elicitation: {} } })
  bench.pool.last.ask('elicitation/create', { mode: 'url', url: 'u' })
  t.equal(form.code, 'ERR_CAPABILITY')
  const second = bench.retry(bench.asked(true), { q2: roots }, {}, { capabilities: { roots: {} } })
  t.equal(second.code, 'ERR_CAPABILITY')
  t.same(bench.pool.last.told, { two: roots, 1: -32603 })
  t.ok(bench.clean)
})

t.test('questions of no kind, and during calls that may not ask, are refused', async (t) => {
  const bench = new Bench()
  const caller = bench.tool()
  bench.pool.last.ask('example.com/ask')
  t.same(bench.pool.last.told, { 1: -32601 })
  bench.pool.last.answer({})
  t.equal(caller.outcomes, 1)
  const other = bench.call('example.com/do', { x: 1 })
  bench.pool.last.ask('elicitation/create')
  t.same(bench.pool.last.told, { 1: -32601 })
  bench.clock.pass(100)
  bench.pool.last.answer({})
  t.match(other.result, { resultType: 'complete' })
})

t.test('a question nested as deep as a server may nest it harms nobody', async (t) => {
  const bench = new Bench()
  const caller = bench.tool()
  const nested = '['.repeat(maxDepth - 2) + ']'.repeat(maxDepth - 2)
  const { last } = bench.pool
  const question = `{"jsonrpc":"2.0","id":1,"method":"elicitation/create","params":{"a":${nested}}}`
  last.owner.onRequest(messageOf(question), last.current)
  t.doesNotThrow(() => bench.clock.pass(25), 'in a timer nobody would catch it')
  t.equal(caller.outcomes, 1)
})

t.test('what a server says of itself harms nobody, however deep', async (t) => {
  const nested = '['.repeat(maxDepth - 3) + ']'.repeat(maxDepth - 3)
  const said = messageOf(
    `{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"a":${nested}}}}`,
  )
  const bench = new Bench()
  let answer = (): void => {}
  bench.pool.lease = (owner, wish) => {
    const lease = new FakeLease(owner, wish, 'i')
    lease.call = (call) => {
      answer = () => call.answer(said)
      return { cancel: () => {}, waitForInput: () => {} }
    }
    return lease
  }
  const caller = bench.call('server/discover')
  t.doesNotThrow(() => answer(), 'in a microtask nobody would catch it')
  t.equal(caller.outcomes, 1)
})

const entries = [{ mode: 'url', elicitationId: 'e', url: 'https://a', message: 'm' }, { url: 'https://b' }]
const both = { q1: yes, q2: { action: 'accept' } }

t.test('what a user must do first is asked, then the call is made again', async (t) => {
  const bench = new Bench()
  const first = bench.tool()
  bench.pool.last.refuse(-32042, { elicitations: entries })
  t.match(first.result, {
    resultType: 'input_required',
    inputRequests: {
      q1: { method: 'elicitation/create', params: { mode: 'url', url: 'https://a', message: 'm' } },
      q2: { method: 'elicitation/create', params: { mode: 'url', url: 'https://b' } },
    },
  })
  t.notMatch(written(first.answers[0] as Message), /elicitationId|-32042/)
  t.ok(bench.clean, 'the call is over, nothing waits')
  const second = bench.retry(first, both, {}, { id: 'x', progressToken: 7 })
  t.match(bench.pool.last.wish, { use: 'exclusive', instance: 'i1' })
  t.same(bench.pool.last.request.params, { name: 'a', _meta: { progressToken: 7 } })
  bench.pool.last.answer({ content: ['ok'] })
  t.same(second.result.content, ['ok'])
  t.ok(await refused(bench, bench.retry(first, both)), 'a replay')
  t.equal(bench.pool.leases.length, 2)
})

t.test('a state of that kind is bound as any other', async (t) => {
  const bench = new Bench()
  const first = bench.tool()
  bench.pool.last.refuse(-32042, { elicitations: entries })
  t.ok(await refused(bench, bench.retry(first, both, {}, {}, 'bob')))
  t.ok(await refused(bench, bench.retry(first, both, { name: 'b' })))
  bench.clock.pass(inputMs)
  t.ok(await refused(bench, bench.retry(first, both)))
  t.equal(bench.pool.leases.length, 1)
})

t.test('if it is not done, the call has failed', async (t) => {
  for (const answers of [
    { q1: { action: 'decline' }, q2: yes },
    { q1: yes, q2: { action: 'cancel' } },
  ]) {
    const bench = new Bench()
    const first = bench.tool()
    bench.pool.last.refuse(-32042, { elicitations: entries })
    const second = bench.retry(first, answers)
    await turn()
    t.match(second.result, { resultType: 'complete', isError: true })
    t.equal(bench.pool.leases.length, 1, 'the server is not asked again')
    t.ok(bench.clean)
    const prompt = bench.call('prompts/get', { name: 'p' })
    bench.pool.last.refuse(-32042, { elicitations: entries })
    const { requestState } = prompt.result
    const again = bench.call('prompts/get', { name: 'p', inputResponses: answers, requestState })
    await turn()
    t.equal(again.code, 'ERR_INPUT')
  }
})

t.test('entries without a URL do not stand in the way', async (t) => {
  const bench = new Bench()
  const first = bench.tool()
  bench.pool.last.refuse(-32042, { elicitations: [{ url: 'a' }, { message: 'no URL' }, { url: 'c' }] })
  const keys = Object.keys(first.result.inputRequests)
  const second = bench.retry(first, Object.fromEntries(keys.map((key) => [key, yes])))
  await turn()
  t.equal(bench.pool.leases.length, 2, 'all was accepted, so the call is made again')
  t.equal(second.outcomes, 0)
})

t.test('-32042 is never told a client', async (t) => {
  const bench = new Bench()
  const lacking = bench.tool({ capabilities: { elicitation: {} } })
  bench.pool.last.refuse(-32042, { elicitations: entries })
  t.match(lacking.errors, [
    { code: 'ERR_CAPABILITY', data: { requiredCapabilities: { elicitation: { url: {} } } } },
  ])
  for (const data of [undefined, {}, { elicitations: [] }, { elicitations: [{ message: 'x' }] }]) {
    const caller = bench.tool()
    bench.pool.last.refuse(-32042, data)
    t.equal(caller.code, 'ERR_UPSTREAM_MESSAGE')
  }
  const list = bench.call('tools/list')
  bench.pool.last.refuse(-32042, { elicitations: entries })
  t.match(list.error, { code: -32603 })
  t.ok(bench.clean)
})

t.test('only tools, prompts and resources ask for input', async (t) => {
  const bench = new Bench()
  const caller = bench.call('example.com/do')
  bench.pool.last.refuse(-32042, { elicitations: entries })
  await turn()
  t.equal(caller.outcomes, 1)
  t.not(caller.result?.resultType, 'input_required')
  t.not(caller.error?.code, -32042)
})

t.test('a requestState that belongs to a method nobody knows is its own', async (t) => {
  const bench = new Bench()
  const caller = bench.call('example.com/do', { requestState: 'mine', task: 1 })
  await turn()
  t.equal(caller.code, undefined)
  t.match(bench.pool.leases[0]?.request.params, { requestState: 'mine', task: 1 })
})

t.test('ten times, then it is given up; questions in between change nothing', async (t) => {
  const bench = new Bench()
  let caller = bench.tool()
  for (let i = 0; i < 10; i++) {
    if (i === 4) {
      bench.pool.last.ask('roots/list')
      bench.clock.pass(25)
      caller = bench.retry(caller, { q1: roots })
    }
    bench.pool.last.refuse(-32042, { elicitations: entries })
    t.equal(caller.result?.resultType, 'input_required', String(i))
    const process = bench.pool.last.instance
    caller = bench.retry(caller, both)
    t.equal(bench.pool.last.wish.instance, process)
  }
  bench.pool.last.refuse(-32042, { elicitations: entries })
  t.equal(caller.code, 'ERR_ROUNDS')
  t.ok(bench.clean)
})

t.test('a server that asks for ever is cut off', async (t) => {
  const bench = new Bench()
  let caller = bench.asked()
  for (let i = 0; i < 60 && caller.result !== undefined; i++) caller = bench.retry(caller, {})
  t.equal(caller.code, 'ERR_ROUNDS')
  t.ok(bench.clean)
})

t.test('log messages go to who wants them, by the level of the request that waits', async (t) => {
  const bench = new Bench()
  const first = bench.tool({ logLevel: 'warning' })
  const { last } = bench.pool
  const logged = (caller: Caller): unknown[] => caller.notified.map((each) => parsed(each).params.data)
  for (const level of ['debug', 'info', 'notice', 'warning', 'error', 'emergency', 'loud', undefined])
    last.say('message', { level, data: level })
  t.same(logged(first), ['warning', 'error', 'emergency'])
  last.ask('roots/list')
  bench.clock.pass(25)
  last.say('message', { level: 'emergency', data: 'while parked' })
  const second = bench.retry(first, { q1: roots }, {}, { logLevel: 'error' })
  last.say('message', { level: 'warning', data: 'too low now' })
  last.say('message', { level: 'error', data: 'later' })
  t.same(logged(first).length, 3)
  t.same(logged(second), ['later'])
  const none = bench.tool()
  bench.pool.last.say('message', { level: 'emergency', data: 1 })
  t.same(logged(none), [])
  t.ok((bench.metrics.drops.get('log_message') ?? 0) >= 7, 'what is dropped is counted')
  last.say('tools/list_changed', {})
  last.say('elicitation/complete', { elicitationId: 'e' })
  t.same(logged(second), ['later'], 'and nothing else')
})

t.test('progress only rises, over all rounds', async (t) => {
  const bench = new Bench()
  const first = bench.tool({ progressToken: 'a' })
  const { last } = bench.pool
  for (const value of [1, 1, 0.5, 3, 'x', null, true, [9], 2, 3.5]) last.progress(value)
  t.same(first.progressed, [1, 3, 3.5])
  last.ask('roots/list')
  bench.clock.pass(25)
  last.progress(10)
  const second = bench.retry(first, { q1: roots }, {}, { progressToken: 99 })
  for (const value of [3.5, 2, 4]) last.progress(value)
  t.same(second.progressed, [4])
  t.same(first.progressed, [1, 3, 3.5])
  last.ask('roots/list', {}, 2)
  bench.clock.pass(25)
  const third = bench.retry(second, { q2: roots })
  last.progress(50)
  t.same(third.progressed, [], 'a request without a token gets none')
})

t.test('discover is answered from what the server said when it was initialized', async (t) => {
  const bench = new Bench()
  const caller = bench.call('server/discover')
  await turn()
  t.match(caller.result, {
    ...{ resultType: 'complete', supportedVersions: ['2026-07-28'], instructions: 'do' },
    ...{ ttlMs: 0, cacheScope: 'private', _meta: { [metaKey('serverInfo')]: { name: 's' } } },
  })
  t.notOk('tasks' in caller.result.capabilities)
  t.equal(bench.pool.last.wish.use, 'shared')
  t.ok(bench.clean)
})

t.test('lists share processes, tasks are unknown', async (t) => {
  const bench = new Bench()
  const list = bench.call('tools/list', { cursor: 'c' })
  t.equal(bench.pool.last.wish.use, 'shared')
  t.same(bench.pool.last.request.params, { cursor: 'c', _meta: {} })
  bench.pool.last.answer({ tools: [{ name: 'x', execution: { taskSupport: 'required' } }] })
  t.match(list.result, { resultType: 'complete', ttlMs: 0, cacheScope: 'private', tools: [] })
  const left = bench.call('prompts/list')
  left.handle?.cancel('gone')
  t.equal(bench.pool.last.cancelled.length, 1)
  for (const method of ['tasks/get', 'tasks/cancel', 'tasks/update', 'tasks/other']) {
    const caller = bench.call(method, { taskId: '1' })
    await turn()
    t.equal(caller.code, 'ERR_METHOD_UNKNOWN', method)
  }
  bench.pool.full = new SidecarError('ERR_DRAINING')
  const calls = ['tools/list', 'tools/call', 'server/discover', 'subscriptions/listen'].map((m) =>
    bench.call(m),
  )
  await turn()
  for (const each of calls) t.same([each.code, each.outcomes], ['ERR_DRAINING', 1])
  t.ok(bench.clean)
})

t.test('a result that is no object is no answer', async (t) => {
  const bench = new Bench()
  for (const method of ['tools/list', 'tools/call']) {
    for (const result of ['null', '[]', '"x"', '7']) {
      const caller = bench.call(method)
      bench.pool.last.raw(`"result":${result}`)
      t.same([caller.code, caller.outcomes], ['ERR_UPSTREAM_MESSAGE', 1], `${method} ${result}`)
    }
  }
  t.ok(bench.clean)
})

const subscriptionId = metaKey('subscriptionId')

t.test('a subscription says first what it gives, and gives only that', async (t) => {
  const bench = new Bench()
  const notifications = {
    toolsListChanged: true,
    promptsListChanged: true,
    resourceSubscriptions: ['file:///a', 'file:///b'],
    taskIds: ['t'],
  }
  const caller = bench.call('subscriptions/listen', { notifications }, { id: 'é1' })
  const { last } = bench.pool
  t.equal(last.wish.use, 'listening')
  last.say('tools/list_changed', {})
  t.same(caller.notified, [], 'nothing precedes the acknowledgement')
  await turn()
  t.same(caller.notified.map(parsed), [
    {
      jsonrpc: '2.0',
      method: 'notifications/subscriptions/acknowledged',
      params: {
        notifications: { toolsListChanged: true, resourceSubscriptions: ['file:///a', 'file:///b'] },
        _meta: { [subscriptionId]: 'é1' },
      },
    },
  ])
  t.same(last.watched, ['file:///a', 'file:///b'])
  const said = ['prompts/list_changed', 'resources/list_changed', 'message', 'progress', 'cancelled', 'x']
  for (const method of said) last.say(method, { requestId: 1 })
  t.equal(caller.notified.length, 1)
  last.say('tools/list_changed', {})
  last.say('resources/updated', { uri: 'file:///a', _meta: { 'x/y': 1 } })
  t.same(caller.notified.slice(1).map(parsed), [
    {
      jsonrpc: '2.0',
      method: 'notifications/tools/list_changed',
      params: { _meta: { [subscriptionId]: 'é1' } },
    },
    {
      jsonrpc: '2.0',
      method: 'notifications/resources/updated',
      params: { uri: 'file:///a', _meta: { [subscriptionId]: 'é1', 'x/y': 1 } },
    },
  ])
  caller.handle?.cancel('gone')
  t.equal(last.releases, 1)
  t.equal(caller.outcomes, 0)
})

t.test('a subscription ends with the server', async (t) => {
  const bench = new Bench()
  const caller = bench.call('subscriptions/listen', { notifications: {} }, { id: 7 })
  await turn()
  t.match(parsed(caller.notified[0] as Message).params, {
    notifications: {},
    _meta: { [subscriptionId]: 7 },
  })
  bench.pool.last.owner.onEnd(new SidecarError('ERR_UPSTREAM_EXIT'))
  t.same([caller.code, caller.outcomes, bench.pool.last.releases], ['ERR_UPSTREAM_EXIT', 1, 1])
})

t.test('a subscription that was left before there was a process stays silent', async (t) => {
  const bench = new Bench()
  const caller = bench.call('subscriptions/listen', { notifications: { resourceSubscriptions: ['u'] } })
  caller.handle?.cancel('gone')
  await turn()
  t.same([caller.notified, bench.pool.last.watched], [[], []])
  t.equal(caller.outcomes, 0)
})
