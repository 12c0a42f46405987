import { command } from './command.ts'
import { BASE_ENVIRONMENT, DANGEROUS_VARIABLES, envAllow, envSet } from './environment.ts'
import type { FieldsOf } from './field.ts'
import { choice, duration, flag, integer, path } from './values.ts'

/** The server and how it is started. */
export const serverFields: FieldsOf<'server'> = {
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
  'server.socket': {
    file: 'server.socket',
    type: path('place'),
    absent: undefined,
    means: 'the server is started here',
    flag: 'server-socket',
    placeholder: 'PATH',
    doc: 'Unix socket of a launcher (`mcp-sidecar-launcher serve --socket PATH`) in another container, which starts the server there. The command, `server.cwd` and the paths of the permission profile are those of that container; variables of `server.env.allow` are passed on from that container, too.',
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
    type: path('unwatched'),
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
}
