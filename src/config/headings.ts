/** What the sections of the file are about, in the order of the reference; `''` is the file itself. */
export const SECTIONS: Readonly<Record<string, string>> = {
  '': 'Configuration of mcp-sidecar.',
  server: 'The stdio MCP server and how it is started.',
  'server.env': 'The environment of the server: nothing but the base set, what is allowed and what is set.',
  listen: 'Where and how clients reach the server.',
  admin: 'Health and metrics, on a port of their own.',
  auth: 'Who may call: `none` for everyone, or methods by which callers prove who they are.',
  'auth.bearer': 'Static bearer tokens (RFC 6750).',
  'auth.failures':
    'Guessing is slowed down: an address that keeps failing is refused before any costly check.',
  'auth.fetching':
    'How issuers are asked for keys, discovery and introspection; for methods that say nothing else, those of documents included.',
  authorization:
    'What callers may do. Rules and Cedar policies must each permit; without any of them everything is permitted.',
  limits: 'Bounds; each is there so that one caller cannot take everything.',
  log: 'The log: how much of it and in which form.',
}

/** Sections that say something by being there, and what they need: empty, they would promise a protection that is not. */
export const FILLED_SECTIONS: ReadonlyMap<string, string> = new Map([
  ['auth', 'a method, such as bearer with its tokenFile'],
  ['auth.bearer', 'tokenFile'],
  ['authorization', 'rules, cedar, scopes, a toolsFilter or capabilities'],
])
