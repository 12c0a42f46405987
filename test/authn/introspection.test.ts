import type { IncomingMessage, ServerResponse } from 'node:http'
import t from 'tap'
import { Unavailable } from '../../src/authn/authenticator.ts'
import { createFetcher } from '../../src/authn/fetching.ts'
import { introspect } from '../../src/authn/introspection.ts'
import type { Verified } from '../../src/authn/token-cache.ts'
import type { TokenChecks } from '../../src/core/policy.ts'
import { Credential } from '../../src/core/secret.ts'
import { systemClock } from '../../src/observe/clock.ts'
import { ManualClock } from '../support/modern-calls.ts'
import { html, json, redirect, scriptedIssuer } from '../support/scripted-issuer.ts'
import { checks, recordingLog } from '../support/token-requests.ts'

const issuer = 'https://issuer.example'
const resource = 'https://mcp.example/mcp'
const secret = 'the secret: 100% +'

t.test('an introspection endpoint', async (t) => {
  const server = await scriptedIssuer(t)
  const clock = new ManualClock()
  const good = { active: true, sub: 'alice', aud: resource, exp: clock.epoch() / 1000 + 3600, scope: 'a b' }
  const ask = (own: Partial<TokenChecks> = {}, url = `${server.url}/introspect`): Promise<Verified> =>
    introspect('opaque-token', {
      ...{
        method: 'oidc',
        checks: { ...checks, ...own },
        issuer,
        proof: 'p',
        clientId: 'side:car',
        cacheMs: 60_000,
      },
      clientSecret: new Credential(secret),
      endpoint: () => url,
      fetcher: createFetcher(server.fetching, { clock: systemClock }),
      deps: { clock, log: recordingLog(), resource: () => resource },
    })
  const answer = (value: unknown, status = 200): void => {
    server.answers['/introspect'] = json(value, status)
  }
  const why = (own?: Partial<TokenChecks>): Promise<string> =>
    ask(own).then(
      ({ identity }) => `accepted: ${identity.id}`,
      (thrown: { code?: string; detail?: string }) => `${thrown.code}: ${thrown.detail}`,
    )

  t.test('is asked with the token in the body and the client in Basic', async (t) => {
    let body = ''
    let headers: IncomingMessage['headers'] = {}
    server.answers['/introspect'] = (response: ServerResponse, request: IncomingMessage) => {
      headers = request.headers
      request.setEncoding('utf8').on('data', (chunk: string) => {
        body += chunk
      })
      request.on('end', () => json(good)(response, request))
    }
    const { identity, until, keys } = await ask()
    t.same(
      [...new URLSearchParams(body)],
      [
        ['token_type_hint', 'access_token'],
        ['token', 'opaque-token'],
      ],
    )
    const [id, password] = Buffer.from(headers.authorization?.slice(6) ?? '', 'base64')
      .toString()
      .split(':')
    t.equal(decodeURIComponent(id ?? ''), 'side:car')
    t.equal(decodeURIComponent((password ?? '').replaceAll('+', ' ')), secret)
    t.match(headers['content-type'], /^application\/x-www-form-urlencoded/)
    t.match(identity, {
      ...{
        id: `jwt:${issuer}|alice`,
        method: 'oidc',
        scopes: ['a', 'b'],
        expiresAt: good.exp * 1000 + 30_000,
      },
      claims: { iss: issuer, sub: 'alice', active: undefined },
    })
    t.equal(until, clock.epoch() + 60_000, 'the answer is believed so long')
    t.equal(keys, undefined)
    t.same(server.asked, ['POST /introspect'])
  })

  t.test('is believed no longer than the token lasts', async (t) => {
    answer({ ...good, exp: clock.epoch() / 1000 + 10 })
    t.equal((await ask({ clockToleranceMs: 0 })).until, clock.epoch() + 10_000)
  })

  t.test('says who a client without a user is', async (t) => {
    answer({ ...good, sub: undefined, client_id: 'machine' })
    t.equal(await why(), `accepted: jwt:${issuer}|machine`)
    t.match(await why({ subjectClaim: 'email' }), /its email names nobody/)
    answer({ ...good, sub: undefined })
    t.match(await why(), /its sub names nobody/)
  })

  t.test('must say that the token is active, for us, of this issuer, and when it ends', async (t) => {
    const cases: [object, RegExp][] = [
      [{ active: false }, /says that it is not active/],
      [{ ...good, active: 'true' }, /cannot be asked about it: .*"active" property must be a boolean/],
      [{}, /must be a boolean/],
      [{ ...good, aud: undefined }, /it has no audience/],
      [{ ...good, aud: 'https://other.example' }, /its audience is/],
      [{ ...good, exp: undefined }, /it has no exp/],
      [{ ...good, exp: clock.epoch() / 1000 - 60 }, /it expired 60 s ago/],
      [{ ...good, iss: 'https://evil.example' }, /its issuer is/],
      [{ ...good, iss: null }, /its issuer is null/],
      [{ ...good, token_type: 'DPoP' }, /of type DPoP, not a bearer token/],
      [{ ...good, cnf: { jkt: 'x' } }, /bound to a key/],
      [{ ...good, token_use: 'refresh_token' }, /no access token/],
    ]
    for (const [value, expected] of cases) {
      answer(value)
      t.match(await why(), expected)
      t.match(await why(), /^ERR_AUTH_INVALID: /)
    }
    answer(good)
    t.match(await why({ scopes: ['c'] }), /^ERR_SCOPE/)
  })

  t.test('that does not answer as it should gives a reason without the token or the secret', async (t) => {
    const failures: [(typeof server.answers)[string], RegExp][] = [
      [json({ error: 'invalid_client', error_description: 'opaque-token' }, 401), /status 401/],
      [json({}, 500), /status 500/],
      [html, /HTML/],
      [redirect(`${server.url}/other`), /a redirect/],
      [(response) => void response.destroy(), /hang up/],
      [json({ ...good, pad: 'x'.repeat(65_536) }), /more than 65536 bytes/],
    ]
    for (const [reaction, expected] of failures) {
      server.answers['/introspect'] = reaction
      const outcome = await why()
      t.match(outcome, /^ERR_AUTH_INVALID: the issuer cannot be asked about it: POST http/)
      t.match(outcome, expected)
      t.notMatch(outcome, /opaque-token|the secret/)
    }
    t.notOk(server.asked.includes('POST /other') || server.asked.includes('GET /other'))
    const causes: [(typeof server.answers)[string], boolean][] = [
      ...failures.map(([reaction]): [(typeof server.answers)[string], boolean] => [reaction, true]),
      [json({ error: 'invalid_request' }, 400), false],
    ]
    for (const [reaction, outage] of causes) {
      server.answers['/introspect'] = reaction
      const thrown: unknown = await ask().catch((refused: unknown) => refused)
      const unavailable = (thrown as Error).cause instanceof Unavailable
      t.equal(unavailable, outage, 'only a refused token is held against who sent it')
    }
    await t.rejects(ask({}, 'http://10.0.0.1/introspect'), {
      code: 'ERR_AUTH_INVALID',
      detail: /for this machine alone/,
    })
  })
})
