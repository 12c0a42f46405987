import { rateDimensions } from '../core/policy.ts'
import { checked, defaulted, object, optional, required, type TypeOf } from './object.ts'
import { choice, duration, integer, list, path, type ValueType } from './values.ts'
import { globText, redisUrl, word } from './words.ts'

export const rateLimit = object({
  name: optional(word('text'), '`limit-1` and so on', 'Names the limit in logs, errors and the audit log.'),
  per: required(
    choice(...rateDimensions),
    'What is counted apart: the user (of callers that are none, the caller), the client address (IPv6 by /64), the tool, the caller of any kind, or the Kubernetes namespace.',
  ),
  tools: defaulted(
    list(globText),
    [],
    'Only calls of these tools count, `*` for any text. Empty: every request; for `tool` every call of a tool.',
  ),
  requests: required(integer(1, 1_000_000_000), 'How many requests are served in one window.'),
  window: required(duration('1s', '24d'), 'How long a window is.'),
})

/** Limits, no two of the same name. */
export const rateLimitList: ValueType<readonly TypeOf<typeof rateLimit>[]> = checked(
  list(rateLimit, 1),
  (limits) =>
    limits.flatMap(({ name }, index) =>
      name !== undefined && limits.findIndex((other) => other.name === name) < index
        ? [{ path: [index, 'name'], message: 'is the name of an earlier limit, too' }]
        : [],
    ),
)

export const rateStoreType = object({
  redis: required(
    object(
      {
        url: required(redisUrl, 'Where Redis is; no password in it.'),
        passwordFile: optional(path('file'), 'no password', 'File with the password.'),
        caFile: optional(
          path('file'),
          'the roots of Node.js',
          'PEM file of the certification authorities of a `rediss://` server.',
        ),
        prefix: defaulted(
          word('text'),
          'mcp-sidecar',
          'What the keys begin with; sidecars with the same one share their limits.',
        ),
        whenAway: defaulted(
          choice('local', 'refuse'),
          'local',
          'While Redis is away: `local` counts in this process, `refuse` answers 503.',
        ),
        timeout: defaulted(duration('10ms', '10s'), '500ms', 'Longest time for one answer of Redis.'),
      },
      {
        check: ({ url, caFile }) =>
          caFile !== undefined && url.startsWith('redis://')
            ? [{ path: ['caFile'], message: 'needs TLS: write rediss:// in url' }]
            : [],
      },
    ),
    'A Redis server that several sidecars count in together.',
  ),
})

export const timeoutRule = object(
  {
    methods: defaulted(list(globText), [], 'MCP methods, `*` for any text. Empty: `tools/call`.'),
    tools: defaulted(list(globText), [], 'Names of tools, `*` for any text. Empty: any.'),
    timeout: required(
      duration('100ms', '7d'),
      'Longest time without an answer or progress, instead of `limits.requestTimeout`.',
    ),
    maxTimeout: optional(
      duration('100ms', '7d'),
      '`limits.maxRequestTimeout`, or `timeout` if that is longer',
      'Longest time in all, instead of `limits.maxRequestTimeout`.',
    ),
  },
  {
    check: ({ methods, tools, timeout, maxTimeout }) => [
      ...(maxTimeout !== undefined && timeout > maxTimeout
        ? [{ path: ['timeout'], message: 'is longer than maxTimeout' }]
        : []),
      ...(tools.length > 0 && methods.length > 0 && !methods.includes('tools/call')
        ? [
            {
              path: ['tools'],
              message: 'are called by tools/call: put it into methods, or leave methods out',
            },
          ]
        : []),
    ],
  },
)

export const timeoutList = list(timeoutRule, 1)

export interface LimitSettings {
  readonly rateLimits: TypeOf<typeof rateLimitList> | undefined
  readonly rateLimitStore: TypeOf<typeof rateStoreType> | undefined
  readonly timeouts: TypeOf<typeof timeoutList> | undefined
  readonly namespace: string | undefined
}
