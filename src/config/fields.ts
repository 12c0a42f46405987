import { allowedHost, listenHost, origin } from './addresses.ts'
import { command } from './command.ts'
import { BASE_ENVIRONMENT, DANGEROUS_VARIABLES, envAllow, envSet } from './environment.ts'
import type { Field, SettingKey, ValueOf } from './field.ts'
import { bad, good } from './parsed.ts'
import { choice, duration, flag, integer, LOG_LEVELS, list, path, size, type ValueType } from './values.ts'

const authChoice: ValueType<boolean> = {
  name: '`none`',
  json: { const: 'none' },
  // What was given is not repeated: a token is easily written here by mistake.
  parse: (input) =>
    input === 'none'
      ? good(true)
      : bad('must be none, or a section with bearer.tokenFile (a flag: --bearer-token-file)'),
  parseText: (input) =>
    input === 'none' ? good(true) : bad('must be none; a token file is named with --bearer-token-file'),
  show: (none) => (none ? 'none' : 'not set'),
}

/**
 * The one table of the configuration. The checks of file, flags and variables, their names, the JSON Schema and
 * docs/configuration.md all come from it. The order is the order of the reference and of `--help`.
 */
export const FIELDS: { readonly [K in SettingKey]: Field<ValueOf<K>> } = {
  'server.command': {
    file: 'server.command',
    type: command,
    absent: [],
    means: 'required',
    variable: 'MCP_SIDECAR_COMMAND',
    doc: 'The stdio MCP server: program and arguments, started without a shell. On the command line it is what follows `--`. Arguments are visible to every user of the machine, so give secrets through the environment.',
  },
  'server.cwd': {
    file: 'server.cwd',
    type: path('folder'),
    absent: undefined,
    means: 'the folder the sidecar was started in',
    doc: 'Folder the server is started in.',
  },
  'server.envAllow': {
    file: 'server.env.allow',
    type: envAllow,
    default: [],
    flag: 'pass-env',
    placeholder: 'NAME',
    repeatable: true,
    doc: `Name of a variable to pass from the environment of the sidecar to the server; a final \`*\` stands for any rest. ${BASE_ENVIRONMENT.map((name) => `\`${name}\``).join(', ')} are always passed, everything else only when named. Variables of the sidecar itself (\`MCP_SIDECAR_*\`) never are.`,
  },
  'server.envSet': {
    file: 'server.env.set',
    type: envSet,
    default: {},
    doc: 'Variables the server gets with these values; they win over passed ones.',
  },
  'server.envAllowDangerous': {
    file: 'server.env.allowDangerous',
    type: flag,
    default: false,
    doc: `Lets \`allow\` and \`set\` name variables that change what code runs: ${DANGEROUS_VARIABLES.map((name) => `\`${name}\``).join(', ')}.`,
  },
  'server.era': {
    file: 'server.era',
    type: choice('auto', 'modern', 'legacy'),
    default: 'auto',
    flag: 'server-era',
    placeholder: 'ERA',
    doc: 'Protocol era the server speaks: auto, modern or legacy. `modern` is 2026-07-28, `legacy` the handshake era, 2024-11-05 to 2025-11-25. `auto` asks a process started for that, and speaks modern if the server can. Clients of both eras are served in any case.',
  },
  'server.topology': {
    file: 'server.topology',
    type: choice('auto', 'per-session', 'shared'),
    default: 'auto',
    flag: 'topology',
    placeholder: 'KIND',
    doc: 'Server processes: auto, per-session or shared. `auto` fits the server: one process for all if it is modern; one for each session, and some for the calls of modern clients of each caller, if it is legacy. `per-session` gives each caller of a modern server a process of its own, `shared` serves everybody from one whatever the era.',
  },
  'server.poolSize': {
    file: 'server.poolSize',
    type: integer(1, 1000),
    default: 4,
    doc: 'Processes of a legacy server at work at once on the calls of one modern caller. Each serves one call at a time, since such a server does not say for which call it asks its client something; processes that wait for a client do not count.',
  },
  'server.stateKeyFile': {
    file: 'server.stateKeyFile',
    type: path('file'),
    absent: undefined,
    means: 'a new key at each start',
    doc: "File with a secret of at least 32 bytes that seals the `requestState` of modern servers for their clients. Replicas with the same key accept each other's.",
  },
  'server.startTimeoutMs': {
    file: 'server.startTimeout',
    type: duration('100ms', '1h'),
    default: '60s',
    doc: 'Longest time from the start of a server process to its answer to `initialize`.',
  },
  'server.warmSpares': {
    file: 'server.warmSpares',
    type: integer(0, 100),
    default: 1,
    doc: 'Server processes kept started for sessions to come; they count towards `limits.processes`.',
  },
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
  'auth.none': {
    file: 'auth',
    type: authChoice,
    absent: false,
    means: 'not chosen; enough on a loopback address',
    flag: 'auth',
    placeholder: 'none',
    doc: 'none: accept every caller. Must be said on an address that other machines can reach, when no token file is named.',
  },
  'auth.bearerTokenFile': {
    file: 'auth.bearer.tokenFile',
    type: path('file'),
    absent: undefined,
    means: 'no bearer tokens',
    flag: 'bearer-token-file',
    placeholder: 'FILE',
    doc: 'File with the bearer tokens callers must present. It is read again when it changes.',
  },
  'limits.requestBodyBytes': {
    file: 'limits.requestBody',
    // A message becomes one JavaScript string, whose longest is a little under 512 MiB.
    type: size('1KiB', '256MiB'),
    default: '4MiB',
    doc: 'Largest message a client may send.',
  },
  'limits.serverMessageBytes': {
    file: 'limits.serverMessage',
    type: size('1KiB', '256MiB'),
    default: '64MiB',
    doc: 'Largest message the server may send; a larger one fails the call it answers.',
  },
  'limits.sessions': {
    file: 'limits.sessions',
    type: integer(1, 1_000_000),
    default: 1000,
    doc: 'Most sessions at once, over all callers.',
  },
  'limits.processes': {
    file: 'limits.processes',
    type: integer(1, 10_000),
    default: 32,
    doc: 'Most server processes at once, spares included.',
  },
  'limits.processesPerPrincipal': {
    file: 'limits.processesPerPrincipal',
    type: integer(1, 10_000),
    default: 16,
    doc: 'Most processes of a legacy server for the calls of one modern caller, those that wait for input of its client included.',
  },
  'limits.inFlightPerPrincipal': {
    file: 'limits.inFlightPerPrincipal',
    type: integer(1, 1_000_000),
    default: 100,
    doc: 'Most unanswered requests of one caller.',
  },
  'limits.subscriptionsPerPrincipal': {
    file: 'limits.subscriptionsPerPrincipal',
    type: integer(1, 1_000_000),
    default: 1000,
    doc: 'Most open subscriptions (`subscriptions/listen`) of one modern caller.',
  },
  'limits.connections': {
    file: 'limits.connections',
    type: integer(1, 1_000_000),
    default: 10_000,
    doc: 'Most open connections.',
  },
  'limits.requestTimeoutMs': {
    file: 'limits.requestTimeout',
    type: duration('100ms', '7d'),
    default: '60s',
    doc: 'Longest time without an answer or progress; then the call fails and is cancelled at the server.',
  },
  'limits.maxRequestTimeoutMs': {
    file: 'limits.maxRequestTimeout',
    type: duration('100ms', '7d'),
    default: '10m',
    doc: 'Longest time for a call in all, whatever progress it reports.',
  },
  'limits.clientInputMs': {
    file: 'limits.clientInput',
    type: duration('100ms', '7d'),
    default: '5m',
    doc: 'Longest time a call waits for its own client to answer a question of the server (sampling, elicitation, roots); the request timeout rests meanwhile.',
  },
  'limits.idleSessionMs': {
    file: 'limits.idleSession',
    type: duration('1s', '7d'),
    default: '30m',
    doc: 'Time after which an unused session ends.',
  },
  'limits.sessionQueueBytes': {
    file: 'limits.sessionQueue',
    type: size('64KiB', '1GiB'),
    default: '4MiB',
    doc: 'Bytes that may wait for one session before its server process is made to wait.',
  },
  'limits.replayBufferBytes': {
    file: 'limits.replayBuffer',
    type: size('4KiB', '1GiB'),
    default: '1MiB',
    doc: 'Bytes of sent events kept for each session, to be repeated to a client that reconnects.',
  },
  'limits.batch': {
    file: 'limits.batch',
    type: integer(1, 10_000),
    default: 100,
    doc: 'Most messages in one JSON-RPC batch (protocol version 2025-03-26).',
  },
  'limits.headerTimeoutMs': {
    file: 'limits.headerTimeout',
    type: duration('100ms', '10m'),
    default: '10s',
    doc: 'Longest time a client may take to send the headers of a request.',
  },
  'limits.bodyTimeoutMs': {
    file: 'limits.bodyTimeout',
    type: duration('100ms', '1h'),
    default: '30s',
    doc: 'Longest time a client may take to send the body of a request.',
  },
  shutdownGraceMs: {
    file: 'shutdownGrace',
    type: duration('0s', '1h'),
    default: '10s',
    doc: 'Time to answer what is in flight before the server processes are ended.',
  },
  'log.level': {
    file: 'log.level',
    type: choice(...LOG_LEVELS),
    default: 'info',
    flag: 'log-level',
    placeholder: 'LEVEL',
    doc: `Least important level to log: ${LOG_LEVELS.join(', ')}.`,
  },
  'log.format': {
    file: 'log.format',
    type: choice('auto', 'json', 'pretty'),
    default: 'auto',
    flag: 'log-format',
    placeholder: 'FORMAT',
    doc: 'Form of the log: auto, json or pretty. `auto` is pretty on a terminal and JSON elsewhere.',
  },
}

/** Every field with its key, in the order of the table. */
export const fieldList: readonly (readonly [SettingKey, Field<unknown>])[] = Object.entries(FIELDS) as never
