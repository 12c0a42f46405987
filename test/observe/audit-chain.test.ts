import { createHash } from 'node:crypto'
import t from 'tap'
import { Chain, chainStart, lineHash, placeOf } from '../../src/observe/audit-chain.ts'

const event = '{"metadata":{"auditId":"x"},"type":"mcp_ping"'
const sha = (text: string): string => `sha256:${createHash('sha256').update(text).digest('hex')}`

t.test('each line has its number and the hash of the bytes before it', async (t) => {
  const chain = new Chain()
  const first = chain.next(event)
  const second = chain.next(event)
  t.equal(first, `${event},"seq":1,"prev":"sha256:${'0'.repeat(64)}"}`)
  t.equal(second, `${event},"seq":2,"prev":"${sha(first)}"}`)
  t.same(placeOf(second), { seq: 2, prev: lineHash(Buffer.from(first)), type: 'mcp_ping' })
})

t.test('it goes on from a line that is there', async (t) => {
  const line = new Chain({ seq: 41, hash: sha('the line before') }).next(event)
  t.same(placeOf(line), { seq: 42, prev: sha('the line before'), type: 'mcp_ping' })
})

t.test('what is no line of this log has no place', async (t) => {
  const line = (seq: unknown, prev: unknown): string =>
    JSON.stringify({ metadata: { auditId: 'x' }, type: 'a', seq, prev })
  t.ok(placeOf(line(1, chainStart)))
  for (const text of [
    ...['', 'text', '{"level":"info"}', '{"metadata":{"auditId":"', `${event}`, `${line(1, chainStart)}x`],
    ...[
      line(0, chainStart),
      line(1.5, chainStart),
      line('1', chainStart),
      line(1, 'sha256:00'),
      line(1, undefined),
    ],
    ...[line(1, `sha256:${'A'.repeat(64)}`), ` ${line(1, chainStart)}`, line(2 ** 53, chainStart)],
  ]) {
    t.equal(placeOf(text), undefined, text)
  }
})
