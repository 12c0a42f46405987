import { execFileSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer as createHttpsServer } from 'node:https'
import { type AddressInfo, createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { maskedBuild } from '../escape/build.ts'
import { type Call, client, type Place, placeFor, run, start, uids } from '../support/learning.ts'
import { authority } from '../support/pki.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const filesystemServer = join(root, 'node_modules/@modelcontextprotocol/server-filesystem/dist/index.js')
const connectingServer = join(root, 'test/fixtures/learn/connecting-server.mjs')
const ports = ['--port', '0', '--admin-port', '0']
const unusable = ['dist/bin/mcp-sidecar.js', 'dist/launcher/mcp-sidecar-launcher'].find(
  (file) => !existsSync(join(root, file)),
)
const skip = unusable === undefined ? {} : { skip: `${unusable} was not built (npm run build)` }

function file(place: Place, path: string, text: string): string {
  writeFileSync(path, text)
  return place.own(path)
}

function folder(place: Place, name: string): string {
  const path = join(place.folder, name)
  mkdirSync(path)
  return place.own(path)
}

/** Learns from a session, then gives the profile and what was said about it. */
async function learned(
  t: Test,
  place: Place,
  server: readonly string[],
  session: (call: Call) => Promise<void>,
  names: Readonly<Record<string, readonly string[]>> = {},
): Promise<{ readonly profile: string; readonly text: string; readonly said: string }> {
  const profile = join(place.folder, 'profile.yaml')
  const learning = await start(t, place, ['learn', '--output', profile, ...ports, '--', ...server], { names })
  await session(await client(learning.url))
  const { code, stdout } = await learning.stop()
  t.equal(code, 0, `it ends well: ${learning.stderr()}`)
  t.equal(stdout, '', 'nothing goes to standard output')
  return { profile, text: readFileSync(profile, 'utf8'), said: learning.stderr() }
}

for (const uid of uids) {
  t.test(
    `what server-filesystem does in a session it may do under the profile, as uid ${uid}`,
    skip,
    async (t) => {
      const place = placeFor(t, uid)
      const own = folder(place, 'own')
      const sibling = folder(place, 'sibling')
      file(place, join(own, 'note.txt'), 'a note')
      file(place, join(sibling, 'other.txt'), 'not yours')
      const server = [process.execPath, filesystemServer, own, sibling]
      const session = async (call: Call): Promise<void> => {
        t.match(await call('list_directory', { path: own }), 'note.txt')
        t.match(await call('read_text_file', { path: join(own, 'note.txt') }), /a note|changed/)
        t.match(await call('write_file', { path: join(own, 'new.txt'), content: 'new' }), 'Successfully')
        t.match(await call('write_file', { path: join(own, 'note.txt'), content: 'changed' }), 'Successfully')
        t.match(await call('create_directory', { path: join(own, 'deep') }), 'Successfully')
      }
      const { profile, text, said } = await learned(t, place, server, session)
      t.match(text, `    write:\n      # `)
      t.match(text, `\n      - ${own}\n`)
      t.match(text, `{ path: ${join(root, 'node_modules')}, execute: false }`)
      t.notMatch(text.split('permissionProfile:')[1], sibling, 'the sibling was not used')
      t.match(text, '# No network')
      t.match(said, `--permissions ${profile} -- ${process.execPath}`)

      const confined = await start(t, place, [...ports, '--permissions', profile, '--', ...server])
      const call = await client(confined.url)
      await session(call)
      t.match(await call('read_text_file', { path: join(sibling, 'other.txt') }), /^error: .*EACCES/)
      t.match(await call('list_directory', { path: sibling }), /^error: .*EACCES/)
      t.match(await call('write_file', { path: join(sibling, 'x'), content: '' }), /^error: .*EACCES/)
      await confined.stop()
    },
  )

  t.test(`where a server connects it may connect under the profile, as uid ${uid}`, skip, async (t) => {
    const place = placeFor(t, uid)
    const own = file(place, join(folder(place, 'own'), 'settings.json'), '{}')
    const secret = file(place, join(place.folder, 'secret.txt'), 'secret')
    const database = await greeter(t, '127.0.0.2', 'database')
    const otherPort = await greeter(t, '127.0.0.2', 'other port')
    const otherHost = await greeter(t, '127.0.0.3', 'other host', database)
    t.equal(otherHost, database)
    const names = { 'db.test': ['127.0.0.2'], 'other.test': ['127.0.0.3'] }
    const server = [process.execPath, connectingServer]
    const session = async (call: Call): Promise<void> => {
      t.equal(await call('connect', { host: 'db.test', port: database }), 'database')
      t.equal(await call('read', { path: own }), '{}')
      t.equal(await call('read', { path: join(place.folder, 'missing.txt') }), 'ENOENT')
      t.equal(await call('listen', { port: 0 }), 'EACCES')
      t.equal(await call('connect', { host: 'nowhere.test', port: database }), 'ENOTFOUND')
    }
    const { profile, text } = await learned(t, place, server, session, names)
    t.match(text, '      - db.test\n')
    t.match(text, '      - 127.0.0.2/32\n')
    t.match(text, `      - ${database}\n`)
    t.match(text, `{ path: ${own}, execute: false }`)
    t.notMatch(text, 'missing.txt', 'what is not there needs no grant')
    t.notMatch(text, 'nowhere.test', 'nor does a name that nobody has')
    t.match(text, 'it tried to listen')

    const confined = await start(t, place, [...ports, '--permissions', profile, '--', ...server], { names })
    const call = await client(confined.url)
    t.equal(await call('connect', { host: 'db.test', port: database }), 'database')
    t.equal(await call('read', { path: own }), '{}')
    t.equal(await call('connect', { host: 'db.test', port: otherPort }), 'EACCES')
    t.equal(await call('connect', { host: 'other.test', port: database }), 'ENOTFOUND')
    t.equal(await call('connect', { host: '127.0.0.3', port: database }), 'EACCES')
    t.equal(await call('read', { path: secret }), 'EACCES')
    await confined.stop()
  })

  t.test(`a host that is fetched from by name over TLS is learned, as uid ${uid}`, skip, async (t) => {
    const place = placeFor(t, uid)
    const root = authority('Learn Test CA')
    const ca = file(place, join(folder(place, 'own'), 'ca.pem'), root.certificate)
    const site = (names: string): Server => {
      const { chain, key } = root.issue({ cn: names, dns: [names], usage: 'server' })
      return createHttpsServer({ cert: chain, key }, (request, response) =>
        response.end(`${request.headers.host} over TLS`),
      )
    }
    const port = await listening(t, site('allowed.test'), '127.0.0.2')
    await listening(t, site('other.test'), '127.0.0.3', port)
    const names = { 'allowed.test': ['127.0.0.2'], 'other.test': ['127.0.0.3'] }
    const server = [process.execPath, connectingServer]
    const [url, other] = ['allowed.test', 'other.test'].map((name) => `https://${name}:${port}/`)
    const session = async (call: Call): Promise<void> => {
      t.equal(await call('fetch', { url, ca }), `allowed.test:${port} over TLS`)
    }
    const { profile, text } = await learned(t, place, server, session, names)
    t.match(text, `    allowHost:\n      # 1 connection to port ${port}\n      - allowed.test\n`)
    t.match(text, `    allowPort:\n      # allowed.test\n      - ${port}\n`)
    t.notMatch(text, 'other.test')
    t.match(text, `run by uid ${uid}`)

    const confined = await start(t, place, [...ports, '--permissions', profile, '--', ...server], { names })
    const call = await client(confined.url)
    await session(call)
    t.equal(await call('fetch', { url: other, ca }), 'ENOTFOUND')
    t.equal(await call('fetch', { url: `https://127.0.0.3:${port}/`, ca }), 'EACCES')
    await confined.stop()
  })
}

/** Says its name to whoever connects, and its port to the test. */
async function greeter(t: Test, host: string, name: string, port = 0): Promise<number> {
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.end(name)
  })
  return await listening(t, server, host, port)
}

