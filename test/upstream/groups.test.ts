import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { SidecarError } from '../../src/core/errors.ts'
import type { Message } from '../../src/core/jsonrpc.ts'
import { localRequest, localResult } from '../../src/core/local.ts'
import type {
  CallHandle,
  CallLease,
  Deadline,
  LeaseWish,
  Principal,
  UpstreamCall,
  UpstreamOwner,
} from '../../src/core/types.ts'
import { systemClock } from '../../src/observe/clock.ts'
import { type GroupsOptions, LegacyGroups } from '../../src/upstream/groups.ts'
import { Link } from '../../src/upstream/link.ts'
import type { ProcessContext } from '../../src/upstream/process.ts'
import { Reaper } from '../../src/upstream/reaper.ts'
import { countingMetrics, type Json, parsed, principalOf } from '../support/modern-calls.ts'
import { folder } from '../support/processes.ts'
import { type LogLine, recordingLogger, scriptedCommand, until } from '../support/sidecar.ts'

/** A call with its lease, and what becomes of both. */
class Made implements UpstreamCall, UpstreamOwner {
  readonly message: Message
  readonly principal: Principal
  readonly deadline: Deadline
  readonly reachable = true
  readonly lease: CallLease
  readonly handle: CallHandle
  readonly asked: Message[] = []
  readonly notified: Message[] = []
  answered: Json
  error: SidecarError | undefined
  ended: SidecarError | undefined
  outcomes = 0

  constructor(groups: LegacyGroups, message: Message, wish: LeaseWish, who: string, timeoutMs = 20_000) {
    this.message = message
    this.principal = principalOf(who)
    this.deadline = { timeoutMs, maxMs: 60_000, inputMs: 60_000 }
    this.lease = groups.lease(this, wish)
    this.handle = this.lease.call(this)
  }

  get text(): Json {
    const { text } = this.answered.result.content[0]
    try {
      return JSON.parse(text)
    } catch {
      return text
    }
  }

  progress(): void {}
  answer(message: Message): void {
    this.outcomes++
    this.answered = parsed(message)
    if (this.message.method !== 'initialize') this.lease.release()
  }
  fail(error: SidecarError): void {
    this.outcomes++
    this.error = error
    this.lease.release()
  }
  onRequest(message: Message): void {
    this.asked.push(message)
  }
  onNotification(message: Message): void {
    this.notified.push(message)
  }
  onEnd(error: SidecarError): void {
    this.ended = error
  }

  /** Answers what the server asked last. */
  reply(result: object): void {
    this.lease.send(localResult(this.asked.at(-1)?.idText as string, result))
  }

  async over(): Promise<this> {
    await until(() => this.outcomes > 0, `${this.message.method} is answered`, 15_000)
    return this
  }
}

interface Setup {
  readonly options?: Partial<GroupsOptions>
  readonly server?: readonly string[]
  /** Processes that may run at a time. */
  readonly room?: number
}

function start(t: Test, { options = {}, server = [], room = 100 }: Setup = {}) {
  const logs: LogLine[] = []
  const log = recordingLogger(logs)
  const metrics = countingMetrics()
  const context: ProcessContext = { clock: systemClock, log, metrics, reaper: new Reaper(log) }
  const links: Link[] = []
  const pids = join(folder(t), 'pids')
  const command = [...scriptedCommand, `--pid=${pids}`, ...server]
  const env = { PATH: '/usr/bin:/bin' }
  const running = (): Link[] => links.filter(({ process, ended }) => !process.stopping && ended === undefined)
  const changed: string[] = []
  const groups = new LegacyGroups(
    {
      take: () => {
        if (running().length >= room) throw new SidecarError('ERR_OVERLOADED')
        const link = new Link({ command, cwd: undefined, env }, context, { maxMessageBytes: 1_000_000 })
        links.push(link)
        return link
      },
    },
    {
      ...{ poolSize: 2, maxPerPrincipal: 4, startTimeoutMs: 20_000, version: '0', idleMs: 60_000 },
      habits: { asks: true },
      giveUpSession: () => false,
      onToolsChanged: (id) => changed.push(id),
      ...options,
    },
    context,
  )
  t.teardown(async () => {
    groups.close()
    await Promise.all(links.map((link) => link.stop()))
    context.reaper.close()
  })
  const tool = (name: string, args: object = {}, wish: Partial<LeaseWish> = {}, who = 'alice', ms?: number) =>
    new Made(
      groups,
      localRequest('tools/call', { name, arguments: args }),
      { use: 'exclusive', ...wish },
      who,
      ms,
    )
  return {
    ...{ groups, links, running, changed, metrics, logs, tool },
    started: () => links.length,
    pid: async (who = 'alice', wish: Partial<LeaseWish> = {}) =>
      (await tool('pid', {}, wish, who).over()).text,
    shared: (method: string, params: object = {}, who = 'alice', wish: Partial<LeaseWish> = {}) =>
      new Made(groups, localRequest(method, params), { use: 'shared', ...wish }, who),
    listen: (who = 'alice') => new Made(groups, localRequest('initialize', {}), { use: 'listening' }, who),
    /** What a process was sent, beside calls of tools. */
    received: async (pid: number) => {
      for (let i = 0; i < 20; i++) {
        const made = await tool('notifications').over()
        if ((await tool('pid', {}, { instance: made.lease.instance }).over()).text === pid) return made.text
      }
      throw new Error(`process ${pid} was not met`)
    },
    pids: () => readFileSync(pids, 'utf8').trim().split('\n').map(Number),
  }
}

