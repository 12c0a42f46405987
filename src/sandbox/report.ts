/** What is enforced: the launcher's measurements with what the sidecar itself does, in one verdict. */
import type {
  EnforcementReport,
  EnforcementVerdict,
  HostFacts,
  MechanismReport,
  Profile,
} from '../core/sandbox.ts'
import type { LauncherRefusal, LauncherReport } from './status.ts'

/** Why nothing is started, and what would help. */
export type Refusal = Omit<LauncherRefusal, 'event'>

/** Gaps that make less of a profile than it says. Others are listed and change nothing. */
export const weakening: ReadonlySet<string> = new Set([
  ...['uid-0', 'nproc-inert', 'proc-all', 'port-only', 'network-open', 'fs-open', 'container-seccomp-off'],
  'own-code-linked',
])

/** What each gap means and what closes it, for people. */
export const gapTexts: Readonly<Record<string, readonly [meaning: string, advice: string]>> = {
  'uid-0': ['the server runs as root', 'run the container as a user of its own, such as 65532'],
  'nproc-inert': [
    'the limit of processes does not hold for root; the watchdog ends the server instead',
    'run as another user, and set a limit of pids for the pod',
  ],
  'proc-all': ['all of /proc can be read: names and arguments of other processes', 'leave out `proc: all`'],
  'port-only': [
    'any host that listens on the port of the proxy can be reached, and programs that heed no proxy variables reach nothing else',
    'use a kernel with seccomp user notification, or a NetworkPolicy that blocks that port',
  ],
  'network-open': ['the network is open', 'name hosts in `network.allowHost`'],
  'fs-open': ['every file that this user may touch is open', 'name paths in `filesystem`'],
  'container-seccomp-off': [
    'the container has no seccomp profile of its own',
    'set seccompProfile: RuntimeDefault (Kubernetes), or leave out seccomp=unconfined',
  ],
  'own-code-linked': [
    'files of the sidecar’s own program have other names (hard links, as pnpm makes them), which can be written where a grant holds them',
    'install the sidecar with npm, or as another user than the one that runs it',
  ],
  metadata: [
    'the existence of files shows, and mode, times and attributes of own files can be changed where something may be written',
    'keep images read-only and owned by root',
  ],
  'exec-writable': ['a path may be written and executed', 'take the write grant out of the read grant'],
  'truncate-seccomp': [
    'truncating is refused by a system call filter, not by Landlock (kernel before 6.2)',
    '',
  ],
  'abi1-reparent': ['files cannot be moved between folders (kernel before 5.19)', ''],
  'net-second-lock': ['TCP has one lock, the system call filter, instead of two (kernel before 6.7)', ''],
  'ioctl-dev': ['ioctl on granted devices is not filtered (kernel before 6.10)', ''],
  'signal-scope': ['signals are checked by the supervisor, not by the kernel (before 6.12)', ''],
  'dns-udp': [
    'programs that ask for names over UDP alone (musl, c-ares) find none',
    'they use the proxy variables',
  ],
  'memory-per-process': [
    'memory in files without a name counts for nobody',
    'set a memory limit for the container',
  ],
  'kube-not-enforced': ['rights in the Kubernetes API are the operator’s to give', ''],
  'inbound-not-applied': ['a stdio server is never connected to', ''],
}

/**
 * What holds for a process that was started, or would be.
 *
 * @param fileGaps what the launcher cannot know to be missing from the protection of files
 */
export function enforcementOf(
  profile: Profile | undefined,
  { kernel, verdict: measured, ...report }: Pick<LauncherReport, 'kernel' | 'mechanisms' | 'verdict'>,
  fileGaps: readonly string[] = [],
): EnforcementReport {
  const mechanisms = report.mechanisms.map((each) =>
    each.mechanism === 'landlock.fs' && each.active ? { ...each, gaps: [...each.gaps, ...fileGaps] } : each,
  )
  const portOnly = mechanisms.some(({ gaps }) => gaps.includes('port-only'))
  const all = [...own(profile, portOnly), ...mechanisms]
  const gaps = new Set(all.flatMap((each) => each.gaps))
  const failed = mechanisms.some(({ selfTest }) => selfTest === 'fail')
  const weak = measured === 'weakened' || failed || [...gaps].some((gap) => weakening.has(gap))
  let verdict: EnforcementVerdict = weak ? 'weakened' : 'enforced'
  if (profile === undefined) verdict = 'off'
  return { ...about(profile), verdict, kernel, mechanisms: all }
}

/**
 * What of a promise a start does not keep: a mechanism that is missing or covers less, a self-test that was passed and is
 * not now, or a gap that weakens. Notes do not count: some come with what lies on the disk.
 */
export function brokenPromise(
  promised: EnforcementReport,
  { mechanisms }: EnforcementReport,
): Refusal | undefined {
  const refusal = (mechanism: string, what: string): Refusal => ({
    mechanism,
    reason: `${what}, unlike when the sidecar tried it out`,
    wayOut:
      'mcp-sidecar doctor shows what holds now; a restart of the sidecar starts the server with that, if the profile can do with it',
  })
  const known = new Set(promised.mechanisms.flatMap(({ gaps }) => gaps))
  for (const { mechanism, active, selfTest, covers } of promised.mechanisms) {
    const now = mechanisms.find((each) => each.mechanism === mechanism)
    if (active && now?.active !== true) return refusal(mechanism, `it is missing${because(now)}`)
    if (selfTest === 'pass' && now?.selfTest !== 'pass')
      return refusal(mechanism, `its self-test ${now?.selfTest === 'fail' ? 'fails' : 'was not run'}`)
    const uncovered = covers.find((each) => active && now?.covers.includes(each) !== true)
    if (uncovered !== undefined) return refusal(mechanism, `it does not cover ${uncovered}`)
  }
  for (const { mechanism, gaps } of mechanisms) {
    const gap = gaps.find((each) => weakening.has(each) && !known.has(each))
    if (gap !== undefined) return refusal(mechanism, `${gap}: ${gapTexts[gap]?.[0]}`)
  }
  return undefined
}

