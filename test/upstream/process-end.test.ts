/** The end of a server process whose launcher has a tree to end before itself. */
import t, { type Test } from 'tap'
import type { Launch } from '../../src/core/sandbox.ts'
import { patience, SpawnedProcess } from '../../src/upstream/process.ts'
import type { Reaper } from '../../src/upstream/reaper.ts'
import { forwardClock } from '../support/forward-clock.ts'
import { countingMetrics } from '../support/modern-calls.ts'
import { type LogLine, recordingLogger, until } from '../support/sidecar.ts'

/** Stands for a launcher that is at work: it says which signals reach it, and goes on. */
const busy = `trap 'echo TERM' TERM; trap 'echo QUIT' QUIT; echo ready; while :; do sleep 0.02; done`

const { eofMs, termMs, launcherMs } = patience

function start(t: Test, policy: Buffer | undefined) {
  const clock = forwardClock()
  const logs: LogLine[] = []
  const guarded: number[] = []
  const reaper = { add: (group: number) => guarded.push(group), remove: () => {} } as unknown as Reaper
  const launch: Launch = {
    ...{ command: ['/bin/sh', '-c', busy], env: { PATH: '/usr/bin:/bin' } },
    ...{ policy, pid: undefined, reason: undefined },
    status: () => undefined,
    ended: () => {},
  }
  let end = ''
  const server = new SpawnedProcess(
    { command: ['server'], cwd: undefined, env: {}, confinement: { hint: undefined, launch: () => launch } },
    { clock, log: recordingLogger(logs), metrics: countingMetrics(), reaper },
    (reason) => {
      end = reason
    },
  )
  t.teardown(() => {
    server.killGroup('SIGKILL')
    return server.gone
  })
  let said = ''
  server.stdout.on('data', (chunk: Buffer) => {
    said += chunk
  })
  const says = (word: string): Promise<void> => until(() => said.includes(word), word)
  const errors = (): readonly string[] =>
    logs.filter(({ level }) => level === 'error').map(({ text }) => text)
  return { server, clock, errors, guarded, says, end: () => end }
}

t.test('a launcher is asked to end its tree, and only killed when it hangs', async (t) => {
  const { server, clock, errors, guarded, says, end } = start(t, Buffer.from('v 1\0'))
  await says('ready')
  t.same(guarded, [], 'it sees for itself that the sidecar is gone')
  const gone = server.stop()
  clock.forward(eofMs)
  await says('TERM')
  clock.forward(termMs)
  await says('QUIT')
  // It has ten seconds for what the kernel holds in a wait.
  clock.forward(launcherMs / 2)
  await new Promise((resolve) => clock.after(1, () => resolve(undefined)))
  t.equal(end(), '')
  t.same(errors(), [])
  clock.forward(launcherMs / 2)
  await gone
  t.match(errors(), [/launcher does not end/])
  await until(() => end() !== '', 'its end')
  t.equal(end(), 'it was ended by SIGKILL')
})

t.test(
  'without a launcher the group is killed at once, also by the guard of a sidecar that dies',
  async (t) => {
    const { server, clock, errors, guarded, says } = start(t, undefined)
    await says('ready')
    t.same(guarded, [server.pid])
    const gone = server.stop()
    clock.forward(eofMs)
    await says('TERM')
    clock.forward(termMs)
    await gone
    t.same(errors(), [])
  },
)
