import { once } from 'node:events'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { runProgram } from '../support/audited.ts'
import { type CliProcess, startCli } from '../support/cli.ts'
import { signingKey } from '../support/jwt-keys.ts'
import { ask, type Json, modern, refusedWith, said, tool } from '../support/modern.ts'
import { scriptedServer, until } from '../support/sidecar.ts'
import { openSocket, openSse, upgradeAnswer } from '../support/streams.ts'
import { call, openSession, post, send } from '../support/wire.ts'

type Headers = Record<string, string>

const folder = t.testdir()
const file = (name: string, text: string): string => {
  const path = join(folder, name)
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, text, { mode: 0o600 })
  return path
}

const key = signingKey('k1')
const jwks = createServer((_request, response) => {
  response.setHeader('Content-Type', 'application/json')
  response.end(JSON.stringify({ keys: [key.jwk] }))
}).listen(0, '127.0.0.1')
await once(jwks, 'listening')
t.teardown(() => {
  jwks.close()
  jwks.closeAllConnections()
})
const issuer = `http://127.0.0.1:${(jwks.address() as AddressInfo).port}`

const keys = {
  ci: 'ci-key-0123456789abcdef',
  nightly: 'nightly-key-0123456789abcdef',
  next: 'next-key-0123456789abcdef',
}
const secretsDir = join(folder, 'secrets')
const mounted = file('secrets/api-keys/ci', `${keys.ci}\n`)
file('secrets/backend/token', 'the token of the backend\n')

const gatewayText = `defaultAuthentication:
  jwt: { audiences: [mcp], issuer: '${issuer}', jwksURI: '${issuer}/keys' }
defaultAuthorization:
  rules:
  - principals: ['*']
    permissions:
    - { tools: ['e*', 'p*', 'c*', hang], actions: [tools/call, tools/list] }
defaultRateLimit:
  limits:
  - { dimension: tool, tools: [pid], requests: 2, unit: hour }
routeConstraints: { requireAuthentication: true }
`
const serverText = `apiVersion: ome.io/v1alpha1
kind: MCPServer
metadata: { name: scripted, namespace: team-a }
spec:
  hosted:
    replicas: 1
    podSpec:
      spec:
        containers:
        - name: mcp-server
          image: example.com/scripted
          command: [/usr/bin/env, '-u', NODE_OPTIONS, '${process.execPath}']
          args: ['${scriptedServer}', --version=$(VERSION)]
          env:
          - { name: VERSION, value: '2025-06-18' }
          - name: BACKEND_TOKEN
            valueFrom: { secretKeyRef: { name: backend, key: token } }
          - name: ABSENT
            valueFrom: { configMapKeyRef: { name: none, key: none, optional: true } }
  transport: stdio
  capabilities: { tools: true, resources: false, prompts: false }
  toolsFilter: [echo, env, params, pid, cwd, sleep]
`
const routeText = `apiVersion: ome.io/v1alpha1
kind: MCPRoute
metadata: { name: main, namespace: team-a }
spec:
  backendRefs: [{ serverRef: { name: scripted }, weight: 1 }]
  authentication:
    apiKey:
      header: X-Team-Key
      secretRefs:
      - { name: api-keys, key: ci }
      - { name: api-keys, key: nightly }
  authorization:
    rules:
    - principals: ['user:alice']
      permissions:
      - { tools: [echo, env, pid, cwd, sleep, hang], actions: [tools/call, tools/list] }
    - principals: ['group:ops']
      permissions:
      - { tools: [params], actions: [tools/call] }
      conditions:
      - { type: RequestHeader, key: X-Team, value: team-a }
  rateLimit:
    limits:
    - { dimension: user, tools: [cwd], requests: 2, unit: day }
`
const manifests = {
  gateway: file('gateway.yaml', gatewayText),
  server: file('server.yaml', serverText),
  route: file('route.yaml', routeText),
}
const config = file(
  'config.yaml',
  `secretsDir: ${secretsDir}
auth:
  fetching: { allowPrivateAddresses: true, allowHttp: true }
  failures: { attempts: 100000 }
listen: { webSocket: true }
`,
)
const flagsOf = (files: Readonly<Record<string, string>>): string[] => [
  ...['--config', config],
  ...Object.values(files).flatMap((path) => ['--manifest', path]),
]

