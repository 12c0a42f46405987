import fc from 'fast-check'
import t from 'tap'
import { type ErrorCode, SidecarError } from '../../src/core/errors.ts'
import type { Message } from '../../src/core/jsonrpc.ts'
import { localNotification, messageOf } from '../../src/core/local.ts'
import { isInteractive } from '../../src/core/mcp.ts'
import { wireBuffers } from '../../src/core/wire.ts'
import { enveloped, envelopeOf, type LegacyClient, type Retry, readClient } from '../../src/era/envelope.ts'
import {
  type CallEffect,
  type CallEvent,
  type CallState,
  idsPerCall,
  maxRounds,
  pauseMs,
  type Step,
  start,
  step,
} from '../../src/era/legacy-over-modern.ts'
import { holds, idText, jsonText } from '../support/property.ts'

const written = (message: Message): string => Buffer.concat(wireBuffers(message.wire)).toString()

function clientOf(capabilities: object, version = '2025-11-25'): LegacyClient {
  const params = { protocolVersion: version, capabilities, clientInfo: { name: 'c', version: '1' } }
  return readClient(
    messageOf(JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'initialize', params })),
    version,
  )
}

const everything = { roots: {}, sampling: { tools: {} }, elicitation: { form: {}, url: {} } }

function begin(method: string, capabilities: object = everything, version?: string): Step {
  return start({ method, client: clientOf(capabilities, version), firstId: 1000, elicitations: 'e' })
}

const result = (value: string): Message => messageOf(`{"jsonrpc":"2.0","id":7,"result":${value}}`)
const refusal = (code: number, data?: object): Message =>
  messageOf(JSON.stringify({ jsonrpc: '2.0', id: 7, error: { code, message: 'no', data } }))
const needs = (value: object): Message => result(JSON.stringify({ resultType: 'input_required', ...value }))

/** Feeds one event after the other and returns the last step. */
function run(first: Step, ...events: CallEvent[]): Step {
  return events.reduce((last, event) => step(last.state, event), first)
}

const answer = (message: Message, attempt = 1): CallEvent => ({ type: 'answer', attempt, message })
const response = (id: number, text: string): CallEvent => ({
  type: 'response',
  id,
  message: messageOf(`{"jsonrpc":"2.0","id":${id},${text}}`),
})

function only<T extends CallEffect['type']>({ effects }: Step, type: T): Extract<CallEffect, { type: T }> {
  if (effects.length !== 1 || effects[0]?.type !== type) {
    throw new Error(`expected ${type}, got ${effects.map((each) => each.type).join()}`)
  }
  return effects[0] as Extract<CallEffect, { type: T }>
}

const failure = (last: Step): ErrorCode => only(last, 'fail').error.code

const form = { method: 'elicitation/create', params: { message: 'm', requestedSchema: { type: 'object' } } }
const url = {
  method: 'elicitation/create',
  params: { mode: 'url', message: 'm', url: 'https://example.com' },
}
const sampling = { method: 'sampling/createMessage', params: { messages: [], maxTokens: 1 } }
const roots = { method: 'roots/list' }

t.test('a call that asks nothing is answered in one round', async (t) => {
  const first = begin('tools/call')
  t.same(first.effects, [{ type: 'send', attempt: 1, retry: undefined }])
  const last = run(first, answer(result('{"resultType":"complete","content":[],"x":1.0}')))
  t.equal(written(only(last, 'answer').message), '{"jsonrpc":"2.0","id":7,"result":{"content":[],"x":1.0}}')
  t.equal(last.state.phase, 'done')
})

t.test('the client is asked, and the call made anew with its answers', async (t) => {
  const asking = run(
    begin('tools/call'),
    answer(needs({ inputRequests: { a: form, b: roots }, requestState: 's' })),
  )
  t.same(
    asking.effects.map((each) => each.type === 'ask' && [each.id, JSON.parse(written(each.request))]),
    [
      [1000, { jsonrpc: '2.0', id: 1000, ...form }],
      [1001, { jsonrpc: '2.0', id: 1001, ...roots }],
    ],
  )
  const half = run(asking, response(1001, '"result":{"roots":[]}'))
  t.same(half.effects, [])
  const { attempt, retry } = only(run(half, response(1000, '"result":{"action":"accept", "n":1.0}')), 'send')
  t.equal(attempt, 2)
  t.same(retry, {
    inputResponses: '{"a":{"action":"accept", "n":1.0},"b":{"roots":[]}}',
    requestState: '"s"',
  })
})

