/** What callers see of a server: filtered lists, the tools filter, capabilities, on every transport and in both eras. */
import t, { type Test } from 'tap'
import { callers, startConfigured } from '../support/callers.ts'
import { nameOf, play, type Route } from '../support/clients.ts'
import { official } from '../support/everything.ts'
import { ask, listenTo, modern, serverCommand, streamed } from '../support/modern.ts'
import { recital } from '../support/recital.ts'
import { until } from '../support/sidecar.ts'
import { anonymous, openVoices, type Reply, type Voice } from '../support/voices.ts'

const who = callers(t)
const alice = who.of('alice', { groups: ['dev'] })
const base = `
${who.auth}
listen: { webSocket: true }
`
const lists = ['tools/list', 'prompts/list', 'resources/list', 'resources/templates/list'] as const

/** The results of a server, as they are spelled; what stands in « » may go from who may use only what is called `mine`. */
const spelled = {
  'tools/list':
    '{ "tools" : [ { "name":"mine-1","inputSchema":{"type":"object"} ,"x-big":9007199254740993 },  «{"name":"theirs-1","inputSchema":{"type":"object"}},\t»{"inputSchema":{"type":"object"},"name":"m\\u0069ne-2", "description":"caf\\u00e9 \\/ \u2028" }« ,{"name":"theirs-2","inputSchema":{"type":"object"}}» ] , "nextCursor":"p\\u00e4ge 2 \\/" , "x-unknown" : [1.0, 1e2, -0 ],',
  'prompts/list': '{"prompts":[«{"name":"theirs","description":"mine"},»{"name":"mine"}],',
  'resources/list':
    '{"nextCursor":"",  "resources":[{"uri":"doc://mine/a","name":"theirs"}« ,{"name":"mine","uri":"doc://theirs"} , {"uri":"doc://mine/../theirs","name":"x"}» ],',
  'resources/templates/list':
    '{"resourceTemplates":[{"uriTemplate":"doc://mine/{id}","name":"t"},{"uriTemplate":"{+any}","name":"any"}«,{"uriTemplate":"doc://theirs/{id}","name":"t"},{"uriTemplate":"doc://min","name":"no template"}»],',
} as const
const whole = (text: string): string => text.replaceAll(/[«»]/g, '')
const filtered = (text: string): string => text.replaceAll(/«.*?»/gs, '')
const ends = {
  legacy: '"_meta":{"com.example/a":1.50}}',
  modern: '"ttlMs":60000 , "cacheScope" :  "public","resultType":"complete","_meta":{"com.example/a":1.50}}',
}
const afterwards = { legacy: ends.legacy, modern: ends.modern.replace('"public"', '"private"') }

const mine = `
authorization:
  rules:
  - principals: ['group:dev']
    permissions: [{ tools: ['mine-*'], prompts: [mine], resources: ['doc://mine/*'], actions: ['*'] }]
`

/** The lists of a server of this era, as it spells them. */
const textsOf = (era: 'legacy' | 'modern'): Record<string, string> =>
  Object.fromEntries(lists.map((method) => [method, whole(spelled[method]) + ends[era]]))

const resultText = ({ text }: Reply): string => text.slice(text.indexOf('"result":') + 9, -1)

for (const era of ['legacy', 'modern'] as const) {
  t.test(
    `lists of a ${era} server lose what the caller may not use, and no other byte changes`,
    async (t) => {
      const { command } = recital(t, era, textsOf(era))
      const sidecar = await startConfigured(t, base + mine, { command })
      for (const voice of await openVoices(sidecar, alice)) {
        for (const method of lists) {
          const reply = await voice.ask(method, {})
          // Between the eras members are added or taken away; within one nothing is touched.
          if (voice.era !== era) {
            sameObjects(t, reply, method, voice)
            continue
          }
          t.equal(resultText(reply), filtered(spelled[method]) + afterwards[era], `${voice.name}: ${method}`)
        }
      }
    },
  )
}

