import { constants } from 'node:os'
import t from 'tap'
import { clean, compile, noCompiler, type Outcome, run } from '../support/broker.ts'

const { EACCES, EAFNOSUPPORT, EAGAIN, EBADF, EINVAL, EISCONN, ENOTSOCK } = constants.errno

if (noCompiler !== undefined) {
  t.plan(0, noCompiler)
  process.exit(0)
}
const { driver, child } = compile()

/** Children below a relay that refuses port 666. */
const relayed = (t: Parameters<typeof run>[0], ...command: string[]): Promise<Outcome> =>
  run(t, driver, ['--relay', '666'], [child, ...command])

const hostile: Readonly<Record<string, number>> = {
  null: EACCES,
  unmapped: EACCES,
  kernel: EACCES,
  edge: EACCES,
  unreadable: EACCES,
  length0: EINVAL,
  length1: EINVAL,
  length2: EINVAL,
  length15: EINVAL,
  length129: EINVAL,
  length2147483647: EINVAL,
  'length-1': EINVAL,
  length4294967296: EINVAL,
  length6short: EINVAL,
  unspec: EACCES,
  unix: EACCES,
  family: EACCES,
  crossed: EAFNOSUPPORT,
  crossed6: EAFNOSUPPORT,
  negative: EBADF,
  unopened: EBADF,
  huge: EBADF,
  closed: EBADF,
  file: ENOTSOCK,
  pipe: ENOTSOCK,
  pair: EACCES,
  netlink: EACCES,
  udp: EACCES,
  opath: ENOTSOCK,
  forbidden: EACCES,
  // The same socket, after all that.
  allowed: 0,
  echoes: 1,
  again: EISCONN,
  disconnect: EACCES,
  // The kernel takes the low half of each number.
  upper: 0,
}

for (const uid of process.getuid?.() === 0 ? ['0', '65534'] : ['0']) {
  t.test(`bad pointers, lengths, families and descriptors are refused, as uid ${uid}`, async (t) => {
    const outcome = await run(t, driver, ['--relay', '666', '--uid', uid], [child, 'bad'])
    t.same(outcome.values, uid === '0' ? hostile : { ...hostile, undumpable: EACCES })
    clean(t, outcome)
  })
}

t.test('the connection takes over number, O_CLOEXEC and O_NONBLOCK of the socket', async (t) => {
  const outcome = await relayed(t, 'flags')
  t.same(outcome.values, {
    ...{ connect: 0, cloexec: 0, nonblock: 0 },
    ...{ 'connect-n': 0, 'cloexec-n': 1, 'nonblock-n': 1 },
    ...{ keepalive: 1, nodelay: 1 },
  })
})

t.test('a static program that connects as Go does gets its data, or the refusal', async (t) => {
  t.same((await relayed(t, 'go', '198.51.100.1', '80')).values, { connect: 0, echoes: 1 })
  t.same((await relayed(t, 'go', '198.51.100.1', '666')).values, { connect: EACCES })
})

t.test('a full table of descriptors is no hindrance: none is added', async (t) => {
  t.same((await relayed(t, 'descriptor-limit')).values, { connect: 0 })
})

t.test('a descriptor that another thread has taken away meanwhile is not replaced', async (t) => {
  for (const [how, still] of [
    ['close', 0],
    ['file', 1],
    ['socket', 0],
  ] as const) {
    const outcome = await relayed(t, 'swapped', how)
    t.same(outcome.values, { connect: EBADF, 'still-file': still }, how)
    clean(t, outcome)
  }
})

t.test('dup2 in a loop beside connect ends in a connection or a refusal, and nothing else', async (t) => {
  const outcome = await relayed(t, 'juggling', '3000')
  t.equal(outcome.values['other'], 0)
  t.equal((outcome.values['done'] ?? 0) + (outcome.values['refused'] ?? 0), 3000)
  clean(t, outcome)
})

t.test('callers that are killed in the middle leave nothing behind', async (t) => {
  const outcome = await relayed(t, 'killed', '200')
  t.same(outcome.values, { after: 0 })
  clean(t, outcome)
})

t.test(
  'signals that come more often than the proxy answers do not keep a connect from its end',
  async (t) => {
    // Before Linux 5.19 each signal ends the wait; with SA_RESTART the kernel starts the call again.
    const interruptible = ['--interruptible', '--relay', '666']
    const restarted = await run(t, driver, interruptible, [child, 'interrupted', '1'])
    t.same(restarted.values, { connect: 0, ticked: 1, interrupted: 0, echoes: 1 })
    clean(t, restarted)
    const repeated = await run(t, driver, interruptible, [child, 'interrupted', '0'])
    t.same(repeated.values, { connect: 0, ticked: 1, interrupted: 1, echoes: 1 })
    clean(t, repeated)
  },
)

t.test('more than 256 at a time are answered EAGAIN; places of the dead are free again', async (t) => {
  const outcome = await relayed(t, 'crowd', '300')
  t.same(outcome.values, { refused: 44, 'when-full': EAGAIN, after: 0 })
  clean(t, outcome)
})

t.test('below Landlock ABI 4 a netlink socket is bound, and nothing else', async (t) => {
  const outcome = await run(t, driver, ['--binds'], [child, 'netlink'])
  t.same(outcome.values, {
    ...{ short: EINVAL, bind: 0, rebind: EINVAL, links: 1, change: constants.errno.EPERM },
    ...{ tcp: EACCES, nlontcp: EACCES, tcponnl: EACCES, null: EACCES, file: ENOTSOCK, closed: EBADF },
  })
  clean(t, outcome)
})

t.test('no observer can have the kernel go on with a call that the broker decides', async (t) => {
  // The relay itself is a listener that the kernel would reach.
  const command = ['sh', '-c', `exec ${child} connect 127.0.0.1 $RELAY_PORT`]
  const outcome = await run(t, driver, ['--relay', '666', '--continue-all'], command)
  t.same(outcome.values, { connect: EACCES })
  t.same((await run(t, driver, ['--relay', '666'], command)).values, { connect: 0 })
})

t.test('a token that cannot stand in a header line, or a proxy without a port, is refused', async (t) => {
  for (const token of ['', 'a b', 'a\r\nX: y', 'ä', 'x'.repeat(513)]) {
    await t.rejects(
      run(t, driver, ['--relay', '666', '--token', token], ['true']),
      /broker_open: Invalid argument/,
    )
  }
  await t.rejects(run(t, driver, ['--proxy', '127.0.0.1:0'], ['true']), /broker_open: Invalid argument/)
  t.equal((await run(t, driver, ['--relay', '666', '--token', 'x'.repeat(512)], ['true'])).code, 0)
})
