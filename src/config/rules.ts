import { isLoopback } from '../core/net.ts'
import { AUTH_RULES } from './auth-rules.ts'
import { dangerousVariable } from './environment.ts'
import { given, type Rule, show } from './rule.ts'

function sameAddress(a: string, b: string): boolean {
  const any = (host: string): boolean => host === '0.0.0.0' || host === '::'
  return a === b || any(a) || any(b)
}

const DANGEROUS_ADVICE =
  'changes what code runs: remove it, or set server.env.allowDangerous: true in the file'

/** Every demand on several values at once. */
export const RULES: readonly Rule[] = [
  {
    reads: ['server.command', 'manifests'],
    doc: 'There must be a command: after `--`, in `MCP_SIDECAR_COMMAND`, in `server.command` or in an MCPServer document.',
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
  ...AUTH_RULES,
  {
    reads: ['listen.host', 'permissions', 'requirePermissions', 'manifests'],
    doc: 'Listening on an address that is not loopback, and `requirePermissions`, which the container image sets, need `permissions`, or those of an MCPServer document: what others use may do only what somebody has decided.',
    check: ({ config: { listen, permissions }, value, at }) => {
      const outside = !isLoopback(listen.host)
      // One that could not be read is a choice, too, and its problems are told.
      if (permissions !== undefined || value('permissions') !== undefined) return []
      if (!outside && !value('requirePermissions')) return []
      const why = outside
        ? `${show('listen.host', listen.host)} can be reached from other machines, and`
        : 'a choice is required here, and'
      return [
        {
          where: at(outside ? 'listen.host' : 'requirePermissions'),
          message: `${why} nothing says what the server may touch: choose --permissions none, network, full-access or the file of a profile`,
        },
      ]
    },
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
    reads: ['limits.sessionsPerPrincipal', 'limits.sessions'],
    doc: '`limits.sessionsPerPrincipal` is at most `limits.sessions`; its default follows.',
    check: ({ config, value, at }) => {
      const [one, all] = [value('limits.sessionsPerPrincipal'), config.limits.sessions]
      const where = at('limits.sessionsPerPrincipal')
      if (one <= all || where === 'default') return []
      return [{ where, message: `limits.sessionsPerPrincipal ${one} is more than limits.sessions ${all}` }]
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
