/** Nobody takes all of what the children of a proxy share. */
import { once } from 'node:events'
import fc from 'fast-check'
import t from 'tap'
import { Ending } from '../../src/egress/ending.ts'
import { Lookups } from '../../src/egress/lookups.ts'
import { openFilesLimit, Places } from '../../src/egress/places.ts'
import { forwardClock } from '../support/forward-clock.ts'
import { ManualClock } from '../support/modern-calls.ts'
import { holds } from '../support/property.ts'
import {
  allow,
  connectHead,
  echo,
  silent,
  startEgress,
  startTcp,
  statusOf,
  toLoopback,
  tunnelTo,
  Wire,
} from './support.ts'

t.test('whoever has many processes leaves a share to one who has none', async (t) => {
  const port = await startTcp(t, echo)
  const proxy = await startEgress(t, { maxConnections: 256 })
  const policy = allow({ cidrs: toLoopback })
  const target = `127.0.0.1:${port}`
  const wires: Wire[] = []
  for (let process = 0; process < 3; process++) {
    const greedy = proxy.egress.admit(policy, { name: 'greedy' })
    for (let refused = false; !refused; ) {
      const { wire, status } = await tunnelTo(proxy, greedy, target)
      wires.push(wire)
      refused = status !== 200
    }
    t.match(proxy.verdicts.at(-1), { allowed: false, rule: 'limit:all-connections' })
  }
  t.equal(proxy.verdicts.filter(({ allowed }) => allowed).length, 128 + 2 + 2)
  const late = proxy.egress.admit(policy, { name: 'late' })
  for (const expected of [200, 200, 503]) {
    const { wire, status } = await tunnelTo(proxy, late, target)
    wires.push(wire)
    t.equal(status, expected)
  }
  for (const wire of wires) wire.close()
})

t.test('a process that has nothing finds a place, whatever all others do that there may be', async (t) => {
  holds(
    t,
    fc.property(
      fc.integer({ min: 2, max: 512 }),
      fc.integer({ min: 0, max: 2048 }),
      fc.array(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 400 }), fc.boolean()), { maxLength: 300 }),
      (processes, more, steps) => {
        const most = 2 * processes + more
        const places = new Places(most)
        places.share(processes)
        const held = Array<number>(processes - 1).fill(0)
        let taken = 0
        // What is worst for the last one: first one takes all it can, then each of the others.
        const greedy = held.map((_, child): [number, number, boolean] => [child, most, true])
        for (const [any, times, opens] of [...steps, ...greedy]) {
          const child = any % held.length
          for (let i = 0; i < times; i++) {
            const now = held[child] as number
            if (opens ? !places.free(now, taken) : now === 0) break
            held[child] = now + (opens ? 1 : -1)
            taken += opens ? 1 : -1
          }
          if (taken > most || !places.free(0, taken)) return false
        }
        return true
      },
    ),
  )
})

t.test('shares are for as many processes as there may be', async (t) => {
  const port = await startTcp(t, echo)
  const proxy = await startEgress(t, { maxConnections: 256 })
  const child = proxy.egress.admit(allow({ cidrs: toLoopback }), { name: 'p' })
  const late = proxy.egress.admit(allow({ cidrs: toLoopback }), { name: 'late' })
  for (let i = 0; i < 128; i++) await tunnelTo(proxy, child, `127.0.0.1:${port}`)
  proxy.egress.share(128)
  t.equal((await tunnelTo(proxy, late, `127.0.0.1:${port}`)).status, 200)
  t.equal((await tunnelTo(proxy, late, `127.0.0.1:${port}`)).status, 503)
  proxy.egress.share(32)
  t.equal((await tunnelTo(proxy, late, `127.0.0.1:${port}`)).status, 200)
})

t.test('a low limit of open files lowers what all processes may have together, and is told', async (t) => {
  const port = await startTcp(t, echo)
  const warnings: object[] = []
  const log = { ...silent, warn: (fields: object) => void warnings.push(fields) }
  const proxy = await startEgress(t, { openFiles: 40, log })
  t.match(warnings, [{ openFiles: 40, connections: 10, usual: 1024 }])
  const child = proxy.egress.admit(allow({ cidrs: toLoopback }), { name: 'p' })
  const statuses: number[] = []
  for (let i = 0; i < 7; i++) statuses.push((await tunnelTo(proxy, child, `127.0.0.1:${port}`)).status)
  t.same(statuses, [200, 200, 200, 200, 200, 503, 503])
  await startEgress(t, { openFiles: 4096, log })
  t.equal(warnings.length, 1, 'nothing is said where it is enough')
  t.ok(openFilesLimit() > 0, 'this process has a limit, or none')
})

