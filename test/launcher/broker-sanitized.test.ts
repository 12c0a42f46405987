/** The same attempts with the compiler's checks of memory and of undefined behaviour in the broker. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import t from 'tap'
import { clean, compile, compiles, noCompiler, playProxy, run } from '../support/broker.ts'

const sanitizers = [
  '-g',
  '-O1',
  '-fsanitize=address,undefined',
  '-fno-sanitize-recover=all',
  '-fno-omit-frame-pointer',
]

// Compilers and thousands of connects take several times as long where others want the processors, too.
t.setTimeout(300_000)
if (noCompiler !== undefined || !compiles(sanitizers)) {
  t.plan(0, noCompiler ?? 'this compiler has no sanitizers')
  process.exit(0)
}
const { driver, child, signals } = compile([...sanitizers, '-DBROKER_DEADLINE_MS=2000'])

for (const command of [
  ['bad'],
  ['flags'],
  ['swapped', 'close'],
  ['swapped', 'file'],
  ['juggling', '1000'],
  ['killed', '60'],
  ['crowd', '300'],
  ['flood', '20', '50', '100'],
]) {
  t.test(`${command.join(' ')}: no fault in the broker`, async (t) => {
    for (const thread of [[], ['--no-thread']]) {
      const outcome = await run(t, driver, [...thread, '--relay', '666'], [child, ...command])
      t.equal(outcome.code, 0)
      t.equal(outcome.stderr, '')
      clean(t, outcome)
    }
  })
}

t.test('interrupted calls, netlink and signals: no fault in the broker', async (t) => {
  const interrupted = ['--interruptible', '--relay', '666']
  for (const restart of ['0', '1']) {
    t.equal((await run(t, driver, interrupted, [child, 'interrupted', restart])).stderr, '')
  }
  t.equal((await run(t, driver, ['--binds'], [child, 'netlink'])).stderr, '')
  const stranger = spawn('sleep', ['60'], { stdio: 'ignore' })
  t.teardown(() => stranger.kill('SIGKILL'))
  await once(stranger, 'spawn')
  for (const options of [['--signals'], ['--signals', '--interruptible']]) {
    const outcome = await run(t, driver, options, [signals, String(stranger.pid)])
    t.equal(outcome.stderr, '')
    t.equal(outcome.values['child-gone'], 3)
  }
})

t.test('answers of any bytes: no fault in the broker', async (t) => {
  let turn = 0
  // The same sequence in each run.
  let state = 12345
  const random = (below: number): number => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    return (state >>> 8) % below
  }
  const parts = [
    'HTTP/1.1 ',
    'HTTP/1.0 200',
    '200',
    ' OK',
    '\r\n',
    '\r\n\r\n',
    '\r',
    '\n',
    '403',
    'x'.repeat(511),
    '\0',
    ' ',
  ]
  const proxy = await playProxy(t, ({ socket }) => {
    turn++
    const count = random(8)
    const text = Array.from({ length: count }, () => parts[random(parts.length)]).join('')
    const bytes = Buffer.from(turn % 3 === 0 ? text : `HTTP/1.1 ${text}`, 'latin1')
    const cut = random(bytes.length + 1)
    socket.setNoDelay()
    socket.write(bytes.subarray(0, cut), () => socket.end(bytes.subarray(cut)))
  })
  const options = ['--proxy', `127.0.0.1:${proxy.port}`]
  const outcome = await run(t, driver, options, [child, 'flood', '4', '250', '0'])
  t.equal(outcome.stderr, '')
  // An empty answer on a connection that was made ahead is asked for once more.
  t.ok(turn >= 1000 && turn < 2000, `${turn}`)
  clean(t, outcome)
})
