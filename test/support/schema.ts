/** Whether a message is what the official schema of a protocol version says it must be. */
import { createRequire } from 'node:module'
import type { ErrorObject, ValidateFunction } from 'ajv'
import { definitionsOf, type Schema, schemas, type Version } from './schemas.ts'

export interface Fault {
  /** The definition in the schema, and the rule in it that was broken. */
  readonly schema: string
  /** Where in the message, as a JSON pointer. */
  readonly at: string
  readonly what: string
}

export interface Asked {
  readonly method: string
  readonly params?: unknown
}

export interface WireContext {
  readonly version: Version
  /** Who is meant to have said it. */
  readonly from: 'client' | 'server'
  /** What a response answers, if that is known. */
  readonly asked?: ((id: unknown) => Asked | undefined) | undefined
}

// biome-ignore lint/suspicious/noExplicitAny: messages of any shape are looked into
type Json = any

/** Everything that is wrong with it; nothing for methods the version does not define, beyond their envelope. */
export function checkWire(message: unknown, context: WireContext): Fault[] {
  const rules = rulesOf(context.version)
  if (Array.isArray(message)) {
    if (!rules.batches) return [fault('JSONRPCMessage', '', `${context.version} has no batches`)]
    if (message.length === 0) return [fault('JSONRPCMessage', '', 'an empty batch')]
    return message.flatMap((element, i) =>
      checkWire(element, context).map((found) => ({ ...found, at: `/${i}${found.at}` })),
    )
  }
  if (typeof message !== 'object' || message === null) {
    return [fault('JSONRPCMessage', '', 'neither an object nor a batch')]
  }
  const { method, id, result, error } = message as Json
  if (typeof method === 'string') {
    const envelope = rules.check(id === undefined ? 'JSONRPCNotification' : 'JSONRPCRequest', message)
    if (envelope.length > 0) return envelope
    const defined = (id === undefined ? rules.notifications : rules.requests)[context.from].get(method)
    return defined === undefined ? [] : rules.check(defined, message)
  }
  if (error !== undefined) return checkError(rules, message as Json)
  if (result === undefined) return [fault('JSONRPCMessage', '', 'neither a call nor an answer')]
  const envelope = rules.check(rules.name('JSONRPCResultResponse', 'JSONRPCResponse'), message)
  if (envelope.length > 0) return envelope
  return checkResult(rules, result, context.asked?.(id))
}

function checkError(rules: Rules, message: Json): Fault[] {
  if ('result' in message) return [fault('JSONRPCMessage', '', 'both a result and an error')]
  const name = rules.errors.get(message.error?.code) ?? rules.name('JSONRPCErrorResponse', 'JSONRPCError')
  // Before 2025-11-25 every error must name a request. One about a message that could not be read cannot.
  const sound = message.id === undefined && !rules.anonymousErrors ? { ...message, id: 0 } : message
  return rules.check(name, sound)
}

function checkResult(rules: Rules, result: Json, asked: Asked | undefined): Fault[] {
  const own = asked === undefined ? undefined : rules.results.get(asked.method)
  if (own === undefined) return []
  if (result?.resultType === 'input_required') {
    return own.mayAsk
      ? rules.check('InputRequiredResult', result, '/result')
      : [fault(own.name, '/result/resultType', `${asked?.method} cannot require input`)]
  }
  // A server may answer with a task: in 2025-11-25 when one was asked for, later by an extension the schema has not.
  if (result?.resultType === 'task') return []
  const isTask = (asked?.params as Json)?.task !== undefined && result?.task !== undefined
  return rules.check(
    isTask && rules.has('CreateTaskResult') ? 'CreateTaskResult' : own.name,
    result,
    '/result',
  )
}

function fault(schema: string, at: string, what: string): Fault {
  return { schema, at, what }
}

/** Which definition of a schema is meant for which message. */
interface Rules {
  /** By method, as far as this side may send it. */
  readonly requests: Readonly<Record<'client' | 'server', ReadonlyMap<string, string>>>
  readonly notifications: Readonly<Record<'client' | 'server', ReadonlyMap<string, string>>>
  /** By the method they answer. */
  readonly results: ReadonlyMap<string, { readonly name: string; readonly mayAsk: boolean }>
  /** By code. */
  readonly errors: ReadonlyMap<unknown, string>
  readonly batches: boolean
  readonly anonymousErrors: boolean
  has(name: string): boolean
  /** The first that is defined. */
  name(...names: readonly string[]): string
  check(name: string, value: unknown, at?: string): Fault[]
}

