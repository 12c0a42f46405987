/**
 * The composition root: Config in, a running Sidecar out. The only place that constructs things, and the picture of
 * the request path as code.
 */
import { authenticate, stillAuthenticated, stillTrusted } from './authn/authenticate.ts'
import type { BearerChallenge } from './authn/challenge.ts'
import { Failures } from './authn/failures.ts'
import { createSeal } from './bridge/seal.ts'
import { ToolHeaders } from './bridge/tool-headers.ts'
import { toolHints } from './bridge/tool-hints.ts'
import { ToolList } from './bridge/tool-list.ts'
import { whenKnown } from './bridge/when-known.ts'
import type { Config } from './config/config.ts'
import { fixedDifference } from './config/fixed.ts'
import { WayOut } from './confinement.ts'
import { SidecarError } from './core/errors.ts'
import { urlHost } from './core/net.ts'
import { type Handler, stack } from './core/pipeline.ts'
import type { EnforcementReport } from './core/sandbox.ts'
import type { Decoded, Parsed, Permitted, Principal } from './core/types.ts'
import { classify } from './era/classify.ts'
import { limiter } from './limit/admit.ts'
import { type AdminContext, listenAdmin } from './listen/admin.ts'
import { BodyReader } from './listen/body.ts'
import { cors, dispatch, paths } from './listen/dispatch.ts'
import { type HttpReceived, Refusals } from './listen/http.ts'
import { checkOrigin, type HostAndOrigin } from './listen/origin.ts'
import { listenReason } from './listen/reason.ts'
import { listen } from './listen/server.ts'
import { type UpgradeReceived, webSocket } from './listen/websocket.ts'
import { wellKnown } from './listen/well-known.ts'
import { countCallers, observeCalls } from './observe/calls.ts'
import { guarded, systemClock } from './observe/clock.ts'
import { createMetrics } from './observe/metrics.ts'
import { Records, recordingMetrics } from './observe/records.ts'
import { enforcementSummary } from './sandbox/report.ts'
import type { FlowOptions } from './session/flow.ts'
import { ModernClients } from './session/modern-clients.ts'
import { Registry } from './session/registry.ts'
import { relay, route } from './session/route.ts'
import type { Sidecar, SidecarContext } from './sidecar.ts'
import { Reaper } from './upstream/reaper.ts'
import { RetiredServers } from './upstream/retired.ts'
import { buildWorld, StartError, sameConfinement, type World } from './world.ts'

export type { Sidecar, SidecarContext } from './sidecar.ts'
export { StartError } from './world.ts'

/** Bodies of this many largest requests may be under way at one time. */
const concurrentBodies = 64
/** Between looks whether the last call has been answered during a shutdown. Milliseconds. */
const drainCheckMs = 20

