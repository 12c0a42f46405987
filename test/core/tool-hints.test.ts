import t from 'tap'
import { readMessages } from '../../src/core/jsonrpc.ts'
import { hintsOf, noHints } from '../../src/core/tool-hints.ts'

/** Of a tool as it stands in a list. */
function hints(tool: string): unknown {
  const text = `{"jsonrpc":"2.0","id":1,"result":{"tools":[${tool}]}}`
  const [message] = readMessages(Buffer.from(text)).messages
  if (message === undefined) throw new Error('no message')
  const start = text.indexOf(tool)
  return hintsOf(message, { start, end: start + tool.length })
}

t.test('the hints of a tool are those of its annotations that are plain', async (t) => {
  const annotated = (annotations: string): unknown => hints(`{"name":"a","annotations":${annotations}}`)
  t.same(annotated('{}'), {})
  t.same(annotated('{"title":"x","readOnlyHint":true,"destructiveHint":false,"other":true}'), {
    readOnlyHint: true,
    destructiveHint: false,
  })
  t.same(annotated('{"idempotentHint":"true","openWorldHint":1,"destructiveHint":null}'), {})
  for (const odd of ['null', '[]', '"readOnlyHint"', 'true']) t.same(annotated(odd), {}, odd)
})

t.test('a tool without annotations has none', async (t) => {
  t.equal(hints('{"name":"a"}'), noHints)
  t.equal(hints('"a"'), noHints)
})

t.test('what stands twice is not clear', async (t) => {
  for (const twice of [
    '{"annotations":{"readOnlyHint":false},"annotations":{"readOnlyHint":true}}',
    '{"annotations":{},"annot\\u0061tions":{}}',
    '{"annotations":{"readOnlyHint":false,"readOnlyHint":true}}',
    '{"annotations":{"destructiveHint":1,"readOnlyHint":true,"destructiveHint":true}}',
  ]) {
    t.equal(hints(twice), undefined, twice)
  }
})
