import fc from 'fast-check'
import t from 'tap'
import { anyGlob, glob } from '../../src/core/glob.ts'
import { cpuMs } from '../support/cost.ts'
import { holds } from '../support/property.ts'

t.test('a star stands for any text, everything else for itself', async (t) => {
  const cases: [pattern: string, text: string, fits: boolean][] = [
    ['search', 'search', true],
    ['search', 'search2', false],
    ['search', 'Search', false],
    ['', '', true],
    ['', 'x', false],
    ['*', '', true],
    ['*', 'any.thing/at*all\n', true],
    ['db_*', 'db_', true],
    ['db_*', 'db_read', true],
    ['db_*', 'xdb_read', false],
    ['*_query', 'db_query', true],
    ['*_query', 'db_query_', false],
    ['a*a', 'a', false],
    ['a*a', 'aa', true],
    ['a*b*c', 'a-b-c', true],
    ['a*b*c', 'abc', true],
    ['a*b*c', 'acb', false],
    ['*a*', 'bab', true],
    ['*ab*ba*', 'aba', false],
    ['**', 'x', true],
    ['x.y', 'xay', false],
    ['file:///*/x', 'file:///a/b/x', true],
  ]
  for (const [pattern, text, fits] of cases) t.equal(glob(pattern)(text), fits, `${pattern} on ${text}`)
})

const letters = fc.string({ unit: fc.constantFrom('a', 'b', '*'), maxLength: 12 })

t.test('it agrees with a regular expression', async (t) => {
  const agrees = (pattern: string, text: string): boolean =>
    glob(pattern)(text) === new RegExp(`^${pattern.replaceAll('*', '[^]*')}$`).test(text)
  holds(t, fc.property(letters, letters, agrees), 1000)
})

t.test('a pattern with many stars takes no more time than the text is long', async (t) => {
  const matches = glob('*a'.repeat(50))
  const text = `${'a'.repeat(49)}${'b'.repeat(200_000)}`
  t.notOk(matches(text))
  t.ok(cpuMs(() => matches(text)) < 1000)
})

t.test('any of several', async (t) => {
  const matches = anyGlob(['search', 'db_*'])
  t.ok(matches('search'))
  t.ok(matches('db_read'))
  t.notOk(matches('read'))
  t.notOk(anyGlob([])('x'), 'none of none')
})
