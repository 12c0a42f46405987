/** Rules in front of a real server: who may do what, on every transport and in both eras. */
import t, { type Test } from 'tap'
import { systemClock } from '../../src/observe/clock.ts'
import { callers, startConfigured } from '../support/callers.ts'
import {
  ask,
  headersOf,
  listenTo,
  modern,
  refusedWith,
  serverCommand,
  streamed,
  tool,
} from '../support/modern.ts'
import { isRefusal, refused } from '../support/refusal.ts'
import { until } from '../support/sidecar.ts'
import { openSocket } from '../support/streams.ts'
import { openVoices, type Reply, type Voice } from '../support/voices.ts'
import { call, follow, openSession, open as openStream, post } from '../support/wire.ts'

const who = callers(t)
const people = {
  alice: who.of('alice'),
  bob: who.of('bob', { groups: ['ops', 'staff'] }),
  robot: who.account('team-a', 'robot'),
  mallory: who.of('mallory', { groups: ['user:alice', 'alice', 'OPS'], roles: ['ops'] }),
}
type Person = keyof typeof people

const rules = `
authorization:
  rules:
  - id: rule-for-everyone
    principals: ['*']
    tools: [echo]
  - id: rule-for-alice
    principals: ['user:alice']
    permissions:
    - { tools: [lines, 'p*d'], actions: [tools/call] }
    - { resources: ['doc://open/*'], actions: [resources/read] }
    - { prompts: [hello], actions: [prompts/get] }
  - id: rule-for-ops
    principals: ['group:ops']
    permissions:
    - { tools: [cwd], actions: ['*'] }
    - { tools: [crash], actions: [tools/list] }
  - id: rule-for-robots
    principals: ['serviceaccount:team-a/robot']
    permissions: [{ tools: [params], actions: [tools/call] }]
`
const base = `
${who.auth}
listen: { webSocket: true }
server: { warmSpares: 0, poolSize: 1 }
`
const sidecar = await startConfigured(t, base + rules)
const { url, logs } = sidecar

const voices: Record<Person, Promise<Voice[]>> = {
  alice: openVoices(sidecar, people.alice),
  bob: openVoices(sidecar, people.bob),
  robot: openVoices(sidecar, people.robot),
  mallory: openVoices(sidecar, people.mallory, ['Streamable HTTP', 'modern HTTP']),
}
for (const each of Object.values(voices)) each.catch(() => {})

/** A mark that is in no other request: what the server has not read of it, it was not asked. */
let marks = 0
const marked = () => ({ text: `mark-${++marks}-` })

const textOf = ({ json }: Pick<Reply, 'json'>): string => json.result.content[0].text
const argumentsOf = (mark: string) => ({ name: 'echo', arguments: { text: mark } })
const can = async (voice: Voice, name: string, headers?: Record<string, string>): Promise<string> => {
  const { json } = await voice.ask('tools/call', { name, arguments: {} }, headers)
  return json.error?.data?.reason ?? 'ok'
}

/** Nothing a caller could learn from about rules and what they name. */
function isDenied(t: Test, voice: Voice, reply: Reply, names: readonly string[] = []): void {
  isRefusal(t, reply.json, 'ERR_DENIED', reply.json.id)
  t.equal(reply.json.error.message, 'This operation is not permitted.')
  if (voice.name.endsWith('HTTP')) t.equal(reply.status, 403, `${voice.name}: 403`)
  for (const name of [...names, 'rule', 'alice', 'ops', 'authorization'])
    t.notOk(reply.text.includes(name), `${voice.name} says nothing of ${name}`)
}
t.test('a caller may use what rules grant to its name, groups or service account, and no more', async (t) => {
  const granted: Record<Person, readonly string[]> = {
    alice: ['echo', 'lines', 'pid'],
    bob: ['echo', 'cwd'],
    robot: ['echo', 'params'],
    mallory: ['echo'],
  }
  const all = ['echo', 'lines', 'pid', 'cwd', 'params', 'crash', 'env', 'no-such-tool', 'Echo', 'echo ', '*']
  for (const [person, names] of Object.entries(granted)) {
    for (const voice of await voices[person as Person]) {
      for (const name of all) {
        const reply = await voice.ask('tools/call', { name, arguments: {} })
        if (names.includes(name)) t.ok(reply.json.result, `${person} may call ${name} over ${voice.name}`)
        else isDenied(t, voice, reply, [name === '*' || name === 'echo ' ? person : name])
      }
    }
  }
})