t.test('state alone is sent back after a pause', async (t) => {
  const paused = run(begin('prompts/get'), answer(needs({ requestState: 's' })))
  t.same(paused.effects, [{ type: 'wait', ms: pauseMs }])
  const { retry } = only(run(paused, { type: 'resumed' }), 'send')
  t.same(retry, { inputResponses: undefined, requestState: '"s"' })
})

t.test('no state in, no state back', async (t) => {
  const last = run(
    begin('resources/read'),
    answer(needs({ inputRequests: { a: roots } })),
    response(1000, '"result":{"roots":[]}'),
  )
  t.equal(only(last, 'send').retry?.requestState, undefined)
})

t.test(`${maxRounds} rounds are allowed`, async (t) => {
  let last = begin('tools/call')
  for (let round = 1; round <= maxRounds; round++) {
    last = run(
      last,
      answer(needs({ inputRequests: { a: roots } }), round),
      response(999 + round, '"result":{}'),
    )
    t.equal(only(last, 'send').attempt, round + 1)
  }
  t.equal(failure(run(last, answer(needs({ inputRequests: { a: roots } }), maxRounds + 1))), 'ERR_ROUNDS')
})

t.test('whom a client cannot answer', async (t) => {
  const cases: [string, object, object, string | undefined, boolean][] = [
    ['form, nothing declared', form, {}, undefined, false],
    ['form, an empty declaration', form, { elicitation: {} }, undefined, true],
    ['form, only URLs declared', form, { elicitation: { url: {} } }, undefined, false],
    ['url, only forms declared', url, { elicitation: {} }, undefined, false],
    ['url, declared', url, { elicitation: { url: {} } }, undefined, true],
    ['url, in a version without', url, { elicitation: { form: {}, url: {} } }, '2025-06-18', false],
    ['form, in that version', form, { elicitation: { form: {}, url: {} } }, '2025-06-18', true],
    [
      'an unknown mode',
      { ...form, params: { ...form.params, mode: 'x' } },
      { elicitation: {} },
      undefined,
      false,
    ],
    ['sampling, nothing declared', sampling, {}, undefined, false],
    ['sampling', sampling, { sampling: {} }, undefined, true],
    [
      'sampling with tools',
      { ...sampling, params: { ...sampling.params, tools: [] } },
      { sampling: {} },
      undefined,
      false,
    ],
    [
      'the same, declared',
      { ...sampling, params: { ...sampling.params, tools: [] } },
      { sampling: { tools: {} } },
      undefined,
      true,
    ],
    ['roots, nothing declared', roots, {}, undefined, false],
    ['roots', roots, { roots: { listChanged: true } }, undefined, true],
  ]
  for (const [name, entry, capabilities, version, can] of cases) {
    const last = run(
      begin('prompts/get', capabilities, version),
      answer(needs({ inputRequests: { a: entry }, requestState: 's' })),
    )
    if (can) t.equal(last.effects[0]?.type, 'ask', name)
    else if ((entry as { method: string }).method === 'elicitation/create') {
      t.equal(only(last, 'send').retry?.inputResponses, '{"a":{"action":"cancel"}}', name)
    } else t.equal(failure(last), 'ERR_INPUT', name)
  }
})

t.test('a URL gets an id that the client can tell it by', async (t) => {
  const entry = { ...url, params: { ...url.params, elicitationId: 'own', task: { ttl: 1 } } }
  const { request } = only(run(begin('tools/call'), answer(needs({ inputRequests: { a: entry } }))), 'ask')
  t.same(JSON.parse(written(request)), {
    jsonrpc: '2.0',
    id: 1000,
    method: 'elicitation/create',
    params: { ...url.params, elicitationId: 'e-1000' },
  })
})

