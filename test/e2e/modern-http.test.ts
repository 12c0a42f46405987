import t, { type Test } from 'tap'
import {
  ask,
  askText,
  begin,
  envelope,
  everything,
  type Headers,
  type Id,
  type Json,
  key,
  listenTo,
  modern,
  type Request,
  refusedWith,
  retry,
  revision,
  said,
  sentinel,
  serverCommand,
  streamed,
  tool,
  toolSays,
} from '../support/modern.ts'
import { pidFile } from '../support/processes.ts'
import { startTestSidecar, type TestSidecar, until } from '../support/sidecar.ts'
import { openSocket, openSse } from '../support/streams.ts'
import { bearerTokens } from '../support/tokens.ts'
import { accept, call, type Following, follow, open, openSession, post, send } from '../support/wire.ts'

const config = { listen: { webSocket: true }, limits: { sessionQueueBytes: 64 * 1024 } }
const start = (t: Test, command: readonly string[], more: object = {}): Promise<TestSidecar> =>
  startTestSidecar(t, { command, config: { ...config, ...more } })

const [ours, scripted, newer, older, interviews] = await Promise.all([
  start(t, serverCommand('modern-server.mjs')),
  start(t, serverCommand('scripted-server.mjs')),
  start(t, serverCommand('conformance-server.mjs', 'modern')),
  start(t, serverCommand('conformance-server.mjs', 'legacy')),
  start(t, serverCommand('../support/interview-server.mjs')),
])
const { url } = ours

/** One server of each kind behind a sidecar, with a tool that answers at once. */
const servers = {
  'a modern server': { ...ours, plain: ['pid', {}] },
  'a modern SDK server': { ...newer, plain: ['test_simple_text', {}] },
  'a legacy server': { ...scripted, plain: ['pid', {}] },
  'a legacy SDK server': { ...older, plain: ['test_simple_text', {}] },
} as const

const ofEach = (name: string, check: (t: Test, url: string, plain: Request) => Promise<void>): void => {
  for (const [kind, { url, plain }] of Object.entries(servers)) {
    void t.test(`${name}, ${kind}`, (t) => check(t, url, tool('plain', plain[0], plain[1])))
  }
}

const params = (meta: unknown, more: object = {}): object => ({ ...more, _meta: meta })
const raw = (id: Id, method: string, params: object): string =>
  JSON.stringify({ jsonrpc: '2.0', id, method, params })
const modernHeaders = (method: string, name?: string): Headers => ({
  'MCP-Protocol-Version': revision,
  'Mcp-Method': method,
  ...(name === undefined ? {} : { 'Mcp-Name': name }),
})
const ids = ({ messages }: Pick<Following, 'messages'>): Json[] =>
  messages.filter(({ id }) => id !== undefined)
const notes = ({ messages }: Pick<Following, 'messages'>, method: string): Json[] =>
  messages.filter((each) => each.method === method)
const acknowledged = 'notifications/subscriptions/acknowledged'
const subscriptionOf = (message: Json): Json =>
  (message.params ?? message.result)?._meta?.[key('subscriptionId')]
const ended = (stream: Following): Promise<void> => until(stream.isClosed, 'the stream has ended')
const listening = async (url: string, id: Id, filter: object, headers: Headers = {}): Promise<Following> => {
  const stream = await streamed(url, listenTo(id, filter), headers)
  await until(() => stream.messages.length > 0, 'the acknowledgement')
  return stream
}

t.test(
  'each check comes in its turn: with everything wrong, one repair leads to the next refusal',
  async (t) => {
    const tokens = bearerTokens(t, 'alice', 'bob')
    const { url } = await startTestSidecar(t, {
      command: serverCommand('modern-server.mjs'),
      flags: tokens.flags,
      config: { limits: { requestBodyBytes: 4096 } },
    })
    const headers: Record<string, string> = {
      Origin: 'https://evil.example',
      'Content-Type': 'text/plain',
      Accept: 'text/html',
      'MCP-Protocol-Version': '2025-11-25',
    }
    let body = `{${' '.repeat(5000)}`
    const meta: Record<string, unknown> = { [key('protocolVersion')]: '1999-01-01' }
    const write = (method: string, more: object = {}, members: object = { jsonrpc: '2.0' }): void => {
      body = JSON.stringify({ ...members, id: 'mine', method, params: { ...more, _meta: meta } })
    }
    type Step = readonly [status: number, rpc: number, reason: string, repair: () => void, known?: true]
    const steps: readonly Step[] = [
      [403, 403, 'ERR_ORIGIN', () => delete headers['Origin']],
      [401, 401, 'ERR_AUTH', () => Object.assign(headers, tokens.of('alice'))],
      [415, -32600, 'ERR_CONTENT_TYPE', () => Object.assign(headers, { 'Content-Type': 'application/json' })],
      [406, -32600, 'ERR_ACCEPT', () => Object.assign(headers, { Accept: accept })],
      [413, -32600, 'ERR_TOO_LARGE', () => (body = '{"jsonrpc":"2.0",')],
      [400, -32700, 'ERR_PARSE', () => write('initialize', {}, {})],
      [400, -32600, 'ERR_INVALID_REQUEST', () => write('initialize')],
      [400, -32020, 'ERR_HEADER_MISMATCH', () => (headers['MCP-Protocol-Version'] = '1999-01-01'), true],
      [
        ...([400, -32602, 'ERR_ENVELOPE'] as const),
        () => {
          meta[key('clientCapabilities')] = {}
          write('initialize')
        },
        true,
      ],
      [
        ...([400, -32022, 'ERR_PROTOCOL_VERSION'] as const),
        () => {
          meta[key('protocolVersion')] = revision
          headers['MCP-Protocol-Version'] = revision
          write('initialize')
        },
        true,
      ],
      [400, -32020, 'ERR_HEADER_MISMATCH', () => (headers['Mcp-Method'] = 'initialize'), true],
      [
        ...([404, -32601, 'ERR_METHOD_UNKNOWN'] as const),
        () => {
          write('tools/call', { name: 'headers', arguments: { region: 'eu' } })
          Object.assign(headers, { 'Mcp-Method': 'tools/call', 'Mcp-Name': 'headers' })
        },
        true,
      ],
      [400, -32020, 'ERR_HEADER_MISMATCH', () => (headers['Mcp-Param-Region'] = 'eu'), true],
    ]
    for (const [status, rpc, reason, repair, known] of steps) {
      const answer = await send(url, 'POST', headers, body)
      refusedWith(t, answer, [status, rpc, reason], known ? 'mine' : undefined)
      if (status === 401) t.match(answer.headers['www-authenticate'], /^Bearer/)
      repair()
    }
    const answer = await send(url, 'POST', headers, body)
    t.equal(answer.status, 200)
    t.same(said(answer.json), { region: 'eu' })
  },
)

ofEach('what is no JSON, or no message, gets its code and no id', async (t, url) => {
  const headers = modernHeaders('tools/list')
  for (const body of ['', '{', 'nonsense', '{"jsonrpc":"2.0","id":1,}', '\ufeff{}']) {
    refusedWith(t, await post(url, body, headers), [400, -32700, 'ERR_PARSE'])
  }
  const _meta = JSON.stringify(envelope())
  for (const body of [
    '1',
    '{}',
    `{"id":1,"method":"tools/list","params":{"_meta":${_meta}}}`,
    `{"jsonrpc":"1.0","id":1,"method":"tools/list","params":{"_meta":${_meta}}}`,
    `{"jsonrpc":"2.0","id":null,"method":"tools/list","params":{"_meta":${_meta}}}`,
    `{"jsonrpc":"2.0","id":[1],"method":"tools/list","params":{"_meta":${_meta}}}`,
    `{"jsonrpc":"2.0","id":1,"method":5,"params":{"_meta":${_meta}}}`,
    `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":[]}`,
    `{"jsonrpc":"2.0","id":1,"method":"tools/list","method":"ping","params":{"_meta":${_meta}}}`,
    `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":${_meta},"_meta":{}}}`,
  ]) {
    refusedWith(t, await post(url, body, headers), [400, -32600, 'ERR_INVALID_REQUEST'])
  }
})

