import * as cedar from '@cedar-policy/cedar-wasm/nodejs'
import t from 'tap'
import type { Engine, Expr, PolicyJson } from '../../src/authz/cedar-ast.ts'
import { folded, foldedPolicy } from '../../src/authz/cedar-folding.ts'

function policy(conditions: string): PolicyJson {
  const read = (cedar as unknown as Engine).policyToJson(`permit(principal, action, resource) ${conditions};`)
  if (read.type === 'failure') throw new Error(JSON.stringify(read.errors))
  return read.json
}

const expr = (text: string): Expr => policy(`when { ${text} }`).conditions[0]?.body as Expr

t.test('what is constant is worked out', async (t) => {
  for (const [text, result] of [
    ['"a" == "a"', 'true'],
    ['"a" == 1', 'false'],
    ['1 != 2', 'true'],
    ['Tool::"a" == Tool::"a"', 'true'],
    ['Tool::"a" != Prompt::"a"', 'true'],
    ['["a", "b"].contains("b")', 'true'],
    ['["a", 1].contains("1")', 'false'],
    ['!("a" == "b")', 'true'],
    ['false && context.x', 'false'],
    ['true || context.x', 'true'],
    ['true && context.x == 1', 'context.x == 1'],
    ['false || context has x', 'context has x'],
    ['if 1 == 1 then context.x else context.y', 'context.x'],
    ['if 1 == 2 then context.x else context.y', 'context.y'],
    ['(1 == 1 && context.x < 2) || "a" == "b"', 'context.x < 2 || false'],
  ] as const) {
    t.same(folded(expr(text)), expr(result), text)
  }
})

t.test('what depends on the request, or may err, stays', async (t) => {
  for (const text of [
    ...['context.x && false', 'context.x || true', 'true && context.x', 'false || context.x'],
    ...['context.x == "a"', '["a", context.x].contains("a")', 'principal == Client::"a"', '!context.x'],
    ...[
      'decimal("1.0") == decimal("1.0")',
      '"a" < 1',
      '1 + 1 == 2',
      '!"a"',
      '"a" && true',
      '{a: 1} == {a: 1}',
    ],
    ...['if context.x then true else false', '"a".contains("a")', '["a"].contains(context)', '[] == []'],
  ]) {
    t.same(folded(expr(text)), expr(text), text)
  }
})

t.test('a policy goes when its first condition that counts cannot hold', async (t) => {
  const gone = (conditions: string, scope: readonly Expr[] = []): boolean =>
    foldedPolicy(policy(conditions), scope) === undefined
  t.ok(gone('when { false }'))
  t.ok(gone('unless { true }'))
  t.ok(gone('when { true } unless { false } when { 1 == 2 } when { context.x }'))
  t.ok(gone('', [{ Value: false }]))
  t.ok(gone('when { context.x }', [expr('context.y'), { Value: false }]))
  t.ok(gone('when { false }', [expr('context["principal in x"]')]), 'what the scope demands cannot err')
  t.notOk(gone('when { context.x } when { false }'), 'the first may err')
  t.notOk(gone('when { true }'))
})

t.test('conditions that always hold go, the others stay in their order', async (t) => {
  const found = foldedPolicy(
    policy('when { true } when { context.a } unless { false } unless { context.b }'),
    [{ Value: true }, expr('context.c')],
  )
  t.same(found?.conditions, policy('when { context.c } when { context.a } unless { context.b }').conditions)
})
