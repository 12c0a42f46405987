/** Callers with tokens of an issuer of their own, and a sidecar that is configured by a YAML text. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { signingKey } from './jwt-keys.ts'
import { folder } from './processes.ts'
import { startTestSidecar, type TestOptions, type TestSidecar, testConfig } from './sidecar.ts'

export interface Callers {
  /** The section `auth` for a configuration, in one line. */
  readonly auth: string
  /** The headers of a request of this caller; claims that are undefined are left out. */
  of(sub: string, claims?: Readonly<Record<string, unknown>>): { readonly Authorization: string }
  /** The same for the service account. */
  account(namespace: string, name: string): { readonly Authorization: string }
}

export function callers(t: Test): Callers {
  const key = signingKey('k1')
  const jwksFile = join(folder(t), 'jwks.json')
  writeFileSync(jwksFile, JSON.stringify({ keys: [key.jwk] }))
  const issuer = 'https://issuer.example'
  const of: Callers['of'] = (sub, claims = {}) => {
    const exp = Math.floor(Date.now() / 1000) + 3600
    return { Authorization: `Bearer ${key.token({ iss: issuer, aud: 'mcp', sub, exp, ...claims })}` }
  }
  return {
    auth: `auth: ${JSON.stringify({ jwt: { issuer, jwksFile, audiences: ['mcp'] } })}`,
    of,
    account: (namespace, name) =>
      of(`system:serviceaccount:${namespace}:${name}`, {
        'kubernetes.io': { namespace, serviceaccount: { name } },
      }),
  }
}

export interface ConfiguredSidecar extends TestSidecar {
  /** The file of the configuration. */
  readonly file: string
  /** Takes another text instead, as after SIGHUP. */
  reload(yaml: string): Promise<void>
}

/** Starts a sidecar with this configuration file. */
export async function startConfigured(
  t: Test,
  yaml: string,
  options: TestOptions = {},
): Promise<ConfiguredSidecar> {
  const file = join(folder(t), 'config.yaml')
  writeFileSync(file, yaml)
  const all = { ...options, flags: { ...options.flags, config: file } }
  const started = await startTestSidecar(t, all)
  return {
    ...started,
    file,
    reload: async (text) => {
      writeFileSync(file, text)
      await started.sidecar.reload(await testConfig(all))
    },
  }
}
