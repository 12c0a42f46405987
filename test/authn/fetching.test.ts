import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { createFetcher, type Fetcher } from '../../src/authn/fetching.ts'
import { TokenMethodError } from '../../src/authn/token-method.ts'
import type { Fetching } from '../../src/core/policy.ts'
import { systemClock } from '../../src/observe/clock.ts'
import { ManualClock } from '../support/modern-calls.ts'
import { authority } from '../support/pki.ts'
import { cut, html, json, redirect, scriptedIssuer, silence } from '../support/scripted-issuer.ts'

const strict: Fetching = { caFile: undefined, timeoutMs: 5000, allowPrivate: false, allowHttp: false }
const clock = systemClock

async function why(fetcher: Fetcher, url: string): Promise<string> {
  try {
    return JSON.stringify(await fetcher.json(url))
  } catch (thrown) {
    return (thrown as Error).message
  }
}

t.test('the JSON object of an answer, whatever media type it claims', async (t) => {
  const issuer = await scriptedIssuer(t)
  const fetcher = createFetcher(issuer.fetching, { clock })
  issuer.answers['/a'] = json({ a: 1 })
  issuer.answers['/text'] = (response) =>
    void response.writeHead(200, { 'content-type': 'text/plain' }).end(' {"b":2}')
  t.same(await fetcher.json(`${issuer.url}/a`), { a: 1 })
  t.same(await fetcher.json(`${issuer.url}/text`), { b: 2 })
  issuer.answers['/post'] = (response, request) => {
    request
      .setEncoding('utf8')
      .on('data', (body: string) => json({ body, type: request.headers['x-type'] })(response, request))
  }
  const posted = await fetcher.json(`${issuer.url}/post`, {
    method: 'POST',
    body: 'a=b',
    headers: { 'x-type': 'form' },
  })
  t.same(posted, { body: 'a=b', type: 'form' })
})

t.test('anything else is refused, and the reason says what came instead', async (t) => {
  const issuer = await scriptedIssuer(t)
  const fetcher = createFetcher(issuer.fetching, { clock })
  const { answers, url } = issuer
  Object.assign(answers, {
    '/html': html,
    '/redirect': redirect(`${url}/good`),
    '/good': json({}),
    '/500': json({}, 500),
    '/list': json([]),
    '/null': json(null),
    '/cut': cut,
    '/text': (response: import('node:http').ServerResponse) => response.end('OK'),
    '/zip': (response: import('node:http').ServerResponse) =>
      response.writeHead(200, { 'content-encoding': 'gzip' }).end('{}'),
    '/half': (response: import('node:http').ServerResponse) => {
      response.writeHead(200, { 'content-length': '100' }).write('{"a":')
      setImmediate(() => response.destroy())
    },
  })
  t.match(
    await why(fetcher, `${url}/html?code=hidden`),
    /^GET http:\/\/127.*\/html: it answered with HTML or XML \(text\/html\)/,
  )
  t.match(await why(fetcher, `${url}/redirect`), /a redirect \(302\), and none is followed/)
  t.notOk(issuer.asked.includes('GET /good'))
  t.match(await why(fetcher, `${url}/500`), /status 500/)
  t.match(await why(fetcher, `${url}/404`), /status 404/)
  t.match(await why(fetcher, `${url}/list`), /not an object/)
  t.match(await why(fetcher, `${url}/null`), /not an object/)
  t.match(await why(fetcher, `${url}/text`), /what is not JSON/)
  t.match(await why(fetcher, `${url}/zip`), /an encoding/)
  t.match(await why(fetcher, `${url}/cut`), /socket hang up/)
  t.match(await why(fetcher, `${url}/half`), /aborted|ended the connection/)
  t.match(await why(fetcher, 'http://127.0.0.1:1/'), /ECONNREFUSED/)
})

t.test('an answer has an end: in bytes', async (t) => {
  const issuer = await scriptedIssuer(t)
  const fetcher = createFetcher(issuer.fetching, { clock })
  let written = 0
  issuer.answers['/endless'] = (response) => {
    const more = (): void => {
      written += 65_536
      if (!response.destroyed) response.write(' '.repeat(65_536), () => setImmediate(more))
    }
    more()
  }
  t.match(await why(fetcher, `${issuer.url}/endless`), /more than 1048576 bytes/)
  t.ok(written < 20 * 1024 * 1024, 'and is not read to its end')
  issuer.answers['/a'] = json({ a: 'x'.repeat(100) })
  await t.rejects(fetcher.json(`${issuer.url}/a`, { maxBytes: 50 }), { message: /more than 50 bytes/ })
})

t.test('and in time, body included', async (t) => {
  const issuer = await scriptedIssuer(t)
  const clock = new ManualClock()
  const fetcher = createFetcher(issuer.fetching, { clock })
  issuer.answers['/silent'] = silence
  issuer.answers['/slow'] = (response) => void response.writeHead(200).write('{')
  for (const path of ['/silent', '/slow']) {
    const asked = new Promise<void>((resolve) => {
      const answer = issuer.answers[path]
      issuer.answers[path] = (response, request) => {
        answer?.(response, request)
        setTimeout(resolve, 20)
      }
    })
    const result = why(fetcher, `${issuer.url}${path}`)
    await asked
    clock.pass(5000)
    t.match(await result, /did not answer in full within 5000 ms/)
  }
  t.equal(clock.waiting, 0, 'no timer is left')
})