t.test('what the client refuses', async (t) => {
  const ask = (method: string): Step =>
    run(begin(method), answer(needs({ inputRequests: { a: form, b: sampling, c: roots } })))
  const refused = '"error":{"code":-1,"message":"no"}'
  const tool = run(ask('tools/call'), response(1001, refused))
  t.same(
    tool.effects.map(({ type }) => type),
    ['withdraw', 'withdraw', 'answer'],
  )
  const told = tool.effects.at(-1) as Extract<CallEffect, { type: 'answer' }>
  t.match(JSON.parse(written(told.message)), { result: { isError: true, content: [{ type: 'text' }] } })
  const prompt = run(ask('prompts/get'), response(1002, refused))
  t.match(prompt.effects.at(-1), { type: 'fail', error: { code: 'ERR_INPUT' } })
  const dismissed = run(
    ask('prompts/get'),
    response(1000, refused),
    response(1001, '"result":{"x":1}'),
    response(1002, '"result":{}'),
  )
  t.equal(only(dismissed, 'send').retry?.inputResponses, '{"a":{"action":"cancel"},"b":{"x":1},"c":{}}')
  const odd = run(ask('prompts/get'), response(1001, '"result":7'))
  t.match(odd.effects.at(-1), { type: 'fail', error: { code: 'ERR_INPUT' } }, 'a result that is no object')
})

t.test('errors of the other era do not reach the client', async (t) => {
  const missing = refusal(-32021, { requiredCapabilities: { sampling: {} } })
  const tool = only(run(begin('tools/call'), answer(missing)), 'answer')
  t.match(JSON.parse(written(tool.message)), { result: { isError: true } })
  t.equal(failure(run(begin('prompts/get'), answer(missing))), 'ERR_INPUT')
  t.equal(failure(run(begin('tools/list'), answer(missing))), 'ERR_INPUT')
  t.equal(failure(run(begin('tools/call'), answer(refusal(-32022)))), 'ERR_UPSTREAM_MESSAGE')
  const other = refusal(-32601)
  t.equal(written(only(run(begin('tools/call'), answer(other)), 'answer').message), written(other))
})

t.test('what a broken server sends fails the call and nothing else', async (t) => {
  const entry = (text: string): string => `{"resultType":"input_required","inputRequests":{"a":${text}}}`
  const junk = [
    '{"resultType":"input_required"}',
    '{"resultType":"input_required","inputRequests":{}}',
    '{"resultType":"input_required","inputRequests":[]}',
    '{"resultType":"input_required","inputRequests":null}',
    '{"resultType":"input_required","inputRequests":"x","requestState":"s"}',
    '{"resultType":"input_required","requestState":1}',
    '{"resultType":"input_required","requestState":null}',
    '{"resultType":"task","taskId":"1"}',
    '{"resultType":7}',
    '[]',
    'null',
    entry('1'),
    entry('{}'),
    entry('{"params":{}}'),
    entry('{"method":"ping","params":{}}'),
    entry('{"method":7,"params":{}}'),
    entry('{"method":"roots/list","method":"roots/list"}'),
    entry('{"method":"roots/list","Method":"x"}'),
    entry('{"method":"roots/list","params":[]}'),
    entry('{"method":"elicitation/create"}'),
    entry('{"method":"sampling/createMessage"}'),
    entry('{"result":{}}'),
    entry('{"method":"roots/list","result":{}}'),
    entry('{"method":"roots/list"},"a":{"method":"roots/list"}'),
    entry('{"method":"roots/list"},"\\u0061":{"method":"roots/list"}'),
    entry(
      `{"method":"roots/list"}${',"b":{"method":"roots/list"}'.repeat(100).replace(/"b"/g, () => `"${++n}"`)}`,
    ),
  ]
  for (const each of junk) {
    t.equal(
      failure(run(begin('tools/call'), answer(result(each)))),
      'ERR_UPSTREAM_MESSAGE',
      each.slice(0, 100),
    )
  }
  const wrong = run(begin('tools/list'), answer(needs({ requestState: 's' })))
  t.equal(failure(wrong), 'ERR_UPSTREAM_MESSAGE', 'input_required where it is not allowed')
})
let n = 0

t.test('any key of a question comes back as it was spelled', async (t) => {
  const keys = ['__proto__', 'constructor', '', 'a"b', '\\u0061', 'é😀']
  const spelled = keys.map((key) => (key === '\\u0061' ? '"\\u0061"' : JSON.stringify(key)))
  const entries = spelled.map((key) => `${key} : {"method":"roots/list"}`).join(' , ')
  const asking = run(
    begin('tools/call'),
    answer(result(`{"resultType":"input_required","inputRequests":{${entries}}}`)),
  )
  t.equal(asking.effects.length, keys.length)
  const last = run(asking, ...keys.map((_, i) => response(1000 + i, '"result":{"n":1e2}')))
  t.equal(only(last, 'send').retry?.inputResponses, `{${spelled.map((key) => `${key}:{"n":1e2}`).join(',')}}`)
})

