import t from 'tap'
import { challengeHeaders } from '../../src/authn/challenge.ts'

const headers = (...schemes: ('Bearer' | 'Basic')[]): Readonly<Record<string, string>> =>
  challengeHeaders({ schemes: new Set(schemes) }, () => 'Bearer scope="a"')

t.test('there is one challenge for each scheme', async (t) => {
  const basic = 'Basic realm="mcp", charset="UTF-8"'
  t.same(headers('Bearer'), { 'WWW-Authenticate': 'Bearer scope="a"' })
  t.same(headers('Basic'), { 'WWW-Authenticate': basic })
  t.same(headers('Basic', 'Bearer'), { 'WWW-Authenticate': `Bearer scope="a", ${basic}` })
  t.same(headers(), {}, 'keys and certificates have none')
})