t.test('whoever asked least recently has the next lookup', async (t) => {
  const asked: string[] = []
  const answers: (() => void)[] = []
  const lookups = new Lookups((name) => {
    asked.push(name)
    return new Promise((resolve) => answers.push(() => resolve(['192.0.2.1'])))
  }, forwardClock())
  const gone = { over: false, on() {}, off() {} } as unknown as Parameters<Lookups['find']>[2]
  const [one, two, three] = [{}, {}, {}]
  const found: Promise<unknown>[] = []
  const find = (owner: object, name: string): void => void found.push(lookups.find(owner, name, gone))
  for (let i = 0; i < 20; i++) find(one, 'one')
  for (let i = 0; i < 20; i++) find(two, 'two')
  find(three, 'three')
  t.same(asked, ['one', 'one', 'two'], 'two for each, three in all')
  while (asked.length < 41) {
    answers.shift()?.()
    await new Promise((resolve) => setImmediate(resolve))
  }
  t.equal(asked.indexOf('three'), 3, 'it does not wait for what the others have queued')
  for (const answer of answers) answer()
  await Promise.all(found)
  t.same(asked.slice(4, 12).filter((name) => name === 'two').length, 4, 'and the others take turns')
})

t.test('two processes whose lookups are slow do not make those of a third fail', async (t) => {
  const clock = new ManualClock()
  const slow: (() => void)[] = []
  const lookups = new Lookups(async (name) => {
    if (name === 'slow') await new Promise<void>((resolve) => slow.push(resolve))
    return ['192.0.2.1']
  }, clock)
  const gone = new Ending()
  const [one, two, three] = [{}, {}, {}]
  const find = (owner: object, name: string): Promise<unknown> =>
    lookups.find(owner, name, gone).catch((cause) => cause.fault)
  // The first one is alone, and so has two places. That is over when the others have come.
  const stuck = ['slow', 'slow', 'slow', 'slow'].map((name) => find(one, name))
  stuck.push(...['slow', 'slow', 'slow'].map((name) => find(two, name)))
  t.equal(slow.length, 3)
  const waited = find(three, 'fast')
  clock.pass(8800)
  slow.shift()?.()
  t.same(await waited, ['192.0.2.1'], 'the time in the queue is not that of the lookup')
  for (let i = 0; i < 10; i++) t.same(await find(three, 'fast'), ['192.0.2.1'], 'and a place is left for it')
  clock.pass(10_000)
  t.same(await Promise.all(stuck), Array(7).fill('timeout'), 'but nobody waits for ever')
})

t.test('strangers evict nobody who is showing a token', async (t) => {
  const port = await startTcp(t, echo)
  const proxy = await startEgress(t)
  const child = proxy.egress.admit(allow({ cidrs: toLoopback }), { name: 'p' })
  const wires: Wire[] = []
  const crowd = async (size: number, says = ''): Promise<void> => {
    const more = Array.from({ length: size }, () => new Wire(proxy.egress.port))
    wires.push(...more)
    await Promise.all(more.map(({ socket }) => once(socket, 'connect')))
    if (says !== '') for (const wire of more) wire.write(says)
    // The proxy accepts in order.
    t.equal(await statusOf(proxy, child, `127.0.0.1:${port}`), 200)
  }
  // SOCKS takes two rounds to the token; a broker takes one.
  const socks = new Wire(proxy.egress.port)
  await once(socks.socket, 'connect')
  await crowd(400)
  socks.write(Buffer.from([5, 1, 2]))
  t.same([...(await socks.take(2))], [5, 2])
  await crowd(300, 'C')
  const token = Buffer.from(child.token.reveal())
  socks.write(Buffer.concat([Buffer.from([1, 1, 0x78, token.length]), token]))
  t.same([...(await socks.take(2))], [1, 0], 'it has come in')
  await crowd(700, 'CONNECT ')
  const brokers = Array.from({ length: 100 }, () =>
    new Wire(proxy.egress.port).write(connectHead(child, `127.0.0.1:${port}`, 'wait')),
  )
  wires.push(...brokers)
  const crowding = crowd(700)
  for (const wire of brokers) t.equal(await wire.status(), 200)
  await crowding
  for (const wire of [socks, ...wires]) wire.close()
})
