/** Refusals of the door side by side: what they look like from outside, and why they were made. */
import { setTimeout } from 'node:timers/promises'
import type { RawAnswer } from './raw.ts'
import type { LogLine } from './sidecar.ts'
import { alike } from './ways-in.ts'
import type { RawResponse } from './wire.ts'

/** A refusal and its reason as the log has it, which writes a few in a second alone: until then it is asked again. */
export async function explained<
  T extends { readonly headers: RawResponse['headers'] | RawAnswer['headers'] },
>(logs: readonly LogLine[], ask: () => Promise<T>): Promise<{ answer: T; why: unknown }> {
  const end = performance.now() + 10_000
  for (;;) {
    const answer = await ask()
    const id = answer.headers['x-request-id']
    const line = logs.find(({ text, fields }) => text === 'request refused' && fields['requestId'] === id)
    if (line !== undefined) return { answer, why: line.fields['detail'] }
    if (performance.now() > end) throw new Error(`the log does not say why: ${JSON.stringify(answer)}`)
    await setTimeout(100)
  }
}

/** All of an answer but what the length of its request id changes, for a comparison. */
export function shapeOf(answer: RawResponse): string {
  const { 'content-length': _, ...headers } = answer.headers
  return JSON.stringify(alike({ ...answer, headers }))
}
