import t from 'tap'
import { createJudge } from '../../src/authz/judge.ts'
import { filteredList } from '../../src/authz/list-filter.ts'
import { SidecarError } from '../../src/core/errors.ts'
import { messageOf } from '../../src/core/local.ts'
import { operationOf } from '../../src/core/operation.ts'
import type { RuleLayer } from '../../src/core/policy.ts'
import type { ToolHints } from '../../src/core/tool-hints.ts'
import type { Decoded, Verdict } from '../../src/core/types.ts'
import { alice, bob, cedarPolicy, decoded, json, layer, Oracle, policyOf, rule } from '../support/authz.ts'
import { ManualClock } from '../support/modern-calls.ts'

function judge(layers: readonly RuleLayer[], cedar?: Oracle) {
  const policy = policyOf({ layers, cedar: cedar === undefined ? undefined : cedarPolicy })
  const made = createJudge(policy, { clock: new ManualClock(), cedar })
  if (made === undefined) throw new Error('nothing to judge by')
  return {
    asks: (request: Decoded): Verdict[] | SidecarError => {
      const verdicts: Verdict[] = []
      try {
        made.permit(request, operationOf(request.message), verdicts)
        return verdicts
      } catch (thrown) {
        if (thrown instanceof SidecarError) return thrown
        throw thrown
      }
    },
    lists: (list: string, items: readonly object[], request = decoded('tools/list')): object[] => {
      const answer = messageOf(JSON.stringify({ jsonrpc: '2.0', id: 1, result: { [list]: items } }))
      return json(filteredList(answer, list, made.listing(request))).result[list]
    },
  }
}

const tools = (name: string, ids: readonly string[], id = name): RuleLayer =>
  layer([rule(['*'], [{ tools: ids }], { id: `${id}-rule` })], { name })
const call = (name: string): Decoded => decoded('tools/call', { name, arguments: { n: 1 } })

t.test('without rules and without Cedar there is nothing to judge by', async (t) => {
  const context = { clock: new ManualClock(), cedar: undefined }
  t.equal(createJudge(policyOf({}), context), undefined)
  t.equal(
    createJudge(policyOf({ layers: [layer([])] }), context),
    undefined,
    'a layer without rules is no layer',
  )
})

t.test('each layer must permit, and each leaves its verdict', async (t) => {
  const { asks } = judge([
    tools('gateway', ['a', 'b']),
    layer([], { name: 'empty' }),
    tools('route', ['b', 'c']),
  ])
  t.same(asks(call('b')), [
    { layer: 'gateway', ids: ['gateway-rule'] },
    { layer: 'route', ids: ['route-rule'] },
  ])
  t.match(asks(call('a')), { code: 'ERR_DENIED', verdict: { layer: 'route' } })
  t.match(asks(call('c')), { code: 'ERR_DENIED', verdict: { layer: 'gateway' } })
})

t.test('what touches no object is asked of nobody', async (t) => {
  const oracle = new Oracle(() => ({ allow: false }))
  const { asks } = judge([tools('route', ['a'])], oracle)
  const free = [
    'initialize',
    'ping',
    'server/discover',
    'logging/setLevel',
    'tools/list',
    'tasks/get',
    'tasks/result',
  ]
  for (const method of free) {
    t.same(
      asks(decoded(method)),
      [
        { layer: 'route', ids: [] },
        { layer: 'cedar', ids: [] },
      ],
      method,
    )
  }
  t.same(asks(decoded('{"jsonrpc":"2.0","method":"notifications/initialized"}')), asks(decoded('ping')))
  t.same(oracle.asked, [])
})

t.test('Cedar is one more layer, asked with all it may decide by', async (t) => {
  const oracle = new Oracle(({ target }) => ({ allow: target.name === 'a', ids: ['allow-a'] }))
  const { asks } = judge([tools('route', ['a', 'b'])], oracle)
  const request = call('a')
  t.same(asks(request), [
    { layer: 'route', ids: ['route-rule'] },
    { layer: 'cedar', ids: ['allow-a'] },
  ])
  const [question] = oracle.asked
  t.match(question, { action: 'tools/call', target: { type: 'tool', name: 'a' }, hints: undefined })
  t.equal(question?.principal, alice)
  t.equal(question?.message, request.message)
  t.equal(question?.request, request)
  t.match(asks(call('b')), {
    code: 'ERR_DENIED',
    detail: 'cedar: tools/call of tool "b" to "user:alice": denied by "allow-a"',
    verdict: { layer: 'cedar', ids: ['allow-a'] },
  })
  oracle.asked.length = 0
  t.match(asks(call('c')), { verdict: { layer: 'route' } })
  t.same(oracle.asked, [], 'what rules refuse, it need not be asked')
})

