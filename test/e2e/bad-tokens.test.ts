import { createPublicKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { hashPassword } from '../../src/authn/password-hash.ts'
import { configFile } from '../support/config-file.ts'
import { forwardClock } from '../support/forward-clock.ts'
import { hmac, jwtOf, signingKey } from '../support/jwt-keys.ts'
import { folder } from '../support/processes.ts'
import { cut, html, json, redirect, scriptedIssuer, silence } from '../support/scripted-issuer.ts'
import { type LogLine, startTestSidecar, until } from '../support/sidecar.ts'
import { alike, type Headers, waysInto } from '../support/ways-in.ts'
import { initialize, post, type RawResponse } from '../support/wire.ts'

const issuer = await scriptedIssuer(t)
const resource = 'https://mcp.example/mcp'
const key = signingKey('k', 'RS256')
const stranger = signingKey('k', 'RS256')
issuer.answers['/jwks'] = json({ keys: [key.jwk] })
issuer.answers['/down'] = cut
issuer.answers['/slow'] = silence
issuer.answers['/redirect'] = redirect(`${issuer.url}/jwks`)
issuer.answers['/html'] = html
issuer.answers['/large'] = json({ keys: [key.jwk], padding: 'x'.repeat(1024 * 1024) })
issuer.answers['/error'] = json({ keys: [key.jwk] }, 500)
issuer.answers['/list'] = json([key.jwk])

const troubled = {
  down: /cannot be had: GET .*\/down: (socket hang up|it ended)/,
  redirect: /cannot be had: GET .*\/redirect: .*a redirect \(302\), and none is followed/,
  html: /cannot be had: GET .*\/html: .*HTML or XML \(text\/html\), not JSON/,
  large: /cannot be had: GET .*\/large: .*more than 1048576 bytes/,
  error: /cannot be had: GET .*\/error: .*status 500/,
  list: /cannot be had: GET .*\/list: .*JSON that is not an object/,
}
const nameOf = (place: string): string => `https://${place}.example`
const clock = forwardClock()
const auditFile = join(folder(t), 'audit.log')
const staticToken = 'static-0123456789-abcdefghij'
const password = await hashPassword('right-password-1')
const methods = {
  resource,
  fetching: { allowHttp: true, allowPrivateAddresses: true },
  bearer: { tokenFile: 'tokens' },
  basic: { passwordFile: 'passwords' },
  jwt: [
    { issuer: nameOf('good'), jwksUrl: `${issuer.url}/jwks`, clockTolerance: '0s' },
    ...Object.keys(troubled).map((place) => ({ issuer: nameOf(place), jwksUrl: `${issuer.url}/${place}` })),
  ],
}

const files = { tokens: `robot:${staticToken}\n`, passwords: `alice:${password}\n` }
const sidecar = await startTestSidecar(t, {
  flags: configFile(
    t,
    { auth: methods, audit: { destination: auditFile }, listen: { webSocket: true } },
    files,
  ),
  clock,
})
const { url, base, logs } = sidecar
const ways = waysInto(base)

const now = (): number => Math.floor(clock.epoch() / 1000)
const claims = (more: object = {}): Record<string, unknown> => ({
  ...{ iss: nameOf('good'), aud: resource, sub: 'alice', exp: now() + 3600, ...more },
})
const bearer = (token: string): Headers => ({ Authorization: `Bearer ${token}` })
const basic = (text: string): Headers => ({ Authorization: `Basic ${Buffer.from(text).toString('base64')}` })
const hs256 = (secret: string | Buffer, header: object = {}): string =>
  jwtOf({ alg: 'HS256', kid: 'k', typ: 'at+jwt', ...header }, claims(), hmac(secret))
const der = createPublicKey(key.pem).export({ format: 'der', type: 'spki' })
const elsewhere = `${issuer.url}/evil`
const good = key.token(claims())

/** What is sent, and what the log says of it. */
const bad: Record<string, [Headers, RegExp]> = {
  'an expired token': [bearer(key.token(claims({ exp: now() - 3600 }))), /^it expired 36\d\d s ago/],
  'a token that expired just now': [bearer(key.token(claims({ exp: now() - 1 }))), /^it expired \d+ s ago/],
  'a token that never ends': [bearer(key.token(claims({ exp: undefined }))), /^it has no exp/],
  'a token that is not valid yet (nbf)': [
    bearer(key.token(claims({ nbf: now() + 900 }))),
    /^it is not valid yet: its nbf is \d+ s ahead/,
  ],
  'a token that is not valid yet (iat)': [
    bearer(key.token(claims({ iat: now() + 900 }))),
    /^it is not valid yet: its iat is \d+ s ahead/,
  ],
  'a token for somebody else': [
    bearer(key.token(claims({ aud: 'https://other.example/mcp' }))),
    /^its audience is "https:\/\/other\.example\/mcp", not https:\/\/mcp\.example\/mcp/,
  ],
  'a token for nobody': [bearer(key.token(claims({ aud: undefined }))), /^it has no audience/],
  'a token of another issuer': [
    bearer(key.token(claims({ iss: 'https://evil.example' }))),
    /nobody recognised the credential; .*jwt: its issuer is "https:\/\/evil\.example", not https:\/\/good\.example/,
  ],
  'a token without issuer': [
    bearer(key.token(claims({ iss: undefined }))),
    /nobody recognised the credential; .*jwt: its issuer is undefined/,
  ],
  'the key of a stranger': [bearer(stranger.token(claims())), /^its signature is not that of any key/],
  'a changed claim': [
    bearer(
      good.replace(
        /\.[^.]+\./,
        `.${Buffer.from(JSON.stringify(claims({ sub: 'root' }))).toString('base64url')}.`,
      ),
    ),
    /^its signature is not that of any key/,
  ],
  'alg none': [bearer(jwtOf({ alg: 'none' }, claims(), () => '')), /^its algorithm is "none", not one of/],
  'alg nOnE with a signature': [
    bearer(jwtOf({ alg: 'nOnE', kid: 'k' }, claims(), () => Buffer.from('x'))),
    /^its algorithm is "nOnE"/,
  ],
  'no alg': [bearer(jwtOf({ kid: 'k' }, claims(), () => '')), /^its algorithm is undefined/],
  'HS256 with the public key as PEM': [bearer(hs256(key.pem)), /^its algorithm is "HS256", not one of RS256/],
  'HS256 with the public key as PEM, trimmed': [bearer(hs256(key.pem.trim())), /^its algorithm is "HS256"/],
  'HS256 with the public key as DER': [bearer(hs256(der)), /^its algorithm is "HS256"/],
  'HS256 with the JWK': [bearer(hs256(JSON.stringify(key.jwk))), /^its algorithm is "HS256"/],
  'HS256 with the modulus': [
    bearer(hs256(Buffer.from(String(key.jwk['n']), 'base64url'))),
    /^its algorithm is "HS256"/,
  ],
  'RS256 in the header, an HMAC as the signature': [
    bearer(jwtOf({ alg: 'RS256', kid: 'k' }, claims(), hmac(key.pem))),
    /^its signature is not that of any key/,
  ],
  'a kid that asks for a fetch': [
    bearer(stranger.token(claims(), { kid: elsewhere })),
    /^there is no key with kid "http:\/\/127\.0\.0\.1:\d+\/evil" for "RS256"/,
  ],
  'a kid that asks for a file': [
    bearer(stranger.token(claims(), { kid: '../../../../dev/null' })),
    /^there is no key with kid "\.\.\//,
  ],
  'a kid that is no text': [bearer(stranger.token(claims(), { kid: ['k'] })), /^its kid is not a text/],
  'a jku header': [
    bearer(stranger.token(claims(), { jku: elsewhere })),
    /^its header says where its key is \(jku\)/,
  ],
  'an x5u header': [
    bearer(stranger.token(claims(), { x5u: elsewhere })),
    /^its header says where its key is \(x5u\)/,
  ],
  'a jwk header': [
    bearer(stranger.token(claims(), { jwk: stranger.jwk })),
    /^its header says where its key is \(jwk\)/,
  ],
  'a jku header, signed with the right key': [bearer(key.token(claims(), { jku: elsewhere })), /\(jku\)/],
  'an x5c header': [
    bearer(stranger.token(claims(), { x5c: [stranger.pem.replace(/-----[^-]+-----|\n/g, '')] })),
    /^its (signature is not that of any key|header says where its key is)/,
  ],
  'critical extensions': [
    bearer(key.token(claims(), { crit: ['b64'], b64: false })),
    /^it has critical extensions/,
  ],
  'an ID token': [
    bearer(key.token(claims({ token_use: 'id' }))),
    /^it is no access token: its token_use is "id"/,
  ],
  'a logout token': [bearer(key.token(claims(), { typ: 'logout+jwt' })), /^its typ is "logout\+jwt"/],
  'a token that is bound to a key (DPoP)': [
    bearer(key.token(claims({ cnf: { jkt: 'x' } }))),
    /^it is bound to a key of its client/,
  ],
  'a token of 9 KiB': [
    bearer(key.token(claims({ pad: 'x'.repeat(7000) }))),
    /^the token has more than 8192 characters/,
  ],
  'a token of 15 KiB': [
    bearer('x'.repeat(15_000)),
    /^15007 bytes in the header authorization; 12288 are allowed/,
  ],
  'an opaque token': [
    bearer('0123456789abcdefghij'),
    /nobody recognised the credential; .*jwt: it is not a JWT/,
  ],
  'a JWT of five parts': [bearer(`${good}.x.y`), /nobody recognised the credential; .*jwt: it is not a JWT/],
  'a JWT of garbage': [
    bearer('e30.!.x'),
    /nobody recognised the credential; .*jwt: what follows Bearer is not one token/,
  ],
  'two tokens in one header': [bearer(`${good}, ${good}`), /what follows Bearer is not one token/],
  'two Authorization headers, good ones': [
    { Authorization: [`Bearer ${good}`, `Bearer ${good}`] },
    /^two authorization headers/,
  ],
  'two Authorization headers, the first one good': [
    { Authorization: [`Bearer ${good}`, 'Bearer 0123456789abcdefghij'] },
    /^two authorization headers/,
  ],
  'Basic that is no base64': [{ Authorization: 'Basic !!!!' }, /^basic: the credentials are not base64/],
  'Basic without a colon': [basic('alice'), /^basic: the credentials have no colon/],
  'Basic without a name': [basic(':right-password-1'), /^basic: an unknown user name/],
  'Basic with a control character': [
    basic('alice:right\u0000password'),
    /^basic: the credentials have control characters/,
  ],
  'Basic of nobody known': [basic('mallory:right-password-1'), /^basic: an unknown user name/],
  'Basic with a wrong password': [basic('alice:sesame-open-not'), /^basic: a wrong password for alice/],
  ...Object.fromEntries(
    Object.entries(troubled).map(([place, why]): [string, [Headers, RegExp]] => [
      `a token of an issuer with trouble: ${place}`,
      [bearer(key.token(claims({ iss: nameOf(place) }))), why],
    ]),
  ),
}

const challenge = (isBearer: boolean): string =>
  `Bearer ${isBearer ? 'error="invalid_token", error_description="The access token is not valid here.", ' : ''}` +
  'resource_metadata="https://mcp.example/.well-known/oauth-protected-resource/mcp", Basic realm="mcp", charset="UTF-8"'
const body =
  '{"jsonrpc":"2.0","error":{"code":401,"message":"Authentication is required.",' +
  '"data":{"source":"mcp-sidecar","reason":"ERR_AUTH","requestId":"ID"}}}'

const refusalOf = (
  { headers }: RawResponse,
  all: readonly LogLine[] = logs,
): Readonly<Record<string, unknown>> | undefined =>
  all.find(
    ({ text, fields }) => text === 'request refused' && fields['requestId'] === headers['x-request-id'],
  )?.fields

/** The answer to these credentials is that to all bad ones. */
function isRefused(t: Test, answer: RawResponse, sent: Headers, what: string): void {
  const { status, headers, body: text } = alike(answer) as { status: number; headers: Headers; body: string }
  const { 'content-length': length, ...rest } = headers
  const isBearer = !String(sent['Authorization']).startsWith('Basic')
  t.same(
    { status, headers: rest, body: text },
    {
      status: 401,
      headers: { 'content-type': 'application/json', 'www-authenticate': challenge(isBearer) },
      body,
    },
    what,
  )
  t.equal(Number(length), answer.body.length)
}

t.test('good credentials are let in on every way', async (t) => {
  for (const [name, way] of Object.entries(ways)) {
    for (const headers of [bearer(good), bearer(staticToken), basic('alice:right-password-1')]) {
      t.not((await way(headers)).status, 401, name)
    }
  }
})

/** The ids of refusals, with what the log said of each. */
const details = new Map<string, string>()

for (const [name, way] of Object.entries(ways)) {
  t.test(`bad credentials look all alike, and the log tells them apart: ${name}`, async (t) => {
    let suppressed = 0
    for (const [what, [headers, why]] of Object.entries(bad)) {
      // The log has a hundred refusals of a second, and counts the others.
      const [answer] = await Promise.all([way(headers), pause(15)])
      isRefused(t, answer, headers, what)
      const line = refusalOf(answer)
      if (line === undefined) suppressed++
      else t.match(line['detail'], why, `${what}, in the log`)
      details.set(String(answer.headers['x-request-id']), String(line?.['detail']))
    }
    t.equal(suppressed, 0, 'each is in the log')
  })
}

t.test('neither can a token be told whose issuer answers nothing in time', async (t) => {
  // A sidecar of its own: what is short for this issuer would be for the others, too.
  const auth = {
    ...methods,
    fetching: { ...methods.fetching, timeout: '200ms' },
    jwt: [{ issuer: nameOf('slow'), jwksUrl: `${issuer.url}/slow` }],
  }
  const sidecar = await startTestSidecar(t, {
    flags: configFile(t, { auth, listen: { webSocket: true } }, files),
  })
  const headers = bearer(key.token(claims({ iss: nameOf('slow') })))
  for (const [name, way] of Object.entries(waysInto(sidecar.base))) {
    const answer = await way(headers)
    isRefused(t, answer, headers, name)
    t.match(
      refusalOf(answer, sidecar.logs)?.['detail'],
      /cannot be had: GET .*\/slow: it did not answer in full within 200 ms/,
      `${name}, in the log`,
    )
  }
})

t.test('the audit log says the same as the log', async (t) => {
  // biome-ignore lint/suspicious/noExplicitAny: lines of any shape
  const lines = (): any[] =>
    readFileSync(auditFile, 'utf8')
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line))
  const told = new Map<string, string>()
  await until(() => {
    told.clear()
    for (const line of lines()) {
      const text = JSON.stringify(line)
      for (const id of details.keys()) if (text.includes(`"${id}"`)) told.set(id, text)
    }
    return told.size === details.size
  }, 'a line for each')
  for (const [id, detail] of details) {
    const quoted = JSON.stringify(detail).slice(1, -1)
    if (told.get(id)?.includes(quoted) !== true) t.fail(`${told.get(id)} does not say ${quoted}`)
  }
  t.pass('all do')
})

