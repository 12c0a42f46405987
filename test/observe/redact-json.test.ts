import fc from 'fast-check'
import t from 'tap'
import { redactedJson } from '../../src/observe/redact-json.ts'
import { cpuMs } from '../support/cost.ts'
import { damaged, holds, jsonText } from '../support/property.ts'

const open = { hides: () => false, mask: (text: string) => text }
const bytes = (text: string): Buffer => Buffer.from(text)

t.test('what fits comes out as it was, in the shortest spelling', async (t) => {
  t.same(redactedJson(bytes(' { "a" : [ 1 , -2.50e+3 , true , null , "\\u0041" ] } '), 100, open), {
    text: '{"a":[1,-2.50e+3,true,null,"A"]}',
    truncated: false,
  })
  holds(
    t,
    fc.property(jsonText, (text) => {
      const redacted = redactedJson(bytes(text), 1_000_000, open)
      const same = JSON.stringify(JSON.parse(redacted.text)) === JSON.stringify(JSON.parse(text))
      return same && !redacted.truncated
    }),
    1000,
  )
})

t.test('with any limit what comes out is JSON, or nothing, and within the limit', async (t) => {
  holds(
    t,
    fc.property(jsonText, fc.integer({ min: 0, max: 60 }), (text, max) => {
      const redacted = redactedJson(bytes(text), max, open)
      if (redacted.text !== '') JSON.parse(redacted.text)
      return Buffer.byteLength(redacted.text) <= max
    }),
    2000,
  )
  t.same(redactedJson(bytes('{"a":[1,2,3],"b":4}'), 11, open), { text: '{"a":[1,2]}', truncated: true })
  t.same(redactedJson(bytes('["\\n\\n\\n\\n\\n"]'), 11, open), { text: '["\\n\\n\u2026"]', truncated: true })
  t.same(redactedJson(bytes('{"a":1}'), 1, open), { text: '', truncated: true })
})

t.test('of a huge value only the beginning is looked at, and shown', async (t) => {
  const long = JSON.stringify({ a: 'x'.repeat(10_000_000), b: 1 })
  const buffer = bytes(long)
  t.ok(cpuMs(() => redactedJson(buffer, 100, open)) < 100)
  const { text, truncated } = redactedJson(buffer, 100, open)
  t.equal(text, `{"a":"${'x'.repeat(89)}\u2026"}`)
  t.equal(truncated, true)
  for (const inside of ['\\n', '\\u00e9', '\\\\', '\u{1f600}', '\\ud83d\\ude00', '\\"']) {
    for (const shift of ['', 'x', 'xx', 'xxx', 'xxxx', 'xxxxx']) {
      const cut = redactedJson(bytes(`["${shift}${inside.repeat(5000)}"]`), 50, open)
      t.match(JSON.parse(cut.text), [/^x*.*\u2026$/s], `cut in ${inside} after ${shift.length}`)
    }
  }
  const hidden = { hides: (name: string) => name === 'a', mask: open.mask }
  t.same(redactedJson(bytes(long), 100, hidden), { text: '{"a":"[redacted]"}', truncated: true })
  t.same(redactedJson(bytes(`[${'1234567890'.repeat(1000)}]`), 50, open), { text: '[]', truncated: true })
})

t.test('depth is bounded', async (t) => {
  const { text, truncated } = redactedJson(bytes(`${'['.repeat(100_000)}1`), 100_000, open)
  t.equal(text, '['.repeat(256) + ']'.repeat(256))
  t.equal(truncated, true)
})

t.test('what is no JSON is not shown', async (t) => {
  const not = { text: '"[not JSON]"', truncated: true }
  for (const text of [
    ...[
      '',
      'password',
      '{"a":1',
      '{"a":1}x',
      '[1 2]',
      '{"a" 1}',
      '{a:1}',
      '"\\x"',
      '[1,]',
      '{,}',
      '{"a":}',
      '01x',
    ],
    ...['["a', '{"a":"\n"}', '{"h":[}', '{"h":"', '{"h":x}'],
  ]) {
    t.same(redactedJson(bytes(text), 100, { ...open, hides: (name) => name === 'h' }), not, text)
  }
  t.equal(redactedJson(bytes('x'), 11, open).text, '')
  holds(
    t,
    fc.property(damaged(jsonText), fc.integer({ min: 0, max: 100 }), (text, max) => {
      const redacted = redactedJson(text, max, open)
      if (redacted.text !== '') JSON.parse(redacted.text)
      return Buffer.byteLength(redacted.text) <= max
    }),
    2000,
  )
})