t.test('Cedar alone decides, too', async (t) => {
  const { asks } = judge([], new Oracle(({ action }) => ({ allow: action === 'prompts/get' })))
  t.same(asks(decoded('prompts/get', { name: 'p' })), [{ layer: 'cedar', ids: [] }])
  t.match(asks(call('a')), { detail: /no policy permits it$/ })
})

t.test('of several objects each is asked about', async (t) => {
  const oracle = new Oracle(({ target }) => ({ allow: target.name !== 'r:3', ids: ['all', target.name] }))
  const { asks } = judge([], oracle)
  const listen = (...uris: string[]): Decoded =>
    decoded('subscriptions/listen', { notifications: { resourceSubscriptions: uris } })
  t.same(asks(listen('r:1', 'r:2')), [{ layer: 'cedar', ids: ['all', 'r:1', 'r:2'] }])
  t.match(asks(listen('r:1', 'r:3', 'r:2')), { code: 'ERR_DENIED', detail: /"r:3"/ })
})

t.test('whatever goes wrong in Cedar denies', async (t) => {
  const wrong = judge([], new Oracle(() => ({ allow: true, ids: ['p'], errors: ['attribute missing', 'b'] })))
  t.match(wrong.asks(call('a')), {
    code: 'ERR_DENIED',
    detail: 'cedar: tools/call of tool "a" to "user:alice": error: "attribute missing"; "b"',
  })
  t.same(wrong.lists('tools', [{ name: 'a' }]), [])
  const broken = judge(
    [],
    new Oracle(() => {
      throw new Error('out of memory')
    }),
  )
  t.match(broken.asks(call('a')), { code: 'ERR_DENIED', detail: /error: "out of memory"/ })
  t.same(broken.lists('tools', [{ name: 'a' }]), [])
})

t.test('of a list stays what every layer shows and Cedar would permit to use', async (t) => {
  const oracle = new Oracle(({ target }) => ({ allow: target.name !== 'b' }))
  const open = rule(['*'], [{ tools: ['a', 'b', 'c'], resources: ['x:*'], prompts: ['p', 'b'] }])
  const { lists } = judge(
    [layer([open]), layer([rule(['*'], [{ tools: ['*'], resources: ['*'], prompts: ['*'] }])])],
    oracle,
  )
  const named = (...names: string[]): object[] => names.map((name) => ({ name }))
  t.same(lists('tools', named('a', 'b', 'd', 'c')), named('a', 'c'))
  t.same(
    oracle.asked.map(({ target, action, message }) => [target.name, action, message]),
    ['a', 'b', 'c'].map((name) => [name, 'tools/call', undefined]),
  )
  t.same(lists('prompts', named('p', 'b', 'q')), named('p'))
  t.same(lists('resources', [{ uri: 'x:1' }, { uri: 'y:1' }]), [{ uri: 'x:1' }])
  oracle.asked.length = 0
  const templates = [{ uriTemplate: 'x:{a}' }, { uriTemplate: 'y:{a}' }]
  t.same(lists('resourceTemplates', templates), [templates[0]])
  t.match(oracle.asked, [{ action: 'resources/read', target: { type: 'resource', name: 'x:{a}' } }])
})

t.test('a URI that climbs is not listed', async (t) => {
  const { lists } = judge([layer([rule(['*'], [{ resources: ['*'] }])])])
  t.same(lists('resources', [{ uri: 'x:/a' }, { uri: 'x:/a/../b' }, { uri: 'x:/%2e%2e/b' }]), [
    { uri: 'x:/a' },
  ])
  t.same(lists('resourceTemplates', [{ uriTemplate: 'x:/../{a}' }]), [])
})

