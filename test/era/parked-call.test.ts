import fc from 'fast-check'
import t from 'tap'
import type { Capabilities } from '../../src/core/envelope.ts'
import { type ErrorCode, SidecarError } from '../../src/core/errors.ts'
import type { Message } from '../../src/core/jsonrpc.ts'
import { valueKey } from '../../src/core/jsonrpc.ts'
import { messageOf } from '../../src/core/local.ts'
import {
  type Ending,
  maxRounds,
  nextKey,
  type ParkedCall,
  type ParkedEffect,
  type ParkedEvent,
  startParked,
  step,
} from '../../src/era/parked-call.ts'
import { maxQuestions, type Question, type QuestionKind } from '../../src/era/questions.ts'
import { holds } from '../support/property.ts'

const everything: Capabilities = { elicitation: {}, sampling: { tools: {} }, roots: {} }
const needed: Readonly<Record<QuestionKind, Capabilities>> = {
  elicitation: { elicitation: { form: {} } },
  sampling: { sampling: {} },
  roots: { roots: {} },
}

type Step = ReturnType<typeof step>

const begin = (declared: Capabilities = everything): Step => [startParked(declared), []]

/** Feeds one event after the other and returns the last step. */
function run(first: Step, ...events: (ParkedEvent | ((state: ParkedCall) => ParkedEvent))[]): Step {
  return events.reduce<Step>(
    ([state], event) => step(state, typeof event === 'function' ? event(state) : event),
    first,
  )
}

const asks =
  (idText: string | undefined, kind: QuestionKind = 'elicitation') =>
  (state: ParkedCall): ParkedEvent => ({
    type: 'asked',
    question: { key: nextKey(state), idText, kind, needs: needed[kind], text: `{"of":${idText}}` },
  })
const windowOver: ParkedEvent = { type: 'windowOver' }
const left: ParkedEvent = { type: 'left' }
const expired: ParkedEvent = { type: 'expired' }
const withdraws = (idText: string): ParkedEvent => ({ type: 'withdrawn', idKey: valueKey(idText) })
const retries = (answers: Record<string, string>, declared: Capabilities = everything): ParkedEvent => ({
  type: 'retried',
  answers: new Map(Object.entries(answers)),
  declared,
})
const answered: Message = messageOf('{"jsonrpc":"2.0","id":1,"result":{"content":[]}}')
const final: Ending = { message: answered }
const ends: ParkedEvent = { type: 'ended', ending: final }
const fails = (code: ErrorCode): ParkedEvent => ({ type: 'ended', ending: { error: new SidecarError(code) } })

/** What is to be done, in short. */
function shown([, effects]: Step): string[] {
  return effects.map((effect) => {
    switch (effect.do) {
      case 'ask':
        return `ask ${effect.questions.map(({ key }) => key).join('+')} in round ${effect.round}`
      case 'tell':
        return `tell ${effect.idText} ${effect.result}`
      case 'refuse':
        return `refuse ${effect.idText}`
      case 'deliver':
        return `deliver ${'error' in effect.ending ? effect.ending.error.code : 'the answer'}`
      default:
        return effect.do
    }
  })
}

const asking = run(begin(), asks('7'))
const parked = run(asking, windowOver)
const bothParked = run(begin(), asks('7'), asks('"8"', 'roots'), windowOver)

t.test('RUNNING: a question that the client can answer opens the window', async (t) => {
  t.same(shown(asking), ['openWindow'])
  t.equal(asking[0].phase, 'asking')
  t.match(asking[0].open, [{ key: 'q1', idText: '7' }])
})

