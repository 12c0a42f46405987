import { DEFAULT_LIMITS, NO_VARIABLES } from '../../core/profile.ts'
import type { ReadGrant } from '../../core/sandbox.ts'
import { checked, defaulted, isSection, lenient, object, optional, type TypeOf } from '../object.ts'
import { bad, type Fault, good, type Parsed, type Path } from '../parsed.ts'
import { flag, list, text, type ValueType } from '../values.ts'
import { word } from '../words.ts'
import { type HostEntry, hostEntry } from './hosts.ts'
import { type Draft, type Made, made } from './made.ts'
import { cleanedPath, repeated } from './paths.ts'
import { ports } from './profile-values.ts'

/** A path of the container, and what is mounted there, if that is another one. */
export interface Mount {
  readonly path: string
  readonly source: string | undefined
}

const mount: ValueType<Mount> = {
  name: 'path, `host:container` or `volume://name:container`',
  json: { type: 'string', minLength: 1 },
  parse: (input) => {
    const declared = text('', {}, good).parse(input)
    return declared.ok ? parseMount(declared.value) : declared
  },
  parseText: (input) => mount.parse(input),
  show: ({ path }) => path,
}

function parseMount(declared: string): Parsed<Mount> {
  const at = declared.lastIndexOf(':')
  const [source, container] = at < 0 ? [undefined, declared] : [declared.slice(0, at), declared.slice(at + 1)]
  const plain = source?.replace(/^[A-Za-z][A-Za-z0-9_-]*:\/\//, '').replace(/^[A-Za-z]:(?=[/\\])/, '')
  if (source === '' || plain?.includes(':') === true)
    return bad('must be a path, host:container or volume://name:container')
  const path = cleanedPath.parse(container)
  return path.ok ? good({ path: path.value, source: source === path.value ? undefined : source }) : path
}

/** Paths as ToolHive mounts them. */
export const mounts = checked(list(mount), (entries) => repeated(entries.map(({ path }) => path)))

/** A host; with a leading dot, as Squid has it, the name itself and all below it. */
const dottedHost: ValueType<readonly HostEntry[]> = {
  name: hostEntry.name,
  json: hostEntry.json,
  parse: (input) => {
    if (typeof input !== 'string' || !/^\.[^.]/.test(input)) {
      const one = hostEntry.parse(input)
      return one.ok ? good([one.value]) : one
    }
    const [name, below] = [hostEntry.parse(input.slice(1)), hostEntry.parse(`*${input}`)]
    if (!name.ok) return name
    return below.ok ? good([name.value, below.value]) : below
  },
  parseText: (input) => dottedHost.parse(input),
  show: (entries) => entries.map((entry) => hostEntry.show(entry)).join(', '),
}

/** Hosts as ToolHive writes them. */
export const dottedHosts = list(dottedHost)

const outbound = object({
  insecure_allow_all: defaulted(flag, false, 'Everything may be reached.'),
  allow_host: defaulted(dottedHosts, [], 'Hosts that may be reached.'),
  allow_port: defaulted(ports, [], 'Ports that may be reached.'),
  allow_transport: defaulted(list(word('text')), [], 'Protocols, of early versions.'),
})

const nameless = word('text')
/** What Go writes for a text that is not there. */
const wordOrEmpty: ValueType<string> = {
  ...nameless,
  parse: (input) => (input === '' ? good('') : nameless.parse(input)),
}

/** ToolHive's file (`pkg/permissions/profile.go` there). */
export const toolhiveSettings = lenient(
  object(
    {
      name: optional(wordOrEmpty, 'none', 'Its name; the file is named by its own.'),
      read: defaulted(mounts, [], 'Paths that may be read.'),
      write: defaulted(mounts, [], 'Paths that may be written.'),
      network: optional(
        object({
          mode: defaulted(wordOrEmpty, '', 'Network of the container.'),
          outbound: optional(outbound, 'nothing', 'Outwards.'),
          inbound: optional(
            object({ allow_host: defaulted(list(word('text')), [], 'Hosts that may connect.') }),
            'nothing',
            'Inwards.',
          ),
        }),
        'no network',
        'Network rights.',
      ),
      privileged: defaulted(flag, false, 'A container that is one in name only.'),
    },
    {
      check: ({ privileged }) =>
        privileged
          ? [
              {
                path: ['privileged'],
                message: 'is refused: nothing can be kept from a privileged process; leave it out',
              },
            ]
          : [],
    },
  ),
  withoutNulls,
)

/** `null` is how Go programs write what is not there. */
function withoutNulls(input: unknown): unknown {
  if (!isSection(input)) return input
  const there = Object.entries(input).filter(([, value]) => value !== null)
  return Object.fromEntries(there.map(([name, value]) => [name, withoutNulls(value)]))
}

/** @param name of the file or document */
export function toolhiveProfile(settings: TypeOf<typeof toolhiveSettings>, name: string): Made {
  const { read, write, network } = settings
  const { mode = '', outbound: out, inbound } = network ?? {}
  const reach = reachOf(
    {
      insecureAllowAll: out?.insecure_allow_all ?? false,
      allowHost: out?.allow_host ?? [],
      allowPort: out?.allow_port ?? [],
    },
    ['network', 'outbound'],
    { hosts: 'allow_host', ports: 'allow_port', all: 'insecure_allow_all' },
  )
  const notApplied = [
    ...mountRemarks([...read, ...write]),
    ...(network === undefined
      ? ['network: is not there, which ToolHive takes for everything; here it is no network']
      : []),
    ...(mode === '' || mode === 'none'
      ? []
      : [`network.mode: the network of a container is given by whoever starts it`]),
    ...((inbound?.allow_host ?? []).length === 0
      ? []
      : ['inbound-not-applied: nobody connects to a stdio server, whatever network.inbound says']),
    ...((out?.allow_transport ?? []).length === 0
      ? []
      : ['network.outbound.allow_transport: TCP alone is let through']),
  ]
  return made(name, {
    ...pathsOf({ read, write }, []),
    // It asks for less than the rest does.
    ...(mode === 'none' ? NOWHERE : reach),
    network: ['network'],
    env: NO_VARIABLES,
    limits: DEFAULT_LIMITS,
    allowDegraded: [],
    notApplied,
  })
}

const NOWHERE = { hosts: [], cidrs: [], ports: [], open: false, checkSni: false, warnings: [] } as const

/** Mounted paths as grants. */
export function pathsOf(
  { read, write }: { readonly read: readonly Mount[]; readonly write: readonly Mount[] },
  base: Path,
): Pick<Draft, 'read' | 'write' | 'proc'> {
  return {
    read: read.map(({ path }, index): [ReadGrant, Path] => [
      { path, execute: true, optional: false },
      [...base, 'read', index],
    ]),
    write: write.map(({ path }, index) => [{ path, optional: false }, [...base, 'write', index]]),
    proc: 'self',
  }
}

/** What is mounted where is nothing that can be changed from inside. */
export function mountRemarks(all: readonly Mount[]): string[] {
  return all.flatMap(({ path, source }) =>
    source === undefined ? [] : [`mount of ${source} at ${path}: whoever starts the container mounts it`],
  )
}

type Reach = Pick<Draft, 'hosts' | 'cidrs' | 'ports' | 'open' | 'checkSni' | 'warnings'>

/**
 * Where connections may lead: ports without a host mean any host there.
 *
 * @param base where the rules stand
 * @param names of their members
 */
export function reachOf(
  rules: {
    readonly insecureAllowAll: boolean
    readonly allowHost: readonly (readonly HostEntry[])[]
    readonly allowPort: readonly number[]
  },
  base: Path,
  names: { readonly hosts: string; readonly ports: string; readonly all: string },
): Reach {
  const { insecureAllowAll, allowHost, allowPort } = rules
  const written = <T>(key: string, values: readonly (readonly T[])[]): [T, Path][] =>
    values.flatMap((entries, index) => entries.map((entry): [T, Path] => [entry, [...base, key, index]]))
  const anywhere: [HostEntry, Path] = [{ rule: { kind: 'any' } }, [...base, names.ports]]
  const portsAlone = allowPort.length > 0 && allowHost.length === 0 && !insecureAllowAll
  const warnings: Fault[] = []
  if (portsAlone)
    warnings.push({
      path: [...base, names.ports],
      message: `stands alone, which means any public host on these ports: name the hosts in ${names.hosts}`,
    })
  if (insecureAllowAll && allowHost.length + allowPort.length > 0)
    warnings.push({
      path: [...base, names.all],
      message: `lets everything through: ${names.hosts} and ${names.ports} say nothing beside it`,
    })
  return {
    hosts: portsAlone ? [anywhere] : written(names.hosts, allowHost),
    cidrs: [],
    ports: allowPort.map((port, index) => [port, [...base, names.ports, index]]),
    open: insecureAllowAll,
    checkSni: false,
    warnings,
  }
}
