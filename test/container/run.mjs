/**
 * Builds the image and runs it as a careful operator would: `npm run test:container`.
 *
 * Needs root and a Debian machine, but no image registry and no docker. All it keeps lies in one directory (see
 * podman.mjs). The containers have no network but their own loopback, so the client runs inside them.
 */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parse } from 'yaml'
import { baseImage } from './base-image.mjs'
import {
  inside,
  processes,
  processesOnHost,
  ready,
  removeContainers,
  runToEnd,
  start,
} from './containers.mjs'
import { noEscape } from './escape.mjs'
import { build, forget, installPrograms, must, mustPodman, podman, work } from './podman.mjs'
import { profileHolds } from './profile.mjs'

const project = fileURLToPath(new URL('../..', import.meta.url))
const compose = join(project, 'deploy/compose')
const client = readFileSync(new URL('client.mjs', import.meta.url), 'utf8')
const image = `localhost/mcp-sidecar:test-${process.pid}`
const serviceImage = `localhost/mcp-sidecar-filesystem:test-${process.pid}`

let passed = 0
let failed = 0

async function check(sentence, behaves) {
  try {
    await behaves()
    passed += 1
    console.log(`ok - ${sentence}`)
  } catch (error) {
    failed += 1
    console.log(`not ok - ${sentence}\n${String(error.stack).replace(/^/gm, '    ')}`)
  }
}

async function checkFiles() {
  await check('the entry point is clean for shellcheck', () =>
    must('shellcheck', [join(project, 'entrypoint.sh')]),
  )
  await check('the compose file is valid for docker-compose', () =>
    must('docker-compose', ['-f', join(compose, 'compose.yaml'), 'config', '--quiet']),
  )
}

async function checkImage() {
  await check('the image runs as 65532, has a health check and says which ports it uses', async () => {
    const [{ Config: config, Healthcheck: health }] = JSON.parse(
      await mustPodman(['image', 'inspect', image]),
    )
    assert.equal(config.User, '65532:65532')
    assert.deepEqual(config.Entrypoint, ['/app/entrypoint.sh'])
    assert.deepEqual(Object.keys(config.ExposedPorts), ['8080/tcp', '9090/tcp'])
    assert.equal(health.Test[0], 'CMD')
  })

  await check(
    'it holds the program and its production dependencies, all of it read-only for 65532',
    async () => {
      const list =
        'ls -A /app; ls -A /app/node_modules; find /app -not -user root -or -perm /022 -not -type l'
      const { code, stdout } = await runToEnd(image, ['--entrypoint', 'sh'], ['-c', list])
      assert.equal(code, 0)
      const names = stdout.trim().split('\n')
      assert.deepEqual(names.splice(0, 5), [
        'LICENSE',
        'dist',
        'entrypoint.sh',
        'node_modules',
        'package.json',
      ])
      const { dependencies, devDependencies } = JSON.parse(
        readFileSync(join(project, 'package.json'), 'utf8'),
      )
      // Of a scoped package its folder is the scope.
      const folders = (packages) => new Set(Object.keys(packages).map((name) => name.split('/', 1)[0]))
      for (const name of folders(dependencies)) assert.ok(names.includes(name), `${name} is missing`)
      for (const name of folders(devDependencies)) assert.ok(!names.includes(name), `${name} is there`)
      assert.deepEqual(
        names.filter((name) => name.startsWith('/')),
        [],
      )
    },
  )
}

async function checkLauncher() {
  await check(
    'it holds the launcher, which is static, and nothing of its tests or its compiler',
    async () => {
      const look =
        'cd /app/dist/launcher && stat -c "%n %U %a" * && ./mcp-sidecar-launcher --version && command -v cc gcc'
      const { stdout } = await runToEnd(image, ['--entrypoint', 'sh'], ['-c', look])
      const [file, version, ...more] = stdout.trim().split('\n')
      assert.equal(file, 'mcp-sidecar-launcher root 755')
      assert.match(version, /\d/)
      assert.deepEqual(more, [])
    },
  )

  await check('doctor needs no configuration and finds that everything can be enforced', async () => {
    const { code, stdout, stderr } = await runToEnd(image, [], ['doctor', '--permissions', 'network'])
    assert.equal(code, 0, stderr)
    assert.match(stdout, /\benforced\b/)
    assert.doesNotMatch(stdout, /weakened|refused/)
  })
}

