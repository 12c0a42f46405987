import t from 'tap'
import { AuthzPolicyError, problemOf, quoted } from '../../src/authz/fault.ts'

t.test('an error names each fault with its place', async (t) => {
  const faults = [
    { path: ['layers', 0, 'rules', 2], message: 'one' },
    { path: ['scopes', 1], message: 'two' },
  ]
  const error = new AuthzPolicyError(faults)
  t.equal(error.message, 'layers.0.rules.2: one\nscopes.1: two')
  t.same([error.name, error.faults], ['AuthzPolicyError', faults])
})

t.test('a problem is what is thrown', async (t) => {
  t.equal(
    problemOf(() => 1),
    undefined,
  )
  t.equal(
    problemOf(() => {
      throw new Error('why')
    }),
    'why',
  )
  t.equal(
    problemOf(() => {
      throw 'odd'
    }),
    'odd',
  )
})

t.test('a text in a message is quoted, on one line, and no longer than is useful', async (t) => {
  t.equal(quoted('a"\n\u001b[31m'), '"a\\"\\n\\u001b[31m"')
  t.equal(quoted('x'.repeat(5000)).length, 205)
})
