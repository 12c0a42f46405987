/** What an operator reads where the kernel lacks something: the launcher sees less of it than there is. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { built, maskedBuild } from '../escape/build.ts'
import { plainly } from '../escape/children.ts'
import { missing } from '../escape/sidecar.ts'

const reason = missing('mcp-sidecar-launcher-test')
if (reason !== undefined) {
  t.plan(0, reason)
  process.exit(0)
}

const base = mkdtempSync(join(tmpdir(), 'mcp-sidecar-masked-'))
chmodSync(base, 0o755)
t.teardown(() => rmSync(base, { recursive: true, force: true }))
mkdirSync(join(base, 'granted'))
const server = [
  process.execPath,
  fileURLToPath(new URL('../fixtures/escape/attacker-server.mjs', import.meta.url)),
]

/** @param more of the profile */
function profile(name: string, more: object): string {
  const file = join(base, `${name}.yaml`)
  const filesystem = { read: [join(base, 'granted')] }
  const network = { allowHost: ['db.example.com'], allowPort: [5432] }
  writeFileSync(file, JSON.stringify({ permissionProfile: { filesystem, network, ...more } }))
  return file
}

interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Ends it once it listens. */
async function run(
  t: Test,
  uid: number | undefined,
  program: string,
  args: readonly string[],
): Promise<Ended> {
  const [env, ...plain] = plainly
  const child = spawn(env, [...plain, process.execPath, program, ...args], {
    ...(uid === undefined ? {} : { uid, gid: uid }),
    cwd: '/',
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  t.teardown(() => child.kill('SIGKILL'))
  const texts = { stdout: '', stderr: '' }
  child.stdout.setEncoding('utf8').on('data', (part: string) => {
    texts.stdout += part
    // A second signal would cut it short.
    if (!child.killed && texts.stdout.includes('"msg":"listening"')) child.kill('SIGTERM')
  })
  child.stderr.setEncoding('utf8').on('data', (part: string) => {
    texts.stderr += part
  })
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, ...texts }
}

const masks = [
  {
    what: 'Landlock',
    record: 'test.abi 0',
    says: /landlock\.fs: this kernel has no Landlock/,
    optOut: 'no-enforcement',
    shows: { verdict: 'off', gaps: [] },
  },
  {
    what: 'user notification',
    record: 'test.no-notify 1',
    says: /broker: .*notif/i,
    optOut: 'net-port-only',
    shows: { verdict: 'weakened', gaps: ['port-only'] },
  },
] as const

const users = process.getuid?.() === 0 ? [undefined, 65534] : [undefined]
const start = ['--port', '0', '--admin-port', '0', '--auth', 'none']

for (const { what, record, says, optOut, shows } of masks) {
  const program = maskedBuild(join(built, '..', '..'), join(base, record.replace(/\W/g, '-')), record)
  for (const uid of users) {
    const who = uid === undefined ? '' : `, as uid ${uid}`
    t.test(
      `without ${what} a start is refused, and says what is missing and the way out${who}`,
      async (t) => {
        const strict = profile(`strict-${what.replace(' ', '-')}-${uid}`, {})
        const { code, stderr, stdout } = await run(t, uid, program, [
          ...start,
          '--permissions',
          strict,
          '--',
          ...server,
        ])
        t.not(code, 0)
        t.notMatch(stdout, /"listening"/)
        t.match(`${stderr}${stdout}`, says)
        t.match(`${stderr}${stdout}`, new RegExp(`allowDegraded: \\[${optOut}\\]`))
        t.comment(stderr.trim())
      },
    )

    t.test(`without ${what} doctor shows it as missing${who}`, async (t) => {
      const strict = profile(`doctor-${what.replace(' ', '-')}-${uid}`, {})
      const { code, stdout, stderr } = await run(t, uid, program, ['doctor', '--permissions', strict])
      t.not(code, 0)
      t.match(`${stdout}${stderr}`, says)
      t.comment(stdout)
    })

    t.test(`without ${what} a start with the opt-out goes on, and the report names it${who}`, async (t) => {
      const lax = profile(`lax-${what.replace(' ', '-')}-${uid}`, { allowDegraded: [optOut] })
      const { code, stderr, stdout } = await run(t, uid, program, [
        ...start,
        '--permissions',
        lax,
        '--',
        ...server,
      ])
      t.equal(code, 0, stderr)
      const listening = stdout.split('\n').find((line) => line.includes('"listening"')) ?? '{}'
      t.match(JSON.parse(listening), {
        permissions: { verdict: shows.verdict },
        notEnforced: [/./],
      })
      for (const gap of shows.gaps) t.match(listening, `"${gap}"`)
    })
  }
}
