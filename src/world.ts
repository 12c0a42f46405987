/** The part of the composition that a reload replaces: one configuration made into what carries it out. */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createSeal } from './bridge/seal.ts'
import type { Config } from './config/config.ts'
import {
  buildConfinement,
  type ConfinementContext,
  checkFiles,
  resolvedPaths,
  serverCommand,
  type WayOut,
} from './confinement.ts'
import { urlHost } from './core/net.ts'
import type { AuditPolicy, Policy } from './core/policy.ts'
import type { Logger, Seal } from './core/types.ts'
import type { LimitOptions } from './limit/admit.ts'
import type { RateLimiter } from './limit/rate.ts'
import { type TrustedProxies, trustedProxies } from './listen/client-address.ts'
import { paths } from './listen/dispatch.ts'
import { type HostAndOrigin, hostAndOrigin } from './listen/origin.ts'
import type { TlsMaterial } from './listen/tls.ts'
import type { Audit } from './observe/audit.ts'
import { systemClock } from './observe/clock.ts'
import type { SidecarLogger } from './observe/logger.ts'
import type { Sandbox } from './sandbox/sandbox.ts'
import { buildSecurity, makingOf, type Security, type SecurityContext } from './security.ts'
import { buildServer, type Server, type ServerContext } from './server.ts'
import { commandProblem } from './upstream/command.ts'

/** Everything that a reload replaces. What has not changed is taken over from the world before. */
export interface World {
  readonly config: Config
  /** Names the configuration in the audit log. */
  readonly digest: string
  readonly origin: HostAndOrigin
  readonly proxies: TrustedProxies
  readonly security: Security
  readonly limits: LimitOptions
  /** Undefined without rate limits. */
  readonly rates: RateLimiter | undefined
  /** What they were made of. */
  readonly ratesMaking: string
  /** Undefined: nothing is recorded. */
  readonly audit: Audit | undefined
  /** Undefined: plain HTTP. */
  readonly tls: TlsMaterial | undefined
  readonly server: Server
  /** What its processes are started in. */
  readonly sandbox: Sandbox
  /** What the paths of the configuration led to when it was built. */
  readonly resolved: readonly string[]
}

export interface WorldContext
  extends Omit<ServerContext, 'seal' | 'log'>,
    Omit<ConfinementContext, 'log' | 'metrics'> {
  readonly log: SidecarLogger
  readonly wayOut: WayOut
  /** What the server's environment is filtered from. */
  readonly env: Readonly<Record<string, string | undefined>>
  readonly cwd: string
  /** Seals states where no key is configured. */
  readonly seal: Seal
  /** The URL that is listened on, once it is. */
  readonly url: () => string
  /** Of the world in force. */
  readonly digest: () => string
}

/** Something in the configuration or the environment that keeps the sidecar from starting; for the operator. */
export class StartError extends Error {
  override readonly name = 'StartError'
}

/** @throws StartError; then nothing has changed and nothing is left open */
export async function buildWorld(
  config: Config,
  previous: World | undefined,
  context: WorldContext,
): Promise<World> {
  const { policy } = config
  let security: Security | undefined
  let rates: RateLimiter | undefined
  try {
    const proxies = trustedProxies(config.listen.trustedProxies, config.listen.forwardedHeader)
    const around = { ...context, ...names(config, context.url), proxies: config.listen.trustedProxies }
    security = await buildSecurity(policy, around, previous?.security)
    rates = await ratesOf(policy, previous, context)
    // Else its first moments would count as an outage.
    await rates?.ready()
    const ratesMaking = makingOf(policy.rates)
    const tls = await tlsOf(config, context)
    const behind = await serverOf(config, previous, context)
    const limits: LimitOptions = {
      ...config.limits,
      startTimeoutMs: config.server.startTimeoutMs,
      timeouts: security.timeouts,
      rates,
    }
    const origin = hostAndOrigin({ ...config.listen, authenticated: policy.auth.layers.length > 0 })
    // Last: it may change the one in force, and after it nothing can fail.
    const audit = await auditOf(policy.audit, previous, context)
    return {
      config,
      digest: digestOf(config),
      origin,
      proxies,
      security,
      limits,
      rates,
      ratesMaking,
      audit,
      tls,
      ...behind,
    }
  } catch (thrown) {
    security?.retire(previous?.security)
    if (rates !== previous?.rates) rates?.close()
    throw new StartError(thrown instanceof Error ? thrown.message : String(thrown), { cause: thrown })
  }
}

