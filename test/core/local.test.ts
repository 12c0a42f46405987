import fc from 'fast-check'
import t from 'tap'
import { errorTable } from '../../src/core/errors.ts'
import {
  localNotification,
  localRefusal,
  localRequest,
  localResult,
  messageOf,
} from '../../src/core/local.ts'
import { holds, idText } from '../support/property.ts'

t.test('a request has an id to be replaced', async (t) => {
  const message = localRequest('tools/list', { cursor: 'x' })
  t.match(message, { kind: 'request', method: 'tools/list' })
  t.same(message.parsed(), { jsonrpc: '2.0', id: 0, method: 'tools/list', params: { cursor: 'x' } })
  t.not(message.id, undefined)
})

t.test('a notification has none, and params only when given', async (t) => {
  const plain = localNotification('notifications/initialized')
  t.equal(plain.kind, 'notification')
  t.same(plain.parsed(), { jsonrpc: '2.0', method: 'notifications/initialized' })
  t.same(localNotification('a', { x: [1] }).parsed(), { jsonrpc: '2.0', method: 'a', params: { x: [1] } })
})

t.test('a cancellation may name any reason', async (t) => {
  holds(
    t,
    fc.property(fc.string({ unit: 'binary' }), (reason) => {
      const message = localNotification('notifications/cancelled', { requestId: 1, reason })
      return (
        fc.stringify(message.parsed()) ===
        fc.stringify({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 1, reason } })
      )
    }),
  )
})

t.test('results and refusals carry the id as it was spelled', async (t) => {
  holds(
    t,
    fc.property(idText, (id) => {
      const [result, refusal] = [localResult(id, {}), localRefusal(id, -32601, 'ERR_UNSUPPORTED')]
      return result.idText === id && refusal.idText === id && !result.isError && refusal.isError
    }),
  )
  t.same(localResult('7', { roots: [] }).parsed(), { jsonrpc: '2.0', id: 7, result: { roots: [] } })
})

t.test('a refusal says who refused and why, with the JSON-RPC code it was given', async (t) => {
  t.same(localRefusal('"a"', -32601, 'ERR_NO_CLIENT').parsed(), {
    jsonrpc: '2.0',
    id: 'a',
    error: {
      code: -32601,
      message: errorTable.ERR_NO_CLIENT.sentence,
      data: { source: 'mcp-sidecar', reason: 'ERR_NO_CLIENT' },
    },
  })
})

t.test('what is no message does not become one', async (t) => {
  t.throws(() => messageOf('{}'), { code: 'ERR_INVALID_REQUEST' })
  t.throws(() => messageOf('{'), { code: 'ERR_PARSE' })
})