async function checkSettings() {
  await check('without a command it says how to give one and exits with 64', async () => {
    const { code, stderr } = await runToEnd(image, [], [])
    assert.equal(code, 64)
    assert.match(stderr, /no command given/)
    assert.match(stderr, /MCP_SIDECAR_COMMAND/)
  })

  await check('flags without a command are refused, too', async () => {
    const { code, stderr } = await runToEnd(image, [], ['--auth', 'none'])
    assert.notEqual(code, 0)
    assert.match(stderr, /command/i)
  })

  await check('without authentication it refuses to listen on the address of a container', async () => {
    const { code, stderr } = await runToEnd(image, permissions('none'), ['node', '/srv/server.mjs'])
    assert.notEqual(code, 0)
    assert.match(stderr, /0\.0\.0\.0/)
    assert.match(stderr, /--auth none/)
    assert.doesNotMatch(stderr, /--permissions/)
  })

  await check('without a choice of permissions it refuses, too', async () => {
    const { code, stderr } = await runToEnd(image, [], ['--auth', 'none', '--', 'node', '/srv/server.mjs'])
    assert.notEqual(code, 0)
    assert.match(stderr, /0\.0\.0\.0/)
    assert.match(stderr, /--permissions none/)
    assert.doesNotMatch(stderr, /--auth/)
  })

  await check(
    'it listens on every address, unless there is a configuration file to say where; permissions are asked for either way',
    async () => {
      const validated = async (flags, args) => {
        const { code, stdout, stderr } = await runToEnd(image, flags, ['validate', ...args])
        assert.equal(code, 0, stderr)
        return /^listen\.host +(\S+)/m.exec(stdout)[1]
      }
      const choices = ['--auth', 'none', '--permissions', 'none']
      assert.equal(await validated([], [...choices, '--', 'node', '--config', 'x']), '0.0.0.0')

      const file = join(work, 'config.yaml')
      const text = 'server: { command: [node, server.mjs] }\nlisten: { host: 127.0.0.1 }\nauth: none\n'
      writeFileSync(file, `${text}permissions: none\n`, { mode: 0o644 })
      const mount = ['--volume', `${file}:/etc/config.yaml:ro`]
      const variable = ['--env', 'MCP_SIDECAR_CONFIG=/etc/config.yaml']
      assert.equal(await validated(mount, ['--config', '/etc/config.yaml']), '127.0.0.1')
      assert.equal(await validated(mount, ['--config=/etc/config.yaml']), '127.0.0.1')
      assert.equal(await validated([...mount, ...variable], []), '127.0.0.1')

      writeFileSync(file, text, { mode: 0o644 })
      const { code, stderr } = await runToEnd(image, mount, ['--config', '/etc/config.yaml'])
      assert.notEqual(code, 0)
      assert.match(stderr, /nothing says what the server may touch: choose --permissions none/)
      assert.equal(
        await validated([...mount, ...permissions('none')], ['--config', '/etc/config.yaml']),
        '127.0.0.1',
      )
    },
  )
}

