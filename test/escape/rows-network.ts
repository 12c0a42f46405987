/** Rows 41 to 53, 77, 80: sockets of the server's own. */
import { join } from 'node:path'
import { type Args, type Attempt, inside, native, type Options, type Place, steps } from './attempt.ts'
import { allowedAddress } from './listeners.ts'
import { alive, until } from './sidecar.ts'

const STREAM = 1
const DGRAM = 2
const SEQPACKET = 5
const networked: Options = { profiles: ['main', 'none', 'proc'] }
const everywhere: Options = { profiles: ['main', 'none', 'proc', 'network', 'full'] }
const refused = ['EACCES', 'ECONNREFUSED']

/** Family, type, protocol. What a kernel does not have it refuses itself. */
const sockets: readonly (readonly [string, number, number, number])[] = [
  ['UDP', 2, 2, 0],
  ['UDP with flags', 2, 2 | 0x80800, 17],
  ['UDP over IPv6', 10, 2, 0],
  ['an ICMP datagram', 2, 2, 1],
  ['an ICMPv6 datagram', 10, 2, 58],
  ['raw ICMP', 2, 3, 1],
  ['raw IP', 2, 3, 255],
  ['raw IPv6', 10, 3, 255],
  ['packet', 17, 3, 0x300],
  ['packet datagram', 17, 2, 0x300],
  ['old packet', 2, 10, 0x300],
  ['VSOCK', 40, 1, 0],
  ['VSOCK datagram', 40, 2, 0],
  ['ALG', 38, 5, 0],
  ['SMC', 43, 1, 0],
  ['SCTP', 2, 1, 132],
  ['SCTP of many', 2, 5, 132],
  ['MPTCP', 2, 1, 262],
  ['MPTCP over IPv6', 10, 1, 262],
  ['DCCP', 2, 6, 33],
  ['UDP-Lite', 2, 2, 136],
  ['SMC over IP', 2, 1, 256],
  ['L2TP', 2, 2, 115],
  ...['unix stream', 'unix datagram', 'unix seqpacket'].map(
    (name, i) => [name, 1, [1, 2, 5][i] ?? 0, 0] as const,
  ),
  ...[1, 2, 4, 6, 7, 9, 12, 13, 15, 16, 21].map(
    (protocol) => [`netlink ${protocol}`, 16, 3, protocol] as const,
  ),
  ...[3, 4, 5, 6, 8, 9, 11, 15, 21, 23, 24, 26, 29, 30, 31, 35, 36, 37, 39, 41, 42, 44, 45, 46, 99].map(
    (family) =>
      [`family ${family}`, family, family === 29 || family === 31 || family === 44 ? 3 : 2, 0] as const,
  ),
]

/** Ways to write this machine, to a port that nothing may reach. */
const ownNames = [
  '127.0.0.1',
  '127.1',
  '0x7f.1',
  '0177.0.0.1',
  '2130706433',
  '0.0.0.0',
  '127.0.0.3',
  '::1',
  '::',
  '::ffff:127.0.0.1',
  '::ffff:0:127.0.0.1',
  '::127.0.0.1',
  '::ffff:127.0.0.2',
]

const ways = [
  'connect',
  'connect-nonblocking',
  'connect-mptcp',
  'fastopen-sendto',
  'fastopen-sendmsg',
  'fastopen-sendmmsg',
  'fastopen-connect',
]

const local: readonly (readonly [string, (place: Place) => string, number])[] = [
  ['an abstract socket', ({ victim }) => victim.abstract, STREAM],
  ['an abstract datagram socket', ({ victim }) => victim.abstractDatagram, DGRAM],
  ['a socket by its path', ({ victim }) => victim.path, STREAM],
  ['a datagram socket by its path', ({ victim }) => victim.pathDatagram, DGRAM],
  ['a socket in a write path', ({ world }) => join(world.data, 'inside.sock'), STREAM],
]

const port = ({ world }: Place): number => world.listeners.forbiddenPort
const portOf = (url: string | undefined): number => Number(url === undefined ? 1 : new URL(url).port)

