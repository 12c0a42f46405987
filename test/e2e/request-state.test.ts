import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { systemClock } from '../../src/observe/clock.ts'
import { forwardClock } from '../support/forward-clock.ts'
import {
  ask,
  begin,
  everything,
  type Headers,
  type Id,
  type Json,
  modern,
  type Request,
  refusedWith,
  retry,
  said,
  serverCommand,
  tool,
} from '../support/modern.ts'
import { alive, folder, pidFile } from '../support/processes.ts'
import { startTestSidecar, type TestOptions, type TestSidecar, until } from '../support/sidecar.ts'
import { openSocket } from '../support/streams.ts'
import { bearerTokens } from '../support/tokens.ts'
import type { RawResponse } from '../support/wire.ts'

/*
 * What a client keeps for a server between two rounds, and how it is accepted back. Three kinds of it: a call that waits
 * in a legacy process, one that a legacy server ended because of something to be done at a URL first (-32042), and a
 * modern server's own state.
 */

const people = bearerTokens(t, 'alice', 'bob')
const alice = people.of('alice')
const bob = people.of('bob')

const interviewer = serverCommand('../support/interview-server.mjs')
const modernServer = serverCommand('modern-server.mjs')
const everythingServer = serverCommand(
  '../../node_modules/@modelcontextprotocol/server-everything/dist/index.js',
  'stdio',
)
const capabilities = everything

/** What a server waits before it does what its client should not miss, on a busy machine too. */
const patienceMs = 1500

/** A clock of which the time since 1970 can be put forward: seals expire by it, timers do not. */
const skewed = { ms: 0 }
const clock = { ...systemClock, epoch: () => systemClock.epoch() + skewed.ms }

const start = (t: Test, command: readonly string[], more: TestOptions = {}): Promise<TestSidecar> =>
  startTestSidecar(t, {
    command,
    clock,
    ...more,
    flags: { ...people.flags, ...more.flags },
    config: { ...more.config, listen: { webSocket: true } },
  })

const accepted = (by: string): Json => ({ action: 'accept', content: { by } })
const interview = (id: Id, name = 'call', rounds: readonly string[][] = [['elicitation']]): Request =>
  tool(id, 'interview', { owner: 'alice', call: name, rounds }, { capabilities })
const urlCall = (id: Id): Request =>
  tool(
    id,
    'trigger-url-elicitation',
    { url: 'https://example.com/', message: 'go there', elicitationId: `e-${id}`, errorPath: true },
    { capabilities },
  )
const form = {
  method: 'elicitation/create',
  params: { mode: 'form', message: 'm', requestedSchema: { type: 'object', properties: {} } },
}
/** Of a server that protects nothing itself: whatever comes back is in its answer. */
const wrapping = (id: Id, state = 'the state'): Request =>
  tool(id, 'ask', { inputRequests: { q1: form }, requestState: state }, { capabilities })

interface Kind {
  readonly sidecar: TestSidecar
  /** @param name makes it another request */
  first(id: Id, name?: string): Request
  readonly answers: object
  /** What comes of a good retry. */
  good(t: Test, answer: RawResponse): void
  /** It can be brought back once only. */
  readonly once: boolean
}

const [interviews, modernOnes, urls, other] = await Promise.all([
  start(t, interviewer),
  start(t, modernServer),
  start(t, everythingServer),
  start(t, modernServer),
])

const kinds: Readonly<Record<'parked' | 'reissue' | 'wrapped', Kind>> = {
  parked: {
    sidecar: interviews,
    first: (id, name) => interview(id, name),
    answers: { q1: accepted('alice') },
    good: (t, { json }) => t.same(said(json).replies, [[{ result: accepted('alice') }]]),
    once: true,
  },
  reissue: {
    sidecar: urls,
    first: (id, name) => urlCall(name ?? id),
    answers: { q1: { action: 'accept' } },
    good: (t, { json }) => t.match(json.result, { resultType: /^(complete|input_required)$/ }),
    once: true,
  },
  wrapped: {
    sidecar: modernOnes,
    first: (id, name) => wrapping(id, name),
    answers: { q1: accepted('alice') },
    good: (t, { json }) => t.same(said(json).inputResponses, { q1: accepted('alice') }),
    once: false,
  },
}