const asks = { method: 'roots/list' }

t.test('a call during which the server may ask has its process to itself', async (t) => {
  const { tool, started } = start(t)
  const one = tool('ask', asks)
  await until(() => one.asked.length === 1, 'the first asks', 15_000)
  const two = tool('ask', asks)
  await until(() => two.asked.length === 1, 'the second asks', 15_000)
  t.equal(started(), 2)
  t.not(one.lease.instance, two.lease.instance)
  two.reply({ roots: [{ uri: 'file:///two' }] })
  one.reply({ roots: [{ uri: 'file:///one' }] })
  t.match((await one.over()).text, { result: { roots: [{ uri: 'file:///one' }] } })
  t.match((await two.over()).text, { result: { roots: [{ uri: 'file:///two' }] } })
  t.same([one.asked.length, two.asked.length], [1, 1])
})

t.test('calls beyond the pool queue, and are served in their order', async (t) => {
  const { tool, started } = start(t, { options: { poolSize: 1 } })
  const order: number[] = []
  const all = [0, 1, 2, 3, 4].map((i) => {
    const made = tool('sleep', { ms: 5 })
    const answer = made.answer.bind(made)
    made.answer = (message) => {
      order.push(i)
      answer(message)
    }
    return made
  })
  await Promise.all(all.map((each) => each.over()))
  t.same(order, [0, 1, 2, 3, 4])
  t.equal(started(), 1)
  t.ok(all.every(({ outcomes, error }) => outcomes === 1 && error === undefined))
})

t.test('who leaves the queue, or waits too long, takes nothing', async (t) => {
  const { tool, started } = start(t, { options: { poolSize: 1 } })
  const first = tool('ask', asks)
  await until(() => first.asked.length === 1, 'the process is taken', 15_000)
  const left = tool('echo')
  const late = tool('echo', {}, {}, 'alice', 50)
  const next = tool('pid')
  left.handle.cancel('gone')
  left.lease.release()
  t.match((await late.over()).error, { code: 'ERR_TIMEOUT' })
  t.equal(next.outcomes, 0)
  first.reply({ roots: [] })
  await next.over()
  t.same([left.outcomes, next.error, started()], [0, undefined, 1])
})

t.test('a parked call does not count, but for the limit of a principal', async (t) => {
  const { tool, started, running } = start(t, { options: { poolSize: 1, maxPerPrincipal: 2 } })
  const parked = tool('ask', asks)
  await until(() => parked.asked.length === 1, 'the first asks', 15_000)
  const second = tool('ask', asks)
  await sleep(100)
  t.equal(started(), 1, 'while it works, others wait')
  parked.lease.parked = true
  await until(() => second.asked.length === 1, 'the second asks', 15_000)
  t.equal(started(), 2)
  second.lease.parked = true
  const third = tool('echo')
  t.match((await third.over()).error, { code: 'ERR_OVERLOADED' }, 'nobody is at work who could make way')
  parked.lease.parked = false
  parked.reply({ roots: [] })
  await parked.over()
  t.equal((await tool('echo', { text: 'x' }).over()).error, undefined)
  t.equal(running().length, 2)
})

t.test('each principal has processes of its own', async (t) => {
  const { pid, tool, started } = start(t)
  const alice = await pid('alice')
  const bob = await pid('bob')
  t.not(alice, bob)
  t.equal(await pid('alice'), alice, 'and they are used again')
  t.equal(started(), 2)
  const asking = tool('ask', asks, {}, 'bob')
  await until(() => asking.asked.length === 1, 'bob is asked', 15_000)
  t.equal(await pid('alice'), alice)
  t.equal(asking.asked.length, 1)
})

