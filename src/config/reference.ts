import type { Field } from './field.ts'
import { FIELDS, fieldList } from './fields.ts'
import { CONFIG_FLAG, type FlagSpec, flagOf, VARIABLES } from './flags.ts'
import { SECTIONS } from './headings.ts'
import { RULES } from './rules.ts'

/** A file as it is typically written; the reference shows it. */
export const EXAMPLE = `server:
  command: [node, /srv/mcp/server.js]
  env:
    allow: [GITHUB_TOKEN]
    set:
      LOG_LEVEL: warn
listen:
  host: 0.0.0.0
  port: 8080
  allowedHosts: [mcp.example.com]
  allowedOrigins: ['https://app.example.com']
auth:
  resource: https://mcp.example.com/mcp
  bearer:
    tokenFile: ./tokens
  oidc:
    issuer: https://login.example.com
permissions:
  filesystem: { read: [/srv/mcp], write: [/srv/data] }
  network: { allowHost: [api.example.com], allowPort: [443] }
authorization:
  rules:
    - principals: ['group:dev', 'serviceaccount:ci/runner']
      tools: ['search_*']
rateLimits:
  - { per: user, requests: 60, window: 1m }
limits:
  requestBody: 1MiB
  requestTimeout: 2m
log:
  level: debug
`

const INTRODUCTION = `<!-- Generated from src/config/*-fields.ts: node dist/bin/mcp-sidecar.js schema --format markdown > docs/configuration.md -->

# Configuration

Only the command of the server is required. A value is taken from the first of these that gives it: the flag, the
\`MCP_SIDECAR_*\` variable, the file (\`${CONFIG_FLAG.flag} ${CONFIG_FLAG.placeholder}\` or \`${CONFIG_FLAG.variable}\`), the default.
A list is replaced as a whole, not added to.

\`mcp-sidecar validate\` reports everything that is wrong at once, with its place, and otherwise prints each value with
its origin. \`mcp-sidecar schema\` prints the JSON Schema of the file, from which editors complete.

* **Durations** are whole numbers with a unit: \`250ms\`, \`60s\`, \`10m\`, \`1h\`, \`1d\`. **Sizes** too: \`64KiB\`, \`4MiB\`, \`1GiB\`
  (1024), or \`KB\`, \`MB\`, \`GB\` (1000), or \`B\`. A number without a unit is refused.
* **Relative paths** start at the folder of the file in the file, and at the current folder in flags and variables.
* **Lists** are one flag for each item, and items between commas in a variable.
* **An unknown key, flag or variable** is an error, and so is an empty variable. Variables that Kubernetes sets for a Service
  whose name begins with \`mcp-sidecar\` are passed over.
* **OME documents** (\`--manifest\`) are files of their own. What they say comes on top: every layer of authentication and
  authorization must be met, and every rate limit holds. \`mcp-sidecar validate --explain\` prints what results.
* The file is one document of YAML 1.2 in UTF-8, at most 1 MiB and 5000 keys and list items, without tags. \`yes\`, \`no\`, \`on\` and \`off\` are text.
`

function row(cells: readonly string[]): string {
  return `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  return [row(head), row(head.map(() => '---')), ...rows.map(row)].join('\n')
}

function fallbackOf(field: Field<unknown>): string {
  if ('means' in field) return field.means
  if ('inherits' in field) return `\`${FIELDS[field.inherits].file}\``
  const plain = typeof field.default === 'object' ? JSON.stringify(field.default) : String(field.default)
  return `\`${plain}\``
}

function parent(file: string): string {
  return file.split('.').slice(0, -1).join('.')
}

function section(path: string): string {
  const fields = fieldList.map(([, field]) => field)
  // `auth: none` stands for a section, so it is described with it.
  const inside = fields.filter(({ file }) => file === path || (parent(file) === path && !(file in SECTIONS)))
  const rows = inside.map((field) => [`\`${field.file}\``, field.type.name, fallbackOf(field), field.doc])
  const heading = path === '' ? '## The file itself' : `## ${path}`
  const values = rows.length === 0 ? [] : [table(['Key', 'Value', 'Default', 'Meaning'], rows)]
  values.push(...inside.flatMap(memberTable))
  return [heading, path === '' ? 'Keys that stand in no section.' : SECTIONS[path], ...values].join('\n\n')
}

/** The members of a value that has some. */
function memberTable({ file, type }: Field<unknown>): readonly string[] {
  const { members = [] } = type
  if (members.length === 0) return []
  const rows = members.map(({ suffix, type: name, fallback, doc }) => [
    `\`${file}${suffix}\``,
    name,
    fallback,
    doc,
  ])
  return [`### ${file}`, table(['Key', 'Value', 'Default', 'Meaning'], rows)]
}

function usage({ flag, placeholder, repeatable }: FlagSpec): string {
  return `\`${flag}${placeholder === undefined ? '' : ` ${placeholder}`}\`${repeatable ? ', repeatable' : ''}`
}

function flagTable(): string {
  const rows = [...VARIABLES].map(([variable, key]) => {
    if (key === undefined) return ['the file', usage(CONFIG_FLAG), `\`${variable}\``]
    const field: Field<unknown> = FIELDS[key]
    const spec = flagOf(field)
    const without = key === 'server.command' ? '`-- COMMAND [ARG...]`' : ''
    return [`\`${field.file}\``, spec === undefined ? without : usage(spec), `\`${variable}\``]
  })
  return table(['Setting', 'Flag', 'Variable'], rows)
}

/**
 * docs/configuration.md, made from the table of the fields: what every value means, its default and limits, its flag and
 * its variable, and the rules between values.
 */
export function configurationReference(): string {
  const paths = Object.keys(SECTIONS).filter((path) => path !== '')
  return `${[
    INTRODUCTION,
    `\`\`\`yaml\n${EXAMPLE}\`\`\``,
    '## Flags and variables',
    flagTable(),
    '`MCP_SIDECAR_COMMAND` is a JSON array (`["node","server.js"]`), or words between blanks without any quotes.',
    ...paths.map(section),
    section(''),
    '## Rules between values',
    RULES.map(({ doc }) => `* ${doc}`).join('\n'),
  ].join('\n\n')}\n`.replaceAll(/\n{3,}/g, '\n\n')
}
