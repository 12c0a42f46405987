import fc from 'fast-check'
import t from 'tap'
import { compileScopes } from '../../src/authz/scopes.ts'
import { SidecarError } from '../../src/core/errors.ts'
import { operationOf } from '../../src/core/operation.ts'
import type { AuthzPolicy, ScopeDemand } from '../../src/core/policy.ts'
import type { Decoded, Verdict } from '../../src/core/types.ts'
import { alice, anonymous, decoded, demand, identity, principal } from '../support/authz.ts'
import { holds } from '../support/property.ts'

const bearer = (...scopes: string[]) => principal({ subject: 'alice', scopes })

function judged(
  scopes: readonly ScopeDemand[],
  request: Decoded,
  impliedScopes: AuthzPolicy['impliedScopes'] = {},
): Verdict | SidecarError {
  const guard = compileScopes(
    { scopes, impliedScopes },
    { baseScopes: ['mcp'], bearerChallenge: (error, names) => `Bearer ${error} ${names.join(' ')}` },
  )
  try {
    return guard.permit(request, operationOf(request.message))
  } catch (thrown) {
    if (thrown instanceof SidecarError) return thrown
    throw thrown
  }
}

/** The scopes that a token without any would need. */
function needed(scopes: readonly ScopeDemand[], method: string, params: object = {}): unknown {
  const outcome = judged(scopes, decoded(method, params, { principal: bearer() }))
  return outcome instanceof SidecarError ? outcome.verdict?.ids : []
}

t.test('a demand is for methods, for objects, or for objects of methods', async (t) => {
  const call = (name: string): [string, object] => ['tools/call', { name }]
  const read = (uri: string): [string, object] => ['resources/read', { uri }]
  const table: [Partial<ScopeDemand>, [string, object?], boolean][] = [
    [{ methods: ['tools/*'] }, ['tools/list'], true],
    [{ methods: ['tools/*'] }, call('x'), true],
    [{ methods: ['tools/*'] }, ['prompts/list'], false],
    [{ methods: ['logging/setLevel', 'ping'] }, ['ping'], true],
    [{ methods: ['tasks/*'] }, ['tasks/get', { taskId: 't' }], true],
    [{ tools: ['db_*'] }, call('db_x'), true],
    [{ tools: ['db_*'] }, call('x'), false],
    [{ tools: ['db_*'] }, ['tools/list'], false],
    [{ tools: ['db_*'] }, ['prompts/get', { name: 'db_x' }], false],
    [{ prompts: ['p'] }, ['prompts/get', { name: 'p' }], true],
    [{ prompts: ['p'] }, ['completion/complete', { ref: { type: 'ref/prompt', name: 'p' } }], true],
    [{ resources: ['r:*'] }, read('r:1'), true],
    [{ resources: ['r:*'] }, ['resources/subscribe', { uri: 'r:1' }], true],
    [
      { resources: ['r:*'] },
      ['subscriptions/listen', { notifications: { resourceSubscriptions: ['q:1', 'r:1'] } }],
      true,
    ],
    [{ resources: ['file:///secret/*'] }, read('file:///secret/a'), true],
    [{ resources: ['file:///secret/*'] }, read('file:///secre%74/a'), true],
    [{ resources: ['file:///secret/*'] }, read('FILE:/secret/a'), true],
    [{ resources: ['file:///secret/*'] }, read('file:///open/a'), false],
    [{ methods: ['resources/subscribe'], resources: ['r:*'] }, read('r:1'), false],
    [{ methods: ['resources/*'], resources: ['r:*'] }, read('r:1'), true],
    [{ methods: ['resources/*'], resources: ['r:*'] }, read('q:1'), false],
    [{ tools: ['a'], prompts: ['b'] }, ['prompts/get', { name: 'b' }], true],
    [{ tools: ['a'], prompts: ['b'] }, call('b'), false],
  ]
  for (const [what, [method, params], expected] of table) {
    const text = `${JSON.stringify(what)} ${method} ${JSON.stringify(params)}`
    t.same(needed([demand(['s'], what)], method, params), expected ? ['s'] : [], text)
  }
})

t.test('a token with every scope passes, and the scopes are noted', async (t) => {
  const demands = [
    demand(['tools'], { methods: ['tools/*'] }),
    demand(['db', 'tools'], { tools: ['db_*'] }),
    demand(['never'], { tools: ['other'] }),
  ]
  const call = (...scopes: string[]): Decoded =>
    decoded('tools/call', { name: 'db_x' }, { principal: bearer(...scopes) })
  t.same(judged(demands, call('db', 'tools')), { layer: 'scopes', ids: ['tools', 'db'] })
  t.same(judged(demands, decoded('ping', {}, { principal: bearer() })), { layer: 'scopes', ids: [] })
})

