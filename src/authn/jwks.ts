import type { Clock, Logger } from '../core/types.ts'
import type { Fetcher } from './fetching.ts'
import { fetchedKeys, type KeySet } from './key-set.ts'
import { Refreshed } from './refreshed.ts'

/** Where keys come from. */
export interface Keys {
  /** Those of this moment; undefined while none are known, or have to be waited for. */
  readonly current: KeySet | undefined
  /** @throws ERR_AUTH_INVALID when there are none, or not in time */
  ready(signal: () => AbortSignal): Promise<KeySet>
  /**
   * For a token whose key is not among them: keys that may be newer. Undefined when they were fetched a moment ago.
   *
   * @throws ERR_AUTH_INVALID when they do not come in time
   */
  renewed(signal: () => AbortSignal): Promise<KeySet | undefined>
}

/** How old keys may become before they are fetched anew: how long a key that was removed may still be good. */
export const maxKeyAgeMs = 5 * 60_000

/** Keys that stay as they are. */
export function fixedKeys(keys: KeySet): Keys {
  return { current: keys, ready: async () => keys, renewed: async () => undefined }
}

export interface RemoteKeysOptions {
  readonly fetcher: Fetcher
  /** Where the JWKS is; may have to be found out first. */
  readonly url: () => string | Promise<string>
  /** Sent along, as an API server wants it. Default none. */
  readonly headers?: () => Readonly<Record<string, string>>
  /** Names the keys in logs and refusals: `the keys of https://issuer.example`. */
  readonly what: string
  readonly clock: Clock
  readonly log: Logger
}

/**
 * The JWKS behind a URL (RFC 7517 section 5): at most 1 MiB. Fetched with the first token; then every 5 minutes in the
 * background while tokens come, with the first token after a longer rest, which waits for them, and for a `kid` that is
 * not known, at most once in 30 seconds. While the endpoint does not answer with a JWKS the last one stays good for up
 * to 24 hours. One without any keys withdraws them all.
 */
export function remoteKeys(options: RemoteKeysOptions): Keys {
  const { fetcher, url, headers, what, clock, log } = options
  const refreshed = new Refreshed<KeySet>({
    what,
    load: async (last) => {
      const asking = headers === undefined ? {} : { headers: headers() }
      return fetchedKeys(await fetcher.json(await url(), asking), last)
    },
    clock,
    log,
    maxAgeMs: maxKeyAgeMs,
  })
  return {
    get current() {
      return refreshed.current
    },
    ready: (signal) => refreshed.ready(signal),
    renewed: (signal) => refreshed.renewed(signal),
  }
}
