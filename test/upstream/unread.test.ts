import t from 'tap'
import { systemClock } from '../../src/observe/clock.ts'
import { Link } from '../../src/upstream/link.ts'
import type { Reaper } from '../../src/upstream/reaper.ts'
import { countingMetrics } from '../support/modern-calls.ts'
import { recordingLogger, until } from '../support/sidecar.ts'

/** Asks more than it reads answers to. */
const asker = `const ping = JSON.stringify({ jsonrpc: '2.0', id: 'x'.repeat(900), method: 'ping' })
process.stdout.write((ping + '\\n').repeat(20_000), () => process.stdout.write('done\\n'))
setInterval(() => {}, 1000)`

t.test('what a server asks and does not read the answers to is not kept without bound', async (t) => {
  const reasons = new Map<string, number>()
  const metrics = Object.assign(countingMetrics(), {
    dropped: (what: string) => void reasons.set(what, (reasons.get(what) ?? 0) + 1),
  })
  const reaper = { add: () => {}, remove: () => {} } as unknown as Reaper
  const link = new Link(
    { command: [process.execPath, '-e', asker], cwd: undefined, env: {} },
    { clock: systemClock, log: recordingLogger([]), metrics, reaper },
    { maxMessageBytes: 1_000_000 },
  )
  t.teardown(() => link.stop())
  // The line that is no message is its last.
  await until(() => reasons.has('stdout_garbage'), 'all it wrote')
  t.ok((reasons.get('unread_request') ?? 0) > 10_000, 'the others were dropped')
  t.ok(link.queuedBytes < 4_000_000, `${link.queuedBytes} bytes`)
})
