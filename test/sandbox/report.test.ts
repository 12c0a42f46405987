import t from 'tap'
import type { EnforcementReport, MechanismReport } from '../../src/core/sandbox.ts'
import {
  brokenPromise,
  enforcementOf,
  enforcementSummary,
  gapTexts,
  refusedBy,
  reportLines,
  unenforced,
  weakening,
} from '../../src/sandbox/report.ts'
import { type LauncherReport, readFacts, readStatus } from '../../src/sandbox/status.ts'
import { profile } from '../support/profiles.ts'

const kernel = {
  release: '6.8.0',
  arch: 'x86_64',
  landlockAbi: 4,
  userNotify: true,
  yama: 1,
  containerSeccomp: 2,
  uid: 65532,
}
const landlock = {
  ...{ mechanism: 'landlock.fs', requested: true, active: true, abi: 4, selfTest: 'pass' },
  ...{ covers: ['read', 'write'], gaps: ['metadata'] },
}
const line = (more: object = {}): string =>
  JSON.stringify({ event: 'report', pid: 12, verdict: 'enforced', kernel, mechanisms: [landlock], ...more })
const reportOf = (more: object = {}): LauncherReport => readStatus(line(more)) as LauncherReport

t.test('what the launcher says is read', async (t) => {
  t.match(readStatus(line({ skipped: ['/lib64'], links: [{ path: '/bin', target: '/usr/bin' }] })), {
    ...{ event: 'report', pid: 12, verdict: 'enforced', kernel, mechanisms: [landlock], skipped: ['/lib64'] },
    links: [{ path: '/bin', target: '/usr/bin' }],
  })
  t.strictSame(readStatus('{"event":"refused","mechanism":"seccomp","reason":"r","wayOut":"w"}'), {
    ...{ event: 'refused', mechanism: 'seccomp', reason: 'r', wayOut: 'w' },
  })
  t.match(readStatus('{"event":"exit","signal":"SIGKILL","reason":"memory","unclean":true}'), {
    ...{ event: 'exit', code: undefined, signal: 'SIGKILL', reason: 'memory', unclean: true },
  })
  t.strictSame(readFacts(JSON.stringify(kernel)), kernel)
})

t.test('what is no word of it is refused', async (t) => {
  const wrong = [
    ...['', '{', 'null', '[]', '{}', '{"event":"started"}', '{"event":"report"}'],
    ...[line({ verdict: 'fine' }), line({ pid: '12' }), line({ kernel: null }), line({ mechanisms: {} })],
    ...[
      line({ mechanisms: [{ ...landlock, mechanism: 'magic' }] }),
      line({ mechanisms: [{ ...landlock, selfTest: 'maybe' }] }),
    ],
    '{"event":"refused","mechanism":"seccomp"}',
  ]
  for (const each of wrong) t.throws(() => readStatus(each), Error, each)
})

t.test('the verdict is no better than the worst gap', async (t) => {
  t.equal(enforcementOf(profile(), reportOf()).verdict, 'enforced')
  t.equal(enforcementOf(profile(), reportOf({ verdict: 'weakened' })).verdict, 'weakened')
  for (const gap of weakening) {
    const mechanisms = [{ ...landlock, gaps: [gap] }]
    t.equal(enforcementOf(profile(), reportOf({ mechanisms })).verdict, 'weakened', gap)
  }
  const failing = [{ ...landlock, selfTest: 'fail' }]
  t.equal(
    enforcementOf(profile(), reportOf({ mechanisms: failing })).verdict,
    'weakened',
    'a failed self-test',
  )
  t.equal(enforcementOf(undefined, reportOf()).verdict, 'off', 'without a profile nothing is enforced')
  const network = { mode: 'allowlist', hosts: [], cidrs: [], ports: [], checkSni: false } as const
  const off = unenforced(profile({ network }))
  t.equal(off.verdict, 'off')
  t.strictSame(enforcementSummary(off).active, ['env'], 'nobody leads its connections to the proxy')
})

t.test('the sidecar names what it does itself', async (t) => {
  const active = (mechanisms: readonly MechanismReport[]): string[] =>
    mechanisms.filter((each) => each.active).map(({ mechanism }) => mechanism)
  t.strictSame(active(enforcementOf(profile(), reportOf()).mechanisms), ['env', 'landlock.fs'])
  const network = { mode: 'allowlist', hosts: [], cidrs: [], ports: [], checkSni: false } as const
  const allowlist = enforcementOf(profile({ network }), reportOf())
  t.strictSame(active(allowlist.mechanisms), ['env', 'proxy', 'dns', 'landlock.fs'])
  t.match(enforcementSummary(allowlist), { verdict: 'enforced', profile: 'p', gaps: ['dns-udp', 'metadata'] })
})

