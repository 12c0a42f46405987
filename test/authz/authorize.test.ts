import fc from 'fast-check'
import t from 'tap'
import { createAuthorizer } from '../../src/authz/authorize.ts'
import { AuthzPolicyError } from '../../src/authz/fault.ts'
import { rpcErrorText } from '../../src/core/errors.ts'
import type { AuthzPolicy, RuleLayer } from '../../src/core/policy.ts'
import {
  alice,
  anonymous,
  bob,
  cedarPolicy,
  condition,
  decoded,
  demand,
  json,
  layer,
  Oracle,
  type Outcome,
  policyOf,
  principal,
  robot,
  rule,
  stage,
} from '../support/authz.ts'
import { ManualClock, written } from '../support/modern-calls.ts'
import { holds, shown } from '../support/property.ts'

const open = rule(['*', 'anonymous'], [{ tools: ['*'], resources: ['*'], prompts: ['*'] }], { id: 'open' })
const tools = (...names: string[]): RuleLayer => layer([rule(['*'], [{ tools: names }], { id: 'tools' })])
const call = (name: string, who = alice) => decoded('tools/call', { name }, { principal: who })
const all = { tools: true, resources: true, prompts: true }

t.test('without a policy everything passes, and answers pass untouched', async (t) => {
  const run = stage({})
  for (const text of [
    '{"jsonrpc":"2.0","id":1,"method":"anything/else"}',
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":7}}',
    '{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"x:/../y"}}',
    '{"jsonrpc":"2.0","method":"anything/else"}',
    '{"jsonrpc":"2.0","id":1,"result":{}}',
  ]) {
    const { code, permitted } = run(decoded(text, {}, { principal: anonymous }))
    t.equal(code, 'ok', text)
    t.same(permitted.permit, { verdicts: [{ layer: 'none', ids: [] }] })
  }
  const result = { cacheScope: 'public', tools: [{ name: 'a' }, {}] }
  t.same(json(run(decoded('tools/list')).answered(result)).result, result)
})

t.test('a layer without rules demands nothing', async (t) => {
  t.equal(stage({ layers: [layer([])] })(decoded('anything/else')).code, 'ok')
})

t.test('each part of the policy leaves its verdict, in the order it is asked', async (t) => {
  const run = stage(
    {
      capabilities: all,
      toolsFilters: [['a']],
      scopes: [demand(['s'], { tools: ['a'] })],
      layers: [tools('a'), layer([open], { name: 'route' })],
      cedar: cedarPolicy,
    },
    { cedar: new Oracle(() => ({ allow: true, ids: ['p1'] })) },
  )
  const who = principal({ subject: 'alice', scopes: ['s'] })
  t.same(run(call('a', who)).permitted.permit.verdicts, [
    { layer: 'tools-filter', ids: [] },
    { layer: 'scopes', ids: ['s'] },
    { layer: 'rules', ids: ['tools'] },
    { layer: 'route', ids: ['open'] },
    { layer: 'cedar', ids: ['p1'] },
  ])
  const free = run(decoded('ping')).permitted.permit.verdicts
  t.same(
    free.map(({ layer, ids }) => [layer, ...ids]),
    [['tools-filter'], ['scopes'], ['rules'], ['route'], ['cedar']],
  )
})

t.test('the first part that refuses answers', async (t) => {
  const asked = new Oracle(() => ({ allow: false }))
  const parts: [Partial<AuthzPolicy>, string][] = [
    [{ capabilities: { ...all, tools: false } }, 'ERR_UNSUPPORTED'],
    [{ toolsFilters: [['other']] }, 'ERR_TOOL_UNKNOWN'],
    [{ scopes: [demand(['s'], { methods: ['tools/call'] })] }, 'ERR_SCOPE'],
    [{ layers: [layer([rule(['user:bob'], [{ tools: ['*'] }])])] }, 'ERR_DENIED'],
  ]
  for (let first = 0; first < parts.length; first++) {
    const policy = Object.assign({ cedar: cedarPolicy }, ...parts.slice(first).map(([part]) => part))
    const { code } = stage(policy, { cedar: asked })(call('x', principal({ subject: 'alice', scopes: [] })))
    t.equal(code, parts[first]?.[1])
  }
  t.same(asked.asked, [])
})

