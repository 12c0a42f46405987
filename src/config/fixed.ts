import type { Config } from './config.ts'

function asksForCertificates({ policy }: Config): boolean {
  return policy.auth.layers.some(({ methods }) =>
    methods.some((each) => each.method === 'clientCertificate' && each.from === 'tls'),
  )
}

/** Settings that only a restart can change, as the file names them. */
const fixed: readonly (readonly [string, (config: Config) => unknown])[] = [
  ['listen.host', ({ listen }) => listen.host],
  ['listen.port', ({ listen }) => listen.port],
  ['listen.webSocket', ({ listen }) => listen.webSocket],
  ['listen.keepAlive', ({ listen }) => listen.keepAliveMs],
  ['listen.tls', ({ listen }) => listen.tls !== undefined],
  // A listener asks for certificates, or does not, from its start on.
  ['auth.clientCertificate (from tls)', asksForCertificates],
  ['admin', ({ admin }) => `${admin.host}:${admin.port}`],
  ['limits.sessions', ({ limits }) => limits.sessions],
  ['limits.sessionsPerPrincipal', ({ limits }) => limits.sessionsPerPrincipal],
  ['limits.idleSession', ({ limits }) => limits.idleSessionMs],
  ['limits.connections', ({ limits }) => limits.connections],
  ['limits.requestBody', ({ limits }) => limits.requestBodyBytes],
  ['limits.batch', ({ limits }) => limits.batch],
  ['limits.headerTimeout', ({ limits }) => limits.headerTimeoutMs],
  ['limits.bodyTimeout', ({ limits }) => limits.bodyTimeoutMs],
  ['log.format', ({ log }) => log.format],
]

/** The first setting that only a restart can change and that differs, as the file names it. */
export function fixedDifference(old: Config, next: Config): string | undefined {
  return fixed.find(([, value]) => value(old) !== value(next))?.[0]
}