t.test('people read what is active, what is missing, and what to do about it', async (t) => {
  const missing = {
    mechanism: 'landlock.scope',
    requested: true,
    active: false,
    reason: 'abi<6',
    covers: [],
    gaps: ['signal-scope'],
  }
  const weak = { mechanism: 'rlimits', requested: true, active: true, covers: ['memory'], gaps: ['uid-0'] }
  const report = enforcementOf(
    profile({
      notApplied: ['kubeResources: the operator grants them'],
      allowDegraded: ['container-seccomp-off'],
    }),
    reportOf({ mechanisms: [landlock, missing, weak] }),
  )
  const text = reportLines(report).join('\n')
  t.match(text, /^verdict +weakened$/m)
  t.match(text, /^kernel +6\.8\.0 x86_64, Landlock ABI 4, connect broker possible, uid 65532$/m)
  t.match(text, /^landlock\.fs +active, self-test pass *: read, write$/m)
  t.match(text, /^landlock\.scope +MISSING +\(abi<6\)$/m)
  t.match(text, /^weakened +uid-0: the server runs as root; run the container as a user/m)
  t.match(text, /^note +metadata: /m)
  t.match(text, /^not applied +kubeResources/m)
  t.match(text, /^accepted +container-seccomp-off$/m)
  const refusal = {
    mechanism: 'landlock.fs',
    reason: 'this kernel has no Landlock',
    wayOut: 'use 5.13 or later',
  }
  const refused = refusedBy(profile(), refusal, kernel)
  t.match(refused, { verdict: 'refused', refusal })
  t.match(
    reportLines(refused).join('\n'),
    /^refused +landlock\.fs: this kernel has no Landlock\nway out +use 5\.13 or later$/m,
  )
})

t.test('a start keeps its promise, or it is told what of it is broken', async (t) => {
  const found = (more: object): EnforcementReport =>
    enforcementOf(profile(), reportOf({ mechanisms: [{ ...landlock, ...more }] }))
  const promised = found({})
  t.equal(brokenPromise(promised, found({})), undefined)
  t.equal(brokenPromise(promised, found({ gaps: ['exec-writable'] })), undefined, 'a note breaks nothing')
  t.equal(brokenPromise(found({ selfTest: 'fail' }), found({ selfTest: 'fail' })), undefined)
  t.equal(brokenPromise(found({ active: false }), promised), undefined, 'nor does more than was promised')
  t.match(brokenPromise(promised, found({ active: false, reason: 'abi<1' })), {
    mechanism: 'landlock.fs',
    reason: /^it is missing \(abi<1\), /,
    wayOut: /doctor/,
  })
  t.match(brokenPromise(promised, enforcementOf(profile(), reportOf({ mechanisms: [] }))), {
    reason: /^it is missing, /,
  })
  t.match(brokenPromise(promised, found({ selfTest: 'fail' })), { reason: /^its self-test fails/ })
  for (const gap of weakening) {
    t.match(brokenPromise(promised, found({ gaps: [gap] })), { reason: new RegExp(`^${gap}: `) })
    t.equal(brokenPromise(found({ gaps: [gap] }), found({ gaps: [gap] })), undefined, gap)
  }
})

t.test('every gap that weakens is explained', async (t) => {
  for (const gap of weakening) t.ok(gapTexts[gap]?.[0], gap)
})

t.test('what the sidecar knows to be missing weakens the protection of files', async (t) => {
  const found = enforcementOf(profile(), reportOf(), ['own-code-linked'])
  t.equal(enforcementOf(profile(), reportOf(), []).verdict, 'enforced')
  t.equal(found.verdict, 'weakened')
  t.match(reportLines(found).join('\n'), /weakened {2}own-code-linked: .*hard links.*; install the sidecar/)
  t.equal(brokenPromise(found, found), undefined)
  const off = reportOf({ mechanisms: [{ ...landlock, active: false }] })
  t.equal(enforcementOf(undefined, off, ['own-code-linked']).verdict, 'off')
})