for (const phase of ['running', 'asking'] as const) {
  t.test(`${phase.toUpperCase()}: a question that the client cannot answer ends the call`, async (t) => {
    const before = run(begin({ roots: {} }), ...(phase === 'asking' ? [asks('1', 'roots')] : []))
    const last = run(before, asks('7', 'sampling'))
    t.same(shown(last), [
      ...(phase === 'asking' ? ['refuse 1'] : []),
      ...['refuse 7', 'cancel', 'release', 'deliver ERR_CAPABILITY', 'forget'],
    ])
    const deliver = last[1].find((each) => each.do === 'deliver')
    t.match(deliver, { ending: { error: { data: { requiredCapabilities: { sampling: {} } } } } })
    t.equal(last[0].phase, 'done')
  })

  t.test(`${phase.toUpperCase()}: the answer goes to the client`, async (t) => {
    const last = run(phase === 'asking' ? asking : begin(), ends)
    t.same(shown(last), [
      ...(phase === 'asking' ? ['refuse 7'] : []),
      ...['release', 'deliver the answer', 'forget'],
    ])
    t.match(last[0], { phase: 'done', open: [] })
  })

  t.test(`${phase.toUpperCase()}: so does the end of the process`, async (t) => {
    const last = run(phase === 'asking' ? asking : begin(), fails('ERR_UPSTREAM_EXIT'))
    t.same(shown(last).slice(-3), ['release', 'deliver ERR_UPSTREAM_EXIT', 'forget'])
    t.equal(last[0].phase, 'done')
  })

  t.test(`${phase.toUpperCase()}: a client that leaves cancels`, async (t) => {
    const last = run(phase === 'asking' ? asking : begin(), left)
    t.same(shown(last), [...(phase === 'asking' ? ['refuse 7'] : []), ...['cancel', 'release', 'forget']])
    t.match(last[0], { phase: 'done', open: [] })
  })

  t.test(`${phase.toUpperCase()}: a second retry changes nothing`, async (t) => {
    const before = phase === 'asking' ? asking : begin()
    const last = run(before, retries({ q1: '{}' }))
    t.same(shown(last), [])
    t.equal(last[0], before[0])
  })
}

t.test('RUNNING: a window that is over, and an expiry, mean nothing', async (t) => {
  t.same(shown(run(begin(), windowOver)), [])
  t.same(shown(run(begin(), expired)), [])
})

t.test('ASKING: another question waits for the same window', async (t) => {
  const last = run(asking, asks('8', 'roots'))
  t.same(shown(last), [])
  t.match(last[0], { phase: 'asking', open: [{ key: 'q1' }, { key: 'q2' }] })
})

t.test('ASKING: at its end the client is asked everything', async (t) => {
  t.same(shown(bothParked), ['ask q1+q2 in round 1'])
  t.equal(bothParked[0].phase, 'parked')
})

t.test('ASKING: a server that asks no more leaves the call running', async (t) => {
  const last = run(asking, withdraws('7'))
  t.match(last[0], { phase: 'running', open: [] })
  t.same(shown(run(last, windowOver)), [])
  t.same(shown(run(last, asks('9'), windowOver)), ['ask q2 in round 1'], 'a key is not used again')
})

t.test('ASKING: of two, the one that is left is asked', async (t) => {
  t.same(shown(run(asking, asks('8'), withdraws('7'), windowOver)), ['ask q2 in round 1'])
})

t.test('PARKED: all answers go to the server', async (t) => {
  const last = run(bothParked, retries({ q2: '{"roots":[]}', q1: '{"action":"accept"}' }))
  t.same(shown(last), ['tell 7 {"action":"accept"}', 'tell "8" {"roots":[]}'])
  t.match(last[0], { phase: 'running', open: [] })
  t.same(shown(run(last, ends)), ['release', 'deliver the answer', 'forget'])
})

t.test('PARKED: what is missing is asked again in a new round', async (t) => {
  const last = run(bothParked, retries({ q2: '{}', q9: '{}', __proto__: '{}' }))
  t.same(shown(last), ['tell "8" {}', 'ask q1 in round 2'])
  t.equal(last[0].phase, 'parked')
  t.same(shown(run(last, retries({}))), ['ask q1 in round 3'])
  t.same(shown(run(last, retries({ q1: '1' }))), ['tell 7 1'])
})

