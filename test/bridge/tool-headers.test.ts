import type { IncomingHttpHeaders } from 'node:http'
import { setImmediate as turn } from 'node:timers/promises'
import t from 'tap'
import { ToolHeaders } from '../../src/bridge/tool-headers.ts'
import { ToolList } from '../../src/bridge/tool-list.ts'
import { envelopeFaults } from '../../src/core/envelope.ts'
import { SidecarError } from '../../src/core/errors.ts'
import { Exchange } from '../../src/core/exchange.ts'
import { localNotification, localRequest, localResult, messageOf } from '../../src/core/local.ts'
import {
  type Admitted,
  anonymous,
  type Clock,
  type Logger,
  type ModernCall,
  type StatelessServer,
} from '../../src/core/types.ts'

/** A POST whose client may go. */
class Post extends Exchange {
  attached = true
  readonly streaming = false
  readonly outlet = undefined
  queuedBytes = 0
  readonly pulse = 0
  destroy(): void {}
  onceDrained(): void {}
  onGone(): void {}
  begin(): void {}
  send(): void {}
  setHeader(): void {}
  protected writeAnswer(): void {}
  protected writeError(): void {}
  protected writeNothing(): void {}
}

const region = { type: 'string', 'x-mcp-header': 'Region' }
/** A tool whose argument `region` is annotated. */
const deploy = { name: 'deploy', inputSchema: { type: 'object', properties: { region } } }
const plain = { name: 'plain', inputSchema: { type: 'object' } }
const broken = { name: 'broken', inputSchema: { properties: { region: { 'x-mcp-header': 'Region' } } } }

interface Setup {
  readonly shared?: boolean
  readonly tools?: readonly unknown[]
}

function setup({ shared = false, tools = [deploy, plain, broken] }: Setup = {}) {
  let now = 0
  const clock: Clock = {
    now: () => now,
    epoch: () => 0,
    after: () => {
      throw new Error('nothing waits')
    },
  }
  const logged: object[] = []
  const never = (): void => {
    throw new Error('only warnings are expected')
  }
  const log: Logger = { debug: never, info: never, error: never, warn: (fields) => logged.push(fields) }
  /** The lists that were asked for. */
  const asked: ModernCall[] = []
  const state = {
    result: { tools, ttlMs: 0 } as object,
    /** Answers a list; by default with the result. */
    onList: (call: ModernCall): void => call.answer(localResult('0', state.result)),
  }
  const server: StatelessServer = {
    queuedBytesOf: () => 0,
    call(call) {
      asked.push(call)
      state.onList(call)
      return { cancel: () => {}, waitForInput: () => {} }
    },
  }
  const list = new ToolList(() => server, { clock, log }, { version: '1.2.3', shared })
  const headers = new ToolHeaders(list, { clock, log })
  const passed: Admitted[] = []
  const send = (params: object, sent: IncomingHttpHeaders = {}, more: Partial<Admitted> = {}) => {
    const id = 'one'
    const admitted: Admitted = {
      requestId: 'r',
      transport: 'streamable-http',
      remoteAddress: '',
      clientAddress: '',
      query: '',
      rawHeaders: [],
      certificate: undefined,
      httpMethod: 'POST',
      path: '/mcp',
      headers: sent,
      origin: undefined,
      principal: { ...anonymous, id },
      message: localRequest('tools/call', params),
      sessionId: undefined,
      exchange: new Post(),
      era: 'modern',
      operation: { kind: 'free', action: undefined, targets: [], list: undefined },
      permit: { verdicts: [] },
      deadline: { timeoutMs: 30_000, maxMs: 60_000, inputMs: 90_000 },
      ...more,
    }
    return headers.check(admitted, (next) => {
      passed.push(next)
    })
  }
  const call = (name: string, sent?: string, principal = 'one') =>
    send({ name, arguments: { region: 'us' } }, sent === undefined ? {} : { 'mcp-param-region': sent }, {
      principal: { ...anonymous, id: principal },
    })
  return { list, state, asked, logged, passed, send, call, pass: (ms: number) => (now += ms) }
}

const mismatch = { code: 'ERR_HEADER_MISMATCH', data: { header: 'mcp-param-region' } }

