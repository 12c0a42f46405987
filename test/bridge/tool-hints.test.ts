import { setImmediate as turn } from 'node:timers/promises'
import t from 'tap'
import { toolHints } from '../../src/bridge/tool-hints.ts'
import { type ListedServer, ToolList } from '../../src/bridge/tool-list.ts'
import { SidecarError } from '../../src/core/errors.ts'
import { localNotification, localResult } from '../../src/core/local.ts'
import { anonymous, type Clock, type Decoded, type ModernCall } from '../../src/core/types.ts'
import { decoded, type RequestWish } from '../support/authz.ts'

const wipe = { name: 'wipe', annotations: { destructiveHint: true } }
const look = { name: 'look', annotations: { readOnlyHint: true } }
const plain = { name: 'plain' }

function setup(tools: readonly unknown[] = [wipe, look, plain]) {
  let now = 0
  const clock: Clock = {
    now: () => now,
    epoch: () => 0,
    after: () => {
      throw new Error('nothing waits')
    },
  }
  const nothing = (): void => {}
  const log = { debug: nothing, info: nothing, warn: nothing, error: nothing }
  /** The lists that were asked for, of whichever server. */
  const asked: ModernCall[] = []
  const serverWith = (onList: (call: ModernCall) => void): ListedServer => ({
    queuedBytesOf: () => 0,
    call(call) {
      asked.push(call)
      onList(call)
      return { cancel: nothing, waitForInput: nothing }
    },
  })
  const listing = (some: readonly unknown[], more = {}): ListedServer =>
    serverWith((call) => call.answer(localResult('0', { tools: some, ...more })))
  const state = { server: listing(tools), wanted: true }
  const list = new ToolList(() => state.server, { clock, log }, { version: '1.2.3' })
  const know = toolHints(list, { clock, wanted: () => state.wanted })
  const passed: Decoded[] = []
  const send = (message: Decoded, next = (each: Decoded): void | Promise<void> => void passed.push(each)) =>
    know(message, next)
  const call = (name: unknown, wish?: RequestWish, more: Partial<Decoded> = {}) =>
    send({ ...decoded('tools/call', { name, arguments: {} }, wish), ...more })
  /** What is known when the call goes on. */
  const hints = async (name: string, wish?: RequestWish): Promise<unknown> => {
    await call(name, wish)
    return passed.at(-1)?.toolHints
  }
  const pass = (ms: number): void => {
    now += ms
  }
  return { state, list, asked, passed, send, call, hints, pass, listing, serverWith }
}

for (const era of ['legacy', 'modern'] as const) {
  for (const transport of ['streamable-http', 'http-sse', 'websocket'] as const) {
    t.test(`the first call waits for the list: ${era}, ${transport}`, async (t) => {
      const { call, asked, passed } = setup()
      const first = call('wipe', { era }, { transport })
      t.ok(first instanceof Promise)
      await first
      for (const name of ['look', 'plain', 'unknown'])
        t.equal(call(name, { era }, { transport }), undefined, 'without a promise')
      t.same(
        passed.map((each) => each.toolHints),
        [{ destructiveHint: true }, { readOnlyHint: true }, {}, undefined],
      )
      t.equal(asked.length, 1)
      t.equal(asked[0]?.deadline.timeoutMs, 10_000)
    })
  }
}

t.test('it costs nothing where nobody wants to know, nor for anything but calls of tools', async (t) => {
  const { state, call, send, asked, passed } = setup()
  const others: Decoded[] = [
    decoded('tools/list'),
    decoded('prompts/get', { name: 'wipe' }),
    decoded('tools/call', { name: 7 }),
    decoded('tools/call'),
    { ...decoded('ping'), message: localNotification('tools/call', { name: 'wipe' }) },
  ]
  for (const each of others) t.equal(send(each), undefined)
  state.wanted = false
  t.equal(call('wipe'), undefined)
  t.equal(passed.length, 6)
  t.notOk(passed.some((each) => 'toolHints' in each))
  t.equal(asked.length, 0)
})

t.test('calls that arrive together share one list, each principal has its own', async (t) => {
  const { state, call, asked, passed, serverWith } = setup()
  state.server = serverWith(() => {})
  const calls = [call('wipe'), call('look'), call('wipe', { principal: anonymous })]
  await turn()
  t.equal(passed.length, 0)
  t.same(
    asked.map(({ principal }) => principal.id),
    ['user:alice', 'anonymous'],
  )
  asked[0]?.answer(localResult('0', { tools: [wipe, look] }))
  asked[1]?.answer(localResult('0', { tools: [look] }))
  await Promise.all(calls)
  t.same(
    passed.map((each) => each.toolHints),
    [{ destructiveHint: true }, { readOnlyHint: true }, undefined],
  )
})

t.test('what the list says twice is not known', async (t) => {
  const { hints, state, listing } = setup([
    look,
    wipe,
    { ...wipe, annotations: {} },
    { name: 7 },
    'look',
    null,
  ])
  t.equal(await hints('wipe'), undefined)
  t.same(await hints('look'), { readOnlyHint: true })
  state.server = listing([{ ...look, annotations: undefined }, plain])
  t.same(await hints('look'), {}, 'a tool without annotations is known')
})

