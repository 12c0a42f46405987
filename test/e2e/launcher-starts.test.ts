/** Where the launcher cannot be started, or not do its work, and what a start says then. */
import { execFileSync, spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { built, copiedBuild } from '../escape/build.ts'
import { missing } from '../escape/sidecar.ts'
import { client, type Place, placeFor, run, start, uids } from '../support/learning.ts'

const reason = missing()
const skip = reason === undefined ? {} : { skip: reason }
const root = fileURLToPath(new URL('../..', import.meta.url))
const dist = join(built, '..', '..')
const ports = ['--port', '0', '--admin-port', '0']
const server = ['--', process.execPath, join(root, 'test/fixtures/learn/connecting-server.mjs')]

/** A program that runs its arguments after a step of its own. */
function before(place: Place, name: string, steps: string): string {
  const path = join(place.folder, name)
  writeFileSync(path, `#!/bin/sh\nset -e\n${steps}\n`, { mode: 0o755 })
  return place.own(path)
}

const mounts = process.getuid?.() === 0 && spawnSync('unshare', ['-m', 'true']).status === 0
const mountable = mounts ? skip : { skip: 'nobody may mount here' }

/**
 * Puts a copy of what was built on a file system of its own, and goes on there as a user.
 *
 * @param options of mount(8), once everything lies on it
 */
function onFileSystem(place: Place, options: string): { readonly below: string; readonly program: string } {
  const [copy, mounted] = [join(place.folder, 'copy'), join(place.folder, 'mounted')]
  copiedBuild(dist, copy)
  mkdirSync(mounted)
  const inside = `set -e; mount -t tmpfs none ${mounted} && cp -a ${copy}/. ${mounted}/ && mount -o remount,${options} ${mounted}
    exec setpriv --reuid ${place.uid} --regid ${place.uid} --clear-groups "$@"`
  const below = before(place, 'below', `exec unshare -m sh -c '${inside}' sh "$@"`)
  return { below, program: join(mounted, 'dist/bin/mcp-sidecar.js') }
}

for (const uid of uids) {
  t.test(`a launcher that may not be executed is a refusal, as uid ${uid}`, skip, async (t) => {
    const place = placeFor(t, uid)
    const program = copiedBuild(dist, join(place.folder, 'copy'))
    chmodSync(join(place.folder, 'copy/dist/launcher/mcp-sidecar-launcher'), 0o644)
    for (const profile of ['none', 'network', 'full-access']) {
      const { code, stdout, stderr } = await run(place, [...ports, '--permissions', profile, ...server], {
        program,
      })
      t.equal(code, 1, profile)
      t.match(stderr, /launcher \S+ cannot be started: it may not be executed .*noexec/, profile)
      t.match(stderr, /put it where programs may run/)
      t.notMatch(stdout, '"listening"')
    }
  })

  t.test(`on a file system without programs it is refused, as uid ${uid}`, mountable, async (t) => {
    const place = placeFor(t, 0)
    const there = onFileSystem({ ...place, uid }, 'noexec')
    const { code, stdout, stderr } = await run(place, [...ports, '--permissions', 'none', ...server], there)
    t.equal(code, 1)
    t.match(stderr, /launcher \S+\/mounted\/\S+ cannot be started: it may not be executed .*noexec/)
    t.notMatch(stdout, '"listening"')
  })

  t.test(`on a file system that nobody may write it works, as uid ${uid}`, mountable, async (t) => {
    const place = placeFor(t, 0)
    const there = onFileSystem({ ...place, uid }, 'ro')
    const { url } = await start(t, place, [...ports, '--permissions', 'none', ...server], there)
    const call = await client(url)
    t.equal(await call('read', { path: '/etc/passwd' }), 'EACCES')
  })

  t.test(
    `below another listener of system calls it is refused, and goes on with rules by port alone, as uid ${uid}`,
    skip,
    async (t) => {
      const place = placeFor(t, uid)
      const below = join(place.folder, 'outer-listener')
      const source = join(root, 'test/fixtures/learn/outer-listener.c')
      execFileSync(process.env['CC'] || 'cc', ['-O1', '-o', below, source])
      mkdirSync(join(place.folder, 'own'))
      const profile = (more: object): string => {
        const path = join(place.folder, 'own', 'profile.json')
        const network = { allowHost: ['db.example.com'], allowPort: [5432] }
        writeFileSync(path, JSON.stringify({ network, ...more }))
        return path
      }
      const args = (more: object): string[] => [...ports, '--permissions', profile(more), ...server]
      const refused = await run(place, args({}), { below })
      t.equal(refused.code, 1)
      t.match(refused.stderr, /broker: another listener is already installed: Device or resource busy/)
      t.match(refused.stderr, /allowDegraded: \[?net-port-only/)
      t.notMatch(refused.stdout, '"listening"')

      const lax = args({ allowDegraded: ['net-port-only'] })
      const { url, stop } = await start(t, place, lax, { below })
      const call = await client(url)
      t.equal(await call('connect', { host: '127.0.0.1', port: Number(new URL(url).port) }), 'EACCES')
      const { stdout } = await stop()
      const listening = stdout.split('\n').find((line) => line.includes('"listening"')) ?? '{}'
      t.match(JSON.parse(listening).permissions, { verdict: 'weakened', gaps: /\bport-only\b/ })
    },
  )
}
