import t, { type Test } from 'tap'
import { SidecarError } from '../../src/core/errors.ts'
import { anonymous, type Principal, type Upstream, type UpstreamOwner } from '../../src/core/types.ts'
import { systemClock } from '../../src/observe/clock.ts'
import { PerSessionPool } from '../../src/upstream/per-session.ts'
import { Reaper } from '../../src/upstream/reaper.ts'
import { countingMetrics, principalOf } from '../support/modern-calls.ts'
import { recordingLogger, scriptedCommand, until } from '../support/sidecar.ts'

function start(t: Test, command: readonly string[] = scriptedCommand) {
  const log = recordingLogger([])
  const context = { clock: systemClock, log, metrics: countingMetrics(), reaper: new Reaper(log) }
  const pool = new PerSessionPool(
    {
      command: { command, cwd: undefined, env: { PATH: '/usr/bin:/bin' } },
      ...{ maxProcesses: 20, maxPerPrincipal: 2, warmSpares: 0, startTimeoutMs: 10_000 },
      ...{ maxMessageBytes: 1_000_000, version: '0', onToolsChanged: () => {} },
    },
    context,
  )
  t.teardown(async () => {
    await pool.close()
    context.reaper.close()
  })
  let ended = 0
  const lease = (principal: Principal): Upstream => {
    const owner: UpstreamOwner = {
      principal,
      onRequest: () => {},
      onNotification: () => {},
      onEnd: () => void ended++,
    }
    return pool.lease(owner)
  }
  return { pool, lease, ended: () => ended }
}

const [alice, bob] = [principalOf('alice'), principalOf('bob')]
const tooMany = {
  code: 'ERR_OVERLOADED',
  detail: 'alice has 2 server processes (limits.processesPerPrincipal)',
  headers: { 'Retry-After': '5' },
}

t.test('one principal has only a share of the processes', async (t) => {
  const { lease, pool } = start(t)
  const first = lease(alice)
  lease(alice)
  t.throws(() => lease(alice), tooMany)
  t.equal(pool.processes, 2, 'none was started for it')
  lease(bob)
  first.release()
  first.release()
  lease(alice)
  t.throws(() => lease(alice), tooMany, 'released twice, counted once')
  const nobodies = Array.from({ length: 5 }, () => lease(anonymous))
  t.equal(nobodies.length, 5, 'anonymous callers are not one')
})

t.test('a process that ends gives its place back once', async (t) => {
  const { lease, ended } = start(t, ['/bin/sh', '-c', 'exit 1'])
  const gone = [lease(alice), lease(alice)]
  t.throws(() => lease(alice), tooMany)
  await until(() => ended() === 2, 'both are gone')
  const next = [lease(alice), lease(alice)]
  for (const each of gone) each.release()
  t.throws(() => lease(alice), tooMany, 'the release of what had ended frees no other')
  await until(() => ended() === 4, 'these, too')
  for (const each of next) each.release()
})

t.test('a process that cannot be started holds no place', async (t) => {
  const { lease, ended } = start(t, ['/nowhere/server'])
  for (let i = 1; i <= 6; i++) {
    try {
      lease(alice)
      await until(() => ended() === i, 'it failed')
    } catch (thrown) {
      t.not(SidecarError.from(thrown).code, 'ERR_OVERLOADED')
    }
  }
  t.pass('none was refused as one too many')
})
