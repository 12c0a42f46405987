/** What a permission profile holds a server in the container to, beside what the same server does without one. */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { inside, ready, start } from './containers.mjs'
import { work } from './podman.mjs'

const client = readFileSync(new URL('client.mjs', import.meta.url), 'utf8')

const text = 'filesystem: { read: [/srv], write: [/data] }\nenv: { allow: [SHOWN] }\n'

/** What the fixture server tries, by what becomes of it under that profile. */
const attempts = {
  done: ['read /srv/package.json', 'write /data/x', 'read /data/x', 'list /data', 'variable SHOWN'],
  EACCES: [
    ...['read /etc/passwd', 'read /data/../etc/passwd', 'read /data/link', 'read /etc/profile.yaml'],
    ...['list /app', 'read /app/package.json', 'list /', 'list /proc', 'read /proc/1/environ'],
    ...['write /tmp/x', 'run /data/program'],
    ...['connect 127.0.0.1:8080', 'connect 127.0.0.1:9090', 'connect 192.0.2.1:443'],
  ],
  ENOENT: ['variable HIDDEN', 'variable MCP_SIDECAR_PERMISSIONS'],
}

/** Those that fail for other reasons, too: ptrace rules, no network, the environment's own list, protected paths. */
const neverDone = [
  ...['read /proc/1/environ', 'list /', 'connect 192.0.2.1:443', 'variable HIDDEN'],
  'variable MCP_SIDECAR_PERMISSIONS',
]

const flat = Object.entries(attempts).flatMap(([outcome, each]) => each.map((attempt) => [attempt, outcome]))

/**
 * @param {string} image
 * @param {string[]} mount flags for the fixture server at /srv
 */
export async function profileHolds(image, mount) {
  const profile = join(work, 'profile.yaml')
  writeFileSync(profile, text, { mode: 0o644 })
  const outcomes = async (choice) => {
    const flags = [
      ...[...mount, '--volume', `${profile}:/etc/profile.yaml:ro`],
      // Nothing but the profile is in the way of writing and executing there.
      ...['/data', '/tmp'].flatMap((path) => ['--tmpfs', `${path}:mode=1777,exec`]),
      ...['MCP_SIDECAR_AUTH=none', `MCP_SIDECAR_PERMISSIONS=${choice}`, 'SHOWN=yes', 'HIDDEN=yes'].flatMap(
        (variable) => ['--env', variable],
      ),
    ]
    const name = await start(image, flags, ['--pass-env', 'SHOWN', '--', 'node', '/srv/server.mjs'])
    await ready(name)
    const all = JSON.stringify({ attempts: flat.map(([attempt]) => attempt) })
    const { result } = JSON.parse(await inside(name, client, 'attempt', all))
    return JSON.parse(result.content[0].text)
  }
  assert.deepEqual(await outcomes('/etc/profile.yaml'), Object.fromEntries(flat))
  const open = Object.entries(await outcomes('full-access'))
  assert.deepEqual(
    open
      .filter(([, outcome]) => outcome !== 'done')
      .map(([attempt]) => attempt)
      .sort(),
    [...neverDone].sort(),
    'the attempts are real ones',
  )
}