function because(mechanism: MechanismReport | undefined): string {
  return mechanism?.reason === undefined ? '' : ` (${mechanism.reason})`
}

/** Nothing was started. */
export function refusedBy(
  profile: Profile | undefined,
  refusal: Refusal,
  kernel?: HostFacts,
): EnforcementReport {
  const { mechanism, reason, wayOut } = refusal
  return {
    ...about(profile),
    verdict: 'refused',
    kernel,
    mechanisms: own(profile),
    refusal: { mechanism, reason, wayOut },
  }
}

/** The server runs without the launcher: with a clean environment, and nothing else. */
export function unenforced(profile: Profile | undefined): EnforcementReport {
  return { ...about(profile), verdict: 'off', kernel: undefined, mechanisms: own(undefined) }
}

function about(
  profile: Profile | undefined,
): Pick<EnforcementReport, 'schema' | 'profile' | 'notApplied' | 'degraded'> {
  return {
    schema: 1,
    profile: profile && { name: profile.name, digest: profile.digest },
    notApplied: profile?.notApplied ?? [],
    degraded: profile?.allowDegraded ?? [],
  }
}

/**
 * What the sidecar does itself.
 *
 * @param portOnly without a broker nothing leads a resolver to the stub
 */
function own(profile: Profile | undefined, portOnly = false): readonly MechanismReport[] {
  const allowlist = profile?.network.mode === 'allowlist'
  const of = (
    mechanism: MechanismReport['mechanism'],
    active: boolean,
    covers: readonly string[],
    gaps: readonly string[] = [],
  ): MechanismReport => ({
    ...{ mechanism, requested: active, active },
    covers: active ? covers : [],
    gaps: active ? gaps : [],
  })
  return [
    of('env', true, ['environment']),
    of('proxy', allowlist, ['host', 'cidr', 'port', 'address']),
    {
      ...of('dns', allowlist && !portOnly, ['names'], ['dns-udp']),
      requested: allowlist,
      ...(allowlist && portOnly ? { reason: 'resolvers reach nobody; the proxy looks names up' } : {}),
    },
  ]
}

/** The same in few words, for probes and logs. */
export function enforcementSummary({ verdict, profile, mechanisms, retiring, refusal }: EnforcementReport) {
  return {
    verdict,
    ...(profile === undefined ? {} : { profile: profile.name, digest: profile.digest }),
    active: mechanisms.filter(({ active }) => active).map(({ mechanism }) => mechanism),
    gaps: [...new Set(mechanisms.flatMap(({ gaps }) => gaps))],
    ...(retiring === undefined ? {} : { retiring }),
    ...(refusal === undefined ? {} : { refused: `${refusal.mechanism}: ${refusal.reason}` }),
  }
}

/** A table for people, of lines without a margin. */
export function reportLines(report: EnforcementReport): string[] {
  const { verdict, profile, kernel, program = [], mechanisms, refusal, notApplied, degraded } = report
  const lines = [`verdict   ${verdict}`]
  if (profile !== undefined) lines.push(`profile   ${profile.name} (${profile.digest})`)
  if (kernel !== undefined)
    lines.push(
      `kernel    ${kernel.release} ${kernel.arch}, Landlock ABI ${kernel.landlockAbi || 'none'}, ` +
        `connect broker ${kernel.userNotify ? 'possible' : 'impossible'}, uid ${kernel.uid}`,
    )
  for (const each of program) lines.push(`program   ${each}`)
  if (refusal !== undefined) lines.push(`refused   ${refusal.mechanism}: ${refusal.reason}`)
  if (refusal !== undefined && refusal.wayOut !== '') lines.push(`way out   ${refusal.wayOut}`)
  const width = Math.max(...mechanisms.map(({ mechanism }) => mechanism.length))
  for (const { mechanism, requested, active, selfTest, reason, covers } of mechanisms) {
    const state = active ? 'active' : requested ? 'MISSING' : 'off'
    const test = selfTest === undefined || selfTest === 'not-run' ? '' : `, self-test ${selfTest}`
    const what = covers.length === 0 ? '' : `: ${covers.join(', ')}`
    const why = reason === undefined ? '' : ` (${reason})`
    lines.push(`${mechanism.padEnd(width)}  ${`${state}${test}`.padEnd(23)}${what}${why}`.trimEnd())
  }
  for (const gap of new Set(mechanisms.flatMap((each) => each.gaps))) {
    const [meaning, advice] = gapTexts[gap] ?? ['', '']
    const sign = weakening.has(gap) ? 'weakened' : 'note    '
    lines.push(`${sign}  ${gap}: ${meaning}${advice === '' ? '' : `; ${advice}`}`)
  }
  for (const each of notApplied) lines.push(`not applied  ${each}`)
  for (const each of degraded) lines.push(`accepted  ${each}`)
  return lines
}
