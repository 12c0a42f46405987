import type { Profile } from '../core/sandbox.ts'
import type { LoadedConfig } from './load.ts'
import { hostText } from './permissions/hosts.ts'
import { formatQuantity, SIZE } from './units.ts'

/** One line: what, how far in, and where it comes from. */
export interface Row {
  readonly depth: number
  readonly text: string
  readonly where: string
}

type Place = (...path: (string | number)[]) => string

/** What the server may touch, each part with where it comes from. Values of variables are left out. */
export function permissionRows(loaded: LoadedConfig, program: readonly string[]): Row[] {
  const profile = loaded.config.permissions
  if (profile === undefined)
    return [row(0, 'permissions: no profile, the server runs with the rights of this user', 'default')]
  const at: Place = (...path) => loaded.origins.of(profile)?.given(path) ?? 'default'
  return [
    row(0, `permissions: profile ${profile.name}, ${profile.digest}`, at()),
    ...fileRows(profile, program, loaded.settings.get('server.command')?.where ?? 'default', at),
    ...networkRows(profile, at),
    ...processRows(profile, at),
    ...profile.allowDegraded.map((word, index) =>
      row(1, `may do without: ${word}`, at('allowDegraded', index)),
    ),
  ]
}

function row(depth: number, text: string, where: string): Row {
  return { depth, text, where }
}

function fileRows({ filesystem }: Profile, program: readonly string[], command: string, at: Place): Row[] {
  const { scope, read, write, proc } = filesystem
  const ifThere = (optional: boolean): string => (optional ? ', if it is there' : '')
  return [
    scope === 'all'
      ? row(1, 'files: all but those of the sidecar', at('filesystem'))
      : row(1, 'files: what every program needs, the program of the server, and', at('filesystem')),
    ...program.map((path) => row(2, `program: read and execute ${path}`, command)),
    ...read.map(({ path, execute, optional }, index) => {
      const rights = execute ? 'read and execute' : 'read'
      return row(2, `${rights} ${path}${ifThere(optional)}`, at('filesystem', 'read', index))
    }),
    ...write.map(({ path, optional }, index) =>
      row(2, `read and write ${path}${ifThere(optional)}`, at('filesystem', 'write', index)),
    ),
    row(2, `processes in /proc: ${proc === 'all' ? 'all' : 'itself'}`, at('filesystem', 'proc')),
  ]
}

function networkRows({ network }: Profile, at: Place): Row[] {
  const { mode, hosts, cidrs, ports, checkSni } = network
  if (mode === 'none') return [row(1, 'network: none', at('network'))]
  if (mode === 'open') return [row(1, 'network: everything may be reached', at('network'))]
  return [
    row(1, 'network: connections over TCP to', ''),
    ...hosts.map((rule, index) => row(2, hostText(rule), at('network', 'hosts', index))),
    ...cidrs.map((cidr, index) => row(2, cidr, at('network', 'cidrs', index))),
    row(
      2,
      ports.length === 0 ? 'on any port' : `on ${ports.length === 1 ? 'port' : 'ports'} ${ports.join(', ')}`,
      at('network', 'ports', 0),
    ),
    ...(checkSni ? [row(2, 'with the same name in the TLS handshake', at('network', 'checkSni'))] : []),
  ]
}

function processRows({ env, limits }: Profile, at: Place): Row[] {
  const { memoryBytes, processes, openFiles, fileSizeBytes, cpuSeconds } = limits
  const size = (bytes: number | undefined): string | undefined =>
    bytes === undefined ? undefined : formatQuantity(SIZE, bytes)
  const bounds = [
    ['memory', size(memoryBytes), 'memory'],
    ['processes', processes, 'processes'],
    ['open files of a process', openFiles, 'openFiles'],
    ['size of a file', size(fileSizeBytes), 'fileSize'],
    ['CPU seconds of a process', cpuSeconds, 'cpuSeconds'],
  ] as const
  return [
    ...env.allow.map((name, index) => row(1, `variable ${name}: passed`, at('env', 'allow', index))),
    ...Object.keys(env.set).map((name) => row(1, `variable ${name}: set`, at('env', 'set', name))),
    ...bounds.flatMap(([what, most, key]) =>
      most === undefined ? [] : [row(1, `${what}: at most ${most}`, at('limits', key))],
    ),
  ]
}