t.test('nothing of a token is in the logs', async (t) => {
  const places = {
    log: JSON.stringify(logs),
    audit: readFileSync(auditFile, 'utf8'),
    metrics: await sidecar.metrics(),
  }
  for (const [where, text] of Object.entries(places)) {
    for (const [what, [headers]] of Object.entries(bad)) {
      for (const line of [headers['Authorization'] ?? []].flat()) {
        for (const part of line.replace(/^(Bearer|Basic) /, '').split(/[., ]+/)) {
          if (part.length >= 12 && text.includes(part)) t.fail(`${where}, ${what}: ${part.slice(0, 40)}`)
        }
      }
    }
    t.notOk(/right.?password|sesame|static-0123/.test(text), where)
  }
})

t.test('nobody was asked for what a token named', async (t) => {
  t.same(
    issuer.asked.filter((each) => each.includes('evil')),
    [],
  )
})

t.test('a token of 100 KiB does not get as far as that, on any way in', async (t) => {
  const huge = 'x'.repeat(100 * 1024)
  const seen = new Set<string>()
  for (const [name, way] of Object.entries(ways)) {
    const answer = await way(bearer(huge))
    t.match(answer.json, { error: { data: { reason: 'ERR_HEADERS' } } }, name)
    t.equal(answer.status, 431)
    seen.add(JSON.stringify(alike(answer)))
  }
  t.equal(seen.size, 1, [...seen].join(' '))
  t.notOk(/x{100}/.test(JSON.stringify(logs)))
})