interface Asked {
  readonly request: Request
  readonly state: string
  readonly questions: Json
}

/** Brings a call to its first question. */
async function toQuestion(url: string, request: Request, headers: Headers = alice): Promise<Asked> {
  const { json, body, status } = await ask(url, request, headers)
  if (status !== 200 || json?.result?.resultType !== 'input_required') {
    throw new Error(`no question: ${status} ${body}`)
  }
  const { inputRequests, requestState } = json.result
  if (typeof requestState !== 'string') throw new Error(`no state: ${body}`)
  return { request, state: requestState, questions: inputRequests }
}

/** Brings a call to its end, which would else keep its process until it expires. */
async function settle({ sidecar, ...kind }: Kind, { request, state }: Asked): Promise<void> {
  let next: unknown = state
  let { answers } = kind
  while (typeof next === 'string') {
    const { json } = await ask(sidecar.url, retry(request, 'settle', answers, next), alice)
    // The questions of a call are numbered through, so the same answers may fit no more: then nobody wants to answer.
    const keys = Object.keys(json.result?.inputRequests ?? {})
    answers = Object.fromEntries(keys.map((key) => [key, { action: 'cancel' }]))
    next = json.result?.requestState
  }
}

/** A retry that is accepted; whatever is asked next is answered, too. */
async function broughtBack(t: Test, kind: Kind, message: Request): Promise<void> {
  const answer = await ask(kind.sidecar.url, message, alice)
  kind.good(t, answer)
  const state = answer.json?.result?.requestState
  if (state !== undefined) await settle(kind, { request: message, state, questions: {} })
}

const refusals = new Set<string>()
/** The one answer to every state that is not accepted, to the letter; nobody learns what was wrong with it. */
function isRefused(t: Test, answer: RawResponse, id: Id, what?: string): void {
  refusedWith(t, answer, [200, -32602, 'ERR_REQUEST_STATE'], id)
  const { requestId, reason } = answer.json?.error?.data ?? {}
  if (reason !== 'ERR_REQUEST_STATE') return
  refusals.add(JSON.stringify({ ...answer.json, id: 'ID' }).replace(requestId, 'REQUEST'))
  t.equal(refusals.size, 1, `${what ?? 'it'} is told like all others`)
}

const each = (
  name: string,
  check: (t: Test, kind: Kind, url: string, name: string) => Promise<void>,
): void => {
  for (const [kind, what] of Object.entries(kinds)) {
    void t.test(`${name}: ${kind}`, (t) => check(t, what, what.sidecar.url, kind))
  }
}

each('the client that was asked brings it back with answers under a new id', async (t, kind, url) => {
  const { request, state } = await toQuestion(url, kind.first('first'))
  await broughtBack(t, kind, retry(request, 'second', kind.answers, state))
})

each('it tells nothing of what it holds, and is another each time', async (t, kind, url) => {
  const asked = [await toQuestion(url, kind.first(1, 'same')), await toQuestion(url, kind.first(2, 'Same'))]
  const states = asked.map(({ state }) => state)
  t.equal(new Set(states).size, 2)
  for (const state of states) {
    const readable = state.split('.').map((part) => Buffer.from(part, 'base64url').toString('latin1'))
    t.notMatch(readable.join(' '), /alice|bearer|same|principal|the state|digest/i)
  }
  for (const one of asked) await settle(kind, one)
})

each('used again', async (t, kind, url) => {
  const { request, state } = await toQuestion(url, kind.first('first'))
  await broughtBack(t, kind, retry(request, 2, kind.answers, state))
  const again = await ask(url, retry(request, 3, kind.answers, state), alice)
  // Whether a modern server's state is good for one use is that server's own affair.
  if (kind.once) isRefused(t, again, 3)
  else kind.good(t, again)
})

