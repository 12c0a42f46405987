import t from 'tap'
import { permissionPlace } from '../../../src/config/permissions/place.ts'
import { builtinProfile } from '../../../src/core/profile.ts'
import { load, problems, server } from '../manifest/documents.ts'

const withProfile = (profile: string): string => server(`permissionProfile: ${profile}`)

t.test('an MCPServer names a builtin profile, in every spelling', async (t) => {
  for (const [spelling, name] of [
    ['{ builtin: none }', 'none'],
    ['{ builtin: { name: network } }', 'network'],
    ['{ builtin: network-only }', 'network'],
    ['{ type: builtin, name: full-access }', 'full-access'],
  ] as const) {
    const loaded = await load(t, [withProfile(spelling)])
    t.same(loaded.config.permissions, builtinProfile(name), spelling)
    t.match(permissionPlace(loaded, ['network']), /^m\.yaml:6:\d+$/)
  }
})

t.test(
  'hosts and networks of all rules are united; rights in the Kubernetes API are the operator’s',
  async (t) => {
    const profile = `{ inline: { allow: [
    { network: { allowHost: [api.github.com, "*.githubusercontent.com"], allowCIDR: [140.82.112.0/20] } },
    { kubeResources: { apiGroups: [""], resources: [pods], verbs: [get] } },
    { network: { allowHost: [api.github.com, a.b] } } ] } }`
    const loaded = await load(t, [withProfile(profile)])
    const { permissions } = loaded.config
    t.equal(permissions?.name, 'MCPServer team-a/github')
    t.same(permissions?.network, {
      mode: 'allowlist',
      hosts: [
        { kind: 'exact', name: 'api.github.com' },
        { kind: 'below', name: 'githubusercontent.com' },
        { kind: 'exact', name: 'a.b' },
      ],
      cidrs: ['140.82.112.0/20'],
      ports: [],
      checkSni: false,
    })
    t.same(permissions?.notApplied, ['kube-not-enforced: kubeResources are given by the operator (RBAC)'])
    t.equal(permissionPlace(loaded, ['network', 'hosts', 2]), 'm.yaml:9:48')
    t.equal(permissionPlace(loaded, ['network', 'cidrs', 0]), 'm.yaml:7:88')
  },
)

t.test('paths and ports of drafts', async (t) => {
  const profile =
    '{ inline: { read: [/app, "/host:/notes"], write: [/data/], network: { outbound: { allowHost: [.a.b], allowPort: [443] } } } }'
  const loaded = await load(t, [withProfile(profile)])
  const { permissions } = loaded.config
  t.match(permissions, {
    filesystem: { read: [{ path: '/app' }, { path: '/notes' }], write: [{ path: '/data' }] },
    network: { hosts: [{ kind: 'exact' }, { kind: 'below' }], ports: [443] },
    notApplied: ['mount of /host at /notes: whoever starts the container mounts it'],
  })
  t.match(permissionPlace(loaded, ['filesystem', 'read', 1]), /^m\.yaml:6:47$/)
  const ports = await load(t, [withProfile('{ inline: { network: { outbound: { allowPort: [443] } } } }')])
  t.match(ports.warnings, [
    {
      where: /^m\.yaml:6:/,
      message:
        /^document 1 \(MCPServer team-a\/github\): spec\.permissionProfile\.inline\.network\.outbound\.allowPort: stands alone/,
    },
  ])
  const open = await load(t, [
    withProfile('{ inline: { network: { outbound: { insecureAllowAll: true } } } }'),
  ])
  t.equal(open.config.permissions?.network.mode, 'open')
  const nothing = await load(t, [withProfile('{ inline: {} }')])
  t.equal(nothing.config.permissions?.digest, builtinProfile('none')?.digest)
})

t.test('a profile in a ConfigMap is found where it is mounted, in any notation', async (t) => {
  const document = withProfile('{ configMap: { name: rights, key: p.yaml } }')
  for (const [text, wanted] of [
    ['permissionProfile: { filesystem: { write: [/data] } }', { filesystem: { write: [{ path: '/data' }] } }],
    [
      '{"write":["/data"],"network":{"outbound":{"allow_host":["a.b"]}}}',
      { network: { hosts: [{ name: 'a.b' }] } },
    ],
    ['inline: { allow: [{ network: { allowHost: [a.b] } }] }', { network: { hosts: [{ name: 'a.b' }] } }],
    ['builtin: none', { name: 'none' }],
  ] as const) {
    const loaded = await load(t, [document], { configMaps: { 'rights/p.yaml': text } })
    t.match(loaded.config.permissions, wanted, text)
    t.ok(
      loaded.files.some((file) => file.endsWith('configmaps/rights/p.yaml')),
      'and watched',
    )
    t.ok(
      loaded.config.protectedPaths.some((path) => path.endsWith('configmaps')),
      'and protected',
    )
  }
  const variable = await load(t, [document], {
    env: { MCP_SIDECAR_CONFIGMAP_RIGHTS__P_YAML: 'builtin: none' },
  })
  t.equal(variable.config.permissions?.name, 'none')
  for (const [text, wanted] of [
    [
      'filesystem: { read: [a] }',
      /^rights\/p\.yaml:1:22: filesystem\.read\[0\]: "a" is not an absolute path/,
    ],
    [
      'configMap: { name: a, key: b }',
      /^rights\/p\.yaml:1:12: configMap: names a ConfigMap, which only an MCPServer can: write the profile out$/,
    ],
    ['', /^rights\/p\.yaml:1:1: is empty/],
  ] as const)
    t.match(await problems(t, [document], { configMaps: { 'rights/p.yaml': text } }), [wanted], text)
  t.match(await problems(t, [document]), [/ConfigMap rights, key p\.yaml/])
  const optional = withProfile('{ configMap: { name: rights, key: p.yaml, optional: true } }')
  t.match(await problems(t, [optional]), [/ConfigMap rights, key p\.yaml/], 'optional would mean unconfined')
})

t.test('flag and file come before the document, which is then said to be passed over', async (t) => {
  const document = withProfile('{ builtin: full-access }')
  const loaded = await load(t, [document], { flags: { permissions: 'none' } })
  t.equal(loaded.config.permissions?.name, 'none')
  t.same(loaded.config.policy.notEnforced, [
    'permissionProfile (full-access) of MCPServer team-a/github: --permissions says another one instead',
  ])
  const own = await load(t, [document], { config: 'permissions: network\n' })
  t.equal(own.config.permissions?.name, 'network')
})

t.test('what is wrong in a document is said at its place', async (t) => {
  for (const [profile, wanted] of [
    [
      '{ inline: { allow: [{ network: { allowHost: ["a.*"] } }] } }',
      /^m\.yaml:6:67: document 1 \(MCPServer team-a\/github\): spec\.permissionProfile\.inline\.allow\[0\]\.network\.allowHost\[0\]: "a\.\*" has a \*/,
    ],
    ['{ inline: { read: [notes] } }', /^m\.yaml:6:41: .*inline\.read\[0\]: "notes" is not an absolute path/],
    [
      '{ inline: { allow: [{ network: { allowHost: [a] } }], network: { outbound: { allowPort: [1] } } } }',
      /inline\.network\.outbound\.allowPort: would count for the hosts in allow, too/,
    ],
    ['{ inline: { deny: [] } }', /inline: unknown key/],
  ] as const)
    t.match(await problems(t, [withProfile(profile)]), [wanted], profile)
})
