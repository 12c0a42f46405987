import tap, { type Test } from 'tap'
import { metaKey } from '../../src/core/envelope.ts'
import { SidecarError } from '../../src/core/errors.ts'
import type { Message } from '../../src/core/jsonrpc.ts'
import { localNotification, messageOf } from '../../src/core/local.ts'
import { anonymous, type ModernCall, type Principal } from '../../src/core/types.ts'
import { systemClock } from '../../src/observe/clock.ts'
import type { Link } from '../../src/upstream/link.ts'
import { ModernPool, type ModernPoolOptions } from '../../src/upstream/modern-pool.ts'
import { Reaper } from '../../src/upstream/reaper.ts'
import { ListWatch } from '../../src/upstream/subscription.ts'
import { said, serverCommand } from '../support/modern.ts'
import {
  Caller,
  countingMetrics,
  type Json,
  ManualClock,
  modernRequest,
  parsed,
  principalOf,
} from '../support/modern-calls.ts'
import { alive, type PidFile, pidFile } from '../support/processes.ts'
import { recordingLogger, until } from '../support/sidecar.ts'

// Much of this is waiting for processes and pauses.
tap.jobs = 3
const test = (name: string, run: (t: Test) => Promise<void>) => tap.test(name, { buffered: true }, run)

const alice = principalOf('alice')
const bob = principalOf('bob')
const acknowledged = 'notifications/subscriptions/acknowledged'
const changed = (list: string): string => `notifications/${list}/list_changed`

interface Running {
  readonly pool: ModernPool
  readonly pids: PidFile
  readonly drops: ReadonlyMap<string, number>
  /** How often the tools may have changed. */
  toolChanges(): number
  call(method: string, params?: object, principal?: Principal, logLevel?: string): Caller
  /** Calls a tool; it does not answer before it is asked to. */
  begin(name: string, args?: object, principal?: Principal, logLevel?: string): Caller
  /** What a tool says. */
  says(name: string, args?: object, principal?: Principal): Promise<Json>
  /** Waits until the process has this many streams. */
  listens(count: number, principal?: Principal): Promise<Json[]>
}

function run(t: Test, switches: readonly string[] = [], options: Partial<ModernPoolOptions> = {}): Running {
  const pids = pidFile(t)
  const log = recordingLogger([])
  const metrics = countingMetrics()
  const context = { clock: systemClock, log, metrics, reaper: new Reaper(log) }
  let toolChanges = 0
  const command = serverCommand('modern-server.mjs', `--pid=${pids.path}`, ...switches)
  const pool = new ModernPool(
    {
      command: { command, cwd: undefined, env: {} },
      maxProcesses: 10,
      warmSpares: 0,
      startTimeoutMs: 10_000,
      maxMessageBytes: 1_000_000,
      version: '1.2.3',
      onToolsChanged: () => void toolChanges++,
      perPrincipal: false,
      idleMs: 3_600_000,
      ...options,
    },
    context,
    undefined,
  )
  pool.start()
  t.teardown(async () => {
    await pool.close()
    context.reaper.close()
    await pids.gone()
  })
  const call = (method: string, params = {}, principal = anonymous, logLevel?: string): Caller => {
    const caller = new Caller(
      modernRequest(method, params, logLevel === undefined ? {} : { logLevel }),
      principal,
    )
    caller.handle = pool.call(caller)
    return caller
  }
  const begin = (name: string, args = {}, principal = anonymous, logLevel?: string): Caller =>
    call('tools/call', { name, arguments: args }, principal, logLevel)
  const says = async (name: string, args = {}, principal = anonymous): Promise<Json> => {
    const caller = begin(name, args, principal)
    await until(() => caller.outcomes > 0, `${name} to answer`)
    if (caller.answers[0] === undefined) throw caller.errors[0]
    return said(parsed(caller.answers[0]))
  }
  const listens = async (count: number, principal = anonymous): Promise<Json[]> => {
    let found: Json[] = []
    await until(async () => {
      found = await says('listens', {}, principal)
      return found.length === count
    }, `${count} streams`)
    return found
  }
  return { pool, pids, drops: metrics.drops, toolChanges: () => toolChanges, call, begin, says, listens }
}

/** Somebody who attends, with what they have heard. */
class Attendant {
  readonly heard: Message[] = []
  readonly ended: unknown[] = []
  readonly stop: () => void

  constructor(pool: ModernPool, principal: Principal = anonymous) {
    this.stop = pool.attend(
      principal,
      (message) => this.heard.push(message),
      (error) => this.ended.push(error),
    )
  }