t.test('PARKED: the capabilities of the retry count', async (t) => {
  const last = run(bothParked, retries({ q2: '{}' }, { roots: {} }))
  t.same(shown(last), ['tell "8" {}', 'refuse 7', 'cancel', 'release', 'deliver ERR_CAPABILITY', 'forget'])
  t.equal(last[0].phase, 'done')
  const enough = run(bothParked, retries({ q1: '{}', q2: '{}' }, {}))
  t.same(shown(enough), ['tell 7 {}', 'tell "8" {}'], 'nothing is left to ask')
  t.match(shown(run(enough, asks('9'))), ['refuse 9'], 'and later questions go by them, too')
})

t.test('PARKED: another question is asked right after the next retry', async (t) => {
  const more = run(parked, asks('9', 'roots'))
  t.same(shown(more), [])
  t.equal(more[0].phase, 'parked')
  t.same(shown(run(more, retries({ q1: '1' }))), ['tell 7 1', 'ask q2 in round 2'])
  const lacking = run(more, retries({ q1: '1' }, { elicitation: {} }))
  t.match(shown(lacking), ['tell 7 1', 'refuse 9', 'cancel', 'release', 'deliver ERR_CAPABILITY'])
})

t.test('PARKED: a question the client has not been shown cannot be answered', async (t) => {
  const last = run(parked, asks('9', 'roots'), retries({ q1: '1', q2: '{"roots":[]}' }))
  t.same(shown(last), ['tell 7 1', 'ask q2 in round 2'])
})

t.test('PARKED: a late answer to a question that was withdrawn is ignored', async (t) => {
  const one = run(bothParked, withdraws('7'))
  t.same(shown(one), [])
  t.equal(one[0].phase, 'parked')
  t.same(shown(run(one, retries({ q1: '1', q2: '2' }))), ['tell "8" 2'])
  const none = run(one, withdraws('"8"'), retries({ q1: '1', q2: '2' }))
  t.same(shown(none), [])
  t.equal(none[0].phase, 'running')
})

t.test('PARKED: the last word of the server is kept for the retry', async (t) => {
  for (const [end, text] of [
    [ends, 'the answer'],
    [fails('ERR_TIMEOUT'), 'ERR_TIMEOUT'],
    [fails('ERR_UPSTREAM_MESSAGE'), 'ERR_UPSTREAM_MESSAGE'],
  ] as const) {
    const held = run(parked, end)
    t.same(shown(held), ['refuse 7', 'release'])
    t.match(held[0], { phase: 'parked', open: [] })
    const last = run(held, retries({ q1: '1' }))
    t.same(shown(last), [`deliver ${text}`, 'forget'])
    t.equal(last[0].phase, 'done')
    const late = run(held, expired)
    t.same(shown(late), ['forget'], 'or dropped if none comes')
    t.equal(late[0].phase, 'done')
  }
})

t.test('PARKED: expiry gives everything up', async (t) => {
  const last = run(bothParked, expired)
  t.same(shown(last), ['refuse 7', 'refuse "8"', 'cancel', 'release', 'forget'])
  t.match(last[0], { phase: 'done', open: [] })
})

t.test('PARKED: with the process the call is gone', async (t) => {
  const last = run(parked, fails('ERR_UPSTREAM_EXIT'))
  t.same(shown(last), ['release', 'forget'])
  t.match(last[0], { phase: 'done', open: [] })
})

t.test('PARKED: a socket that closes after the questions were sent is no cancellation', async (t) => {
  const last = run(parked, left)
  t.same(shown(last), [])
  t.equal(last[0].phase, 'parked')
})

t.test('DONE: nothing happens any more', async (t) => {
  const done = run(begin(), ends)
  const events = [asks('7'), withdraws('7'), windowOver, retries({}), ends, left, expired]
  for (const event of [...events, fails('ERR_UPSTREAM_EXIT')]) {
    const last = run(done, event)
    t.same(shown(last), [])
    t.equal(last[0], done[0])
  }
})