t.test('the first call asks for the tools, the next ones know them', async (t) => {
  const { call, asked, passed } = setup()
  await call('deploy', 'us')
  t.equal(passed.length, 1)
  t.equal(asked.length, 1)
  t.equal(call('deploy', 'us'), undefined, 'without a promise')
  t.equal(call('plain'), undefined)
  t.equal(call('broken'), undefined, 'clients do not know what it asks for')
  t.equal(passed.length, 4)
  t.throws(() => call('deploy', 'eu'), mismatch)
  t.throws(() => call('deploy'), mismatch)
  t.equal(passed.length, 4)
  t.equal(asked.length, 1)
})

t.test('the first call is checked, too', async (t) => {
  const { call, passed } = setup()
  await t.rejects(call('deploy', 'eu') as Promise<void>, mismatch)
  t.equal(passed.length, 0)
})

t.test('the list is asked for as a client would', async (t) => {
  const { call, asked } = setup()
  await call('plain')
  const { message, principal, deadline, logLevel, reachable } = asked[0] as ModernCall
  t.equal(message.method, 'tools/list')
  t.same(envelopeFaults(message), [])
  t.match(message.parsed(), {
    params: { _meta: { 'io.modelcontextprotocol/clientInfo': { name: 'mcp-sidecar', version: '1.2.3' } } },
  })
  t.match(
    { principal, logLevel, reachable },
    { principal: { id: 'one' }, logLevel: undefined, reachable: false },
  )
  t.equal(deadline.timeoutMs, 10_000, 'less than the call itself has')
  t.doesNotThrow(() => {
    asked[0]?.progress(localNotification('notifications/progress'))
    asked[0]?.notify(localNotification('notifications/message'))
  })
})

t.test('nothing else is checked', async (t) => {
  const { send, asked, passed } = setup()
  const params = { name: 'deploy', arguments: { region: 'us' } }
  const others: [object, Partial<Admitted>][] = [
    [params, { era: 'legacy' }],
    [params, { transport: 'websocket' }],
    [params, { message: localRequest('prompts/get', params) }],
    [params, { message: localNotification('tools/call', params) }],
    [{ name: 1 }, {}],
    [{}, {}],
  ]
  for (const [each, more] of others) t.equal(send(each, {}, more), undefined)
  t.equal(passed.length, 6)
  t.equal(asked.length, 0)
})

t.test('calls that arrive together share one list, and keep their order', async (t) => {
  const { call, asked, passed, state } = setup()
  state.onList = () => {}
  const calls = [call('deploy', 'us'), call('plain'), call('unknown'), call('deploy', 'eu')]
  const settled = Promise.allSettled(calls)
  await turn()
  t.equal(asked.length, 1)
  t.equal(passed.length, 0)
  asked[0]?.answer(localResult('0', state.result))
  t.same(
    (await settled).map(({ status }) => status),
    ['fulfilled', 'fulfilled', 'fulfilled', 'rejected'],
  )
  t.same(
    passed.map(({ message }) => message.paramString('name')),
    ['deploy', 'plain', 'unknown'],
  )
  t.equal(asked.length, 1)
})

t.test('each principal has tools of its own', async (t) => {
  const { call, asked, list } = setup()
  await call('plain', undefined, 'one')
  await call('plain', undefined, 'two')
  t.same(
    asked.map(({ principal }) => principal.id),
    ['one', 'two'],
  )
  t.equal(call('plain', undefined, 'one'), undefined)
  list.invalidate('one')
  t.equal(call('plain', undefined, 'two'), undefined)
  await call('plain', undefined, 'one')
  t.equal(asked.length, 3)
  list.invalidate()
  await call('plain', undefined, 'two')
  await call('plain', undefined, 'one')
  t.equal(asked.length, 5)
})

t.test('unless they are the same for all', async (t) => {
  const { call, asked, list } = setup({ shared: true })
  await call('plain', undefined, 'one')
  t.equal(call('plain', undefined, 'two'), undefined)
  t.equal(asked.length, 1)
  list.invalidate('two')
  await call('plain', undefined, 'one')
  t.equal(asked.length, 2)
})

t.test('the least recent principal is forgotten', async (t) => {
  const { call, asked } = setup()
  for (let i = 0; i < 1000; i++) await call('plain', undefined, `p${i}`)
  t.equal(call('plain', undefined, 'p0'), undefined)
  await call('plain', undefined, 'p1000')
  t.equal(asked.length, 1001)
  t.equal(call('plain', undefined, 'p0'), undefined, 'the one that came back is still known')
  await call('plain', undefined, 'p1')
  t.equal(asked.length, 1002)
})