  get methods(): string[] {
    return this.heard.map(({ method }) => method)
  }
}

const over = (caller: Caller): Promise<void> => until(() => caller.outcomes > 0, 'it is over')
const sleep = (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms)
  })

test('however many attend, the server has one stream, and each of them hears', async (t) => {
  const { pool, says, listens, toolChanges } = run(t)
  const attendants = Array.from({ length: 100 }, (_, i) => new Attendant(pool, principalOf(`p${i}`)))
  const [stream] = await listens(1)
  const all = { toolsListChanged: true, promptsListChanged: true, resourcesListChanged: true }
  t.same(stream.requested, all)
  const before = toolChanges()
  const lists = ['tools', 'prompts', 'resources']
  for (const list of lists) t.equal(await says('change', { list }), '1')
  for (const { methods } of attendants) t.same(methods, lists.map(changed))
  const mark = { params: { _meta: { [metaKey('subscriptionId')]: stream.id } } }
  t.match(parsed(attendants[0]?.heard[0] as Message), mark)
  t.equal(toolChanges(), before + 1)

  const [leaves, stays] = attendants as [Attendant, Attendant]
  leaves.stop()
  leaves.stop()
  await says('change', { list: 'prompts' })
  t.equal(leaves.heard.length, 3, 'who has left hears nothing')
  t.equal(stays.heard.length, 4)
  for (const each of attendants) each.stop()
  await says('change', { list: 'tools' })
  t.equal(stays.heard.length, 4)
  t.equal(toolChanges(), before + 2, 'the sidecar itself goes on listening')
  await listens(1)
  t.same(await says('violations'), [])
})

test('only what the server declares is listened to', async (t) => {
  const some = run(t, ['--no-tools-changed', '--no-resources'])
  const attendant = new Attendant(some.pool)
  const [{ requested }] = (await some.listens(1)) as [Json]
  t.same(requested, { promptsListChanged: true })
  for (const list of ['tools', 'prompts']) await some.says('push', { method: changed(list), params: {} })
  await some.says('push', { method: 'notifications/resources/updated', params: { uri: 'a:b' } })
  t.same(attendant.methods, [changed('prompts')])
  t.equal(some.drops.get('unwanted_notification'), 2)

  const none = run(t, ['--no-tools-changed', '--no-prompts-changed', '--no-resources-changed'])
  new Attendant(none.pool)
  await none.says('pid')
  t.equal((await none.says('counts'))['subscriptions/listen'], undefined)
})

for (const how of ['result', 'cancelled', 'both', 'error']) {
  void test(`a stream that the server ends by ${how} is opened again`, async (t) => {
    const { pool, says, listens, toolChanges, drops } = run(t)
    const attendant = new Attendant(pool)
    await listens(1)
    const before = toolChanges()
    const ended = performance.now()
    t.equal(await says('end-listen', { how }), '1')
    await listens(1)
    t.ok(performance.now() - ended > 900, 'after a pause')
    t.equal(toolChanges(), before + 1, 'meanwhile they may have changed')
    t.same(attendant.methods, [])
    await says('change', { list: 'resources' })
    t.same(attendant.methods, [changed('resources')])
    t.same(await says('notifications'), [], 'what the server has ended is not cancelled')
    t.equal(drops.get('late_answer'), how === 'both' ? 1 : undefined)
  })
}

test('it is opened again on the process that follows a crash, and once', async (t) => {
  const { pool, says, begin, listens, pids } = run(t)
  const attendants = [new Attendant(pool), new Attendant(pool)]
  await listens(1)
  const crash = begin('crash')
  await over(crash)
  t.equal(crash.code, 'ERR_UPSTREAM_EXIT')
  await pids.wrote(2)
  await until(() => pool.ready, 'the next one answers')
  await listens(1)
  await says('change', { list: 'prompts' })
  for (const { methods } of attendants) t.same(methods, [changed('prompts')])
  t.equal((await says('counts'))['subscriptions/listen'], 1)
})

