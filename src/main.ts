/**
 * The composition root: Config in, a running Sidecar out. The only place that constructs things, and the picture of
 * the request path as code.
 */
import { readFileSync } from 'node:fs'
import { type Authenticator, authenticate, stillTrusted } from './authn/authenticate.ts'
import { bearerAuthenticator, parseTokens } from './authn/bearer.ts'
import { authorize } from './authz/authorize.ts'
import { createSeal } from './bridge/seal.ts'
import { ToolHeaders } from './bridge/tool-headers.ts'
import { whenKnown } from './bridge/when-known.ts'
import type { Config } from './config/config.ts'
import { SidecarError } from './core/errors.ts'
import { urlHost } from './core/net.ts'
import { stack } from './core/pipeline.ts'
import type { Clock, Lifecycle, Parsed, Principal, Seal } from './core/types.ts'
import { classify } from './era/classify.ts'
import { limiter } from './limit/admit.ts'
import { type AdminContext, listenAdmin } from './listen/admin.ts'
import { BodyReader } from './listen/body.ts'
import { cors, dispatch, paths } from './listen/dispatch.ts'
import { type HttpReceived, Refusals } from './listen/http.ts'
import { checkOrigin, type HostAndOrigin, hostAndOrigin } from './listen/origin.ts'
import { listen } from './listen/server.ts'
import { type UpgradeReceived, webSocket } from './listen/websocket.ts'
import { observeCalls } from './observe/calls.ts'
import { guarded, systemClock } from './observe/clock.ts'
import type { SidecarLogger } from './observe/logger.ts'
import { createMetrics } from './observe/metrics.ts'
import { buildServer, type Server } from './server.ts'
import type { FlowOptions } from './session/flow.ts'
import { ModernClients } from './session/modern-clients.ts'
import { Registry } from './session/registry.ts'
import { relay, route } from './session/route.ts'
import { commandProblem } from './upstream/command.ts'
import { serverEnvironment } from './upstream/environment.ts'
import { Reaper } from './upstream/reaper.ts'

export interface SidecarContext {
  /** What the server's environment is filtered from. */
  readonly env: Readonly<Record<string, string | undefined>>
  readonly cwd: string
  readonly log: SidecarLogger
  /** The sidecar's own version. */
  readonly version: string
  readonly clock?: Clock
}

export interface Sidecar {
  /** Where clients connect: the Streamable HTTP endpoint. */
  readonly url: string
  readonly adminUrl: string
  readonly config: Config
  /** The server answers and no shutdown is under way. */
  readonly ready: boolean
  /** Builds the new world beside the old one and swaps. @throws StartError; then nothing has changed */
  reload(config: Config): void
  /** Answers what is in flight within the grace, refuses new requests, ends sessions and server processes. */
  stop(): Promise<void>
}

/** Something in the configuration or the environment that keeps the sidecar from starting; for the operator. */
export class StartError extends Error {
  override readonly name = 'StartError'
}

/** Everything that a reload replaces. */
interface World {
  readonly config: Config
  readonly origin: HostAndOrigin
  readonly authenticators: readonly Authenticator[]
  readonly server: Server
}

/** Bodies of this many largest requests may be under way at one time. */
const concurrentBodies = 64
/** Between looks whether the last call has been answered during a shutdown. Milliseconds. */
const drainCheckMs = 20

