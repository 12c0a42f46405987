/** A server that recites results byte for byte, and what it was asked. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { serverCommand } from './modern.ts'
import { folder } from './processes.ts'

export interface Recital {
  readonly command: readonly string[]
  /** Every line that any process of it has read. */
  record(): string
}

/** A server of this era; @param texts the result of each method, as it is to be spelled */
export function recital(t: Test, era: 'legacy' | 'modern', texts: Readonly<Record<string, string>>): Recital {
  const place = folder(t)
  const [results, record] = [join(place, 'results.json'), join(place, 'record')]
  const capabilities =
    '"capabilities":{"tools":{},"prompts":{},"resources":{"subscribe":true},"completions":{}}'
  const info = '{"name":"recital","version":"1"}'
  const hints = '"resultType":"complete","ttlMs":0,"cacheScope":"public"'
  const own = {
    legacy: {
      initialize: `{"protocolVersion":"$VERSION",${capabilities},"serverInfo":${info}}`,
      ping: '{}',
    },
    modern: {
      'server/discover': `{${hints},"supportedVersions":["2026-07-28"],${capabilities},"_meta":{"io.modelcontextprotocol/serverInfo":${info}}}`,
    },
  }
  writeFileSync(results, JSON.stringify({ ...own[era], ...texts }))
  writeFileSync(record, '')
  return {
    command: serverCommand('recital-server.mjs', results, record),
    record: () => readFileSync(record, 'utf8'),
  }
}
