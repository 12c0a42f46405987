import t from 'tap'
import { RequestAttempt } from '../../src/authn/attempt.ts'
import { Failures } from '../../src/authn/failures.ts'
import { createGate } from '../../src/authn/gate.ts'
import { trusted } from '../support/attempts.ts'
import { ManualClock } from '../support/modern-calls.ts'

const limits = { attempts: 2, windowMs: 30_000 }
const gate = createGate({ layers: [], timeoutMs: 1000, failures: limits })

function attempts(): { clock: ManualClock; failures: Failures; attempt: RequestAttempt } {
  const clock = new ManualClock()
  const failures = new Failures(clock)
  return { clock, failures, attempt: new RequestAttempt(trusted({}), gate, failures) }
}

t.test('work is refused to an address that has failed too often', async (t) => {
  const { attempt } = attempts()
  attempt.failed()
  attempt.beforeWork()
  attempt.failed()
  t.throws(() => attempt.beforeWork(), { code: 'ERR_RATE_LIMITED', headers: { 'Retry-After': '30' } })
  t.match(attempt.limited('a wrong token')?.detail, /^a wrong token; 2 or more failed attempts of 192.0.2.1$/)
})

t.test('an answer in time is the answer, and no timer stays behind', async (t) => {
  const { clock, attempt } = attempts()
  const late = (): string => 'late'
  t.equal(await attempt.inTime(clock, Promise.resolve('answer'), late), 'answer')
  await t.rejects(attempt.inTime(clock, Promise.reject(new Error('broken')), late), { message: 'broken' })
  await Promise.resolve()
  t.equal(clock.waiting, 0)
  t.notOk(attempt.expired)
})

t.test('after the time those who are waited for are named, told, and may do no more', async (t) => {
  const { clock, attempt } = attempts()
  const { signal } = attempt
  const never = new Promise<string>(() => {})
  const quick = attempt.waitFor('jwt', Promise.resolve('x'))
  void attempt.waitFor('oidc', never)
  void attempt.waitFor('kubernetes', never)
  const answer = attempt.inTime(clock, never, (names) => `late: ${names}`)
  await quick
  clock.pass(999)
  t.notOk(signal.aborted)
  clock.pass(1)
  t.equal(await answer, 'late: oidc, kubernetes')
  t.ok(signal.aborted)
  t.ok(attempt.expired)
  t.throws(() => attempt.beforeWork(), { code: 'ERR_AUTH_INVALID' })
})

t.test('a signal that is asked for too late has been given already', async (t) => {
  const { clock, attempt } = attempts()
  const answer = attempt.inTime(clock, new Promise<string>(() => {}), () => 'late')
  clock.pass(1000)
  await answer
  t.ok(attempt.signal.aborted)
})