t.test('the operation is known even of what was refused', async (t) => {
  const { permitted, code } = stage({ layers: [tools('a')] })(call('b'))
  t.equal(code, 'ERR_DENIED')
  t.match(permitted.operation, { kind: 'use', targets: [{ type: 'tool', name: 'b' }] })
})

t.test('a tool outside the filter is unknown, whoever asks and whatever rules say', async (t) => {
  const run = stage({
    toolsFilters: [['a', 'denied']],
    layers: [tools('a', 'hidden')],
    scopes: [demand(['s'], { tools: ['hidden', 'ghost'] })],
  })
  const text = ({ error }: Outcome): string =>
    error === undefined ? 'ok' : `${error.httpStatus(true)} ${rpcErrorText(error, '1', 'r')}`
  const hidden = text(run(call('hidden')))
  t.match(hidden, /^200 .*-32602.*no such tool/)
  for (const who of [alice, bob, robot, anonymous, principal({ subject: 'x', scopes: [] })]) {
    t.equal(text(run(call('hidden', who))), hidden)
    t.equal(text(run(call('ghost', who))), hidden)
  }
  t.equal(text(run(call('a'))), 'ok')
  const denied = text(run(call('denied')))
  t.match(denied, /^403 .*not permitted/, 'a tool that rules deny is there, but not permitted')
  t.notMatch(denied.replace('not permitted', ''), /denied|rule|tools/)
})

t.test('what names no object, or not as a string, is denied', async (t) => {
  const table: [string, object][] = [
    ['tools/call', {}],
    ['tools/call', { name: 1 }],
    ['tools/call', { name: ['a'] }],
    ['resources/read', { uri: null }],
    ['resources/subscribe', {}],
    ['prompts/get', { name: {} }],
    ['completion/complete', {}],
    ['completion/complete', { ref: { type: 'ref/tool', name: 'a' } }],
    ['completion/complete', { ref: { type: 'ref/prompt' } }],
  ]
  const policies: Partial<AuthzPolicy>[] = [
    { layers: [layer([open])] },
    { scopes: [demand(['s'], { tools: ['a'] })] },
    { cedar: cedarPolicy },
  ]
  for (const policy of policies) {
    const cedar = policy.cedar === undefined ? undefined : new Oracle(() => ({ allow: true }))
    for (const [method, params] of table) {
      const { code, error } = stage(policy, { cedar })(decoded(method, params))
      t.equal(code, 'ERR_DENIED', `${method} ${JSON.stringify(params)}`)
      t.match(error?.detail, 'does not say what it is about')
    }
  }
  t.equal(
    stage({ toolsFilters: [['a']] })(decoded('prompts/get', {})).code,
    'ok',
    'a tools filter is for tools',
  )
})

t.test('a URI that climbs is denied, whatever pattern would fit', async (t) => {
  const run = stage({
    layers: [layer([rule(['*'], [{ resources: ['file:///public/*', 'file:///a/../b'] }])])],
  })
  const read = (uri: string): Outcome => run(decoded('resources/read', { uri }))
  t.equal(read('file:///public/a').code, 'ok')
  for (const uri of [
    'file:///public/../secret',
    'file:///public/%2e%2e/x',
    'file:///a/../b',
    'file:///public/a\t',
  ]) {
    t.equal(read(uri).code, 'ERR_DENIED', shown(uri))
    t.match(read(uri).error?.detail, 'segment .. or control characters')
  }
  t.equal(run(decoded('resources/subscribe', { uri: 'file:///public/../secret' })).code, 'ERR_DENIED')
  const wish = { notifications: { resourceSubscriptions: ['file:///public/a', 'file:///public/../b'] } }
  t.equal(run(decoded('subscriptions/listen', wish, { era: 'modern' })).code, 'ERR_DENIED')
})