t.test('a list is asked for again after as long as it said, or after five minutes', async (t) => {
  const ages: [unknown, number][] = [
    [0, 300_000],
    [undefined, 300_000],
    ['60000', 300_000],
    [-1, 300_000],
    [60_000, 60_000],
    [3_600_000, 3_600_000],
    // More often than that no list is asked for.
    [1, 1000],
  ]
  for (const [ttlMs, age] of ages) {
    const { call, asked, pass, state } = setup()
    state.result = { ...state.result, ttlMs }
    await call('deploy', 'us')
    pass(age - 1)
    t.equal(call('deploy', 'us'), undefined)
    t.equal(asked.length, 1)
    pass(1)
    await call('deploy', 'us')
    t.equal(asked.length, 2, String(ttlMs))
  }
})

t.test('a tool that is not in the list is looked for once, and no rule applies to it', async (t) => {
  const { call, asked, pass, passed, state } = setup({ tools: [plain] })
  await call('plain')
  t.equal(call('deploy', 'eu'), undefined, 'the list is young')
  pass(10_000)
  await call('deploy', 'eu')
  t.equal(asked.length, 2)
  t.equal(call('deploy', 'eu'), undefined)
  t.equal(passed.length, 4)
  state.result = { tools: [plain, deploy] }
  pass(10_000)
  await t.rejects(call('deploy', 'eu') as Promise<void>, mismatch)
  t.equal(asked.length, 3)
})

t.test('a client that knows a newer list is not refused by an older one', async (t) => {
  const { call, asked, pass, passed, state } = setup()
  await call('deploy', 'us')
  state.result = { tools: [{ ...plain, name: 'deploy' }] }
  t.throws(() => call('deploy'), mismatch, 'the list is young')
  pass(10_000)
  await call('deploy')
  t.equal(asked.length, 2)
  t.equal(passed.length, 2)
  state.result = { tools: [deploy] }
  pass(10_000)
  t.equal(call('deploy'), undefined)
  pass(300_000)
  await t.rejects(call('deploy') as Promise<void>, mismatch)
})

t.test('all pages are read', async (t) => {
  const { call, asked, state } = setup()
  state.onList = (each) => {
    const cursor = (each.message.parsed() as { params: { cursor?: string } }).params.cursor
    const page = cursor === undefined ? 1 : Number(cursor)
    const tools = page === 3 ? [deploy] : [{ ...plain, name: `plain-${page}` }]
    each.answer(
      localResult('0', { tools, ttlMs: page * 2000, ...(page < 3 ? { nextCursor: String(page + 1) } : {}) }),
    )
  }
  await t.rejects(call('deploy') as Promise<void>, mismatch)
  t.equal(asked.length, 3)
  t.equal(call('plain-1'), undefined)
  t.equal(call('plain-2'), undefined)
  t.equal(asked.length, 3)
})

t.test('a list without an end is given up', async (t) => {
  const { call, asked, passed, state, logged } = setup()
  state.onList = (each) => each.answer(localResult('0', { tools: [deploy], nextCursor: 'again' }))
  await t.rejects(call('deploy') as Promise<void>, mismatch)
  t.equal(asked.length, 50)
  t.same(logged, [{ tools: 1 }])
  t.equal(call('plain'), undefined)
  t.equal(passed.length, 1)
})

t.test('so is one with too many tools', async (t) => {
  const { call, asked, state, logged } = setup()
  const tools = Array.from({ length: 6000 }, (_, i) => ({ ...plain, name: `plain-${i}` }))
  let page = 0
  state.onList = (each) => {
    page++
    const named = tools.map(({ name, ...rest }) => ({ ...rest, name: `${page}-${name}` }))
    each.answer(localResult('0', { tools: named, nextCursor: 'more' }))
  }
  await call('plain')
  t.equal(asked.length, 2)
  t.same(logged, [{ tools: 10_000 }])
})

