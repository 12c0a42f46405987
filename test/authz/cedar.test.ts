import t from 'tap'
import { CedarError, loadCedar } from '../../src/authz/cedar.ts'
import { allows, caller, cedarPolicy, judge, question } from '../support/cedar.ts'

const call = 'principal, action == Action::"call_tool", resource'

t.test('a permit that matches allows, and is named', async (t) => {
  t.same(await judge(`@id("all") permit(principal, action, resource);`), {
    allow: true,
    ids: ['all'],
    errors: [],
  })
  t.same(await judge(`permit(${call}) when { resource.name == "echo" };`), {
    allow: true,
    ids: ['a.cedar#1'],
    errors: [],
  })
})

t.test('what no policy matches is denied, with nobody to name', async (t) => {
  const nothing = { allow: false, ids: [], errors: [] }
  t.same(await judge(`permit(${call} == Tool::"add");`), nothing)
  t.same(await judge(`permit(${call}) when { resource.name == "add" };`), nothing)
  t.same(await judge(`permit(${call});`, { action: 'prompts/get' }), nothing)
  t.same(await judge(`permit(principal == Client::"bob", action, resource);`), nothing)
})

t.test('a forbid wins and is named', async (t) => {
  const text = `@id("p") permit(${call}); @id("f") forbid(${call}) when { principal.claim_sub == "alice" };`
  t.same(await judge(text), { allow: false, ids: ['f'], errors: [] })
})

t.test('any error denies, also beside a permit that matches', async (t) => {
  const permit = `@id("p") permit(${call});`
  const error = await judge(`${permit} @id("f") forbid(${call}) when { context.arg_n > 5 };`)
  t.equal(error.allow, false, 'Cedar alone would allow')
  t.same(error.errors, ['f: record does not have the attribute `arg_n`'])
  const type = await judge(`${permit} @id("f") forbid(${call}) when { context.arg_n > 5 };`, {
    arguments: '{"n":"x"}',
  })
  t.match(type, { allow: false, errors: [/f: type error: expected .*long/] })
})

t.test('a condition that cannot hold does not hide the error of one before it', async (t) => {
  const hidden = `permit(${call}); forbid(${call}) when { context.arg_n > 5 } when { resource.name == "other" };`
  t.match(await judge(hidden), { allow: false, errors: [/arg_n/] })
  const before = `permit(${call}); forbid(${call}) when { resource.name == "other" } when { context.arg_n > 5 };`
  t.match(await judge(before), { allow: true, errors: [] })
})

t.test('errors name no value of an argument, a claim or a tag', async (t) => {
  for (const condition of [
    'decimal(context.arg_s).lessThan(decimal("1.0"))',
    'ip(context.arg_s).isLoopback()',
    'datetime(context.arg_s) < datetime("2024-01-01")',
    'principal.getTag(context.arg_s) == 1',
    'context.arg_n + 1 + 9223372036854775807 > 0',
    'context.arg_s < 5',
  ]) {
    const { errors } = await judge(`permit(${call}) when { ${condition} };`, {
      arguments: '{"s":"hunter2","n":4711}',
    })
    t.equal(errors.length, 1, condition)
    t.notMatch(errors[0], /hunter2|4711/, `${condition}: ${errors[0]}`)
  }
})

t.test('resources are in their server', async (t) => {
  t.ok(await allows(`permit(${call} in MCP::"github");`))
  t.notOk(await allows(`permit(${call} in MCP::"gitlab");`))
  t.ok(await allows(`permit(${call}) when { resource in [MCP::"x", MCP::"github"] };`))
  t.notOk(await allows(`permit(${call} in MCP::"github");`, {}, { server: '' }))
  const entities = '[{"uid":{"type":"MCP","id":"github"},"attrs":{},"parents":[{"type":"MCP","id":"all"}]}]'
  t.ok(await allows(`permit(${call} in MCP::"all");`, {}, { entities }))
})

t.test('every action has its resource, with its attributes', async (t) => {
  const all = (condition: string): string => `permit(principal, action, resource) when { ${condition} };`
  const cases = [
    ['tools/call', 'Tool', 'call', 'tool', 'call_tool'],
    ['prompts/get', 'Prompt', 'get', 'prompt', 'get_prompt'],
    ['resources/read', 'Resource', 'read', 'resource', 'read_resource'],
  ] as const
  for (const [action, type, operation, feature, id] of cases) {
    const is = `resource is ${type} && resource.name == "file:///a" && resource == ${type}::"file:///a"`
    const has = `resource.operation == "${operation}" && resource.feature == "${feature}"`
    const text = all(`${is} && ${has} && action == Action::"${id}" && action.operation == "${id}"`)
    t.ok(await allows(text, { action, name: 'file:///a' }), action)
    t.notOk(await allows(text, { action, name: 'file:///b' }), action)
    const uri = all('resource has uri && resource.uri == "file:///a"')
    t.equal(await allows(uri, { action, name: 'file:///a' }), type === 'Resource', 'uri')
  }
})