const readable = 'doc://open/a'
const secret = 'doc://secret'
const completing = (ref: object) => ({ ref, argument: { name: 'a', value: '' } })

/** What alice may not do; each carries a mark. */
const forbidden: readonly (readonly [method: string, params: () => object])[] = [
  ['tools/call', () => ({ name: 'env', arguments: marked() })],
  ['tools/call', () => ({ name: 'crash', arguments: marked() })],
  ['tools/call', () => ({ arguments: marked() })],
  ['tools/call', () => ({ name: ['echo'], arguments: marked() })],
  ['x/reflect', marked],
  ['tools/calls', marked],
  ['prompts/get', () => ({ name: 'other', arguments: marked() })],
  ['prompts/get', () => ({ arguments: marked() })],
  ['resources/read', () => ({ uri: secret, ...marked() })],
  ['resources/read', () => ({ uri: 'doc://open/../secret', ...marked() })],
  ['resources/read', () => ({ uri: 'doc://open/%2E%2e/secret', ...marked() })],
  ['resources/read', () => ({ uri: 'DOC://open/a', ...marked() })],
  ['resources/read', marked],
  ['completion/complete', () => ({ ...completing({ type: 'ref/prompt', name: 'other' }), ...marked() })],
  ['completion/complete', () => ({ ...completing({ type: 'ref/resource', uri: secret }), ...marked() })],
  ['completion/complete', () => ({ ...completing({ type: 'ref/tool', name: 'echo' }), ...marked() })],
  ['completion/complete', marked],
]
const forbiddenIn: Readonly<Record<Voice['era'], typeof forbidden>> = {
  legacy: [
    ['resources/subscribe', () => ({ uri: secret, ...marked() })],
    ['resources/subscribe', marked],
    ['resources/unsubscribe', () => ({ uri: secret, ...marked() })],
    ['subscriptions/listen', () => ({ notifications: { resourceSubscriptions: [secret] }, ...marked() })],
    ['sampling/createMessage', marked],
  ],
  modern: [
    ['subscriptions/listen', () => ({ notifications: { resourceSubscriptions: [secret] }, ...marked() })],
    [
      'subscriptions/listen',
      () => ({ notifications: { resourceSubscriptions: [readable, secret] }, ...marked() }),
    ],
  ],
}

t.test('what no rule names is denied, in every era and on every transport, before the server', async (t) => {
  for (const voice of await voices.alice) {
    const first = marks + 1
    for (const [method, params] of [...forbidden, ...forbiddenIn[voice.era]]) {
      const reply = await voice.ask(method, params())
      if (reply.json.error?.data?.reason !== 'ERR_DENIED') t.fail(`${voice.name}: ${method} ${reply.text}`)
      else isDenied(t, voice, reply, ['env', 'crash', 'doc:', 'other', method])
    }
    const lines = textOf(await voice.ask('tools/call', { name: 'lines', arguments: {} }))
    t.ok(lines.includes('tools/call'), 'the server writes down what it reads')
    for (let mark = first; mark <= marks; mark++)
      t.notOk(lines.includes(`mark-${mark}-`), `${voice.name}: the server was not asked (${mark})`)
  }
})

t.test('what rules grant beside tools reaches the server', async (t) => {
  for (const voice of await voices.alice) {
    const first = marks + 1
    const asked: readonly (readonly [string, object])[] = [
      ['resources/read', { uri: readable, ...marked() }],
      ['prompts/get', { name: 'hello', ...marked() }],
      ['completion/complete', { ...completing({ type: 'ref/prompt', name: 'hello' }), ...marked() }],
      ['completion/complete', { ...completing({ type: 'ref/resource', uri: readable }), ...marked() }],
      ...(voice.era === 'legacy' ? ([['resources/subscribe', { uri: readable, ...marked() }]] as const) : []),
    ]
    for (const [method, params] of asked) {
      const { json, text } = await voice.ask(method, params)
      t.notOk(text.includes('ERR_DENIED'), `${voice.name}: ${method} ${text}`)
      if (method === 'resources/subscribe') t.same(json.result, {})
    }
    const lines = textOf(await voice.ask('tools/call', { name: 'lines', arguments: {} }))
    for (let mark = first; mark <= marks; mark++)
      t.ok(lines.includes(`mark-${mark}-`), `${voice.name}: the server was asked (${mark})`)
  }
})

