import { capabilitiesType } from '../authz-values.ts'
import { checked, defaulted, object, optional, required, type TypeOf } from '../object.ts'
import { bad, good, kindOf } from '../parsed.ts'
import { omeSettings } from '../permissions/ome.ts'
import { choice, integer, list, text, type ValueType } from '../values.ts'
import { word } from '../words.ts'
import { authzConfig, oidcConfig } from './authz-values.ts'
import { reference } from './values.ts'

/** What another program owns; it is there or not. */
export const anything: ValueType<unknown> = {
  name: 'anything',
  json: {},
  parse: good,
  parseText: good,
  show: kindOf,
}

const owned = optional(anything, 'none', 'Of the operator.')

const NAME = /^[A-Za-z_][A-Za-z0-9_]*$/

const environmentEntry = object(
  {
    name: required(
      text('name', {}, (input) => (NAME.test(input) ? good(input) : bad('is not the name of a variable'))),
      'Name of the variable.',
    ),
    value: optional(
      {
        ...anything,
        parse: (input: unknown) => (typeof input === 'string' ? good(input) : bad('must be text')),
      } as ValueType<string>,
      'empty',
      'Its value.',
    ),
    valueFrom: optional(
      object(
        {
          secretKeyRef: optional(reference, 'none', 'A value in a Secret.'),
          configMapKeyRef: optional(reference, 'none', 'A value in a ConfigMap.'),
          fieldRef: owned,
          resourceFieldRef: owned,
        },
        { one: [['secretKeyRef', 'configMapKeyRef', 'fieldRef', 'resourceFieldRef']], open: true },
      ),
      'none',
      'Where its value is.',
    ),
  },
  { open: true, most: [['value', 'valueFrom']] },
)

export type EnvironmentEntry = TypeOf<typeof environmentEntry>

const container = object(
  {
    name: required(word('text'), 'Name of the container.'),
    command: optional(list(text('words', {}, good)), 'none', 'The program.'),
    args: optional(list(wordOrEmpty()), 'none', 'Its arguments.'),
    env: defaulted(list(environmentEntry), [], 'Its variables.'),
    envFrom: owned,
    workingDir: owned,
  },
  { open: true },
)

/** An argument may be empty. */
function wordOrEmpty(): ValueType<string> {
  return {
    ...text('words', {}, good),
    parse: (input) =>
      typeof input === 'string'
        ? good(input)
        : bad(`must be text, not ${kindOf(input)}: put quotes around it`),
  }
}

/** The container of the server in a PodTemplateSpec. */
const podSpec = checked(
  object(
    {
      spec: required(
        object({ containers: required(list(container, 1), 'The containers.') }, { open: true }),
        'The pod.',
      ),
    },
    { open: true },
  ),
  ({ spec: { containers } }) =>
    containers.filter(({ name }) => name === 'mcp-server').length === 1
      ? []
      : [{ path: ['spec', 'containers'], message: 'exactly one of them must be named mcp-server' }],
)

const AT_CONTAINER = 'belongs to the container mcp-server in hosted.podSpec'

/** `spec` of an MCPServer. */
export const serverSpec = object(
  {
    hosted: optional(
      object({
        podSpec: required(podSpec, 'The pod of the server.'),
        replicas: optional(integer(0, 1_000_000), '1', 'How many pods.'),
      }),
      '`remote`',
      'A server in the cluster.',
    ),
    remote: optional(
      object({ url: required(text('URL', {}, good), 'Where it is.') }),
      '`hosted`',
      'A server elsewhere.',
    ),
    transport: defaulted(choice('stdio', 'streamable-http', 'sse'), 'stdio', 'What the server speaks.'),
    capabilities: optional(capabilitiesType, 'all', 'What is served.'),
    version: owned,
    permissionProfile: optional(omeSettings, 'none', 'Rights of the process.'),
    toolsFilter: optional(list(word('text'), 1), 'all', 'The only tools there are.'),
    oidcConfig: optional(oidcConfig, 'none', 'Authentication, in the form of ToolHive.'),
    authzConfig: optional(authzConfig, 'none', 'Cedar policies, in the form of ToolHive.'),
    serviceAccount: owned,
    secrets: owned,
    port: owned,
    targetPort: owned,
  },
  {
    one: [['hosted', 'remote']],
    known: { args: AT_CONTAINER, env: AT_CONTAINER, image: AT_CONTAINER },
    check: ({ hosted, remote, transport }) => {
      if (remote !== undefined || hosted === undefined) return []
      if (transport !== 'stdio')
        return [
          { path: ['transport'], message: `a sidecar serves servers that speak stdio, not ${transport}` },
        ]
      return (hosted.replicas ?? 1) > 1
        ? [{ path: ['hosted', 'replicas'], message: 'a stdio server has at most one replica' }]
        : []
    },
  },
)

export type ServerSpec = TypeOf<typeof serverSpec>