ofEach('an incomplete envelope is refused by the names of what is missing or malformed', async (t, url) => {
  const version = { [key('protocolVersion')]: revision }
  const capabilities = { [key('clientCapabilities')]: {} }
  const both = { ...version, ...capabilities }
  const cases: readonly (readonly [meta: unknown, missing: readonly string[]])[] = [
    [undefined, ['protocolVersion', 'clientCapabilities']],
    ['text', ['protocolVersion', 'clientCapabilities']],
    [{}, ['protocolVersion', 'clientCapabilities']],
    [capabilities, ['protocolVersion']],
    [{ ...capabilities, [key('protocolVersion')]: 20260728 }, ['protocolVersion']],
    [{ ...capabilities, [key('protocolVersion')]: null }, ['protocolVersion']],
    [version, ['clientCapabilities']],
    [{ ...version, [key('clientCapabilities')]: [] }, ['clientCapabilities']],
    [{ ...version, [key('clientCapabilities')]: null }, ['clientCapabilities']],
    [{ ...both, [key('clientInfo')]: 'me' }, ['clientInfo']],
    [{ ...both, [key('logLevel')]: 3 }, ['logLevel']],
  ]
  for (const [meta, missing] of cases) {
    const answer = await post(url, raw(1, 'tools/list', params(meta)), modernHeaders('tools/list'))
    const data = refusedWith(t, answer, [400, -32602, 'ERR_ENVELOPE'], 1)
    t.same(data.missing, missing.map(key), JSON.stringify(meta))
  }
  t.equal((await post(url, raw(1, 'tools/list', params(both)), modernHeaders('tools/list'))).status, 200)
  const level = await ask(url, modern(2, 'tools/list', {}, { level: 'loud' }))
  t.match(level.json, { id: 2, error: { code: -32602 } }, 'a level that does not exist')
})

ofEach(
  'a version that is not served is refused with those that are, as discover lists them',
  async (t, url) => {
    const discover = await ask(url, modern('d', 'server/discover'))
    t.equal(discover.status, 200)
    for (const version of ['2025-11-25', '2024-11-05', '2027-01-01', '2026-07-29', 'x', '']) {
      const _meta = { ...envelope(), [key('protocolVersion')]: version }
      const headers = { ...modernHeaders('tools/list'), 'MCP-Protocol-Version': version }
      const answer = await post(url, raw('v', 'tools/list', params(_meta)), headers)
      const data = refusedWith(t, answer, [400, -32022, 'ERR_PROTOCOL_VERSION'], 'v')
      t.same(data.requested, version)
      t.same(data.supported, discover.json.result.supportedVersions)
    }
  },
)

ofEach('the version header must be there, once, and say what the body says', async (t, url) => {
  const body = raw(1, 'tools/list', params(envelope()))
  for (const version of [undefined, '2025-11-25', '2026-7-28', `${revision}x`, [revision, revision]]) {
    const { 'MCP-Protocol-Version': _, ...rest } = modernHeaders('tools/list')
    const headers: Headers = {
      ...rest,
      ...(version === undefined ? {} : { 'MCP-Protocol-Version': version }),
    }
    const data = refusedWith(t, await post(url, body, headers), [400, -32020, 'ERR_HEADER_MISMATCH'], 1)
    t.equal(data.header, 'MCP-Protocol-Version')
  }
  const odd = { 'mcp-protocol-version': `  ${revision}\t`, 'MCP-METHOD': ' tools/list ' }
  t.equal((await post(url, body, odd)).status, 200, 'names in any case, blanks around values')
})

ofEach('Mcp-Method must be there, once, as the body has it', async (t, url) => {
  const body = raw(1, 'tools/list', params(envelope()))
  for (const method of [
    undefined,
    'tools/call',
    'Tools/List',
    'TOOLS/LIST',
    'tools/list ,',
    ['tools/list', 'tools/list'],
    sentinel('tools/list'),
  ]) {
    const headers: Headers = {
      'MCP-Protocol-Version': revision,
      ...(method === undefined ? {} : { 'Mcp-Method': method }),
    }
    const data = refusedWith(t, await post(url, body, headers), [400, -32020, 'ERR_HEADER_MISMATCH'], 1)
    t.equal(data.header, 'Mcp-Method')
  }
})

ofEach('Mcp-Name must be there, once, and decode to what the body has', async (t, url, plain) => {
  const name = plain.params.name as string
  const wrong: readonly (string | string[])[] = [
    '',
    `${name}x`,
    name.toUpperCase(),
    [name, name],
    `"${name}"`,
    sentinel(`${name}x`),
    sentinel(name).replace('base64', 'BASE64'),
    sentinel(name).slice(0, -2),
    sentinel(name).slice(2),
    `=?base64?${Buffer.from(name).toString('base64')}=?=`,
    `=?base64?!${Buffer.from(name).toString('base64')}?=`,
    '=?base64?/w==?=',
    '=?base64??=',
    'caf\u00e9',
  ]
  for (const value of wrong) {
    const data = refusedWith(
      t,
      await ask(url, plain, { 'Mcp-Name': value }),
      [400, -32020, 'ERR_HEADER_MISMATCH'],
      'plain',
    )
    t.equal(data.header, 'Mcp-Name', String(value))
  }
  for (const value of [name, ` ${name}\t`, sentinel(name), ` ${sentinel(name)} `]) {
    t.equal((await ask(url, plain, { 'Mcp-Name': value })).status, 200, value)
  }
  // Names that only a sentinel can carry reach the server, which does not know them.
  for (const odd of ['tür 🚪', ' padded ', 'a\nb', '=?base64?eA==?=', '=?base64?', '']) {
    const answer = await ask(url, tool('odd', odd), odd === '' ? { 'Mcp-Name': sentinel('') } : {})
    t.match(answer.json, { id: 'odd' }, JSON.stringify(odd))
    t.equal(answer.status, 200)
    t.notSame(answer.json.error?.code, -32020)
  }
  for (const [method, member] of [
    ['prompts/get', { name: 'p' }],
    ['resources/read', { uri: 'test://text' }],
  ] as const) {
    const request = modern(3, method, member)
    const value = Object.values(member)[0] as string
    refusedWith(t, await ask(url, request, { 'Mcp-Name': '' }), [400, -32020, 'ERR_HEADER_MISMATCH'], 3)
    refusedWith(t, await ask(url, request, { 'Mcp-Name': 'other' }), [400, -32020, 'ERR_HEADER_MISMATCH'], 3)
    const { status } = await ask(url, request, { 'Mcp-Name': sentinel(value) })
    t.ok(status === 200 || status === 404, `${method}: ${status}`)
  }
  // A name that no reader of headers can see must not hide behind one that it can.
  const hidden = modern(4, 'tools/call', { name: 5 })
  refusedWith(t, await ask(url, hidden, { 'Mcp-Name': '5' }), [400, -32020, 'ERR_HEADER_MISMATCH'], 4)
  const extra = await ask(url, modern(5, 'tools/list'), { 'Mcp-Name': 'whatever' })
  t.equal(extra.status, 200, 'a name that the method has no use for')
})

ofEach(
  'removed and unknown methods are 404 -32601, with an envelope even initialize and ping',
  async (t, url) => {
    const removed = [
      ...['initialize', 'ping', 'logging/setLevel', 'resources/subscribe', 'resources/unsubscribe'],
      ...['roots/list', 'sampling/createMessage', 'elicitation/create', 'tasks/list', 'tasks/result'],
    ]
    for (const method of removed) {
      refusedWith(t, await ask(url, modern('r', method)), [404, -32601, 'ERR_METHOD_UNKNOWN'], 'r')
    }
    for (const method of ['x/unknown', 'Tools/List', 'tools/list2', 'constructor', '__proto__', 'tür']) {
      if (/[^ -~]/.test(method)) continue
      const answer = await ask(url, modern(0, method))
      t.same([answer.status, answer.json.error?.code, answer.json.id], [404, -32601, 0], method)
    }
  },
)