/** The example of deploy/compose, run with podman's flags for what its compose file says. */
async function checkService() {
  const { services, secrets } = parse(readFileSync(join(compose, 'compose.yaml'), 'utf8'))
  const service = services.filesystem
  for (const directory of ['data', 'secrets']) mkdirSync(join(work, directory), { mode: 0o755 })
  writeFileSync(join(work, 'data/greeting.txt'), 'Hello from the volume.\n', { mode: 0o644 })
  writeFileSync(join(work, 'secrets/bearer-tokens'), `alice:${token}\n`, { mode: 0o644 })
  const profile = readFileSync(join(compose, 'permissions.yaml'))
  writeFileSync(join(work, 'permissions.yaml'), profile, { mode: 0o644 })

  const name = await start(serviceImage, flagsOf(service, secrets), service.command ?? [], [])
  await ready(name)
  const onHost = await processesOnHost(name)

  await check('every process is 65532, without capabilities or new privileges, under a filter', async () => {
    const all = await processes(name)
    assert.match(all[0].command, /^tini -s -- node \/app\/dist\/bin\/mcp-sidecar\.js/)
    const [launcher, server] = [
      '/app/dist/launcher/mcp-sidecar-launcher exec -- mcp-server-filesystem /data',
      'node ',
    ]
    assert.ok(all.some(({ command }) => command === launcher))
    assert.ok(
      all.some(
        ({ command }) => command.startsWith(server) && command.endsWith('mcp-server-filesystem /data'),
      ),
    )
    for (const { Uid, Gid, CapEff, CapBnd, NoNewPrivs, Seccomp, command } of all) {
      const ids = [65532, 65532, 65532, 65532].join('\t')
      const none = '0'.repeat(16)
      assert.deepEqual(
        { Uid, Gid, CapEff, CapBnd, NoNewPrivs, Seccomp },
        { Uid: ids, Gid: ids, CapEff: none, CapBnd: none, NoNewPrivs: '1', Seccomp: '2' },
        command,
      )
    }
  })

  await check(
    'the root is read-only, nothing in /tmp can be executed, no user namespace can be made',
    async () => {
      const mounts = (await mustPodman(['exec', name, 'cat', '/proc/mounts']))
        .split('\n')
        .map((line) => line.split(' '))
      const optionsOf = (path) => mounts.find(([, mounted]) => mounted === path)[3].split(',')
      assert.ok(optionsOf('/').includes('ro'))
      assert.ok(optionsOf('/tmp').includes('noexec'))
      assert.match((await podman(['exec', name, 'touch', '/app/x'])).stderr, /Read-only file system/)
      assert.match((await podman(['exec', name, 'touch', '/data/x'])).stderr, /Read-only file system/)
      assert.match((await podman(['exec', name, 'unshare', '-Ur', 'true'])).stderr, /Operation not permitted/)
    },
  )

  await check('a client holds one session with the server: initialize, list, call, delete', async () => {
    const args = ['read_text_file', JSON.stringify({ path: '/data/greeting.txt' }), token]
    const seen = JSON.parse(await inside(name, client, ...args))
    assert.equal(seen.wrongToken, 401)
    assert.equal(seen.server, 'secure-filesystem-server')
    assert.equal(seen.initialized, 202)
    assert.ok(seen.tools.includes('read_text_file'))
    assert.equal(seen.result.content[0].text, 'Hello from the volume.\n')
    assert.ok([200, 204].includes(seen.closed), `DELETE: ${seen.closed}`)
    assert.equal(seen.afterwards, 404)
  })

  await check('its permission profile is enforced, as doctor finds and /readyz says', async () => {
    const found = await mustPodman(['exec', name, '/app/entrypoint.sh', 'doctor'])
    assert.match(found, /\benforced\b/)
    assert.doesNotMatch(found, /weakened|refused/)
    const ready = JSON.parse(
      await inside(name, `console.log(await (await fetch('http://127.0.0.1:9090/readyz')).text())`),
    )
    assert.match(JSON.stringify(ready), /"enforced"/)
  })

  await check('the admin port answers /healthz, /readyz and /metrics', async () => {
    const script = `
      for (const path of ['healthz', 'readyz', 'metrics']) {
        console.log((await fetch('http://127.0.0.1:9090/' + path)).status)
      }`
    assert.equal(await inside(name, script), '200\n200\n200')
  })

  await check('the health check of the compose file succeeds', () => mustPodman(['healthcheck', 'run', name]))

  await check('SIGTERM ends it with exit code 0 within the grace, and no process stays', async () => {
    const begun = Date.now()
    await mustPodman(['kill', '--signal', 'TERM', name])
    const code = await mustPodman(['wait', name])
    assert.equal(code, '0', (await podman(['logs', name])).stderr)
    assert.ok(Date.now() - begun < Number.parseInt(service.stop_grace_period, 10) * 1000)
    assert.deepEqual(onHost(), [])
  })
}

