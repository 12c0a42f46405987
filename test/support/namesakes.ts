/** Callers who all go by the name of alice, each proven in another way, and so none of them another. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { hashPassword } from '../../src/authn/password-hash.ts'
import { type SigningKey, signingKey } from './jwt-keys.ts'
import { authority } from './pki.ts'
import { folder } from './processes.ts'

export type Credential = Readonly<Record<string, string>>

export interface Namesakes {
  /** The sections `auth` and `listen` that let all of them in. */
  readonly settings: { readonly auth: object; readonly listen: object }
  /** A token of alice at the first issuer: the owner of whatever a test begins. */
  readonly alice: Credential
  /** Her next token. */
  readonly renewed: Credential
  /** Everybody else, by what they are, with the id of their principal. */
  readonly strangers: Readonly<Record<string, { readonly headers: Credential; readonly id: string }>>
}

const issuers = { one: 'https://one.example', two: 'https://two.example' }

export async function namesakes(t: Test): Promise<Namesakes> {
  const place = folder(t)
  const write = (name: string, text: string): string => {
    const file = join(place, name)
    writeFileSync(file, text, { mode: 0o600 })
    return file
  }
  const keys = { one: signingKey('one'), two: signingKey('two') }
  const jwt = Object.entries(keys).map(([name, key]) => ({
    issuer: issuers[name as keyof typeof issuers],
    jwksFile: write(`${name}.json`, JSON.stringify({ keys: [key.jwk] })),
    audiences: ['mcp'],
  }))
  const ca = authority('CA of alice')
  const bearing = (key: SigningKey, claims: object): Credential => {
    const exp = Math.floor(Date.now() / 1000) + 3600
    return { Authorization: `Bearer ${key.token({ aud: 'mcp', exp, ...claims })}` }
  }
  const [iss, other] = [issuers.one, issuers.two]
  const secret = 'alice-secret-0123456789abcdef'
  const password = 'a password of alice'
  const auth = {
    jwt,
    bearer: { tokenFile: write('tokens', `alice:${secret}\n`) },
    apiKey: { keyFile: write('keys', `alice:${secret}-key\n`) },
    basic: { passwordFile: write('passwords', `alice:${await hashPassword(password)}\n`) },
    clientCertificate: { from: 'forwarded', caFile: write('ca.pem', ca.certificate) },
  }
  const { certificate } = ca.issue({ dns: ['alice'] })
  return {
    settings: { auth, listen: { webSocket: true, trustedProxies: ['127.0.0.1'] } },
    alice: bearing(keys.one, { iss, sub: 'alice', jti: '1' }),
    renewed: bearing(keys.one, { iss, sub: 'alice', jti: '2' }),
    strangers: {
      'another subject of her issuer': {
        headers: bearing(keys.one, { iss, sub: 'bob' }),
        id: `jwt:${iss}|bob`,
      },
      'the same subject of another issuer': {
        headers: bearing(keys.two, { iss: other, sub: 'alice' }),
        id: `jwt:${other}|alice`,
      },
      'a subject that contains the whole of hers': {
        headers: bearing(keys.two, { iss: other, sub: `jwt:${iss}|alice` }),
        id: `jwt:${other}|jwt:${iss}|alice`,
      },
      'a static token of her name': { headers: { Authorization: `Bearer ${secret}` }, id: 'bearer:alice' },
      'an API key of her name': { headers: { 'X-API-Key': `${secret}-key` }, id: 'apiKey:alice' },
      'a user of her name': {
        headers: { Authorization: `Basic ${Buffer.from(`alice:${password}`).toString('base64')}` },
        id: 'basic:alice',
      },
      'a certificate of her name': {
        headers: { 'X-Forwarded-Client-Cert': `Cert="${encodeURIComponent(certificate)}"` },
        id: 'certificate:dns:alice',
      },
    },
  }
}