t.test('arguments that a tool has repeated in headers are compared', async (t) => {
  const full = { region: 'eu', count: 42, dry: true, options: { tier: 'gold', note: 'n' }, plain: 'p' }
  const fitting = {
    'Mcp-Param-Region': 'eu',
    'Mcp-Param-Count': '42',
    'Mcp-Param-Dry-Run': 'true',
    'Mcp-Param-Tier': 'gold',
  }
  const good = async (args: object, headers: Headers, text?: string): Promise<void> => {
    const answer = await ask(url, tool('g', 'headers', args), headers)
    t.equal(answer.status, 200, `${text} ${answer.body}`)
    t.same(said(answer.json), args)
  }
  const bad = async (args: object, headers: Headers, header: string): Promise<void> => {
    const answer = await ask(url, tool('b', 'headers', args), headers)
    const data = refusedWith(t, answer, [400, -32020, 'ERR_HEADER_MISMATCH'], 'b')
    t.equal(data?.header, header.toLowerCase(), JSON.stringify([args, headers]))
    t.notMatch(answer.body, /gold|secret/, 'no argument is repeated')
  }
  await good(full, fitting)
  await good(full, { ...fitting, 'mcp-param-region': 'eu', 'Mcp-Param-Region': '' }, 'a name in another case')
  await good({}, {}, 'nothing to repeat')
  await good({ region: null, count: null, options: null }, {}, 'null')
  await good({ options: { tier: null } }, {}, 'null within')
  await good(
    { plain: 'p' },
    { 'Mcp-Param-Plain': 'q', 'Mcp-Param-Other': 'z' },
    'headers nobody has declared',
  )
  for (const header of Object.keys(fitting)) await bad(full, { ...fitting, [header]: '' }, header)
  for (const [header, value] of [
    ['Mcp-Param-Region', 'us'],
    ['Mcp-Param-Region', 'EU'],
    ['Mcp-Param-Region', ['eu', 'eu']],
    ['Mcp-Param-Region', '=?base64?ZXU?='],
    ['Mcp-Param-Region', '=?base64?ZX*=?='],
    ['Mcp-Param-Region', '=?BASE64?ZXU=?='],
    ['Mcp-Param-Count', '43'],
    ['Mcp-Param-Count', '042'],
    ['Mcp-Param-Count', '42.5'],
    ['Mcp-Param-Count', '0x2a'],
    ['Mcp-Param-Count', ['42', '42']],
    ['Mcp-Param-Dry-Run', 'TRUE'],
    ['Mcp-Param-Dry-Run', '1'],
    ['Mcp-Param-Tier', 'silver'],
  ] as const) {
    await bad(full, { ...fitting, [header]: value as string }, header)
  }
  await bad({}, { 'Mcp-Param-Region': 'eu' }, 'Mcp-Param-Region')
  await good(full, { ...fitting, 'Mcp-Param-Count': '42.0' }, '42.0 for 42')
  await good(full, { ...fitting, 'Mcp-Param-Region': sentinel('eu') }, 'encoded without need')
  for (const region of ['Zürich 🏔', ' padded ', '=?base64?ZXU=?=', 'two\nlines', '']) {
    await good({ region }, { 'Mcp-Param-Region': region === '' ? sentinel('') : sentinel(region) }, region)
    await bad({ region }, { 'Mcp-Param-Region': sentinel(`${region}x`) }, 'Mcp-Param-Region')
  }
  const spelled = raw('s', 'tools/call', params(envelope(), { name: 'headers', arguments: { count: 42 } }))
  for (const [number, header, fits] of [
    ['42.0', '42', true],
    ['4.2e1', '42', true],
    ['42', '42.00', true],
    ['-0', '0', true],
    ['9007199254740993', '9007199254740993', false],
    ['9007199254740991', '9007199254740991', true],
    ['1e400', '1e400', false],
  ] as const) {
    const answer = await askText(url, spelled.replace('"count":42', `"count":${number}`), {
      'Mcp-Param-Count': header,
    })
    t.equal(answer.status, fits ? 200 : 400, `${number} and ${header}`)
  }
  const twice = spelled.replace('"count":42', '"count":42,"count":43')
  t.equal(
    (await askText(url, twice, { 'Mcp-Param-Count': '42' })).status,
    400,
    'an argument that stands twice',
  )
})

t.test('SDK servers of both eras have their annotations checked, too', async (t) => {
  for (const { url } of [newer, older]) {
    const request = tool(1, 'test_x_mcp_header', { region: 'eu', level: 3 })
    refusedWith(t, await ask(url, request), [400, -32020, 'ERR_HEADER_MISMATCH'], 1)
    refusedWith(
      t,
      await ask(url, request, { 'Mcp-Param-Region': 'us' }),
      [400, -32020, 'ERR_HEADER_MISMATCH'],
      1,
    )
    const answer = await ask(url, request, { 'Mcp-Param-Region': sentinel('eu') })
    t.equal(said(answer.json), 'region=eu, level=3')
  }
})

t.test('a changed list of tools counts from the announcement on', async (t) => {
  const lists = async (): Promise<number> => (await toolSays(url, 'counts'))['tools/list']
  await toolSays(url, 'headers')
  const before = await lists()
  await toolSays(url, 'headers')
  t.equal(await lists(), before, 'the list is not fetched for each call')
  await toolSays(url, 'change', { list: 'tools' })
  await until(async () => (await lists()) > before, 'it is fetched again')

  const mirror = (header?: string) =>
    ask(interviews.url, tool('m', 'mirror', { value: 'v' }), header === undefined ? {} : { [header]: 'v' })
  t.equal((await mirror()).status, 200, 'no annotation yet')
  await toolSays(interviews.url, 'annotate', { header: 'One' })
  refusedWith(t, await mirror(), [400, -32020, 'ERR_HEADER_MISMATCH'], 'm')
  t.equal((await mirror('Mcp-Param-One')).status, 200)
  await toolSays(interviews.url, 'annotate', { header: 'Two' })
  refusedWith(t, await mirror('Mcp-Param-One'), [400, -32020, 'ERR_HEADER_MISMATCH'], 'm')
  t.equal((await mirror('Mcp-Param-Two')).status, 200)
})

t.test('tools with invalid annotations are hidden from modern clients over HTTP alone', async (t) => {
  const { url, base, logs } = await start(
    t,
    serverCommand('modern-server.mjs', '--bad-header-tool', '--page=7'),
  )
  const names: string[] = []
  let cursor: string | undefined
  do {
    const { json } = await ask(url, modern('l', 'tools/list', cursor === undefined ? {} : { cursor }))
    names.push(...json.result.tools.map(({ name }: { name: string }) => name))
    cursor = json.result.nextCursor
  } while (cursor !== undefined)
  t.ok(names.includes('headers'))
  t.same(
    names.filter((name) => name.startsWith('bad-header')),
    [],
  )
  t.ok(logs.some(({ level, text }) => level === 'warn' && text.includes('x-mcp-header')))
  const socket = await openSocket(base)
  const all: string[] = []
  for (let next: string | undefined = 'at-0'; next !== undefined; ) {
    const { result } = await socket.request(modern(all.length, 'tools/list', { cursor: next }))
    all.push(...result.tools.map(({ name }: { name: string }) => name))
    next = result.nextCursor
  }
  t.equal(all.filter((name) => name.startsWith('bad-header')).length, 6)
  socket.close()
  const called = await ask(url, tool('c', 'bad-header-number', { a: 1.5 }))
  t.equal(called.status, 200, 'who calls one all the same has no header to send')
})

