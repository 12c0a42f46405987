/** What is written of the connections of server processes, through the real proxy. */
import t, { type Test } from 'tap'
import { WayOut } from '../src/confinement.ts'
import type { EgressChild } from '../src/core/sandbox.ts'
import { Egress } from '../src/egress/egress.ts'
import { allow, closedPort, connectHead, echo, startTcp, toLoopback, Wire } from './egress/support.ts'
import { ManualClock } from './support/modern-calls.ts'

interface Line {
  readonly outcome: string
  readonly details: Readonly<Record<string, unknown>>
}

/** By the time of a manual clock: how much is listed depends on how much falls into one second. */
function build() {
  const clock = new ManualClock()
  const lines: Line[] = []
  const verdicts = { allowed: 0, denied: 0 }
  const wayOut = new WayOut({
    clock,
    log: { debug() {}, info() {}, warn() {}, error() {} },
    metrics: {
      egress: (allowed) => void verdicts[allowed ? 'allowed' : 'denied']++,
      egressBytes() {},
    },
    records: {
      event: (_type, details = {}, outcome = 'success') => void lines.push({ details, outcome }),
    },
    env: {},
    ownPorts: () => [],
  })
  return { clock, lines, verdicts, wayOut }
}

async function setup(t: Test) {
  const { clock, lines, verdicts, wayOut } = build()
  const egress = await wayOut.open(64)
  t.teardown(() => wayOut.close())
  const port = await startTcp(t, echo)
  /** Asks for many tunnels, one after the other. */
  const ask = async (child: EgressChild, target: string, times = 1): Promise<void> => {
    for (let i = 0; i < times; i++) {
      const wire = new Wire(egress.port).write(connectHead(child, target))
      await wire.status()
      wire.close()
    }
  }
  /** What the lines add up to. */
  const total = (allowed: boolean): number =>
    lines
      .filter(({ details }) => details['allowed'] === allowed)
      .reduce((sum, { details }) => sum + Number(details['suppressed'] ?? 1), 0)
  return { clock, lines, verdicts, wayOut, egress, port, ask, total }
}

t.test('however much is denied, what was allowed is written down, for each process', async (t) => {
  const { lines, egress, port, ask, verdicts, wayOut, total } = await setup(t)
  const policy = allow({ cidrs: toLoopback })
  const [noisy, other] = [egress.admit(policy, { name: 'p' }), egress.admit(policy, { name: 'p' })]
  await ask(noisy, '10.0.0.1:443', 60)
  await ask(noisy, `127.0.0.1:${port}`)
  await ask(other, `127.0.0.1:${port}`)
  await ask(other, '10.0.0.2:443')
  const listed = lines.filter(({ details }) => details['suppressed'] === undefined)
  const connected = listed.filter(({ outcome }) => outcome === 'success')
  t.match(connected, [
    { details: { allowed: true, profile: 'p', host: '127.0.0.1', port } },
    { details: { allowed: true, profile: 'p', host: '127.0.0.1', port } },
  ])
  t.not(connected[0]?.details['process'], connected[1]?.details['process'], 'processes are told apart')
  t.ok(
    listed.some(({ details }) => details['host'] === '10.0.0.2'),
    'one that is loud does not hide what the other is denied',
  )
  t.ok(listed.length < 40, `a flood is cut: ${listed.length}`)
  await wayOut.close()
  t.same(verdicts, { allowed: 2, denied: 61 })
  t.same({ allowed: total(true), denied: total(false) }, verdicts, 'the lines add up to all verdicts')
})

t.test('what was not listed is told when the flood has ended, too', async (t) => {
  const { clock, lines, egress, ask, total } = await setup(t)
  const child = egress.admit(allow(), { name: 'p' })
  await ask(child, '10.0.0.1:443', 30)
  t.ok(total(false) < 30, 'not yet')
  clock.pass(1000)
  t.equal(total(false), 30)
  t.match(lines.at(-1), { outcome: 'denied', details: { profile: 'p', kind: 'connections' } })
  const before = lines.length
  clock.pass(10_000)
  t.equal(lines.length, before, 'and nothing is told twice')
})

t.test('a connection that did not come about is no success in the audit log', async (t) => {
  const { lines, egress, ask } = await setup(t)
  const child = egress.admit(allow({ cidrs: toLoopback }), { name: 'p' })
  const port = await closedPort()
  await ask(child, `127.0.0.1:${port}`)
  t.match(lines, [
    { outcome: 'error', details: { allowed: true, port, outcome: 'failed', reason: /ECONNREFUSED/ } },
  ])
})

t.test('a proxy that could not start is tried again, and its end is no obstacle', async (t) => {
  const { start } = Egress
  t.teardown(() => {
    Egress.start = start
  })
  const { wayOut } = build()
  const broken = build().wayOut
  Egress.start = () => Promise.reject(Object.assign(new Error('too many open files'), { code: 'EMFILE' }))
  await t.rejects(Promise.all([wayOut.open(64), wayOut.open(64)]), { code: 'EMFILE' })
  const opening = t.rejects(broken.open(64), { code: 'EMFILE' })
  await broken.close()
  await opening
  await wayOut.close()
  Egress.start = start
  const egress = await wayOut.open(64)
  t.equal(await wayOut.open(64), egress)
  const wire = new Wire(egress.port).write(
    connectHead({ token: { reveal: () => 'x' } } as never, '127.0.0.1:1'),
  )
  t.equal(await wire.status(), 407)
  wire.close()
  await wayOut.close()
})