async function listening(t: Test, server: Server, host: string, port = 0): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen({ host, port }, resolve)
  })
  t.teardown(() => new Promise((resolve) => server.close(resolve)))
  return (server.address() as AddressInfo).port
}

t.test(
  'without an output file the profile goes to standard output, after the time that was given',
  skip,
  async (t) => {
    const place = placeFor(t, uids[0] as number)
    const args = ['learn', '--for', '500ms', ...ports, '--', process.execPath, connectingServer]
    const { code, stdout, stderr } = await run(place, args)
    t.equal(code, 0, stderr)
    t.match(stdout, /^# Learned by mcp-sidecar/)
    t.match(stdout, '\npermissionProfile:\n')
    t.match(stderr, 'Learned: ')
  },
)

t.test('a signal before that time ends it at once', skip, async (t) => {
  const place = placeFor(t, uids[0] as number)
  const args = ['learn', '--for', '10m', ...ports, '--', process.execPath, connectingServer]
  const { stop } = await start(t, place, args)
  // The test's own time is over long before those ten minutes.
  t.match(await stop(), { code: 0, stdout: /permissionProfile:/ })
})

t.test('a file is replaced only by force, and that is known before the session', skip, async (t) => {
  const place = placeFor(t, uids[0] as number)
  const output = file(place, join(place.folder, 'profile.yaml'), 'mine')
  const args = ['learn', '--for', '300ms', '--output', output, ...ports]
  const server = ['--', process.execPath, connectingServer]
  const refused = await run(place, [...args, ...server])
  t.match(refused, { code: 1, stderr: /profile\.yaml exists; --force replaces it/ })
  t.notMatch(refused.stderr, 'Learning', 'nothing was started')
  t.equal(readFileSync(output, 'utf8'), 'mine')
  const forced = await run(place, [...args, '--force', ...server])
  t.equal(forced.code, 0, forced.stderr)
  t.match(readFileSync(output, 'utf8'), 'permissionProfile:')
})

t.test('a server that never answered is told from one that needs little', skip, async (t) => {
  const place = placeFor(t, uids[0] as number)
  const args = ['learn', '--for', '300ms', ...ports, '--', process.execPath, '-e', 'process.exit(3)']
  const { code, stdout, stderr } = await run(place, args)
  t.equal(code, 0, stderr)
  t.match(stderr, 'the server did not answer when the session ended')
  t.match(stdout, 'the server did not answer when the session ended', 'the profile says so, too')
})

t.test('what makes no sense is refused with what would', skip, async (t) => {
  const place = placeFor(t, uids[0] as number)
  const refusals: readonly (readonly [readonly string[], RegExp])[] = [
    [['--permissions', 'none'], /takes none/],
    [['--for', '5'], /--for: 5 has no unit/],
    [['--output', join(place.folder, 'none', 'x.yaml')], /there is no folder/],
  ]
  for (const [flags, reason] of refusals) {
    const refused = await run(place, ['learn', ...flags, ...ports, '--', process.execPath, connectingServer])
    t.match(refused, { code: 1, stderr: reason }, flags.join(' '))
  }
})

t.test(
  'where something else listens to system calls, it is said that files cannot be watched',
  skip,
  async (t) => {
    const place = placeFor(t, uids[0] as number)
    const below = join(place.folder, 'outer-listener')
    const cc = process.env['CC'] || 'cc'
    execFileSync(cc, ['-O1', '-o', below, join(root, 'test/fixtures/learn/outer-listener.c')])
    const args = ['learn', '--for', '300ms', ...ports, '--', process.execPath, connectingServer]
    const refused = await run(place, args, { below })
    t.match(refused, { code: 1, stdout: '', stderr: /cannot be watched here: broker: another listener/ })
    const plain = await run(place, args)
    t.equal(plain.code, 0, 'without it the same works')
  },
)

t.test(
  'where the kernel lets nobody watch a process, learning is refused with a way out',
  skip,
  async (t) => {
    const place = placeFor(t, uids[0] as number)
    const output = join(place.folder, 'profile.yaml')
    const program = maskedBuild(join(root, 'dist'), join(place.folder, 'masked'), 'test.no-notify 1')
    chmodSync(place.folder, 0o755)
    const args = ['learn', '--for', '300ms', '--output', output, ...ports, '--']
    const refused = await run(place, [...args, process.execPath, connectingServer], { program })
    t.match(refused, {
      code: 1,
      stderr:
        /cannot be watched here: broker: this kernel has no seccomp user notification; learn on Linux 5\.9/,
    })
    t.notOk(existsSync(output), 'no profile that misses what was not seen')
  },
)

t.test('the profile is safe from the server that it is for', skip, async (t) => {
  const place = placeFor(t, uids[0] as number)
  const own = folder(place, 'own')
  const profile = join(own, 'profile.yaml')
  const server = [process.execPath, filesystemServer, own]
  const learning = await start(t, place, ['learn', '--output', profile, ...ports, '--', ...server])
  const call = await client(learning.url)
  t.match(await call('write_file', { path: join(own, 'new.txt'), content: 'new' }), 'Successfully')
  await learning.stop()
  const text = readFileSync(profile, 'utf8')
  t.notMatch(text, `      - ${own}\n`, 'its folder is not granted as a whole')
  t.match(text, `{ path: ${join(own, 'new.txt')}, optional: true }`)
  const confined = await start(t, place, [...ports, '--permissions', profile, '--', ...server])
  const again = await client(confined.url)
  t.match(await again('read_text_file', { path: profile }), /^error: .*EACCES/)
  await confined.stop()
})
