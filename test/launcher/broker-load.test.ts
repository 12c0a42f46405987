import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import t from 'tap'
import { clean, compile, noCompiler, playProxy, run } from '../support/broker.ts'

// Compilers and thousands of connects take several times as long where others want the processors, too.
t.setTimeout(300_000)
if (noCompiler !== undefined) {
  t.plan(0, noCompiler)
  process.exit(0)
}
const { driver, child } = compile()
const relay = ['--relay', '666']

t.test('5000 connects whose address another thread rewrites: only what was allowed is reached', async (t) => {
  // The forbidden port is a real listener, so that a connect which the kernel did on its own would be seen.
  let reached = 0
  const forbidden = createServer((socket) => {
    reached++
    socket.destroy()
  }).listen(0, '127.0.0.1')
  await once(forbidden, 'listening')
  t.teardown(() => forbidden.close())
  const port = String((forbidden.address() as AddressInfo).port)
  const outcome = await run(t, driver, ['--relay', port], [child, 'race', '80', port, '5000'])
  const { consented = 0, refused = 0, other, wrong } = outcome.values
  t.comment(`${consented} allowed, ${refused} refused`)
  t.equal(reached, 0)
  t.equal(other, 0)
  t.equal(wrong, 0, 'each connection that was made is one of the relay')
  t.equal(consented + refused, 5000)
  t.ok(consented > 50 && refused > 50, 'both addresses were seen')
  clean(t, outcome)
})

t.test('a program that starves its own threads holds up its connects, not the supervisor', async (t) => {
  const outcome = await run(t, driver, relay, [child, 'starving', '3'])
  t.equal(outcome.code, 128 + 14, 'its own alarm has ended it')
  // Without a thread of the broker's own it is all of the three seconds.
  t.ok(outcome.report.longestRunUs < 1_000_000, `${outcome.report.longestRunUs} µs`)
  clean(t, outcome)
})

t.test(
  '10,000 connects of 40 threads beside 200 that nobody answers, which the program does not wait for',
  async (t) => {
    const outcome = await run(t, driver, relay, [child, 'flood', '40', '250', '200'])
    const { done, busy, other, longest = 0 } = outcome.values
    t.same({ done, busy, other }, { done: 10_000, busy: 0, other: 0 })
    t.comment(`slowest ${longest} µs`)
    t.ok(longest < 8_000_000, 'none waited for the silent ones, which wait for ten seconds')
    clean(t, outcome)
  },
)

t.test('more at once than there is room for are served or told to try again', async (t) => {
  const outcome = await run(t, driver, relay, [child, 'flood', '400', '5', '0'])
  const { done = 0, busy = 0, other } = outcome.values
  t.equal(other, 0)
  t.equal(done + busy, 2000)
  t.ok(done > 0)
  clean(t, outcome)
})

t.test('20,000 connects leave neither memory nor descriptors behind', async (t) => {
  const outcome = await run(t, driver, relay, [child, 'flood', '4', '5000', '0'])
  t.equal(outcome.values['done'], 20_000)
  const [before, after] = outcome.report.residentKiB
  t.comment(`resident: ${before} KiB before, ${after} KiB after`)
  t.ok(after - before < 256, `${before} KiB before, ${after} KiB after`)
  clean(t, outcome)
})

t.test('a connect through the broker costs little more than a plain one', async (t) => {
  const proxy = await playProxy(t, () => {})
  const command = [child, 'latency', '127.0.0.1', String(proxy.port), '400']
  const median = async (...options: readonly string[]): Promise<number> =>
    (await run(t, driver, options, command)).values['median'] ?? Number.NaN
  let [plain, brokered] = [Number.NaN, Number.NaN]
  // Again where others have the processors for so long that it shows in a median.
  for (let round = 0; round < 8 && !(brokered - plain < 500); round++) {
    // The same listener both ways; the kernel accepts, so the listener's own pace is not in it.
    plain = await median('--binds')
    brokered = await median('--proxy', `127.0.0.1:${proxy.port}`)
  }
  const asked = (await run(t, driver, relay, [child, 'latency', '198.51.100.1', '80', '400'])).values[
    'median'
  ]
  t.comment(
    `median of a connect: plain ${plain} µs, to the proxy ${brokered} µs, through a relay ${asked} µs`,
  )
  t.ok(brokered - plain < 500, `${plain} µs and ${brokered} µs`)
})
