import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { constants } from 'node:os'
import t from 'tap'
import { compile, noCompiler, run } from '../support/broker.ts'

const { EFAULT, EBADF, EINVAL, EPERM, ESRCH } = constants.errno

if (noCompiler !== undefined) {
  t.plan(0, noCompiler)
  process.exit(0)
}
const { driver, signals } = compile()

const ways = ['kill', 'tkill', 'tgkill', 'sigqueue', 'tgsigqueue', 'pidfd']
const each = (who: string, error: number): Record<string, number> =>
  Object.fromEntries(ways.map((way) => [`${who}-${way}`, error]))

const expected = {
  ...each('stranger', EPERM),
  ...each('broker', EPERM),
  ...each('init', EPERM),
  ...each('self', 0),
  ...each('child', 0),
  ...{ 'stranger-kill9': EPERM, 'stranger-stop': EPERM, group: EPERM, everybody: EPERM },
  ...{ nobody: ESRCH, 'bad-number': EINVAL, 'bad-pidfd': EBADF, forged: EPERM, 'bad-pointer': EFAULT },
  ...{ raise: 0, caught: 1, queue: 0, value: 4711, thread: 0, 'by-thread': 1, 'by-tid': 0 },
  ...{ 'wrong-group': ESRCH, 'orphan-raise': 1, 'orphan-stranger': EPERM, orphan: 0 },
  ...{ 'child-kill9': 0, 'child-ended-by': 9, 'child-gone': ESRCH },
}

for (const options of [[], ['--interruptible'], ['--uid', '65534']]) {
  const how = options.length === 0 ? '' : ` (${options.join(' ')})`
  const root = process.getuid?.() === 0
  const skip = options.includes('--uid') && !root && 'only root can become somebody else'
  t.test(`signals reach the tree, once each, and nobody else${how}`, { skip }, async (t) => {
    const stranger = spawn('sleep', ['60'], {
      stdio: 'ignore',
      ...(options.includes('--uid') && { uid: 65534, gid: 65534 }),
    })
    t.teardown(() => stranger.kill('SIGKILL'))
    await once(stranger, 'spawn')
    const outcome = await run(t, driver, ['--signals', ...options], [signals, String(stranger.pid)])
    t.same(outcome.values, expected)
    t.equal(stranger.exitCode, null)
    t.equal(stranger.signalCode, null, 'the stranger lives')
    t.equal(outcome.report.descriptors[1], outcome.report.descriptors[0], 'no descriptor is left')
  })
}
