/** Rows 55 to 64: the proxy, and what can be said to it. */
import { type Attempt, inside, type Options, type Place, type ProfileName } from './attempt.ts'
import { allowedAddress } from './listeners.ts'

const onlyBehind: Options = { never: 'the proxy and the names are those of the sidecar' }
/** A dial that failed is none of it: who had been dialled, had there been anybody? */
const denied = ['403']
const deniedOrMalformed = ['403', '400']
const quoted = (text: string): string => JSON.stringify(text)

const tunnels = (
  row: number,
  hosts: readonly (readonly [string, (place: Place) => string])[],
  held: readonly string[] = denied,
  profiles: readonly ProfileName[] = ['main'],
): Attempt[] =>
  hosts.map(([title, authority]) =>
    inside(row, title, (p) => `return probe.tunnel(${quoted(authority(p))})`, held, {
      ...onlyBehind,
      profiles,
      seen: true,
    }),
  )
/** The one refuses what it does not name, the other what lies in a special range. */
const bothWays: readonly ProfileName[] = ['main', 'public']

const forbidden = ({ world }: Place): number => world.listeners.forbiddenPort
const tcp = ({ world }: Place): number => world.listeners.tcpPort

const literals = [
  '127.0.0.1',
  '169.254.169.254',
  '10.1.2.3',
  '192.168.1.1',
  '100.100.100.200',
  '168.63.129.16',
  '[::1]',
  '[fd00:ec2::254]',
  '[fe80::1]',
]
/** Other ways to write loopback and the metadata address. */
const spellings = [
  '2130706433',
  '0177.1',
  '0x7f.1',
  '127.1',
  '0',
  '[::ffff:127.0.0.1]',
  '[::ffff:169.254.169.254]',
  '[::127.0.0.1]',
  '[64:ff9b::7f00:1]',
  '[64:ff9b::a9fe:a9fe]',
  '[2002:7f00:1::]',
  '2852039166',
  '0xa9fea9fe',
  '169.254.43518',
  '127.0.0.1.',
  '%31%32%37.0.0.1',
  '①②⑦.0.0.1',
  'localhost',
  'LOCALHOST.',
  'localhost.localdomain',
  'ip6-localhost',
]
/** Names that look like the allowed ones. */
const lookalikes = [
  'other.test',
  'evil-allowed.test',
  'allowed.test.evil.test',
  'xallowed.test',
  'allowedxtest',
  'wild.test',
  '.wild.test',
  'xwild.test',
  'a.wild.test.evil.test',
  'аllowed.test',
  'allowed.test%00.evil.test',
  'allowed.test\\.evil.test',
]
/** Allowed names that do not lead to allowed addresses. */
const rebound = ['loop.test', 'loop6.test', 'meta.test', 'private.test']

/** A TLS handshake with a name of its own, on a connection to a name that is allowed. */
const handshake = (name: string) => (): string =>
  `return new Promise((resolve) => {
     const socket = require('tls').connect({ host: 'sni.test', port: 443, servername: ${quoted(name)}, rejectUnauthorized: false }, () => resolve('ok'))
     socket.once('error', () => resolve('closed')); socket.once('close', () => resolve('closed')) })`
const sni: Options = { ...onlyBehind, profiles: ['proc'], needs: 'port 443' }