/**
 * Whether a world could be made of a configuration, as far as that can be known without opening anything or asking
 * anybody: secrets, policies, certificates.
 *
 * @param env the sidecar's own
 * @throws StartError
 */
export async function checkWorld(config: Config, env: ConfinementContext['env'] = {}): Promise<void> {
  const { policy, listen } = config
  const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }
  const url = (): string => `http://${urlHost(listen.host)}:${listen.port}${paths.streamableHttp}`
  const context = { clock: systemClock, log, ...names(config, url) }
  try {
    trustedProxies(listen.trustedProxies)
    checkFiles(config, env)
    const around = { ...context, proxies: listen.trustedProxies, prefetch: false }
    const security = await buildSecurity(policy, around)
    security.retire()
    if (policy.rates.limits.length > 0) {
      const { rateLimits } = await import('./limit/rate.ts')
      const metrics = { rateStore: () => {} }
      rateLimits({ ...policy.rates, redis: undefined }, { ...context, metrics, readText }).close()
    }
    await tlsOf(config, context)
    if (policy.rates.redis !== undefined)
      (await import('./limit/redis-options.ts')).redisOptions(policy.rates.redis, readText)
    if (config.server.stateKeyFile !== undefined) sealKey(config.server.stateKeyFile)
    if (policy.audit !== undefined) (await import('./observe/audit.ts')).checkAuditPolicy(policy.audit)
  } catch (thrown) {
    throw new StartError(thrown instanceof Error ? thrown.message : String(thrown), { cause: thrown })
  }
}

/** What clients call this server: the endpoint itself if there is only one, else what all endpoints have in common. */
function names(
  { listen }: Config,
  url: () => string,
): Pick<SecurityContext, 'resource' | 'aliases' | 'endpoints'> {
  const endpoints = [
    ...(listen.streamableHttp ? [paths.streamableHttp] : []),
    ...(listen.httpSse ? [paths.sse] : []),
    ...(listen.webSocket ? [paths.webSocket] : []),
  ]
  const aliases = (): string[] => endpoints.map((path) => new URL(path, url()).href)
  const resource = (): string => (endpoints.length === 1 ? (aliases()[0] as string) : new URL(url()).origin)
  return { resource, aliases, endpoints }
}

/** Counts go on over a reload that does not change the limits. */
async function ratesOf(
  policy: Policy,
  previous: World | undefined,
  context: WorldContext,
): Promise<RateLimiter | undefined> {
  if (policy.rates.limits.length === 0) return undefined
  const making = makingOf(policy.rates)
  if (previous !== undefined && previous.ratesMaking === making) return previous.rates
  const { rateLimits } = await import('./limit/rate.ts')
  return rateLimits(policy.rates, { ...context, readText })
}

/** The chain goes on over a reload, too. */
async function auditOf(
  policy: AuditPolicy | undefined,
  previous: World | undefined,
  context: WorldContext,
): Promise<Audit | undefined> {
  if (policy === undefined) return undefined
  const { audit, config } = previous ?? {}
  if (audit !== undefined && same(config?.policy.audit?.destination, policy.destination)) {
    audit.reconfigure(policy)
    return audit
  }
  const { createAudit } = await import('./observe/audit.ts')
  const { env } = context
  return createAudit(policy, {
    ...context,
    place: { listener: 'mcp', pod: env['POD_NAME'], namespace: env['POD_NAMESPACE'], node: env['NODE_NAME'] },
    configDigest: context.digest,
    stdout: context.log.stdout,
  })
}

