import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import t from 'tap'
import { ModernRelay } from '../../src/bridge/modern-relay.ts'
import { createSeal } from '../../src/bridge/seal.ts'
import { TaskOwners } from '../../src/bridge/task-owners.ts'
import { SidecarError } from '../../src/core/errors.ts'
import type { Message } from '../../src/core/jsonrpc.ts'
import { localNotification, messageOf } from '../../src/core/local.ts'
import type { CallHandle, ModernCall, StatelessServer } from '../../src/core/types.ts'
import {
  Caller,
  countingMetrics,
  type Json,
  ManualClock,
  membersAt,
  modernRequest,
  parsed,
  principalOf,
  received,
  written,
} from '../support/modern-calls.ts'
import { nameOf, oddMembers, shownMember, valueText } from '../support/odd-json.ts'
import { holds, shown, stringText } from '../support/property.ts'

class FakeServer implements StatelessServer {
  queuedBytesOf = (): number => 9
  readonly calls: ModernCall[] = []
  cancelled = 0

  call(call: ModernCall): CallHandle {
    this.calls.push(call)
    return { cancel: () => this.cancelled++, waitForInput: () => {} }
  }

  get last(): ModernCall {
    return this.calls.at(-1) as ModernCall
  }

  /** The latest request as the server reads it. */
  get params(): Json {
    return parsed(this.last.message).params
  }

  raw(text: string): void {
    this.last.answer(messageOf(`{"jsonrpc":"2.0","id":5,${text}}`))
  }

  answer(result: object): void {
    this.raw(`"result":${JSON.stringify(result)}`)
  }
}

const tasksExtension = { extensions: { 'io.modelcontextprotocol/tasks': {} } }

class Bench {
  readonly clock = new ManualClock()
  readonly metrics = countingMetrics()
  readonly server = new FakeServer()
  readonly relay: ModernRelay

  constructor(seal = createSeal()) {
    const { clock, metrics } = this
    this.relay = new ModernRelay(this.server, { clock, metrics, seal, tasks: new TaskOwners() })
  }

  call(method: string, params: object = {}, who = 'alice', capabilities: object = tasksExtension): Caller {
    return this.send(modernRequest(method, params, { capabilities }), who)
  }

  send(message: Message, who = 'alice'): Caller {
    const caller = new Caller(message, principalOf(who))
    caller.handle = this.relay.call(caller)
    return caller
  }

  /** A call that was answered with this state, as JSON text. @returns what the client got for it */
  wrapped(state: string, params: object = { name: 'a' }): string {
    const caller = this.call('tools/call', params)
    this.server.raw(`"result":{"resultType":"input_required","inputRequests":{},"requestState":${state}}`)
    return caller.result.requestState as string
  }

  retry(requestState: unknown, params: object = { name: 'a' }, who = 'alice'): Caller {
    return this.call('tools/call', { ...params, requestState, inputResponses: {} }, who)
  }

  /** Whether a retry with this state is refused before the server hears of it. */
  async refuses(...args: Parameters<Bench['retry']>): Promise<boolean> {
    const before = this.server.calls.length
    const caller = this.retry(...args)
    await turn()
    return caller.code === 'ERR_REQUEST_STATE' && caller.outcomes === 1 && this.server.calls.length === before
  }
}

t.test('requests and answers pass as they are', async (t) => {
  const bench = new Bench()
  t.equal(bench.relay.queuedBytesOf(principalOf('alice')), 9)
  holds(
    t,
    fc.property(oddMembers, oddMembers, (params, result) => {
      const own = (members: typeof params): string =>
        members
          .filter((each) => nameOf(each) !== '')
          .map(shownMember)
          .join(',')
      const text = `{"jsonrpc":"2.0","id":1.0,"method":"tools/call","params":{${own(params)}}}`
      const caller = bench.send(messageOf(text))
      if (written(bench.server.last.message) !== text) return false
      const answer = `{"jsonrpc":"2.0","id":5,"result":{${own(result)}}}`
      bench.server.last.answer(messageOf(answer))
      return written(caller.answers[0] as Message) === answer
    }),
    500,
  )
  const caller = bench.call('tools/call')
  const note = localNotification('notifications/message', { level: 'info' })
  bench.server.last.notify(note)
  bench.server.last.progress(localNotification('notifications/progress', { progress: 1 }))
  t.same([caller.notified, caller.progressed], [[note], [1]])
  t.equal(bench.server.last.reachable, true)
  caller.reachable = false
  t.equal(bench.server.last.reachable, false)
  caller.handle?.cancel('x')
  t.equal(bench.server.cancelled, 1)
  const error = new SidecarError('ERR_TIMEOUT')
  bench.server.last.fail(error)
  t.same(caller.errors, [error])
  const refused = bench.call('tools/call')
  bench.server.raw('"error":{"code":-32021,"message":"m","data":{"requestState":"x"}}')
  t.same(refused.error, { code: -32021, message: 'm', data: { requestState: 'x' } })
})