t.test('a process in which a call was given up is used by none that may be asked', async (t) => {
  const { tool, pid, shared, started } = start(t, { options: { poolSize: 1 } })
  const own = await pid()
  const given = tool('ask-later', { ...asks, ms: 300 })
  await given.over()
  const stuck = tool('hang')
  await sleep(20)
  stuck.handle.cancel('gone')
  stuck.lease.release()
  const next = tool('sleep', { ms: 500 })
  await next.over()
  t.equal(started(), 2)
  t.same(next.asked, [], 'what the old call asks does not reach the new one')
  t.not(await pid(), own)
  t.equal((await shared('tools/list').over()).error, undefined)
})

t.test('until its late answer has come', async (t) => {
  const { tool, pid, started, metrics } = start(t, { options: { poolSize: 1 } })
  const own = await pid()
  const slow = tool('sleep', { ms: 100 })
  t.not(slow.lease.instance, '', 'it was given the process at once')
  slow.handle.cancel('gone')
  slow.lease.release()
  await until(() => metrics.drops.get('late_answer') === 1, 'the late answer')
  t.equal(await pid(), own)
  t.equal(started(), 1)
})

t.test('a call that waits for its own process is not forgotten', async (t) => {
  const { tool, started } = start(t, { options: { poolSize: 2 } })
  const first = await tool('pid').over()
  const { instance } = first.lease
  const slow = tool('sleep', { ms: 300 }, { instance })
  const again = tool('pid', {}, { instance })
  await slow.over()
  t.equal((await again.over()).text, first.text)
  t.ok(started() <= 2)
})

t.test('nor when that process is under suspicion, or waits for another client', async (t) => {
  for (const trouble of ['suspected', 'parked'] as const) {
    const { tool } = start(t, { options: { poolSize: 2 } })
    const first = await tool('pid').over()
    const { instance } = first.lease
    const other = tool('ask', asks, { instance })
    await until(() => other.asked.length === 1, 'it asks', 15_000)
    if (trouble === 'parked') other.lease.parked = true
    else {
      other.handle.cancel('gone')
      other.lease.release()
    }
    const again = tool('pid', {}, { instance }, 'alice', 12_000)
    await again.over()
    t.equal(again.error, undefined, `${trouble}: another process does what this one cannot`)
  }
})

t.test('one that is gone is no reason to wait', async (t) => {
  const { tool } = start(t)
  const first = await tool('pid').over()
  t.match((await tool('crash', {}, { instance: first.lease.instance }).over()).error, {
    code: 'ERR_UPSTREAM_EXIT',
  })
  const again = await tool('pid', {}, { instance: first.lease.instance }).over()
  t.not(again.text, first.text)
})

t.test('processes that nobody uses end', async (t) => {
  const { tool, pid, listen, running } = start(t, { options: { idleMs: 200 } })
  await pid('alice')
  const busy = tool('ask', asks, {}, 'bob')
  const listening = listen('carol')
  await until(() => busy.asked.length === 1 && listening.outcomes === 1, 'two are needed', 15_000)
  await until(() => running().length === 2, 'the third ends')
  await sleep(500)
  t.equal(running().length, 2, 'who runs, parks or listens keeps one')
  busy.reply({ roots: [] })
  listening.lease.release()
  await until(() => running().length === 0, 'all end')
  t.ok(await pid('alice'), 'and come back')
})

t.test('the longest unused makes room', async (t) => {
  const { groups, tool, pid, running } = start(t, { room: 2 })
  t.notOk(groups.makeRoom(), 'nothing there')
  const alice = await pid('alice')
  const bob = await pid('bob')
  t.ok(await pid('carol'), 'a third finds room')
  t.equal(await pid('bob'), bob)
  t.not(await pid('alice'), alice)
  t.ok(running().length <= 2)
  const calls = ['alice', 'bob'].map((who) => tool('ask', asks, {}, who))
  await until(() => calls.every(({ asked }) => asked.length === 1), 'both are busy', 15_000)
  t.notOk(groups.makeRoom())
  t.match((await tool('echo', {}, {}, 'carol').over()).error, { code: 'ERR_OVERLOADED' })
})

t.test('or a session does', async (t) => {
  let sessions = 1
  const asked: string[] = []
  const { tool, started } = start(t, {
    room: 1,
    options: {
      giveUpSession: (id) => {
        asked.push(id)
        return sessions-- > 0
      },
    },
  })
  const busy = tool('ask', asks)
  await until(() => busy.asked.length === 1, 'busy', 15_000)
  const failed = tool('echo', {}, {}, 'bob')
  t.match((await failed.over()).error, { code: 'ERR_OVERLOADED' }, 'there is still no room')
  t.same(asked, ['bob'])
  t.equal(started(), 1)
})

