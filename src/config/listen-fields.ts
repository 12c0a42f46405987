import { allowedHost, listenHost, origin } from './addresses.ts'
import type { FieldsOf } from './field.ts'
import { defaulted, object, required } from './object.ts'
import { choice, duration, flag, integer, list, path } from './values.ts'
import { trustedNetwork } from './words.ts'

const tlsType = object({
  certFile: required(path('file'), 'PEM file with the certificate and those between it and the authority.'),
  keyFile: required(path('file'), 'PEM file with the private key.'),
  minVersion: defaulted(choice('TLSv1.2', 'TLSv1.3'), 'TLSv1.2', 'Oldest version of TLS to speak.'),
})

/** Where and how clients and probes reach the sidecar. */
export const listenFields: FieldsOf<'listen' | 'admin'> = {
  'listen.host': {
    file: 'listen.host',
    type: listenHost,
    default: '127.0.0.1',
    flag: 'host',
    placeholder: 'ADDRESS',
    doc: 'Address to listen on. Any address that is not loopback (127.0.0.0/8, ::1, localhost) needs a choice of authentication.',
  },
  'listen.port': {
    file: 'listen.port',
    type: integer(0, 65_535),
    default: 8080,
    flag: 'port',
    placeholder: 'N',
    doc: 'Port to listen on. 0 takes any free one.',
  },
  'listen.allowedHosts': {
    file: 'listen.allowedHosts',
    type: list(allowedHost),
    default: [],
    flag: 'allow-host',
    placeholder: 'HOST',
    repeatable: true,
    doc: 'Host header to accept. A name without a port stands for any port. Loopback names are always accepted on a loopback address; on another address an empty list accepts any name when callers authenticate, and else only names that nobody outside can point here. The check stops DNS rebinding.',
  },
  'listen.allowedOrigins': {
    file: 'listen.allowedOrigins',
    type: list(origin),
    default: [],
    flag: 'allow-origin',
    placeholder: 'ORIGIN',
    repeatable: true,
    doc: 'Origin whose web pages may use the server (CORS). On a loopback address the pages of this machine may too.',
  },
  'listen.tls': {
    file: 'listen.tls',
    type: tlsType,
    absent: undefined,
    means: 'plain HTTP',
    doc: 'Serve over TLS. The files are read again when they change.',
  },
  'listen.trustedProxies': {
    file: 'listen.trustedProxies',
    type: list(trustedNetwork),
    default: [],
    doc: 'Addresses and networks of proxies in front. What they say in `Forwarded`, `X-Forwarded-For` or about client certificates is believed; of everybody else it is not.',
  },
  'listen.forwardedHeader': {
    file: 'listen.forwardedHeader',
    type: choice('forwarded', 'x-forwarded-for'),
    absent: undefined,
    means: 'either; a request in which they disagree is refused',
    doc: 'The one header with the address of the client that the proxies write. The other one is then what the client made of it, and is not looked at.',
  },
  'listen.streamableHttp': {
    file: 'listen.streamableHttp',
    type: flag,
    default: true,
    doc: 'Serve Streamable HTTP at `/mcp`.',
  },
  'listen.httpSse': {
    file: 'listen.httpSse',
    type: flag,
    default: true,
    doc: 'Serve HTTP+SSE (2024-11-05) at `/sse` and `/messages`.',
  },
  'listen.webSocket': {
    file: 'listen.webSocket',
    type: flag,
    default: false,
    flag: 'web-socket',
    doc: 'Serve WebSocket at `/ws`, subprotocol `mcp`.',
  },
  'listen.keepAliveMs': {
    file: 'listen.keepAlive',
    type: duration('1s', '1h'),
    default: '15s',
    doc: 'Time between the comments or pings that keep a quiet stream open.',
  },
  'admin.host': {
    file: 'admin.host',
    type: listenHost,
    inherits: 'listen.host',
    doc: 'Address of `/healthz`, `/readyz` and `/metrics`, which ask for no authentication.',
  },
  'admin.port': {
    file: 'admin.port',
    type: integer(0, 65_535),
    default: 9090,
    flag: 'admin-port',
    placeholder: 'N',
    doc: 'Port of `/healthz`, `/readyz` and `/metrics`. 0 takes any free one.',
  },
}
