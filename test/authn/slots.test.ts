import t from 'tap'
import { Slots } from '../../src/authn/slots.ts'

/** Work that ends when it is told to. */
function job(): { run: () => Promise<string>; end: (how?: Error) => void; readonly started: boolean } {
  let resolve = (_: string): void => {}
  let reject = (_: Error): void => {}
  const promise = new Promise<string>((yes, no) => {
    resolve = yes
    reject = no
  })
  let started = false
  return {
    run: () => {
      started = true
      return promise
    },
    end: (how) => (how === undefined ? resolve('done') : reject(how)),
    get started() {
      return started
    },
  }
}

const settle = async (): Promise<void> => {
  for (let i = 0; i < 10; i++) await Promise.resolve()
}

t.test('so much at one time, the rest in order', async (t) => {
  const slots = new Slots(2, 10)
  const jobs = [job(), job(), job(), job()]
  const results = jobs.map(({ run }) => slots.run(run))
  await settle()
  t.same(
    jobs.map(({ started }) => started),
    [true, true, false, false],
  )
  jobs[1]?.end()
  await settle()
  t.same(
    jobs.map(({ started }) => started),
    [true, true, true, false],
  )
  jobs[0]?.end(new Error('broken'))
  await t.rejects(results[0] as Promise<string>, { message: 'broken' })
  await settle()
  t.ok(jobs[3]?.started, 'a failure gives its place back, too')
  for (const { end } of jobs) end()
  t.same(await Promise.all(results.slice(1)), ['done', 'done', 'done'])
})

t.test('what is over the number that may wait is refused, and a place is free again later', async (t) => {
  const slots = new Slots(1, 1)
  const [running, waiting] = [job(), job()]
  const results = [slots.run(running.run), slots.run(waiting.run)]
  const third = job()
  await t.rejects(slots.run(third.run), { code: 'ERR_OVERLOADED', headers: { 'Retry-After': '1' } })
  t.notOk(third.started)
  running.end()
  await results[0]
  const fourth = job()
  const last = slots.run(fourth.run)
  waiting.end()
  fourth.end()
  t.same(await Promise.all([...results, last]), ['done', 'done', 'done'])
})

t.test('work that throws at once is a rejection and frees its place', async (t) => {
  const slots = new Slots(1, 0)
  const broken = (): never => {
    throw new Error('at once')
  }
  await t.rejects(slots.run(broken), { message: 'at once' })
  t.equal(await slots.run(() => 'next'), 'next')
})

t.test('once half of the queue is taken one key has two places at most, and gets each back', async (t) => {
  const slots = new Slots(1, 2)
  const [first, second, other] = [job(), job(), job()]
  const results = [slots.run(first.run, 'a'), slots.run(second.run, 'a')]
  const third = job()
  await t.rejects(slots.run(third.run, 'a'), { code: 'ERR_OVERLOADED', headers: { 'Retry-After': '1' } })
  t.notOk(third.started)
  results.push(slots.run(other.run, 'b'))
  first.end(new Error('broken'))
  await t.rejects(results[0] as Promise<string>, { message: 'broken' })
  results.push(slots.run(async () => 'done', 'a'))
  second.end()
  other.end()
  t.same(await Promise.all(results.slice(1)), ['done', 'done', 'done'])
})

t.test('a place that the whole queue refused is not held against the key', async (t) => {
  const slots = new Slots(1, 0)
  const running = job()
  const result = slots.run(running.run)
  for (let i = 0; i < 3; i++)
    await t.rejects(slots.run(job().run, 'a'), {
      code: 'ERR_OVERLOADED',
      detail: '0 credentials wait to be verified already',
    })
  running.end()
  await result
  t.equal(await slots.run(() => 'next', 'a'), 'next')
})
