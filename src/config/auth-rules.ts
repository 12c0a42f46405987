import { impossible } from '../core/auth-layers.ts'
import { isLoopback } from '../core/net.ts'
import type { AuthMethod, CertificateMethod } from '../core/policy.ts'
import { METHOD_KEYS } from './auth-policy.ts'
import type { Problem } from './error.ts'
import type { SettingKey } from './field.ts'
import { FIELDS } from './fields.ts'
import type { Path } from './parsed.ts'
import { type Checked, type Rule, show } from './rule.ts'
import { plainHttp } from './words.ts'

/** What says nothing without a method. */
const FRAME_KEYS = [
  'auth.require',
  'auth.timeoutMs',
  'auth.resource',
  'auth.authorizationServers',
  'auth.scopesSupported',
  'auth.failures.attempts',
  'auth.failures.windowMs',
  'auth.fetching.caFile',
  'auth.fetching.timeoutMs',
  'auth.fetching.allowPrivateAddresses',
  'auth.fetching.allowHttp',
] as const satisfies readonly SettingKey[]

/** The documents are among them: what they would have said is not known when one is wrong. */
const EVERY_LAYER = ['auth.none', ...METHOD_KEYS, 'manifests'] as const

function methodsOf({ config }: Checked): readonly AuthMethod[] {
  return config.policy.auth.layers.flatMap(({ methods }) => methods)
}

/** A problem where the method was given. */
function fault({ origins }: Checked, method: AuthMethod, path: Path, message: string): Problem {
  return { where: origins.of(method)?.at(path) ?? 'default', message: `${method.method}: ${message}` }
}

/** URLs a method asks, with their names in the file. */
function urlsOf(method: AuthMethod): readonly (readonly [string, string, boolean])[] {
  if (method.method === 'jwt' && 'url' in method.keys)
    return [['jwksUrl', method.keys.url, method.keys.fetching.allowHttp]]
  if (method.method !== 'oidc') return []
  const { issuer, introspectionUrl, fetching } = method
  const more = introspectionUrl === undefined ? [] : [['introspectionUrl', introspectionUrl] as const]
  return [['issuer', issuer] as const, ...more].map(([name, url]) => [name, url, fetching.allowHttp])
}

