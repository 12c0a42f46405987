/** What the launcher is told on descriptor 3: NUL-terminated `key value` records. */
import type { Profile } from '../core/sandbox.ts'
import { within } from './path-names.ts'

/** What every program needs to start: sandbox rules of its own must be read by it, or it fails in odd ways. */
export const baseRead = {
  execute: ['/usr', '/lib', '/lib64', '/bin', '/sbin'],
  data: [
    ...['/etc/ssl', '/etc/ca-certificates', '/etc/pki', '/etc/ld.so.cache', '/etc/ld.so.conf.d'],
    ...['/etc/resolv.conf', '/etc/hosts', '/etc/nsswitch.conf', '/etc/host.conf', '/etc/gai.conf'],
    '/etc/localtime',
  ],
  devices: ['/dev/null', '/dev/zero', '/dev/full', '/dev/random', '/dev/urandom'],
} as const

/** Of the proxy, as far as the launcher needs it. */
export interface ProxyAccess {
  /** `127.0.0.1:PORT`. */
  readonly address: string
  readonly token: { reveal(): string }
}

export interface RecordOptions {
  /** Undefined: nothing is confined; the process only gets no privileges, a session of its own and an end. */
  readonly profile: Profile | undefined
  /** Files and folders of the sidecar that no profile opens. Absolute. */
  readonly hidden: readonly string[]
  /** What the sidecar runs and goes by, which no profile lets a server change. Absolute, without links. */
  readonly readonly?: readonly string[] | undefined
  /** Files and folders of the server's program, without links; undefined: the launcher gives it the folder of the command. */
  readonly program?: readonly string[] | undefined
  /**
   * Where a granted path leads when its symbolic links are followed, as it was when the configuration was loaded; the
   * launcher then follows none: the server may have made some since. Undefined: the launcher follows them.
   */
  readonly follow?: ((path: string) => string) | undefined
  /** Present when the profile has an allow-list of hosts. */
  readonly proxy: ProxyAccess | undefined
  /** Whether the kernel lets a broker decide on connections; if not, ports alone may have to do (`net-port-only`). */
  readonly broker: boolean
  /** What the server does is told, not confined: the profile opens everything, and has an allow-list. */
  readonly watched?: boolean
  /** A filter of the container's own must be there already. */
  readonly requireContainerSeccomp: boolean
  /** Between SIGTERM and the end of the whole tree. Milliseconds. */
  readonly graceMs: number
}

/** @throws Error when a value cannot stand in a record */
export function policyRecords(options: RecordOptions): Buffer {
  const { profile } = options
  const records: string[] = ['v 1']
  const add = (key: string, value: string | number): void => {
    const record = `${key} ${value}`
    // It would end this record and begin another.
    if (record.includes('\0')) throw new Error(`a value of ${key} has a NUL in it`)
    records.push(record)
  }
  add('grace', options.graceMs)
  if (profile === undefined) {
    records.push('fs open', 'net open', 'filter off')
  } else {
    add('name', profile.name)
    add('sha256', profile.digest.replace(/^sha256:/, ''))
    addFiles(profile, options, add)
    addNetwork(profile, options, add)
    addLimits(profile, add)
    add('filter', 'on')
    if (options.watched === true) add('learn', 1)
    if (options.requireContainerSeccomp && !profile.allowDegraded.includes('container-seccomp-off'))
      add('require-container-seccomp', 1)
  }
  return Buffer.from(records.map((record) => `${record}\0`).join(''))
}

type Add = (key: string, value: string | number) => void

function addFiles(
  { filesystem }: Profile,
  { hidden, readonly = [], program, follow }: RecordOptions,
  add: Add,
): void {
  add('proc', filesystem.proc)
  add('fs', filesystem.scope === 'all' ? 'all' : 'confined')
  // The launcher holds grants against these, too: it sees the files as they are when the server is started.
  for (const path of hidden) add('fs.hide', path)
  for (const path of readonly) add('fs.readonly', path)
  if (filesystem.scope === 'all') return
  if (follow !== undefined) add('fs.nolinks', 1)
  if (program === undefined) add('fs.command', 1)
  else for (const path of program) add('fs.program?', path)
  const grant = (key: string, path: string): void => add(key, follow?.(path) ?? path)
  // What nobody asked for is no reason to refuse a start.
  const open = (path: string): boolean => !hidden.some((own) => within(follow?.(path) ?? path, own))
  for (const path of baseRead.execute.filter(open)) grant('fs.rx?', path)
  for (const path of baseRead.data.filter(open)) grant('fs.r?', path)
  for (const path of baseRead.devices) grant('fs.dev?', path)
  for (const { path, execute, optional } of filesystem.read)
    grant(`${execute ? 'fs.rx' : 'fs.r'}${optional ? '?' : ''}`, path)
  for (const { path, optional } of filesystem.write) grant(`fs.rw${optional ? '?' : ''}`, path)
}

function addNetwork({ network, allowDegraded }: Profile, { proxy, broker }: RecordOptions, add: Add): void {
  if (network.mode !== 'allowlist') {
    add('net', network.mode)
    return
  }
  if (proxy === undefined) throw new Error('a profile with an allow-list needs the proxy')
  add('net', !broker && allowDegraded.includes('net-port-only') ? 'port-only' : 'broker')
  add('proxy', proxy.address)
  add('token', proxy.token.reveal())
}

/**
 * What a process may reserve beyond the memory it may use: V8 reserves more than half a gigabyte at its start. The watchdog
 * measures what is used, once a second; this stops what is faster.
 */
const reservedBytes = 1024 ** 3
/**
 * Room for what else the user runs: the kernel counts all processes and threads of a user, those of other servers and of the
 * sidecar among them. The watchdog counts those of this server; this stops a bomb before it looks.
 */
const otherProcesses = 1024

function addLimits({ limits }: Profile, add: Add): void {
  const { memoryBytes, processes, openFiles, fileSizeBytes, cpuSeconds } = limits
  const some: readonly (readonly [keys: readonly string[], value: number | undefined])[] = [
    [['watch.rss'], memoryBytes],
    [['limit.data'], memoryBytes === undefined ? undefined : memoryBytes + reservedBytes],
    [['watch.processes'], processes],
    [['limit.nproc'], processes === undefined ? undefined : processes + otherProcesses],
    [['limit.nofile'], openFiles],
    [['limit.fsize'], fileSizeBytes],
    [['limit.cpu'], cpuSeconds],
  ]
  for (const [keys, value] of some) if (value !== undefined) for (const key of keys) add(key, value)
}