t.test('strangers start no fetch beyond those that the cooldown lets through', async (t) => {
  const count = (path: string): number => issuer.asked.filter((each) => each === `GET ${path}`).length
  const burst = async (name: string, more: object): Promise<void> => {
    const tokens = Array.from({ length: 40 }, (_, i) => stranger.token(claims(more), { kid: `${name}-${i}` }))
    for (const { status } of await Promise.all(
      tokens.map((token) => post(url, initialize(), bearer(token))),
    )) {
      t.equal(status, 401)
    }
  }
  clock.forward(30_001)
  for (const [i, path] of ['/jwks', '/jwks', '/jwks'].entries()) {
    const before = count(path)
    await burst(`burst ${i}`, {})
    await burst(`again ${i}`, {})
    t.equal(count(path), before + 1, 'one for all of them')
    clock.forward(30_001)
  }
  const before = Object.keys(troubled).map((place) => count(`/${place}`))
  await burst('nobody', { iss: nameOf('nobody') })
  await burst('nobody', { iss: nameOf('nobody') })
  t.same(
    Object.keys(troubled).map((place) => count(`/${place}`)),
    before.map((times) => times + 1),
    'issuers that have no keys are asked again, once',
  )
})

t.test('an address that fails too often is told to wait, a known credential is not', async (t) => {
  const time = forwardClock()
  const { url, base, logs } = await startTestSidecar(t, {
    flags: configFile(
      t,
      { auth: methods, listen: { webSocket: true, trustedProxies: ['127.0.0.1'] } },
      files,
    ),
    clock: time,
    failedAttempts: 5,
  })
  const from = (address: string, headers: Headers): Headers => ({ ...headers, 'X-Forwarded-For': address })
  const doors = waysInto(base)
  const known = key.token(claims())
  t.equal((await post(url, initialize(), from('192.0.2.1', bearer(known)))).status, 200)
  for (let i = 0; i < 5; i++) {
    const token = key.token(claims({ aud: 'x', i }))
    t.equal((await post(url, initialize(), from('192.0.2.1', bearer(token)))).status, 401)
  }
  let others = 0
  const unseen = (): string => key.token(claims({ sub: `other ${++others}` }))
  const seen = new Set<string>()
  for (const [name, way] of Object.entries(doors)) {
    for (const headers of [
      bearer(unseen()),
      bearer('0123456789abcdefghij'),
      basic('alice:right-password-1'),
    ]) {
      const answer = await way(from('192.0.2.1', headers))
      t.equal(answer.status, 429, name)
      t.match(answer.json, { error: { data: { reason: 'ERR_RATE_LIMITED' } } })
      t.match(answer.headers['retry-after'], /^\d+$/)
      t.equal(answer.json.error.data.retryAfterSeconds, Number(answer.headers['retry-after']))
      t.notOk(answer.headers['www-authenticate'], 'no challenge: another credential would not help')
      seen.add(
        answer.body.replace(answer.json.error.data.requestId, 'ID').replace(/\d+(?=\}\}\})/, 'SECONDS'),
      )
    }
    for (const token of [staticToken, known]) {
      const { status } = await way(from('192.0.2.1', bearer(token)))
      t.ok(status !== 429 && status !== 401, `${name}: ${status}`)
    }
    const { status } = await way(from('192.0.2.2', bearer(unseen())))
    t.ok(status !== 429 && status !== 401, `${name}, from another address: ${status}`)
  }
  t.equal(seen.size, 1, [...seen].join(' '))
  t.match(logs.find(({ fields }) => fields['code'] === 'ERR_RATE_LIMITED')?.fields, {
    detail: /5 or more failed attempts of 192\.0\.2\.1/,
  })
  time.forward(60_001)
  const later = key.token(claims({ sub: 'carol' }))
  t.equal(
    (await post(url, initialize(), from('192.0.2.1', bearer(later)))).status,
    200,
    'it may try again later',
  )
})