t.test('a process that ends fails its call, and those who wait get another', async (t) => {
  const { tool, started, links } = start(t, { options: { poolSize: 1 } })
  const first = tool('ask', asks)
  await until(() => first.asked.length === 1, 'it is taken', 15_000)
  const waiting = [tool('pid'), tool('pid')]
  process.kill(-(links[0]?.process.pid as number), 'SIGKILL')
  t.match((await first.over()).error, { code: 'ERR_UPSTREAM_EXIT' })
  for (const each of waiting) t.equal((await each.over()).error, undefined, 'nobody is given the dead one')
  t.equal(started(), 2)
})

t.test('a server that does not start fails who waits, with the reason', async (t) => {
  for (const server of [['--exit=3'], ['--refuse']]) {
    const { tool, started } = start(t, { server })
    const made = await tool('echo').over()
    t.match(made.error, { code: /^ERR_UPSTREAM_(EXIT|MESSAGE)$/ }, server.join())
    const before = started()
    await sleep(300)
    t.equal(started(), before, 'and is not tried again for nobody')
  }
})

t.test('a server that falls over again and again is not restarted at once each time', async (t) => {
  const { listen, started } = start(t, { server: ['--exit-after-init=150'] })
  listen()
  await until(() => started() >= 2, 'it was restarted', 15_000)
  await sleep(3000)
  t.ok(started() <= 6, `${started()} starts in three seconds`)
})

const subscribed = (all: Json[]): string[] =>
  all
    .filter(({ method }) => method.startsWith('resources/'))
    .map(({ method, params }) => `${method.slice(10)} ${params.uri}`)

t.test('subscriptions reach every process, those to come included, and end with the last', async (t) => {
  const { listen, tool, pid, received } = start(t)
  const one = listen()
  await one.over()
  t.match(one.answered.result.serverInfo, { name: 'scripted-server' })
  one.lease.watch(['file:///a', 'file:///b'])
  const first = await pid()
  const two = listen()
  await two.over()
  two.lease.watch(['file:///b', 'file:///c'])
  t.same(subscribed(await received(first)), [
    'subscribe file:///a',
    'subscribe file:///b',
    'subscribe file:///c',
  ])

  const busy = tool('ask', asks)
  await until(() => busy.asked.length === 1, 'the first is taken', 15_000)
  const second = await pid()
  t.not(second, first)
  t.same(subscribed(await received(second)).toSorted(), [
    ...['subscribe file:///a', 'subscribe file:///b', 'subscribe file:///c'],
  ])

  one.lease.release()
  one.lease.release()
  t.same(subscribed(await received(second)).slice(3), ['unsubscribe file:///a'])
  two.lease.release()
  t.same(
    subscribed(await received(second))
      .slice(4)
      .toSorted(),
    ['unsubscribe file:///b', 'unsubscribe file:///c'],
  )
  busy.reply({ roots: [] })
  await busy.over()
})

t.test('who leaves before the answer gets none', async (t) => {
  const { listen, pid } = start(t)
  await pid()
  const left = listen()
  left.handle.cancel('gone')
  left.lease.release()
  await sleep(10)
  t.equal(left.outcomes, 0)
})

t.test('changes are told those who listen, updates those who watch', async (t) => {
  const { listen, tool, changed, metrics } = start(t)
  const [one, two, bob] = [listen(), listen(), listen('bob')] as const
  await Promise.all([one.over(), two.over(), bob.over()])
  one.lease.watch(['file:///a'])
  two.lease.watch(['file:///dir'])
  const notify = async (method: string, params: object): Promise<void> => {
    await tool('notify', { method: `notifications/${method}`, params }).over()
  }
  await notify('tools/list_changed', {})
  await notify('prompts/list_changed', {})
  await notify('resources/list_changed', {})
  for (const uri of ['file:///a', 'file:///dir/x', 'file:///dir2', 'file:///', 7])
    await notify('resources/updated', { uri })
  const said = (made: Made): string[] =>
    made.notified.map(({ method }) => method.replace('notifications/', '')).toSorted()
  const changes = [
    'prompts/list_changed',
    'resources/list_changed',
    'resources/updated',
    'tools/list_changed',
  ]
  t.same(said(one), changes)
  t.same(said(two), changes)
  t.equal(parsed(one.notified.at(-1) as Message).params.uri, 'file:///a')
  t.equal(parsed(two.notified.at(-1) as Message).params.uri, 'file:///dir/x')
  t.same(bob.notified, [], 'nobody else’s')
  t.same(changed, ['alice'])
  const before = metrics.drops.get('unattributable') ?? 0
  await notify('elicitation/complete', { elicitationId: 'e' })
  t.equal(metrics.drops.get('unattributable'), before + 1, 'what is nobody’s is counted')
})