t.test(`${maxRounds} rounds are allowed`, async (t) => {
  let last = parked
  for (let round = 2; round <= maxRounds; round++) {
    last = run(last, retries({}))
    t.same(shown(last), [`ask q1 in round ${round}`])
  }
  t.same(shown(run(last, retries({}))), ['refuse 7', 'cancel', 'release', 'deliver ERR_ROUNDS', 'forget'])
  const later = run(last, retries({ q1: '1' }), asks('8'))
  t.match(shown(run(later, windowOver)), ['refuse 8', 'cancel', 'release', 'deliver ERR_ROUNDS', 'forget'])
})

t.test(`${maxQuestions} questions may be open, each id once`, async (t) => {
  const many = Array.from({ length: maxQuestions }, (_, i) => asks(String(i)))
  const full = run(begin(), ...many)
  t.equal(full[0].open.length, maxQuestions)
  t.same(shown(run(full, asks('over'))), ['refuse over'])
  t.same(shown(run(asking, asks('7'))), ['refuse 7'])
  t.equal(run(asking, asks('7'))[0].open.length, 1)
})

const kinds: readonly QuestionKind[] = ['elicitation', 'sampling', 'roots']

/** One call with its client and its server, both of which keep count of what they see. */
class Watched {
  state: ParkedCall
  readonly #name: string
  readonly #declaredFirst: Capabilities
  /** What became of each question of the server. */
  readonly fates = new Map<string, 'open' | 'told' | 'refused' | 'withdrawn' | 'gone'>()
  readonly #keys = new Map<string, string>()
  #declared: Capabilities
  /** Keys that the client has seen in the latest round. */
  shown: readonly string[] = []
  #answers: ReadonlyMap<string, string> = new Map()
  requests = 1
  outcomes = 0
  waiting = true
  hasLeft = false
  /** The server's call: under way, ended by the server, or given up. */
  server: 'running' | 'ended' | 'cancelled' | 'gone' = 'running'
  #ending: Ending | undefined
  #releases = 0
  #forgets = 0
  #rounds = 0
  #nextId = 0

  constructor(name: string, declared: Capabilities) {
    this.#name = name
    this.#declaredFirst = declared
    this.#declared = declared
    this.state = startParked(declared)
  }

  get declaredFirst(): Capabilities {
    return this.#declaredFirst
  }

