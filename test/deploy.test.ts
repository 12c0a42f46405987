/** The Kubernetes example is one whole: its configuration loads, and its containers agree on paths, users and ports. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { parseAllDocuments } from 'yaml'
import { loadConfig } from '../src/config/load.ts'
import { checkWorld } from '../src/world.ts'

const file = fileURLToPath(new URL('../deploy/kubernetes/serve.yaml', import.meta.url))
const documents = parseAllDocuments(readFileSync(file, 'utf8'))
// biome-ignore lint/suspicious/noExplicitAny: what Kubernetes reads, of any shape
type Json = any
const of = (kind: string): Json => documents.map((each) => each.toJS()).find((each) => each.kind === kind)

const pod = of('Deployment').spec.template.spec
const container = (name: string): Json =>
  [...pod.initContainers, ...pod.containers].find((each) => each.name === name)
const [init, sidecar, server] = ['launcher', 'mcp-sidecar', 'mcp-server'].map(container)

/** The volume that a path of a container lies in, and whether it may be written. */
function volumeAt(which: Json, path: string): { name: string; writable: boolean } | undefined {
  const mounts: Json[] = which.volumeMounts.filter(({ mountPath }: Json) => path.startsWith(`${mountPath}/`))
  const [mount] = mounts.sort((a, b) => b.mountPath.length - a.mountPath.length)
  return mount && { name: mount.name, writable: mount.readOnly !== true }
}

const option = (name: string): string => server.command[server.command.indexOf(name) + 1]

t.test('every document of it is valid YAML', async (t) => {
  t.ok(documents.length >= 3)
  t.strictSame(
    documents.flatMap(({ errors, warnings }) => [...errors, ...warnings]),
    [],
  )
})

t.test('the configuration is one that the sidecar starts with', async (t) => {
  const folder = t.testdir()
  const text: string = of('ConfigMap').data['config.yaml']
  const [, tokens] = /tokenFile: (.*)/.exec(text) as unknown as [string, string]
  const own = join(folder, 'tokens')
  mkdirSync(own)
  writeFileSync(join(own, 'bearer-tokens'), 'alice:0123456789abcdef0123\n', { mode: 0o600 })
  const config = join(folder, 'config.yaml')
  writeFileSync(config, text.replace(tokens, join(own, 'bearer-tokens')))
  const loaded = await loadConfig({ flags: { config }, env: {}, cwd: folder, command: [] })
  await t.resolves(checkWorld(loaded.config))
  t.equal(loaded.config.server.socket, option('--socket'), 'both mean the same socket')
  const names = server.env.map(({ name }: Json) => name)
  t.ok(
    names.every((name: string) => loaded.config.server.envAllow.includes(name)),
    'the server gets what its container has for it',
  )
  t.equal(loaded.config.permissions?.network.mode, 'allowlist')
  t.strictSame(volumeAt(sidecar, tokens), { name: 'tokens', writable: false })
  const [flag, path] = sidecar.args
  t.equal(flag, '--config')
  t.strictSame(volumeAt(sidecar, path), { name: 'config', writable: false })
  const { listen, admin } = loaded.config
  const ports = Object.fromEntries(sidecar.ports.map((each: Json) => [each.name, each.containerPort]))
  t.strictSame(ports, { mcp: listen.port, admin: admin.port })
  t.equal(of('Service').spec.ports[0].targetPort, 'mcp')
})

t.test('the launcher and the socket are where both sides look for them', async (t) => {
  const [program, mode] = server.command
  const [, , script] = init.command
  t.equal(mode, 'serve')
  t.strictSame(volumeAt(server, program), { name: 'launcher', writable: false })
  t.match(script, `/app/dist/launcher/mcp-sidecar-launcher ${program}\n`, 'it is copied there')
  t.strictSame(volumeAt(init, program), { name: 'launcher', writable: true })
  const socket = option('--socket')
  for (const which of [init, sidecar, server])
    t.strictSame(volumeAt(which, socket), { name: 'sockets', writable: true }, which.name)
  t.match(script, `install -d -m 2770 ${dirname(socket)}\n`, 'its folder is closed to others')
  t.strictSame(
    [init, sidecar, server].flatMap(({ volumeMounts }) => volumeMounts.map(({ name }: Json) => name)).sort(),
    ['config', 'launcher', 'launcher', 'sockets', 'sockets', 'sockets', 'tmp', 'tokens'],
  )
  for (const { name } of pod.volumes)
    t.ok(
      [init, sidecar, server].some((which) => which.volumeMounts.some((mount: Json) => mount.name === name)),
      `${name} is mounted`,
    )
})

t.test('nothing has more rights than it needs', async (t) => {
  const { securityContext } = pod
  t.match(securityContext, { runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } })
  t.equal(securityContext.fsGroup, securityContext.runAsGroup)
  t.equal(pod.automountServiceAccountToken, false)
  t.notOk(pod.shareProcessNamespace, 'a peer with a pid is one of the server’s own container')
  for (const which of [init, sidecar, server])
    t.strictSame(which.securityContext, {
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    })
  t.equal(option('--require'), 'landlock,seccomp,broker')
  const { seconds } = server.lifecycle.preStop.sleep
  t.ok(seconds > 10 && seconds < pod.terminationGracePeriodSeconds, 'the sidecar answers first')
})
