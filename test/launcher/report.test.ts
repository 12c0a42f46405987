import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { release } from 'node:os'
import t from 'tap'
import {
  bare,
  confined,
  launched,
  launcher,
  mechanism,
  noLauncher,
  type Status,
  uids,
} from '../support/launcher.ts'

if (noLauncher !== undefined) {
  t.plan(0, noLauncher)
  process.exit(0)
}

const gaps = (report: Status): string[] => report.mechanisms.flatMap((each: Status) => each.gaps)
const ran = ['/bin/echo', 'ran']
const broker = ['net broker', 'proxy 127.0.0.1:9', 'token x']

for (const uid of uids) {
  t.test(`what is enforced is reported as it was measured, as uid ${uid}`, async (t) => {
    const { status } = await launched(t, [...confined, 'name small', `sha256 ${'ab'.repeat(32)}`], ran, {
      uid,
    })
    const [report] = status
    t.match(report, { event: 'report', profile: { name: 'small', sha256: 'ab'.repeat(32) } })
    t.match(report.kernel, { release: release(), uid, arch: process.arch === 'x64' ? 'x86_64' : 'arm64' })
    const tests = Object.fromEntries(report.mechanisms.map((each: Status) => [each.mechanism, each.selfTest]))

    t.same(tests, {
      ...{
        caps: 'pass',
        nnp: 'pass',
        rlimits: 'pass',
        'landlock.fs': 'pass',
        'landlock.net': 'not-run',
      },
      ...{ 'landlock.scope': 'pass', seccomp: 'pass', broker: 'not-run', watchdog: 'not-run' },
    })
    const expected = [
      ...(uid === 0 ? ['uid-0'] : []),
      'metadata',
      ...(report.kernel.containerSeccomp === 0 ? ['container-seccomp-off'] : []),
    ]
    t.same(gaps(report), expected)
    t.equal(report.verdict, expected.length > 1 ? 'weakened' : 'enforced')
  })

  t.test(`each tier of Landlock has its gaps, as uid ${uid}`, async (t) => {
    const tiers: Readonly<Record<number, readonly string[]>> = {
      1: ['metadata', 'abi1-reparent', 'truncate-seccomp', 'ioctl-dev', 'net-second-lock', 'signal-scope'],
      2: ['metadata', 'truncate-seccomp', 'ioctl-dev', 'net-second-lock', 'signal-scope'],
      3: ['metadata', 'ioctl-dev', 'net-second-lock', 'signal-scope'],
      4: ['metadata', 'ioctl-dev', 'signal-scope'],
      5: ['metadata', 'signal-scope'],
      6: ['metadata'],
    }
    for (const [abi, expected] of Object.entries(tiers)) {
      const { status, out } = await launched(t, [...confined, `test.abi ${abi}`], ran, { uid })
      t.equal(out, 'ran\n')
      const environment = ['uid-0', 'container-seccomp-off']
      t.same(
        gaps(status[0]).filter((gap) => !environment.includes(gap)),
        expected,
      )
      t.equal(status[0].kernel.landlockAbi, Number(abi))
    }
  })

  t.test(`a layer whose own test fails is a refusal, as uid ${uid}`, async (t) => {
    for (const name of ['caps', 'nnp', 'rlimits', 'landlock.fs', 'landlock.scope', 'seccomp']) {
      const { code, out, err, status } = await launched(
        t,
        [...confined, `test.fail-self-test ${name}`],
        ran,
        { uid },
      )
      t.same([code, out], [126, ''])
      t.match(status, [{ event: 'refused', mechanism: name, reason: /^self-test: .*got a made-up failure$/ }])
      t.match(err, /^mcp-sidecar-launcher: self-test: [^\n]+\n$/)
    }
    const off = await launched(t, [...confined, 'test.fail-self-test seccomp', 'self-test off'], ran, { uid })
    t.equal(off.out, 'ran\n')
    t.equal(mechanism(off.status[0], 'seccomp').selfTest, 'not-run')
  })

  t.test(
    `a kernel that lacks what the policy needs is a refusal with the way out, as uid ${uid}`,
    async (t) => {
      const cases: readonly (readonly [records: readonly string[], refusal: object])[] = [
        [
          [...confined, 'test.abi 0'],
          { mechanism: 'landlock.fs', reason: 'this kernel has no Landlock', wayOut: /no-enforcement/ },
        ],
        [
          [...confined, ...broker, 'test.no-notify 1'],
          { mechanism: 'broker', reason: /user notification/, wayOut: /net-port-only/ },
        ],
        [
          [...confined, 'net port-only', 'proxy 127.0.0.1:9', 'test.abi 3'],
          { mechanism: 'landlock.net', reason: /ABI 4, found 3/ },
        ],
      ]
      for (const [records, refusal] of cases) {
        const { code, out, status } = await launched(t, records, ran, { uid })
        t.same([code, out, status.length], [126, '', 1])
        t.match(status[0], { event: 'refused', ...refusal })
      }
    },
  )
}

