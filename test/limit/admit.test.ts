import t from 'tap'
import { SidecarError } from '../../src/core/errors.ts'
import { Exchange } from '../../src/core/exchange.ts'
import { localNotification, localRequest, localResult, messageOf } from '../../src/core/local.ts'
import { operationOf } from '../../src/core/operation.ts'
import type { Admitted, Era, Permitted, Principal } from '../../src/core/types.ts'
import { type Limiter, type LimitOptions, limiter } from '../../src/limit/admit.ts'
import { timeouts } from '../../src/limit/timeouts.ts'
import { laterRefusalOf, limit, limiterOf, refusalOf, user } from '../support/limits.ts'

class Reply extends Exchange {
  readonly attached = true
  readonly streaming = false
  readonly outlet = undefined
  readonly queuedBytes = 0
  readonly pulse = 0
  onceDrained(): void {}
  destroy(): void {}
  onGone(): void {}
  begin(): void {}
  send(): void {}
  setHeader(): void {}
  protected writeAnswer(): void {}
  protected writeError(): void {}
  protected writeNothing(): void {}
}

const plain: LimitOptions = {
  inFlightPerPrincipal: 100,
  subscriptionsPerPrincipal: 100,
  requestTimeoutMs: 60_000,
  maxRequestTimeoutMs: 600_000,
  clientInputMs: 300_000,
  startTimeoutMs: 30_000,
}
const [alice, bob] = [user('alice'), user('bob')]

function call(
  principal: Principal,
  message = localRequest('tools/call', { name: 'x' }),
  era: Era = 'legacy',
): Permitted {
  return {
    requestId: 'r',
    transport: 'streamable-http',
    remoteAddress: '192.0.2.1',
    clientAddress: '192.0.2.1',
    httpMethod: 'POST',
    path: '/mcp',
    query: '',
    headers: {},
    rawHeaders: [],
    certificate: undefined,
    origin: undefined,
    principal,
    message,
    sessionId: undefined,
    exchange: new Reply(),
    era,
    operation: operationOf(message),
    permit: { verdicts: [] },
  }
}

/** Hands requests on; what arrives is added to `admitted`. */
function admitter(options: Partial<LimitOptions>) {
  const limits: Limiter = limiter(() => ({ ...plain, ...options }))
  const admitted: Admitted[] = []
  const failed = ({ exchange }: Permitted, thrown: unknown): never => {
    // As the transports do with whatever a layer throws.
    exchange.fail(SidecarError.from(thrown))
    throw thrown
  }
  const later = (permitted: Permitted): void | Promise<void> => {
    try {
      const pending = limits.admit(permitted, (each) => void admitted.push(each))
      return pending?.catch((thrown: unknown) => failed(permitted, thrown))
    } catch (thrown) {
      return failed(permitted, thrown)
    }
  }
  const admit = (permitted: Permitted): void => {
    if (later(permitted) !== undefined) throw new Error('it waits')
  }
  return { limits, admitted, admit, later }
}

const settle = ({ exchange }: Permitted): void => exchange.answer(localResult('0', {}).wire, false)

/** Rate limits that answer when they are told to. */
function pendingRates() {
  const waiting: { pass(): void; refuse(error: SidecarError): void }[] = []
  const check = (): Promise<void> =>
    new Promise((pass, refuse) => {
      waiting.push({ pass, refuse })
    })
  return { waiting, check }
}

t.test('one principal may have so many requests in flight, until they are settled', async (t) => {
  const { limits, admit } = admitter({ inFlightPerPrincipal: 2 })
  const first = call(alice)
  admit(first)
  admit(call(alice))
  const refusal = refusalOf(() => admit(call(alice)))
  t.match(refusal, { code: 'ERR_OVERLOADED', headers: { 'Retry-After': '1' } })
  admit(call(bob))
  t.equal(limits.inFlight, 3)
  settle(first)
  t.equal(limits.inFlight, 2)
  admit(call(alice))
})

t.test('all principals together may have so many', async (t) => {
  const { limits, admit } = admitter({ inFlight: 2 })
  const calls = [call(alice), call(bob)] as const
  for (const each of calls) admit(each)
  t.match(
    refusalOf(() => admit(call(user('carol')))),
    { code: 'ERR_OVERLOADED', detail: 'there are 2 requests in flight (limits.inFlight)' },
  )
  calls[0].exchange.fail(new SidecarError('ERR_TIMEOUT'))
  admit(call(user('carol')))
  calls[1].exchange.finish('cancelled')
  t.equal(limits.inFlight, 1)
})

t.test('subscriptions of modern callers are counted apart', async (t) => {
  const { limits, admit } = admitter({ subscriptionsPerPrincipal: 1, inFlight: 1 })
  const listen = localRequest('subscriptions/listen', {})
  const subscription = call(alice, listen, 'modern')
  admit(subscription)
  t.same([limits.inFlight, limits.subscriptions], [0, 1])
  admit(call(alice))
  t.match(
    refusalOf(() => admit(call(alice, listen, 'modern'))),
    { code: 'ERR_OVERLOADED', detail: /has 1 subscriptions \(limits\.subscriptionsPerPrincipal\)/ },
  )
  settle(subscription)
  t.equal(limits.subscriptions, 0)
})