ofEach('notifications get 202 without a body, whatever their headers say', async (t, url) => {
  const cancelled = { jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 1 } }
  const enveloped = { jsonrpc: '2.0', method: 'x/said', params: { _meta: envelope() } }
  for (const [message, headers] of [
    [cancelled, modernHeaders('notifications/cancelled')],
    [cancelled, { 'MCP-Protocol-Version': revision }],
    [cancelled, { 'MCP-Protocol-Version': '2031-01-01', 'Mcp-Method': 'nonsense' }],
    [enveloped, {}],
    [enveloped, { 'MCP-Protocol-Version': '2025-11-25' }],
  ] as const) {
    const answer = await post(url, message, headers)
    t.same([answer.status, answer.body, answer.headers['content-type']], [202, '', undefined])
  }
})

ofEach('responses are refused, and batches with an enveloped element', async (t, url) => {
  for (const body of [
    { jsonrpc: '2.0', id: 1, result: {} },
    { jsonrpc: '2.0', id: 1, error: { code: 1, message: 'no' } },
  ]) {
    const answer = await post(url, body, { 'MCP-Protocol-Version': revision })
    refusedWith(t, answer, [400, -32600, 'ERR_INVALID_REQUEST'])
  }
  const element = modern(1, 'tools/list')
  const old = { jsonrpc: '2.0', id: 2, method: 'ping' }
  for (const batch of [[element], [element, element], [old, element], []]) {
    const answer = await post(url, batch, { 'MCP-Protocol-Version': revision })
    refusedWith(t, answer, [400, -32600, 'ERR_BATCH'])
  }
  const session = await openSession(url, { version: '2025-03-26' })
  refusedWith(t, await post(url, [old, element], session), [400, -32600, 'ERR_BATCH'])
  t.equal((await post(url, [old, { ...old, id: 3 }], session)).messages.length, 2, 'legacy ones are served')
  await send(url, 'DELETE', session)
})

t.test('GET and DELETE without a session serve nobody', async (t) => {
  for (const method of ['GET', 'DELETE']) {
    const headers = { Accept: 'text/event-stream' }
    t.ok([400, 405].includes((await send(url, method, headers)).status), `${method} without a version`)
    const unknown = await send(url, method, { ...headers, 'Mcp-Session-Id': 'unknown' })
    t.equal(unknown.status, 404, `${method} of an unknown session`)
  }
})

t.test('GET and DELETE of a modern client, which has no session, are 405 (protocol 4.10)', async (t) => {
  for (const method of ['GET', 'DELETE']) {
    const answer = await send(url, method, { Accept: 'text/event-stream', 'MCP-Protocol-Version': revision })
    t.equal(answer.status, 405, method)
  }
})

ofEach('a session id on a modern request is ignored, and none is given', async (t, url, plain) => {
  const session = await openSession(url)
  for (const id of ['nonsense', session['Mcp-Session-Id'] as string]) {
    const answer = await ask(url, plain, { 'Mcp-Session-Id': id })
    t.equal(answer.status, 200)
    t.equal(answer.headers['mcp-session-id'], undefined)
  }
  t.equal((await send(url, 'DELETE', session)).status, 200)
  const answer = await ask(url, plain, { 'Mcp-Session-Id': session['Mcp-Session-Id'] as string })
  t.equal(answer.status, 200, 'that of a session that has ended, too')
})

ofEach('clients of both eras use one endpoint at the same time, with equal ids', async (t, url, plain) => {
  const session = await openSession(url)
  const legacy = (id: Id) => call(id, plain.params.name, plain.params.arguments)
  // Ids are a session's own: within one they differ.
  const answers = await Promise.all(
    Array.from({ length: 12 }, (_, i) =>
      i % 2 === 0 ? ask(url, { ...plain, id: i }) : post(url, legacy(i - 1), session),
    ),
  )
  for (const [i, { status, json }] of answers.entries()) {
    t.equal(status, 200)
    t.equal(json.id, i - (i % 2))
    t.equal(json.result.resultType, i % 2 === 0 ? 'complete' : undefined)
    t.equal(json.result._meta?.[key('serverInfo')] !== undefined, i % 2 === 0, 'the server is named')
  }
  await send(url, 'DELETE', session)
})

t.test('a modern server is one process for clients of every kind', async (t) => {
  const { base } = ours
  const own = await toolSays(url, 'pid')
  const session = await openSession(url)
  const sse = await openSse(base, { version: '2024-11-05' })
  const socket = await openSocket(base)
  const old = await openSocket(base, { version: '2025-11-25' })
  const pids = [
    said((await post(url, call(1, 'pid'), session)).json),
    said(await sse.request(call(1, 'pid'))),
    said(await socket.request(tool(1, 'pid'))),
    said(await old.request(call(1, 'pid'))),
  ]
  t.same(pids, [own, own, own, own])
  t.equal(await ours.metric('mcp_sidecar_processes'), 1)
  await send(url, 'DELETE', session)
  for (const each of [socket, old]) each.close()
  sse.cut()
})

t.test('a legacy server has a process for each session, and others for modern calls', async (t) => {
  const session = await openSession(scripted.url)
  const other = await openSession(scripted.url)
  const pids = [
    await toolSays(scripted.url, 'pid'),
    said((await post(scripted.url, call(1, 'pid'), session)).json),
    said((await post(scripted.url, call(1, 'pid'), other)).json),
  ]
  t.equal(new Set(pids).size, 3)
  t.equal(await toolSays(scripted.url, 'pid'), pids[0], 'the next modern call finds the process warm')
  for (const each of [session, other]) await send(scripted.url, 'DELETE', each)
})

t.test('an answer with nothing before it is JSON; with something, a stream without ids', async (t) => {
  for (const { url } of [ours, scripted]) {
    const plain = await ask(url, tool(1, 'progress', { count: 3 }))
    t.equal(plain.headers['content-type'], 'application/json', 'without a token there is no progress')
    t.equal(Number(plain.headers['content-length']), Buffer.byteLength(plain.body))
    const answer = await ask(url, tool(1, 'progress', { count: 100 }, { token: 'tok' }))
    t.equal(answer.status, 200)
    t.equal(answer.headers['content-type'], 'text/event-stream')
    t.equal(answer.headers['x-accel-buffering'], 'no')
    t.notMatch(answer.body, /^(id|retry):/m)
    t.equal(answer.messages.length, 101)
    t.same(
      answer.messages.slice(0, 100).map(({ params }) => [params.progressToken, params.progress]),
      Array.from({ length: 100 }, (_, i) => ['tok', i + 1]),
    )
    t.match(answer.messages[100], { id: 1, result: { resultType: 'complete' } })
  }
  for (const { url } of [newer, older]) {
    const answer = await ask(url, tool(1, 'test_tool_with_progress', {}, { token: 7 }))
    t.same(
      answer.messages.slice(0, -1).map(({ params }) => [params.progressToken, params.progress]),
      [0, 50, 100].map((progress) => [7, progress]),
    )
    t.match(answer.messages.at(-1), { id: 1, result: { resultType: 'complete' } })
  }
})

t.test('errors of the server that say what was wrong have the status to match', async (t) => {
  for (const [code, status] of [
    [-32601, 404],
    [-32020, 400],
    [-32021, 400],
    [-32022, 400],
    [-32602, 200],
    [-32603, 200],
    [-1, 200],
    [12345, 200],
  ] as const) {
    const data = {
      requiredCapabilities: { sampling: {} },
      supported: [revision],
      requested: revision,
      more: [1],
    }
    const answer = await ask(url, tool('e', 'error', { code, data }))
    t.same([answer.status, answer.json.error], [status, { code, message: 'as told', data }])
  }
  const lacking = await Promise.all(
    [newer, older].map(({ url }) => ask(url, tool('l', 'test_missing_capability'))),
  )
  for (const { status, json } of lacking) {
    t.equal(status, 400)
    t.match(json, { id: 'l', error: { code: -32021, data: { requiredCapabilities: { sampling: {} } } } })
  }
  for (const { url } of [ours, newer, older]) {
    const uri = 'test://nonexistent'
    const answer = await ask(url, modern('n', 'resources/read', { uri }))
    t.equal(answer.status, 200)
    t.match(answer.json, { id: 'n', error: { code: -32602, data: { uri } } })
  }
})