t.test('the protocol itself needs no rule: handshake, ping, levels, lists, notifications', async (t) => {
  for (const voice of await voices.mallory) {
    const free = voice.era === 'legacy' ? ['ping', 'tools/list'] : ['server/discover', 'tools/list']
    for (const method of free) t.ok((await voice.ask(method, {})).json.result, `${voice.name}: ${method}`)
  }
  const [voice] = (await voices.mallory) as [Voice]
  t.same((await voice.ask('logging/setLevel', { level: 'error' })).json.result, {})
  const listening = await streamed(url, listenTo('l', { toolsListChanged: true }), people.mallory)
  await until(() => listening.messages.length > 0, 'listening to lists needs no rule')
  t.match(listening.messages[0], { method: 'notifications/subscriptions/acknowledged' })
  listening.cut()
})

t.test('a call that is sent as a notification is denied, and the server does not read it', async (t) => {
  const session = await openSession(url, { headers: people.alice })
  const { text } = marked()
  const sneaking = { jsonrpc: '2.0', method: 'tools/call', params: argumentsOf(text) }
  refused(t, await post(url, sneaking, session), 400, 'ERR_INVALID_REQUEST')
  t.equal((await post(url, { jsonrpc: '2.0', method: 'x/reflect', params: { text } }, session)).status, 403)
  const lines = textOf(await post(url, call(1, 'lines'), session))
  t.notOk(lines.includes(text))
})

t.test('the body decides and no header: those that repeat it must agree, others are nothing', async (t) => {
  const session = await openSession(url, { headers: people.alice })
  const { text } = marked()
  const headers = { 'Mcp-Name': 'echo', 'Mcp-Method': 'tools/list', 'X-Mcp-Tool': 'echo' }
  refused(t, await post(url, call(1, 'env', { text }), { ...session, ...headers }), 403, 'ERR_DENIED', 1)
  const named = { ...session, 'Mcp-Name': 'env', 'Mcp-Method': 'tools/call' }
  t.ok((await post(url, call(2, 'echo'), named)).json.result, 'nor does a header forbid')
  const mismatch = [400, -32020, 'ERR_HEADER_MISMATCH'] as const
  for (const [name, header] of [
    ['env', 'echo'],
    ['echo', 'env'],
    ['env', ''],
  ] as const) {
    const answer = await ask(url, tool('m', name, { text }), { ...people.alice, 'Mcp-Name': header })
    refusedWith(t, answer, mismatch, 'm')
  }
  const disguised = { ...people.alice, 'Mcp-Method': 'tools/list' }
  refusedWith(t, await ask(url, tool('m', 'env', { text }), disguised), mismatch, 'm')
  const lines = textOf(await post(url, call(3, 'lines'), session))
  t.notOk(lines.includes(text))
})