t.test(
  'a request in the guise of a notification is refused, an unknown one denied under any policy',
  async (t) => {
    const text = '{"jsonrpc":"2.0","method":"tools/call","params":{"name":"a"}}'
    const unknown = '{"jsonrpc":"2.0","method":"x/call","params":{"name":"a"}}'
    t.equal(stage({})(decoded(text)).code, 'ERR_INVALID_REQUEST')
    const policies: Partial<AuthzPolicy>[] = [
      { layers: [layer([open])] },
      { toolsFilters: [['a']] },
      { scopes: [demand(['s'], { methods: ['ping'] })] },
      { capabilities: all },
    ]
    for (const policy of policies) {
      t.equal(stage(policy)(decoded(text)).code, 'ERR_INVALID_REQUEST')
      t.equal(stage(policy)(decoded(unknown)).code, 'ERR_DENIED')
    }
    for (const method of ['notifications/initialized', 'notifications/cancelled', 'notifications/x']) {
      const { code } = stage({ layers: [tools('a')] })(decoded(`{"jsonrpc":"2.0","method":"${method}"}`))
      t.equal(code, 'ok', method)
    }
    t.equal(stage({ layers: [tools('a')] })(decoded('{"jsonrpc":"2.0","id":4,"result":{}}')).code, 'ok')
  },
)

t.test('methods that nobody knows are denied under any policy', async (t) => {
  t.equal(stage({ capabilities: all })(decoded('com.example/x')).code, 'ok', 'capabilities are none')
  const policies: [Partial<AuthzPolicy>, string][] = [
    [{ layers: [layer([open])] }, 'rules'],
    [{ toolsFilters: [['a']] }, 'tools-filter'],
    [{ scopes: [demand(['s'], { tools: ['a'] })] }, 'scopes'],
    [{ cedar: cedarPolicy }, 'cedar'],
    [{ toolsFilters: [['a']], layers: [layer([open])] }, 'tools-filter, rules'],
  ]
  for (const [policy, named] of policies) {
    const cedar = policy.cedar === undefined ? undefined : new Oracle(() => ({ allow: true }))
    const run = stage(policy, { cedar })
    const unknown = [
      'com.example/x',
      'tools/delete',
      'Tools/call',
      '',
      'constructor',
      'notifications/initialized',
    ]
    for (const method of unknown) {
      const { code, error } = run(decoded(method))
      t.equal(code, 'ERR_DENIED', `${named}: ${method}`)
      t.match(error, { detail: 'is no method that a policy can permit', verdict: { layer: named, ids: [] } })
    }
  }
})

t.test('conditions are judged for each message, not for each session', async (t) => {
  const clock = new ManualClock()
  const start = new Date(clock.epoch())
  const from = (minutes: number): string =>
    new Date(start.getTime() + minutes * 60_000).toISOString().slice(11, 16)
  const within = condition('TimeOfDay', 'In', `${from(0)}-${from(10)}`)
  const run = stage(
    { layers: [layer([rule(['*'], [{ tools: ['*'] }], { conditions: [within] })])] },
    { clock },
  )
  t.equal(run(call('a')).code, 'ok')
  clock.pass(11 * 60_000)
  t.equal(run(call('a')).code, 'ERR_DENIED')
})

