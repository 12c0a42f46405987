import fc from 'fast-check'
import t from 'tap'
import { namedLines, onlyOnce, SecretFileError } from '../../src/authn/secret-lines.ts'
import { holds, shown } from '../support/property.ts'

const shape = { what: 'secret', form: 'NAME:SECRET', bare: false }
const read = (text: string, bare = false): string[] =>
  namedLines(text, 'file', { ...shape, bare }).map(({ name, rest, where }) => `${name}|${rest}|${where}`)

t.test('lines are read with their place; comments, blanks and line ends of any kind are none', async (t) => {
  t.same(read('a:1\n\n# b:2\r\n  c :  3 4 \r\n\t#\nd:e:f'), ['a|1|file:1', 'c|3 4|file:4', 'd|e:f|file:6'])
  t.same(read('a:'), ['a||file:1'], 'what must follow the colon is for others to say')
  t.same(read('\ufeffa:1'), ['a|1|file:1'])
})

t.test('only a single line may go without a name, and only where that is allowed', async (t) => {
  t.same(read('# one\nsecret', true), ['default|secret|file:2'])
  t.throws(() => read('secret'), { message: 'file:1: a secret without a name; write NAME:SECRET' })
  t.throws(() => read('a\nb', true), {
    message: /^file:1: a secret without a name; .*only a file with one secret/,
  })
})

t.test('names are short, plain and unique', async (t) => {
  const name = /^file:2: the name before ':' must be/
  for (const wrong of ['', 'a b', '.a', '-a', '@', 'ä', 'n'.repeat(65), 'a/b', '\u0000a', 'a\u2028b']) {
    t.throws(() => read(`ok:1\n${wrong}:2`), { name: 'SecretFileError', message: name }, shown(wrong))
  }
  t.same(read(`${'n'.repeat(64)}:1`).length, 1)
  t.throws(() => read('a:1\nb:2\na:3'), { message: 'file:3: this name stands twice' })
  t.throws(() => read('__proto__:1\nconstructor:2\n__proto__:3'), { message: /^file:1: the name/ })
})

t.test('a file without lines is a mistake', async (t) => {
  for (const text of ['', '\n', '# only\n\n', ' \t ']) {
    t.throws(() => read(text), { message: 'file: there is no secret in it; write NAME:SECRET' })
  }
})

t.test('there is an end to lines', async (t) => {
  const entries = Array.from({ length: 10_001 }, (_, i) => ({ name: `n${i}`, where: `file:${i}` }))
  t.equal(onlyOnce(entries.slice(1), shape).length, 10_000)
  t.throws(() => onlyOnce(entries, shape), { message: 'file:10000: more than 10000 secrets' })
})

t.test('whatever stands in a file is read, or refused with a message that does not repeat it', async (t) => {
  holds(
    t,
    fc.property(fc.string({ unit: 'binary', minLength: 8 }), (text) => {
      try {
        return namedLines(`x:1\n${text}`, 'file', shape).length >= 1
      } catch (thrown) {
        return thrown instanceof SecretFileError && !thrown.message.includes(text)
      }
    }),
  )
})
