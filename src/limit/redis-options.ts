import { X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import type { RedisOptions } from 'ioredis'
import type { RatePolicy } from '../core/policy.ts'
import { LimitError } from './charge.ts'

export type RedisPolicy = NonNullable<RatePolicy['redis']>

const connectTimeoutMs = 5000
const reconnectMs = 1000
const longestTimeoutMs = 60_000

/**
 * How to connect: `redis://` or `rediss://` (TLS, 1.2 or later), `[USER@]HOST[:PORT][/DATABASE]`.
 *
 * @param readText of the password's file and the CA bundle
 * @throws LimitError; never shows the password
 */
export function redisOptions(
  policy: RedisPolicy,
  readText: (file: string) => string,
): Omit<RedisOptions, 'replyMapping'> {
  const { host, port, username, db, encrypted } = parseUrl(policy.url)
  const { timeoutMs, caFile } = policy
  if (!(timeoutMs >= 1 && timeoutMs <= longestTimeoutMs))
    throw wrong(`its timeout is ${timeoutMs} ms; it must be from 1 to ${longestTimeoutMs} ms`)
  if (!encrypted && caFile !== undefined)
    throw wrong(`the CA bundle ${caFile} is for rediss://, and the URL says redis://, which is not encrypted`)
  const password = passwordOf(policy, readText)
  return {
    host,
    port,
    db,
    ...(username === '' ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    ...(encrypted ? { tls: tlsOptions(host, caFile, readText) } : {}),
    lazyConnect: true,
    connectTimeout: connectTimeoutMs,
    commandTimeout: timeoutMs,
    // What cannot be counted there now is counted, or refused, here: nothing may wait for a connection.
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    // Replicas that lost the same Redis do not all come back in the same moment.
    retryStrategy: () => reconnectMs * (0.75 + Math.random() / 2),
  }
}

function parseUrl(text: string) {
  const url = URL.canParse(text) ? new URL(text) : undefined
  // Not shown: where it is no URL, it may hold a password all the same.
  if (url === undefined || !['redis:', 'rediss:'].includes(url.protocol) || url.hostname === '')
    throw wrong('its URL must be redis://HOST:PORT or rediss://HOST:PORT')
  if (url.password !== '')
    throw wrong('its URL holds a password, which would end up in logs; give it in a file of its own')
  if (url.search !== '' || url.hash !== '')
    throw wrong('its URL has a query or a fragment, which mean nothing here')
  const db = /^\/?(\d{0,5})$/.exec(url.pathname)?.[1]
  if (db === undefined)
    throw wrong(
      `its URL has the path ${JSON.stringify(url.pathname)}; only the number of a database can stand there`,
    )
  const { hostname } = url
  return {
    host: hostname.startsWith('[') ? hostname.slice(1, -1) : hostname,
    port: Number(url.port === '' ? 6379 : url.port),
    username: decodeURIComponent(url.username),
    db: Number(db),
    encrypted: url.protocol === 'rediss:',
  }
}

/** As its file has it now. @throws LimitError */
export function passwordOf(
  { password, url }: RedisPolicy,
  readText: (file: string) => string,
): string | undefined {
  if (password === undefined) {
    if (new URL(url).username !== '') throw wrong('its URL names a user, but there is no password')
    return undefined
  }
  if ('text' in password) return password.text.reveal()
  const text = read(password.file, readText).replace(/\r?\n$/, '')
  if (text === '') throw wrong(`the password file ${password.file} is empty`)
  return text
}

function tlsOptions(host: string, caFile: string | undefined, readText: (file: string) => string) {
  const ca = caFile === undefined ? undefined : certificates(caFile, readText)
  return {
    minVersion: 'TLSv1.2' as const,
    ...(ca === undefined ? {} : { ca }),
    // An address is no server name (RFC 6066 section 3); it is compared with the certificate all the same.
    ...(isIP(host) === 0 ? { servername: host } : {}),
  }
}

/** Node.js passes over what is no certificate, and nothing would be trusted then. */
function certificates(file: string, readText: (file: string) => string): string {
  const text = read(file, readText)
  try {
    new X509Certificate(text)
  } catch {
    throw wrong(`the CA bundle ${file} holds no PEM certificate`)
  }
  return text
}

function read(file: string, readText: (file: string) => string): string {
  try {
    return readText(file)
  } catch (thrown) {
    throw wrong(`${file} cannot be read: ${(thrown as Error).message}`)
  }
}

function wrong(what: string): LimitError {
  return new LimitError(`Redis of the rate limits: ${what}`)
}