t.test('what must not be asked is refused when it is configured', async (t) => {
  const check = (fetching: Partial<Fetching>, url: string): void =>
    createFetcher({ ...strict, ...fetching }, { clock }).check(url, 'the URL')
  const refused: [Partial<Fetching>, string, RegExp][] = [
    [{}, 'http://issuer.example/jwks', /must be https/],
    [{ allowHttp: true }, 'http://issuer.example/jwks', /for this machine alone/],
    [{ allowHttp: true, allowPrivate: true }, 'http://10.0.0.1/jwks', /for this machine alone/],
    [{ allowHttp: true }, 'http://127.0.0.1/jwks', /not a public address/],
    [{ allowHttp: true }, 'http://localhost/jwks', /not a public address/],
    [{}, 'https://127.0.0.1/jwks', /not a public address/],
    [{}, 'https://0x7f.1/jwks', /127\.0\.0\.1 is not a public address/],
    [{}, 'https://2130706433/', /127\.0\.0\.1 is not/],
    [{}, 'https://[::1]/jwks', /not a public address/],
    [{}, 'https://[::ffff:10.0.0.1]/jwks', /not a public address/],
    [{}, 'https://169.254.169.254/latest', /not a public address/],
    [{ allowPrivate: true }, 'https://user:pass@issuer.example/', /credentials/],
    [{ allowPrivate: true }, 'file:///etc/passwd', /must be https/],
    [{ allowPrivate: true }, 'jwks', /not a URL/],
  ]
  for (const [fetching, url, expected] of refused) {
    t.throws(() => check(fetching, url), { name: 'TokenMethodError', message: expected }, url)
  }
  const message = t.throws(() => check({}, 'https://user:secret@issuer.example/?key=hidden')) as Error
  t.notMatch(message.message, /secret|hidden/)
  check({}, 'https://issuer.example/jwks')
  check({}, 'https://8.8.8.8/jwks')
  check({ allowHttp: true, allowPrivate: true }, 'http://localhost:8080/jwks')
})

t.test('a name is refused by what it resolves to, and dialled where it was checked', async (t) => {
  const issuer = await scriptedIssuer(t)
  issuer.answers['/'] = json({ here: true })
  const names: Record<string, string[]> = {
    'internal.example': ['10.0.0.1'],
    'both.example': ['8.8.8.8', '127.0.0.1'],
    'mapped.example': ['::ffff:127.0.0.1'],
    'none.example': [],
    localhost: ['10.0.0.7'],
  }
  const asked: string[] = []
  const resolve = async (name: string): Promise<{ address: string; family: number }[]> => {
    asked.push(name)
    if (names[name] === undefined) throw new Error('ENOTFOUND')
    return names[name].map((address) => ({ address, family: address.includes(':') ? 6 : 4 }))
  }
  const fetcher = createFetcher({ ...strict, allowHttp: true }, { clock, resolve })
  t.match(await why(fetcher, 'https://internal.example/'), /10\.0\.0\.1 is not a public address/)
  t.match(
    await why(fetcher, 'https://both.example/'),
    /127\.0\.0\.1 is not a public address/,
    'one is enough',
  )
  t.match(await why(fetcher, 'https://mapped.example/'), /not a public address/)
  t.match(await why(fetcher, 'https://none.example/'), /no address/)
  t.match(await why(fetcher, 'https://unknown.example/'), /cannot be resolved: ENOTFOUND/)
  t.equal(asked.length, 5, 'each was resolved once')

  const local = createFetcher(issuer.fetching, { clock, resolve })
  t.match(
    await why(local, `http://localhost:${issuer.port}/`),
    /10\.0\.0\.7 is not on it/,
    'whatever localhost means',
  )
  names['localhost'] = ['127.0.0.1']
  t.equal(await why(local, `http://localhost:${issuer.port}/`), '{"here":true}')
  t.same(issuer.asked, ['GET /'])
})

t.test('certificates are verified, against the CA file where there is one', async (t) => {
  const ca = authority('Test CA')
  const server = ca.issue({ cn: 'issuer', ips: ['127.0.0.1'], usage: 'server' })
  const issuer = await scriptedIssuer(t, { key: server.key, cert: server.chain })
  issuer.answers['/'] = json({ ok: true })
  const caFile = join(t.testdir(), 'ca.pem')
  writeFileSync(caFile, ca.certificate)
  const with_ = (caFile: string | undefined): Fetcher =>
    createFetcher({ ...issuer.fetching, caFile }, { clock })
  t.equal(await why(with_(caFile), `${issuer.url}/`), '{"ok":true}')
  t.match(await why(with_(undefined), `${issuer.url}/`), /certificate/)
  const rotating = with_(caFile)
  writeFileSync(caFile, authority('Another CA').certificate)
  t.match(await why(rotating, `${issuer.url}/`), /certificate/, 'a bundle that is replaced takes effect')
  writeFileSync(caFile, 'half a file')
  t.match(await why(rotating, `${issuer.url}/`), /certificate/, 'one that is being written does not')
  t.throws(() => with_(caFile), { name: 'TokenMethodError', message: /no certificate in PEM/ })
  t.throws(
    () => with_('/nowhere/ca.pem'),
    new TokenMethodError(
      "the CA file /nowhere/ca.pem cannot be read: ENOENT: no such file or directory, open '/nowhere/ca.pem'",
    ),
  )
  t.same(issuer.asked, ['GET /'])
})

t.test('what is under way ends when it is closed', async (t) => {
  const issuer = await scriptedIssuer(t)
  const fetcher = createFetcher(issuer.fetching, { clock })
  const asked = new Promise<void>((resolve) => {
    issuer.answers['/'] = () => resolve()
  })
  const result = why(fetcher, `${issuer.url}/`)
  await asked
  fetcher.close()
  t.match(await result, /hang up/)
})