t.test('log messages are those of the only call under way', async (t) => {
  const { tool, shared, metrics } = start(t, { options: { poolSize: 1 } })
  const one = await tool('log-at', { level: 'info', data: 1 }, { logLevel: 'info' }).over()
  t.match(one.notified.map(parsed), [{ params: { level: 'info', data: 1 } }])
  const busy = tool('ask', asks, { logLevel: 'info' })
  await until(() => busy.asked.length === 1, 'it runs', 15_000)
  const beside = await shared('tools/call', { name: 'log', arguments: { level: 'error', data: 2 } }).over()
  busy.reply({ roots: [] })
  await busy.over()
  t.same([busy.notified, beside.notified], [[], []], 'beside another one nothing is certain')
  t.equal(metrics.drops.get('unattributable'), 1)
})

t.test('a call that wants less does not silence one that wants more', async (t) => {
  const { tool, shared, pid, received } = start(t, { options: { poolSize: 1 } })
  const own = await pid()
  const loud = tool('ask', asks, { logLevel: 'debug' })
  await until(() => loud.asked.length === 1, 'it runs', 15_000)
  await shared('tools/list', {}, 'alice', { logLevel: 'error' }).over()
  loud.reply({ roots: [] })
  await loud.over()
  const levels = (await received(own)).filter(({ method }: Json) => method === 'logging/setLevel')
  t.same(
    levels.map(({ params }: Json) => params.level),
    ['debug'],
  )
})

t.test('questions outside of any call', async (t) => {
  const { tool, metrics } = start(t)
  for (const [i, args] of [asks, { method: 'sampling/createMessage' }].entries()) {
    await tool('ask-later', { ...args, ms: 5 }).over()
    // Any other call might be the one that it asks in.
    await until(() => metrics.drops.get('server_request_nobody') === i + 1, 'it asks', 15_000)
  }
  const said = (await tool('notifications').over()).text.filter(
    ({ response }: Json) => response !== undefined,
  )
  t.same(
    said.map(({ response }: Json) => response.error?.code),
    [-32601, -32601],
  )
  t.equal(metrics.drops.get('server_request_nobody'), 2)
})

t.test('calls whose clients cannot be asked share, until a server asks', async (t) => {
  const habits = { asks: false }
  const { tool, started, metrics, pid } = start(t, { options: { habits } })
  await pid()
  const calls = [1, 2, 3].map(() => tool('sleep', { ms: 200 }, { use: 'unasked' }))
  await Promise.all(calls.map((each) => each.over()))
  t.equal(started(), 1)
  const sleeping = tool('sleep', { ms: 1500 }, { use: 'unasked' })
  const asking = tool('ask', { method: 'sampling/createMessage' }, { use: 'unasked' })
  await asking.over()
  t.match(asking.text, { error: { code: -32601 } }, 'whose question it is cannot be told')
  t.same([sleeping.asked, asking.asked], [[], []])
  t.ok(habits.asks)
  t.equal(metrics.drops.get('server_request_nobody'), 1)
  await sleeping.over()
  const alone = tool('ask', { method: 'sampling/createMessage' }, { use: 'unasked' })
  await until(() => alone.asked.length === 1, 'from now on it is', 15_000)
  const beside = tool('pid', {}, { use: 'unasked' })
  await beside.over()
  t.not(beside.lease.instance, alone.lease.instance)
  alone.reply({})
  await alone.over()
})

t.test('what is closed serves nobody', async (t) => {
  const { groups, tool, listen, running } = start(t, { options: { poolSize: 1 } })
  const listening = listen()
  await listening.over()
  const busy = tool('hang')
  await until(() => busy.lease.instance !== '', 'it runs', 15_000)
  const waiting = tool('echo')
  groups.close()
  t.match((await waiting.over()).error, { code: 'ERR_UPSTREAM_EXIT' })
  t.match(listening.ended, { code: 'ERR_UPSTREAM_EXIT' })
  t.match((await busy.over()).error, { code: 'ERR_UPSTREAM_EXIT' })
  t.equal(running().length, 0)
  t.throws(() => tool('echo'), { code: 'ERR_DRAINING' })
})