t.test('the server gets its own state back, byte for byte', async (t) => {
  const bench = new Bench()
  const states = [
    ...['"s"', '""', '"a\\"b\\\\c\\/"', '"\\u00e9\\u0000\\ud83d\\ude00"', '"é😀\u2028"', '"\\ud83d"', '"."'],
    ...['null', '7', '1.0', '9007199254740993', '{ "a" : 1.0 }', '[1e2]', 'true'],
  ]
  for (const state of states) {
    const text = bench.wrapped(state)
    t.equal(typeof text, 'string')
    bench.retry(text)
    const at = membersAt(written(bench.server.last.message), 'params')
    t.ok(at.includes(`"requestState":${state}`), shown(state))
    t.same(received(bench.server.last.message).method, 'tools/call')
  }
  holds(
    t,
    fc.property(fc.oneof(stringText, valueText), oddMembers, (state, odd) => {
      const params = odd.map(shownMember).join(',')
      const rest = params === '' ? '' : `,${params}`
      const call = (own: string): string =>
        `{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"p"${rest}${own}}}`
      const first = bench.send(messageOf(call('')))
      bench.server.raw(
        `"result":{${params === '' ? '' : `${params},`}"requestState":${state} ,"resultType" : "input_required"}`,
      )
      const out = written(first.answers[0] as Message)
      if (!out.includes(params)) return false
      const { requestState } = (JSON.parse(out) as Json).result
      bench.send(messageOf(call(`,"requestState" : ${JSON.stringify(requestState)}`)))
      return written(bench.server.last.message) === call(`,"requestState" : ${state}`)
    }),
    500,
  )
})