const smuggled: readonly (readonly [string, (place: Place) => string])[] = [
  [
    'Content-Length with Transfer-Encoding',
    (p) =>
      `POST http://${allowedAddress}:${p.world.listeners.httpPort}/ HTTP/1.1\r\nHost: x\r\nAUTH\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
  ],
  [
    'two Content-Lengths',
    (p) =>
      `POST http://${allowedAddress}:${p.world.listeners.httpPort}/ HTTP/1.1\r\nHost: x\r\nAUTH\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello`,
  ],
  [
    'two Hosts',
    (p) =>
      `GET http://${allowedAddress}:${p.world.listeners.httpPort}/ HTTP/1.1\r\nHost: a\r\nHost: b\r\nAUTH\r\n\r\n`,
  ],
  [
    'a folded header',
    (p) =>
      `GET http://${allowedAddress}:${p.world.listeners.httpPort}/ HTTP/1.1\r\nHost: a\r\n b\r\nAUTH\r\n\r\n`,
  ],
  [
    'bare line feeds',
    (p) => `GET http://${allowedAddress}:${p.world.listeners.httpPort}/ HTTP/1.1\nHost: a\nAUTH\n\n\r\n\r\n`,
  ],
  ['HTTP/0.9', (p) => `GET http://${allowedAddress}:${p.world.listeners.httpPort}/\r\n\r\n`],
  [
    'user information',
    (p) =>
      `GET http://${allowedAddress}:${p.world.listeners.httpPort}@127.0.0.1:${forbidden(p)}/ HTTP/1.1\r\nHost: a\r\nAUTH\r\n\r\n`,
  ],
  [
    'a blank in the target',
    (p) =>
      `CONNECT ${allowedAddress}:${tcp(p)} 127.0.0.1:${forbidden(p)} HTTP/1.1\r\nHost: a\r\nAUTH\r\n\r\n`,
  ],
  [
    'a NUL in the target',
    (p) =>
      `CONNECT 127.0.0.1:${forbidden(p)}\0${allowedAddress}:${tcp(p)} HTTP/1.1\r\nHost: a\r\nAUTH\r\n\r\n`,
  ],
  [
    'user information in CONNECT',
    (p) => `CONNECT ${allowedAddress}@127.0.0.1:${forbidden(p)} HTTP/1.1\r\nHost: a\r\nAUTH\r\n\r\n`,
  ],
  [
    'a header bomb',
    (p) =>
      `CONNECT ${allowedAddress}:${tcp(p)} HTTP/1.1\r\nHost: a\r\nAUTH\r\n${'X-Bomb: xxxxxxxxxxxxxxxxxxxxxxxx\r\n'.repeat(4000)}\r\n`,
  ],
  [
    'a chunk size nobody can read',
    (p) =>
      `POST http://${allowedAddress}:${p.world.listeners.httpPort}/ HTTP/1.1\r\nHost: x\r\nAUTH\r\nTransfer-Encoding: chunked, identity\r\n\r\nzz\r\n`,
  ],
]

