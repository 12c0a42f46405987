import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  compiled,
  confined,
  launched,
  launcher,
  mechanism,
  noLauncher,
  openFolder,
  outcomes,
  uids,
} from '../support/launcher.ts'

if (noLauncher !== undefined) {
  t.plan(0, noLauncher)
  process.exit(0)
}

const { EACCES, EBADF, EFAULT, ENODATA, ENOSYS, ENOTTY, EPERM } = constants.errno

const attempts = compiled(t, 'attempts')

async function tried(t: Test, uid: number, records: readonly string[], names: readonly string[]) {
  const { code, err, out, status } = await launched(
    t,
    [...records, `fs.rx ${attempts}`],
    [attempts, ...names],
    { uid },
  )
  t.equal(code, 0, `${err}${JSON.stringify(status.at(0))}`)
  return { outcomes: outcomes(out), report: status[0] }
}

/** The same answer for each of these. */
const all = (answer: number, names: string): Record<string, number> =>
  Object.fromEntries(names.split(' ').map((name) => [name, answer]))

const always: Readonly<Record<string, number>> = {
  ...all(
    EPERM,
    'ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp move_pages process_madvise process_mrelease',
  ),
  ...all(EPERM, 'io_uring_setup bpf perf_event_open userfaultfd add_key keyctl fanotify_init'),
  ...all(
    EPERM,
    'unshare unshare-user setns clone-user mount umount pivot_root chroot open_tree move_mount fsopen',
  ),
  ...all(
    EPERM,
    'open_by_handle_at name_to_handle_at init_module kexec_load swapon reboot acct quotactl syslog',
  ),
  ...all(EPERM, 'clock_settime sethostname shmget shmat msgget msgsnd semget semctl mq_open'),
  ...all(EPERM, 'prlimit-other setpriority-other sched_setaffinity-other ioprio_set'),
  ...all(EPERM, 'seccomp-listener seccomp-bit-6 pdeathsig-clear pdeathsig-other tiocsti tioclinux'),
  ...all(EPERM, 'fault-device lease delegation'),
  ...all(ENOSYS, 'clone3 newer newest'),
  ...all(
    EACCES,
    'icmp raw mptcp sctp packet vsock alg smc unix unix-datagram netlink-audit pair-datagram listen',
  ),
  ...all(
    0,
    'prlimit-own setpriority-own pdeathsig-kill netlink-route pair-stream pair-seqpacket linger fork kill-self',
  ),
  'seccomp-own': EFAULT,
  ...(process.arch === 'x64' ? { x32: ENOSYS, iopl: EPERM } : {}),
}

const fastOpen = 'fast-open-sendto fast-open-sendmsg fast-open-sendmmsg'
const withoutNetwork = { ...all(EACCES, 'tcp tcp6 udp udp6 connect'), bind: EBADF, ...all(EPERM, fastOpen) }