t.test('a body that parsers read differently is refused, whichever of its names is permitted', async (t) => {
  const session = await openSession(url, { headers: people.alice })
  const { text } = marked()
  for (const names of [
    '"name":"echo","name":"env"',
    '"name":"env","name":"echo"',
    '"name":"echo","Name":"env"',
  ]) {
    const params = `"params":{${names},"arguments":{"text":"${text}"}`
    const legacy = await post(url, `{"jsonrpc":"2.0","id":1,"method":"tools/call",${params}}}`, session)
    t.ok(legacy.status >= 400 && legacy.json.error.data.source === 'mcp-sidecar', names)
    const request = tool('d', 'echo')
    const meta = JSON.stringify(request.params._meta)
    const body = `{"jsonrpc":"2.0","id":"d","method":"tools/call",${params},"_meta":${meta}}}`
    const answer = await post(url, body, { ...people.alice, ...headersOf(request) })
    t.ok(answer.status >= 400 && answer.json.error.data.source === 'mcp-sidecar', `${names}, modern`)
  }
  for (const name of ['e\\u006ev', 'echo\\u0000', 'ech\\u043e', 'echo\\ud800', '\\u0065nv']) {
    const params = `{"name":"${name}","arguments":{"text":"${text}"}}`
    const body = `{"jsonrpc":"2.0","id":1,"m\\u0065thod":"tools\\/c\\u0061ll","params":${params}}`
    const answer = await post(url, body, session)
    t.equal(answer.json.error?.data?.source, 'mcp-sidecar', `${name}: ${answer.body}`)
  }
  const spelledOut = `{"jsonrpc":"2.0","id":1,"method":"tools\\/call","params":{"name":"\\u0065cho"}}`
  t.ok((await post(url, spelledOut, session)).json.result, 'a name is what it says, however it is spelled')
  const lines = textOf(await post(url, call(3, 'lines'), session))
  t.notOk(lines.includes(text))
})

t.test(
  'nor does another letter case hide what a request is about from rules, whatever a server makes of it',
  async (t) => {
    const { text } = marked()
    const mark = { text }
    const prompt = { type: 'ref/prompt', name: 'hello' }
    const hidden: readonly (readonly [string, object])[] = [
      ['completion/complete', { ...completing({ ...prompt, Name: 'other' }), ...mark }],
      ['completion/complete', { ...completing({ ...prompt, Type: 'ref/resource', uri: secret }), ...mark }],
      ['completion/complete', { ...completing(prompt), Ref: { type: 'ref/prompt', name: 'other' }, ...mark }],
    ]
    const listening: readonly object[] = [
      { ResourceSubscriptions: [secret] },
      { resourceSubscriptions: [readable], resourceſubscriptions: [secret] },
      { toolsListChanged: true, 'resourceSubscriptions\u0000': [secret] },
    ]
    for (const voice of await voices.alice) {
      for (const [method, params] of hidden) {
        const { json } = await voice.ask(method, params)
        t.equal(json.error?.data?.source, 'mcp-sidecar', `${voice.name}: ${method} ${JSON.stringify(params)}`)
      }
      const lines = textOf(await voice.ask('tools/call', { name: 'lines', arguments: {} }))
      t.notOk(lines.includes(text), `${voice.name}: the server has not read any`)
    }
    for (const notifications of listening) {
      const stream = await streamed(url, listenTo('l', notifications), people.alice).catch(() => undefined)
      t.equal(stream, undefined, `it does not listen to ${JSON.stringify(notifications)}`)
      stream?.cut()
    }
  },
)

t.test('the parts of a batch are judged one by one', async (t) => {
  const session = await openSession(url, { headers: people.alice, version: '2025-03-26' })
  const { text } = marked()
  const answer = await post(
    url,
    [
      call(1, 'env', { text }),
      call(2, 'echo', { text: 'fine' }),
      { jsonrpc: '2.0', id: 3, method: 'x/reflect', params: { text } },
      { jsonrpc: '2.0', method: 'tools/call', params: argumentsOf(text) },
      { jsonrpc: '2.0', id: 4, method: 'tools/list' },
      call(5, 'cwd', { text }),
    ],
    session,
  )
  t.equal(answer.status, 200)
  const byId = new Map(answer.messages.map((message) => [message.id, message]))
  t.same([...byId.keys()].toSorted(), [1, 2, 3, 4, 5], 'each request has its answer')
  for (const id of [1, 3, 5]) isRefusal(t, byId.get(id), 'ERR_DENIED', id)
  t.equal(byId.get(2).result.content[0].text, 'fine')
  const tools = byId.get(4).result.tools.map(({ name }: { name: string }) => name)
  t.same(tools.toSorted(), ['echo', 'lines', 'pid'], 'a list in a batch is filtered, too')
  const lines = textOf(await post(url, call(6, 'lines'), session))
  t.notOk(lines.includes(text), 'what was refused the server has not read')
})