process.env['MCP_SIDECAR_SECRET_API_KEYS__NIGHTLY'] = keys.nightly
const sidecar: CliProcess = await startCli(t, flagsOf(manifests), [])
const { url } = sidecar
const base = new URL(url).origin

const token = (sub: string, claims: object = {}): Headers => {
  const exp = Math.floor(Date.now() / 1000) + 600
  return { Authorization: `Bearer ${key.token({ iss: issuer, aud: 'mcp', sub, exp, ...claims })}` }
}
const keyed = (name: keyof typeof keys): Headers => ({ 'X-Team-Key': keys[name] })
const alice: Headers = { ...token('alice'), ...keyed('ci') }
const ops: Headers = { ...token('olga', { groups: ['ops'] }), ...keyed('nightly') }
const calling = (name: string, headers: Headers = alice): Promise<Json> => ask(url, tool(1, name), headers)

t.test('the server is started with command, arguments and variables of its document', async (t) => {
  const session = await openSession(url, { headers: alice })
  t.ok(session, 'the handshake')
  const { messages } = await post(url, call(1, 'env'), session)
  const env = said(messages[0])
  t.match(env, { VERSION: '2025-06-18', BACKEND_TOKEN: 'the token of the backend' })
  t.notOk('ABSENT' in env, 'what is optional and not there')
  t.notOk(JSON.stringify(env).includes(keys.nightly), 'the keys of callers are not for the server')
  t.notMatch(JSON.stringify(sidecar.lines), 'the token of the backend', 'nor is its own secret for the log')
})

t.test('gateway and route must both be satisfied, on every way in', async (t) => {
  const refused: Record<string, Headers> = {
    nothing: {},
    'the token of the gateway alone': token('alice'),
    'the key of the route alone': keyed('ci'),
    'a token and a wrong key': { ...token('alice'), 'X-Team-Key': 'wrong-key-0123456789abcdef' },
    'a token for somebody else and a key': { ...token('alice', { aud: 'other' }), ...keyed('ci') },
    'a key in another header': { ...token('alice'), 'X-API-Key': keys.ci },
  }
  for (const [what, headers] of Object.entries(refused)) {
    t.equal((await calling('echo', headers)).status, 401, what)
    t.equal((await upgradeAnswer(base, headers)).status, 401, `${what}, WebSocket`)
    const sse = await send(`${base}/sse`, 'GET', { Accept: 'text/event-stream', ...headers })
    t.equal(sse.status, 401, `${what}, HTTP+SSE`)
  }
  t.equal((await calling('echo')).status, 200, 'the key of a mounted file')
  t.equal(
    (await calling('echo', { ...token('alice'), ...keyed('nightly') })).status,
    200,
    'that of a variable',
  )
  const socket = await openSocket(base, { headers: alice, version: '2025-06-18' })
  t.match(await socket.request(call(1, 'echo', { text: 'hello' })), { result: {} })
  socket.close()
  const sse = await openSse(base, { headers: alice, version: '2024-11-05' })
  t.match(await sse.request(call(1, 'echo', { text: 'hello' })), { result: {} })
  sse.cut()
})

t.test('what the rules of both permit is permitted', async (t) => {
  refusedWith(t, await calling('sleep'), [403, 403, 'ERR_DENIED'], 1)
  refusedWith(t, await calling('params'), [403, 403, 'ERR_DENIED'], 1)
  refusedWith(t, await calling('echo', ops), [403, 403, 'ERR_DENIED'], 1)
  refusedWith(t, await calling('params', ops), [403, 403, 'ERR_DENIED'], 1)
  t.equal((await calling('params', { ...ops, 'X-Team': 'team-a' })).status, 200, 'with the header')
})

t.test('tools beside the filter do not exist, and lists name what the caller may call', async (t) => {
  const hang = await calling('hang')
  t.match(hang.json, { error: { code: -32602, data: { reason: 'ERR_TOOL_UNKNOWN' } } })
  const list = await ask(url, modern(1, 'tools/list'), alice)
  t.same(list.json.result.tools.map(({ name }: Json) => name).sort(), ['cwd', 'echo', 'env', 'pid'])
  t.equal(list.json.result.cacheScope, 'private')
})