each('tampered with, in each part and place', async (t, kind, url) => {
  const asked = await toQuestion(url, kind.first('first'))
  const { request, state } = asked
  const parts = state.split('.')
  const flipped = (text: string, at: number): string =>
    `${text.slice(0, at)}${text[at] === 'A' ? 'B' : 'A'}${text.slice(at + 1)}`
  const changed = parts.flatMap((part, i) =>
    [0, Math.floor(part.length / 2), part.length - 1]
      .filter((at) => at >= 0)
      .map((at) => parts.with(i, flipped(part, at)).join('.')),
  )
  const moved = [
    parts.with(1, 'AAAA').join('.'),
    parts.slice(1).join('.'),
    parts.slice(0, 4).join('.'),
    [...parts, ''].join('.'),
    parts.toReversed().join('.'),
    parts.with(0, Buffer.from('{"alg":"none"}').toString('base64url')).join('.'),
    parts.with(4, '').join('.'),
    parts.with(4, (parts[4] as string).slice(0, -6)).join('.'),
    `${state}=`,
    ` ${state}`,
    `${state}\n`,
    state.toLowerCase(),
    state.replaceAll('-', '+').replaceAll('_', '/') === state
      ? `${state}==`
      : state.replaceAll('-', '+').replaceAll('_', '/'),
    '',
    'x',
    '....',
    'x'.repeat(100_000),
  ]
  for (const [i, text] of [...changed, ...moved].entries()) {
    if (text !== state)
      isRefused(t, await ask(url, retry(request, i, kind.answers, text), alice), i, text.slice(0, 300))
  }
  for (const value of [null, 5, true, {}, [state]]) {
    isRefused(
      t,
      await ask(url, retry(request, 'odd', kind.answers, value), alice),
      'odd',
      JSON.stringify(value),
    )
  }
  await broughtBack(t, kind, retry(request, 'good', kind.answers, state))
})

each('stolen by another principal', async (t, kind, url) => {
  const { request, state } = await toQuestion(url, kind.first('first'))
  isRefused(t, await ask(url, retry(request, 2, kind.answers, state), bob), 2)
  await broughtBack(t, kind, retry(request, 3, kind.answers, state))
})

each('brought back with other arguments', async (t, kind, url) => {
  const { request, state } = await toQuestion(url, kind.first('first'))
  const { params } = request
  const changes: readonly object[] = [
    { arguments: { ...params.arguments, more: 1 } },
    { arguments: { ...params.arguments, owner: 'bob', message: 'other', inputRequests: {} } },
    { arguments: {} },
    { arguments: null },
    { arguments: undefined },
    { 'x-more': 1 },
  ]
  for (const [i, change] of changes.entries()) {
    const changed = { ...request, params: { ...params, ...change } }
    isRefused(t, await ask(url, retry(changed, i, kind.answers, state), alice), i, JSON.stringify(change))
  }
  // The same in another order and spelling is the same.
  const reordered = Object.fromEntries(Object.entries(params.arguments).toReversed())
  const same = { ...request, params: { arguments: reordered, name: params.name, _meta: params._meta } }
  await broughtBack(t, kind, retry(same, 'same', kind.answers, state))
})

each('brought back to another tool, or another method', async (t, kind, url) => {
  const asked = await toQuestion(url, kind.first('first'))
  const { request, state } = asked
  const tools = [{ ...request, params: { ...request.params, name: 'pid' } }]
  const prompt = modern('p', 'prompts/get', { name: request.params.name, arguments: {} }, { capabilities })
  const resource = modern('r', 'resources/read', { uri: 'test://text' }, { capabilities })
  for (const wrong of [...tools, prompt, resource]) {
    isRefused(t, await ask(url, retry(wrong, 2, kind.answers, state), alice), 2, wrong.method)
  }
  await broughtBack(t, kind, retry(request, 3, kind.answers, state))
})

each('forged by, or meant for, another sidecar', async (t, kind, url) => {
  const foreign = await toQuestion(other.url, wrapping('first'))
  const { request, state } = await toQuestion(url, kind.first('first'))
  isRefused(t, await ask(url, retry(request, 2, kind.answers, foreign.state), alice), 2)
  isRefused(t, await ask(other.url, retry(foreign.request, 3, kind.answers, state), alice), 3)
  await broughtBack(t, kind, retry(request, 4, kind.answers, state))
})

each('expired', async (t, kind, url) => {
  const { request, state } = await toQuestion(url, kind.first('first'))
  skewed.ms = 24 * 60 * 60 * 1000
  const late = await ask(url, retry(request, 2, kind.answers, state), alice)
  skewed.ms = 0
  isRefused(t, late, 2)
  await broughtBack(t, kind, retry(request, 3, kind.answers, state))
})

