/** What a start says: where to connect, what is enforced and what is not, and a client configuration to paste. */
import type { Config } from './config/config.ts'
import { isLoopback } from './core/net.ts'
import type { AuthMethod } from './core/policy.ts'
import type { EnforcementReport } from './core/sandbox.ts'
import type { Sidecar } from './main.ts'
import { enforcementSummary, gapTexts, weakening } from './sandbox/report.ts'

export interface StartReport {
  /** For a log line. */
  readonly fields: Readonly<Record<string, unknown>>
  /** For a person. */
  readonly lines: readonly string[]
}

export function startReport({ config, url, adminUrl, enforcement: measured }: Sidecar): StartReport {
  const base = url.slice(0, url.lastIndexOf('/'))
  const { listen } = config
  const urls = {
    ...(listen.streamableHttp ? { url } : {}),
    ...(listen.httpSse ? { sseUrl: `${base}/sse` } : {}),
    ...(listen.webSocket ? { webSocketUrl: `${base.replace(/^http/, 'ws')}/ws` } : {}),
  }
  const { enforced, notEnforced } = enforcement(config, measured)
  const headers = clientHeaders(config)
  const clientConfig = {
    mcpServers: { sidecar: { type: 'http', url, ...(headers === undefined ? {} : { headers }) } },
  }
  const lines = [
    '',
    `  MCP server: ${config.server.command.join(' ')}${config.server.socket === undefined ? '' : `, by the launcher at ${config.server.socket}`}`,
    '',
    ...(listen.streamableHttp ? [`  Streamable HTTP   ${url}`] : []),
    ...(listen.httpSse ? [`  HTTP+SSE          ${base}/sse`] : []),
    ...(listen.webSocket ? [`  WebSocket         ${base.replace(/^http/, 'ws')}/ws`] : []),
    `  Admin             ${adminUrl}/healthz  /readyz  /metrics`,
    '',
    ...enforced.map((line) => `  enforced      ${line}`),
    ...notEnforced.map((line) => `  NOT enforced  ${line}`),
    '',
    '  Client configuration:',
    ...JSON.stringify(clientConfig, undefined, 2)
      .split('\n')
      .map((line) => `    ${line}`),
    '',
  ]
  const permissions = enforcementSummary(measured)
  return { fields: { ...urls, adminUrl, enforced, notEnforced, permissions, clientConfig }, lines }
}

const methodNames: Readonly<Record<AuthMethod['method'], string>> = {
  bearer: 'static bearer tokens',
  apiKey: 'API keys',
  basic: 'Basic',
  jwt: 'JWT',
  oidc: 'OpenID Connect',
  kubernetes: 'Kubernetes service accounts',
  clientCertificate: 'client certificates',
}

/** What holds and what does not, in words for whoever signs it off. */
export function enforcement(
  config: Config,
  measured?: EnforcementReport,
): { readonly enforced: string[]; readonly notEnforced: string[] } {
  const { policy, listen, server, permissions } = config
  const { auth, authz, rates, audit } = policy
  const enforced: string[] = []
  const notEnforced: string[] = []
  for (const { require, methods } of auth.layers) {
    const names = [...new Set(methods.map(({ method }) => methodNames[method]))]
    enforced.push(`authentication: ${names.join(require === 'all' ? ' and ' : ' or ')}`)
  }
  if (auth.layers.length === 0) {
    const local = isLoopback(listen.host) && !config.auth.none
    notEnforced.push(`authentication: off${local ? '; only this machine can connect' : ', as configured'}`)
  }
  const authorization = [
    ...(authz.layers.length > 0 ? ['rules'] : []),
    ...(authz.cedar === undefined ? [] : ['Cedar policies']),
    ...(authz.scopes.length > 0 ? ['scopes'] : []),
    ...(authz.toolsFilters.length > 0 ? ['tools filter'] : []),
    ...(authz.capabilities === undefined ? [] : ['capabilities']),
  ]
  if (authorization.length > 0) enforced.push(`authorization: ${authorization.join(', ')}`)
  else notEnforced.push('authorization: every caller may use every tool')
  if (rates.limits.length > 0) enforced.push(`${rates.limits.length} rate limits`)
  if (audit !== undefined)
    enforced.push(
      `audit log, ${audit.onFailure === 'block' ? 'without which no call is let in' : 'as far as it can be written'}`,
    )
  if (listen.tls !== undefined) enforced.push(`TLS, ${listen.tls.minVersion} or newer`)
  enforced.push(
    'Host and Origin checks',
    'limits on sessions, processes, sizes and times',
    "the server's environment",
  )
  if (permissions === undefined || measured?.verdict === 'off') {
    notEnforced.push(
      'file system and network access of the server process: it runs with the rights of this user',
    )
  } else if (measured?.verdict === 'refused') {
    // Only of a server in another container: elsewhere there would be no sidecar to report it.
    enforced.push(
      `permissions: profile ${permissions.name}; no server is started until its launcher reports what holds`,
    )
  } else if (measured === undefined) {
    enforced.push(
      `permissions: profile ${permissions.name}, as far as the host can (mcp-sidecar doctor tells)`,
    )
  } else {
    const { active, gaps } = enforcementSummary(measured)
    enforced.push(`permissions: profile ${permissions.name} (${measured.verdict}; ${active.join(', ')})`)
    for (const gap of gaps.filter((each) => weakening.has(each)))
      notEnforced.push(`permissions: ${gap}: ${gapTexts[gap]?.[0]}`)
  }
  for (const each of permissions?.notApplied ?? []) notEnforced.push(`permissions: ${each}`)
  if (server.topology === 'shared')
    notEnforced.push('separation of callers inside the server: one process serves all')
  else if (server.topology === 'auto' && server.era !== 'legacy')
    notEnforced.push('separation of callers inside the server, if it is a modern one: one process serves all')
  return { enforced, notEnforced: [...notEnforced, ...policy.notEnforced] }
}

/** What a client has to send, where a header will do; OAuth clients find out by themselves. */
function clientHeaders({ policy }: Config): Readonly<Record<string, string>> | undefined {
  const headers = policy.auth.layers.flatMap(({ require, methods }) => {
    const known = methods.map(clientHeader).filter((header) => header !== undefined)
    return require === 'all' ? known : known.slice(0, 1)
  })
  return headers.length === 0 ? undefined : Object.assign({}, ...headers)
}

function clientHeader(method: AuthMethod): Readonly<Record<string, string>> | undefined {
  switch (method.method) {
    case 'bearer':
      return { Authorization: 'Bearer YOUR-TOKEN' }
    case 'apiKey':
      return { [method.header ?? 'X-API-Key']: 'YOUR-KEY' }
    case 'basic':
      return { Authorization: 'Basic YOUR-NAME-AND-PASSWORD-IN-BASE64' }
  }
  return undefined
}