function sameObjects(t: Test, { json }: Reply, method: (typeof lists)[number], { name, era }: Voice): void {
  const { tools, prompts, resources, resourceTemplates, nextCursor, cacheScope } = json.result
  const names = {
    'tools/list': () => tools.map((each: { name: string }) => each.name),
    'prompts/list': () => prompts.map((each: { name: string }) => each.name),
    'resources/list': () => resources.map((each: { uri: string }) => each.uri),
    'resources/templates/list': () =>
      resourceTemplates.map((each: { uriTemplate: string }) => each.uriTemplate),
  }
  const wanted = {
    'tools/list': ['mine-1', 'mine-2'],
    'prompts/list': ['mine'],
    'resources/list': ['doc://mine/a'],
    'resources/templates/list': ['doc://mine/{id}', '{+any}'],
  }
  t.same(names[method](), wanted[method], `${name}: ${method}`)
  if (method === 'tools/list') t.equal(nextCursor, 'päge 2 /', 'the cursor stays')
  if (era === 'modern') t.equal(cacheScope, 'private', `${name}: ${method} is not shared`)
}

t.test('each page of a list is filtered, empty ones included, and the cursors lead on', async (t) => {
  const rules = `
authorization: { rules: [{ principals: ['user:alice'], tools: [extra-3, pid] }] }`
  const command = serverCommand('modern-server.mjs', '--page=2', '--tools=3', '--scope=public', '--ttl=1000')
  const sidecar = await startConfigured(t, base + rules, { command })
  for (const voice of await openVoices(sidecar, alice)) {
    const names: string[] = []
    let empty = 0
    let cursor: string | undefined
    do {
      const { json } = await voice.ask('tools/list', cursor === undefined ? {} : { cursor })
      const page: string[] = json.result.tools.map(({ name }: { name: string }) => name)
      names.push(...page)
      if (page.length === 0) empty++
      if (voice.era === 'modern') {
        t.equal(json.result.cacheScope, 'private')
        t.equal(json.result.ttlMs, 1000)
      }
      cursor = json.result.nextCursor
    } while (cursor !== undefined)
    t.same(names.toSorted(), ['extra-3', 'pid'], voice.name)
    t.ok(empty > 0, 'pages without anything are pages')
    if (voice.era === 'legacy') continue
    const discovered = (await voice.ask('server/discover', {})).json.result
    t.equal(discovered.cacheScope, 'private', 'discover is not shared either')
  }
})

t.test('a tool outside the filter answers as a name that no server knows, byte for byte', async (t) => {
  const filter = `
authorization:
  toolsFilter: [echo, no-such-tool-in-the-filter]
  rules: [{ principals: ['*'], tools: ['*'] }]`
  for (const command of [undefined, serverCommand('modern-server.mjs')]) {
    const sidecar = await startConfigured(t, base + filter, command === undefined ? {} : { command })
    for (const voice of await openVoices(sidecar, alice)) {
      const called = (name: unknown, more = {}): Promise<Reply> =>
        voice.ask('tools/call', { name, arguments: {}, ...more })
      const [hidden, unknown] = [await called('crash'), await called('frobnicate')]
      t.equal(anonymous(hidden), anonymous(unknown), voice.name)
      t.equal(hidden.status, unknown.status)
      const varying = new Set(['x-request-id', 'date', 'content-length'])
      const steady = (reply: Reply): unknown =>
        Object.entries(reply.headers).filter(([key]) => !varying.has(key))
      t.same(steady(hidden), steady(unknown), 'the headers, too')
      t.match(hidden.json.error, { code: -32602, message: 'There is no such tool.' })
      t.notMatch(hidden.text, /crash|filter/)
      t.ok((await called('echo')).json.result, 'what is in it is called')
      const listed = (await voice.ask('tools/list', {})).json.result.tools
      t.same(
        listed.map((each: { name: string }) => each.name),
        ['echo'],
      )
      const asTask = { task: { ttl: 1000 } }
      t.equal(anonymous(await called('crash', asTask)), anonymous(await called('frobnicate', asTask)))
    }
  }
})