each('brought back twice at once: one is served', async (t, kind, url) => {
  for (let i = 0; i < 5; i++) {
    const { request, state } = await toQuestion(url, kind.first(`race ${i}`))
    const answers = await Promise.all(
      [1, 2, 3].map((id) => ask(url, retry(request, id, kind.answers, state), alice)),
    )
    const refused = answers.filter(({ json }) => json.error !== undefined)
    t.equal(refused.length, kind.once ? 2 : 0)
    for (const each of refused) isRefused(t, each, each.json.id)
    for (const each of answers) {
      if (each.json.error !== undefined) continue
      kind.good(t, each)
      const next = each.json.result.requestState
      if (next !== undefined) await settle(kind, { request, state: next, questions: {} })
    }
  }
})

t.test('of one kind, brought back where another kind is kept', async (t) => {
  const secret = join(folder(t), 'key')
  writeFileSync(secret, randomBytes(48))
  const config = { server: { stateKeyFile: secret } }
  const [legacy, modernOne, url] = await Promise.all([
    start(t, interviewer, { config }),
    start(t, modernServer, { config }),
    start(t, everythingServer, { config }),
  ])
  // A seal binds method and params, so every one of these must be the same request: only a tool of the same name fits.
  const parked = await toQuestion(legacy.url, interview('first'))
  const wrapped = await toQuestion(modernOne.url, wrapping('first'))
  const reissue = await toQuestion(url.url, urlCall('first'))
  for (const { request, state } of [parked, reissue]) {
    isRefused(t, await ask(modernOne.url, retry(request, 1, { q1: accepted('alice') }, state), alice), 1)
  }
  for (const { url: at } of [legacy, url]) {
    const { request, state } = wrapped
    isRefused(t, await ask(at, retry(request, 2, { q1: accepted('alice') }, state), alice), 2)
  }
  // A call is parked in one sidecar: another one that can open its seal does not have it.
  const replica = await start(t, interviewer, { config })
  const { request, state } = parked
  isRefused(t, await ask(replica.url, retry(request, 3, { q1: accepted('alice') }, state), alice), 3)
  kinds.parked.good(t, await ask(legacy.url, retry(request, 4, { q1: accepted('alice') }, state), alice))
})

t.test(
  'a wrapped state is good at every replica that has the same key, for its principal alone',
  async (t) => {
    const secret = join(folder(t), 'key')
    writeFileSync(secret, randomBytes(48))
    const config = { server: { stateKeyFile: secret } }
    const [one, two] = await Promise.all([
      start(t, modernServer, { config }),
      start(t, modernServer, { config }),
    ])
    const { request, state } = await toQuestion(one.url, wrapping(1, 'odd \u0000 "state" é'))
    const answer = await ask(two.url, retry(request, 2, { q1: accepted('alice') }, state), alice)
    t.equal(said(answer.json).requestState, 'odd \u0000 "state" é', 'the server has its own state back')
    isRefused(t, await ask(two.url, retry(request, 3, { q1: accepted('alice') }, state), bob), 3)
  },
)

t.test('a state of a round that is over', async (t) => {
  const { url } = interviews
  const answers = (i: number): object => ({ [`q${i}`]: accepted(`round ${i}`) })
  const first = await toQuestion(
    url,
    interview('first', 'rounds', [['elicitation'], ['elicitation'], ['roots']]),
  )
  const second = await toQuestion(url, retry(first.request, 2, answers(1), first.state))
  isRefused(t, await ask(url, retry(first.request, 3, answers(1), first.state), alice), 3)
  isRefused(t, await ask(url, retry(first.request, 3, answers(2), first.state), alice), 3)
  const third = await toQuestion(url, retry(first.request, 4, answers(2), second.state))
  for (const { state } of [first, second]) {
    isRefused(t, await ask(url, retry(first.request, 5, answers(3), state), alice), 5)
  }
  const roots = { roots: [{ uri: 'file:///a' }] }
  const last = await ask(url, retry(first.request, 6, { q3: roots }, third.state), alice)
  t.same(
    said(last.json)
      .replies.flat()
      .map(({ result }: Json) => result.content?.by ?? result.roots),
    ['round 1', 'round 2', roots.roots],
  )
  for (const { state } of [first, second, third]) {
    isRefused(t, await ask(url, retry(first.request, 7, { q3: roots }, state), alice), 7)
  }
})