t.test(
  'without user notification and Landlock scope, signals to other processes are refused altogether',
  async (t) => {
    const { out } = await launched(
      t,
      [...confined, 'test.abi 5', 'test.no-notify 1'],
      ['/bin/sh', '-c', 'sleep 1 & kill -0 $! 2>/dev/null || echo refused; kill -0 $$ && echo own; wait'],
    )
    t.equal(out, 'refused\nown\n')
  },
)

t.test('a container without a filter of its own is told, and refused where one is required', async (t) => {
  const filtered = (await launched(t, bare, ran)).status[0].kernel.containerSeccomp === 2
  const { code, status } = await launched(t, [...confined, 'require-container-seccomp 1'], ran)
  t.equal(code, filtered ? 0 : 126)
  if (!filtered)
    t.match(status, [{ event: 'refused', mechanism: 'seccomp', wayOut: /container-seccomp-off/ }])
})

t.test(
  'full access still has the filter, and the ptrace scope of a domain; it is never called enforced',
  async (t) => {
    const uid = uids.at(-1) ?? 0
    // Without capabilities on either side, the same uid is all that it takes.
    const other = spawn('/bin/sleep', ['1000'], {
      stdio: 'ignore',
      ...(uid === process.getuid?.() ? {} : { uid, gid: uid }),
    })
    t.teardown(() => {
      other.kill('SIGKILL')
    })
    await once(other, 'spawn')
    for (const abi of [7, 5, 3, 1, 0]) {
      const records = ['v 1', 'fs open', 'net open', 'filter on', `test.abi ${abi}`]
      const script = `head -c 1 /proc/${other.pid}/environ >/dev/null 2>&1 && echo read || echo denied
      cd /tmp && d=$(mktemp -d) && mkdir $d/a $d/b && : > $d/a/f && mv $d/a/f $d/b/f && ls $d/b; rm -r $d`
      const { out, status } = await launched(t, records, ['/bin/sh', '-c', script], { uid })
      // Across directories mv copies where rename() is refused.
      t.equal(out, `${abi > 0 ? 'denied' : 'read'}\nf\n`, `ABI ${abi}`)
      t.equal(status[0].verdict, 'weakened')
      t.ok(gaps(status[0]).includes('fs-open'))
      t.equal(gaps(status[0]).includes('abi1-reparent'), abi === 1)
    }
  },
)

for (const uid of uids)
  t.test(`all files are open but what changes other processes and the kernel, as uid ${uid}`, async (t) => {
    const other = spawn('/bin/sleep', ['1000'], {
      stdio: 'ignore',
      ...(uid === process.getuid?.() ? {} : { uid, gid: uid }),
    })
    t.teardown(() => {
      other.kill('SIGKILL')
    })
    await once(other, 'spawn')
    const write = (path: string): string => `(: >> ${path}) 2>/dev/null && echo open || echo refused`
    const script = [
      write(`/proc/${other.pid}/oom_score_adj`),
      write('/proc/self/oom_score_adj'),
      write('/proc/self/task/$$/comm'),
      ...(uid === 0 ? [write('/proc/sys/kernel/core_pattern')] : []),
      `head -c 4 /proc/${other.pid}/status; cd $(mktemp -d) && : > made && ls && rm -r $PWD`,
    ].join('\n')
    const records = ['v 1', 'fs all', 'fs.hide /nowhere/hidden', 'proc all', 'net open', 'filter on']
    const { out, status } = await launched(t, records, ['/bin/sh', '-c', script], { uid })
    t.equal(out, `${'refused\n'.repeat(uid === 0 ? 4 : 3)}Namemade\n`)
    t.ok(gaps(status[0]).includes('proc-all'))
  })

t.test('what it says about paths and names stays JSON', async (t) => {
  const name = 'a "name" \\ with\ttabs, \u0001 and ü'
  const { status } = await launched(t, [...confined, `name ${name}`, 'fs.r? /no/"such"\npath'], ran)
  t.equal(status[0].profile.name, name)
  t.ok(status[0].skipped.includes('/no/"such"\npath'))
})

t.test('a long list of skipped paths is cut, and that is told', async (t) => {
  const many = Array.from({ length: 300 }, (_, index) => `fs.r? /nowhere/${index}`)
  const { status } = await launched(t, [...confined, ...many], ran)
  t.equal(status[0].truncated, true)
  t.equal(status[0].skipped.length, 256)
})

t.test('probe tells what this kernel can do', async (t) => {
  const { stdout, status } = spawnSync(launcher, ['probe'], { encoding: 'utf8' })
  t.equal(status, 0)
  const facts = JSON.parse(stdout)
  t.match(facts, {
    ...{ release: release(), landlockAbi: Number, userNotify: Boolean, addfd: Boolean, seccomp: true },
    ...{
      uid: process.getuid?.(),
      caps: /^[0-9a-f]{16}$/,
      containerSeccomp: Number,
      procChildren: Boolean,
      noNewPrivs: Boolean,
    },
  })
  const { stdout: calls } = spawnSync(launcher, ['calls'], { encoding: 'utf8' })
  t.match(calls, /^EPERM: ptrace /)
})