t.test('an entry may bring what makes it a request, and members of its own', async (t) => {
  const entry =
    '{ "id" : "x", "jsonrpc":"1.0" ,"method":"roots/list", "x": 1.0, "params":{"y":9007199254740993}}'
  const asking = run(
    begin('tools/call'),
    answer(result(`{"resultType":"input_required","inputRequests":{"a":${entry}}}`)),
  )
  t.equal(
    written(only(asking, 'ask').request),
    '{"jsonrpc":"2.0","id":1000, "method":"roots/list", "x": 1.0, "params":{"y":9007199254740993}}',
  )
})

t.test('progress only rises, across rounds', async (t) => {
  const report = (progress: unknown, attempt = 1): CallEvent => ({
    type: 'progress',
    attempt,
    message: localNotification('notifications/progress', { progressToken: 'p', progress }),
  })
  let last = run(begin('tools/call'), report(2))
  t.equal(last.effects[0]?.type, 'progress')
  for (const stale of [2, 1, 'x', null, undefined]) {
    last = run(last, report(stale))
    t.equal(last.effects[0]?.type, 'drop', String(stale))
  }
  last = run(last, answer(needs({ inputRequests: { a: roots } })), response(1000, '"result":{}'))
  t.equal(run(last, report(1, 2)).effects[0]?.type, 'drop')
  t.equal(run(last, report(9, 1)).effects[0]?.type, 'drop', 'of an attempt that is over')
  t.equal(run(last, report(3, 2)).effects[0]?.type, 'progress')
})

t.test('log messages that nobody asked for are dropped', async (t) => {
  const log = (level: string, wanted: string | undefined): string | undefined =>
    run(begin('tools/call'), {
      type: 'log',
      attempt: 1,
      level: wanted,
      message: localNotification('notifications/message', { level, data: 1 }),
    }).effects[0]?.type
  t.equal(log('info', 'info'), 'log')
  t.equal(log('error', 'info'), 'log')
  t.equal(log('debug', 'info'), 'drop')
  t.equal(log('info', undefined), 'drop')
  t.equal(log('loud', 'debug'), 'drop')
})

t.test('a call that is given up leaves nothing open', async (t) => {
  const cancelled: CallEvent = { type: 'cancelled', reason: 'why' }
  const running = begin('tools/call')
  t.same(run(running, cancelled).effects, [{ type: 'abandon', attempt: 1, reason: 'why' }])
  const asking = run(running, answer(needs({ inputRequests: { a: form, b: roots } })))
  t.same(run(asking, response(1001, '"result":{}'), cancelled).effects, [
    { type: 'withdraw', id: 1000, reason: 'why' },
  ])
  const pausing = run(running, answer(needs({ requestState: 's' })))
  t.same(run(pausing, cancelled).effects, [])
  t.same(run(pausing, cancelled, { type: 'resumed' }).effects, [])
  t.match(run(asking, { type: 'expired' }).effects, [
    { type: 'withdraw', id: 1000 },
    { type: 'withdraw', id: 1001 },
    { type: 'fail', error: { code: 'ERR_TIMEOUT' } },
  ])
})

/** What one caller wants to see happen, checked as it happens. */
class Caller {
  state: CallState
  readonly number: number
  readonly request: Message
  readonly mark: string
  readonly #unknown: string
  readonly #context: World
  readonly #envelope: readonly string[]
  outcomes = 0
  cancelled = false
  sends = 0
  reported = Number.NEGATIVE_INFINITY
  readonly open = new Map<number, string>()
  /** As the server must get them with the next attempt. */
  expected: Retry | undefined
  lastWire = ''

  constructor(world: World, number: number, method: string, id: string, unknown: string) {
    this.number = number
    this.mark = `"mark":${number}.0`
    this.#unknown = unknown
    this.#context = world
    const client = clientOf(everything)
    this.#envelope = envelopeOf(client, { supportedVersions: ['2026-07-28'], capabilities: {} }, 'info')
    this.request = messageOf(
      `{"x":${unknown},"id":${id},"jsonrpc":"2.0","method":"${method}","params":{"task":{},"y":${unknown}}}`,
    )
    const first = start({ method, client, firstId: (number + 1) * idsPerCall, elicitations: 'e' })
    this.state = first.state
    this.perform(first)
  }