t.test('after the process that has the call was killed', async (t) => {
  const pids = pidFile(t)
  const { url, metric } = await start(t, [...interviewer, `--pid=${pids.path}`])
  const { request, state } = await toQuestion(url, interview('first', 'restart'))
  const killed = pids.pids.length
  for (const pid of pids.pids.filter(alive)) process.kill(pid, 'SIGKILL')
  await until(async () => (await metric('mcp_sidecar_process_exits_total')) >= killed, 'all have ended')
  isRefused(t, await ask(url, retry(request, 2, { q1: accepted('alice') }, state), alice), 2)
  const next = await toQuestion(url, interview('next', 'restart'))
  kinds.parked.good(t, await ask(url, retry(next.request, 3, { q1: accepted('alice') }, next.state), alice))
})

t.test('a modern server that was restarted gets its state back all the same', async (t) => {
  const { url } = modernOnes
  const { request, state } = await toQuestion(url, wrapping('first'))
  const pid = Number(said((await ask(url, tool('p', 'pid'), alice)).json))
  process.kill(pid, 'SIGKILL')
  await until(async () => {
    const { json } = await ask(url, tool('p', 'pid'), alice)
    return json.result !== undefined && Number(said(json)) !== pid
  }, 'the next process')
  kinds.wrapped.good(t, await ask(url, retry(request, 2, kinds.wrapped.answers, state), alice))
})

t.test('partial answers: the rest is asked for again, under a new state', async (t) => {
  const { url } = interviews
  const { request, state, questions } = await toQuestion(
    url,
    interview('first', 'partial', [['elicitation', 'sampling', 'roots']]),
  )
  t.same(Object.keys(questions), ['q1', 'q2', 'q3'])
  const sampled = { role: 'assistant', model: 'm', content: { type: 'text', text: 'x' } }
  const roots = { roots: [] }
  const second = await toQuestion(url, retry(request, 2, { q2: sampled }, state))
  t.same(Object.keys(second.questions), ['q1', 'q3'], 'what was answered is not asked again')
  t.same(second.questions.q1, questions.q1)
  t.not(second.state, state)
  isRefused(t, await ask(url, retry(request, 3, { q1: accepted('alice') }, state), alice), 3)
  const third = await toQuestion(url, retry(request, 4, undefined, second.state))
  t.same(Object.keys(third.questions), ['q1', 'q3'], 'no answer at all')
  const fourth = await toQuestion(url, retry(request, 5, { q3: roots }, third.state))
  t.same(Object.keys(fourth.questions), ['q1'])
  const last = await ask(url, retry(request, 6, { q1: accepted('alice') }, fourth.state), alice)
  t.same(said(last.json).replies, [[accepted('alice'), sampled, roots].map((result) => ({ result }))])
})

t.test(
  'two calls that wait for one process, one of them for its client: the other is not held up',
  async (t) => {
    const { url } = urls
    // Both were told to go to a URL by the same process, which remembers that for either.
    const one = await toQuestion(url, urlCall('one of two'))
    const two = await toQuestion(url, urlCall('two of two'))
    const answers = { q1: { action: 'accept' } }
    const asked = await toQuestion(url, retry(one.request, 2, answers, one.state))
    const other = begin(url, retry(two.request, 3, answers, two.state), { ...alice })
    let answered = false
    void other.answer.then(() => {
      answered = true
    })
    await until(() => answered, 'the other call goes on')
      .catch(() => t.fail('the other call waits until the first one is over'))
      .finally(other.leave)
    await settle(kinds.reissue, asked)
  },
)

t.test('partial answers about URLs: the rest is asked for again', async (t) => {
  // What the answer to a -32042 leaves open is a missing answer like any other (2.9).
  const { url } = urls
  const { request, state } = await toQuestion(url, urlCall('partial'))
  const answer = await ask(url, retry(request, 2, {}, state), alice)
  t.match(answer.json.result, { resultType: 'input_required' }, answer.body)
})