t.test('lists are of what the caller may use, or may list', async (t) => {
  const listed: Partial<Record<Person, readonly string[]>> = {
    alice: ['echo', 'lines', 'pid'],
    bob: ['echo', 'cwd', 'crash'],
    mallory: ['echo'],
  }
  for (const [person, names] of Object.entries(listed)) {
    for (const voice of await voices[person as Person]) {
      const { json } = await voice.ask('tools/list', {})
      const found = json.result.tools.map(({ name }: { name: string }) => name)
      t.same(found.toSorted(), [...names].toSorted(), `${person} over ${voice.name}`)
    }
  }
})

t.test('the log says who was refused what and by which layer, in words that clients never get', async (t) => {
  const found = logs.filter(({ fields }) =>
    JSON.stringify(fields).includes('no rule permits tools/call of tool'),
  )
  t.ok(found.length > 0)
  t.match(JSON.stringify(found[0]?.fields), /rule-for-everyone: not for this object/)
})

t.test('conditions: the address behind a trusted proxy, the time of day, a header', async (t) => {
  let now = Date.UTC(2027, 0, 15, 7, 59)
  const conditional = `
listen: { webSocket: true, trustedProxies: [127.0.0.1] }
server: { warmSpares: 0, topology: shared }
authorization:
  rules:
  - { principals: ['*'], tools: ['*'] }
  - { principals: [anonymous], tools: [echo], conditions: [{ type: IPAddress, value: '10.0.0.0/8, 2001:db8::/32', operator: In }] }
  - { principals: [anonymous], tools: [pid], conditions: [{ type: TimeOfDay, value: '09:00-17:00 Europe/Berlin' }] }
  - { principals: [anonymous], tools: [cwd], conditions: [{ type: RequestHeader, key: X-Team, value: team-a }] }
`
  const sidecar = await startConfigured(t, conditional, { clock: { ...systemClock, epoch: () => now } })
  const { url } = sidecar
  const all = await openVoices(sidecar, {})
  const [streamable, , , modernHttp] = all as [Voice, Voice, Voice, Voice, Voice]
  const fresh = all.filter(({ name }) => !name.endsWith('WebSocket'))

  for (const voice of all) t.same(await can(voice, 'echo'), 'ERR_DENIED', 'not from this address')
  for (const [address, wanted] of [
    ['10.1.2.3', 'ok'],
    ['2001:db8::7', 'ok'],
    ['::ffff:10.9.9.9', 'ok'],
    ['11.1.2.3', 'ERR_DENIED'],
    ['10.1.2.3, 11.1.2.3', 'ERR_DENIED'],
    ['11.1.2.3, 10.1.2.3', 'ok'],
    ['unknown', 'ERR_DENIED'],
    ['10.1.2.3, nonsense', 'ERR_DENIED'],
  ] as const) {
    for (const voice of fresh)
      t.equal(await can(voice, 'echo', { 'X-Forwarded-For': address }), wanted, `${voice.name}: ${address}`)
  }
  const far = await openVoices(sidecar, { 'X-Forwarded-For': '10.1.2.3' }, ['WebSocket', 'modern WebSocket'])
  for (const voice of far) t.equal(await can(voice, 'echo'), 'ok', `${voice.name}: of the upgrade`)

  for (const voice of all) t.equal(await can(voice, 'pid'), 'ERR_DENIED', `${voice.name}: at 08:59 in Berlin`)
  now += 60_000
  for (const voice of all) t.equal(await can(voice, 'pid'), 'ok', `${voice.name}: at 09:00`)
  const names = async (voice: Voice, headers: Record<string, string> = {}) =>
    (await voice.ask('tools/list', {}, headers)).json.result.tools.map((each: { name: string }) => each.name)
  t.same(await names(streamable), ['pid'], 'the list is of what may be used now')
  t.same(await names(modernHttp, { 'X-Team': 'team-a' }), ['pid', 'cwd'])
  now += 8 * 3600_000
  for (const voice of all) t.equal(await can(voice, 'pid'), 'ERR_DENIED', `${voice.name}: at 17:00`)

  for (const voice of fresh) {
    t.equal(await can(voice, 'cwd', { 'x-team': 'team-a' }), 'ok')
    t.equal(await can(voice, 'cwd', { 'X-Team': 'team-a,team-a' }), 'ERR_DENIED')
    t.equal(await can(voice, 'cwd', { 'X-Team': 'Team-A' }), 'ERR_DENIED')
    t.equal(await can(voice, 'cwd'), 'ERR_DENIED')
  }
  const twice = await ask(url, tool('h', 'cwd'), { 'X-Team': ['team-a', 'team-a'] })
  refusedWith(t, twice, [403, 403, 'ERR_DENIED'], 'h')

  await sidecar.reload(conditional.replace(', trustedProxies: [127.0.0.1]', ''))
  for (const voice of fresh)
    t.equal(
      await can(voice, 'echo', { 'X-Forwarded-For': '10.1.2.3' }),
      'ERR_DENIED',
      'whoever says so himself',
    )
})