t.test('however the client spells it', async (t) => {
  const bench = new Bench()
  const text = bench.wrapped('"s"')
  const spelled = [...text].map((c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`).join('')
  bench.send(
    messageOf(
      `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"\\u0072equestState":"${spelled}","name":"a"}}`,
    ),
  )
  t.equal(bench.server.params.requestState, 's')
})

t.test('a state comes back from whom it was given to, in time, with the same request', async (t) => {
  const bench = new Bench()
  const text = bench.wrapped('"s"')
  t.ok(await bench.refuses(text, { name: 'a' }, 'bob'), 'another principal')
  t.ok(await bench.refuses(text, { name: 'b' }), 'another tool')
  t.ok(await bench.refuses(text, { name: 'a', arguments: {} }), 'other arguments')
  t.ok(await bench.refuses('s'), 'unsealed')
  t.ok(await bench.refuses(''), 'empty')
  t.ok(await bench.refuses(`${text}x`), 'changed')
  for (const odd of [null, 7, { a: text }, [text]]) t.ok(await bench.refuses(odd), JSON.stringify(odd))
  t.ok(await bench.refuses(new Bench().wrapped('"s"')), 'of another instance with another key')
  const other = bench.call('prompts/get', { name: 'a', requestState: text })
  await turn()
  t.equal(other.code, 'ERR_REQUEST_STATE', 'another method')
  const hour = 60 * 60 * 1000
  bench.clock.pass(hour - 1)
  bench.retry(text)
  t.equal(bench.server.params.requestState, 's')
  bench.retry(text)
  t.equal(bench.server.params.requestState, 's', 'whether it may be used again is the server’s affair')
  bench.clock.pass(1)
  t.ok(await bench.refuses(text), 'expired')
})

t.test('with the same key it can come back to another instance', async (t) => {
  const key = Buffer.alloc(32, 7)
  const one = new Bench(createSeal(key))
  const two = new Bench(createSeal(key))
  two.retry(one.wrapped('"s"'))
  t.equal(two.server.params.requestState, 's')
})

t.test('states of other kinds are of no use here', async (t) => {
  const seal = createSeal()
  const bench = new Bench(seal)
  const own = seal.open(bench.wrapped('"s"')) as object
  for (const kind of ['parked', 'reissue', 'other'])
    t.ok(await bench.refuses(seal.seal({ ...own, kind, call: 'c', round: 1 })), kind)
})

t.test('no state in, none out', async (t) => {
  const bench = new Bench()
  const caller = bench.call('tools/call')
  bench.server.raw('"result":{"resultType":"input_required","inputRequests":{"a":{"n":1.0}}}')
  t.match(written(caller.answers[0] as Message), /"inputRequests":\{"a":\{"n":1\.0\}\}\}/)
  t.notOk('requestState' in caller.result)
  const complete = bench.call('tools/call')
  bench.server.answer({ resultType: 'complete', requestState: 'mine' })
  t.equal(complete.result.requestState, 'mine', 'in another result it is another thing')
})

const task = { resultType: 'task', taskId: 't1', status: 'working' }

t.test('a task is known to who started it, and to nobody else', async (t) => {
  const bench = new Bench()
  const started = bench.call('tools/call')
  bench.server.answer(task)
  t.same(started.result, task)
  for (const method of ['tasks/get', 'tasks/update', 'tasks/cancel', 'tasks/other']) {
    const calls = bench.server.calls.length
    const own = bench.call(method, { taskId: 't1' })
    t.equal(bench.server.calls.length, calls + 1, method)
    t.equal(own.outcomes, 0)
    for (const [who, taskId] of [
      ['bob', 't1'],
      ['alice', 't2'],
      ['alice', ''],
      ['alice', '__proto__'],
    ] as const) {
      const foreign = bench.call(method, { taskId }, who)
      await turn()
      t.same([foreign.code, foreign.outcomes], ['ERR_TASK_UNKNOWN', 1], `${method} ${taskId} of ${who}`)
    }
    t.equal(bench.server.calls.length, calls + 1)
  }
})

t.test('nor under a name that is no text, which a server may take for its own', async (t) => {
  const bench = new Bench()
  bench.call('tools/call')
  bench.server.answer(task)
  const before = bench.server.calls.length
  for (const method of ['tasks/get', 'tasks/update', 'tasks/cancel', 'tasks/other']) {
    for (const taskId of [['t1'], [['t1']], 7, null, true, { toString: 't1' }]) {
      const foreign = bench.call(method, { taskId }, 'bob')
      await turn()
      t.same([foreign.code, foreign.outcomes], ['ERR_PARAMS', 1], `${method} ${JSON.stringify(taskId)}`)
    }
  }
  t.equal(bench.server.calls.length, before)
})

t.test('nor can anybody else listen to it', async (t) => {
  const bench = new Bench()
  bench.call('tools/call')
  bench.server.answer(task)
  const listen = async (notifications: string, who: string): Promise<boolean> => {
    const before = bench.server.calls.length
    const text = written(modernRequest('subscriptions/listen', { x: 1 }, { capabilities: tasksExtension }))
    const caller = bench.send(messageOf(text.replace('"x":1', `"notifications":${notifications}`)), who)
    await turn()
    const forwarded = bench.server.calls.length > before
    t.equal(caller.outcomes, forwarded ? 0 : 1)
    return forwarded
  }
  t.ok(await listen('{"taskIds":["t1"]}', 'alice'))
  t.ok(await listen('{"taskIds":[]}', 'bob'))
  t.ok(await listen('{"toolsListChanged":true}', 'bob'))
  t.notOk(await listen('{"taskIds":["t1"]}', 'bob'))
  t.notOk(await listen('{"taskIds":["t1","t2"]}', 'alice'))
  t.notOk(await listen('{"\\u0074askIds":["\\u00741"]}', 'bob'))
})

t.test('not even where readers differ about what is asked for', async (t) => {
  const bench = new Bench()
  bench.call('tools/call')
  bench.server.answer(task)
  const text = written(modernRequest('subscriptions/listen', { x: 1 }, { capabilities: tasksExtension }))
  for (const notifications of [
    '{"taskIds":["t1"],"taskIds":[]}',
    '{"TaskIds":["t1"]}',
    '{"taskIds":[],"taskids":["t1"]}',
    // To `includes()`, or as the key of an object, the same as ["t1"].
    '{"taskIds":"t1"}',
    '{"taskIds":[["t1"]]}',
    '{"taskIds":[7]}',
  ]) {
    const before = bench.server.calls.length
    bench.send(messageOf(text.replace('"x":1', `"notifications":${notifications}`)), 'bob')
    await turn()
    t.equal(bench.server.calls.length, before, notifications)
  }
})

t.test('nor one that does not declare tasks', async (t) => {
  const bench = new Bench()
  bench.call('tools/call')
  bench.server.answer(task)
  for (const [method, params] of [
    ['tasks/get', { taskId: 't1' }],
    ['tasks/cancel', { taskId: 't1' }],
    ['subscriptions/listen', { notifications: { taskIds: ['t1'] } }],
  ] as const) {
    const before = bench.server.calls.length
    const caller = bench.call(method, params, 'bob', {})
    await turn()
    const reached = bench.server.calls.length > before
    t.notOk(reached, `${method}: whether a server looks at what was declared is its own affair`)
    t.equal(caller.outcomes, reached ? 0 : 1)
  }
})

t.test('who cannot handle tasks gets none', async (t) => {
  const bench = new Bench()
  for (const capabilities of [{}, { extensions: {} }, { extensions: null }, { tasks: {} }]) {
    const caller = bench.call('tools/call', {}, 'alice', capabilities)
    bench.server.answer(task)
    t.match(caller.errors, [{ code: 'ERR_CAPABILITY', data: { requiredCapabilities: tasksExtension } }])
    t.equal(caller.outcomes, 1)
  }
  const odd = bench.call('tools/call')
  bench.server.answer({ resultType: 'task' })
  t.match(odd.errors, [{ code: 'ERR_UPSTREAM_MESSAGE' }], 'a task without an id is nobody’s')
})

t.test('a type is known however it is spelled', async (t) => {
  const bench = new Bench()
  const caller = bench.call('tools/call', {}, 'alice', {})
  bench.server.raw('"result":{"resultType":"t\\u0061sk","taskId":"x"}')
  t.equal(caller.code, 'ERR_CAPABILITY')
  const asking = bench.call('tools/call')
  bench.server.raw('"result":{"result\\u0054ype":"input_requir\\u0065d","requestState":"secret"}')
  t.not(asking.result.requestState, 'secret')
})

t.test('only versions that are served here are offered', async (t) => {
  const bench = new Bench()
  const cases: [unknown, unknown][] = [
    [['2026-07-28'], ['2026-07-28']],
    [['2027-01-01', '2026-07-28', '2025-11-25'], ['2026-07-28']],
    [['2025-11-25'], []],
    [[], []],
    [[1, null, '2026-07-28', ['2026-07-28']], ['2026-07-28']],
    ['2026-07-28', []],
  ]
  for (const [before, after] of cases) {
    const caller = bench.call('server/discover')
    bench.server.raw(
      `"result":{"a":1.0,"supportedVersions":${JSON.stringify(before)},"capabilities":{"n":9007199254740993}}`,
    )
    t.same(caller.result.supportedVersions, after, JSON.stringify(before))
    t.match(written(caller.answers[0] as Message), /"a":1\.0,.*"n":9007199254740993/)
  }
  const none = bench.call('server/discover')
  bench.server.raw('"result":{"capabilities":{}}')
  t.same(none.result, { capabilities: {} })
  const failed = bench.call('server/discover')
  bench.server.raw('"error":{"code":-32022,"message":"m","data":{}}')
  t.equal(failed.error.code, -32022)
  const other = bench.call('example.com/x')
  bench.server.answer({ supportedVersions: ['1'] })
  t.same(other.result, { supportedVersions: ['1'] })
})