export async function startSidecar(config: Config, context: SidecarContext): Promise<Sidecar> {
  const { log } = context
  const clock = guarded(context.clock ?? systemClock, log)
  const reaper = new Reaper(log)
  let draining = false
  /** Of before a reload; their processes end with the sessions that use them. */
  const retired: Lifecycle[] = []

  const metrics = createMetrics({
    sessions: () => registry.size,
    processes: () => [world.server, ...retired].reduce((sum, pool) => sum + pool.processes, 0),
    queuedBytes: () => ({ client: unread(), server: world.server.queuedBytes }),
    inFlight: () => limits.inFlight,
    subscriptions: () => limits.subscriptions,
    parked: () => world.server.parked,
  })
  const serverContext = {
    ...{ clock, log, metrics, reaper, version: context.version },
    onToolsChanged: (principalId: string | undefined) => toolHeaders.invalidate(principalId),
    giveUpSession: (principalId: string) => registry.giveUpOne(principalId),
  }
  const toolHeaders = new ToolHeaders(() => world.server, serverContext, { version: context.version })
  // Lasts as long as the process, so that a reload voids no client's requestState.
  const ownSeal = createSeal()
  let world = buildWorld(config, undefined)
  // First of all, so that the server starts up while the listeners do.
  world.server.start()

  const modernContext = {
    server: () => world.server,
    clock,
    metrics,
    options: () => flowOptions(world.config),
  }
  const modernClients = new ModernClients(modernContext, true)
  const unread = (): number => registry.queuedBytes + modernClients.queuedBytes
  const registry = new Registry(
    { maxSessions: config.limits.sessions, idleMs: config.limits.idleSessionMs },
    () => ({
      pool: () => world.server,
      clock,
      log,
      metrics,
      modern: modernContext,
      options: {
        ...flowOptions(world.config),
        replayBytes: world.config.limits.replayBufferBytes,
        inputMs: world.config.limits.clientInputMs,
      },
    }),
  )
  const limits = limiter(() => ({
    ...world.config.limits,
    startTimeoutMs: world.config.server.startTimeoutMs,
  }))
  const refusals = new Refusals(log, metrics)

  // The path of one message, outermost first.
  const messages = stack<Parsed>()
    .push(observeCalls(clock, log, metrics)) // sees every outcome, whoever refused
    .push(classify) // in which era the client speaks; what that era forbids goes no further
    .push(authorize) // before limits: who may not do it cannot spend anyone's quota
    .push(limits.admit) // before anything is allocated for the call
    .push(whenKnown(() => world.server)) // nothing can be sent before the server's era is known
    .push(toolHeaders.check) // after authorization: what the headers may say is the server's own affair
    .push(route(registry, modernClients)) // whose session, or a request that stands alone
    .handler(relay)

  // The door: what is decided from the headers alone. A stranger costs us headers and nothing else.
  const origin = (): HostAndOrigin => world.origin
  const authenticators = (): readonly Authenticator[] => world.authenticators
  const transports = {
    sessions: registry,
    bodies: new BodyReader(config.limits.requestBodyBytes, config.limits.requestBodyBytes * concurrentBodies),
    refusals,
    streams: { clock, keepAliveMs: config.listen.keepAliveMs },
    maxBatch: config.limits.batch,
    messages,
  }
  const http = stack<HttpReceived>()
    .push(checkOrigin(origin)) // a page that was re-pointed here gets no further
    .push(cors) // a preflight carries no credentials
    .push(authenticate(authenticators)) // before any byte of the body
    .handler(dispatch(() => world.config.listen, transports))
  const upgrade = config.listen.webSocket
    ? stack<UpgradeReceived>()
        .push(checkOrigin(origin))
        .push(authenticate(authenticators))
        .handler(
          await webSocket({
            ...transports,
            clock,
            pingMs: config.listen.keepAliveMs,
            maxPayloadBytes: config.limits.requestBodyBytes,
          }),
        )
    : undefined

  const listener = await bound(`${urlHost(config.listen.host)}:${config.listen.port}`, '--port', () =>
    listen(
      { ...config.listen, ...config.limits, maxConnections: config.limits.connections },
      {
        http,
        upgrade,
        refusals,
      },
    ),
  )
  const adminContext: AdminContext = {
    readiness: () => {
      if (draining) return { ready: false, reason: 'shutting down' }
      const { ready } = world.server
      return { ready, reason: ready ? 'the MCP server answers' : 'the MCP server does not answer' }
    },
    metrics: () => metrics.exposition(),
  }
  const admin = await bound(`${urlHost(config.admin.host)}:${config.admin.port}`, '--admin-port', () =>
    listenAdmin(config.admin, adminContext),
  )

  function buildWorld(next: Config, previous: World | undefined): World {
    const authenticators = buildAuthenticators(next)
    const origin = hostAndOrigin({ ...next.listen, authenticated: authenticators.length > 0 })
    const sameServer =
      previous !== undefined &&
      JSON.stringify([previous.config.server, previous.config.limits]) ===
        JSON.stringify([next.server, next.limits])
    return { config: next, authenticators, origin, server: sameServer ? previous.server : serverOf(next) }
  }

  function serverOf(next: Config): Server {
    const { command, cwd, envAllow, envSet, stateKeyFile } = next.server
    const env = serverEnvironment(context.env, envAllow, envSet)
    const problem = commandProblem(command[0] as string, cwd ?? context.cwd, env['PATH'])
    if (problem !== undefined) throw new StartError(`the MCP server cannot be started: ${problem}`)
    const seal = stateKeyFile === undefined ? ownSeal : sealOf(stateKeyFile)
    return buildServer(next, { command, cwd, env }, { ...serverContext, seal })
  }

  async function bound<T>(address: string, flag: string, open: () => Promise<T>): Promise<T> {
    try {
      return await open()
    } catch (thrown) {
      await world.server.close()
      reaper.close()
      const { code, message } = thrown as NodeJS.ErrnoException
      const reason = code === 'EADDRINUSE' ? `it is in use; choose another with ${flag}` : message
      throw new StartError(`cannot listen on ${address}: ${reason}`)
    }
  }

  async function stop(): Promise<void> {
    draining = true
    limits.drain()
    registry.drain()
    const end = clock.now() + world.config.shutdownGraceMs
    modernClients.endSubscriptions()
    // Answers that have been given but not taken are in flight, too.
    while ((limits.inFlight > 0 || unread() > 0) && clock.now() < end) await wait(drainCheckMs)
    registry.endAll(new SidecarError('ERR_DRAINING'))
    modernClients.end(new SidecarError('ERR_DRAINING'))
    listener.stopAccepting()
    await Promise.all([world.server, ...retired].map((pool) => pool.close()))
    await Promise.all([listener.close(), admin.close()])
    reaper.close()
  }

  return {
    url: `http://${urlHost(config.listen.host)}:${listener.port}${paths.streamableHttp}`,
    adminUrl: `http://${urlHost(config.admin.host)}:${admin.port}`,
    get config() {
      return world.config
    },
    get ready() {
      return adminContext.readiness().ready
    },
    reload(next) {
      const fixed = fixedDifference(world.config, next)
      if (fixed !== undefined) throw new StartError(`${fixed} cannot change while running; restart for that`)
      const old = world
      world = buildWorld(next, old)
      log.setLevel(next.log.level)
      const trusted = (principal: Principal): boolean => stillTrusted(principal, world.authenticators)
      registry.endUntrusted(trusted)
      modernClients.endUntrusted(trusted)
      if (world.server === old.server) return
      toolHeaders.invalidate()
      world.server.start()
      old.server.retire()
      // Of those whose sessions have all ended nothing is left.
      retired.splice(0, retired.length, ...retired.filter(({ processes }) => processes > 0), old.server)
    },
    stop,
  }
}

