import { test } from 'tap'
import { startTestSidecar } from '../support/sidecar.ts'
import { call, openSession, post } from '../support/wire.ts'

test('a session on Streamable HTTP reaches the server and comes back with its own id', async (t) => {
  const { url } = await startTestSidecar(t)
  const session = await openSession(url)
  const answer = await post(url, call('a', 'echo', { text: 'hello' }), session)
  t.equal(answer.status, 200)
  t.match(answer.json, { id: 'a', result: { content: [{ text: 'hello' }] } })
})
