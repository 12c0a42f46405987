/**
 * What a legacy server asks its client, as what a modern server asks: input requests under keys (2026-07-28,
 * basic/patterns/mrtr).
 */
import type { Capabilities } from '../core/envelope.ts'
import { elements, member, members, removal } from '../core/json.ts'
import type { Message } from '../core/jsonrpc.ts'

export type QuestionKind = 'elicitation' | 'sampling' | 'roots'

export interface Question {
  /** Among the input requests of its call. */
  readonly key: string
  /** The server's id for it, as JSON text; undefined for one that no request of the server stands behind. */
  readonly idText: string | undefined
  readonly kind: QuestionKind
  /** The capabilities a client must have declared to be asked this. */
  readonly needs: Capabilities
  /** The input request as JSON text: method and params. */
  readonly text: string
}

const kinds: Readonly<Record<string, QuestionKind>> = {
  'elicitation/create': 'elicitation',
  'sampling/createMessage': 'sampling',
  'roots/list': 'roots',
}

/** A request of a legacy server; undefined if clients of no era know how to answer it. */
export function questionOf(message: Message, key: string): Question | undefined {
  const kind = Object.hasOwn(kinds, message.method) ? kinds[message.method] : undefined
  if (kind === undefined) return undefined
  const text = `{"method":${JSON.stringify(message.method)}${paramsText(message)}}`
  return { key, idText: message.idText, kind, needs: needsOf(kind, message), text }
}

/** Without what only the server's own protocol version has a use for. */
function paramsText(message: Message): string {
  if (message.params === undefined) return ''
  const parts = members(message.bytes, message.params)
  const own = ['_meta', 'elicitationId', 'task']
  const edits = removal(parts, ({ key }) => own.includes(key))
  const { start, end } = message.params
  let text = ''
  let at = start
  for (const edit of edits) {
    text += message.bytes.toString('utf8', at, edit.start)
    at = edit.end
  }
  return `,"params":${text}${message.bytes.toString('utf8', at, end)}`
}

function needsOf(kind: QuestionKind, message: Message): Capabilities {
  const param = (name: string) => member(message.bytes, message.params, name)
  if (kind === 'roots') return { roots: {} }
  if (kind === 'elicitation') {
    return { elicitation: message.string(param('mode')) === 'url' ? { url: {} } : { form: {} } }
  }
  const tools = param('tools')
  return { sampling: tools !== undefined && elements(message.bytes, tools).length > 0 ? { tools: {} } : {} }
}

/** The entries of a -32042 error: what a user must do at some URL before the call can succeed (2025-11-25). */
export function urlQuestions(error: Message): Question[] | undefined {
  const { bytes } = error
  const data = member(bytes, error.error, 'data')
  const entries = member(bytes, data, 'elicitations')
  if (entries === undefined) return undefined
  const texts = elements(bytes, entries).flatMap((entry): string[] => {
    const url = error.string(member(bytes, entry, 'url'))
    const message = error.string(member(bytes, entry, 'message')) ?? ''
    if (url === undefined) return []
    return [JSON.stringify({ method: 'elicitation/create', params: { mode: 'url', message, url } })]
  })
  if (texts.length === 0) return undefined
  return texts.slice(0, maxQuestions).map((text, i) => urlQuestion(`q${i + 1}`, text))
}

/** @param text the input request as JSON text */
export function urlQuestion(key: string, text: string): Question {
  return { key, idText: undefined, kind: 'elicitation', needs: { elicitation: { url: {} } }, text }
}

/** Of one call at one time. */
export const maxQuestions = 100

/** What of the needed capabilities a client has not declared; undefined if it has them all. */
export function missingCapability(needs: Capabilities, declared: Capabilities): Capabilities | undefined {
  for (const [name, parts] of Object.entries(needs)) {
    const own = declared[name]
    if (typeof own !== 'object' || own === null) return needs
    // An elicitation capability that names no mode is that for forms.
    const implied = name === 'elicitation' && !Object.hasOwn(own, 'url') ? { form: {}, ...own } : own
    for (const part of Object.keys(parts as object)) if (!Object.hasOwn(implied, part)) return needs
  }
  return undefined
}

/** What the questions need of a client, in one object. */
export function allNeeds(questions: readonly Question[]): Capabilities {
  const all: Record<string, Record<string, unknown>> = {}
  for (const { needs } of questions) {
    for (const [name, parts] of Object.entries(needs)) all[name] = { ...all[name], ...(parts as object) }
  }
  return all
}

/** Answers of a retry by key, as JSON text; a value that is no answer to its question is left out. */
export function answersOf(message: Message, questions: readonly Question[]): ReadonlyMap<string, string> {
  const answers = new Map<string, string>()
  const at = message.paramSpans.inputResponses
  if (at === undefined) return answers
  const byKey = new Map(questions.map((question) => [question.key, question]))
  for (const { key, value } of members(message.bytes, at)) {
    const question = byKey.get(key)
    const text = message.text(value)
    if (question !== undefined && isAnswer(question.kind, text)) answers.set(key, text)
  }
  return answers
}

function isAnswer(kind: QuestionKind, text: string): boolean {
  const value: unknown = JSON.parse(text)
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false
  const { action, role, content, model, roots } = value as Record<string, unknown>
  if (kind === 'elicitation') return action === 'accept' || action === 'decline' || action === 'cancel'
  if (kind === 'roots') return Array.isArray(roots)
  return (
    typeof role === 'string' && typeof content === 'object' && content !== null && typeof model === 'string'
  )
}

/** The client agreed to what it was asked. */
export function isAccepted(answer: string): boolean {
  return (JSON.parse(answer) as { action?: unknown }).action === 'accept'
}

/** An `input_required` result as JSON text, without the id. */
export function inputRequired(questions: readonly Question[], requestState: string): string {
  const requests = questions.map(({ key, text }) => `${JSON.stringify(key)}:${text}`).join(',')
  const state = JSON.stringify(requestState)
  return `{"resultType":"input_required","inputRequests":{${requests}},"requestState":${state}}`
}
