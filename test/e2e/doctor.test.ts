/** What `mcp-sidecar doctor` prints on this machine. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { missing } from '../escape/sidecar.ts'
import { type Place, placeFor, run, uids } from '../support/learning.ts'

const reason = missing()
const skip = reason === undefined ? {} : { skip: reason }

function profileIn(place: Place, text: object): string {
  const path = join(place.folder, 'profile.json')
  writeFileSync(path, JSON.stringify(text))
  return place.own(path)
}

const allowList = { network: { allowHost: ['db.example.com'], allowPort: [5432] }, limits: { processes: 64 } }

/** Mechanisms that a profile with hosts asks for, whether they test themselves, and some of what they cover. */
const rows: readonly (readonly [mechanism: string, tested: boolean, covers: readonly string[]])[] = [
  ['env', false, ['environment']],
  ['proxy', false, ['host', 'port', 'address']],
  ['dns', false, ['names']],
  ['caps', true, ['capabilities']],
  ['nnp', true, ['setuid']],
  ['rlimits', true, ['core', 'nofile']],
  ['landlock.fs', true, ['read', 'write', 'execute']],
  ['landlock.net', true, ['tcp-bind', 'tcp-connect']],
  ['landlock.scope', true, ['signals', 'abstract-unix']],
  ['seccomp', true, ['processes', 'namespaces', 'sockets', 'listen']],
  ['broker', true, ['tcp-connect']],
  ['watchdog', false, ['processes']],
]
/** Of the filter around this process: without one, the kernel shows more of itself. */
const contained = /^Seccomp:\s+2$/m.test(readFileSync('/proc/self/status', 'utf8'))

for (const uid of uids) {
  t.test(`doctor prints what is enforced of a list of hosts, as uid ${uid}`, skip, async (t) => {
    const place = placeFor(t, uid)
    const profile = profileIn(place, allowList)
    const { code, stdout, stderr } = await run(place, ['doctor', '--permissions', profile])
    t.equal(code, 0, stderr)
    const lines = stdout.split('\n')
    const line = (name: string): string => lines.find((each) => each.startsWith(`${name} `)) ?? ''
    t.match(line('profile'), /profile\.json \(sha256:[0-9a-f]{64}\)/)
    const [, abi] = /Landlock ABI (\d+), connect broker possible/.exec(line('kernel')) ?? []
    t.match(line('kernel'), new RegExp(`uid ${uid}$`))
    // What older kernels lack is no row, or not active.
    const needs: Readonly<Record<string, number>> = { 'landlock.net': 4, 'landlock.scope': 6 }
    for (const [mechanism, tested, covers] of rows.filter(([name]) => Number(abi) >= (needs[name] ?? 0))) {
      const shown = line(mechanism)
      t.match(shown, tested ? /\bactive, self-test pass/ : /\bactive\b/, mechanism)
      for (const word of covers) t.match(shown, new RegExp(`[ ,]${word}\\b`), `${mechanism} covers ${word}`)
    }
    const weakened = lines.filter((each) => each.startsWith('weakened '))
    t.equal(line('verdict').split(/\s+/)[1], weakened.length > 0 ? 'weakened' : 'enforced')
    for (const gap of ['uid-0', 'nproc-inert'])
      t.equal(
        weakened.some((each) => each.includes(`${gap}:`)),
        uid === 0,
        `${gap} as uid ${uid}`,
      )
    t.equal(
      weakened.some((each) => each.includes('container-seccomp-off:')),
      !contained,
      'the filter of the container',
    )
  })

  t.test(
    `doctor asks nothing of the network that a profile does not want, as uid ${uid}`,
    skip,
    async (t) => {
      const place = placeFor(t, uid)
      const profile = profileIn(place, { limits: { processes: 64 } })
      const { code, stdout, stderr } = await run(place, ['doctor', '--permissions', profile])
      t.equal(code, 0, stderr)
      t.match(stdout, /^landlock\.fs +active/m)
      t.notMatch(stdout, /^(?:broker|proxy|dns) +active/m)
    },
  )
}

t.test('without a profile it tells of the builtin network, and says so', skip, async (t) => {
  const { code, stdout } = await run(placeFor(t, uids[0] as number), ['doctor'])
  t.equal(code, 0)
  t.match(stdout, /^No profile is configured; .* profile network\./)
  t.match(stdout, /^broker +active/m)
})