test("a caller's subscription goes on after a crash, acknowledged once", async (t) => {
  const { pool, call, says, begin, listens, pids } = run(t)
  const uri = 'test://text'
  const caller = call('subscriptions/listen', { notifications: { resourceSubscriptions: [uri] } })
  const left = call('subscriptions/listen', { notifications: { resourceSubscriptions: [uri] } })
  await listens(3)
  left.handle?.cancel('not any more')
  await listens(2)
  await says('touch', { uri })
  await over(begin('crash'))
  await pids.wrote(2)
  await until(() => pool.ready, 'the next one answers')
  await listens(2)
  await says('touch', { uri })
  const updated = 'notifications/resources/updated'
  t.same(
    caller.notified.map(({ method }) => method),
    [acknowledged, updated, updated],
  )
  t.equal(left.outcomes, 0)
  t.equal(caller.outcomes, 0)

  await says('end-listen', { how: 'cancelled' })
  t.match(caller.result, { resultType: 'complete' }, 'either way to end it ends with a result')
  await over(begin('crash'))
  await pids.wrote(3)
  await until(() => pool.ready, 'the next one answers')
  await listens(1)
  await pool.close()
  const late = call('subscriptions/listen', { notifications: {} })
  await over(late)
  t.equal(late.code, 'ERR_UPSTREAM_EXIT')
})

test('log messages go to the only call that wants some', async (t) => {
  const { begin, says, call, drops } = run(t)
  const lost = (): number => (drops.get('log_message') ?? 0) + (drops.get('unattributable') ?? 0)
  await says('pid')
  const one = begin('log', { level: 'error', data: 'for one' }, anonymous, 'warning')
  await over(one)
  t.match(one.notified.map(parsed), [{ params: { level: 'error', data: 'for one' } }])
  const mild = begin('log', { level: 'info' }, anonymous, 'warning')
  await over(mild)
  t.same(mild.notified, [])
  await over(begin('log', { level: 'error' }))
  t.equal(lost(), 2, 'too mild, and wanted by nobody')

  const waiting = begin('hold', { key: 'k' }, alice, 'debug')
  call('subscriptions/listen', { notifications: {} }, bob)
  const other = begin('log', { level: 'error' }, bob, 'debug')
  await over(other)
  t.same([waiting.notified, other.notified], [[], []])
  t.equal(lost(), 3, 'two want some, and nothing says which')
  await over(begin('log', { level: 'error' }, bob))
  t.equal(waiting.notified.length, 1, 'one that wants none is not in question')
  await says('release', { key: 'k' })
})

test('what is logged for a call that was cancelled reaches no other principal', async (t) => {
  const { begin, says } = run(t)
  await says('pid')
  begin('hold', {}, alice).handle?.cancel('not any more')
  const mine = begin('log', { level: 'error' }, bob, 'debug')
  await over(mine)
  t.equal(mine.notified.length, 1, 'one for which nothing was to be logged is not in question')
  begin('hold', {}, alice, 'debug').handle?.cancel('not any more')
  const other = begin('log', { level: 'error' }, bob, 'debug')
  await over(other)
  t.same(other.notified, [])
})

test('a request of the server is nobody’s', async (t) => {
  const { says, drops } = run(t)
  await says('request', { method: 'roots/list' })
  t.equal(drops.get('server_request'), 1)
  t.match(await says('violations'), [{ kind: 'response', message: { error: { code: -32601 } } }])
})

test('calls wait while the server starts, and no longer than they may', async (t) => {
  const { pool, begin, pids } = run(t, ['--delay=server/discover:700'])
  const attendant = new Attendant(pool)
  const early = begin('pid')
  const given = begin('pid')
  given.handle?.cancel('not any more')
  const hasty = new Caller(modernRequest('tools/call', { name: 'pid' }))
  hasty.deadline = { timeoutMs: 100, maxMs: 100, inputMs: 100 }
  const fail = hasty.fail.bind(hasty)
  hasty.fail = (error) => {
    t.equal(early.outcomes, 0)
    fail(error)
  }
  pool.call(hasty)
  await over(hasty)
  t.equal(hasty.code, 'ERR_TIMEOUT')
  t.match(await pool.discovered(), { supportedVersions: ['2026-07-28'] })
  await over(early)
  t.equal(early.result.content[0].text, String(pids.pids[0]))
  t.equal(given.outcomes, 0)

  await over(begin('crash'))
  await pids.wrote(2)
  t.match(pool.discovered(), { supportedVersions: ['2026-07-28'] }, 'that stays known')
  const next = begin('pid')
  await over(next)
  t.ok(pids.pids.slice(1).includes(Number(next.result.content[0].text)), 'the process that followed')
  await over(begin('change', { list: 'tools' }))
  t.same(attendant.methods, [changed('tools')])
})

test('calls to a server that is down fail at once', async (t) => {
  const { pool, begin, pids } = run(t, ['--exit=1'])
  await t.rejects(Promise.resolve(pool.discovered()), { code: 'ERR_UPSTREAM_EXIT' })
  await pids.wrote(2)
  await until(() => pool.processes === 0, 'it pauses')
  const attendant = new Attendant(pool)
  t.throws(() => pool.discovered(), { code: 'ERR_UPSTREAM_EXIT' })
  const call = begin('pid')
  await over(call)
  t.equal(call.code, 'ERR_UPSTREAM_EXIT')
  t.equal(pool.ready, false)
  attendant.stop()
})