export const AUTH_RULES: readonly Rule[] = [
  {
    reads: EVERY_LAYER,
    doc: '`auth: none` and a method exclude each other, also when one comes from the file or a document and the other from a flag.',
    check: ({ config, at }) => {
      if (!config.auth.none) return []
      const none = `auth is none (${at('auth.none')}): keep one of the two`
      const own = METHOD_KEYS.filter((key) => at(key) !== 'default').map((key) => {
        const what =
          key === 'auth.bearerTokenFile' ? 'a token file is named' : `${FIELDS[key].file} is configured`
        return { where: at(key), message: `${what} here, and ${none}` }
      })
      const others = config.policy.auth.layers.filter(({ name }) => name !== 'auth')
      const added = others.map(({ name }) => ({
        where: at('auth.none'),
        message: `auth is none here, and ${name} demands authentication: leave one of the two out`,
      }))
      return [...own, ...added]
    },
  },
  {
    reads: [...EVERY_LAYER, ...FRAME_KEYS],
    doc: 'Settings in `auth` need a method that they are about.',
    check: ({ config, at }) => {
      if (config.auth.none || config.policy.auth.layers.length > 0) return []
      const key = FRAME_KEYS.find((each) => at(each) !== 'default')
      if (key === undefined) return []
      const message = `${FIELDS[key].file} is set and there is no method: add one, such as auth.bearer.tokenFile, or say auth: none`
      return [{ where: at(key), message }]
    },
  },
  {
    reads: ['listen.host', ...EVERY_LAYER],
    doc: 'Listening on an address that is not loopback needs a method of authentication or an explicit `auth: none`.',
    check: ({ config: { auth, listen, policy }, at, addition }) =>
      isLoopback(listen.host) || auth.none || policy.auth.layers.length > 0 || addition.open !== undefined
        ? []
        : [
            {
              where: at('listen.host'),
              message: `${show('listen.host', listen.host)} can be reached from other machines and there is no authentication: name a token file (--bearer-token-file FILE) or accept every caller (--auth none)`,
            },
          ],
  },
  {
    reads: EVERY_LAYER,
    doc: 'Where gateway defaults say `requireAuthentication`, the route or the file has a method.',
    check: ({ config, addition: { requireAuthentication } }) =>
      requireAuthentication === undefined || config.policy.auth.layers.length > 0
        ? []
        : [
            {
              where: requireAuthentication,
              message:
                'authentication is required here, and neither the gateway defaults, the route nor the file of --config has a method',
            },
          ],
  },
  {
    reads: [...EVERY_LAYER, 'auth.require'],
    doc: 'A combination of methods that no request can satisfy is refused: two that read one header and accept different credentials, where both must accept.',
    check: ({ config, origins, at }) => {
      const { layers } = config.policy.auth
      const reason = impossible(layers)
      if (reason === undefined) return []
      const first = layers.find(({ name }) => reason.includes(name)) ?? layers[0]
      const own = METHOD_KEYS.find((key) => at(key) !== 'default')
      const where = first === undefined ? undefined : origins.of(first)?.at([])
      return [{ where: where ?? (own === undefined ? 'command line' : at(own)), message: reason }]
    },
  },
  {
    reads: [...EVERY_LAYER, 'listen.tls', 'listen.trustedProxies'],
    doc: 'Client certificates from `tls` need `listen.tls`, forwarded ones `listen.trustedProxies`. All that come from `tls` have the same authorities.',
    check: (checked) => {
      const { listen } = checked.config
      const certificates = methodsOf(checked).filter(
        (method): method is CertificateMethod => method.method === 'clientCertificate',
      )
      const direct = certificates.filter(({ from }) => from === 'tls')
      return certificates.flatMap((method) => {
        const { from, caFile, crlFile } = method
        if (from === 'forwarded' && listen.trustedProxies.length === 0)
          return [
            fault(
              checked,
              method,
              ['from'],
              'forwarded certificates need listen.trustedProxies: who may forward them',
            ),
          ]
        if (from === 'tls' && listen.tls === undefined)
          return [
            fault(checked, method, ['from'], 'certificates are presented over TLS: configure listen.tls'),
          ]
        if (from === 'tls' && (caFile !== direct[0]?.caFile || crlFile !== direct[0].crlFile))
          return [
            fault(
              checked,
              method,
              ['caFile'],
              'the listener has one set of authorities and revocation lists: name the same files everywhere',
            ),
          ]
        return []
      })
    },
  },
  {
    reads: [...EVERY_LAYER, 'listen.host', 'auth.resource'],
    doc: 'Tokens of `jwt` and `oidc` without `audiences` are for `auth.resource`, which must be said on an address that is not loopback: which URL clients use is not known otherwise.',
    check: (checked) => {
      const { policy, listen } = checked.config
      if (isLoopback(listen.host) || policy.auth.resource !== undefined) return []
      return methodsOf(checked).flatMap((method) =>
        (method.method === 'jwt' || method.method === 'oidc') && method.audiences.length === 0
          ? [
              fault(
                checked,
                method,
                [],
                'tokens for other servers would be accepted: name audiences, or this server as auth.resource',
              ),
            ]
          : [],
      )
    },
  },
  {
    reads: [...EVERY_LAYER, 'auth.fetching.allowHttp'],
    doc: 'Issuers are asked over https; over plain http only on loopback addresses and with `allowHttp`.',
    check: (checked) =>
      methodsOf(checked).flatMap((method) =>
        urlsOf(method).flatMap(([name, url, allowHttp]) => {
          const message = plainHttp(url, allowHttp)
          return message === undefined ? [] : [fault(checked, method, [name], `${name} ${message}`)]
        }),
      ),
  },
]
