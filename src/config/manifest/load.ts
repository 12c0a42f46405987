import type {
  AuthLayer,
  AuthzPolicy,
  CedarPolicy,
  RateLimit,
  RuleLayer,
  TimeoutRule,
} from '../../core/policy.ts'
import type { Profile } from '../../core/sandbox.ts'
import { fetchingOf } from '../auth-policy.ts'
import type { ReadFile } from '../disk.ts'
import type { Problem } from '../error.ts'
import type { Given } from '../given.ts'
import type { Origins } from '../origins.ts'
import type { Addition } from '../policy.ts'
import type { Environment } from '../sources.ts'
import { authLayers } from './auth.ts'
import { cedarOf, limitsOf, ruleLayer, timeoutOf } from './authz.ts'
import { type Building, reported } from './building.ts'
import { oidcLayer } from './oidc-config.ts'
import { permissionsOf } from './permissions.ts'
import {
  type GatewayManifest,
  type Manifest,
  type RouteManifest,
  readManifests,
  type ServerManifest,
} from './read.ts'
import { References } from './references.ts'
import { type Start, startOf } from './server.ts'

/** What the documents come to. */
export interface Documents {
  readonly addition: Addition
  readonly start: Start | undefined
  /** What the MCPServer may touch, where no setting says it. */
  readonly permissions: Profile | undefined
  /** What was found for their references, to be watched. */
  readonly files: readonly string[]
  readonly warnings: readonly Problem[]
  readonly problems: readonly Problem[]
}

export interface ManifestInput {
  readonly given: Given
  readonly env: Environment
  readonly cwd: string
  readonly read: ReadFile
  readonly origins: Origins
}

/** What is collected from one document after another. */
interface Collected {
  readonly authLayers: AuthLayer[]
  readonly ruleLayers: RuleLayer[]
  readonly cedars: { readonly policy: CedarPolicy; readonly where: string }[]
  readonly toolsFilters: (readonly string[])[]
  readonly limits: RateLimit[]
  readonly timeouts: TimeoutRule[]
  readonly times: number[]
  readonly resources: string[]
  capabilities: AuthzPolicy['capabilities']
  open: string | undefined
  requireAuthentication: string | undefined
}

/**
 * Reads the OME documents: at most one MCPServer, one MCPRoute and one set of gateway defaults, in any order. Gateway
 * defaults and route are a layer each for authentication and for authorization, and all of their rate limits count, so
 * that a route adds demands and never removes one.
 */
export async function loadManifests(input: ManifestInput): Promise<Documents> {
  const { given, cwd, read, env, origins } = input
  const problems: Problem[] = []
  const setting = given.setting('manifests')
  const files = given.value('manifests').map((path, index) => ({ path, where: setting.at([index]) }))
  const manifests = await readManifests(files, cwd, read, problems)
  const mounts = {
    secretsDir: given.value('secretsDir'),
    configMapsDir: given.value('configMapsDir'),
    env,
    read,
  }
  const building: Building = {
    references: new References(mounts, problems),
    origins,
    fetching: fetchingOf(given),
    problems,
    warnings: [],
    notEnforced: [],
  }
  const server = only(manifests, 'MCPServer', problems)
  const route = only(manifests, 'MCPRoute', problems)
  const gateway = only(manifests, 'gateway defaults', problems)
  if (server !== undefined && route !== undefined) leadsTo(route, server, problems)

  const namespace = route?.namespace ?? server?.namespace
  const serverName = server?.name ?? route?.spec.backendRefs[0]?.serverRef.name
  const collected: Collected = {
    ...{ authLayers: [], ruleLayers: [], cedars: [], toolsFilters: [], limits: [], timeouts: [], times: [] },
    ...{ resources: [], capabilities: undefined, open: undefined, requireAuthentication: undefined },
  }
  if (gateway !== undefined) await addGateway(gateway, namespace, collected, building)
  if (route !== undefined) await addRoute(route, namespace, serverName, collected, building)
  const start = server === undefined ? undefined : await addServer(server, serverName, collected, building)
  const permissions = server && (await permissionsOf(server, given.setting('permissions'), building))
  return {
    addition: additionOf(collected, building, serverName, namespace),
    start,
    permissions,
    files: [...building.references.files],
    warnings: building.warnings,
    problems,
  }
}

function additionOf(
  collected: Collected,
  { notEnforced, problems }: Building,
  serverName: string | undefined,
  namespace: string | undefined,
): Addition {
  const { cedars, times, resources, ...rest } = collected
  const [cedar, second] = cedars
  if (cedar !== undefined && second !== undefined)
    problems.push({
      where: second.where,
      message: `Cedar policies stand here and in ${cedar.where}: put them into one place, since one set could permit what the other does not`,
    })
  return {
    ...rest,
    cedar,
    notEnforced,
    serverName,
    namespace,
    resource: resources[0],
    authTimeoutMs: times.length === 0 ? undefined : Math.min(...times),
  }
}

function only<K extends Manifest['kind']>(
  manifests: readonly Manifest[],
  kind: K,
  problems: Problem[],
): Extract<Manifest, { readonly kind: K }> | undefined {
  const [first, ...others] = manifests.filter(
    (each): each is Extract<Manifest, { readonly kind: K }> => each.kind === kind,
  )
  const message = `a second ${kind}: one sidecar serves one server, by one route`
  problems.push(...others.map(({ place }) => place.problem({ path: [], message })))
  return first
}

