import t from 'tap'
import { allows, caller, judge } from '../support/cedar.ts'

const when = (condition: string): string => `permit(principal, action, resource) when { ${condition} };`

t.test('an attribute of the configuration is not taken for the same one of the context', async (t) => {
  const entities = JSON.stringify([
    { uid: { type: 'Client', id: 'bob' }, attrs: { claim_x: 'fixed' }, parents: [] },
    { uid: { type: 'Tool', id: 'rm' }, attrs: { arg_s: 'fixed' }, parents: [] },
  ])
  const principal = caller({ sub: 'bob' })
  t.ok(
    await allows(when('principal.claim_x == "fixed" && !(context has claim_x)'), { principal }, { entities }),
  )
  t.ok(await allows(when('resource.arg_s == "fixed" && !(context has arg_s)'), { name: 'rm' }, { entities }))
  const given = { name: 'rm', arguments: '{"s":"given"}' }
  t.ok(await allows(when('resource.arg_s == "given" && context.arg_s == "given"'), given, { entities }))
})

t.test('numbers that JavaScript does not have stay what they are', async (t) => {
  const text = when('context.arg_n + 9007199254740990 == 9007199254740993')
  t.ok(await allows(text, { arguments: '{"n":3}' }))
  t.notOk(await allows(text, { arguments: '{"n":2}' }))
})

t.test(
  'where nothing can match a resource that is named, the policies for others do not count',
  async (t) => {
    t.notOk(await allows(when('resource.name != "echo"')))
    t.ok(await allows(when('resource.name != "echo"'), { name: 'add' }))
    t.notOk(await allows(when('resource != Tool::"echo"')))
    t.notOk(await allows(when('!(["echo", "rm"].contains(resource.name))')))
    t.ok(await allows(when('!(["echo", "rm"].contains(resource.name))'), { name: 'add' }))
  },
)

t.test('a condition without a boolean is an error, also behind one that is known', async (t) => {
  const ask = { arguments: '{"s":"a"}' }
  t.match(await judge(when('(resource.name == "echo" && context.arg_s) == "a"'), ask), {
    allow: false,
    errors: [/type/],
  })
})

t.test('a policy with a made-up name of ours reads nothing of ours', async (t) => {
  // With a schema of the operator's, policies may name what they like.
  const schema = `entity Client { claim_sub: String }; entity Tool { name: String };
    action call_tool appliesTo { principal: [Client], resource: [Tool], context: { "resource.name"?: String } };`
  const made = `permit(principal, action, resource) when { context has "resource.name" };`
  const own = `forbid(principal, action, resource) when { resource.name like "r*" };`
  t.notOk(await allows(made + own, {}, { schema }))
})

t.test('more names than there may be slices are judged in one', async (t) => {
  const text = [
    ...Array.from({ length: 80 }, (_, i) => `@id("n${i}") ${when(`resource.name == "t${i}"`)}`),
    ...Array.from(
      { length: 20 },
      (_, i) => `@id("s${i}") permit(principal, action, resource == Tool::"s${i}");`,
    ),
  ].join('\n')
  t.same((await judge(text, { name: 't7' })).ids, ['n7'])
  t.same((await judge(text, { name: 's7' })).ids, ['s7'])
  t.same((await judge(text, { name: 'x' })).ids, [])
})

t.test('membership is that of the whole hierarchy, and of the entity itself', async (t) => {
  const entities = JSON.stringify([
    { uid: { type: 'Tool', id: 'echo' }, attrs: {}, parents: [{ type: 'Tool', id: 'group' }] },
    { uid: { type: 'Tool', id: 'group' }, attrs: {}, parents: [{ type: 'Kit', id: 'k' }] },
    { uid: { type: 'Action', id: 'call_tool' }, attrs: {}, parents: [{ type: 'Action', id: 'any' }] },
  ])
  for (const condition of [
    ...[
      'resource in Tool::"echo"',
      'resource in Tool::"group"',
      'resource in Kit::"k"',
      'resource in MCP::"github"',
    ],
    ...['principal in Client::"alice"', 'action in Action::"any"', 'action in [Action::"call_tool"]'],
    ...['principal is Client in Client::"alice"', 'resource is Tool in Kit::"k"'],
  ]) {
    t.ok(await allows(when(condition), {}, { entities }), condition)
    t.notOk(await allows(when(`!(${condition})`), {}, { entities }), `not ${condition}`)
  }
  for (const condition of ['resource in Tool::"add"', 'resource in []', 'action in Action::"get_prompt"'])
    t.notOk(await allows(when(condition), {}, { entities }), condition)
})