t.test(
  'only capabilities that are on are advertised and served; the others are unknown methods',
  async (t) => {
    const { command, record } = recital(t, 'legacy', textsOf('legacy'))
    const sidecar = await startConfigured(
      t,
      `${base}authorization: { capabilities: { tools: true, resources: false } }`,
      { command },
    )
    const off = [
      ['prompts/list', {}],
      ['prompts/get', { name: 'mine' }],
      ['resources/list', {}],
      ['resources/templates/list', {}],
      ['resources/read', { uri: 'doc://mine/a' }],
      [
        'completion/complete',
        { ref: { type: 'ref/prompt', name: 'mine' }, argument: { name: 'a', value: '' } },
      ],
    ] as const
    for (const voice of await openVoices(sidecar, alice)) {
      for (const [method, params] of off) {
        const { json, status } = await voice.ask(method, params)
        const unknown = await voice.ask('x/no-such-method', params)
        t.equal(json.error?.code, -32601, `${voice.name}: ${method}`)
        t.equal(json.error.code, unknown.json.error.code)
        if (status !== undefined) t.equal(status, unknown.status, 'the status of an unknown method')
      }
      if (voice.era === 'legacy') {
        const params = { uri: 'doc://mine/a' }
        t.equal((await voice.ask('resources/subscribe', params)).json.error?.code, -32601)
      } else {
        const { result } = (await voice.ask('server/discover', {})).json
        t.same(Object.keys(result.capabilities), ['tools'], voice.name)
      }
      t.ok((await voice.ask('tools/list', {})).json.result)
    }
    const watched = listenTo('l', { resourceSubscriptions: ['doc://mine/a'] })
    t.equal((await ask(sidecar.url, watched, alice)).json.error.code, -32602, 'nor is a resource listened to')
    t.notMatch(record(), /prompts\/(list|get)|resources\/|completion/, 'the server was asked none of it')
  },
)

t.test('who listens to lists of a capability that is off is not told of them', async (t) => {
  const command = serverCommand('modern-server.mjs')
  const only = `${base}authorization: { capabilities: { tools: true } }`
  const { url } = await startConfigured(t, only, { command })
  const listening = await streamed(
    url,
    listenTo('l', { toolsListChanged: true, promptsListChanged: true }),
    alice,
  )
  await until(() => listening.messages.length > 0, 'it is acknowledged')
  for (const list of ['prompts', 'tools']) {
    const params = { name: 'change', arguments: { list } }
    t.ok((await ask(url, modern('c', 'tools/call', params), alice)).json.result)
  }
  await until(() => JSON.stringify(listening.messages).includes('tools/list_changed'), 'tools have changed')
  t.same(listening.messages[0].params.notifications, { toolsListChanged: true }, 'what is honoured')
  t.notMatch(JSON.stringify(listening.messages.slice(1)), /prompts\/list_changed/)
  listening.cut()
})

t.test('clients of the SDK see of server-everything what they may use, and use it', async (t) => {
  const command = official('server-everything', 'stdio')
  const sidecar = await startConfigured(
    t,
    `listen: { webSocket: true }
authorization:
  toolsFilter: [echo, get-sum, get-env]
  capabilities: { tools: true, resources: true, prompts: true }
  rules:
  - { principals: [anonymous], tools: [echo, get-sum, get-tiny-image] }
  - principals: [anonymous]
    permissions: [{ prompts: [simple-prompt], resources: ['demo://resource/dynamic/text/*'], actions: ['*'] }]
`,
    { command, env: { PATH: process.env['PATH'] ?? '' }, config: { server: { warmSpares: 0, poolSize: 1 } } },
  )
  const routes: readonly Route[] = [
    { sdk: 'v2', over: 'Streamable HTTP' },
    { sdk: 'v2', over: 'Streamable HTTP', pinned: true },
    { sdk: 'v1', over: 'HTTP+SSE' },
    { sdk: 'v1', over: 'WebSocket' },
  ]
  for (const route of routes) {
    await play(route, { command, base: sidecar.base }, async (peer) => {
      const { tools } = await peer.listTools()
      t.same(tools.map(({ name }) => name).toSorted(), ['echo', 'get-sum'], nameOf(route))
      t.same(
        (await peer.listPrompts()).prompts.map(({ name }) => name),
        ['simple-prompt'],
      )
      t.same((await peer.listResources()).resources, [])
      const { resourceTemplates } = await peer.listResourceTemplates()
      t.same(
        resourceTemplates.map(({ uriTemplate }: { uriTemplate: string }) => uriTemplate),
        ['demo://resource/dynamic/text/{resourceId}'],
      )
      t.match(await peer.call('get-sum', { a: 1, b: 2 }), { content: [{ text: /3/ }] })
      await t.rejects(peer.call('get-env'), { message: /not permitted/ })
      await t.rejects(peer.call('get-tiny-image'), { message: /no such tool/ })
      t.ok(await peer.readResource('demo://resource/dynamic/text/1'))
      await t.rejects(peer.readResource('demo://resource/dynamic/blob/1'), { message: /not permitted/ })
      t.ok(await peer.getPrompt('simple-prompt'))
      await t.rejects(peer.getPrompt('args-prompt', { city: 'Rome' }), { message: /not permitted/ })
    })
  }
})