t.test('a refusal names all scopes of the operation, those that the token has included', async (t) => {
  const demands = [demand(['tools'], { methods: ['tools/*'] }), demand(['db', 'mcp'], { tools: ['db_*'] })]
  const refusal = judged(
    demands,
    decoded('tools/call', { name: 'db_x' }, { principal: bearer('tools', 'mcp') }),
  )
  t.match(refusal, {
    code: 'ERR_SCOPE',
    headers: { 'WWW-Authenticate': 'Bearer insufficient_scope mcp tools db' },
    data: { scopes: ['mcp', 'tools', 'db'] },
    detail: 'tools/call needs tools db mcp, and the token lacks db',
    verdict: { layer: 'scopes', ids: ['db'] },
  })
  t.equal((refusal as SidecarError).httpStatus(true), 403)
})

t.test('scopes are demanded of tokens alone', async (t) => {
  const demands = [demand(['s'], { methods: ['*'] })]
  for (const who of [alice, anonymous]) {
    t.same(judged(demands, decoded('ping', {}, { principal: who })), { layer: 'scopes', ids: [] })
  }
  const withToken = (scopes: string[]) =>
    principal({ subject: 'cert' }, identity({ subject: 'alice', scopes }))
  t.match(judged(demands, decoded('ping', {}, { principal: withToken([]) })), { code: 'ERR_SCOPE' })
  t.match(judged(demands, decoded('ping', {}, { principal: withToken(['s']) })), { ids: ['s'] })
  const two = principal({ subject: 'a', scopes: ['x'] }, identity({ subject: 'b', scopes: ['s'] }))
  t.match(judged(demands, decoded('ping', {}, { principal: two })), { ids: ['s'] }, 'tokens count together')
})

t.test('notifications and responses need no scope', async (t) => {
  const demands = [demand(['s'], { methods: ['*'] })]
  for (const text of [
    '{"jsonrpc":"2.0","method":"notifications/initialized"}',
    '{"jsonrpc":"2.0","id":1,"result":{}}',
  ]) {
    t.same(judged(demands, decoded(text, {}, { principal: bearer() })), { layer: 'scopes', ids: [] })
  }
})

t.test('a scope has what it implies, over any number of steps, and circles end', async (t) => {
  const implied = {
    admin: ['write', 'audit'],
    write: ['read'],
    a: ['b'],
    b: ['c'],
    c: ['a'],
    __proto__x: ['read'],
    constructor: ['odd'],
  }
  const has = (held: string, scope: string): boolean => {
    const request = decoded('ping', {}, { principal: bearer(held) })
    return !(judged([demand([scope], { methods: ['ping'] })], request, implied) instanceof SidecarError)
  }
  t.ok(has('admin', 'admin') && has('admin', 'write') && has('admin', 'read') && has('write', 'read'))
  t.notOk(has('read', 'write') || has('write', 'admin') || has('audit', 'read'))
  t.ok(has('a', 'c') && has('b', 'a') && has('c', 'b'))
  t.ok(has('constructor', 'odd'))
  t.notOk(has('toString', 'odd') || has('admin', 'toString'))
})

t.test('what is implied is what can be reached', async (t) => {
  const scope = fc.constantFrom('a', 'b', 'c', 'd', 'e')
  holds(
    t,
    fc.property(
      fc.dictionary(scope, fc.array(scope, { maxLength: 3 })),
      scope,
      scope,
      (implied, held, wanted) => {
        const reached = new Set([held])
        for (const each of reached) for (const next of implied[each] ?? []) reached.add(next)
        const request = decoded('ping', {}, { principal: bearer(held) })
        const outcome = judged([demand([wanted], { methods: ['ping'] })], request, implied)
        return outcome instanceof SidecarError === !reached.has(wanted)
      },
    ),
  )
})

t.test('a demand more lets nobody in', async (t) => {
  const anyDemand = fc
    .record({
      methods: fc.subarray(['ping', 'tools/*', '*']),
      tools: fc.subarray(['a', 'a*', '*']),
      scopes: fc.subarray(['s', 't', 'u'], { minLength: 1 }),
    })
    .filter(({ methods, tools }) => methods.length + tools.length > 0)
    .map(({ scopes, ...more }) => demand(scopes, more))
  const request = fc
    .tuple(
      fc.constantFrom('ping', 'tools/call', 'tools/list'),
      fc.constantFrom('a', 'ab', 'b'),
      fc.subarray(['s', 't', 'u']),
    )
    .map(([method, name, scopes]) => decoded(method, { name }, { principal: bearer(...scopes) }))
  holds(
    t,
    fc.property(fc.array(anyDemand, { maxLength: 3 }), anyDemand, request, (demands, more, request) => {
      const passes = (some: ScopeDemand[]): boolean => !(judged(some, request) instanceof SidecarError)
      return !passes([...demands, more]) || passes(demands)
    }),
  )
})