t.test('a quiet stream is kept open with comments', async (t) => {
  const keepAliveMs = 100
  // Of their own: a WebSocket would be cut off if the machine kept its pong that long.
  const quick = (file: string) =>
    startTestSidecar(t, { command: serverCommand(file), config: { listen: { keepAliveMs } } })
  const [{ url }, legacy] = await Promise.all([quick('modern-server.mjs'), quick('scripted-server.mjs')])
  for (const { url: at } of [{ url }, legacy]) {
    const stream = await listening(at, 1, { toolsListChanged: true })
    t.equal(stream.response.headers['x-accel-buffering'], 'no')
    await until(() => (stream.text().match(/^:\n\n/gm) ?? []).length >= 3, 'three comments')
    stream.cut()
  }
  const running = begin(url, tool('k', 'progress', { count: 2, ms: 12 * keepAliveMs }, { token: 'k' }))
  const answer = await running.answer
  t.match(answer?.body, /^:$/m, 'while a call is quiet between two steps')
  t.equal(answer?.messages.length, 3)
})

t.test('who leaves before anything was sent has cancelled', async (t) => {
  const running = begin(url, tool('h', 'hold', { key: 'silent' }))
  await until(async () => (await toolSays(url, 'held')).includes('silent'), 'the server has the call')
  running.leave()
  await until(async () => !(await toolSays(url, 'held')).includes('silent'), 'the server let go of it')
  const [last] = (await toolSays(url, 'cancelled')).filter(({ key }: Json) => key === 'silent')
  t.match(last, { method: 'tools/call', name: 'hold', requestId: Number })
  t.equal(await running.answer, undefined)
  t.same(await toolSays(url, 'violations'), [])
})

t.test('who leaves in the middle of a stream has cancelled, and nothing reaches anybody else', async (t) => {
  const dropped = await ours.metric('mcp_sidecar_dropped_messages_total')
  const token = 'same token'
  const watcher = begin(url, tool('h', 'hold', { key: 'watcher' }, { token, level: 'debug' }))
  const stream = await streamed(url, tool('h', 'progress', { count: 10_000, ms: 5 }, { token }))
  await until(() => stream.messages.length > 2, 'progress')
  stream.cut()
  const cancelled = async (): Promise<boolean> =>
    (await toolSays(url, 'cancelled')).some(({ name }: Json) => name === 'progress')
  await until(cancelled, 'the server was told')
  await until(
    async () => (await toolSays(url, 'release', { key: 'watcher' })) === '1',
    'the other call is let go',
  )
  const answer = await watcher.answer
  t.equal(answer?.headers['content-type'], 'application/json', 'nothing came before its answer')
  t.equal(answer?.json.id, 'h')
  t.ok((await ours.metric('mcp_sidecar_dropped_messages_total')) >= dropped)
  await until(async () => (await ours.metric('mcp_sidecar_calls_in_flight')) === 0, 'nothing is in flight')
})

t.test('who leaves a call on a legacy server has cancelled it there', async () => {
  const { url, logs } = interviews
  const stopped = (name: string): boolean =>
    logs.some(({ fields, text }) => `${text} ${JSON.stringify(fields)}`.includes(`stopped ${name}`))
  const quiet = begin(url, tool(1, 'interview', { owner: 'o', call: 'quiet', rounds: [[]], ms: 60_000 }))
  await until(async () => (await interviews.metric('mcp_sidecar_calls_in_flight')) === 1, 'it is under way')
  // In flight here is not yet at the server: wait for a sign of it, on a call like the first.
  const loud = await streamed(
    url,
    tool(2, 'interview', { owner: 'o', call: 'loud', rounds: Array(1000).fill([]), ms: 20 }, { token: 2 }),
  )
  await until(() => loud.messages.length > 1, 'progress')
  quiet.leave()
  loud.cut()
  await until(() => stopped('quiet') && stopped('loud'), 'both were cancelled at the server')
  await until(
    async () => (await interviews.metric('mcp_sidecar_calls_in_flight')) === 0,
    'nothing is in flight',
  )
})

const oddIds: readonly Id[] = [
  1,
  '1',
  0,
  -1,
  '',
  Number.MAX_SAFE_INTEGER,
  'ünï 🙂',
  '\u0000',
  'p1',
  '"',
  'x'.repeat(500),
]

t.test('ids and tokens of concurrent clients never mix, and keep type and value', async (t) => {
  for (const { url } of [ours, scripted]) {
    const runs = oddIds.flatMap((id, i) => [
      { id, token: oddIds.at(-1 - i) as Id, count: 5 + i },
      { id, token: oddIds.at(-1 - i) as Id, count: 25 + i },
    ])
    const answers = await Promise.all(
      runs.map(({ id, token, count }) => ask(url, tool(id, 'progress', { count, ms: 1 }, { token }))),
    )
    for (const [i, { messages }] of answers.entries()) {
      const { id, token, count } = runs[i] as (typeof runs)[number]
      const steps = messages.slice(0, -1)
      t.same(
        steps.map(({ params }) => params.progress),
        steps.map((_, at) => at + 1),
      )
      t.equal(steps.length, count, `${JSON.stringify(id)} ${count}`)
      t.ok(steps.every(({ params }) => params.progressToken === token))
      t.equal(messages.at(-1).id, id)
      t.equal(said(messages.at(-1)), `made ${count}`)
    }
  }
})

t.test('ids beyond what JavaScript can tell apart come back as they were spelled', async (t) => {
  for (const { url } of [ours, scripted]) {
    const spellings = [
      '9007199254740993',
      '9007199254740992',
      '123456789012345678901234567890',
      '"\\u0031"',
      '1',
    ]
    const answers = await Promise.all(
      spellings.map((id) => askText(url, raw('ID', 'tools/list', params(envelope())).replace('"ID"', id))),
    )
    for (const [i, { body }] of answers.entries())
      t.ok(body.includes(`"id":${spellings[i]},`), `${spellings[i]}`)
  }
})

/** Members, keys and spellings that nobody knows. */
const unusual =
  '{"n":9007199254740993,"one":1.0,"exp":1E+2,"zero":-0,"huge":123456789012345678901234567890,"t":"caf\\u00e9 \\ud83d\\ude00 😀 \\/ \u2028",' +
  '"":{"__proto__":[null,true,{"deep":[1.50]}]}}'

t.test('what nobody knows reaches the server byte for byte', async (t) => {
  const version = JSON.stringify(envelope()).slice(1, -1)
  for (const { url, modernServer } of [
    { url: ours.url, modernServer: true },
    { url: interviews.url, modernServer: false },
  ]) {
    const name = modernServer ? 'line' : 'lines'
    const line = (own: string, id: string, token: string): string =>
      `{"jsonrpc":"2.0","id":${id},"method":"tools/call","x-top":${unusual},"params":{"name":"${name}",` +
      `"arguments":${unusual},"_meta":{${own}"com.example/key":${unusual},"progressToken":${token}},"x-param":${unusual}}}`
    const body = line(`${version},`, '"mine"', '"tok"')
    const answer = await askText(url, body)
    const text = said(answer.json)
    const arrived: string = modernServer ? answer.json.result.content[0].text : text.at(-1)
    const id = /"id":(\d+)/.exec(arrived)?.[1] as string
    t.equal(arrived, line(modernServer ? `${version},` : '', id, `"p${id}"`))
    const unknown = await askText(
      url,
      `{"jsonrpc":"2.0","id":1,"method":"x/unknown","params":{"a":${unusual},"_meta":{${version}}}}`,
    )
    t.same([unknown.status, unknown.json.error.code], [404, -32601])
  }
  const [last] = (await toolSays(url, 'lines')).slice(-2)
  t.ok(last.includes(`"method":"x/unknown","params":{"a":${unusual}`), 'methods that nobody knows, too')
})