export async function startSidecar(config: Config, context: SidecarContext): Promise<Sidecar> {
  const { log } = context
  const clock = guarded(context.clock ?? systemClock, log)
  const reaper = new Reaper(log)
  let draining = false
  let reloading: Promise<void> = Promise.resolve()
  const retired = new RetiredServers(clock)

  const registered = createMetrics({
    sessions: () => registry.size,
    processes: () => world.server.processes + retired.processes,
    queuedBytes: () => ({ client: unread(), server: world.server.queuedBytes }),
    inFlight: () => limits.inFlight,
    subscriptions: () => limits.subscriptions,
    parked: () => world.server.parked,
  })
  const records = new Records()
  const metrics = recordingMetrics(registered, records)
  const serverContext = {
    ...{ clock, log, metrics, reaper, version: context.version },
    onToolsChanged: (principalId: string | undefined) => toolList.invalidate(principalId),
    giveUpSession: (principalId: string) => registry.giveUpOne(principalId),
  }
  const toolList = new ToolList(() => world.server, serverContext, { version: context.version })
  const toolHeaders = new ToolHeaders(toolList, serverContext)
  const ownPorts: number[] = []
  const confinementContext = {
    ...serverContext,
    ...{ env: context.env, records, launcher: context.launcher, observed: context.observed },
    ownPorts: () => ownPorts,
  }
  const wayOut = new WayOut(confinementContext)
  const worldContext = {
    ...confinementContext,
    wayOut,
    ...{ env: context.env, cwd: context.cwd },
    // Lasts as long as the process, so that a reload voids no client's requestState.
    seal: createSeal(),
    url: () => url,
    digest: () => world.digest,
  }
  let url = ''
  let world = await buildWorld(config, undefined, worldContext).catch(async (thrown: unknown) => {
    // A start that is refused leaves nothing open that would keep the process from ending.
    await wayOut.close()
    reaper.close()
    throw thrown
  })
  records.attach(() => world.audit)
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
    {
      maxSessions: config.limits.sessions,
      maxPerPrincipal: config.limits.sessionsPerPrincipal,
      idleMs: config.limits.idleSessionMs,
      records: records.session,
    },
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
  const limits = limiter(() => world.limits)
  const refusals = new Refusals(log, metrics, records.refusal)

  const authentication = {
    ...{ gate: () => world.security.gate, failures: new Failures(clock), clock },
    bearerChallenge: (...args: Parameters<BearerChallenge>) =>
      world.security.metadata.bearerChallenge(...args),
  }

  // The path of one message, outermost first.
  const messages = stack<Parsed>()
    .push(observeCalls({ clock, log, metrics, audit: () => world.audit, sessions: registry })) // sees every outcome, whoever refused
    .push(classify) // in which era the client speaks; what that era forbids goes no further
    .push(toolHints(toolList, { clock, wanted: () => world.security.readsHints })) // what the server says of its tools, where policies judge by it
    .push(stillAuthenticated<Decoded>(authentication)) // all that may take longer than a reload that shuts its sender out
    .push((decoded, next: Handler<Permitted>) => world.security.authorize(decoded, next)) // before limits: who may not do it cannot spend anyone's quota
    .push(limits.admit) // before anything is allocated for the call
    .push(whenKnown(() => world.server)) // nothing can be sent before the server's era is known
    .push(toolHeaders.check) // after authorization: what the headers may say is the server's own affair
    .push(route(registry, modernClients)) // whose session, or a request that stands alone
    .handler(relay)

  // The door: what is decided from the headers alone. A stranger costs us headers and nothing else.
  const origin = (): HostAndOrigin => world.origin
  const transports = {
    sessions: registry,
    bodies: new BodyReader(config.limits.requestBodyBytes, config.limits.requestBodyBytes * concurrentBodies),
    refusals,
    mayOpen: records.mayOpen,
    opened: records.opened,
    streams: { clock, keepAliveMs: config.listen.keepAliveMs },
    maxBatch: config.limits.batch,
    messages,
  }
  const http = stack<HttpReceived>()
    .push(checkOrigin(origin)) // a page that was re-pointed here gets no further
    .push(cors(() => world.security.gate.headers)) // a preflight carries no credentials
    .push(wellKnown((path) => documents(world, path))) // how to get a credential is told without one
    .push(authenticate(authentication)) // before any byte of the body
    .push(countCallers(metrics))
    .handler(dispatch(() => world.config.listen, transports))
  const upgrade = config.listen.webSocket
    ? stack<UpgradeReceived>()
        .push(checkOrigin(origin))
        .push(authenticate(authentication))
        .push(countCallers(metrics))
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
      { ...config.listen, ...config.limits, tls: world.tls, maxConnections: config.limits.connections },
      { http, upgrade, refusals, proxies: () => world.proxies },
    ),
  )
  ownPorts.push(listener.port)
  const scheme = world.tls === undefined ? 'http' : 'https'
  url = `${scheme}://${urlHost(config.listen.host)}:${listener.port}${paths.streamableHttp}`
  records.event('sidecar_start', { version: context.version })
  const adminContext: AdminContext = {
    readiness: () => {
      const enforcement = enforcementSummary(enforced())
      if (draining) return { ready: false, reason: 'shutting down', enforcement }
      const { ready } = world.server
      const reason = ready ? 'the MCP server answers' : 'the MCP server does not answer'
      return { ready, reason, enforcement }
    },
    metrics: () => registered.exposition(),
  }
  const admin = await bound(
    `${urlHost(config.admin.host)}:${config.admin.port}`,
    '--admin-port',
    () => listenAdmin(config.admin, adminContext),
    listener,
  )
  ownPorts.push(admin.port)

  /** @param opened what is closed again when this cannot be */
  async function bound<T>(
    address: string,
    flag: string,
    open: () => Promise<T>,
    opened?: { close(): Promise<void> },
  ): Promise<T> {
    try {
      return await open()
    } catch (thrown) {
      await opened?.close()
      registry.endAll(new SidecarError('ERR_DRAINING'))
      await Promise.all([world.server.close(), world.audit?.close()])
      closeAll(world)
      await wayOut.close()
      reaper.close()
      throw new StartError(`cannot listen on ${address}: ${listenReason(thrown, flag)}`)
    }
  }

  async function stop(): Promise<void> {
    draining = true
    limits.drain()
    registry.drain()
    await reloading.catch(() => {})
    const end = clock.now() + world.config.shutdownGraceMs
    modernClients.endSubscriptions()
    // Answers that have been given but not taken are in flight, too.
    while ((limits.inFlight > 0 || unread() > 0) && clock.now() < end) await wait(drainCheckMs)
    registry.endAll(new SidecarError('ERR_DRAINING'))
    modernClients.end(new SidecarError('ERR_DRAINING'))
    listener.stopAccepting()
    await Promise.all([world.server.close(), retired.close()])
    await Promise.all([listener.close(), admin.close()])
    await wayOut.close()
    reaper.close()
    records.event('sidecar_stop')
    closeAll(world)
    await world.audit?.close()
  }

  return {
    url,
    adminUrl: `http://${urlHost(config.admin.host)}:${admin.port}`,
    get config() {
      return world.config
    },
    get ready() {
      return adminContext.readiness().ready
    },
    get enforcement() {
      return enforced()
    },
    reopenAudit: () => world.audit?.reopen(),
    // One after the other, so that none swaps out a world that another has just put in.
    reload: (next) => {
      const reloaded = reloading.catch(() => {}).then(() => reload(next))
      reloading = reloaded
      return reloaded
    },
    stop,
  }

  function enforced(): EnforcementReport {
    return { ...world.sandbox.report, retiring: retired.outdated || undefined }
  }

  async function reload(next: Config): Promise<void> {
    try {
      await swap(next)
    } catch (thrown) {
      records.event('config_reload', { reason: (thrown as Error).message.slice(0, 500) }, 'error')
      throw thrown
    }
  }

  async function swap(next: Config): Promise<void> {
    const fixed = fixedDifference(world.config, next)
    if (fixed !== undefined) throw new StartError(`${fixed} cannot change while running; restart for that`)
    if (draining) throw new StartError('the sidecar is shutting down')
    const old = world
    world = await buildWorld(next, old, worldContext)
    if (world.tls !== undefined) listener.secureWith(world.tls)
    log.setLevel(next.log.level)
    old.security.retire(world.security)
    const trusted = (principal: Principal): boolean => stillTrusted(principal, world.security.gate)
    registry.endUntrusted(trusted)
    modernClients.endUntrusted(trusted)
    // Whoever listens asks again, and hears what is allowed now.
    if (JSON.stringify(old.config.policy.authz) !== JSON.stringify(next.policy.authz)) {
      registry.withdrawSubscriptions()
      modernClients.endSubscriptions()
    }
    if (old.rates !== world.rates) old.rates?.close()
    if (world.server !== old.server) {
      toolList.invalidate()
      world.server.start()
      old.server.retire()
      retired.add(old.server)
    }
    if (!sameConfinement(old.config, next)) {
      retired.outdate(next.shutdownGraceMs)
      registry.retireOthers(world.server)
      registry.endSubscriptions()
      modernClients.endSubscriptions()
    }
    records.event('config_reload', { config: world.digest, retiring: retired.outdated || undefined })
    // Its last lines may take a while.
    if (old.audit !== world.audit) await old.audit?.close()
  }
}

/** RFC 9728: what an OAuth client has to know to get a token for this server. */
function documents({ security: { metadata } }: World, path: string): object | undefined {
  return metadata.serves(path) ? metadata.document() : undefined
}

function closeAll({ security, rates }: World): void {
  security.retire()
  rates?.close()
}

function flowOptions({ limits }: Config): FlowOptions {
  return { queueBytes: limits.sessionQueueBytes, maxMessageBytes: limits.serverMessageBytes }
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms)
  })
}