t.test('a token without a scope of the operation is told which ones it takes, all at once', async (t) => {
  const sidecar = await startConfigured(
    t,
    `${base.replace('poolSize: 1', 'topology: shared').replace('"audiences"', '"scopes":["mcp"],"audiences"')}
authorization:
  scopes:
  - { methods: [tools/call], scopes: [call] }
  - { tools: [env, 'c*'], scopes: [admin] }
  - { methods: ['resources/*', subscriptions/listen], resources: ['doc://*'], scopes: [docs] }
  impliedScopes: { root: [admin], admin: [call] }
`,
  )
  const holding = async (scope: string) => openVoices(sidecar, who.of('alice', { scope }))
  for (const voice of await holding('mcp call')) {
    t.equal(await can(voice, 'echo'), 'ok')
    const { json, status, headers } = await voice.ask('tools/call', { name: 'env', arguments: {} })
    isRefusal(t, json, 'ERR_SCOPE', json.id)
    t.same(json.error.data.scopes, ['mcp', 'call', 'admin'], voice.name)
    if (voice.name.endsWith('HTTP')) {
      t.equal(status, 403)
      const challenge = headers['www-authenticate'] ?? ''
      t.match(challenge, /^Bearer .*error="insufficient_scope"/)
      t.match(challenge, /scope="mcp call admin"/)
      t.match(challenge, /resource_metadata="http[^"]*\/\.well-known\/oauth-protected-resource/)
    }
    const read = await voice.ask('resources/read', { uri: 'doc:\u002f/a' })
    t.same(read.json.error.data.scopes, ['mcp', 'docs'], `${voice.name}: of resources`)
  }
  for (const voice of await holding('mcp root'))
    t.equal(await can(voice, 'env'), 'ok', 'one scope implies another')
})

t.test('who is refused spends no quota', async (t) => {
  const sidecar = await startConfigured(
    t,
    `${base}
authorization:
  toolsFilter: [echo, pid]
  rules: [{ principals: ['*'], tools: [echo] }]
rateLimits: [{ per: user, tools: ['*'], requests: 2, window: 1h }]
`,
  )
  for (const person of ['alice', 'bob'] as const) {
    const names = ['Streamable HTTP', 'modern HTTP'] as const
    const [voice] = (await openVoices(sidecar, people[person], [names[person === 'bob' ? 1 : 0]])) as [Voice]
    for (let i = 0; i < 4; i++) {
      t.equal(await can(voice, 'pid'), 'ERR_DENIED')
      t.equal(await can(voice, 'env'), 'ERR_TOOL_UNKNOWN')
    }
    t.same(
      [await can(voice, 'echo'), await can(voice, 'echo'), await can(voice, 'echo')],
      ['ok', 'ok', 'ERR_RATE_LIMITED'],
      `${person} has the whole quota`,
    )
    t.equal(await can(voice, 'pid'), 'ERR_DENIED', 'and a refusal stays one when it is spent')
  }
})

