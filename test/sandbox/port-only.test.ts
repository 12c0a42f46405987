/** What holds without a broker, where the profile accepts it (`net-port-only`): a real child behind the real proxy. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import t, { type Test } from 'tap'
import type { EnforcementReport } from '../../src/core/sandbox.ts'
import { reportLines } from '../../src/sandbox/report.ts'
import { createSandbox } from '../../src/sandbox/sandbox.ts'
import { allow, startEgress, startTcp, toLoopback } from '../egress/support.ts'
import { launcher, noLauncher } from '../support/launcher.ts'
import { profile } from '../support/profiles.ts'

if (noLauncher !== undefined) {
  t.plan(0, noLauncher)
  process.exit(0)
}

/** A launcher on a kernel without user notification, or below a listener of somebody else. */
function withoutNotification(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'mcp-sidecar-port-only-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  chmodSync(folder, 0o755)
  const file = join(folder, 'launcher')
  writeFileSync(
    file,
    `#!/bin/sh\nif [ "$1" = probe ]; then '${launcher}' probe | /bin/sed 's/"userNotify":true/"userNotify":false/'\nelse exec '${launcher}' "$@"; fi\n`,
    { mode: 0o755 },
  )
  return file
}

/** Each line: what was tried, and how it ended. */
const program = `
import errno, os, socket, sys, urllib.request
target, proxy, elsewhere = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def tried(what, attempt):
    try: print(what, attempt(), flush=True)
    except urllib.error.HTTPError as e: print(what, e.code, flush=True)
    except socket.gaierror: print(what, 'no address', flush=True)
    except OSError as e: print(what, errno.errorcode.get(e.errno, e), flush=True)
def tcp(host, port):
    with socket.create_connection((host, port), 5): return 'connected'
tried('allowed', lambda: urllib.request.urlopen('http://ok.example.com:' + target, timeout=5).read().decode())
tried('denied', lambda: urllib.request.urlopen('http://evil.example.com:' + target, timeout=5).status)
tried('raw', lambda: tcp('127.0.0.1', int(target)))
tried('proxy', lambda: tcp('127.0.0.1', proxy))
tried('same-port', lambda: tcp('127.0.0.2', proxy))
tried('other-port', lambda: tcp('127.0.0.2', elsewhere))
tried('name', lambda: socket.getaddrinfo('ok.example.com', 80))
tried('dns-tcp', lambda: tcp('198.18.0.53', 53))
tried('udp', lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
tried('listen', lambda: socket.create_server(('127.0.0.1', 0)))
`

t.test('without a broker the proxy variables are the way out, and the report says so', async (t) => {
  const web = createServer((_, response) => response.end('hello')).listen(0, '127.0.0.1')
  await once(web, 'listening')
  t.teardown(() => web.close())
  const { port } = web.address() as AddressInfo
  const proxy = await startEgress(t)
  proxy.names.set('ok.example.com', ['127.0.0.1'])
  await startTcp(t, (socket) => void socket.end(), '127.0.0.2', proxy.egress.port)
  const elsewhere = await startTcp(t, (socket) => void socket.end(), '127.0.0.2')
  const python = ['/usr/bin/python3', '/usr/local/bin/python3']
  const network = allow({ hosts: ['ok.example.com'], cidrs: toLoopback })
  const wanted = profile({
    network,
    allowDegraded: ['net-port-only', 'container-seccomp-off'],
    filesystem: {
      ...profile().filesystem,
      read: ['/usr/local', '/usr'].map((path) => ({ path, execute: true, optional: true })),
    },
  })
  const reports: EnforcementReport[] = []
  const sandbox = await createSandbox({
    profile: wanted,
    launcher: withoutNotification(t),
    hidden: [],
    admit: () => proxy.egress.admit(network, { name: wanted.name }),
    graceMs: 1000,
    requireContainerSeccomp: false,
    onReport: (report) => void reports.push(report),
  })
  const args = ['-c', program, String(port), String(proxy.egress.port), String(elsewhere)]
  const launch = sandbox.launch(
    ['/bin/sh', '-c', `for p in ${python.join(' ')}; do [ -x $p ] && exec $p "$@"; done`, 'sh', ...args],
    { PATH: '/usr/bin:/bin' },
  )
  const [command = '', ...words] = launch.command
  const child = spawn(command, words, {
    stdio: ['ignore', 'pipe', 'pipe', 'pipe', 'pipe'],
    env: launch.env,
    cwd: '/',
  })
  const [, out, err, policy, status] = child.stdio as unknown as [
    null,
    Readable,
    Readable,
    Writable,
    Readable,
  ]
  policy.end(launch.policy)
  let [said, complained, told] = ['', '', '']
  out.on('data', (text) => {
    said += text
  })
  err.on('data', (text) => {
    complained += text
  })
  status.on('data', (text) => {
    told += text
  })
  await once(child, 'close')
  for (const line of told.split('\n')) if (line !== '') launch.status(line)
  launch.ended()

  const found = Object.fromEntries(said.split('\n').map((line) => line.split(/ (.*)/).slice(0, 2)))
  t.match(
    found,
    {
      allowed: 'hello',
      denied: '403',
      raw: 'EACCES',
      proxy: 'connected',
      'same-port': 'connected',
      'other-port': 'EACCES',
      name: 'no address',
      'dns-tcp': 'EACCES',
      udp: 'EACCES',
      listen: 'EACCES',
    },
    complained,
  )
  for (const report of [sandbox.report, ...reports]) {
    const of = (name: string) => report.mechanisms.find(({ mechanism }) => mechanism === name)
    t.equal(report.verdict, 'weakened')
    t.match(of('dns'), { requested: true, active: false, covers: [], gaps: [], reason: /proxy/ })
    t.match(of('broker'), { active: false })
    t.match(of('proxy'), { active: true })
    t.match(of('landlock.net'), { active: true, gaps: ['port-only'] })
    t.match(reportLines(report).join('\n'), /^weakened +port-only: .*proxy variables/m)
  }
})
