import { readFileSync } from 'node:fs'
import t from 'tap'
import {
  alive,
  bare,
  compiled,
  confined,
  launch,
  launched,
  mechanism,
  noLauncher,
  uids,
  until,
} from '../support/launcher.ts'

if (noLauncher !== undefined) {
  t.plan(0, noLauncher)
  process.exit(0)
}

const trees = compiled(t, 'trees')

const python = (uid: number, script: string): string[] => [
  ...(uid === 0 ? ['/usr/bin/env', 'python3'] : ['/usr/bin/python3']),
  '-c',
  script,
]

for (const uid of uids)
  t.test(`as uid ${uid}`, async (t) => {
    t.test('the limits of a process are set, for good', async (t) => {
      const limits = ['limit.data 300000000', 'limit.nofile 64', 'limit.fsize 100000', 'limit.cpu 100']
      const script = `
import resource as r
for name in ('DATA', 'NOFILE', 'FSIZE', 'CPU', 'CORE'): print(name, *r.getrlimit(getattr(r, 'RLIMIT_' + name)))
try: r.setrlimit(r.RLIMIT_NOFILE, (128, 128))
except ValueError: print('for good')`
      for (const base of [bare, confined]) {
        const { out, status } = await launched(t, [...base, ...limits], python(uid, script), { uid })
        t.equal(
          out,
          'DATA 300000000 300000000\nNOFILE 64 64\nFSIZE 100000 100000\nCPU 100 101\nCORE 0 0\nfor good\n',
        )
        t.same(mechanism(status[0], 'rlimits').covers, ['core', 'data', 'nofile', 'fsize', 'cpu'])
        t.same(mechanism(status[0], 'rlimits').gaps, ['memory-per-process'])
      }
    })

    t.test(
      'no process may have as many open files as its launcher, which needs some on the way',
      async (t) => {
        const own = Number(
          /^Max open files +\S+ +(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1],
        )
        const { out } = await launched(
          t,
          [...confined, 'limit.nofile 1000000'],
          python(uid, 'import resource as r; print(*r.getrlimit(r.RLIMIT_NOFILE))'),
          { uid },
        )
        const most = Math.min(1_000_000, own - Math.min(512, Math.floor(own / 2)))
        t.equal(out, `${most} ${most}\n`)
      },
    )

    t.test('a profile lets little memory be locked, and none be hidden from the kernel itself', async (t) => {
      const script = `
import ctypes, resource as r
c = ctypes.CDLL(None, use_errno=True)
print(r.getrlimit(r.RLIMIT_MEMLOCK)[1], c.syscall(447, 0), ctypes.get_errno())`
      const { out } = await launched(t, confined, python(uid, script), { uid })
      t.equal(out, '65536 -1 1\n')
    })

    t.test('memory beyond the limit is not given', async (t) => {
      const { out } = await launched(
        t,
        [...confined, 'limit.data 100000000'],
        python(
          uid,
          `
try: bytearray(200000000)
except MemoryError: print('refused')`,
        ),
        { uid },
      )
      t.equal(out, 'refused\n')
    })

    t.test('processes beyond the limit are not started; for root that is only reported', async (t) => {
      // The kernel counts those of the user: here nobody else is that, or comes and goes meanwhile.
      const user = uid === 0 || process.getuid?.() !== 0 ? uid : 61_184
      const { out, status } = await launched(
        t,
        [...confined, 'limit.nproc 5'],
        python(
          uid,
          `
import os, time
made = 0
try:
    while made < 20:
        if os.fork() == 0: time.sleep(100); os._exit(0)
        made += 1
except BlockingIOError: pass
print(made)`,
        ),
        { uid: user },
      )
      const inert = mechanism(status[0], 'rlimits').gaps.includes('nproc-inert')
      t.equal(inert, uid === 0)
      // The server itself is one of the five.
      t.equal(out, uid === 0 ? '20\n' : '4\n')
    })

    t.test('the watchdog ends a tree with too many processes', async (t) => {
      const running = launch(
        t,
        [...confined, 'watch.processes 5'],
        python(
          uid,
          `
import os, time
for _ in range(8):
    if os.fork() == 0: time.sleep(1000); os._exit(0)
print('ready', flush=True); time.sleep(1000)`,
        ),
        { uid },
      )
      await running.said('ready')
      const { pid } = await running.first()
      const { status, code } = await running.done()
      t.equal(code, 137)
      t.same(status[1], { event: 'exit', signal: 'SIGKILL', reason: 'processes', unclean: false })
      await until(() => !alive(pid), 'the server has ended')
    })

    t.test('the watchdog ends a tree with too many threads', async (t) => {
      const { status, code } = await launched(
        t,
        [...confined, 'watch.processes 5'],
        python(
          uid,
          `
import threading, time
for _ in range(8): threading.Thread(target=lambda: time.sleep(1000)).start()`,
        ),
        { uid },
      )
      t.equal(code, 137)
      t.same(status[1], { event: 'exit', signal: 'SIGKILL', reason: 'processes', unclean: false })
    })

    t.test('the watchdog counts the tables of pages', async (t) => {
      // Reading what was never written takes one page of nothing for all, and a table for each two megabytes.
      const script = `
import mmap, time
block = mmap.mmap(-1, 64 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ)
block.madvise(mmap.MADV_NOHUGEPAGE)
for at in range(0, 64 << 30, 2 << 20): block[at]
time.sleep(1000)`
      const { status } = await launched(t, [...confined, 'watch.rss 100000000'], python(uid, script), { uid })
      t.same(status[1], { event: 'exit', signal: 'SIGKILL', reason: 'memory', unclean: false })
    })

    t.test('the watchdog counts the memory of a process whose first thread has ended', async (t) => {
      const records = [...confined, 'watch.rss 50000000', `fs.rx ${trees}`]
      const { status } = await launched(t, records, [trees, 'leaderless', '100'], { uid })
      t.same(status[1], { event: 'exit', signal: 'SIGKILL', reason: 'memory', unclean: false })
    })

    t.test('the watchdog ends a tree with too much memory in all', async (t) => {
      const { status, code } = await launched(
        t,
        [...confined, 'watch.rss 150000000', 'limit.data 120000000'],
        python(
          uid,
          `
import os, time
for _ in range(2):
    if os.fork() == 0: break
block = bytearray(80000000); time.sleep(1000)`,
        ),
        { uid },
      )
      t.equal(code, 137)
      t.same(status[1], { event: 'exit', signal: 'SIGKILL', reason: 'memory', unclean: false })
      t.match(mechanism(status[0], 'watchdog'), { requested: true, active: true, covers: ['memory'] })
    })
  })
