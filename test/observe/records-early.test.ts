import t from 'tap'
import { Records } from '../../src/observe/records.ts'

t.test('what happens before there is an audit log is passed over, and what follows is not', async (t) => {
  const seen: unknown[] = []
  const records = new Records()
  records.event('process_start', { pid: 1 })
  records.attach(() => ({ record: (event: unknown) => seen.push(event) }) as never)
  records.event('process_start', { pid: 2 })
  t.match(seen, [{ type: 'process_start', details: { pid: 2 } }])
  t.equal(seen.length, 1)
})
