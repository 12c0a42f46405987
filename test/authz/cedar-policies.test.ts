import * as cedar from '@cedar-policy/cedar-wasm/nodejs'
import t from 'tap'
import type { Engine, Problem } from '../../src/authz/cedar-ast.ts'
import { type Policy, readPolicies } from '../../src/authz/cedar-policies.ts'

const engine = cedar as unknown as Engine

function read(...texts: readonly string[]): { policies: readonly Policy[]; problems: Problem[] } {
  const problems: Problem[] = []
  const files = texts.map((text, i) => ({ name: `${'abc'[i]}.cedar`, text }))
  return { policies: readPolicies(engine, files, problems), problems }
}

const ids = (...texts: readonly string[]): readonly string[] => read(...texts).policies.map(({ id }) => id)

t.test('a policy is named by its annotation, else by its file and number', async (t) => {
  const text = '@id("one") permit(principal, action, resource); permit(principal, action, resource);'
  t.same(ids(text, 'permit(principal, action, resource);'), ['one', 'a.cedar#2', 'b.cedar#1'])
  t.same(ids('@note("x") @id("two") forbid(principal, action, resource);'), ['two'])
  t.same(ids('@id permit(principal, action, resource);'), ['a.cedar#1'], 'an annotation without a value')
})

t.test('policies are told apart whatever their texts and comments hold', async (t) => {
  const text = `// permit(principal, action, resource);
@id("a;b") permit(principal, action, resource) when { context.claim_a == ";\\"; // no comment" }; // é; "
@id("c") forbid(principal, action, resource);
// the end; "`
  t.same(read(text).problems, [])
  t.same(ids(text), ['a;b', 'c'])
})

t.test('more than nine policies keep their order', async (t) => {
  const text = 'permit(principal, action, resource);\n'.repeat(12)
  t.same(
    ids(text),
    Array.from({ length: 12 }, (_, i) => `a.cedar#${i + 1}`),
  )
})

t.test('mistakes are found where they stand, all of them', async (t) => {
  const text = `// é 😀
permit(principal, action, resource);
  permit(principal, action, resource) when { "é😀" == "" && context.x = 3 };
forbit(principal, action, resource);
permit(principal == ?principal, action, resource);
permit(principal, action, resource) when { context.x.foo() && bar(3) };`
  t.match(read(text).problems, [
    { where: 'a.cedar:3:60', message: /'=' is not a valid operator.*==/ },
    { where: 'a.cedar:4:1', message: /invalid policy effect: forbit/ },
    { where: 'a.cedar:5:21', message: /slot \?principal; templates are not supported/ },
    { where: 'a.cedar:6:44', message: /foo/ },
    { where: 'a.cedar:6:63', message: /bar/ },
  ])
  t.same(ids(text), ['a.cedar#1'], 'what is right is read')
})

t.test('a policy that does not end is a mistake', async (t) => {
  t.match(read('permit(principal, action, resource)').problems, [{ where: /^a\.cedar:1:/ }])
  t.match(read('\npermit(principal, action, resource) when { "x };').problems, [{ where: /^a\.cedar:2:/ }])
  t.match(read(';').problems, [{ where: /^a\.cedar:1:/ }])
  t.match(read('permit(principal, action, resource);;').problems, [{ where: /^a\.cedar:1:/ }])
})

t.test('an id stands once in all files', async (t) => {
  const text = '@id("x") permit(principal, action, resource);'
  t.same(read(text, `\n  // again\n  ${text}`).problems, [
    { where: 'b.cedar:3:3', message: 'the id "x" stands at a.cedar:1:1 already' },
  ])
  t.match(
    read('@id("a.cedar#2") permit(principal, action, resource); permit(principal, action, resource);')
      .problems,
    [{ where: 'a.cedar:1:55', message: /stands at a\.cedar:1:1/ }],
  )
})

t.test('an id can be written to a log', async (t) => {
  for (const id of ['', 'x'.repeat(201)])
    t.match(read(`@id("${id}") permit(principal, action, resource);`).problems, [{ message: /1 to 200/ }])
})

t.test('no text, or comments alone, are no policies and no mistake', async (t) => {
  for (const text of ['', ' \n', '// permit(principal, action, resource);']) {
    t.same(read(text), { policies: [], problems: [] })
  }
})

t.test('a place in a policy is counted in characters from the beginning of the file', async (t) => {
  const [, second] = read(
    'permit(principal, action, resource);\r\n// é\r\npermit(principal, action, resource);',
  ).policies
  t.equal(second?.place(9), 'a.cedar:3:1', 'line breaks and two bytes of é before')
  t.equal(second?.find(/action/), 'a.cedar:3:19')
  t.equal(second?.find(/nothing/), 'a.cedar:3:1')
})

t.test('what is too deep for the engine never gets to it', async (t) => {
  const policy = (condition: string): string => `permit(principal, action, resource) when { ${condition} };`
  const many = (count: number, text: string): string => text.repeat(count)
  const deep = [
    ...[
      `${many(60, '!(')}true${many(60, ')')}`,
      `${many(200, 'true && (')}true${many(200, ')')}`,
      many(99, '!'),
    ],
    ...[`true${many(5000, ' || true')}`, `1 ${many(100, '+ 1')} == 2`, `1 == ${many(100, '-')}1`],
    ...[`${many(80, '[1, ')}1${many(80, ']')}.isEmpty()`, `${many(70, 'if true then true else ')}false`],
  ]
  for (const condition of deep) {
    const { policies, problems } = read(`permit(principal, action, resource);\n${policy(condition)}`)
    t.same(policies, [])
    t.match(problems, [{ where: 'a.cedar:2:1', message: /nests, or chains/ }], condition.slice(0, 20))
  }
  const fine = [
    ...[
      `true${many(40, ' || true')}`,
      `${many(20, '!(')}true${many(20, ')')}`,
      `[${many(500, '-1, ')}1].isEmpty()`,
    ],
    ...[`"${many(100, '((')}" == "a" // ${many(100, '((')}\n`],
  ]
  for (const condition of fine) t.same(read(policy(condition)).problems, [], condition.slice(0, 20))
  t.same(ids('permit(principal, action, resource);'), ['a.cedar#1'], 'the engine still works')
})