t.test('what nobody knows reaches the client byte for byte', async (t) => {
  const result = `{"resultType":"complete","content":[{"type":"text","text":"x","x-part":${unusual}}],"x":${unusual},"_meta":{"com.example/a":${unusual}}}`
  const answer = await ask(url, tool('r', 'unknown-members', { result }))
  t.equal(answer.body, `{"jsonrpc":"2.0","id":"r","result":${result}}`)
  const own = await ask(url, tool('r', 'unknown-members'))
  t.match(own.body, /"huge":123456789012345678901234567890,"":"empty key","__proto__":\{"kept":true\}/)
  const error = `{"jsonrpc":"2.0","id":$ID,"error":{"code":-7,"message":"m","data":${unusual},"x":1.0}}`
  for (const { url } of [ours, scripted]) {
    const failed = await ask(url, tool('f', 'raw', { line: error }))
    t.equal(failed.body, error.replace('$ID', '"f"'))
  }
  const line = `{"jsonrpc":"2.0","id":$ID,"result":${result.replace('"resultType":"complete",', '').replace('{"com', '{"io.modelcontextprotocol/serverInfo":{"name":"n","version":"1"},"com')}}`
  const translated = await ask(scripted.url, tool('r', 'raw', { line }))
  t.equal(
    translated.body,
    line.replace('$ID', '"r"').replace('"result":{', '"result":{"resultType":"complete",'),
    'of a legacy server, with what the revision demands added',
  )
  const progress = `{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":$TOKEN,"progress":1.0,"x":${unusual}}}`
  for (const { url } of [ours, scripted]) {
    const text = `{"jsonrpc":"2.0","id":$ID,"result":{"resultType":"complete","content":[]}}`
    const stream = await ask(url, tool('p', 'raw', { line: `${progress}\n${text}` }, { token: 't' }))
    t.ok(stream.body.includes(`data: ${progress.replace('$TOKEN', '"t"')}\n`))
  }
})

t.test('log messages come only to who asks for some, at or above the level', async (t) => {
  const levels = ['debug', 'info', 'notice', 'warning', 'error', 'critical', 'alert', 'emergency']
  for (const { url } of [ours, scripted]) {
    for (const wanted of [undefined, 'debug', 'warning', 'emergency']) {
      for (const level of ['debug', 'info', 'warning', 'error', 'emergency']) {
        const options = wanted === undefined ? {} : { level: wanted }
        const answer = await ask(url, tool('l', 'log', { level, data: { said: level } }, options))
        const hears = wanted !== undefined && levels.indexOf(level) >= levels.indexOf(wanted)
        t.same(
          answer.messages.map((each) => each.params?.data ?? each.id),
          [...(hears ? [{ said: level }] : []), 'l'],
          `${level} for ${wanted}`,
        )
      }
    }
  }
  for (const { url } of [newer, older]) {
    const silent = await ask(url, tool('l', 'test_tool_with_logging'))
    t.equal(silent.messages.length, 1, 'nothing without a level')
    const loud = await ask(url, tool('l', 'test_tool_with_logging', {}, { level: 'info' }))
    t.same(
      loud.messages.slice(0, -1).map(({ params }) => params.data),
      ['Tool execution started', 'Tool processing data', 'Tool execution completed'],
    )
    const high = await ask(url, tool('l', 'test_tool_with_logging', {}, { level: 'error' }))
    t.equal(high.messages.length, 1, 'nothing below the level')
  }
})

t.test(
  'of two callers of a modern server at once, a log message reaches the one that asked, or nobody',
  async (t) => {
    const silent = begin(url, tool('h', 'hold', { key: 'silent one' }))
    await until(async () => (await toolSays(url, 'held')).includes('silent one'), 'the call without a level')
    const heard = await ask(url, tool('l', 'log', { data: 'to me' }, { level: 'debug' }))
    t.same(
      heard.messages.map((each) => each.params?.data ?? each.id),
      ['to me', 'l'],
    )
    const also = begin(url, tool('h', 'hold', { key: 'loud one' }, { level: 'debug' }))
    await until(async () => (await toolSays(url, 'held')).includes('loud one'), 'another call with a level')
    const before = await ours.metric('mcp_sidecar_dropped_messages_total{reason="unattributable"')
    const both = await ask(url, tool('l', 'log', { data: 'whose?' }, { level: 'debug' }))
    t.equal(both.messages.length, 1, 'which of two is not known')
    t.equal(await ours.metric('mcp_sidecar_dropped_messages_total{reason="unattributable"'), before + 1)
    for (const key of ['silent one', 'loud one']) await toolSays(url, 'release', { key })
    for (const each of [await silent.answer, await also.answer]) t.equal(each?.messages.length, 1)
  },
)

t.test('of two callers of a legacy server at once, each hears its own process', async (t) => {
  const { url } = interviews
  const runs = ['a', 'b', 'silent'].map((owner) => ({
    owner,
    request: tool(
      1,
      'interview',
      { owner, call: owner, rounds: Array(5).fill([]), ms: 10 },
      // Who can be asked has a process to itself, which is what makes log messages exact.
      { capabilities: everything, ...(owner === 'silent' ? {} : { level: 'info' }) },
    ),
  }))
  const answers = await Promise.all(runs.map(({ request }) => ask(url, request)))
  for (const [i, { messages }] of answers.entries()) {
    const { owner } = runs[i] as (typeof runs)[number]
    t.same(
      messages.slice(0, -1).map(({ params }) => [params.data.owner, params.data.round]),
      owner === 'silent' ? [] : [0, 1, 2, 3, 4].map((round) => [owner, round]),
    )
  }
})

t.test('a log level that only the retry names counts from then on', async (t) => {
  const { url } = interviews
  const first = tool(
    1,
    'interview',
    { owner: 'late', call: 'late', rounds: [['elicitation'], []] },
    { capabilities: everything },
  )
  const asked = await ask(url, first)
  t.equal(asked.json.result.resultType, 'input_required')
  const again = tool(2, 'interview', first.params.arguments, { capabilities: everything, level: 'info' })
  const answers = { q1: { action: 'accept', content: { by: 'late' } } }
  const answer = await ask(url, retry(again, 2, answers, asked.json.result.requestState))
  t.same(
    answer.messages.map((each) => each.params?.data?.round ?? each.id),
    [1, 2],
    'the message of the second round, then the answer',
  )
})

/** A tool with its arguments. */
const does = (name: string, args: object = {}): readonly [name: string, args: object] => [name, args]
const bothFilters = { toolsListChanged: true, promptsListChanged: true, resourcesListChanged: true }

t.test(
  'a subscription is acknowledged first, under the id of its caller, as far as it is honoured',
  async (t) => {
    for (const [kind, { url }] of Object.entries(servers)) {
      for (const id of [7, '7', '', 'ünï', Number.MAX_SAFE_INTEGER]) {
        const stream = await listening(url, id, { ...bothFilters, 'x-unknown': true })
        t.equal(stream.messages[0].method, acknowledged, kind)
        t.equal(subscriptionOf(stream.messages[0]), id)
        const honoured = stream.messages[0].params.notifications
        t.same(honoured, kind === 'a legacy server' ? {} : bothFilters)
        stream.cut()
      }
      const resources = await listening(url, 1, { resourceSubscriptions: ['test://text'] })
      t.same(resources.messages[0].params.notifications, { resourceSubscriptions: ['test://text'] }, kind)
      resources.cut()
    }
  },
)

