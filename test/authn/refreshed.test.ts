import t from 'tap'
import { cooldownMs, patienceMs, Refreshed, retryMs, staleMs } from '../../src/authn/refreshed.ts'
import { ManualClock } from '../support/modern-calls.ts'
import { recordingLog } from '../support/token-requests.ts'

const signal = (): AbortSignal => new AbortController().signal
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

function setUp(maxAgeMs = 60_000) {
  const clock = new ManualClock()
  const log = recordingLog()
  const state = { loads: 0, next: 'a' as string | Error | Promise<string> }
  const refreshed = new Refreshed<string>({
    what: 'the keys of X',
    load: async () => {
      state.loads++
      if (state.next instanceof Error) throw state.next
      return state.next
    },
    clock,
    log,
    maxAgeMs,
  })
  return { clock, log, state, refreshed }
}

t.test('nothing is loaded before it is asked for, and then once for everybody', async (t) => {
  const { state, refreshed } = setUp()
  t.equal(state.loads, 0)
  t.same(await Promise.all([refreshed.ready(signal), refreshed.ready(signal), refreshed.ready(signal)]), [
    'a',
    'a',
    'a',
  ])
  t.equal(refreshed.value, 'a')
  t.equal(state.loads, 1)
})

t.test('an old value is served while it is renewed in the background', async (t) => {
  const { clock, state, refreshed } = setUp()
  await refreshed.ready(signal)
  state.next = 'b'
  clock.pass(59_999)
  t.equal(refreshed.value, 'a')
  t.equal(state.loads, 1)
  clock.pass(1)
  t.equal(refreshed.value, 'a')
  await settled()
  t.equal(refreshed.value, 'b')
  t.equal(state.loads, 2)
})

t.test(
  'a value that nobody has asked for in a long time is renewed before it is believed again',
  async (t) => {
    const { clock, state, refreshed } = setUp()
    await refreshed.ready(signal)
    state.next = 'b'
    clock.pass(60_000 + cooldownMs - 1)
    t.equal(refreshed.current, 'a', 'not long overdue')
    await settled()
    state.next = 'c'
    clock.pass(60 * 60_000)
    t.equal(refreshed.current, undefined)
    t.equal(await refreshed.ready(signal), 'c')
    t.equal(refreshed.current, 'c')
  },
)

t.test('who asks for an overdue value waits a moment for an owner that is silent', async (t) => {
  const { clock, state, refreshed } = setUp()
  await refreshed.ready(signal)
  state.next = new Promise<string>(() => {})
  clock.pass(60 * 60_000)
  const asked = refreshed.ready(signal)
  clock.pass(patienceMs)
  t.equal(await asked, 'a')
})

t.test('an owner that is away is waited for once', async (t) => {
  const { clock, state, refreshed } = setUp()
  await refreshed.ready(signal)
  state.next = new Error('down')
  clock.pass(60 * 60_000)
  t.equal(await refreshed.ready(signal), 'a')
  t.equal(refreshed.current, 'a')
})

t.test('the last value is believed through an outage, for 24 hours', async (t) => {
  const { clock, state, refreshed, log } = setUp()
  await refreshed.ready(signal)
  state.next = new Error('down')
  for (let hours = 0; hours < 23; hours++) {
    clock.pass(60 * 60_000)
    t.equal(refreshed.value, 'a')
    await settled()
  }
  t.same(log.lines, ['warn the keys of X cannot be had: the last ones are used meanwhile down'], 'said once')
  clock.pass(staleMs - 23 * 60 * 60_000)
  t.equal(refreshed.value, undefined)
  await t.rejects(refreshed.ready(signal), {
    code: 'ERR_AUTH_INVALID',
    detail: 'the keys of X cannot be had: down',
  })
  state.next = 'b'
  clock.pass(cooldownMs)
  t.equal(await refreshed.ready(signal), 'b')
  t.equal(log.lines.at(-1), 'info the keys of X can be had again')
})

t.test('during an outage it is tried again, but not by every request', async (t) => {
  const { clock, state, refreshed } = setUp()
  state.next = new Error('down')
  for (let i = 0; i < 100; i++) await t.rejects(refreshed.ready(signal))
  t.equal(state.loads, 1)
  clock.pass(retryMs)
  for (let i = 0; i < 100; i++) await t.rejects(refreshed.ready(signal))
  t.equal(state.loads, 2)
  state.next = 'a'
  clock.pass(retryMs)
  t.equal(await refreshed.ready(signal), 'a')
})

t.test('a special reason loads anew, once in a cool-down', async (t) => {
  const { clock, state, refreshed } = setUp(10 * 60_000)
  await refreshed.ready(signal)
  t.equal(await refreshed.renewed(signal), undefined, 'loaded a moment ago')
  clock.pass(cooldownMs)
  state.next = 'b'
  t.same(await Promise.all([refreshed.renewed(signal), refreshed.renewed(signal)]), ['b', 'b'])
  for (let i = 0; i < 1000; i++) t.equal(await refreshed.renewed(signal), undefined)
  t.equal(state.loads, 2)
  clock.pass(cooldownMs)
  state.next = new Error('down')
  t.equal(await refreshed.renewed(signal), undefined, 'a failure is no newer value')
  t.equal(refreshed.value, 'b')
})

t.test('who waits is released when the time for authentication is over; the load goes on', async (t) => {
  const clock = new ManualClock()
  let finish = (_: string): void => {}
  const load = (): Promise<string> =>
    new Promise((resolve) => {
      finish = resolve
    })
  const refreshed = new Refreshed({ what: 'the keys of X', load, clock, log: recordingLog(), maxAgeMs: 1000 })
  const controller = new AbortController()
  const waiting = refreshed.ready(() => controller.signal)
  const patient = refreshed.ready(signal)
  controller.abort()
  await t.rejects(waiting, { code: 'ERR_AUTH_INVALID', detail: /over while waiting for the keys of X/ })
  await t.rejects(
    refreshed.ready(() => controller.signal),
    { code: 'ERR_AUTH_INVALID' },
    'aborted before',
  )
  finish('a')
  t.equal(await patient, 'a')
})

t.test('a load that throws at once is a failure like any other', async (t) => {
  const load = (): Promise<string> => {
    throw new Error('at once')
  }
  const refreshed = new Refreshed({
    what: 'X',
    load,
    clock: new ManualClock(),
    log: recordingLog(),
    maxAgeMs: 1,
  })
  t.equal(refreshed.value, undefined)
  await t.rejects(refreshed.ready(signal), { code: 'ERR_AUTH_INVALID', detail: 'X cannot be had: at once' })
})