t.test('lists are filtered by rules and tools filter together', async (t) => {
  const run = stage({
    toolsFilters: [['a', 'b', 'c']],
    layers: [
      layer([
        rule(['*'], [{ tools: ['a', 'd'] }]),
        rule(['*'], [{ tools: ['b'], actions: ['tools/list'] }]),
        rule(['user:bob'], [{ tools: ['c'] }]),
      ]),
    ],
  })
  const named = (...names: string[]): object[] => names.map((name) => ({ name }))
  const result = { tools: named('a', 'b', 'c', 'd'), nextCursor: 'x', ttlMs: 5, cacheScope: 'public' }
  const listed = json(run(decoded('tools/list', {}, { era: 'modern' })).answered(result)).result
  t.same(listed, { tools: named('a', 'b'), nextCursor: 'x', ttlMs: 5, cacheScope: 'private' })
  t.equal(run(call('b')).code, 'ERR_DENIED', 'listed, and not to be called')
  t.same(json(run(decoded('prompts/list')).answered({ prompts: named('a') })).result, { prompts: [] })
  t.same(json(run(decoded('resources/list')).answered({ resources: [{ uri: 'a' }] })).result, {
    resources: [],
  })
  const templates = { resourceTemplates: [{ uriTemplate: 'a{b}' }] }
  t.same(json(run(decoded('resources/templates/list')).answered(templates)).result, { resourceTemplates: [] })
})

t.test('a tools filter alone leaves other lists as they are, but for all to cache', async (t) => {
  const run = stage({ toolsFilters: [['a']] })
  const tools = { tools: [{ name: 'a' }, { name: 'b' }] }
  t.same(json(run(decoded('tools/list')).answered(tools)).result, { tools: [{ name: 'a' }] })
  const prompts = { prompts: [{ name: 'b' }, {}], cacheScope: 'public' }
  t.same(json(run(decoded('prompts/list')).answered(prompts)).result, { ...prompts, cacheScope: 'private' })
})

t.test('scopes hide nothing: a client that does not see a tool would never ask for its scope', async (t) => {
  const run = stage({ scopes: [demand(['s'], { tools: ['*'] })] })
  const result = { tools: [{ name: 'a' }] }
  const who = principal({ subject: 'alice', scopes: [] })
  t.same(json(run(decoded('tools/list', {}, { principal: who })).answered(result)).result, result)
})

t.test('what is read or discovered under a policy is private', async (t) => {
  for (const policy of [{ layers: [layer([open])] }, { toolsFilters: [['a']] }, { capabilities: all }]) {
    const run = stage(policy)
    for (const [method, params] of [
      ['resources/read', { uri: 'x' }],
      ['server/discover', {}],
    ] as const) {
      const result = { cacheScope: 'public', contents: [], capabilities: { tools: {} } }
      const answer = json(run(decoded(method, params, { era: 'modern' })).answered(result)).result
      t.same(answer, { ...result, cacheScope: 'private' }, method)
    }
  }
})

t.test('capabilities that are off are not advertised, in either era', async (t) => {
  const run = stage({ capabilities: { ...all, tools: false } })
  const result = { cacheScope: 'public', capabilities: { tools: {}, prompts: {} } }
  t.same(json(run(decoded('initialize')).answered(result)).result.capabilities, { prompts: {} })
  t.same(json(run(decoded('server/discover', {}, { era: 'modern' })).answered(result)).result, {
    cacheScope: 'private',
    capabilities: { prompts: {} },
  })
  t.equal(run(call('a')).code, 'ERR_UNSUPPORTED')
})

t.test('errors of the server pass, and so do answers to what names no list', async (t) => {
  const run = stage({ layers: [tools('a')] })
  const error = '{"jsonrpc":"2.0","id":7,"error":{"code":-32601,"message":"no"}}'
  t.equal(written(run(decoded('tools/list')).answered(error)), error)
  const result = '{"jsonrpc":"2.0","id":7,"result":{"tools":[{"name":"x"}],"cacheScope":"public"}}'
  t.equal(written(run(call('a')).answered(result)), result)
  t.equal(written(run(decoded('ping')).answered(result)), result)
})