test('when time runs out', async (t) => {
  const { pool, says, begin } = run(t)
  await says('pid')
  const hold = (): Caller => {
    const caller = new Caller(modernRequest('tools/call', { name: 'hold' }))
    caller.deadline = { timeoutMs: 100, maxMs: 100, inputMs: 100 }
    return caller
  }
  const [first, second, third] = [hold(), hold(), hold()]
  // What one does when it ends touches the others.
  const fail = first.fail.bind(first)
  first.fail = (error) => {
    fail(error)
    second.handle?.cancel('not any more')
    third.handle = pool.call(third)
  }
  first.handle = pool.call(first)
  second.handle = pool.call(second)
  await over(third)
  t.same([first.code, second.outcomes, third.code], ['ERR_TIMEOUT', 0, 'ERR_TIMEOUT'])

  // The same when the process ends.
  const [crash, other] = [begin('hold'), begin('hold')]
  const crashed = crash.fail.bind(crash)
  crash.fail = (error) => {
    crashed(error)
    other.handle?.cancel('not any more')
  }
  await over(begin('crash'))
  t.same([crash.code, other.outcomes], ['ERR_UPSTREAM_EXIT', 0])
})

test('a retired pool serves whoever attends, and ends with the last of them', async (t) => {
  const { pool, says, begin, pids } = run(t)
  const [one, two] = [new Attendant(pool, alice), new Attendant(pool, bob)]
  await says('pid')
  pool.retire()
  one.stop()
  one.stop()
  t.equal(await says('pid'), String(pids.pids[0]))
  await says('change', { list: 'tools' })
  t.same(two.methods, [changed('tools')])
  two.stop()
  await pids.gone()
  const late = begin('pid')
  await over(late)
  t.equal(late.code, 'ERR_UPSTREAM_EXIT')
  new Attendant(pool).stop()
  t.equal(pids.pids.length, 1, 'nothing is started any more')

  const unused = run(t)
  await unused.says('pid')
  unused.pool.retire()
  await unused.pids.gone()

  const busy = run(t, [], { idleMs: 200 })
  const call = busy.begin('slow', { ms: 500 })
  const attendant = new Attendant(busy.pool)
  await until(() => busy.pool.ready, 'it has started')
  busy.pool.retire()
  attendant.stop()
  await over(call)
  t.match(call.result, { content: [{ text: 'slept 500' }] }, 'a call keeps it, too')
  await busy.pids.gone()
})

test('a retired pool starts no process again when the one it has ends', async (t) => {
  for (const perPrincipal of [false, true]) {
    const { pool, says, begin, pids } = run(t, [], { perPrincipal })
    const attendant = new Attendant(pool, alice)
    const pid = Number(await says('pid', {}, alice))
    pool.retire()
    process.kill(pid, 'SIGKILL')
    await until(() => attendant.ended.length > 0, 'whoever attends is told')
    const late = begin('pid', {}, alice)
    await over(late)
    t.equal(late.code, 'ERR_UPSTREAM_EXIT')
    t.same(pids.pids, [pid])
  }
})

test('each principal has a process of its own, as long as it attends', async (t) => {
  const { pool, says, listens, pids } = run(t, [], { perPrincipal: true, idleMs: 300 })
  const mine = [new Attendant(pool, alice), new Attendant(pool, alice)] as const
  const hers = new Attendant(pool, bob)
  const [a, b] = [Number(await says('pid', {}, alice)), Number(await says('pid', {}, bob))]
  t.not(a, b)
  t.equal(pids.pids.length, 2)
  for (const each of [alice, bob]) await listens(1, each)
  await says('change', { list: 'tools' }, alice)
  t.same(
    [...mine, hers].map(({ heard }) => heard.length),
    [1, 1, 0],
  )
  mine[0].stop()
  await sleep(800)
  t.same([a, b].filter(alive), [a, b], 'nobody calls, and yet they stay')
  mine[1].stop()
  t.ok(alive(a), 'not at once')
  await until(() => !alive(a), 'it ends for want of use')
  t.ok(alive(b))
  hers.stop()
  await until(() => !alive(b), 'so does the other')
  await until(() => pool.processes === 0, 'nor is it counted')
  t.equal(pool.ready, true, 'that is no reason to send no more calls')
  t.match(pool.discovered(), { supportedVersions: ['2026-07-28'] })
  await says('pid', {}, alice)
  t.equal(pids.pids.length, 3)
})