export const networkRows: readonly Attempt[] = [
  ...local.flatMap(([what, name, type]) => [
    native(
      what.includes('abstract') ? 41 : 42,
      `connects to ${what}`,
      (p) => ['unix-connect', name(p), type],
      'EACCES',
      { ...everywhere, seen: true },
    ),
    ...[STREAM, DGRAM, SEQPACKET].map((pair) =>
      native(
        77,
        `sends from a pair of type ${pair} to ${what}`,
        (p) => ['pair-send', name(p), pair],
        pair === DGRAM ? 'EACCES' : ['EISCONN', 'EOPNOTSUPP', 'EPROTOTYPE', 'EINVAL'],
        {
          ...everywhere,
          ...(pair === DGRAM && type === DGRAM
            ? { seen: true }
            : { free: ['EISCONN', 'EOPNOTSUPP', 'EPROTOTYPE', 'EINVAL', 'ECONNREFUSED'] }),
        },
      ),
    ),
    native(
      77,
      `connects one of a datagram pair to ${what}`,
      (p) => ['pair-connect', name(p), DGRAM],
      'EACCES',
      { ...everywhere, varies: 'only to another datagram socket' },
    ),
    native(
      77,
      `connects one of a stream pair to ${what}`,
      (p) => ['pair-connect', name(p), STREAM],
      ['EACCES', 'EISCONN', 'EPROTOTYPE', 'EINVAL', 'ECONNREFUSED'],
      { ...everywhere, varies: 'it is connected already' },
    ),
  ]),
  inside(
    42,
    'connects to a socket by its path with Node',
    ({ victim }) =>
      `return new Promise((resolve, reject) => require('net').connect(${JSON.stringify(victim.path)}, () => resolve('ok')).once('error', reject))`,
    'EACCES',
    { seen: true },
  ),
  native(77, 'makes a datagram pair', () => ['socketpair', 1, DGRAM], 'EACCES', everywhere),
  native(
    77,
    'makes a datagram pair with flags',
    () => ['socketpair', 1, DGRAM | 0x80800],
    'EACCES',
    everywhere,
  ),
  native(77, 'makes a raw pair', () => ['socketpair', 1, 3], 'EACCES', {
    ...everywhere,
    free: ['ok', 'ESOCKTNOSUPPORT'],
  }),
  steps(
    77,
    'sends from its stdout to a socket by its path',
    ({ session, victim }) => inherited(session, ['inherited-send', 3, victim.path]),
    ['EISCONN', 'ENOTSOCK', 'EACCES'],
    { free: ['EISCONN', 'ENOTSOCK'] },
  ),
  steps(
    77,
    'connects its stdout to a socket by its path',
    ({ session, victim }) => inherited(session, ['inherited-connect', 3, victim.path]),
    ['EISCONN', 'ENOTSOCK', 'EACCES'],
    { free: ['EISCONN', 'ENOTSOCK'] },
  ),
  native(43, 'connects to a port of this machine', (p) => ['connect', '127.0.0.1', port(p)], refused, {
    ...networked,
    profiles: ['main', 'none', 'network'],
    seen: true,
  }),
  ...(['url', 'adminUrl'] as const).flatMap((which) =>
    ['127.0.0.1', '0.0.0.0', '::ffff:127.0.0.1'].map((host) =>
      native(
        43,
        `connects to the ${which === 'url' ? 'MCP' : 'admin'} port of the sidecar as ${host}`,
        ({ sidecar }) => ['connect', host, portOf(sidecar?.[which])],
        refused,
        {
          ...networked,
          profiles: ['main', 'none', 'proc', 'network'],
          never: 'there is no sidecar',
        },
      ),
    ),
  ),
  steps(44, "connects to another host on the proxy's port", proxyPortElsewhere, refused, {
    profiles: ['main'],
    never: 'there is no proxy',
  }),
  ...ownNames.map((host) =>
    native(
      45,
      `connects to ${host}`,
      (p) => ['connect', host, port(p)],
      [...refused, 'ENETUNREACH', 'EINVAL', 'ETIMEDOUT'],
      {
        profiles: ['main', 'none', 'network', 'public'],
        seen: true,
        varies: 'not every way to write it is an address here',
      },
    ),
  ),
  ...sockets.map(([name, ...args]) =>
    native(46, `opens ${name}`, () => ['socket', ...args], 'EACCES', {
      profiles: ['main', 'none', 'proc', ...(args[0] === 2 || args[0] === 10 ? [] : ['full' as const])],
      varies: 'the kernel may not have it, or for root alone',
    }),
  ),
  native(46, 'sends a datagram', (p) => ['datagram', '127.0.0.1', port(p)], 'EACCES', {
    ...networked,
    seen: true,
  }),
  native(46, 'opens TCP without a network', () => ['socket', 2, STREAM, 0], 'EACCES', {
    profiles: ['none', 'bomb'],
  }),
  native(46, 'opens TCP over IPv6 without a network', () => ['socket', 10, STREAM, 6], 'EACCES', {
    profiles: ['none', 'bomb'],
  }),
  ...ways.map((way) =>
    native(
      47,
      `reaches a port of this machine by ${way}`,
      (p) => [way, '127.0.0.1', port(p)],
      [...refused, 'EPERM'],
      {
        profiles: ['main', 'none'],
        ...(way === 'connect-mptcp' ? { varies: 'the kernel may not have it' } : { seen: true }),
      },
    ),
  ),
  ...['0.0.0.0', '127.0.0.1', '::'].flatMap((host) => [
    native(48, `listens on ${host}`, () => ['bind-listen', host, 0], 'EACCES', everywhere),
    native(48, `binds ${host}`, () => ['bind', host, 0], 'EACCES', networked),
  ]),
  native(
    81,
    'binds a port that the sidecar may want',
    () => ['bind', '127.0.0.1', 38471],
    'EACCES',
    networked,
  ),
  native(48, 'listens without an address', () => ['listen', 2], 'EACCES', everywhere),
  native(48, 'listens without an address on IPv6', () => ['listen', 10], 'EACCES', everywhere),
  inside(
    48,
    'listens with Node',
    () =>
      `return new Promise((resolve, reject) => require('net').createServer().listen(0, '127.0.0.1', () => resolve('ok')).once('error', reject))`,
    ['EACCES', 'EPERM'],
    networked,
  ),
  steps(49, 'changes the address while it is looked at', addressRace, 'ok', { seen: true }),
  steps(50, 'connects in ways that nobody means', oddConnects, 'as expected', {
    never: 'some are allowed there',
  }),
  native(
    50,
    'changes the descriptor while it is connected',
    ({ world }) => ['descriptor-race', allowedAddress, world.listeners.tcpPort, 2000],
    'ok',
  ),
  steps(51, 'connects 10 000 times from 40 threads', flood, 'served', { free: ['served'] }),
  steps(51, 'connects beside 20 that wait', besideSlow, 'at once', { free: ['at once'] }),
  steps(51, 'holds 10 000 sockets at once, beside another session', hoard, 'the other goes on', {
    never: 'there is no other',
  }),
  steps(52, 'tries all it can to end its supervisor', crashSupervisor, 'all go on', {
    never: 'there is none',
  }),
  steps(52, 'loses its supervisor and connects', withoutSupervisor, 'ended', { never: 'there is none' }),
  inside(
    53,
    'asks a name server over UDP',
    () =>
      `const dgram = require('dgram').createSocket('udp4'); return new Promise((resolve, reject) => { dgram.once('error', reject); dgram.send('x', 53, '127.0.0.53', (error) => error ? reject(error) : resolve('ok')) })`,
    'EACCES',
    networked,
  ),
]