const token = 'token-of-the-container-test-0123456789'

const permissions = (choice) => ['--env', `MCP_SIDECAR_PERMISSIONS=${choice}`]

function flagsOf(service, secrets) {
  const here = (path) => path.replace(/^\.\//, `${work}/`)
  const { healthcheck } = service
  return [
    ...['--user', service.user, `--read-only=${service.read_only === true}`, '--read-only-tmpfs=false'],
    ...(service.tmpfs ?? []).flatMap((mount) => ['--tmpfs', mount]),
    ...(service.cap_drop ?? []).flatMap((capability) => ['--cap-drop', capability]),
    ...(service.security_opt ?? []).flatMap((option) => ['--security-opt', option]),
    ...['--memory', service.mem_limit, '--pids-limit', String(service.pids_limit)],
    ...Object.entries(service.environment).flatMap(([name, value]) => ['--env', `${name}=${value}`]),
    ...service.volumes.flatMap((mount) => ['--volume', here(mount)]),
    ...service.secrets.flatMap((name) => ['--volume', `${here(secrets[name].file)}:/run/secrets/${name}:ro`]),
    // Without its first word, CMD, which podman adds itself.
    ...['--health-cmd', JSON.stringify(healthcheck.test.slice(1)), '--health-timeout', healthcheck.timeout],
    ...['--stop-timeout', String(Number.parseInt(service.stop_grace_period, 10))],
  ]
}

async function checkCommands() {
  const fixture = join(work, 'server')
  mkdirSync(fixture, { mode: 0o755 })
  const manifest = { name: 'where', version: '1.0.0', type: 'module', bin: { where: 'server.mjs' } }
  writeFileSync(join(fixture, 'package.json'), JSON.stringify(manifest))
  writeFileSync(join(fixture, 'server.mjs'), readFileSync(new URL('server.mjs', import.meta.url)), {
    mode: 0o755,
  })
  await must('npm', ['pack', '--silent'], { cwd: fixture })
  const mount = ['--volume', `${fixture}:/srv:ro`]
  // Programs of npm and the fixture look at more than a profile would name; what profiles do has a check of its own.
  const open = ['--env', 'MCP_SIDECAR_AUTH=none', ...permissions('full-access')]

  /** The fixture's tool says where it runs: the same place, however it was started. */
  const answers = async (name) => {
    await ready(name)
    const { result } = JSON.parse(await inside(name, client, 'where', '{}'))
    assert.deepEqual(JSON.parse(result.content[0].text), { home: '/tmp', directory: '/tmp', user: 'sidecar' })
  }

  await check('npx as a bare command works with nothing writable but /tmp', async () => {
    const flags = [...mount, ...open, '--tmpfs', '/tmp:exec,mode=1777']
    await answers(await start(image, flags, ['npx', '-y', 'file:/srv/where-1.0.0.tgz']))
  })

  await check(
    'flags and a command behind -- work with nothing writable, and the health check of the image succeeds',
    async () => {
      const choices = ['--auth', 'none', '--permissions', 'full-access']
      const name = await start(image, mount, [...choices, '--', 'node', '/srv/server.mjs'])
      await answers(name)
      await mustPodman(['healthcheck', 'run', name])
    },
  )

  await check(
    'MCP_SIDECAR_COMMAND gives the command, and what Kubernetes sets for a Service does no harm',
    async () => {
      const variables = [
        'MCP_SIDECAR_COMMAND=["node", "/srv/server.mjs"]',
        'MCP_SIDECAR_PORT=tcp://10.0.0.1:8080',
        'MCP_SIDECAR_PORT_8080_TCP=tcp://10.0.0.1:8080',
        'MCP_SIDECAR_PORT_8080_TCP_ADDR=10.0.0.1',
        'MCP_SIDECAR_SERVICE_HOST=10.0.0.1',
        'MCP_SIDECAR_SERVICE_PORT=8080',
        'MCP_SIDECAR_ADMIN_PORT=tcp://10.0.0.2:9090',
        'MCP_SIDECAR_ADMIN_SERVICE_HOST=10.0.0.2',
      ]
      const flags = [...mount, ...open, ...variables.flatMap((variable) => ['--env', variable])]
      await answers(await start(image, flags, []))
    },
  )

  await check('a profile holds: the server gets what it names, and no other file or address', () =>
    profileHolds(image, mount),
  )

  for (const user of ['65532:65532', '0:0'])
    await check(`a server cannot leave its sandbox, as ${user}`, () => noEscape(image, user))

  await check('learn writes the profile of a server, which names what it read', async () => {
    const args = ['--auth', 'none', '--for', '7s', '--', 'node', '/srv/server.mjs']
    const { code, stdout, stderr } = await runToEnd(image, mount, ['learn', ...args])
    assert.equal(code, 0, stderr)
    const { filesystem, network } = parse(stdout).permissionProfile
    assert.match(JSON.stringify(filesystem.read), /"\/srv[/"]/)
    assert.equal(network, undefined)
  })

  await check(
    'orphans of the server are reaped, and SIGKILL of the sidecar leaves no process behind',
    async () => {
      const orphans = 'for n in 1 2 3; do (sleep 1 &); done; exec node /srv/server.mjs'
      const name = await start(image, [...mount, ...open], ['sh', '-c', orphans])
      await ready(name)
      const onHost = await processesOnHost(name)
      const isOrphan = ({ State, command }) => State.startsWith('Z') || command.startsWith('sleep')
      let all = await processes(name)
      // One that has just ended may be seen before it is reaped.
      for (const end = Date.now() + 20_000; all.some(isOrphan) && Date.now() < end; )
        all = await processes(name)
      assert.deepEqual(all.filter(isOrphan), [])
      const sidecar = all.find(({ PPid, command }) => PPid === '1' && command.includes('/mcp-sidecar.js'))
      // The container is gone before this command can return.
      await podman(['exec', name, 'node', '-e', `process.kill(${sidecar.Pid}, 'SIGKILL')`])
      assert.equal(await mustPodman(['wait', name]), '137')
      assert.deepEqual(onHost(), [])
    },
  )
}

async function main() {
  if (process.getuid() !== 0)
    throw new Error('this test needs root: it makes a root file system with debootstrap')
  await installPrograms({
    podman: 'podman',
    runc: 'runc',
    '/usr/lib/podman/netavark': 'netavark',
    debootstrap: 'debootstrap',
    shellcheck: 'shellcheck',
    'docker-compose': 'docker-compose',
  })
  const NODE_IMAGE = await baseImage()
  console.log('# building the image')
  await build(image, project, { NODE_IMAGE })
  await build(serviceImage, compose, { SIDECAR_IMAGE: image })

  await checkFiles()
  await checkImage()
  await checkLauncher()
  await checkSettings()
  await checkService()
  await checkCommands()
}

async function cleanUp() {
  await removeContainers()
  await forget([image, serviceImage])
  rmSync(work, { recursive: true, force: true })
}

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, async () => {
    await cleanUp()
    process.exit(1)
  })
}
try {
  await main()
} catch (error) {
  failed += 1
  console.log(`not ok - ${error.stack}`)
} finally {
  await cleanUp()
}
console.log(`${passed} passed, ${failed} failed`)
process.exit(failed === 0 ? 0 : 1)
