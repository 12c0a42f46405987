/** What the profile allows, and what must therefore work: a sandbox that allows nothing holds every attempt. */
import { join } from 'node:path'
import type { Place, ProfileName } from './attempt.ts'
import { allowedAddress } from './listeners.ts'
import { outcomeOf } from './session.ts'

export interface Control {
  readonly title: string
  readonly profiles: readonly ProfileName[]
  readonly act: (place: Place) => Promise<unknown>
  readonly expected: unknown
  /** What is to be expected below a version of Landlock, and the code by which the report must tell. */
  readonly older?: { readonly below: number; readonly expected: unknown; readonly gap: string }
}

export const control = (
  title: string,
  act: Control['act'],
  expected: unknown = 'ok',
  profiles: readonly ProfileName[] = ['main'],
  older?: NonNullable<Control['older']>,
): Control => ({ title, act, expected, profiles, ...(older === undefined ? {} : { older }) })

const quoted = (text: string): string => JSON.stringify(text)
const native =
  (args: (place: Place) => readonly (string | number)[]): Control['act'] =>
  async (place) =>
    (await place.session.attempt(0, args(place))).outcome
export const evaluated =
  (code: (place: Place) => string): Control['act'] =>
  (place) =>
    place.session.outcome(code(place))

export const controls: readonly Control[] = [
  control(
    'reads in a read path',
    native(({ world }) => ['open-read', join(world.shown, 'file')]),
  ),
  control(
    'lists a read path',
    native(({ world }) => ['list', world.shown]),
  ),
  control(
    'creates, renames and removes in a write path',
    async ({ session, world }) => {
      const [one, two] = [join(world.data, 'one'), join(world.data, 'two')]
      const outcomes: string[] = []
      for (const args of [
        ['create', one],
        ['rename', one, two],
        ['truncate', two],
        ['append', two],
        ['unlink', two],
      ]) {
        outcomes.push((await session.attempt(0, args)).outcome)
      }
      return outcomes.join(' ')
    },
    'ok ok ok ok ok',
    ['main'],
    { below: 3, expected: 'ok ok EACCES ok ok', gap: 'truncate-seccomp' },
  ),
  control(
    'moves a file between folders of a write path',
    evaluated(
      ({ world }) => `const fs = require('fs'); const d = ${quoted(world.data)}
    fs.mkdirSync(d + '/a'); fs.mkdirSync(d + '/b'); fs.writeFileSync(d + '/a/f', 'moved'); fs.renameSync(d + '/a/f', d + '/b/f')
    const text = fs.readFileSync(d + '/b/f', 'utf8'); fs.rmSync(d + '/a', { recursive: true }); fs.rmSync(d + '/b', { recursive: true }); return text`,
    ),
    'moved',
    ['main'],
    { below: 2, expected: 'EXDEV', gap: 'abi1-reparent' },
  ),
  control(
    'runs a program of the system',
    async ({ session }) => (await session.run('/bin/sh', ['-c', 'echo fine; exit 3'])).exit,
    3,
  ),
  control(
    'runs a script by its interpreter in the environment',
    async ({ session, world }) =>
      (
        await session.run(world.server, [], { stdin: '{"jsonrpc":"2.0","id":1,"method":"ping"}\n' })
      ).stdout?.trim(),
    '{"jsonrpc":"2.0","id":1,"result":{}}',
  ),
  control(
    'starts threads',
    native(() => ['thread', 'nothing']),
  ),
  control(
    'starts worker threads',
    evaluated(
      () =>
        `return new Promise((resolve) => new (require('worker_threads').Worker)("require('worker_threads').parentPort.postMessage('ok')", { eval: true }).once('message', resolve))`,
    ),
  ),
  control(
    'starts grandchildren, and signals them',
    evaluated(
      () =>
        `const child = require('child_process').spawn('/bin/sleep', ['100']); return new Promise((resolve) => { child.once('exit', (code, signal) => resolve(signal)); child.once('spawn', () => child.kill('SIGTERM')) })`,
    ),
    'SIGTERM',
  ),
  control(
    'signals itself',
    evaluated(() => `process.kill(process.pid, 0); return 'ok'`),
  ),
  control('sets its own limits and priority', async ({ session }) =>
    (await session.run('/bin/sh', ['-c', 'ulimit -n 50 && nice -n 1 true && echo ok'])).stdout?.trim(),
  ),
  control(
    'uses /dev/null and /dev/urandom',
    async ({ session }) =>
      (
        await session.run('/bin/sh', ['-c', 'echo x >/dev/null && head -c 4 /dev/urandom | wc -c'])
      ).stdout?.trim(),
    '4',
  ),
  control(
    'asks for interfaces, which binds a netlink socket',
    native(() => ['interfaces']),
  ),
  control(
    'has pairs of stream sockets',
    native(() => ['socketpair', 1, 1]),
  ),
  control(
    'installs a plain filter of its own',
    native(() => ['seccomp', 0]),
  ),
  control(
    'reads what it is in /proc',
    evaluated(() => `return process.memoryUsage().rss > 0 ? 'ok' : 'none'`),
  ),
  control(
    'has the variables of the profile',
    evaluated(() => `return process.env.ESCAPE_MARK`),
    'set by the profile',
  ),
  control(
    'writes temporary files',
    evaluated(
      () =>
        `const fs = require('fs'); const path = fs.mkdtempSync(require('os').tmpdir() + '/t-'); fs.rmdirSync(path); return 'ok'`,
    ),
  ),
  control(
    'fetches by name through TLS',
    evaluated(
      ({ world }) => `return (await fetch('https://allowed.test:${world.listeners.tlsPort}/')).text()`,
    ),
    'over TLS',
  ),
  control(
    'fetches without TLS, and is told of redirects',
    evaluated(
      ({ world }) =>
        `const at = (path) => fetch('http://${allowedAddress}:${world.listeners.httpPort}' + path, { redirect: 'manual' })
         return (await at('/')).status + ' ' + (await at('/redirect')).status`,
    ),
    '200 302',
  ),
  control(
    'fetches by a name below a wildcard',
    evaluated(
      ({ world }) => `return (await fetch('https://a.wild.test:${world.listeners.tlsPort}/')).text()`,
    ),
    'over TLS',
  ),
  control(
    'fetches with the http module',
    evaluated(
      ({ world }) =>
        `return new Promise((resolve, reject) => require('http').get('http://allowed.test:${world.listeners.httpPort}/', (r) => { let t = ''; r.on('data', (d) => { t += d }); r.on('end', () => resolve(t)) }).on('error', reject))`,
    ),
    /^host allowed\.test/,
  ),
  control(
    'speaks HTTP/2 over TLS as far as the other side does',
    evaluated(
      ({ world }) =>
        `return new Promise((resolve, reject) => { const s = require('tls').connect({ host: 'allowed.test', servername: 'allowed.test', port: ${world.listeners.tlsPort} }, () => { resolve(s.authorized ? 'authorized' : 'not'); s.destroy() }); s.on('error', reject) })`,
    ),
    'authorized',
  ),
  control(
    'opens raw TCP by name',
    evaluated(({ world }) => `return probe.tcp('allowed.test', ${world.listeners.tcpPort})`),
    'allowed',
  ),
  control(
    'opens raw TCP by address',
    evaluated(({ world }) => `return probe.tcp('${allowedAddress}', ${world.listeners.tcpPort})`),
    'allowed',
  ),
  control(
    'opens raw TCP in a static program',
    async ({ session, world }) =>
      (await session.attempt(0, ['connect', allowedAddress, world.listeners.tcpPort])).result['said'],
    /^allowed/,
  ),
  control(
    'opens raw TCP by name in a static program',
    async ({ session, world }) => {
      const { result } = await session.attempt(0, ['connect-name', 'allowed.test', world.listeners.tcpPort])
      return result['said'] ?? result['lookup']
    },
    /^allowed/,
  ),
  control(
    'opens raw TCP in a static program that does not wait',
    async ({ session, world }) =>
      (await session.attempt(0, ['connect-nonblocking', allowedAddress, world.listeners.tcpPort])).result[
        'said'
      ],
    /^allowed/,
  ),
  control(
    'opens raw TCP to an address written as IPv6',
    async ({ session, world }) =>
      (await session.attempt(0, ['connect', `::ffff:${allowedAddress}`, world.listeners.tcpPort])).result[
        'said'
      ],
    /^allowed/,
  ),
  control(
    'fetches where the name in the handshake is the one that was asked for',
    async ({ session, world }) =>
      world.listeners.sniAddress === undefined
        ? 'over TLS'
        : session.outcome(
            `return new Promise((resolve, reject) => require('https').get('https://sni.test/', { rejectUnauthorized: false }, (r) => { let t = ''; r.on('data', (d) => { t += d }); r.on('end', () => resolve(t)) }).on('error', reject))`,
          ),
    'over TLS',
    ['proc'],
  ),
  control(
    'tunnels through the proxy',
    evaluated(({ world }) => `return probe.tunnel('allowed.test:${world.listeners.tcpPort}')`),
    '200',
  ),
  control(
    'tunnels with a name in capitals and a dot',
    evaluated(({ world }) => `return probe.tunnel('ALLOWED.test.:${world.listeners.tcpPort}')`),
    '200',
  ),
  control(
    'connects by SOCKS',
    evaluated(({ world }) => `return probe.socks(1, 'allowed.test', ${world.listeners.tcpPort})`),
    'reply 0',
  ),
  control(
    'lists all of /proc where it may',
    native(() => ['list', '/proc']),
    'ok',
    ['proc'],
  ),
  control(
    'reads everything else under full-access',
    native(({ world }) => ['open-read', join(world.base, 'victim', 'held')]),
    'ok',
    ['full'],
  ),
  control(
    'writes everywhere else under full-access',
    native(({ world }) => ['create', join(world.shown, 'written')]),
    'ok',
    ['full'],
  ),
  control(
    'sends datagrams under full-access',
    native(({ world }) => ['datagram', allowedAddress, world.listeners.httpPort]),
    'ok',
    ['full'],
  ),
  control(
    'connects anywhere under full-access',
    async ({ session, world }) =>
      (await session.attempt(0, ['connect', allowedAddress, world.listeners.tcpPort])).result['said'],
    /^allowed/,
    ['full'],
  ),
  control(
    'computes under the strictest profile',
    evaluated(() => `return 'ok'`),
    'ok',
    ['none', 'network', 'bomb', 'off'],
  ),
  control(
    'runs programs of the system under the strictest profile',
    async ({ session }) =>
      outcomeOf(await session.run('/bin/sh', ['-c', 'echo "{\\"errno\\":null,\\"result\\":null}"'])).outcome,
    'ok',
    ['none', 'network', 'bomb', 'off'],
  ),
]
