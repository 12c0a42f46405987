import t from 'tap'
import { permitAll } from '../../src/authz/permit-all.ts'
import type { Permitted } from '../../src/core/types.ts'
import { anonymous, decoded } from '../support/authz.ts'

t.test('everyone may do everything, at once, and the operation is known', async (t) => {
  const table: [string, object, string][] = [
    ['tools/call', { name: 'x' }, 'use'],
    ['resources/read', { uri: 'x:/../y' }, 'use'],
    ['tools/list', {}, 'list'],
    ['com.example/x', {}, 'unknown'],
  ]
  for (const [method, params, kind] of table) {
    const request = decoded(method, params, { principal: anonymous })
    const passed: Permitted[] = []
    const later = Promise.resolve()
    const returned = permitAll(request, (permitted) => {
      passed.push(permitted)
      return later
    })
    t.equal(returned, later, 'what the next layer returns is returned')
    t.same([passed.length, passed[0] === request], [1, true])
    t.match(passed[0], { operation: { kind }, permit: { verdicts: [{ layer: 'none', ids: [] }] } }, method)
  }
})

t.test('a body that can be read in two ways is refused even so', async (t) => {
  const text =
    '{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"a","name":"b"}}}'
  t.throws(() => permitAll(decoded(text), () => void t.fail('it passed')), { code: 'ERR_PARAMS' })
})