t.test('capabilities that are switched off are neither advertised nor served', async (t) => {
  const { json } = await ask(url, modern(1, 'server/discover'), alice)
  t.ok('tools' in json.result.capabilities)
  t.notOk('resources' in json.result.capabilities || 'prompts' in json.result.capabilities)
  for (const method of ['resources/list', 'prompts/list'])
    t.ok((await ask(url, modern(2, method), alice)).json.error, method)
})

t.test('the rate limits of both count', async (t) => {
  const statuses = async (name: string): Promise<number[]> => {
    const all: number[] = []
    for (let i = 0; i < 3; i++) all.push((await calling(name)).status)
    return all
  }
  t.same(await statuses('cwd'), [200, 200, 429], 'the route')
  t.same(await statuses('pid'), [200, 200, 429], 'the gateway')
  const { headers } = await calling('cwd')
  t.ok(Number(headers['retry-after']) > 80_000, 'a day')
})

t.test('a key that is replaced in its mounted file counts at once, and the old one no more', async (t) => {
  writeFileSync(mounted, keys.next)
  const withNext = { ...token('alice'), ...keyed('next') }
  await until(async () => (await calling('echo', withNext)).status === 200, 'the new key is taken', 15_000)
  t.equal((await calling('echo')).status, 401)
  writeFileSync(mounted, keys.ci)
  await until(async () => (await calling('echo')).status === 200, 'the old one is back', 15_000)
  t.equal((await calling('cwd')).status, 429, 'counts go on')
})

t.test('validate --explain names each value with its place, and what is not enforced', async (t) => {
  const { code, stdout, stderr } = await runProgram(['validate', '--explain', ...flagsOf(manifests)])
  t.equal(code, 0, stderr)
  const at = (path: string, part: string): string => {
    const lines = readFileSync(path, 'utf8').split('\n')
    return `${basename(path)}:${lines.findIndex((each) => each.includes(part)) + 1}:`
  }
  const line = (what: string | RegExp, where: string): void => {
    const found = stdout
      .split('\n')
      .some(
        (each) => (typeof what === 'string' ? each.includes(what) : what.test(each)) && each.includes(where),
      )
    t.ok(found, `${what} from ${where}`, { stdout })
  }
  const { gateway, server, route } = manifests
  line('gateway defaults', at(gateway, 'jwt:'))
  line(`jwksURI: ${issuer}/keys`, at(gateway, 'jwksURI'))
  line('MCPRoute team-a/main', at(route, 'apiKey:'))
  line('x-team-key', at(route, 'X-Team-Key'))
  line('user:alice', at(route, 'user:alice'))
  line('2 in 1d per user', at(route, 'unit: day'))
  line('2 in 1h per tool', at(gateway, 'unit: hour'))
  line('echo', at(server, 'toolsFilter'))
  line('only the capabilities tools', at(server, 'capabilities'))
  const rest = stdout.slice(stdout.indexOf('not enforced here'))
  t.match(rest, /replicas/)
  t.match(rest, /weights/)
  for (const secret of [keys.ci, keys.nightly, 'the token of the backend']) t.notMatch(stdout, secret)
})

/** A document, what of it is changed into what, the path that is named, and what stands at the place that is named. */
const wrong: Record<
  string,
  readonly [document: keyof typeof manifests, from: string, to: string, path: string, there: string]