function leadsTo(
  { spec, place, namespace }: RouteManifest,
  server: ServerManifest,
  problems: Problem[],
): void {
  if (!spec.backendRefs.some(({ serverRef }) => serverRef.name === server.name))
    problems.push(place.problem({ path: ['backendRefs'], message: `do not lead to ${server.title}` }))
  if (namespace !== undefined && server.namespace !== undefined && namespace !== server.namespace)
    problems.push(
      place.problem({
        path: [],
        message: `the route is in another namespace than ${server.title}: it cannot lead there`,
      }),
    )
}

async function addGateway(
  manifest: GatewayManifest,
  namespace: string | undefined,
  collected: Collected,
  building: Building,
): Promise<void> {
  const { spec, place } = manifest
  const { defaultAuthentication, defaultAuthorization, defaultRateLimit, routeConstraints } = spec
  if (defaultAuthentication !== undefined)
    await addAuthentication(defaultAuthentication, 'defaultAuthentication', manifest, collected, building)
  if (defaultAuthorization !== undefined)
    collected.ruleLayers.push(
      ruleLayer(defaultAuthorization, place.within(['defaultAuthorization']), manifest, namespace, building),
    )
  if (defaultRateLimit !== undefined)
    collected.limits.push(
      ...limitsOf(defaultRateLimit, place.within(['defaultRateLimit']), manifest, building),
    )
  if (routeConstraints?.requireAuthentication === true)
    collected.requireAuthentication = place.at(['routeConstraints', 'requireAuthentication'])
}

async function addRoute(
  manifest: RouteManifest,
  namespace: string | undefined,
  serverName: string | undefined,
  collected: Collected,
  building: Building,
): Promise<void> {
  const { spec, place } = manifest
  if (spec.authentication !== undefined)
    await addAuthentication(spec.authentication, 'authentication', manifest, collected, building)
  if (spec.authorization !== undefined)
    collected.ruleLayers.push(
      ruleLayer(spec.authorization, place.within(['authorization']), manifest, namespace, building),
    )
  if (spec.rateLimit !== undefined)
    collected.limits.push(...limitsOf(spec.rateLimit, place.within(['rateLimit']), manifest, building))
  if (spec.timeouts !== undefined)
    collected.timeouts.push(timeoutOf(spec.timeouts, place.within(['timeouts']), building))
  await addToolhive(manifest, serverName, collected, building)
  const gateway = 'routing across servers belongs to the gateway'
  if (spec.matches !== undefined) reported(building, manifest, 'matches', gateway)
  if (spec.backendRefs.length > 1 || spec.backendRefs[0]?.weight !== undefined)
    reported(building, manifest, 'backendRefs beyond this server, and weights', gateway)
  if (spec.filters !== undefined)
    reported(building, manifest, 'RequestHeaderModifier', 'no header reaches a stdio server')
}

async function addServer(
  manifest: ServerManifest,
  serverName: string | undefined,
  collected: Collected,
  building: Building,
): Promise<Start | undefined> {
  const { spec, place } = manifest
  if (spec.toolsFilter !== undefined) {
    const inner = place.within(['toolsFilter'])
    const names = [...spec.toolsFilter]
    building.origins.note(names, { at: inner.at, given: inner.given, parts: () => [] })
    collected.toolsFilters.push(names)
  }
  const { capabilities } = spec
  if (capabilities !== undefined) {
    const inner = place.within(['capabilities'])
    building.origins.note(capabilities, { at: inner.at, given: inner.given, parts: () => [] })
    collected.capabilities = capabilities
  }
  await addToolhive(manifest, serverName, collected, building)
  return await startOf(manifest, building)
}

async function addAuthentication(
  value: NonNullable<RouteManifest['spec']['authentication']>,
  key: string,
  manifest: Manifest,
  collected: Collected,
  building: Building,
): Promise<void> {
  const { layers, open, timeoutMs } = await authLayers(
    value,
    manifest.place.within([key]),
    manifest,
    building,
  )
  collected.authLayers.push(...layers)
  collected.open ??= open
  if (timeoutMs !== undefined) collected.times.push(timeoutMs)
}

/** What drafts took over from ToolHive, at the server or at the route. */
async function addToolhive(
  manifest: RouteManifest | ServerManifest,
  serverName: string | undefined,
  collected: Collected,
  building: Building,
): Promise<void> {
  const { oidcConfig, authzConfig } = manifest.spec
  if (oidcConfig !== undefined) {
    const layer = await oidcLayer(oidcConfig, manifest.place.within(['oidcConfig']), manifest, building)
    if (layer !== undefined) collected.authLayers.push(layer)
    if (oidcConfig.resourceURL !== undefined) collected.resources.push(oidcConfig.resourceURL)
  }
  if (authzConfig === undefined) return
  const place = manifest.place.within(['authzConfig'])
  const policy = await cedarOf(authzConfig, place, manifest, serverName ?? 'mcp-server', building)
  if (policy === undefined) return
  building.origins.note(policy, { at: place.at, given: place.given, parts: () => [] })
  collected.cedars.push({ policy, where: place.at([]) })
}