test('with a process for each principal, a retired pool ends each when it can', async (t) => {
  const { pool, says, pids } = run(t, [], { perPrincipal: true })
  const [mine, hers] = [new Attendant(pool, alice), new Attendant(pool, bob)]
  const [a, b] = [Number(await says('pid', {}, alice)), Number(await says('pid', {}, bob))]
  const c = Number(await says('pid', {}, principalOf('carol')))
  pool.retire()
  await until(() => !alive(c), 'nobody attends there')
  mine.stop()
  await until(() => !alive(a), 'nor there')
  t.equal(await says('pid', {}, bob), String(b))
  hers.stop()
  await pids.gone()
})

test('at the limit nobody attends in vain', async (t) => {
  const { pool, says, begin, pids } = run(t, [], { perPrincipal: true, maxProcesses: 1 })
  const mine = new Attendant(pool, alice)
  const hers = new Attendant(pool, bob)
  await says('pid', {}, alice)
  const refused = begin('pid', {}, bob)
  await over(refused)
  t.equal(refused.code, 'ERR_OVERLOADED')
  t.equal(pids.pids.length, 1)
  hers.stop()
  mine.stop()
  t.equal(await says('pid', {}, bob), String((await pids.wrote(2))[1]), 'one that is unused makes way')
  await until(() => !alive(pids.pids[0] as number), 'it ends')
})

/** The sidecar's own stream, on a process that does what the test says. */
class Watched {
  readonly clock = new ManualClock()
  readonly metrics = countingMetrics()
  readonly sent: ModernCall[] = []
  readonly events: string[] = []
  readonly watch: ListWatch
  readonly link: { ended: SidecarError | undefined }

  constructor() {
    const { clock, metrics, sent } = this
    const link = {
      context: { clock, metrics },
      ended: undefined,
      call: (call: ModernCall) => void sent.push(call),
    }
    this.link = link
    this.watch = new ListWatch(link as unknown as Link, ['tools'], '1', {
      onChanged: ({ method }) => this.events.push(method),
      onReopened: () => this.events.push('reopened'),
    })
  }

  end(body: string): void {
    this.watch.answer(messageOf(`{"jsonrpc":"2.0","id":1,${body}}`))
  }

  /** How long it takes until it is opened again; undefined if it is not. */
  pause(): number | undefined {
    const before = this.sent.length
    for (let ms = 0; ms <= 70_000; ms += 500) {
      if (this.sent.length > before) return ms
      this.clock.pass(500)
    }
    return undefined
  }
}

test('the pauses grow until a stream lasts', async (t) => {
  const watched = new Watched()
  const { watch, clock } = watched
  t.ok(watch.open)
  const pauses: (number | undefined)[] = []
  for (let i = 0; i < 8; i++) {
    watch.notify(localNotification(acknowledged))
    watched.end('"result":{}')
    t.notOk(watch.open)
    pauses.push(watched.pause())
  }
  t.same(pauses, [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000])
  clock.pass(60_000)
  watched.end('"result":{}')
  t.equal(watched.pause(), 60_000, 'one that was never acknowledged did not last')
  watch.notify(localNotification(acknowledged))
  clock.pass(30_000)
  watch.notify(localNotification(acknowledged))
  clock.pass(30_000)
  watch.notify(localNotification(changed('tools')))
  watch.fail()
  t.equal(watched.pause(), 1000)
  t.same(watched.events.slice(-2), [changed('tools'), 'reopened'])
  watch.fail()
  watch.stop()
  t.equal(clock.waiting, 0)
  t.equal(watched.pause(), undefined)
})

test('when it is not opened again', async (t) => {
  for (const code of [-32601, -32602]) {
    const watched = new Watched()
    watched.end(`"error":{"code":${code},"message":""}`)
    t.equal(watched.pause(), undefined, String(code))
  }
  for (const error of ['{"code":-32603,"message":""}', '{"code":"-32601"}', '{}', 'null', '"no"', '[]']) {
    const watched = new Watched()
    watched.end(`"error":${error}`)
    t.equal(watched.pause(), 1000, error)
  }
  const dead = new Watched()
  dead.link.ended = new SidecarError('ERR_UPSTREAM_EXIT')
  dead.watch.fail()
  t.equal(dead.clock.waiting, 0, 'with its process')
  const stopped = new Watched()
  stopped.watch.stop()
  stopped.end('"result":{}')
  t.equal(stopped.clock.waiting, 0)
})