> = {
  'an unknown field of a rate limit': [
    'route',
    'unit: day }',
    'unit: day, burst: 5 }',
    'spec.rateLimit.limits[0]',
    'burst: 5',
  ],
  'an unknown field of a rule': [
    'route',
    "- principals: ['user:alice']",
    "- deny: true\n      principals: ['user:alice']",
    'spec.authorization.rules[0]',
    'deny: true',
  ],
  'an unknown field of a permission': [
    'gateway',
    'hang], actions',
    'hang], toolz: [x], actions',
    'defaultAuthorization.rules[0].permissions[0]',
    'toolz:',
  ],
  'an unknown block of authentication': [
    'gateway',
    '  jwt: {',
    '  ldap: { url: x }\n  jwt: {',
    'defaultAuthentication',
    'ldap:',
  ],
  'an unknown field of a profile': [
    'server',
    'transport: stdio',
    'transport: stdio\n  permissionProfile: { inline: { deny: [] } }',
    'spec.permissionProfile.inline',
    'deny:',
  ],
  'a dimension that there is not': [
    'gateway',
    'dimension: tool',
    'dimension: city',
    'defaultRateLimit.limits[0].dimension',
    'city',
  ],
  'an action that there is not': [
    'route',
    'actions: [tools/call] }',
    'actions: [write] }',
    'spec.authorization.rules[1].permissions[0].actions[0]',
    'write]',
  ],
  'a secret that is not there': [
    'route',
    '- { name: api-keys, key: nightly }',
    '- { name: api-keys, key: weekly }',
    'api-keys/weekly',
    '{ name: api-keys, key: weekly }',
  ],
  'several replicas of a stdio server': ['server', 'replicas: 1', 'replicas: 2', 'spec.hosted.replicas', '2'],
  'a route to another server': ['route', 'name: scripted', 'name: other', 'backendRefs', '[{ serverRef'],
}

t.test('what cannot be enforced as it is written is refused, with file, line, column and path', async (t) => {
  await Promise.all(
    Object.entries(wrong).map(async ([what, [document, from, to, path, there]], index) => {
      const text = readFileSync(manifests[document], 'utf8')
      t.ok(text.includes(from), `${what}: it is there to be changed`)
      const changed = file(`wrong-${index}/${document}.yaml`, text.replace(from, to))
      const { code, stderr } = await runProgram([
        'validate',
        ...flagsOf({ ...manifests, [document]: changed }),
      ])
      t.equal(code, 2, what)
      const [, line, column] =
        new RegExp(`wrong-${index}/${document}\\.yaml:(\\d+):(\\d+): `).exec(stderr) ?? []
      const found = readFileSync(changed, 'utf8')
        .split('\n')
        [Number(line) - 1]?.slice(Number(column) - 1)
      t.ok(found?.startsWith(there), `${what}: its place`, { stderr, found })
      t.ok(stderr.includes(path), `${what}: its path`, { stderr })
    }),
  )
})

t.test('a route without the authentication that the gateway demands is refused', async (t) => {
  const gateway = file('open/gateway.yaml', 'routeConstraints: { requireAuthentication: true }\n')
  const bare = routeText.replace(/ {2}authentication:[\s\S]*?(?= {2}authorization:)/, '')
  const route = file('open/route.yaml', bare)
  const settings = file('open/config.yaml', `secretsDir: ${secretsDir}\n`)
  const files = [gateway, manifests.server, route].flatMap((path) => ['--manifest', path])
  const { code, stderr } = await runProgram(['validate', '--config', settings, ...files])
  t.equal(code, 2)
  t.match(stderr, /open\/gateway\.yaml:1:\d+: authentication is required here/)
})

t.test('the documents of the API are accepted as they are', async (t) => {
  const fixture = (name: string): string => fileURLToPath(new URL(`../fixtures/ome/${name}`, import.meta.url))
  for (const [name, text] of Object.entries({
    'oidc-client/client-secret': 'the secret of the client',
    'github-token/token': 'a token',
    'api-keys/ci': keys.ci,
    'api-keys/nightly': keys.nightly,
  }))
    file(`examples/${name}`, text)
  const files = ['gateway.yaml', 'server.yaml', 'route.yaml'].flatMap((name) => ['--manifest', fixture(name)])
  const settings = file('examples.yaml', `secretsDir: ${join(folder, 'examples')}\n`)
  const { code, stdout, stderr } = await runProgram(['validate', '--explain', '--config', settings, ...files])
  t.equal(code, 0, stderr)
  t.match(stdout, /permissions: profile MCPServer/)
  t.match(stdout, /kube-not-enforced/)
  for (const name of ['gateway', 'server', 'route'])
    t.match(stdout, new RegExp(`${name}\\.yaml:\\d+:\\d+`), name)
})