t.test('surplus answers are ignored', async (t) => {
  const { url } = interviews
  const surplus = {
    q0: accepted('mallory'),
    q2: accepted('mallory'),
    '': 1,
    __proto__: 2,
    constructor: accepted('x'),
  }
  const { request, state } = await toQuestion(
    url,
    interview('first', 'surplus', [['elicitation'], ['elicitation']]),
  )
  const second = await toQuestion(url, retry(request, 2, { ...surplus, q1: accepted('alice') }, state))
  t.same(Object.keys(second.questions), ['q2'], 'an answer to what was not asked yet counts for nothing')
  const last = await ask(url, retry(request, 3, { ...surplus, q2: accepted('alice') }, second.state), alice)
  t.same(
    said(last.json)
      .replies.flat()
      .map(({ result }: Json) => result.content.by),
    ['alice', 'alice'],
  )
})

t.test('answers on a first call are ignored', async (t) => {
  const { url } = interviews
  const unasked = retry(interview('first', 'unasked'), 1, { q1: accepted('early') })
  const { request, state, questions } = await toQuestion(url, unasked)
  t.same(Object.keys(questions), ['q1'])
  kinds.parked.good(t, await ask(url, retry(request, 2, { q1: accepted('alice') }, state), alice))
})

t.test('malformed answers never reach the server', async (t) => {
  const { url } = interviews
  const asked = await toQuestion(url, interview('first', 'malformed', [['elicitation', 'sampling', 'roots']]))
  const { request } = asked
  let { state } = asked
  const bad: Readonly<Record<string, readonly unknown[]>> = {
    q1: [null, 5, 'accept', [], {}, { action: 'yes' }, { action: null }, { content: { by: 'x' } }],
    q2: [null, {}, { role: 'assistant' }, { role: 'assistant', model: 'm', content: 'text' }, []],
    q3: [null, {}, [], { roots: null }, { roots: {} }],
  }
  for (const [key, values] of Object.entries(bad)) {
    for (const value of values) {
      const answer = await ask(url, retry(request, 2, { [key]: value }, state), alice)
      // Asked again, or refused with a word about it: either is allowed, if the server hears nothing of it.
      t.equal(
        answer.json.result?.resultType,
        'input_required',
        `${key}: ${JSON.stringify(value)} ${answer.body}`,
      )
      t.same(Object.keys(answer.json.result.inputRequests), ['q1', 'q2', 'q3'])
      state = answer.json.result.requestState
    }
  }
  for (const value of [null, 5, 'x', []]) {
    const answer = await ask(url, retry(request, 2, value as unknown as object, state), alice)
    t.equal(answer.json.result?.resultType, 'input_required', JSON.stringify(value))
    state = answer.json.result?.requestState ?? state
  }
  const good = {
    q1: { action: 'decline' },
    q2: { role: 'assistant', model: 'm', content: { type: 'text', text: 'x' } },
    q3: { roots: [] },
  }
  const last = await ask(url, retry(request, 3, good, state), alice)
  t.same(said(last.json).replies, [Object.values(good).map((result) => ({ result }))])
})

t.test('a retry that no longer declares what is asked gets -32021, and the call is over', async (t) => {
  const { url, metric } = interviews
  const { request, state } = await toQuestion(url, interview('first', 'lacking', [['elicitation', 'roots']]))
  const poorer = tool(2, 'interview', request.params.arguments, { capabilities: { elicitation: {} } })
  const answer = await ask(url, retry(poorer, 2, { q1: accepted('alice') }, state), alice)
  t.equal(answer.status, 400)
  t.same(answer.json.error.code, -32021)
  t.same(answer.json.error.data.requiredCapabilities, { roots: {} })
  isRefused(t, await ask(url, retry(request, 3, {}, state), alice), 3)
  await until(async () => (await metric('mcp_sidecar_calls_in_flight')) === 0, 'nothing is in flight')
})

t.test('a server that ends the call while its client is away: the retry gets the result', async (t) => {
  const { url, logs } = interviews
  const request = tool('first', 'hurry', { owner: 'alice', call: 'hurry', ms: patienceMs }, { capabilities })
  const { state } = await toQuestion(url, request)
  const said_ = (): boolean => logs.some((line) => JSON.stringify(line).includes('did not wait'))
  await until(said_, 'the server has given up')
  const answer = await ask(url, retry(request, 2, { q1: accepted('too late') }, state), alice)
  t.equal(answer.json.id, 2)
  t.match(said(answer.json), /nothing/)
  isRefused(t, await ask(url, retry(request, 3, { q1: accepted('alice') }, state), alice), 3)
})

