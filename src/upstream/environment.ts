/**
 * The server's environment: an allow-list, so that nothing the sidecar was given (its own secrets, the test
 * runner's or a debugger's variables) reaches the server unless its configuration names it.
 *
 * @param source the sidecar's own environment
 * @param allow names to pass, `PREFIX*` for several
 * @param set values that win over passed ones
 */
export function serverEnvironment(
  source: Readonly<Record<string, string | undefined>>,
  allow: readonly string[],
  set: Readonly<Record<string, string>>,
): Record<string, string> {
  const result: Record<string, string> = {}
  for (const [name, value] of Object.entries(source)) {
    if (value !== undefined && allow.some((pattern) => matches(pattern, name))) result[name] = value
  }
  return { ...result, ...set }
}

function matches(pattern: string, name: string): boolean {
  return pattern.endsWith('*') ? name.startsWith(pattern.slice(0, -1)) : pattern === name
}