export const egressRows: readonly Attempt[] = [
  ...tunnels(
    55,
    literals.map((host) => [`tunnels to ${host}`, (p) => `${host}:${forbidden(p)}`]),
    denied,
    bothWays,
  ),
  ...tunnels(
    55,
    [
      ['tunnels to the metadata service', () => '169.254.169.254:80'],
      ['tunnels to the sidecar', ({ sidecar }) => `127.0.0.1:${new URL(sidecar?.url ?? 'http://x:1').port}`],
      [
        'tunnels to the admin port',
        ({ sidecar }) => `127.0.0.1:${new URL(sidecar?.adminUrl ?? 'http://x:1').port}`,
      ],
    ],
    denied,
    bothWays,
  ),
  ...tunnels(
    56,
    spellings.map((host) => [`tunnels to ${host}`, (p) => `${host}:${forbidden(p)}`]),
    deniedOrMalformed,
  ),
  ...tunnels(
    56,
    spellings.map((host) => [`tunnels to ${host} on an allowed port`, (p) => `${host}:${tcp(p)}`]),
    deniedOrMalformed,
    bothWays,
  ),
  ...tunnels(
    57,
    rebound.map((host) => [`tunnels to ${host}`, (p) => `${host}:${tcp(p)}`]),
    denied,
    bothWays,
  ),
  ...rebound.map((host) =>
    inside(57, `connects to ${host}`, (p) => `return probe.tcp(${quoted(host)}, ${tcp(p)})`, 'EACCES', {
      ...onlyBehind,
      profiles: bothWays,
      seen: true,
    }),
  ),
  inside(
    58,
    'follows a redirect',
    ({ world }) =>
      // How a client tells of it differs; that the allowed host answers it is a control.
      `const url = 'http://${allowedAddress}:${world.listeners.httpPort}/redirect'
       return fetch(url).then(({ status }) => status === 200 ? 'ok' : 'refused', () => 'refused')`,
    'refused',
    { seen: true, free: ['refused'] },
  ),
  ...tunnels(
    59,
    lookalikes.map((host) => [`tunnels to ${host}`, (p) => `${host}:${tcp(p)}`]),
    deniedOrMalformed,
  ),
  ...tunnels(
    59,
    [
      ['tunnels to a port that is not listed', (p) => `allowed.test:${forbidden(p)}`],
      [
        'tunnels to an allowed address on a port that is not listed',
        (p) => `${allowedAddress}:${forbidden(p)}`,
      ],
      ['tunnels to user information before a name', (p) => `allowed.test@other.test:${tcp(p)}`],
      ['tunnels to no port', () => 'allowed.test'],
      ['tunnels to port 0', () => 'allowed.test:0'],
      ['tunnels to a port beyond all', () => 'allowed.test:65537'],
      ['tunnels to the next address', (p) => `127.0.0.3:${tcp(p)}`],
    ],
    deniedOrMalformed,
  ),
  ...smuggled.map(([what, text]) =>
    inside(
      60,
      `says ${what}`,
      (p) => {
        const bytes = quoted(text(p))
        return `const { user, token } = probe.proxy(); const auth = 'Proxy-Authorization: Basic ' + Buffer.from(user + ':' + token).toString('base64')
        return probe.statusOf(Buffer.from(${bytes}.replace('AUTH', auth), 'latin1'))`
      },
      ['400', '431', '403', '407', '501', 'closed', 'closed ECONNRESET', 'closed EPIPE'],
      onlyBehind,
    ),
  ),
  inside(
    60,
    'says a Host other than the target',
    ({
      world,
    }) => `const { user, token, host, port } = probe.proxy(); const auth = Buffer.from(user + ':' + token).toString('base64')
      const answer = await probe.exchange(host, port, 'GET http://allowed.test:${world.listeners.httpPort}/ HTTP/1.1\\r\\nHost: evil.test\\r\\nProxy-Authorization: Basic ' + auth + '\\r\\nConnection: close\\r\\n\\r\\n')
      return /host allowed.test/.test(answer.toString()) ? 'overwritten' : /^HTTP\\/1.1 400/.test(answer.toString()) ? '400' : answer.toString()`,
    ['overwritten', '400'],
    onlyBehind,
  ),
  inside(
    60,
    'sends bytes behind a CONNECT that is refused',
    (p) => `return (await probe.through('127.0.0.1:${forbidden(p)}', 'attempt')).slice(0, 3)`,
    denied,
    { ...onlyBehind, seen: true },
  ),
  inside(
    61,
    'asks for another host on the same connection',
    (
      p,
    ) => `const { user, token, host, port } = probe.proxy(); const auth = 'Proxy-Authorization: Basic ' + Buffer.from(user + ':' + token).toString('base64')
      const one = (authority) => 'GET http://' + authority + '/ HTTP/1.1\\r\\nHost: ' + authority + '\\r\\n' + auth + '\\r\\n\\r\\n'
      const answer = await probe.exchange(host, port, one('${allowedAddress}:${p.world.listeners.httpPort}') + one('127.0.0.1:${forbidden(p)}'), (read) => read.toString().split('HTTP/1.1 ').length > 2)
      const [first, second] = [...answer.toString('latin1').matchAll(/HTTP\\/1\\.1 (\\d+)/g)].map((found) => found[1])
      return first === '200' ? String(second ?? 'closed') : 'first ' + first`,
    [...deniedOrMalformed, 'closed'],
    { ...onlyBehind, seen: true },
  ),
  inside(62, 'names another server in the handshake', handshake('other.test'), 'closed', sni),
  inside(62, 'names no server in the handshake', handshake(''), 'closed', sni),
  inside(
    63,
    'uses the proxy without a token',
    (p) => `return probe.tunnel('${allowedAddress}:${tcp(p)}', false)`,
    '407',
    onlyBehind,
  ),
  inside(
    63,
    'uses the proxy with a token that it made up',
    (p) => `return probe.tunnel('${allowedAddress}:${tcp(p)}', 'Bearer ' + 'A'.repeat(43))`,
    '407',
    onlyBehind,
  ),
  inside(
    63,
    'uses the proxy with an empty token',
    (p) => `return probe.tunnel('${allowedAddress}:${tcp(p)}', 'Basic Y2hpbGQ6')`,
    '407',
    onlyBehind,
  ),
  inside(
    64,
    'asks SOCKS for UDP',
    (p) => `return probe.socks(3, '${allowedAddress}', ${tcp(p)})`,
    ['reply 7', 'refused'],
    onlyBehind,
  ),
  inside(
    64,
    'asks SOCKS to listen',
    (p) => `return probe.socks(2, '${allowedAddress}', ${tcp(p)})`,
    ['reply 7', 'refused'],
    onlyBehind,
  ),
  inside(
    64,
    'asks SOCKS for a name that is not allowed',
    (p) => `return probe.socks(1, 'other.test', ${tcp(p)})`,
    ['reply 2', 'refused'],
    onlyBehind,
  ),
  inside(
    64,
    'speaks SOCKS 4',
    (p) => `return probe.socks(1, 'allowed.test', ${tcp(p)}, 4)`,
    'refused',
    onlyBehind,
  ),
]