t.test(
  'a server that takes its question back while its client is away: the answer goes nowhere',
  async (t) => {
    const { url } = interviews
    const request = tool('first', 'again', { owner: 'alice', call: 'back', ms: patienceMs }, { capabilities })
    const { state } = await toQuestion(url, request)
    const answer = await ask(url, retry(request, 2, { q1: accepted('late') }, state), alice)
    t.match(said(answer.json), /never mind/)
  },
)

t.test('prompts and resources ask, too, and their states hold for nothing else', async (t) => {
  const { url } = interviews
  const prompt = modern(
    'p',
    'prompts/get',
    { name: 'interview', arguments: { owner: 'alice', call: 'p' } },
    { capabilities },
  )
  const resource = modern('r', 'resources/read', { uri: 'ask://alice/r' }, { capabilities })
  const [asked, read] = await Promise.all([toQuestion(url, prompt), toQuestion(url, resource)])
  isRefused(t, await ask(url, retry(prompt, 1, { q1: accepted('alice') }, read.state), alice), 1)
  isRefused(t, await ask(url, retry(resource, 2, { q1: accepted('alice') }, asked.state), alice), 2)
  const other = modern('r', 'resources/read', { uri: 'ask://alice/s' }, { capabilities })
  isRefused(t, await ask(url, retry(other, 3, { q1: accepted('alice') }, read.state), alice), 3)
  const [said1, said2] = await Promise.all([
    ask(url, retry(prompt, 4, { q1: accepted('a prompt') }, asked.state), alice),
    ask(url, retry(resource, 5, { q1: accepted('a resource') }, read.state), alice),
  ])
  t.match(said1.json.result.messages[0].content.text, /a prompt/)
  t.match(said2.json.result.contents[0].text, /a resource/)
})

t.test('on a WebSocket it is bound to the principal as well, and to no connection', async (t) => {
  const { base, url } = interviews
  const [one, two, thief] = await Promise.all(
    [alice, alice, bob].map((headers) => openSocket(base, { headers: { ...headers } })),
  )
  const request = interview('first', 'socket')
  const { result } = await (one as NonNullable<typeof one>).request(request)
  const state = result.requestState
  const stolen = await (thief as NonNullable<typeof thief>).request(
    retry(request, 2, { q1: accepted('x') }, state),
  )
  t.match(stolen, { id: 2, error: { code: -32602, data: { reason: 'ERR_REQUEST_STATE' } } })
  one?.close()
  const answer = await (two as NonNullable<typeof two>).request(
    retry(request, 3, { q1: accepted('alice') }, state),
  )
  t.same(said(answer).replies, [[{ result: accepted('alice') }]])
  isRefused(t, await ask(url, retry(request, 4, { q1: accepted('alice') }, state), alice), 4)
  for (const each of [two, thief]) each?.close()
})

t.test('a call that is asked about and never taken up again expires, and frees its process', async (t) => {
  const clientInputMs = 60_000
  const clock = forwardClock()
  const { url, logs, metric } = await start(t, interviewer, {
    clock,
    config: {
      limits: { clientInputMs, processesPerPrincipal: 2, idleSessionMs: 200 },
      server: { poolSize: 2 },
    },
  })
  const before = await metric('mcp_sidecar_processes')
  const asked = await Promise.all([1, 2].map((id) => toQuestion(url, interview(id, `gone ${id}`))))
  // Both processes wait for their client: a third call has none, and is told so at once.
  const full = await ask(url, interview(3, 'full'), alice)
  t.match(full.json.error?.data, { reason: 'ERR_OVERLOADED' }, full.body)
  clock.forward(clientInputMs)
  const stopped = (name: string): boolean =>
    logs.some((line) => JSON.stringify(line).includes(`stopped ${name}`))
  await until(() => stopped('gone 1') && stopped('gone 2'), 'both have expired')
  await until(async () => {
    const { json } = await ask(url, interview(4, 'room'), alice)
    return json.result?.resultType === 'input_required'
  }, 'there is room again')
  for (const { request, state } of asked) {
    isRefused(t, await ask(url, retry(request, 5, { q1: accepted('alice') }, state), alice), 5)
  }
  await until(async () => (await metric('mcp_sidecar_calls_in_flight')) === 0, 'nothing is in flight')
  await until(async () => (await metric('mcp_sidecar_processes')) <= before, 'the processes are gone')
})