t.test('listeners hear what they asked for, and nothing else, each under its own id', async (t) => {
  for (const [{ url }, changeTools, changePrompts] of [
    [ours, does('change', { list: 'tools' }), does('change', { list: 'prompts' })],
    [newer, does('test_trigger_tool_change'), does('test_trigger_prompt_change')],
    [older, does('test_trigger_tool_change'), does('test_trigger_prompt_change')],
  ] as const) {
    const tools = await listening(url, 1, { toolsListChanged: true })
    const prompts = await listening(url, '1', { promptsListChanged: true, toolsListChanged: false })
    const all = await listening(url, 'both', bothFilters)
    const nothing = await listening(url, 'none', {})
    await toolSays(url, ...changeTools)
    await toolSays(url, ...changePrompts)
    const [toolNews, promptNews] = ['tools', 'prompts'].map((name) => `notifications/${name}/list_changed`)
    await until(() => all.messages.length === 3, 'both changes')
    await until(() => tools.messages.length + prompts.messages.length === 4, 'one each')
    t.same(
      tools.messages.slice(1).map((each) => [each.method, subscriptionOf(each)]),
      [[toolNews, 1]],
    )
    t.same(
      prompts.messages.slice(1).map((each) => [each.method, subscriptionOf(each)]),
      [[promptNews, '1']],
    )
    t.same(
      all.messages.slice(1).map((each) => [each.method, subscriptionOf(each)]),
      [
        [toolNews, 'both'],
        [promptNews, 'both'],
      ],
    )
    t.equal(nothing.messages.length, 1)
    for (const each of [tools, prompts, all, nothing]) each.cut()
  }
})

t.test('updates of resources reach who named them', async (t) => {
  const method = 'notifications/resources/updated'
  for (const [{ url }, touch] of [
    [ours, (uri: string) => does('touch', { uri })],
    [interviews, (uri: string) => does('notify', { method, params: { uri } })],
  ] as const) {
    const one = await listening(url, 1, { resourceSubscriptions: ['test://one'] })
    const two = await listening(url, 1, { resourceSubscriptions: ['test://two', 'test://one'] })
    for (const uri of ['test://one', 'test://two', 'test://three']) await toolSays(url, ...touch(uri))
    await until(() => two.messages.length === 3, 'two updates')
    await until(() => one.messages.length === 2, 'one update')
    t.same(
      [one, two].map((stream) => notes(stream, method).map(({ params }) => params.uri)),
      [['test://one'], ['test://one', 'test://two']],
    )
    t.ok([...notes(one, method), ...notes(two, method)].every((each) => subscriptionOf(each) === 1))
    one.cut()
    two.cut()
  }
})

for (const how of ['result', 'cancelled', 'both']) {
  void t.test(
    `a subscription that the server ends by ${how} ends with a result under the caller's id`,
    async (t) => {
      const stream = await listening(url, `end ${how}`, { promptsListChanged: true })
      await toolSays(url, 'end-listen', { how })
      await ended(stream).finally(() => stream.cut())
      t.same(
        stream.messages.map(({ method, id }) => method ?? id),
        [acknowledged, `end ${how}`],
      )
      t.match(stream.messages[1], { result: { resultType: 'complete' } })
      t.equal(subscriptionOf(stream.messages[1]), `end ${how}`)
    },
  )
}

t.test('a subscription that the server ends with an error ends with that', async (t) => {
  const broken = await listening(url, 9, { promptsListChanged: true })
  await toolSays(url, 'end-listen', { how: 'error' })
  await ended(broken)
  t.match(broken.messages[1], { id: 9, error: { code: -32603, message: 'the stream broke' } })
})

t.test('the tools are still watched after the server has ended that subscription, too', async () => {
  // The one before has ended the sidecar's own as well.
  const lists = async (): Promise<number> => (await toolSays(url, 'counts'))['tools/list']
  const before = await lists()
  await toolSays(url, 'change', { list: 'tools' })
  await until(async () => (await lists()) > before, 'the changed list is fetched')
})

t.test('a client that leaves ends its subscription at the server', async (t) => {
  const named = async (): Promise<Json[]> =>
    (await toolSays(url, 'listens')).filter(({ filter }: Json) => filter.resourceSubscriptions !== undefined)
  const stream = await listening(url, 1, { resourceSubscriptions: ['test://leaving'] })
  const other = await listening(url, 1, { resourceSubscriptions: ['test://staying'] })
  t.equal((await named()).length, 2)
  stream.cut()
  await until(async () => (await named()).length === 1, 'the server has one less')
  await toolSays(url, 'touch', { uri: 'test://staying' })
  await until(() => other.messages.length === 2, 'the other one goes on')
  other.cut()
  await until(async () => (await named()).length === 0, 'none')

  const received = async (): Promise<Json[]> =>
    (await toolSays(interviews.url, 'received')).filter(({ method }: Json) => method.startsWith('resources/'))
  const count = async (): Promise<number> => (await received()).length
  const base = await count()
  const first = await listening(interviews.url, 1, { resourceSubscriptions: ['test://leaving'] })
  const second = await listening(interviews.url, 2, { resourceSubscriptions: ['test://leaving'] })
  await until(async () => (await count()) === base + 1, 'subscribed, once')
  first.cut()
  await toolSays(interviews.url, 'notify', {
    method: 'notifications/resources/updated',
    params: { uri: 'test://leaving' },
  })
  await until(() => second.messages.length === 2, 'whoever stays is told')
  t.equal(await count(), base + 1)
  second.cut()
  await until(async () => (await count()) === base + 2, 'unsubscribed with the last one')
  t.match((await received()).at(-1), { method: 'resources/unsubscribe', params: { uri: 'test://leaving' } })
})

t.test(
  'when the server was killed the subscription goes on with the next process, acknowledged once',
  async (t) => {
    const method = 'notifications/resources/updated'
    const uri = 'test://lasting'
    for (const [file, touch] of [
      ['modern-server.mjs', does('touch', { uri })],
      ['../support/interview-server.mjs', does('notify', { method, params: { uri } })],
    ] as const) {
      const { url } = await start(t, serverCommand(file))
      const stream = await listening(url, 'mine', { resourceSubscriptions: [uri] })
      const updates = async (count: number): Promise<void> => {
        await until(async () => {
          if (notes(stream, method).length >= count) return true
          // It fails while there is no process.
          await ask(url, tool(1, ...touch))
          return false
        }, `update ${count}`)
      }
      await updates(1)
      const pid = Number(await toolSays(url, 'pid'))
      process.kill(pid, 'SIGKILL')
      await until(async () => {
        const { json } = await ask(url, tool(2, 'pid'))
        return json.result !== undefined && Number(said(json)) !== pid
      }, 'a new process')
      const before = notes(stream, method).length
      await updates(before + 1)
      t.equal(notes(stream, acknowledged).length, 1, file)
      t.ok(notes(stream, method).every((each) => subscriptionOf(each) === 'mine'))
      t.equal(stream.isClosed(), false)
      stream.cut()
    }
  },
)

t.test('at the shutdown listeners get their result, and stop() does not wait for them', async (t) => {
  const graceMs = 40_000
  for (const file of ['modern-server.mjs', '../support/interview-server.mjs']) {
    const pids = pidFile(t)
    const { url, base, sidecar } = await startTestSidecar(t, {
      command: serverCommand(file, `--pid=${pids.path}`),
      config: { ...config, shutdownGraceMs: graceMs },
    })
    const stream = await listening(url, 'last', bothFilters)
    const socket = await openSocket(base)
    socket.send(listenTo(5, bothFilters))
    await until(() => socket.messages.length === 1, 'the acknowledgement on the WebSocket')
    const started = performance.now()
    await sidecar.stop()
    const took = performance.now() - started
    t.ok(took < graceMs / 2, `${file}: it took ${Math.round(took)} ms`)
    await ended(stream)
    await until(() => socket.closed() !== undefined, 'the WebSocket is closed')
    for (const [messages, id] of [
      [stream.messages, 'last'],
      [socket.messages, 5],
    ] as const) {
      t.match(messages.at(-1), { id, result: { resultType: 'complete' } }, file)
      t.equal(subscriptionOf(messages.at(-1)), id)
      t.equal(messages.length, 2)
    }
    await pids.gone()
  }
})