t.test('a reload changes what open sessions may do, at once', async (t) => {
  const granting = (...tools: string[]) => `
authorization:
  rules:
  - principals: ['*']
    permissions:
    - { tools: [${tools.join(', ')}], actions: [tools/call] }
    - { resources: ['doc://${tools[0]}'], actions: [resources/read] }
`
  const sidecar = await startConfigured(t, base + granting('echo', 'notify'))
  const all = await openVoices(sidecar, people.alice)
  for (const voice of all) t.same([await can(voice, 'echo'), await can(voice, 'pid')], ['ok', 'ERR_DENIED'])
  await sidecar.reload(base + granting('pid', 'notify'))
  for (const voice of all) {
    t.same([await can(voice, 'echo'), await can(voice, 'pid')], ['ERR_DENIED', 'ok'], voice.name)
    const { json } = await voice.ask('tools/list', {})
    t.same(json.result.tools.map(({ name }: { name: string }) => name).toSorted(), ['notify', 'pid'])
  }
  await sidecar.reload(`${base}authorization: { ruleEvaluation: all, rules: [
    { principals: ['*'], tools: [echo, pid] }, { principals: ['user:alice'], tools: [echo, cwd] } ] }`)
  for (const voice of all) {
    t.same(
      [await can(voice, 'echo'), await can(voice, 'pid'), await can(voice, 'cwd')],
      ['ok', 'ERR_DENIED', 'ERR_DENIED'],
    )
    t.equal((await voice.ask('tools/list', {})).json.result.tools.length, 1, 'all rules must permit')
  }
  await sidecar.reload(base)
  for (const voice of all)
    t.equal(await can(voice, 'cwd'), 'ok', 'without authorization everything is permitted')
})

t.test('after a reload a subscription tells nothing more of what may not be read any more', async (t) => {
  const granting = (uri: string) => `${base}
authorization:
  rules: [{ principals: ['*'], permissions: [{ tools: ['*'], resources: ['${uri}'], actions: ['*'] }] }]`
  const sidecar = await startConfigured(t, granting('test://*'), {
    command: serverCommand('modern-server.mjs'),
  })
  const { url } = sidecar
  const [lost, kept] = ['test://text', 'test://reads'] as const
  const subscription = listenTo('l', { resourceSubscriptions: [lost] })
  const session = await openSession(url, { headers: people.alice })
  const streams = {
    'modern HTTP': await streamed(url, subscription, people.alice),
    'modern WebSocket': await openSocket(sidecar.base, { headers: people.alice }),
    'Streamable HTTP': follow(await openStream(url, 'GET', { ...session, Accept: 'text/event-stream' })),
  }
  streams['modern WebSocket'].send(subscription)
  const subscribe = (uri: string) => ({
    jsonrpc: '2.0',
    id: 1,
    method: 'resources/subscribe',
    params: { uri },
  })
  t.same((await post(url, subscribe(lost), session)).json.result, {})
  const told = (uri: string): string[] =>
    Object.entries(streams).flatMap(([name, { messages }]) =>
      messages.some(({ params }) => params?.uri === uri) ? [name] : [],
    )
  const touch = (uri: string) => ask(url, tool('t', 'touch', { uri }), people.alice)
  const listens = async (): Promise<number> => {
    const { json } = await ask(url, tool('n', 'listens'), people.alice)
    return textOf({ json }).split(`"requested":{"resourceSubscriptions":["${lost}"]`).length - 1
  }
  await until(async () => (await listens()) === 3, 'the server knows of three')
  await touch(lost)
  await until(() => told(lost).length === 3, 'all three are told')
  const before = Object.values(streams).map(({ messages }) => messages.length)

  await sidecar.reload(granting(kept))
  const read = modern('r', 'resources/read', { uri: lost })
  refused(t, await ask(url, read, people.alice), 403, 'ERR_DENIED', 'r')
  // Who hears of the other resource after this has heard of this one, had it been told.
  const control = await streamed(url, listenTo('c', { resourceSubscriptions: [kept] }), people.alice)
  await until(() => control.messages.length === 1, 'one more listens')
  await touch(lost)
  await touch(kept)
  await until(() => control.messages.length === 2, 'what has been told has come')
  await Promise.all(Object.values(streams).map(() => post(url, call(1, 'pid'), session)))
  const more = Object.entries(streams).filter(([, { messages }], i) =>
    messages.slice(before[i]).some(({ method }) => method === 'notifications/resources/updated'),
  )
  t.same(
    more.map(([name]) => name),
    [],
    'nobody is told of what may not be read',
  )
  streams['modern HTTP'].cut()
  streams['Streamable HTTP'].cut()
  control.cut()
})
