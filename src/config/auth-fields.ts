import { apiKeyType, basicType, certificateType, jwtTypes, kubernetesType, oidcTypes } from './auth-values.ts'
import type { FieldsOf } from './field.ts'
import { bad, good } from './parsed.ts'
import { choice, duration, flag, integer, list, path, type ValueType } from './values.ts'
import { issuerUrl, resourceUrl, scope } from './words.ts'

const authChoice: ValueType<boolean> = {
  name: '`none`',
  json: { const: 'none' },
  // What was given is not repeated: a token is easily written here by mistake.
  parse: (input) =>
    input === 'none'
      ? good(true)
      : bad(
          'must be none, or a section of methods such as bearer with its tokenFile (a flag: --bearer-token-file)',
        ),
  parseText: (input) =>
    input === 'none' ? good(true) : bad('must be none; a token file is named with --bearer-token-file'),
  show: (none) => (none ? 'none' : 'not set'),
}

/** How callers prove who they are. */
export const authFields: FieldsOf<'auth'> = {
  'auth.none': {
    file: 'auth',
    type: authChoice,
    absent: false,
    means: 'not chosen; enough on a loopback address',
    flag: 'auth',
    placeholder: 'none',
    doc: 'none: accept every caller. Must be said on an address that other machines can reach, when callers need not prove who they are.',
  },
  'auth.bearerTokenFile': {
    file: 'auth.bearer.tokenFile',
    type: path('file'),
    absent: undefined,
    means: 'no bearer tokens',
    flag: 'bearer-token-file',
    placeholder: 'FILE',
    doc: 'File with the bearer tokens callers must present, one `NAME:TOKEN` a line. It is read again when it changes.',
  },
  'auth.apiKey': {
    file: 'auth.apiKey',
    type: apiKeyType,
    absent: undefined,
    means: 'no API keys',
    doc: 'API keys, in a header of their own.',
  },
  'auth.basic': {
    file: 'auth.basic',
    type: basicType,
    absent: undefined,
    means: 'no passwords',
    doc: 'Names and passwords (RFC 7617).',
  },
  'auth.jwt': {
    file: 'auth.jwt',
    type: jwtTypes,
    absent: undefined,
    means: 'no JWT',
    doc: 'Signed tokens (RFC 7519, RFC 9068) of an issuer whose keys are known.',
  },
  'auth.oidc': {
    file: 'auth.oidc',
    type: oidcTypes,
    absent: undefined,
    means: 'no OpenID provider',
    doc: 'Access tokens of an OpenID provider or OAuth server, found by discovery.',
  },
  'auth.kubernetes': {
    file: 'auth.kubernetes',
    type: kubernetesType,
    absent: undefined,
    means: 'no service accounts',
    doc: 'Tokens of Kubernetes service accounts.',
  },
  'auth.clientCertificate': {
    file: 'auth.clientCertificate',
    type: certificateType,
    absent: undefined,
    means: 'no client certificates',
    doc: 'Client certificates: mutual TLS, SPIFFE.',
  },
  'auth.require': {
    file: 'auth.require',
    type: choice('any', 'all'),
    default: 'any',
    doc: 'With several methods: `any` takes the first that recognises its credential, `all` demands every one of them.',
  },
  'auth.timeoutMs': {
    file: 'auth.timeout',
    type: duration('100ms', '1m'),
    default: '10s',
    doc: 'Longest time for all methods of one request together.',
  },
  'auth.resource': {
    file: 'auth.resource',
    type: resourceUrl,
    absent: undefined,
    means: 'the URL that is listened on',
    doc: 'This server as clients name it: the audience that tokens must be for (RFC 8707), and what the metadata for clients says (RFC 9728).',
  },
  'auth.authorizationServers': {
    file: 'auth.authorizationServers',
    type: list(issuerUrl),
    default: [],
    doc: 'Issuers where clients get tokens, besides those of `jwt` and `oidc`; for the RFC 9728 document.',
  },
  'auth.scopesSupported': {
    file: 'auth.scopesSupported',
    type: list(scope),
    default: [],
    doc: 'Scopes that clients are told of, besides those that methods demand; for the RFC 9728 document.',
  },
  'auth.failures.attempts': {
    file: 'auth.failures.attempts',
    type: integer(1, 1_000_000),
    default: 20,
    doc: 'Failed attempts of one address (IPv6: /64) in one window before further ones are refused unseen.',
  },
  'auth.failures.windowMs': {
    file: 'auth.failures.window',
    type: duration('1s', '1d'),
    default: '1m',
    doc: 'How long failures of an address count.',
  },
  'auth.fetching.caFile': {
    file: 'auth.fetching.caFile',
    type: path('file'),
    absent: undefined,
    means: 'the roots of Node.js',
    doc: 'PEM file of the certification authorities of issuers.',
  },
  'auth.fetching.timeoutMs': {
    file: 'auth.fetching.timeout',
    type: duration('100ms', '1m'),
    default: '5s',
    doc: 'Longest time for one request to an issuer.',
  },
  'auth.fetching.allowPrivateAddresses': {
    file: 'auth.fetching.allowPrivateAddresses',
    type: flag,
    default: false,
    doc: 'Whether issuers may have addresses of private networks or of this machine; for those inside the cluster.',
  },
  'auth.fetching.allowHttp': {
    file: 'auth.fetching.allowHttp',
    type: flag,
    default: false,
    doc: 'Whether issuers on loopback addresses may be asked by plain http; for tests.',
  },
}