/** @throws StartError for a token file that cannot be used */
function buildAuthenticators(config: Config): readonly Authenticator[] {
  const { bearerTokenFile } = config.auth
  if (bearerTokenFile === undefined) return []
  try {
    const tokens = parseTokens(readFileSync(bearerTokenFile, 'utf8'), bearerTokenFile)
    return [bearerAuthenticator(() => tokens)]
  } catch (thrown) {
    throw new StartError(thrown instanceof Error ? thrown.message : String(thrown))
  }
}

/** @throws StartError for a key file that cannot be used */
function sealOf(file: string): Seal {
  let key: Buffer
  try {
    key = readFileSync(file)
  } catch (thrown) {
    throw new StartError(thrown instanceof Error ? thrown.message : String(thrown))
  }
  if (key.length < 32) {
    const hint = '`openssl rand -out FILE 32` makes one'
    throw new StartError(
      `server.stateKeyFile: ${file} holds ${key.length} bytes; it takes at least 32 (${hint})`,
    )
  }
  return createSeal(key)
}

function flowOptions({ limits }: Config): FlowOptions {
  return { queueBytes: limits.sessionQueueBytes, maxMessageBytes: limits.serverMessageBytes }
}

/** The first setting that only a restart can change and that differs, as the file names it. */
function fixedDifference(old: Config, next: Config): string | undefined {
  const fixed: readonly [string, (config: Config) => unknown][] = [
    ['listen.host', ({ listen }) => listen.host],
    ['listen.port', ({ listen }) => listen.port],
    ['listen.webSocket', ({ listen }) => listen.webSocket],
    ['listen.keepAlive', ({ listen }) => listen.keepAliveMs],
    ['admin', ({ admin }) => `${admin.host}:${admin.port}`],
    ['limits.sessions', ({ limits }) => limits.sessions],
    ['limits.idleSession', ({ limits }) => limits.idleSessionMs],
    ['limits.connections', ({ limits }) => limits.connections],
    ['limits.requestBody', ({ limits }) => limits.requestBodyBytes],
    ['limits.batch', ({ limits }) => limits.batch],
    ['limits.headerTimeout', ({ limits }) => limits.headerTimeoutMs],
    ['limits.bodyTimeout', ({ limits }) => limits.bodyTimeoutMs],
    ['log.format', ({ log }) => log.format],
  ]
  return fixed.find(([, value]) => value(old) !== value(next))?.[0]
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms)
  })
}