/** `calls` of the launcher, a list a line, with the numbers of this architecture. */
function listed(): Record<string, readonly string[]> {
  const table = new URL(
    `../../src/launcher/syscalls_${process.arch === 'x64' ? 'x86_64' : 'arm64'}.h`,
    import.meta.url,
  )
  const numbers = new Map(
    [...readFileSync(table, 'utf8').matchAll(/^#define NR_(\w+) (\d+)$/gm)].map(
      ([, name = '', number = '']) => [name, number],
    ),
  )
  const lines = execFileSync(launcher, ['calls'], { encoding: 'utf8' }).trim().split('\n')
  return Object.fromEntries(
    lines.map((line) => {
      const [title = '', names = ''] = line.split(': ')
      return [title, names.split(' ').map((name) => numbers.get(name) ?? `no number of ${name}`)]
    }),
  )
}

t.test('every call that is listed as refused is refused', async (t) => {
  const { EPERM: always = [], 'EPERM without a write path': metadata = [] } = listed()
  t.ok(always.length > 60 && metadata.length >= 15)
  const numbers = [...always, ...metadata]
  for (const abi of [7, 2]) {
    const { outcomes } = await tried(
      t,
      uids[0] ?? 0,
      [...confined, `test.abi ${abi}`],
      numbers.map((number) => `call=${number}`),
    )
    t.same(outcomes, all(EPERM, numbers.join(' ')))
  }
})

for (const uid of uids) {
  for (const abi of [undefined, 1, 2, 3, 4, 5, 6])
    t.test(
      `the refused calls, without a network, as uid ${uid}${abi === undefined ? '' : `, Landlock ABI at most ${abi}`}`,
      async (t) => {
        const expected: Record<string, number> = { ...always, ...withoutNetwork }
        const seam = abi === undefined ? [] : [`test.abi ${abi}`]
        const { outcomes } = await tried(t, uid, [...confined, ...seam], Object.keys(expected))
        t.same(outcomes, expected)
      },
    )

  t.test(
    `an open network has TCP and UDP, but nothing that listens and no other family, as uid ${uid}`,
    async (t) => {
      const expected = { ...always, ...all(0, 'tcp tcp6 udp udp6 bind') }
      const { outcomes, report } = await tried(t, uid, [...confined, 'net open'], Object.keys(expected))
      t.same(outcomes, expected)
      t.ok(mechanism(report, 'seccomp').gaps.includes('network-open'))
      t.equal(report.verdict, 'weakened')
    },
  )

  t.test(`metadata of its own files changes only where there is a write path, as uid ${uid}`, async (t) => {
    const folder = openFolder(t)
    const file = join(folder, 'file')
    const { code } = await launched(
      t,
      [...confined, `fs.rw ${folder}`],
      ['/bin/sh', '-c', `echo > ${file}`],
      { uid },
    )
    t.equal(code, 0)
    const names = ['chmod', 'fchmodat2', 'utimens', 'chown', 'setxattr'].map((name) => `${name}=${file}`)
    const read = await tried(t, uid, [...confined, `fs.r ${folder}`], [...names, 'setflags'])
    t.same(read.outcomes, all(EPERM, 'chmod fchmodat2 utimens chown setxattr setflags'))
    t.ok(mechanism(read.report, 'seccomp').covers.includes('metadata'))
    const written = await tried(t, uid, [...confined, `fs.rw ${folder}`], [...names.slice(0, 4), 'setflags'])
    t.same(
      { ...written.outcomes, setflags: 0, fchmodat2: 0 },
      all(0, 'chmod fchmodat2 utimens chown setflags'),
    )
    t.ok([ENOTTY, EBADF, ENODATA].includes(written.outcomes['setflags'] ?? 0))
  })

  for (const abi of [1, 2, 3])
    t.test(`a read-only file is not truncated under Landlock ABI ${abi}, as uid ${uid}`, async (t) => {
      const folder = openFolder(t)
      const file = join(folder, 'file')
      writeFileSync(file, 'content', { mode: 0o666 })
      const names = ['truncate', 'open-truncate', 'open-truncate-3', 'open-write', 'open-write-truncate']
      const { outcomes, report } = await tried(
        t,
        uid,
        [...confined, `fs.r ${folder}`, `test.abi ${abi}`],
        [...names.map((name) => `${name}=${file}`), `openat2=${file}`],
      )
      t.same(outcomes, { ...all(EACCES, names.join(' ')), openat2: abi < 3 ? ENOSYS : 0 })
      t.equal(mechanism(report, 'landlock.fs').gaps.includes('truncate-seccomp'), abi < 3)
    })

  for (const abi of [undefined, 5])
    t.test(
      `signals reach the own processes only${abi === undefined ? '' : ', without the scope of Landlock'}, as uid ${uid}`,
      async (t) => {
        const seam = abi === undefined ? [] : [`test.abi ${abi}`]
        const others = [`kill=${process.pid}`, `tgkill=${process.pid}`, `queue=${process.pid}`]
        const { outcomes, report } = await tried(t, uid, [...confined, ...seam], others)
        t.same(outcomes, all(EPERM, 'kill tgkill queue'))
        t.equal(mechanism(report, 'landlock.scope').selfTest, 'pass')
        t.equal(mechanism(report, 'landlock.scope').active, abi === undefined)
        if (abi !== undefined) {
          t.same(mechanism(report, 'landlock.scope').gaps, ['signal-scope'])
          const groups = await tried(
            t,
            uid,
            [...confined, ...seam],
            ['kill-all', 'kill-group', 'setowner', 'setowner-fcntl'],
          )
          t.same(groups.outcomes, all(EPERM, 'kill-all kill-group setowner setowner-fcntl'))
        }
        const own = await launched(
          t,
          [...confined, ...seam],
          ['/bin/sh', '-c', 'sleep 60 & kill $!; wait $!; echo $?'],
          { uid },
        )
        t.equal(own.out, '143\n')
      },
    )
}

t.test(
  'a call of another architecture is the end of the process',
  { skip: process.arch === 'x64' ? false : 'x86_64 only' },
  async (t) => {
    const { code, status } = await launched(t, [...confined, `fs.rx ${attempts}`], [attempts, 'i386'])
    t.equal(code, 159)
    t.same(status[1], { event: 'exit', signal: 'SIGSYS', unclean: false })
  },
)

t.test('threads and children are under the same filter', async (t) => {
  const script = `
import os, socket, threading
def attempt():
    try: socket.socket(socket.AF_INET, socket.SOCK_DGRAM); print('made', flush=True)
    except PermissionError as e: print(e.errno, flush=True)
thread = threading.Thread(target=attempt); thread.start(); thread.join()
pid = os.fork()
if pid == 0: attempt(); os._exit(0)
os.waitpid(pid, 0)`
  const { out } = await launched(t, confined, ['/usr/bin/env', 'python3', '-c', script])
  t.equal(out, `${EACCES}\n${EACCES}\n`)
})
