import { bad, type Fault, good, kindOf, type Parsed, type Path, quote } from './parsed.ts'
import { list, text, type ValueType } from './values.ts'

/** What any program needs and no secret lives in: always passed to the server, whatever is configured. */
export const BASE_ENVIRONMENT: readonly string[] = [
  'HOME',
  'LANG',
  'LC_*',
  'LOGNAME',
  'PATH',
  'SHELL',
  'TERM',
  'TMPDIR',
  'TZ',
  'USER',
]

/**
 * Variables that make a loader, a runtime or a shell run other code than the command names. Whoever can choose their
 * value runs code as the server, so they are passed or set only with `server.env.allowDangerous`.
 */
export const DANGEROUS_VARIABLES: readonly string[] = [
  'BASH_ENV',
  'DOTNET_STARTUP_HOOKS',
  'DYLD_*',
  'ENV',
  'GCONV_PATH',
  'GLIBC_TUNABLES',
  'JAVA_TOOL_OPTIONS',
  'JDK_JAVA_OPTIONS',
  'LD_*',
  'NODE_OPTIONS',
  'NODE_PATH',
  'PERL5LIB',
  'PERL5OPT',
  'PYTHONHOME',
  'PYTHONPATH',
  'PYTHONSTARTUP',
  'RUBYLIB',
  'RUBYOPT',
  '_JAVA_OPTIONS',
]

/** True when some variable name fits both; each is a name or a beginning followed by `*`. */
export function overlaps(a: string, b: string): boolean {
  const [startA, startB] = [a.replace(/\*$/, ''), b.replace(/\*$/, '')]
  if (a !== startA && b !== startB) return startA.startsWith(startB) || startB.startsWith(startA)
  if (a !== startA) return startB.startsWith(startA)
  return b !== startB ? startA.startsWith(startB) : a === b
}

/** The entry of `DANGEROUS_VARIABLES` that `name` (or a beginning with `*`) can let through, if any. */
export function dangerousVariable(name: string): string | undefined {
  return DANGEROUS_VARIABLES.find((dangerous) => overlaps(name, dangerous))
}

const NAME = /^[A-Za-z_][A-Za-z0-9_]*$/

/** @param values where values are set, for those who write one here */
export function passedNames(values: string): ValueType<readonly string[]> {
  return list(text('variable names, a final `*` for any rest', {}, (input) => passedName(input, values)))
}

function passedName(input: string, values: string): Parsed<string> {
  if (input === '*')
    return bad('"*" would pass everything, the secrets of the sidecar too: name the variables')
  const name = /^([^=]*)=/.exec(input)?.[1]
  if (name !== undefined)
    return bad(
      `only names stand here: write ${NAME.test(name) ? name : 'the name'}, values go into ${values}`,
    )
  if (!NAME.test(input.replace(/\*$/, '')))
    return bad(`${quote(input)} is not a variable name (letters, digits and _, a * only at the end)`)
  if (overlaps(input, 'MCP_SIDECAR_*'))
    return bad(`${quote(input)} would pass variables of the sidecar itself (MCP_SIDECAR_*)`)
  return good(input)
}

const ownNames = passedNames('server.env.set')

/** Names to pass on besides `BASE_ENVIRONMENT`. */
export const envAllow: ValueType<readonly string[]> = {
  ...ownNames,
  show: (names) => (names.length === 0 ? 'the base set' : `the base set, ${names.join(', ')}`),
}

function parseSet(input: unknown): Parsed<Readonly<Record<string, string>>> {
  if (typeof input !== 'object' || input === null || Array.isArray(input))
    return bad(`must be a section of NAME: value, not ${kindOf(input)}`)
  const faults: Fault[] = []
  const refuse = (path: Path, message: string): number => faults.push({ path, message })
  const entries: [string, string][] = []
  for (const [name, value] of Object.entries(input)) {
    // Values are not repeated: this is where secrets are put.
    if (!NAME.test(name)) refuse([name], `${quote(name)} is not a variable name (letters, digits and _)`)
    else if (typeof value !== 'string')
      refuse([name], `must be text, not ${kindOf(value)}: put quotes around it`)
    else if (value.includes('\0')) refuse([name], 'must not contain a NUL character')
    else entries.push([name, value])
  }
  return faults.length > 0 ? { ok: false, faults } : good(Object.fromEntries(entries))
}

/** Variables with their values, which may be secrets: neither errors nor `show` repeat them. */
export const envSet: ValueType<Readonly<Record<string, string>>> = {
  name: 'section of `NAME: text`',
  json: { type: 'object', propertyNames: { pattern: NAME.source }, additionalProperties: { type: 'string' } },
  parse: parseSet,
  parseText: () => bad('can be set only in the file'),
  show: (variables) => {
    const names = Object.keys(variables)
    return names.length === 0 ? 'none' : names.map((name) => `${name}=(not shown)`).join(', ')
  },
}