async function inherited(session: Place['session'], args: Args): Promise<string> {
  return (await session.attempt(77, args, { shared: [1] })).outcome
}

/** The proxy's port is no secret: it is in the variables of the child. */
async function proxyPortElsewhere({ session, world }: Place): Promise<string> {
  const { value } = await session.eval('return probe.proxy().port')
  await world.listeners.forbid('127.0.0.3', Number(value))
  return (await session.attempt(44, ['connect', '127.0.0.3', Number(value)])).outcome
}

/** What arrives at the other address is what counts. */
async function addressRace(place: Place): Promise<string> {
  const args = ['rewrite-race', allowedAddress, place.world.listeners.tcpPort, '127.0.0.1', port(place), 2000]
  return (await place.session.attempt(49, args, { timeoutMs: 120_000 })).outcome
}

/** Every one but the last fails, with an errno that fits; the last one shows that whoever decides still lives. */
async function oddConnects({ session, world }: Place): Promise<string> {
  const { outcome, result } = await session.attempt(50, [
    'odd-connects',
    allowedAddress,
    world.listeners.tcpPort,
  ])
  const errnos = result['errnos']
  if (outcome !== 'ok' || !Array.isArray(errnos)) return outcome
  const EBADF = 9
  const EACCES = 13
  const EFAULT = 14
  const EINVAL = 22
  const ENOTSOCK = 88
  const EAFNOSUPPORT = 97
  const badAddress = [EACCES, EFAULT, EINVAL]
  const expected = [
    [EACCES],
    ...Array(4).fill([EINVAL, EACCES]),
    [EINVAL],
    ...Array(3).fill(badAddress),
    [EACCES, EAFNOSUPPORT],
    [EBADF],
    [ENOTSOCK, EACCES],
    [EBADF],
    [EBADF],
    [0],
  ]
  const wrong = expected.flatMap((may: readonly number[], i) =>
    may.includes(Number(errnos[i])) ? [] : [`${i}: ${errnos[i]}`],
  )
  return wrong.length === 0 ? 'as expected' : `errnos ${wrong.join(', ')}`
}