  #check(holds: boolean, what: string): void {
    if (!holds) throw new Error(`${this.#name}: ${what}`)
  }

  feed(event: ParkedEvent): void {
    const before = this.state
    const copy = structuredClone({ ...before, held: undefined })
    const [state, effects] = step(before, event)
    this.#check(
      JSON.stringify(copy) === JSON.stringify({ ...before, held: undefined }),
      'a state is not changed',
    )
    if (before.phase === 'done') {
      this.#check(effects.length === 0 && state === before, 'after the end nothing happens')
      return
    }
    this.state = state
    for (const effect of effects) this.#perform(effect)
    this.#invariants()
  }

  #perform(effect: ParkedEffect): void {
    this.#check(this.#forgets === 0, 'forgetting comes last')
    switch (effect.do) {
      case 'openWindow':
        this.#check(this.waiting && this.server === 'running', 'a window while both wait')
        return
      case 'ask': {
        this.#settle()
        this.#check(effect.round === ++this.#rounds, 'rounds count up by one')
        this.#check(effect.round <= maxRounds, 'not for ever')
        const open = [...this.fates].filter(([, fate]) => fate === 'open').map(([id]) => this.#keys.get(id))
        const keys = effect.questions.map(({ key }) => key)
        this.#check(keys.length > 0, 'something is asked')
        this.#check(keys.toSorted().join() === open.toSorted().join(), 'all that is open, and no more')
        for (const { kind } of effect.questions) {
          this.#check(Object.hasOwn(this.#declared, kind), 'only what this request declared')
        }
        this.shown = keys
        return
      }
      case 'tell':
        this.#check(this.fates.get(effect.idText) === 'open', 'one answer to each question')
        this.#check(
          this.#answers.get(this.#keys.get(effect.idText) ?? '') === effect.result,
          'the answer to this very question',
        )
        this.fates.set(effect.idText, 'told')
        return
      case 'refuse':
        this.#check(['open', 'gone'].includes(this.fates.get(effect.idText) ?? ''), 'one answer, or refusal')
        this.fates.set(effect.idText, 'refused')
        return
      case 'cancel':
        this.#check(this.server === 'running', 'only what runs is cancelled')
        this.server = 'cancelled'
        return
      case 'deliver': {
        this.#settle()
        const { ending } = effect
        const own = 'error' in ending && ['ERR_CAPABILITY', 'ERR_ROUNDS'].includes(ending.error.code)
        if (own) this.#check(this.server === 'cancelled', 'a failure of our own gives the call up')
        else this.#check(ending === this.#ending, 'what the server said')
        return
      }
      case 'release':
        this.#check(++this.#releases === 1, 'released once')
        this.#check(this.server !== 'running', 'not while the call runs')
        this.#check(![...this.fates.values()].includes('open'), 'with no question open')
        return
      case 'forget':
        this.#forgets++
        this.#check(this.#releases === 1, 'released by then')
    }
  }

  /** The request of the client that waits has its outcome. */
  #settle(): void {
    this.#check(this.waiting, 'one outcome for each request, none after it has left')
    this.waiting = false
    this.outcomes++
  }

  #invariants(): void {
    const { phase, open } = this.state
    const isDone = phase === 'done'
    this.#check(this.#forgets === (isDone ? 1 : 0), 'forgotten exactly at the end')
    this.#check(this.#releases === (isDone || this.server !== 'running' ? 1 : 0), 'released exactly in time')
    this.#check(this.waiting === (phase === 'running' || phase === 'asking'), 'who waits')
    const fates = [...this.fates.values()].filter((fate) => fate === 'open')
    this.#check(open.length === fates.length, 'what is open')
    this.#check(!isDone || open.length === 0, 'nothing open at the end')
    this.#check(!isDone || this.state.held === undefined, 'nothing kept at the end')
  }

  ask(kind: QuestionKind): void {
    if (this.server !== 'running') return
    const idText = String(this.#nextId++)
    const key = nextKey(this.state)
    this.#check(![...this.#keys.values()].includes(key), 'a key is used once')
    this.#keys.set(idText, key)
    this.fates.set(idText, 'open')
    const question: Question = { key, idText, kind, needs: needed[kind], text: '{}' }
    const before = this.state.questions
    this.feed({ type: 'asked', question })
    // One that is refused uses no key.
    if (this.state.questions === before) this.#keys.delete(idText)
  }

  withdraw(which: number): void {
    const idText = String(which)
    if (this.fates.get(idText) === 'open') this.fates.set(idText, 'withdrawn')
    this.feed({ type: 'withdrawn', idKey: valueKey(idText) })
  }

  retry(answers: ReadonlyMap<string, string>, declared: Capabilities): void {
    if (this.state.phase === 'parked') {
      this.#answers = answers
      this.#declared = declared
      this.waiting = true
      this.requests++
    }
    this.feed({ type: 'retried', answers, declared })
  }

  end(ending: Ending): void {
    if (this.server !== 'running') return
    this.#ending = ending
    const exit = 'error' in ending && ending.error.code === 'ERR_UPSTREAM_EXIT'
    this.server = exit ? 'gone' : 'ended'
    if (exit) {
      // Nobody is there any more to be answered.
      for (const [id, fate] of this.fates) if (fate === 'open') this.fates.set(id, 'gone')
      this.#openAreGone = true
    }
    this.feed({ type: 'ended', ending })
  }
  #openAreGone = false

  leave(): void {
    if (this.waiting) {
      this.waiting = false
      this.hasLeft = true
    }
    this.feed({ type: 'left' })
  }

  /** As time would have it, should nobody do anything more. */
  finish(): void {
    for (let i = 0; this.state.phase !== 'done'; i++) {
      this.#check(i < 3, 'it ends')
      if (this.state.phase === 'parked') this.feed({ type: 'expired' })
      else if (this.state.phase === 'asking') this.feed({ type: 'windowOver' })
      else this.end({ message: answered })
    }
    this.#check(this.outcomes === this.requests - (this.hasLeft ? 1 : 0), 'each request has its outcome')
    this.#check(![...this.fates.values()].includes('open'), 'each question has its answer')
    this.#check(!this.waiting, 'nobody waits')
    this.#check(this.#openAreGone || ![...this.fates.values()].includes('gone'), 'none is lost')
  }
}