t.test('hints of the server are attributes of tools alone', async (t) => {
  const text =
    'permit(principal, action, resource) when { resource has readOnlyHint && resource.readOnlyHint };'
  t.ok(await allows(text, { hints: { readOnlyHint: true } }))
  t.notOk(await allows(text, { hints: { readOnlyHint: false } }))
  t.notOk(await allows(text))
  t.notOk(await allows(text, { action: 'prompts/get', hints: { readOnlyHint: true } }))
})

t.test('it is known beforehand whether hints matter for the use of tools', async (t) => {
  const reads = async (text: string, more = {}): Promise<boolean> =>
    (await loadCedar(cedarPolicy(text, more))).readsHints
  const forbid = (scope: string, condition: string): string =>
    `permit(principal, action, resource); forbid(${scope}) when { ${condition} };`
  const hint = 'resource has destructiveHint && resource.destructiveHint'
  const entities = '[{"uid":{"type":"Action","id":"uses"},"attrs":{},"parents":[]}]'
  for (const name of ['readOnlyHint', 'destructiveHint', 'idempotentHint', 'openWorldHint'])
    t.ok(await reads(forbid('principal, action, resource', `resource has ${name}`)), name)
  for (const scope of [
    call,
    'principal, action, resource == Tool::"a"',
    'principal, action, resource is Tool',
  ])
    t.ok(await reads(forbid(scope, hint)), scope)
  t.ok(
    await reads(forbid('principal, action, resource', `context has arg_n && (${hint} || context.arg_n > 1)`)),
  )
  for (const scope of [
    'principal, action == Action::"get_prompt", resource',
    'principal, action, resource is Prompt',
  ])
    t.notOk(await reads(forbid(scope, hint)), scope)
  t.notOk(await reads(forbid('principal, action in Action::"uses", resource', hint), { entities }))
  t.notOk(await reads(forbid('principal, action, resource', 'resource.name == "destructiveHint"')))
  t.notOk(await reads('permit(principal, action, resource);'))
})

t.test('an object of a list is judged without arguments', async (t) => {
  t.ok(await allows(`permit(${call});`, { listed: true }))
  t.notOk(await allows(`permit(${call}) when { context.arg_n == 1 };`, { listed: true }))
})

t.test('entities of the configuration keep what the request does not say', async (t) => {
  const entities = JSON.stringify([
    {
      uid: { type: 'Tool', id: 'echo' },
      attrs: { owner: 'alice', name: 'liar' },
      parents: [{ type: 'Set', id: 's' }],
    },
    {
      uid: { __entity: { type: 'Client', id: 'alice' } },
      attrs: { level: 3, claim_sub: 'liar' },
      parents: [],
    },
    { uid: { type: 'THVGroup', id: 'dev' }, attrs: {}, parents: [{ type: 'THVGroup', id: 'staff' }] },
  ])
  const principal = caller({ sub: 'alice', groups: ['dev'] })
  const holds = (condition: string): Promise<boolean> =>
    allows(`permit(${call}) when { ${condition} };`, { principal }, { entities })
  t.ok(await holds('resource.owner == principal.claim_sub && principal.level == 3'))
  t.ok(await holds('resource.name == "echo"'), 'the request wins')
  t.ok(await holds('resource in Set::"s" && resource in MCP::"github"'))
  t.ok(await holds('principal in THVGroup::"staff"'), 'groups of groups')
  t.notOk(await holds('principal in THVGroup::"admins"'))
  t.notOk(await holds('resource in Set::"t"'))
})

t.test('entities are followed where attributes lead to them', async (t) => {
  const entities = JSON.stringify([
    {
      uid: { type: 'Tool', id: 'echo' },
      attrs: { team: { __entity: { type: 'Team', id: 'x' } } },
      parents: [],
    },
    { uid: { type: 'Team', id: 'x' }, attrs: { lead: 'alice' }, parents: [], tags: { color: 'red' } },
  ])
  const text = `permit(${call}) when { resource.team.lead == principal.claim_sub && resource.team.getTag("color") == "red" };`
  t.ok(await allows(text, {}, { entities }))
  t.notOk(await allows(text, { principal: caller({ sub: 'bob' }) }, { entities }))
})