t.test(
  'an answer that cannot be filtered is withheld, and the log says why, but not without end',
  async (t) => {
    const clock = new ManualClock()
    clock.pass(10_000)
    const run = stage({ layers: [tools('a')] }, { clock })
    const odd = ['{"tools":[],"tools":[]}', '{}', '[{"name":"secret"}]', '{"tools":"secret"}', '7']
    for (const result of odd) {
      const answer = run(decoded('tools/list')).answered(`{"jsonrpc":"2.0","id":7,"result":${result}}`)
      t.ok(answer.isError)
      t.match(json(answer), { id: 7, error: { code: -32603, data: { reason: 'ERR_UPSTREAM_MESSAGE' } } })
      t.notMatch(written(answer), 'secret')
    }
    t.match(run.logged, [
      {
        requestId: 'req-1',
        method: 'tools/list',
        detail: 'the result has 2 members like "tools"',
        suppressed: 0,
      },
    ])
    t.equal(run.logged.length, 1)
    clock.pass(1000)
    run(decoded('tools/list')).answered({})
    t.match(run.logged[1], { suppressed: 4 })
  },
)

t.test('a policy that cannot be carried out is refused when it is built', async (t) => {
  t.throws(() => stage({ layers: [layer([rule(['alice'], [{ tools: ['*'] }])])] }), AuthzPolicyError)
  t.throws(() => stage({ toolsFilters: [['*']] }), { message: /toolsFilters\.0\.0/ })
  t.throws(() => stage({ cedar: cedarPolicy }), TypeError)
  t.throws(() => stage({}, { cedar: new Oracle(() => ({})) }), TypeError)
})

t.test('the challenge is made with the scopes that every token needs', async (t) => {
  const run = stage({ scopes: [demand(['s'], { tools: ['a'] })] }, { baseScopes: ['base'] })
  t.match(run(call('a', principal({ subject: 'x', scopes: ['base'] }))).error?.headers, {
    'WWW-Authenticate': 'Bearer error="insufficient_scope", scope="base s"',
  })
})

const anyLayer = fc
  .array(
    fc
      .tuple(
        fc.constantFrom('user:alice', 'group:ops', '*', 'anonymous'),
        fc.subarray(['a', 'b*', '*'], { minLength: 1 }),
      )
      .map(([who, names]) => rule([who], [{ tools: names, resources: names }])),
    { maxLength: 3 },
  )
  .chain((rules) =>
    fc.constantFrom('any' as const, 'all' as const).map((evaluation) => layer(rules, { evaluation })),
  )

t.test(
  'a layer more permits nothing that was not permitted, and lists nothing that was not listed',
  async (t) => {
    const uses = fc.tuple(
      fc.constantFrom('tools/call', 'resources/read', 'x/unknown', 'ping'),
      fc.constantFrom('a', 'b', 'bc', 'c'),
      fc.constantFrom(alice, bob, robot, anonymous),
    )
    holds(
      t,
      fc.property(
        fc.array(anyLayer, { maxLength: 2 }),
        anyLayer,
        uses,
        (layers, more, [method, name, who]) => {
          const [before, after] = [stage({ layers }), stage({ layers: [...layers, more] })]
          const may = (run: ReturnType<typeof stage>): boolean =>
            run(decoded(method, { name, uri: name }, { principal: who })).code === 'ok'
          const lists = (run: ReturnType<typeof stage>): string[] => {
            const tools = ['a', 'b', 'bc', 'c'].map((each) => ({ name: each }))
            const { result } = json(run(decoded('tools/list', {}, { principal: who })).answered({ tools }))
            return result.tools.map((each: { name: string }) => each.name)
          }
          const seen = lists(before)
          return (!may(after) || may(before)) && lists(after).every((each) => seen.includes(each))
        },
      ),
    )
  },
)

t.test('the stage is one function that waits for nothing', async (t) => {
  const context = {
    clock: new ManualClock(),
    log: { debug() {}, info() {}, warn() {}, error() {} },
    cedar: undefined,
    baseScopes: [],
    bearerChallenge: () => '',
  }
  const layerOfStack = createAuthorizer(policyOf({ layers: [tools('a')] }), context)
  const later = Promise.resolve()
  t.equal(
    layerOfStack(call('a'), () => later),
    later,
    'what the next layer returns is returned',
  )
})
