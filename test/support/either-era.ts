/** What clients of both eras do with the same words, and how to compare what comes of it. */
import type { Json, Peer } from './clients.ts'
import type { Transcript } from './transcript.ts'

export const about = (method: string, text = '') => {
  return (message: Json): boolean =>
    message.method === method && (text === '' || JSON.stringify(message.params).includes(text))
}

export interface Watch {
  readonly uris?: readonly string[]
  /** Which lists. */
  readonly lists?: readonly ('tools' | 'prompts' | 'resources')[]
}

/** Has the client told of changes while it acts: by subscriptions of the one era or of the other. */
export async function watching<T>(peer: Peer, watch: Watch, act: () => Promise<T>): Promise<T> {
  const { uris = [], lists = [] } = watch
  if (peer.era === 'modern') {
    const filter = {
      ...(uris.length > 0 ? { resourceSubscriptions: uris } : {}),
      ...Object.fromEntries(lists.map((list) => [`${list}ListChanged`, true])),
    }
    const subscription = await peer.listen(filter)
    try {
      return await act()
    } finally {
      await subscription.close()
    }
  }
  for (const uri of uris) await peer.subscribe(uri)
  try {
    return await act()
  } finally {
    for (const uri of uris) await peer.unsubscribe(uri)
  }
}

/** What the client was asked while it acted, beside what came of it. */
export async function asking<T>(
  { user }: Peer,
  act: () => Promise<T>,
): Promise<{ result: T; asked: Json[] }> {
  const before = user.asked.length
  const result = await act()
  // A token for progress is the server's own affair.
  const asked = user.asked.slice(before).map(({ method, params: { _meta, ...params } = {} as Json }) => {
    return { method, params }
  })
  return { result, asked }
}

/** In the order of their texts: what goes on at once is asked in any order. */
export function inAnyOrder(messages: readonly Json[]): Json[] {
  return [...messages].sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1))
}

/** How the progress for a token and the result of its call came in. */
export function orderOf({ wire }: Peer, token: string | number): unknown[] {
  const { id } = wire.sent.findLast(({ params }) => params?._meta?.progressToken === token)
  return wire.received.flatMap((message) => {
    if (message.params?.progressToken === token) return [message.params.progress]
    return message.id === id && message.result !== undefined ? ['result'] : []
  })
}

const modernMembers: ReadonlySet<string> = new Set([
  'resultType',
  'ttlMs',
  'cacheScope',
  'io.modelcontextprotocol/serverInfo',
  'io.modelcontextprotocol/subscriptionId',
])
/** Of tasks, which do not cross eras, and what names a request of the one era only. */
const legacyMembers: ReadonlySet<string> = new Set(['tasks', 'execution', 'elicitationId', 'task'])

/** Without what belongs to one era only, by name, wherever it stands. */
export function inEitherEra(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(inEitherEra)
  if (typeof value !== 'object' || value === null) return value
  const kept = Object.entries(value)
    .filter(([key]) => !modernMembers.has(key) && !legacyMembers.has(key))
    .map(([key, each]) => [key, inEitherEra(each)] as const)
    .filter(([key, each]) => !(key === '_meta' && Object.keys(each as object).length === 0))
  return Object.fromEntries(kept)
}

/** Notifications that reach clients of both eras when they ask for them; of the others, one era hears unasked. */
const everywhere = /^notifications\/(?:progress|resources\/updated|resources\/list_changed) /

/** A transcript as a client of the other era would have got it. */
export function comparable({ steps, fromServer, errors }: Transcript): object {
  const channels = Object.entries(fromServer).filter(([channel]) => everywhere.test(channel))
  return inEitherEra({ steps, fromServer: Object.fromEntries(channels), errors }) as object
}