t.test('who does not read is cut off and holds up nobody', async (t) => {
  for (const { url, name, args, metric } of [
    { ...ours, name: 'flood', args: { count: 1500, bytes: 10_000 } },
    { ...scripted, name: 'flood', args: { count: 1500, bytes: 10_000 } },
  ]) {
    const request = tool('slow', name, args, { token: 't', level: 'debug' })
    const response = await open(
      url,
      'POST',
      {
        'Content-Type': 'application/json',
        Accept: accept,
        ...modernHeaders('tools/call', name),
      },
      JSON.stringify(request),
    )
    await until(
      async () => (await metric('mcp_sidecar_queue_bytes{reader="client"}')) > 64 * 1024,
      'it is behind',
    )
    const started = performance.now()
    for (let i = 0; i < 10; i++) t.equal((await ask(url, tool(i, 'pid'))).status, 200)
    t.ok(performance.now() - started < 15_000, 'others are served')
    const gone = async (): Promise<boolean> =>
      (await metric('mcp_sidecar_dropped_messages_total{reason="slow_reader"')) === 1
    await until(gone, 'it is given up')
    await until(
      async () => (await metric('mcp_sidecar_queue_bytes{reader="client"}')) === 0,
      'nothing is kept',
    )
    await until(async () => (await metric('mcp_sidecar_calls_in_flight')) === 0, 'nothing is in flight')
    const stream = follow(response)
    await ended(stream)
    t.same(ids(stream), [], 'no answer was made up')
  }
})

t.test(
  'what may be kept is said as the server says it, and of a legacy server that nothing may be',
  async (t) => {
    const cacheable = ['tools/list', 'prompts/list', 'resources/list', 'resources/templates/list']
    const hints = (result: Json): Json => [result.ttlMs, result.cacheScope]
    const { url } = await start(t, serverCommand('modern-server.mjs', '--ttl=1234', '--scope=public'))
    for (const method of ['server/discover', ...cacheable]) {
      const { json } = await ask(url, modern(1, method))
      t.same(hints(json.result), [1234, 'public'], method)
    }
    t.same(hints((await ask(url, modern(1, 'resources/read', { uri: 'test://text' }))).json.result), [
      1234,
      'public',
    ])
    for (const method of ['server/discover', ...cacheable]) {
      const { json } = await ask(older.url, modern(1, method))
      t.same(hints(json.result), [0, 'private'], method)
    }
    const read = await ask(older.url, modern(1, 'resources/read', { uri: 'test://static-text' }))
    t.same(hints(read.json.result), [0, 'private'])
    for (const request of [
      tool(1, 'test_simple_text'),
      tool(1, 'test_input_required_result_elicitation', {}, { capabilities: everything }),
      modern(1, 'prompts/get', { name: 'test_simple_prompt' }),
    ]) {
      const { json } = await ask(older.url, request)
      t.same(hints(json.result), [undefined, undefined], 'of what cannot be kept nothing is said')
    }
    const discover = (await ask(scripted.url, modern(1, 'server/discover'))).json.result
    t.match(discover, { resultType: 'complete', supportedVersions: [revision], _meta: Object })
    t.same(Object.keys(discover.capabilities).includes('tasks'), false, 'tasks do not cross the eras')
  },
)

/** Rounds of input: the same tools on SDK servers of both eras, with the keys that the question came under. */
t.test(
  'a server of either era asks in rounds, and a client without the capability is told which it lacks',
  async (t) => {
    const answers: Record<string, Json> = {
      'elicitation/create': { action: 'accept', content: { name: 'Ada', color: 'blue', ok: true } },
      'sampling/createMessage': { role: 'assistant', model: 'm', content: { type: 'text', text: 'Paris' } },
      'roots/list': { roots: [{ uri: 'file:///a' }] },
    }
    const through = async (url: string, first: Request): Promise<{ rounds: number; last: Json }> => {
      let { json } = await ask(url, first)
      let rounds = 0
      for (; json.result?.resultType === 'input_required' && rounds < 10; rounds++) {
        t.notOk('ttlMs' in json.result, 'no hint for caches')
        const { inputRequests, requestState } = json.result
        const given = Object.entries<Json>(inputRequests).map(([name, { method, params }]) => {
          t.notOk('_meta' in (params ?? {}))
          return [name, answers[method]]
        })
        json = (await ask(url, retry(first, `round ${rounds}`, Object.fromEntries(given), requestState))).json
        t.equal(json.id, `round ${rounds}`)
      }
      return { rounds, last: json }
    }
    const prefix = 'test_input_required_result_'
    for (const { url } of [newer, older]) {
      for (const [name, rounds, text] of [
        ['elicitation', 1, 'Hello, Ada!'],
        ['sampling', 1, 'Sampling result: Paris'],
        ['list_roots', 1, 'Found 1 root(s): file:///a'],
        ['multiple_inputs', 1, 'Name: Ada; Greeting: Paris; Roots: 1'],
        ['multi_round', 2, 'Ada likes blue'],
        ['request_state', 1, 'state-ok: confirmed=true'],
      ] as const) {
        const done = await through(url, tool('first', prefix + name, {}, { capabilities: everything }))
        t.same([done.rounds, said(done.last)], [rounds, text], name)
      }
      const prompt = modern('p', 'prompts/get', { name: `${prefix}prompt` }, { capabilities: everything })
      answers['elicitation/create'].content.context = 'here'
      t.match((await through(url, prompt)).last.result.messages[0].content.text, 'Prompt with context: here')
      for (const [name, requiredCapabilities] of [
        ['elicitation', { elicitation: { form: {} } }],
        ['sampling', { sampling: {} }],
        ['list_roots', { roots: {} }],
      ] as const) {
        const answer = await ask(url, tool('l', prefix + name))
        // Legacy servers ask for roots of their own accord, too, so the call is not ended for them.
        if (name === 'list_roots' && url === older.url) {
          t.match([answer.status, answer.json.result.isError], [200, true], name)
          continue
        }
        t.equal(answer.status, 400)
        t.equal(answer.json.error.code, -32021)
        const [capability] = Object.keys(requiredCapabilities)
        t.ok(capability !== undefined && capability in answer.json.error.data.requiredCapabilities, name)
      }
    }
  },
)

t.test('who is not known gets 401, and a strange page 403, before anything of the era', async (t) => {
  const tokens = bearerTokens(t, 'alice', 'bob')
  const flags = { ...tokens.flags, allowOrigin: ['https://app.example'] }
  const { url } = await startTestSidecar(t, { command: serverCommand('modern-server.mjs'), flags, config })
  const good = tool('a', 'pid')
  const unsupported = { ...envelope(), [key('protocolVersion')]: '2030-01-01' }
  const bad = { ...modern(1, 'tools/list'), params: { _meta: unsupported } } as Request
  for (const request of [good, bad, modern(2, 'initialize'), modern(3, 'x/unknown')]) {
    for (const headers of [
      {},
      { Authorization: 'Bearer wrong-token-0123456789' },
      { Authorization: 'Basic x' },
    ]) {
      const answer = await ask(url, request, headers)
      refusedWith(t, answer, [401, 401, 'ERR_AUTH'])
      t.match(answer.headers['www-authenticate'], /^Bearer/)
    }
    for (const headers of [{ Origin: 'https://evil.example' }, { Origin: 'null' }]) {
      refusedWith(t, await ask(url, request, { ...tokens.of('alice'), ...headers }), [403, 403, 'ERR_ORIGIN'])
    }
    const host = { ...tokens.of('alice'), Host: 'evil.example' }
    refusedWith(t, await ask(url, request, host), [403, 403, 'ERR_HOST'])
  }
  t.equal((await ask(url, good, tokens.of('alice'))).status, 200)
  const listed = await ask(url, good, { ...tokens.of('bob'), Origin: 'https://app.example' })
  t.equal(listed.status, 200)
  const seen = JSON.stringify(await toolSays(url, 'lines', {}, tokens.of('alice')))
  t.notMatch(seen, /token-0123456789/, 'no token reaches the server')
})