async function flood({ session, world }: Place): Promise<string> {
  const args = ['connect-flood', allowedAddress, world.listeners.tcpPort, 250]
  const { outcome, result } = await session.attempt(51, args, { timeoutMs: 120_000 })
  if (outcome !== 'ok') return outcome
  const { connected, again, other } = result as Record<string, number>
  return Number(connected) + Number(again) === 10_000 && Number(connected) > 1000 && other === 0
    ? 'served'
    : JSON.stringify(result)
}

async function besideSlow({ session, world, victim }: Place): Promise<string> {
  const args = ['beside-slow', allowedAddress, world.listeners.tcpPort, allowedAddress, victim.slowPort]
  const { outcome, result } = await session.attempt(51, args)
  // Those that wait do so for nearly ten seconds.
  return outcome === 'ok' && Number(result['ms']) < 4000 && result['slow'] === 0
    ? 'at once'
    : `${outcome} ${JSON.stringify(result)}`
}

/** Another server computes and connects all the while. What it waits for one answer, in milliseconds. */
const slowestMs = 9000

async function hoard({ sidecar, session, world }: Place): Promise<string> {
  if (sidecar === undefined) return 'no sidecar'
  const other = await sidecar.open()
  const { tcpPort } = world.listeners
  let held = false
  const holding = session
    // More connections than all servers together may have.
    .attempt(51, ['hoard-sockets', allowedAddress, tcpPort, 500, 100, 500], { timeoutMs: 120_000 })
    .finally(() => {
      held = true
    })
  const waits: number[] = []
  const wrong: string[] = []
  while (!held) {
    const begun = performance.now()
    const said = await other.outcome(`return probe.tcp('${allowedAddress}', ${tcpPort})`)
    waits.push(performance.now() - begun)
    if (said !== 'allowed') wrong.push(said)
  }
  const { outcome, result } = await holding
  await other.close()
  if (outcome !== 'ok' || Number(result['sockets']) !== 10_000) return `${outcome} ${JSON.stringify(result)}`
  // Beyond what it may have it is refused, not left waiting.
  if (Number(result['again']) === 0 || result['other'] !== 0) return JSON.stringify(result)
  const slowest = Math.max(...waits)
  return wrong.length === 0 && waits.length > 0 && slowest < slowestMs
    ? 'the other goes on'
    : `${waits.length} answers within ${Math.round(slowest)} ms, wrong: ${[...new Set(wrong)].join(', ')}`
}

/** Whatever a server can do about who decides for it, short of what the suite itself does in the next row. */
async function crashSupervisor({ sidecar, world, victim }: Place): Promise<string> {
  if (sidecar === undefined) return 'no sidecar'
  const { tcpPort } = world.listeners
  const sessions = [await sidecar.open(), await sidecar.open()] as const
  const pids = await Promise.all(
    sessions.map(async (each) => Number((await each.eval('return process.ppid')).value)),
  )
  const [attacker] = sessions
  const signalled = await attacker.outcome(
    `const answers = new Set()
     for (let signal = 0; signal <= 64; signal++) try { process.kill(process.ppid, signal); answers.add('ok') } catch ({ code }) { answers.add(code) }
     return [...answers].join(' ')`,
  )
  if (signalled !== 'EPERM') return `signals: ${signalled}`
  for (const args of [
    ['odd-connects', allowedAddress, tcpPort],
    ['unmap-race', allowedAddress, tcpPort, 1000],
    ['descriptor-race', allowedAddress, tcpPort, 1000],
    // What nobody waits for any more counts as its own for ten seconds: fewer than it may have.
    ['die-connecting', allowedAddress, victim.slowPort, 40],
  ]) {
    const { outcome, result } = await attacker.attempt(52, args, { timeoutMs: 120_000 })
    if (outcome !== 'ok') return `${args[0]}: ${outcome} ${JSON.stringify(result)}`
  }
  const said = await Promise.all(
    sessions.map((each) => each.outcome(`return probe.tcp('${allowedAddress}', ${tcpPort})`)),
  )
  const dead = pids.filter((pid) => !alive(pid))
  for (const each of sessions) await each.close()
  return said.every((each) => each === 'allowed') && dead.length === 0
    ? 'all go on'
    : `said ${said.join(', ')}; ${dead.length} dead`
}

async function withoutSupervisor({ sidecar }: Place): Promise<string> {
  if (sidecar === undefined) return 'no sidecar'
  const session = await sidecar.open()
  const { value } = await session.eval('return [process.ppid, process.pid]')
  const [supervisor, server] = value as [number, number]
  if (supervisor === sidecar.pid) return 'no supervisor'
  process.kill(supervisor, 'SIGKILL')
  await until(() => !alive(server), 'the server is gone')
  return (await sidecar.serves()) ? 'ended' : 'the sidecar does not serve'
}
