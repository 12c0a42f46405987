import { inspect } from 'node:util'
import t from 'tap'
import { Credential } from '../../src/core/secret.ts'
import { type RedisPolicy, redisOptions } from '../../src/limit/redis-options.ts'
import { authority } from '../support/pki.ts'

const policy = (rest: Partial<RedisPolicy>): RedisPolicy => ({
  url: 'redis://cache',
  password: undefined,
  caFile: undefined,
  prefix: 'mcp',
  whenAway: 'local',
  timeoutMs: 200,
  ...rest,
})
const files: Record<string, string> = {
  '/run/password': 'hush\n',
  '/run/crlf': 'hush \r\n',
  '/run/empty': '\n',
  '/run/ca.pem': authority('Test CA').certificate,
}
const readText = (file: string): string => {
  const text = files[file]
  if (text === undefined) throw new Error(`ENOENT: no such file or directory, open '${file}'`)
  return text
}
const options = (rest: Partial<RedisPolicy>) => redisOptions(policy(rest), readText)

t.test('where to connect stands in the URL', async (t) => {
  t.match(options({}), { host: 'cache', port: 6379, db: 0, commandTimeout: 200 })
  t.match(options({ url: 'redis://[::1]:7000/3' }), { host: '::1', port: 7000, db: 3 })
  t.notOk('tls' in options({}))
  t.notOk('username' in options({}) || 'password' in options({}))
})

t.test('the password comes from its file, without the last line break, or as text', async (t) => {
  t.equal(options({ password: { file: '/run/password' } }).password, 'hush')
  t.equal(options({ password: { file: '/run/crlf' } }).password, 'hush ')
  t.equal(options({ password: { text: new Credential('hush') } }).password, 'hush')
  const { username, password } = options({
    url: 'redis://us%40er@cache',
    password: { file: '/run/password' },
  })
  t.same([username, password], ['us@er', 'hush'])
})

t.test('rediss is TLS with the certificate checked', async (t) => {
  t.same(options({ url: 'rediss://cache' }).tls, { minVersion: 'TLSv1.2', servername: 'cache' })
  const own = options({ url: 'rediss://127.0.0.1', caFile: '/run/ca.pem' }).tls
  t.same(own, { minVersion: 'TLSv1.2', ca: files['/run/ca.pem'] }, 'an address is no server name')
})

t.test('nothing waits for a connection, and reconnecting goes on', async (t) => {
  const { enableOfflineQueue, autoResendUnfulfilledCommands, maxRetriesPerRequest, retryStrategy } = options(
    {},
  )
  t.same([enableOfflineQueue, autoResendUnfulfilledCommands, maxRetriesPerRequest], [false, false, 0])
  for (const times of [1, 100, 1_000_000]) {
    const pause = Number(retryStrategy?.(times))
    t.ok(pause >= 750 && pause <= 1250, `${pause}`)
  }
})

t.test('what cannot be a Redis is refused when it is read, without showing a password', async (t) => {
  const cases: [Partial<RedisPolicy>, RegExp][] = [
    [{ url: 'redis://user:hunter2@cache' }, /URL holds a password/],
    [{ url: 'redis://:hunter2@cache' }, /URL holds a password/],
    [{ url: 'redis://hunter2' + '@[' }, /must be redis:\/\/HOST:PORT or rediss/],
    [{ url: 'http://cache' }, /must be redis:\/\/HOST:PORT or rediss/],
    [{ url: 'redis:///tmp/sock' }, /must be redis:\/\/HOST:PORT or rediss/],
    [{ url: 'redis://cache?tls=false' }, /a query or a fragment/],
    [{ url: 'redis://cache#hunter2' }, /a query or a fragment/],
    [{ url: 'redis://cache/one' }, /the path "\/one"; only the number of a database/],
    [{ url: 'redis://user@cache' }, /names a user, but there is no password/],
    [{ caFile: '/run/ca.pem' }, /the CA bundle \/run\/ca\.pem is for rediss/],
    [{ url: 'rediss://cache', caFile: '/run/password' }, /\/run\/password holds no PEM certificate/],
    [{ url: 'rediss://cache', caFile: '/none' }, /\/none cannot be read: ENOENT/],
    [{ password: { file: '/none' } }, /\/none cannot be read: ENOENT/],
    [{ password: { file: '/run/empty' } }, /the password file \/run\/empty is empty/],
    [{ timeoutMs: 0 }, /its timeout is 0 ms/],
    [{ timeoutMs: 60_001 }, /its timeout is 60001 ms/],
    [{ timeoutMs: Number.NaN }, /its timeout is NaN ms/],
  ]
  for (const [wrong, message] of cases) {
    let thrown: unknown
    try {
      options(wrong)
    } catch (error) {
      thrown = error
    }
    t.match(thrown, { name: 'LimitError', message }, String(message))
    t.notMatch(inspect(thrown), /hunter2|hush/)
  }
})
