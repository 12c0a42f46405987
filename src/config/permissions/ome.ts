import { DEFAULT_LIMITS, NO_VARIABLES } from '../../core/profile.ts'
import { configMapSpelling } from '../manifest/authz-values.ts'
import { objectName, reference } from '../manifest/values.ts'
import { defaulted, isSection, lenient, object, optional, required, type TypeOf } from '../object.ts'
import type { Path } from '../parsed.ts'
import { bad, good, kindOf } from '../parsed.ts'
import { choice, flag, list, text, type ValueType } from '../values.ts'
import { word } from '../words.ts'
import { type HostEntry, hostEntry } from './hosts.ts'
import { type Made, made } from './made.ts'
import { cidr } from './networks.ts'
import { ports } from './profile-values.ts'
import { dottedHosts, mountRemarks, mounts, pathsOf, reachOf } from './toolhive.ts'

const coreGroup: ValueType<string> = {
  ...text('text', {}, good),
  parse: (input) => (typeof input === 'string' ? good(input) : bad(`must be text, not ${kindOf(input)}`)),
}

const grant = object({
  kubeResources: optional(
    object({
      apiGroups: required(list(coreGroup), 'API groups; the core group is empty text.'),
      resources: required(list(word('text'), 1), 'Resources.'),
      verbs: required(list(word('text'), 1), 'Verbs.'),
      namespaces: defaulted(list(objectName), [], 'Namespaces; empty: the own one.'),
    }),
    'none',
    'Rights in the Kubernetes API.',
  ),
  network: optional(
    object({
      allowHost: defaulted(list(hostEntry), [], 'Hosts that may be reached.'),
      allowCIDR: defaulted(list(cidr), [], 'Networks that may be reached.'),
    }),
    'none',
    'Hosts and networks that may be reached.',
  ),
})

/** `builtin: none`, `builtin: {name: none}`; `network` is `network-only`. */
const builtin = lenient(choice('none', 'network-only', 'full-access'), (input) => {
  const name = isSection(input) && Object.keys(input).length === 1 ? input['name'] : input
  return name === 'network' ? 'network-only' : name
})

const outbound = object({
  insecureAllowAll: defaulted(flag, false, 'Everything may be reached.'),
  allowHost: defaulted(dottedHosts, [], 'Hosts that may be reached.'),
  allowPort: defaulted(ports, [], 'Ports that may be reached.'),
})

const inline = object(
  {
    allow: optional(list(grant, 1), 'none', 'What is allowed.'),
    read: defaulted(mounts, [], 'Paths that may be read.'),
    write: defaulted(mounts, [], 'Paths that may be written.'),
    network: optional(object({ outbound: required(outbound, 'Outwards.') }), 'none', 'Network rights.'),
  },
  {
    check: ({ allow = [], network: reach }) =>
      (reach?.outbound.allowPort ?? []).length > 0 && allow.some((each) => each.network !== undefined)
        ? [
            {
              path: ['network', 'outbound', 'allowPort'],
              message:
                'would count for the hosts in allow, too, which may be reached on any port: keep one of the two forms',
            },
          ]
        : [],
  },
)

const profile = object(
  {
    builtin: optional(builtin, 'none', 'A profile by name.'),
    configMap: optional(reference, 'none', 'A profile in a ConfigMap.'),
    inline: optional(inline, 'none', 'A profile written out.'),
  },
  { one: [['builtin', 'configMap', 'inline']] },
)

/** `permissionProfile` of an MCPServer; `{type, name, key}` of drafts as what it means today. */
export const omeSettings = lenient(profile, (input) => {
  const spelt = configMapSpelling(input)
  if (!isSection(spelt) || typeof spelt['type'] !== 'string') return spelt
  const { type, name, key, ...rest } = spelt
  if (Object.keys(rest).length > 0) return spelt
  if (type === 'builtin' && key === undefined) return { builtin: name }
  return type === 'configmap' || type === 'configMap'
    ? { configMap: { name, key: key ?? 'permissions.json' } }
    : spelt
})

export type OmeSettings = TypeOf<typeof omeSettings>

/** @param name of the document */
export function omeProfile(settings: TypeOf<typeof inline>, name: string): Made {
  const { allow = [], read, write, network: reach } = settings
  const outward = reachOf(
    reach?.outbound ?? { insecureAllowAll: false, allowHost: [], allowPort: [] },
    ['inline', 'network', 'outbound'],
    { hosts: 'allowHost', ports: 'allowPort', all: 'insecureAllowAll' },
  )
  const at = (index: number, key: string, item: number): Path => [
    ...(['inline', 'allow', index, 'network', key] as const),
    item,
  ]
  const hosts = allow.flatMap((each, index) =>
    (each.network?.allowHost ?? []).map((entry, item): [HostEntry, Path] => [
      entry,
      at(index, 'allowHost', item),
    ]),
  )
  const cidrs = allow.flatMap((each, index) =>
    (each.network?.allowCIDR ?? []).map((entry, item): [string, Path] => [
      entry,
      at(index, 'allowCIDR', item),
    ]),
  )
  const kube = allow.some(({ kubeResources }) => kubeResources !== undefined)
  return made(name, {
    ...pathsOf({ read, write }, ['inline']),
    ...outward,
    hosts: [...hosts, ...outward.hosts],
    cidrs,
    network: ['inline', 'network'],
    env: NO_VARIABLES,
    limits: DEFAULT_LIMITS,
    allowDegraded: [],
    notApplied: [
      ...mountRemarks([...read, ...write]),
      ...(kube ? ['kube-not-enforced: kubeResources are given by the operator (RBAC)'] : []),
    ],
  })
}
