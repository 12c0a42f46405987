import { basename, dirname } from 'node:path'
import type { CedarPolicy } from '../core/policy.ts'
import type { cedarType } from './authz-values.ts'
import { explainReadError, type ReadFile } from './disk.ts'
import type { Problem } from './error.ts'
import { dotted, type Setting } from './layer.ts'
import { defaulted, object, required, type TypeOf } from './object.ts'
import { good, type Path } from './parsed.ts'
import { choice, list, text, type ValueType } from './values.ts'
import { word } from './words.ts'

type CedarSettings = TypeOf<typeof cedarType>

const DEFAULT_GROUP_TYPE = 'THVGroup'
const policyText = text('Cedar policies', {}, good)

/** Entities, as text or written out. */
const entities: ValueType<string> = {
  name: 'JSON text',
  json: { type: ['string', 'array'] },
  parse: (input) => (Array.isArray(input) ? good(JSON.stringify(input)) : entitiesText.parse(input)),
  parseText: (input) => entitiesText.parse(input),
  show: () => '(entities)',
}

const entitiesText = text('JSON text', {}, (input) => {
  const message = entitiesProblem(input)
  return message === undefined ? good(input) : { ok: false, faults: [{ path: [], message }] }
})

function entitiesProblem(input: string): string | undefined {
  try {
    return Array.isArray(JSON.parse(input)) ? undefined : 'must be a JSON array of entities'
  } catch {
    return 'is not valid JSON'
  }
}

const optionalWord = {
  ...word('text'),
  parse: (input: unknown) => (input === '' ? good('') : word('text').parse(input)),
}

/** The `cedar` member of ToolHive's file (`docs/authz.md` there). */
export const toolhiveCedar = object({
  policies: required(list(policyText, 1), 'The policies.'),
  entities_json: defaulted(entities, '[]', 'Entities, as JSON text.'),
  group_claim_name: defaulted(optionalWord, '', 'Claim with the groups.'),
  role_claim_name: defaulted(optionalWord, '', 'Claim with roles.'),
  group_entity_type: defaulted(optionalWord, '', 'Entity type of groups.'),
  multi_valued_claims: defaulted(list(word('text')), [], 'Claims that are sets.'),
})

/** ToolHive's file as a whole. */
export const toolhiveFile = object({
  version: required(word('text'), 'Version of the form, `1.0`.'),
  type: required(choice('cedarv1'), 'The form.'),
  cedar: required(toolhiveCedar, 'Policies and entities.'),
})

/** What of a Cedar policy stands in other places than ToolHive's file. */
export interface CedarFrame {
  readonly server: string
  readonly schema: string | undefined
  readonly decimalNumbers: boolean
}

/** @param name what the policies are called in errors, each with its number */
export function toolhivePolicy(
  cedar: TypeOf<typeof toolhiveCedar>,
  name: string,
  frame: CedarFrame,
): CedarPolicy {
  const filled = (value: string): string | undefined => (value === '' ? undefined : value)
  return {
    policies: cedar.policies.map((each, index) => ({ name: `${name} policies[${index}]`, text: each })),
    entities: cedar.entities_json,
    groupClaim: filled(cedar.group_claim_name),
    roleClaim: filled(cedar.role_claim_name),
    groupEntityType: filled(cedar.group_entity_type) ?? DEFAULT_GROUP_TYPE,
    multiValuedClaims: cedar.multi_valued_claims,
    ...frame,
  }
}

/** Reads what the settings name. What is wrong goes to `problems`; undefined when nothing can be made of it. */
export async function ownCedar(
  settings: CedarSettings,
  { at }: Pick<Setting, 'at'>,
  server: string,
  read: ReadFile,
  problems: Problem[],
): Promise<CedarPolicy | undefined> {
  const before = problems.length
  const textOf = async (file: string, path: Path): Promise<string> => {
    try {
      return await read(file)
    } catch (error) {
      const message = `the file of ${dotted('authorization.cedar', path)} ${explainReadError(error)} (looked in ${dirname(file)})`
      problems.push({ where: at(path), message })
      return ''
    }
  }
  const { configFile, schemaFile, entitiesFile, decimalNumbers } = settings
  const schema = schemaFile === undefined ? undefined : await textOf(schemaFile, ['schemaFile'])
  const frame: CedarFrame = { server: settings.server ?? server, schema, decimalNumbers }
  if (configFile !== undefined) {
    const content = await textOf(configFile, ['configFile'])
    if (problems.length > before) return undefined
    const { readValue } = await import('./read-value.ts')
    const parsed = readValue(toolhiveFile, content, basename(configFile))
    if (parsed.ok) return toolhivePolicy(parsed.value.cedar, basename(configFile), frame)
    problems.push(...parsed.problems)
    return undefined
  }
  const files = await Promise.all(
    settings.policyFiles.map(async (file, index) => ({
      name: nameOf(file, settings.policyFiles),
      text: await textOf(file, ['policyFiles', index]),
    })),
  )
  const inline = settings.policies.map((each, index) => ({
    name: `authorization.cedar.policies[${index}]`,
    text: each,
  }))
  const entities = entitiesFile === undefined ? '[]' : await textOf(entitiesFile, ['entitiesFile'])
  if (problems.length > before) return undefined
  const wrong = entitiesProblem(entities)
  if (wrong !== undefined) {
    problems.push({ where: at(['entitiesFile']), message: `the file named here ${wrong}` })
    return undefined
  }
  return {
    policies: [...files, ...inline],
    entities,
    groupClaim: settings.groupClaim,
    roleClaim: settings.roleClaim,
    groupEntityType: settings.groupEntityType ?? DEFAULT_GROUP_TYPE,
    multiValuedClaims: settings.multiValuedClaims ?? [],
    ...frame,
  }
}

/** The last part of the path, as long as it says which file is meant. */
function nameOf(file: string, all: readonly string[]): string {
  const name = basename(file)
  return all.filter((other) => basename(other) === name).length > 1 ? file : name
}