t.test('and one that takes too long', async (t) => {
  const { call, asked, passed, pass, state, logged } = setup()
  state.onList = (each) => {
    pass(4000)
    each.answer(localResult('0', { tools: [deploy], nextCursor: 'slow' }))
  }
  await call('deploy')
  t.same(
    asked.map(({ deadline }) => deadline.timeoutMs),
    [10_000, 6000, 2000],
  )
  t.match(logged, [{ code: 'ERR_TIMEOUT' }])
  t.equal(passed.length, 1)
})

const failures: Record<string, (call: ModernCall) => void> = {
  'the server refuses': (call) =>
    call.answer(messageOf('{"jsonrpc":"2.0","id":0,"error":{"code":-32601,"message":"no tools"}}')),
  'it cannot be asked': () => {
    throw new SidecarError('ERR_OVERLOADED')
  },
  'something breaks': () => {
    throw new TypeError('broken')
  },
  'it ends': (call) => call.fail(new SidecarError('ERR_UPSTREAM_EXIT')),
  'it fails later': (call) => void turn().then(() => call.fail(new SidecarError('ERR_TIMEOUT'))),
  'its answer is no list': (call) => call.answer(localResult('0', { resultType: 'input_required' })),
  'its answer is no object': (call) => call.answer(messageOf('{"jsonrpc":"2.0","id":0,"result":null}')),
}

for (const [name, fail] of Object.entries(failures)) {
  t.test(`no rules apply when there is no list: ${name}`, async (t) => {
    const { call, asked, passed, pass, state, logged } = setup()
    const { onList } = state
    state.onList = fail
    await call('deploy', 'eu')
    t.equal(passed.length, 1)
    t.equal(logged.length, 1)
    t.match(logged[0], { code: /^ERR_/ })
    t.equal(call('deploy', 'eu'), undefined, 'nobody else waits for it')
    t.equal(asked.length, 1)
    pass(10_000)
    state.onList = onList
    t.equal(call('deploy', 'eu'), undefined)
    t.equal(asked.length, 2, 'it is asked for again, beside the call')
    await turn()
    t.throws(() => call('deploy', 'eu'), mismatch)
    t.equal(passed.length, 3)
    t.equal(logged.length, 1)
  })
}

t.test('what was known goes on to apply while a newer list cannot be had', async (t) => {
  const { call, asked, pass, state } = setup()
  await call('deploy', 'us')
  state.onList = (each) => each.fail(new SidecarError('ERR_TIMEOUT'))
  pass(300_000)
  await call('deploy', 'us')
  t.equal(asked.length, 2)
  t.throws(() => call('deploy', 'eu'), mismatch)
  pass(10_000)
  t.throws(() => call('deploy', 'eu'), mismatch)
  t.equal(asked.length, 3)
})

t.test('failures do not flood the log', async (t) => {
  const { call, logged, pass, state } = setup()
  state.onList = (each) => each.fail(new SidecarError('ERR_TIMEOUT'))
  for (let i = 0; i < 50; i++) await call('deploy', 'eu', `p${i}`)
  t.equal(logged.length, 1)
  pass(1000)
  await call('deploy', 'eu', 'other')
  t.match(logged[1], { suppressed: 49 })
})

t.test('a client that has gone meanwhile gets no further', async (t) => {
  const { send, asked, passed, state } = setup()
  state.onList = () => {}
  const [gone, settled, there] = [new Post(), new Post(), new Post()]
  const outcomes: string[] = []
  for (const each of [gone, settled]) each.onSettled((outcome) => outcomes.push(outcome))
  const calls = [gone, settled, there].map((exchange) => send({ name: 'plain' }, {}, { exchange }))
  gone.attached = false
  settled.fail(new SidecarError('ERR_DRAINING'))
  asked[0]?.answer(localResult('0', state.result))
  await Promise.all(calls)
  t.same(
    passed.map(({ exchange }) => exchange === there),
    [true],
  )
  t.same(outcomes, ['ERR_DRAINING', 'cancelled'], 'each has ended, so that nobody counts it as in flight')
})

t.test('a list that was on its way when it changed is not kept', async (t) => {
  const { list, call, asked, state } = setup()
  const { onList } = state
  state.onList = () => {}
  const first = call('plain')
  list.invalidate()
  state.onList = onList
  await call('plain')
  t.equal(asked.length, 2)
  asked[0]?.answer(localResult('0', { tools: [] }))
  await first
  t.throws(() => call('deploy', 'eu'), mismatch)
  t.equal(asked.length, 2)
})