t.test('what is wrong with the configuration is said all at once', async (t) => {
  const text = `permit(principal, action == Action::"cal_tool", resource);
permit(principal, action, resource) when { resource == Tol::"x" };`
  const entities = '{"not": "a list"}'
  try {
    await loadCedar(cedarPolicy(text, { entities, groupEntityType: 'A::B' }))
    t.fail('loaded')
  } catch (thrown) {
    t.ok(thrown instanceof CedarError)
    t.match((thrown as CedarError).problems, [{ where: 'groupEntityType' }, { where: 'entities' }])
  }
  await t.rejects(loadCedar(cedarPolicy(text)), {
    message: /^a\.cedar:1:29: .*cal_tool.*\na\.cedar:2:56: .*Tol/,
  })
})

t.test('a configuration that cannot work is refused', async (t) => {
  const fine = 'permit(principal, action, resource);'
  const one = (uid: object, parents: object[] = []): string => JSON.stringify([{ uid, attrs: {}, parents }])
  const cases: [Parameters<typeof cedarPolicy>, RegExp][] = [
    [[''], /policies: there is no policy/],
    [['// nothing'], /policies: there is no policy/],
    [[fine, { entities: '[' }], /entities: not JSON/],
    [[fine, { entities: '[{"uid": 3}]' }], /entities: /],
    [[fine, { entities: '[3]' }], /entities: /],
    [[fine, { entities: one({ type: 'A', id: 'a' }, [{ type: 'A', id: 'a' }]) }], /cycle/],
    [
      [fine, { entities: one({ type: 'MCP', id: 'github' }, [{ type: 'Tool', id: 'a' }]) }],
      /server is inside/,
    ],
    [[fine, { entities: JSON.stringify(Array.from({ length: 10_001 }, () => ({}))) }], /more than 10000/],
    [[fine, { groupEntityType: 'Client' }], /groupEntityType/],
    [[fine, { groupEntityType: 'if' }], /groupEntityType/],
  ]
  for (const [args, message] of cases) await t.rejects(loadCedar(cedarPolicy(...args)), { message })
})

t.test('a caller that its groups make part of itself is denied', async (t) => {
  const entities =
    '[{"uid":{"type":"THVGroup","id":"g"},"attrs":{},"parents":[{"type":"Client","id":"alice"}]}]'
  const text = 'permit(principal, action, resource);'
  const ask = { principal: caller({ sub: 'alice', groups: ['g'] }) }
  t.match(await judge(text, ask, { entities }), { allow: false, errors: [/part of itself/] })
  t.ok(await allows(text, {}, { entities }))
})

t.test('text that the engine cannot take is denied before it gets there', async (t) => {
  const half = '\ud800'
  const text = `permit(${call}) when { context has arg_s || principal has claim_x || true };`
  for (const ask of [
    { arguments: '{"s":"\\ud800"}' },
    { name: half },
    { principal: caller({ sub: half }) },
    { principal: caller({ sub: 'a', x: [half] }) },
    { principal: caller({ sub: 'a', groups: [half] }) },
    { name: 'x'.repeat(70_000) },
  ]) {
    t.match(await judge(text, ask), { allow: false, errors: [/Unicode|ill-formed/] })
  }
})

t.test('deciders of earlier loads stay good, whatever was loaded since', async (t) => {
  const names = ['a', 'b', 'c', 'd', 'e']
  const deciders = await Promise.all(
    names.map((name) => loadCedar(cedarPolicy(`@id("${name}") permit(${call} == Tool::"${name}");`))),
  )
  for (let round = 0; round < 3; round++)
    for (const [i, decider] of deciders.entries())
      for (const name of names) {
        const expected = name === names[i] ? [name] : []
        t.same(decider.decide(question({ name })).ids, expected, `decider ${names[i]} on ${name}`)
      }
})

t.test('500 reloads need no more memory than the first ones', async (t) => {
  const text = Array.from(
    { length: 24 },
    (_, i) => `@id("p${i}") permit(${call}) when { context has arg_a && context.arg_a like "*${i}*" };`,
  ).join('\n')
  const reload = async (times: number): Promise<number> => {
    for (let i = 0; i < times; i++) {
      const decider = await loadCedar(cedarPolicy(`${text} permit(${call} == Tool::"t${i}");`))
      decider.decide(question({ name: `t${i}` }))
    }
    return process.memoryUsage().rss
  }
  const before = await reload(60)
  const after = await reload(500)
  // Under 500 ids it would be about 50 MiB.
  t.ok(after - before < 32 * 2 ** 20, `grew by ${Math.round((after - before) / 2 ** 20)} MiB`)
})

t.test('an attribute of the configuration may have any name', async (t) => {
  const text = `permit(principal, action, resource);
forbid(principal, action, resource) when { !principal.hasTag("x") && principal has "__proto__" };`
  const entities = '[{"uid":{"type":"Client","id":"alice"},"attrs":{"__proto__":"blocked"},"parents":[]}]'
  t.equal(await allows(text, {}, { entities }), false)
  t.equal(await allows(text, { principal: caller({ sub: 'bob' }) }, { entities }), true)
})
