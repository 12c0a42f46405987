import { isLoopback } from '../core/net.ts'
import type { Config } from './config.ts'
import { dangerousVariable } from './environment.ts'
import type { Problem } from './error.ts'
import type { Field, SettingKey, ValueOf } from './field.ts'
import { FIELDS } from './fields.ts'
import type { Path } from './parsed.ts'

/** What a rule sees: the values, and where each was given (`default` where nobody gave it). */
export interface Checked {
  readonly config: Config
  /** A value as it was given, without the base set that `config.server.envAllow` holds too. */
  readonly value: <K extends SettingKey>(key: K) => ValueOf<K>
  readonly at: (key: SettingKey, path?: Path) => string
}

/** A demand on several values at once. */
export interface Rule {
  /** It is skipped when one of these was given wrongly. */
  readonly reads: readonly SettingKey[]
  /** The demand, for the reference. */
  readonly doc: string
  readonly check: (checked: Checked) => readonly Problem[]
}

/** The first of `keys` that somebody gave; all at their default: the first. */
function given({ at }: Checked, ...keys: readonly [SettingKey, ...SettingKey[]]): string {
  return at(keys.find((key) => at(key) !== 'default') ?? keys[0])
}

function show(key: SettingKey, value: unknown): string {
  const { file, type }: Field<unknown> = FIELDS[key]
  return `${file} ${type.show(value)}`
}

function sameAddress(a: string, b: string): boolean {
  const any = (host: string): boolean => host === '0.0.0.0' || host === '::'
  return a === b || any(a) || any(b)
}

const DANGEROUS_ADVICE =
  'changes what code runs: remove it, or set server.env.allowDangerous: true in the file'

export const RULES: readonly Rule[] = [
  {
    reads: ['server.command'],
    doc: 'There must be a command: after `--`, in `MCP_SIDECAR_COMMAND` or in `server.command`.',
    check: ({ config }) =>
      config.server.command.length > 0
        ? []
        : [
            {
              where: 'command line',
              message:
                'no server to run: write its command after --, as in "mcp-sidecar -- node server.js", or set server.command in the file or MCP_SIDECAR_COMMAND',
            },
          ],
  },
  {
    reads: ['auth.none', 'auth.bearerTokenFile'],
    doc: '`auth: none` and a token file exclude each other, also when one comes from the file and the other from a flag.',
    check: ({ config, at }) =>
      config.auth.none && config.auth.bearerTokenFile !== undefined
        ? [
            {
              where: at('auth.bearerTokenFile'),
              message: `a token file is named here, and auth is none (${at('auth.none')}): keep one of the two`,
            },
          ]
        : [],
  },
  {
    reads: ['listen.host', 'auth.none', 'auth.bearerTokenFile'],
    doc: 'Listening on an address that is not loopback needs a token file or an explicit `auth: none`.',
    check: ({ config: { auth, listen }, at }) =>
      isLoopback(listen.host) || auth.none || auth.bearerTokenFile !== undefined
        ? []
        : [
            {
              where: at('listen.host'),
              message: `${show('listen.host', listen.host)} can be reached from other machines and there is no authentication: name a token file (--bearer-token-file FILE) or accept every caller (--auth none)`,
            },
          ],
  },
  {
    reads: ['server.envAllow', 'server.envSet', 'server.envAllowDangerous'],
    doc: 'Variables that change what code runs are passed or set only with `server.env.allowDangerous: true`.',
    check: ({ value, at }) => {
      if (value('server.envAllowDangerous')) return []
      const passed = value('server.envAllow').flatMap((name, index) => {
        const dangerous = dangerousVariable(name)
        if (dangerous === undefined) return []
        const what = !name.endsWith('*') ? name : `${name} lets ${dangerous} through, which`
        return [{ where: at('server.envAllow', [index]), message: `${what} ${DANGEROUS_ADVICE}` }]
      })
      const set = Object.keys(value('server.envSet'))
        .filter((name) => dangerousVariable(name) !== undefined)
        .map((name) => ({ where: at('server.envSet', [name]), message: `${name} ${DANGEROUS_ADVICE}` }))
      return [...passed, ...set]
    },
  },
  {
    reads: ['limits.requestTimeoutMs', 'limits.maxRequestTimeoutMs'],
    doc: '`limits.requestTimeout` is at most `limits.maxRequestTimeout`.',
    check: (checked) => {
      const { requestTimeoutMs, maxRequestTimeoutMs } = checked.config.limits
      if (requestTimeoutMs <= maxRequestTimeoutMs) return []
      const message = `${show('limits.requestTimeoutMs', requestTimeoutMs)} is longer than ${show('limits.maxRequestTimeoutMs', maxRequestTimeoutMs)}`
      return [{ where: given(checked, 'limits.requestTimeoutMs', 'limits.maxRequestTimeoutMs'), message }]
    },
  },
  {
    reads: ['server.warmSpares', 'limits.processes'],
    doc: '`server.warmSpares` is at most `limits.processes`.',
    check: (checked) => {
      const { server, limits } = checked.config
      if (server.warmSpares <= limits.processes) return []
      const message = `server.warmSpares ${server.warmSpares} is more than limits.processes ${limits.processes}`
      return [{ where: given(checked, 'server.warmSpares', 'limits.processes'), message }]
    },
  },
  {
    reads: ['listen.host', 'listen.port', 'admin.host', 'admin.port'],
    doc: '`listen` and `admin` need different ports, unless a port is 0 or the addresses differ (0.0.0.0 and :: are the same as any address).',
    check: (checked) => {
      const { listen, admin } = checked.config
      if (listen.port !== admin.port || listen.port === 0 || !sameAddress(listen.host, admin.host)) return []
      const message = `listen and admin both use port ${listen.port}: give one of them another port`
      return [{ where: given(checked, 'admin.port', 'listen.port'), message }]
    },
  },
  {
    reads: ['listen.streamableHttp', 'listen.httpSse', 'listen.webSocket'],
    doc: 'At least one of `streamableHttp`, `httpSse` and `webSocket` is on.',
    check: (checked) => {
      const { streamableHttp, httpSse, webSocket } = checked.config.listen
      if (streamableHttp || httpSse || webSocket) return []
      const message = 'streamableHttp, httpSse and webSocket are all off: nobody could reach the server'
      return [{ where: given(checked, 'listen.streamableHttp', 'listen.httpSse'), message }]
    },
  },
]