t.test(
  'of a call that has expired the server hears that nobody answers, and that it is cancelled',
  async (t) => {
    const { url, logs } = await start(t, interviewer, { config: { limits: { clientInputMs: 200 } } })
    const { request, state } = await toQuestion(
      url,
      interview(1, 'expiring', [['elicitation'], ['sampling']]),
    )
    await until(
      () => logs.some((line) => JSON.stringify(line).includes('stopped expiring')),
      'it was cancelled',
    )
    isRefused(t, await ask(url, retry(request, 2, { q1: accepted('alice') }, state), alice), 2)
  },
)

t.test('who leaves a retry has cancelled the call, and its states are void', async (t) => {
  const { url, logs, metric } = interviews
  const slow = tool(
    'first',
    'interview',
    { owner: 'alice', call: 'left', rounds: [['elicitation'], ['elicitation']], ms: patienceMs },
    { capabilities },
  )
  const { state } = await toQuestion(url, slow)
  const running = begin(url, retry(slow, 2, { q1: accepted('alice') }, state), { ...alice })
  await until(async () => (await metric('mcp_sidecar_calls_in_flight')) === 1, 'the retry is under way')
  running.leave()
  await until(() => logs.some((line) => JSON.stringify(line).includes('stopped left')), 'it was cancelled')
  isRefused(t, await ask(url, retry(slow, 3, { q1: accepted('alice') }, state), alice), 3)
  await until(async () => (await metric('mcp_sidecar_calls_in_flight')) === 0, 'nothing is in flight')
})

t.test(
  'what has to be done at a URL first never shows as -32042, and is done on the same process',
  async (t) => {
    const { url } = urls
    let { request, state, questions } = await toQuestion(url, urlCall('twice'))
    for (const question of Object.values<Json>(questions)) {
      t.match(question, { method: 'elicitation/create', params: { mode: 'url', url: String } })
      t.notOk('elicitationId' in question.params)
    }
    for (let round = 0; round < 5; round++) {
      const answers = Object.fromEntries(Object.keys(questions).map((key) => [key, { action: 'accept' }]))
      const { json } = await ask(url, retry(request, `round ${round}`, answers, state), alice)
      t.equal(json.error, undefined)
      if (json.result.resultType === 'complete') {
        t.ok(round >= 1, 'a second question came, by the server that remembered the first')
        return
      }
      ;({ requestState: state, inputRequests: questions } = json.result)
    }
    t.fail('it never ends')
  },
)

for (const action of ['decline', 'cancel']) {
  void t.test(`who will not go to the URL (${action}) gets a result that says so, once`, async (t) => {
    const { url } = urls
    const { request, state } = await toQuestion(url, urlCall(action))
    const answer = await ask(url, retry(request, 2, { q1: { action } }, state), alice)
    t.match(answer.json, { id: 2, result: { resultType: 'complete', isError: true } })
    isRefused(t, await ask(url, retry(request, 3, { q1: { action: 'accept' } }, state), alice), 3)
  })
}

t.test('a call without the capability for URLs is told so, not -32042', async (t) => {
  const { params } = urlCall('lacking')
  const poor = tool(1, 'trigger-url-elicitation', params.arguments, { capabilities: { elicitation: {} } })
  const answer = await ask(urls.url, poor, alice)
  t.equal(answer.status, 400)
  t.match(answer.json.error, { code: -32021, data: { requiredCapabilities: { elicitation: { url: {} } } } })
})

t.test('a state on a method that never asks', async (t) => {
  const { state } = await toQuestion(modernOnes.url, wrapping('first'))
  const list = modern(1, 'tools/list', { requestState: state })
  isRefused(t, await ask(modernOnes.url, list, alice), 1)
  isRefused(t, await ask(modernOnes.url, modern(2, 'tools/list', { requestState: 'x' }), alice), 2)
})

t.test('at the end nothing is in flight anywhere', async (t) => {
  for (const { metric } of [interviews, modernOnes, urls, other]) {
    await until(async () => (await metric('mcp_sidecar_calls_in_flight')) === 0, 'nothing is in flight')
  }
  t.equal(refusals.size, 1, 'all refusals were one answer')
})