  feed(event: CallEvent): void {
    const wasDone = this.state.phase === 'done'
    const next = step(this.state, event)
    this.state = next.state
    this.perform(next)
    if (wasDone && next.effects.some(({ type }) => type !== 'drop'))
      throw new Error('something after the end')
  }

  perform({ effects }: Step): void {
    for (const effect of effects) this.#perform(effect)
  }

  #perform(effect: CallEffect): void {
    const check = (holds: boolean, what: string): void => {
      if (!holds) throw new Error(`caller ${this.number}: ${what}`)
    }
    if (this.cancelled)
      check(effect.type === 'withdraw' || effect.type === 'abandon' || effect.type === 'drop', 'silence')
    switch (effect.type) {
      case 'send': {
        check(effect.attempt === ++this.sends, 'attempts count up')
        check(this.sends <= maxRounds + 1, 'not for ever')
        check(this.open.size === 0, 'no question is open while the server works')
        const wire = written(enveloped(this.request, this.#envelope, effect.retry))
        check(
          wire.includes(`"x":${this.#unknown},`) && wire.includes(`"y":${this.#unknown}`),
          'unknown members',
        )
        check(effect.retry?.inputResponses === this.expected?.inputResponses, 'the answers')
        check(effect.retry?.requestState === this.expected?.requestState, 'the state')
        check(wire.includes(effect.retry?.inputResponses ?? ''), 'sent as they are')
        const { params } = JSON.parse(wire) as { params: object }
        check(!('task' in params) || !isInteractive(this.request.method), 'no task')
        return
      }
      case 'ask':
        check(!this.#context.ids.has(effect.id), 'a fresh id')
        check(effect.request.idText === String(effect.id), 'which the request has')
        check(written(effect.request).includes(`"z":${this.#unknown}`), 'with unknown members')
        this.#context.ids.add(effect.id)
        this.open.set(effect.id, effect.request.method)
        return
      case 'withdraw':
        check(this.open.delete(effect.id), 'withdrawn was asked')
        return
      case 'progress': {
        const { params } = effect.message.parsed() as { params: { progress: number } }
        check(params.progress > this.reported, 'progress rises')
        this.reported = params.progress
        return
      }
      case 'answer': {
        check(++this.outcomes === 1, 'one outcome')
        const text = written(effect.message)
        const { result, error } = JSON.parse(text) as { result?: object; error?: { code: number } }
        check((result === undefined) !== (error === undefined), 'a result or an error')
        check(![-32021, -32022].includes(error?.code ?? 0), 'no code of the other era')
        if (result !== undefined && !('isError' in result)) {
          check(
            text.includes(this.mark) && text.includes(`"u":${this.#unknown}`),
            'its own answer, untouched',
          )
          const hinted = this.request.method.startsWith('example.com/')
          check(!('resultType' in result) && 'ttlMs' in result === hinted, 'without modern members')
        }
        check(this.open.size === 0, 'no open questions')
        return
      }
      case 'fail':
        check(++this.outcomes === 1, 'one outcome')
        check(this.open.size === 0, 'no open questions')
    }
  }

  // What the peers do. Each returns false where it makes no sense.

  answer(): void {
    this.feed(
      answer(
        result(`{"ttlMs":0,${this.mark},"resultType":"complete","content":[],"u":${this.#unknown}}`),
        this.state.attempt,
      ),
    )
  }

  ask(kinds: readonly number[], withState: boolean): void {
    const entry = (kind: number): object => [form, url, sampling, roots][kind % 4] as object
    const text = (kind: number): string =>
      JSON.stringify({ ...entry(kind) }).replace(/}$/, `,"z":${this.#unknown}}`)
    const entries = kinds.map((kind, i) => `"k\\u002d${i}":${text(kind)}`)
    const members = [
      '"resultType":"input_required"',
      ...(kinds.length === 0 ? [] : [`"inputRequests":{${entries.join()}}`]),
      ...(withState || kinds.length === 0 ? [`"requestState":"\\u0073${this.state.attempt}"`] : []),
    ]
    if (this.state.phase === 'running') {
      this.expected = {
        inputResponses: undefined,
        requestState: withState || kinds.length === 0 ? `"\\u0073${this.state.attempt}"` : undefined,
      }
    }
    this.feed(answer(result(`{${members.join()}}`), this.state.attempt))
  }

  respond(which: number, refuses: boolean): void {
    const ids = [...this.open.keys()]
    const id = ids.length === 0 ? which : (ids[which % ids.length] as number)
    const method = this.open.get(id)
    this.open.delete(id)
    const text = refuses ? '"error":{"code":-1,"message":"no"}' : `"result":{"u":${this.#unknown},"of":${id}}`
    if (method !== undefined) {
      const key = `"k\\u002d${this.state.questions.findIndex((each) => each.id === id)}"`
      const given = refuses ? '{"action":"cancel"}' : `{"u":${this.#unknown},"of":${id}}`
      this.#given.set(key, given)
      if (this.open.size === 0) {
        const all = this.state.questions.map(({ key: each }) => `${each}:${this.#given.get(each)}`)
        this.expected = { inputResponses: `{${all.join()}}`, requestState: this.expected?.requestState }
        this.#given.clear()
      }
    }
    this.feed(response(id, text))
  }
  readonly #given = new Map<string, string>()

  cancel(): void {
    if (this.state.phase !== 'done') this.cancelled = true
    this.feed({ type: 'cancelled', reason: undefined })
  }
}

interface World {
  readonly ids: Set<number>
}

const methods = ['tools/call', 'prompts/get', 'resources/read', 'tools/list', 'example.com/other']
const move = fc.record({
  who: fc.nat(3),
  what: fc.constantFrom(
    ...['answer', 'ask', 'ask', 'ask', 'respond', 'respond', 'respond', 'respond', 'refuse', 'progress'],
    ...['resume', 'resume', 'error', 'crash', 'cancel', 'expire', 'stale', 'foreign'],
  ),
  n: fc.nat(50),
  kinds: fc.array(fc.nat(3), { maxLength: 4 }),
  flag: fc.boolean(),
})

const spaceless = jsonText.map((text) => text.replace(/[\r\n]/g, ' ').trim())

t.test('whatever happens in whatever order, each caller gets its own answer once', async (t) => {
  const callers = fc.array(
    fc.record({ method: fc.constantFrom(...methods), id: idText, unknown: spaceless }),
    {
      minLength: 1,
      maxLength: 4,
    },
  )
  holds(
    t,
    fc.property(callers, fc.array(move, { maxLength: 80 }), (wanted, moves) => {
      const world: World = { ids: new Set() }
      const all = wanted.map(({ method, id, unknown }, i) => new Caller(world, i, method, id, unknown))
      for (const { who, what, n: some, kinds, flag } of moves) {
        const caller = all[who % all.length] as Caller
        const { attempt } = caller.state
        switch (what) {
          case 'answer':
            caller.answer()
            break
          case 'ask':
            caller.ask(kinds, flag)
            break
          case 'respond':
            caller.respond(some, false)
            break
          case 'refuse':
            caller.respond(some, true)
            break
          case 'progress': {
            const message = localNotification('notifications/progress', { progressToken: 1, progress: some })
            caller.feed({ type: 'progress', attempt, message })
            break
          }
          case 'resume':
            caller.feed({ type: 'resumed' })
            break
          case 'error':
            caller.feed(answer(refusal([-32021, -32022, -32602, -1][some % 4] as number), attempt))
            break
          case 'crash':
            caller.feed({ type: 'failed', attempt, error: new SidecarError('ERR_UPSTREAM_EXIT') })
            break
          case 'cancel':
            caller.cancel()
            break
          case 'expire':
            caller.feed({ type: 'expired' })
            // The clients of withdrawn questions may not have noticed.
            break
          case 'stale':
            caller.feed(answer(result('{"stale":true}'), attempt - 1))
            break
          default: {
            // Another caller's question, answered here.
            const other = all.find((each) => each !== caller && each.open.size > 0)
            const id = other?.open.keys().next().value
            if (id !== undefined) caller.feed(response(id, '"result":{"foreign":true}'))
          }
        }
      }
      for (const caller of all) {
        for (let i = 0; caller.state.phase !== 'done' && i < 1000; i++) {
          if (caller.state.phase === 'running') caller.answer()
          else if (caller.state.phase === 'asking') caller.respond(0, false)
          else caller.feed({ type: 'resumed' })
        }
        if (caller.open.size > 0) return false
        if (caller.outcomes !== (caller.cancelled ? 0 : 1)) return false
      }
      return true
    }),
    2000,
  )
})