t.test('lists are those of the caller', async (t) => {
  const mine = judge([
    layer([rule(['user:bob'], [{ tools: ['b'] }]), rule(['user:alice'], [{ tools: ['a'] }])]),
  ])
  const items = [{ name: 'a' }, { name: 'b' }]
  t.same(mine.lists('tools', items), [{ name: 'a' }])
  t.same(mine.lists('tools', items, decoded('tools/list', {}, { principal: bob })), [{ name: 'b' }])
})

t.test('what the server says of a tool is told when it is called, and of each tool of a list', async (t) => {
  const oracle = new Oracle(({ hints }) => ({ allow: hints?.destructiveHint !== true }), true)
  const { asks, lists } = judge([], oracle)
  const known = (name: string, toolHints: ToolHints | undefined): Decoded => ({ ...call(name), toolHints })
  t.same(asks(known('a', { destructiveHint: false })), [{ layer: 'cedar', ids: [] }])
  t.same(asks(known('a', {})), [{ layer: 'cedar', ids: [] }], 'it is known that there are none')
  t.same(oracle.asked.at(-1)?.hints, {})
  t.match(asks(known('a', { destructiveHint: true })), {
    code: 'ERR_DENIED',
    detail: /no policy permits it$/,
  })
  const tool = (name: string, annotations?: object): object => ({
    name,
    ...(annotations && { annotations }),
  })
  const [a, b, c] = [tool('a', { destructiveHint: false }), tool('b', { destructiveHint: true }), tool('c')]
  t.same(lists('tools', [a, b, c]), [a, c], 'a list tells itself')
  t.match(asks(call('a')), { code: 'ERR_DENIED' }, 'nothing is learnt from it')
})

t.test('without a word of the server on it a tool is not used where policies go by that', async (t) => {
  const oracle = new Oracle(() => ({ allow: true }), true)
  const { asks, lists } = judge([], oracle)
  t.match(asks(call('a')), {
    code: 'ERR_DENIED',
    detail:
      'cedar: tools/call of tool "a" to "user:alice": error: "what the server says of it is not known: there is no list of tools, or it does not hold this one exactly once"',
    verdict: { layer: 'cedar', ids: [], errors: [/^what the server says of it is not known/] },
  })
  t.same(oracle.asked, [])
  const twice = messageOf(
    '{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a","annotations":{},"annotations":{}}]}}',
  )
  const made = createJudge(policyOf({ cedar: cedarPolicy }), { clock: new ManualClock(), cedar: oracle })
  const mayList = made?.listing(decoded('tools/list')) ?? (() => true)
  t.same(json(filteredList(twice, 'tools', mayList)).result.tools, [], 'nor is it listed')
  t.same(asks(decoded('prompts/get', { name: 'p' })), [{ layer: 'cedar', ids: [] }], 'others have no hints')
  t.same(lists('prompts', [{ name: 'p' }]), [{ name: 'p' }])
  const indifferent = judge([], new Oracle(() => ({ allow: true })))
  t.same(indifferent.asks(call('a')), [{ layer: 'cedar', ids: [] }], 'nobody wants to know')
})

t.test('another spelling of a URI does not get around a policy that forbids', async (t) => {
  const oracle = new Oracle(({ target: { name } }) => ({ allow: name !== 'demo://docs/secret', ids: [name] }))
  const { asks, lists } = judge([], oracle)
  const read = (uri: string) => asks(decoded('resources/read', { uri }))
  t.same(read('demo://docs/open'), [{ layer: 'cedar', ids: ['demo://docs/open'] }])
  t.equal(oracle.asked.length, 1, 'a normal form is asked about once')
  t.same(read('demo://docs//open'), [{ layer: 'cedar', ids: ['demo://docs//open', 'demo://docs/open'] }])
  const uris = ['DEMO://docs/secret', 'demo://docs/./secret', 'demo://docs/s%65cret', 'demo://docs/secret#']
  for (const uri of [...uris, 'demo://docs/secret?', 'demo://docs//secret']) {
    t.match(read(uri), { code: 'ERR_DENIED', detail: /\(read as "demo:\/\/docs\/secret"\)/ }, uri)
    t.same(lists('resources', [{ uri }, { uri: 'demo://docs/open' }]), [{ uri: 'demo://docs/open' }], uri)
  }
  const template = { uriTemplate: 'demo://docs/{name}' }
  oracle.asked.length = 0
  t.same(lists('resourceTemplates', [template]), [template])
  t.equal(oracle.asked.length, 1)
})
