import t from 'tap'
import { nearest } from '../../src/config/nearest.ts'

t.test('the name that was meant is found', async (t) => {
  const known = [
    'requestTimeout',
    'maxRequestTimeout',
    'requestBody',
    'host',
    'port',
    'allowedHosts',
    'HOST',
    'ADMIN_PORT',
  ]
  const cases: [string, string | undefined][] = [
    ['requestTimeot', 'requestTimeout'],
    ['request_timeout', 'requestTimeout'],
    ['request-body', 'requestBody'],
    ['prot', 'port'],
    ['hosts', 'host'],
    ['allowedHost', 'allowedHosts'],
    ['ADMINPORT', 'ADMIN_PORT'],
    ['colour', undefined],
    ['', undefined],
    ['x'.repeat(1000), undefined],
  ]
  for (const [name, meant] of cases) t.equal(nearest(name, known), meant, name.slice(0, 20))
})