t.test('notifications and responses count nowhere', async (t) => {
  const rates = limiterOf([limit('user', 1)])
  const { limits, admit, admitted } = admitter({ inFlightPerPrincipal: 0, rates })
  limits.drain()
  for (let i = 0; i < 3; i++) {
    admit(call(alice, localNotification('notifications/progress')))
    admit(call(alice, messageOf('{"jsonrpc":"2.0","id":7,"result":{}}')))
  }
  t.equal(admitted.length, 6)
  t.equal(limits.inFlight, 0)
})

t.test('while draining, new requests are refused', async (t) => {
  const { limits, admit } = admitter({})
  limits.drain()
  t.match(
    refusalOf(() => admit(call(alice))),
    { code: 'ERR_DRAINING', headers: { 'Retry-After': '1', Connection: 'close' } },
  )
})

t.test('each request is charged once, and a refused one leaves no trace', async (t) => {
  const rates = limiterOf([limit('user', 3)])
  const { limits, admit, admitted } = admitter({ rates })
  for (let i = 0; i < 3; i++) admit(call(alice))
  for (let i = 0; i < 5; i++)
    t.match(
      refusalOf(() => admit(call(alice))),
      { code: 'ERR_RATE_LIMITED' },
    )
  t.equal(admitted.length, 3)
  t.equal(limits.inFlight, 3)
})

t.test('who has no room in flight spends nothing of a limit that others share', async (t) => {
  const rates = limiterOf([limit('tool', 3)])
  const { admit } = admitter({ rates, inFlightPerPrincipal: 1 })
  admit(call(alice))
  for (let i = 0; i < 10; i++) t.equal(refusalOf(() => admit(call(alice)))?.code, 'ERR_OVERLOADED')
  admit(call(bob))
  admit(call(user('carol')))
  t.equal(refusalOf(() => admit(call(user('dave'))))?.code, 'ERR_RATE_LIMITED')
})

t.test('where the limits are waited for, a request goes on when they have answered', async (t) => {
  const rates = pendingRates()
  const { limits, later, admitted } = admitter({ rates })
  const [passing, refused] = [later(call(alice)), laterRefusalOf(() => later(call(alice)))]
  t.same([admitted.length, limits.inFlight], [0, 2], 'what waits has its place')
  rates.waiting[0]?.pass()
  rates.waiting[1]?.refuse(new SidecarError('ERR_RATE_LIMITED'))
  await passing
  t.equal((await refused)?.code, 'ERR_RATE_LIMITED')
  t.same([admitted.length, limits.inFlight], [1, 1])
})

t.test('what changed meanwhile counts: cancelled, full, draining', async (t) => {
  const rates = pendingRates()
  const { limits, later, admitted } = admitter({ rates, inFlightPerPrincipal: 1 })
  const gone = call(alice)
  const cancelled = laterRefusalOf(() => later(gone))
  const full = laterRefusalOf(() => later(call(alice)))
  t.equal((await full)?.code, 'ERR_OVERLOADED')
  t.equal(rates.waiting.length, 1, 'and is not charged')
  gone.exchange.finish('cancelled')
  const [next, last] = [call(alice), call(bob)].map((each) => laterRefusalOf(() => later(each)))
  for (const { pass } of rates.waiting.slice(0, 2)) pass()
  t.same([await cancelled, await next], [undefined, undefined])
  t.same([admitted.length, limits.inFlight], [1, 2], 'nothing is kept for the one that is gone')
  limits.drain()
  rates.waiting[2]?.pass()
  t.equal((await last)?.code, 'ERR_DRAINING')
  settle(admitted[0] as Admitted)
  t.equal(limits.inFlight, 0)
})

t.test('times are those of the method and the tool; initialize has the start timeout', async (t) => {
  const table = timeouts([
    { methods: [], tools: ['slow'], timeoutMs: 900_000, maxMs: 1_000_000 },
    { methods: ['*'], tools: [], timeoutMs: 5, maxMs: 10 },
  ])
  const { admit, admitted } = admitter({ timeouts: table })
  const names = ['slow', 'x'].map((name) => localRequest('tools/call', { name }))
  for (const message of [...names, localRequest('initialize', {})]) admit(call(alice, message))
  const inputMs = 300_000
  t.same(
    admitted.map(({ deadline }) => deadline),
    [
      { timeoutMs: 900_000, maxMs: 1_000_000, inputMs },
      { timeoutMs: 5, maxMs: 10, inputMs },
      { timeoutMs: 30_000, maxMs: 600_000, inputMs },
    ],
  )
})

t.test('without rules times are those for all, and the longest is never below the first', async (t) => {
  const { admit, admitted } = admitter({ requestTimeoutMs: 700, maxRequestTimeoutMs: 500 })
  admit(call(alice))
  t.same(admitted[0]?.deadline, { timeoutMs: 700, maxMs: 700, inputMs: 300_000 })
})