t.test('the list is asked for anew when it has changed or is old', async (t) => {
  const { hints, list, state, asked, pass, listing } = setup()
  const said = async (): Promise<unknown> => [await hints('look'), asked.length]
  t.same(await said(), [{ readOnlyHint: true }, 1])
  const changed = [{ ...look, annotations: { readOnlyHint: false } }]
  state.server = Object.assign(state.server, listing(changed))
  pass(299_999)
  t.same(await said(), [{ readOnlyHint: true }, 1])
  pass(1)
  t.same(await said(), [{ readOnlyHint: false }, 2])
  list.invalidate('user:alice')
  t.same(await said(), [{ readOnlyHint: false }, 3])
})

t.test('a tool that is not in the list is looked for again after ten seconds', async (t) => {
  const { hints, call, state, asked, pass, listing } = setup([look])
  t.equal(await hints('wipe'), undefined)
  state.server = Object.assign(state.server, listing([look, wipe]))
  pass(9_999)
  t.equal(call('wipe'), undefined, 'the list is young')
  pass(1)
  t.same(await hints('wipe'), { destructiveHint: true })
  t.equal(asked.length, 2)
})

t.test('a list that cannot be had says nothing, whatever was known before', async (t) => {
  const { hints, call, state, asked, pass, listing, serverWith } = setup()
  t.same(await hints('look'), { readOnlyHint: true })
  const failing = serverWith((each) => each.fail(new SidecarError('ERR_TIMEOUT')))
  state.server = Object.assign(state.server, failing)
  pass(300_000)
  t.equal(await hints('look'), undefined)
  t.equal(call('look'), undefined, 'nobody else waits for it')
  t.equal(asked.length, 2)
  state.server = Object.assign(state.server, listing([look]))
  pass(10_000)
  t.same(await hints('look'), { readOnlyHint: true }, 'after ten seconds it is asked for again')
})

t.test('what another server has said does not count', async (t) => {
  const { hints, call, state, asked, passed, listing, serverWith } = setup()
  t.same(await hints('look'), { readOnlyHint: true })
  const old = serverWith(() => {})
  state.server = old
  const waiting = call('look')
  state.server = listing([{ ...look, annotations: { destructiveHint: true } }])
  asked.at(-1)?.answer(localResult('0', { tools: [look] }))
  await waiting
  t.same(passed.at(-1)?.toolHints, { destructiveHint: true }, 'not even for a call that has waited for it')
})

t.test('nothing is asked before the era of the server is known', async (t) => {
  const { call, state, asked, passed, listing } = setup()
  let known: Promise<void> | undefined
  let settle = (): void => {}
  known = new Promise((resolve) => {
    settle = resolve
  })
  const server = listing([look])
  state.server = {
    call: (each) => server.call(each),
    queuedBytesOf: () => 0,
    get known() {
      return known
    },
  }
  const waiting = call('look')
  await turn()
  t.equal(asked.length, 0)
  known = undefined
  settle()
  await waiting
  t.same(passed.at(-1)?.toolHints, { readOnlyHint: true })
})

t.test('a cancellation does not overtake the call that waits', async (t) => {
  const { call, send, state, asked, passed, serverWith } = setup()
  state.server = serverWith(() => {})
  const sessionId = 's'
  const cancel = (session: string): Decoded => ({
    ...decoded('ping'),
    message: localNotification('notifications/cancelled', { requestId: 1 }),
    sessionId: session,
  })
  const waiting = call('look', undefined, { sessionId })
  const cancelled = send(cancel(sessionId))
  t.equal(send(cancel('other')), undefined)
  t.equal(passed.length, 1)
  asked[0]?.answer(localResult('0', { tools: [look] }))
  await Promise.all([waiting, cancelled])
  t.same(
    passed.map(({ message }) => message.method),
    ['notifications/cancelled', 'tools/call', 'notifications/cancelled'],
  )
})

t.test('what is refused behind it is refused when it has waited, too', async (t) => {
  const { send } = setup()
  const refuse = (): void => {
    throw new SidecarError('ERR_DENIED')
  }
  await t.rejects(send(decoded('tools/call', { name: 'look' }), refuse) as Promise<void>, {
    code: 'ERR_DENIED',
  })
  t.throws(() => send(decoded('tools/call', { name: 'look' }), refuse), { code: 'ERR_DENIED' })
})

t.test('of clients that have gone meanwhile only legacy ones get further', async (t) => {
  const { send, state, asked, passed, serverWith } = setup()
  state.server = serverWith(() => {})
  const gone = (era: 'legacy' | 'modern'): Decoded => {
    const request = decoded('tools/call', { name: 'look' }, { era })
    Object.defineProperty(request.exchange, 'attached', { value: false })
    return request
  }
  const requests = [gone('modern'), gone('legacy'), decoded('tools/call', { name: 'look' })] as const
  const outcomes: string[] = []
  for (const { exchange } of requests) exchange.onSettled((outcome) => outcomes.push(outcome))
  const calls = requests.map((each) => send(each))
  requests[2].exchange.fail(new SidecarError('ERR_DRAINING'))
  asked[0]?.answer(localResult('0', { tools: [look] }))
  await Promise.all(calls)
  t.same(outcomes, ['ERR_DRAINING', 'cancelled'])
  t.same(passed, [requests[1]], 'their answers may be asked for later')
})