async function tlsOf(
  { listen, limits, policy }: Config,
  { clock, log }: Pick<WorldContext, 'clock'> & { readonly log: Logger },
): Promise<TlsMaterial | undefined> {
  if (listen.tls === undefined) return undefined
  const { loadTls } = await import('./listen/tls.ts')
  const certificates = policy.auth.layers.flatMap(({ methods }) =>
    methods.filter((method) => method.method === 'clientCertificate' && method.from === 'tls'),
  )
  const client = {
    caFiles: certificates.flatMap((method) => ('caFile' in method ? (method.caFile ?? []) : [])),
    crlFiles: certificates.flatMap((method) => ('crlFile' in method ? (method.crlFile ?? []) : [])),
  }
  const material = loadTls(
    {
      ...listen.tls,
      handshakeTimeoutMs: limits.headerTimeoutMs,
      client: certificates.length === 0 ? undefined : client,
    },
    clock.epoch(),
  )
  for (const warning of material.warnings) log.warn({}, warning)
  return material
}

type Behind = Pick<World, 'server' | 'sandbox' | 'resolved'>

async function serverOf(config: Config, previous: World | undefined, context: WorldContext): Promise<Behind> {
  const making = ({ server, limits, permissions, protectedPaths }: Config): unknown[] => [
    ...[server, limits, permissions, protectedPaths],
  ]
  const resolved = resolvedPaths(config, context.env)
  if (previous === undefined || !same(making(previous.config), making(config)))
    return { ...(await buildBehind(config, context)), resolved }
  const { server, sandbox } = previous
  if (same(previous.resolved, resolved)) return { server, sandbox, resolved }
  try {
    return { ...(await buildBehind(config, context)), resolved }
  } catch (thrown) {
    // A server may have brought that about; it must not keep a reload from shutting somebody out.
    const { message } = thrown as Error
    context.log.warn({ reason: message }, 'links lead elsewhere, and the server is started as before')
    return { server, sandbox, resolved: previous.resolved }
  }
}

async function buildBehind(config: Config, context: WorldContext): Promise<Omit<Behind, 'resolved'>> {
  const { stateKeyFile } = config.server
  const what = serverCommand(config, context.env)
  const { command, cwd, env, elsewhere } = what
  // In another container only its launcher can look.
  const problem =
    elsewhere === undefined
      ? commandProblem(command[0] as string, cwd ?? context.cwd, env['PATH'])
      : undefined
  if (problem !== undefined) throw new StartError(`the MCP server cannot be started: ${problem}`)
  const seal = stateKeyFile === undefined ? context.seal : createSeal(sealKey(stateKeyFile))
  const sandbox = await buildConfinement(config, context.wayOut, context)
  const server = buildServer(config, { ...what, confinement: sandbox }, { ...context, seal })
  return { server, sandbox }
}

/** Whether a server process of the one configuration may go on under the other: the same is enforced for both. */
export function sameConfinement(a: Config, b: Config): boolean {
  if (a.permissions?.digest !== b.permissions?.digest) return false
  // Without a profile nothing is hidden.
  return a.permissions === undefined || same(a.protectedPaths, b.protectedPaths)
}

/** @throws StartError for a key file that cannot be used */
function sealKey(file: string): Buffer {
  const key = readFileSync(file)
  if (key.length >= 32) return key
  const hint = '`openssl rand -out FILE 32` makes one'
  throw new StartError(
    `server.stateKeyFile: ${file} holds ${key.length} bytes; it takes at least 32 (${hint})`,
  )
}

/** Secrets in it show themselves to nobody, and so do not count; files are read anew where they matter. */
function digestOf(config: Config): string {
  return `sha256:${createHash('sha256').update(JSON.stringify(config)).digest('hex')}`
}

function readText(file: string): string {
  return readFileSync(file, 'utf8')
}

function same(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b)
}