const known = new Map<Version, Rules>()

function rulesOf(version: Version): Rules {
  let rules = known.get(version)
  if (rules === undefined) {
    rules = buildRules(schemas()[version])
    known.set(version, rules)
  }
  return rules
}

function buildRules(schema: Schema): Rules {
  const names = definitionsOf(schema)
  const key = '$defs' in schema ? '$defs' : 'definitions'
  const sent = (union: string): Map<string, string> => {
    const methods = new Map<string, string>()
    const add = (name: string): void => {
      const { anyOf, properties } = names[name] ?? {}
      if (properties?.method?.const !== undefined) methods.set(properties.method.const, name)
      for (const { $ref } of anyOf ?? []) add($ref.slice($ref.lastIndexOf('/') + 1))
    }
    add(union)
    return methods
  }
  const results = new Map<string, { name: string; mayAsk: boolean }>()
  const errors = new Map<unknown, string>()
  for (const [name, { properties }] of Object.entries(names) as [string, Schema][]) {
    for (const { properties: parts } of properties?.['error']?.allOf ?? []) {
      if (parts?.code?.const !== undefined) errors.set(parts.code.const, name)
    }
    const method = properties?.['method']?.const
    if (method === undefined || !name.endsWith('Request')) continue
    const stem = name.slice(0, -'Request'.length)
    const mayAsk = JSON.stringify(names[`${stem}ResultResponse`] ?? '').includes('/InputRequiredResult"')
    results.set(method, { name: `${stem}Result` in names ? `${stem}Result` : 'EmptyResult', mayAsk })
  }
  const compiled = new Map<string, ValidateFunction>()
  let ajv: Compiler | undefined
  return {
    requests: { client: sent('ClientRequest'), server: sent('ServerRequest') },
    notifications: { client: sent('ClientNotification'), server: sent('ServerNotification') },
    results,
    errors,
    batches: 'JSONRPCBatchRequest' in names,
    anonymousErrors: 'JSONRPCErrorResponse' in names,
    has: (name) => name in names,
    name: (...candidates) => candidates.find((name) => name in names) as string,
    check: (name, value, at = '') => {
      let validate = compiled.get(name)
      if (validate === undefined) {
        ajv ??= compilerFor(schema)
        validate = ajv.compile({ $ref: `${ajv.base}#/${key}/${name}` })
        compiled.set(name, validate)
      }
      return validate(value)
        ? []
        : (validate.errors ?? []).slice(0, 8).map((error) => faultOf(name, at, error))
    },
  }
}

function faultOf(
  name: string,
  at: string,
  { instancePath, schemaPath, message, params }: ErrorObject,
): Fault {
  const detail = 'allowedValue' in params || 'allowedValues' in params ? ` ${JSON.stringify(params)}` : ''
  // A rule is named from the definition it stands in.
  const rule = schemaPath.replace(/^.*#\/(?:\$defs|definitions)\//, '')
  return {
    schema: rule.startsWith(`${name}/`) ? rule : `${name} > ${rule}`,
    at: `${at}${instancePath}`,
    what: `${message ?? 'is invalid'}${detail}`,
  }
}

interface Compiler {
  readonly base: string
  compile(schema: Schema): ValidateFunction
}

/** Loaded when the first message is checked: most of what it costs is loading. */
function compilerFor(schema: Schema): Compiler {
  const require = createRequire(import.meta.url)
  const draft2020 = String(schema['$schema']).includes('2020-12')
  const { default: Ajv } = require(draft2020 ? 'ajv/dist/2020.js' : 'ajv') as typeof import('ajv')
  const { default: addFormats } = require('ajv-formats') as typeof import('ajv-formats')
  const ajv = new Ajv({ strict: false, allErrors: true, validateSchema: false, logger: false })
  addFormats(ajv)
  // Base64 of which the protocol does not say how it is broken into lines.
  ajv.addFormat('byte', true)
  const base = 'mcp://schema'
  ajv.addSchema({ ...schema, $id: base })
  return { base, compile: (part) => ajv.compile(part) }
}
