import fc from 'fast-check'
import t from 'tap'
import { bounded, quoted, quotedList, quotedUpTo, quotedWithin } from '../../src/observe/ascii-json.ts'
import { holds } from '../support/property.ts'

t.test('any text becomes JSON for the same text, in printable ASCII alone', async (t) => {
  holds(
    t,
    fc.property(
      fc.string({ unit: fc.integer({ min: 0, max: 0xffff }).map((c) => String.fromCharCode(c)) }),
      (text) => {
        const json = quoted(text)
        return JSON.parse(json) === text && /^[ -~]*$/.test(json)
      },
    ),
    1000,
  )
  t.equal(quoted('\u202e\u009b31m\u2028"\\\n'), '"\\u202e\\u009b31m\\u2028\\"\\\\\\n"')
})

t.test('a long text is cut, and its hash tells it from others that begin alike', async (t) => {
  t.equal(bounded('abcd', 4), 'abcd')
  t.match(bounded('abcde', 4), /^abcd…sha256:[\da-f]{12}$/)
  t.not(bounded('abcde', 4), bounded('abcdf', 4))
  t.equal(JSON.parse(quotedUpTo('\u{1f600}\u{1f600}', 3)).slice(0, 3), '\u{1f600}\ud83d')
})

t.test('a long list says how much of it is shown', async (t) => {
  t.equal(quotedList([], 2, 9), '[]')
  t.equal(quotedList(['a', 'b'], 2, 9), '["a","b"]')
  t.same(JSON.parse(quotedList(['a', 'b', 'c'], 2, 9)), ['a', 'b', '\u2026 3 in all'])
})

t.test('a text within so many bytes, escapes included', async (t) => {
  t.equal(quotedWithin('abc', 3), '"abc"')
  t.equal(quotedWithin('\u00ff', 6), '"\\u00ff"')
  for (const odd of ['x', '\u00ff', '"', '\u{1f600}', '\ud83d']) {
    const cut = quotedWithin(odd.repeat(500), 64)
    t.ok(cut.length <= 66, `${cut.length}`)
    t.match(JSON.parse(cut), /^.+\u2026sha256:[\da-f]{12}$/u)
    t.not(cut, quotedWithin(odd.repeat(501), 64))
  }
})