const capabilities = fc
  .subarray(['elicitation', 'sampling', 'roots'])
  .map((names): Capabilities => Object.fromEntries(names.map((name) => [name, {}])))
/** Most clients can do everything; else calls would end before they get anywhere. */
const declares = fc.oneof({ weight: 5, arbitrary: fc.constant(everything) }, capabilities)

const move = fc.record({
  who: fc.nat(3),
  what: fc.constantFrom(
    // What ends a call is rare, or none would get anywhere.
    ...Array.from({ length: 5 }, () => ['ask', 'ask', 'window', 'window', 'retry', 'all', 'withdraw']).flat(),
    ...['end', 'error', 'exit', 'leave', 'expire'],
  ),
  n: fc.nat(12),
  kind: fc.constantFrom(...kinds),
  declared: declares,
  picks: fc.array(fc.boolean(), { minLength: 1, maxLength: 5 }),
})
type Move = typeof move extends fc.Arbitrary<infer M> ? M : never

/** Keys of other calls' rounds, of none, and of every object. */
const wrongKeys = ['q0', 'q999', '__proto__', 'constructor', '']

function make(call: Watched, { what, n, kind, declared, picks }: Move): void {
  switch (what) {
    case 'ask':
      call.ask(kind)
      break
    case 'window':
      call.feed({ type: 'windowOver' })
      break
    case 'retry':
    case 'all': {
      const chosen = call.shown.filter((_, i) => what === 'all' || picks[i % picks.length] === true)
      const answers = new Map(chosen.map((key) => [key, `{"n":${n},"to":"${key}"}`]))
      if (what === 'retry') answers.set(wrongKeys[n % wrongKeys.length] as string, '{}')
      call.retry(answers, declared)
      break
    }
    case 'withdraw':
      call.withdraw(n)
      break
    case 'end':
      call.end({ message: messageOf(`{"jsonrpc":"2.0","id":${n},"result":{}}`) })
      break
    case 'error':
      call.end({ error: new SidecarError('ERR_TIMEOUT') })
      break
    case 'exit':
      call.end({ error: new SidecarError('ERR_UPSTREAM_EXIT') })
      break
    case 'leave':
      call.leave()
      break
    default:
      call.feed({ type: 'expired' })
  }
}

t.test('whatever happens in whatever order, everybody gets exactly what is theirs', async (t) => {
  let ends = 0
  let deepest = 0
  holds(
    t,
    fc.property(
      fc.array(declares, { minLength: 1, maxLength: 4 }),
      fc.array(move, { maxLength: 120, size: 'max' }),
      (clients, moves) => {
        const calls = clients.map((declared, i) => new Watched(`call ${i}`, declared))
        for (const each of moves) make(calls[each.who % calls.length] as Watched, each)
        for (const call of calls) {
          if (call.state.phase === 'done') ends++
          deepest = Math.max(deepest, call.state.round)
          call.finish()
        }
      },
    ),
    3000,
  )
  t.ok(ends > 1000, 'many calls ended of their own accord')
  t.ok(deepest >= 5, `some after several rounds (${deepest})`)
})

t.test('calls that go on and on are cut off, with everything answered', async (t) => {
  holds(
    t,
    fc.property(fc.array(move, { minLength: 20, maxLength: 60 }), (moves) => {
      const call = new Watched('call', everything)
      const patient = moves.filter(({ what }) => !['end', 'error', 'exit', 'leave', 'expire'].includes(what))
      for (let i = 0; i < 400 && call.state.phase !== 'done'; i++) {
        const next = patient[i % patient.length]
        if (next === undefined) break
        make(call, { ...next, declared: everything })
      }
      call.finish()
    }),
    300,
  )
})
