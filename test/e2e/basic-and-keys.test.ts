import { execFile } from 'node:child_process'
import { randomBytes, scryptSync } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { ConfigError } from '../../src/config/load.ts'
import { StartError } from '../../src/main.ts'
import { startReport } from '../../src/report.ts'
import { cliCommand, startCli } from '../support/cli.ts'
import { configFile } from '../support/config-file.ts'
import { signingKey } from '../support/jwt-keys.ts'
import { RawConnection } from '../support/raw.ts'
import { refused } from '../support/refusal.ts'
import { explained, shapeOf } from '../support/refusals.ts'
import { startTestSidecar, type TestOptions, testConfig, until } from '../support/sidecar.ts'
import { openSocket, openSse } from '../support/streams.ts'
import { openVoices } from '../support/voices.ts'
import { type Headers, waysInto } from '../support/ways-in.ts'
import { accept, call, follow, initialize, open, openSession, post, send } from '../support/wire.ts'

type Credential = Record<string, string>

const passwords = { alice: 'correct: horse', bob: 'pa\u00dfwort \u20ac' }
const keys = { ci: 'ci-key-0123456789', cron: 'cr0n!#$%&*+-./:;<=>?@[]^_`{|}~' }
const token = 'robot-token-0123456789'
const resource = 'https://mcp.example/mcp'
const issuer = 'https://issuer.example'
const signer = signingKey('k')
const header = 'X-Team-Key'

const basic = (name: string, password: string): { readonly Authorization: string } => ({
  Authorization: `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`,
})
const key = (text: string): Credential => ({ [header]: text })
const bearer = (text: string): Credential => ({ Authorization: `Bearer ${text}` })
const jwt = (sub: string): string =>
  signer.token({ iss: issuer, aud: resource, sub, exp: Math.floor(Date.now() / 1000) + 600 })

const program = cliCommand()

/** `mcp-sidecar hash NAME`, with this on its standard input. */
function hashed(name: string, input: string): Promise<{ code: number; stdout: string; stderr: string }> {
  const [file = '', ...args] = program
  return new Promise((resolve) => {
    const child = execFile(file, [...args, 'hash', name], (error, stdout, stderr) =>
      resolve({ code: typeof error?.code === 'number' ? error.code : 0, stdout, stderr }),
    )
    child.stdin?.end(input)
  })
}

/** A line as the command makes it, at the lowest cost that a file may have: a fifth of a second each time is long. */
function cheapLine(name: string, password: string): string {
  const salt = randomBytes(16)
  const hash = scryptSync(password.normalize('NFC'), salt, 32, { N: 2 ** 14, r: 8, p: 1 })
  return `${name}:scrypt$16384$8$1$${salt.toString('base64url')}$${hash.toString('base64url')}\n`
}

const lines = await Promise.all([
  hashed('alice', `${passwords.alice}\n`),
  // As Windows ends a line, and an umlaut in two parts: both are the same password.
  hashed('bob', `${passwords.bob.normalize('NFD')}\r\n`),
])
const hashedFile = lines.map(({ stdout }) => stdout).join('')
const bobsLine = cheapLine('bob', passwords.bob)
const passwordFile = `${cheapLine('alice', passwords.alice)}${bobsLine}${cheapLine('eve', 'eve has one')}`
const keyFile = `# for machines\nci:${keys.ci}\n\ncron: ${keys.cron}\n`
const files = { passwords: passwordFile, keys: keyFile, tokens: `robot:${token}\n` }
const jwks = { 'jwks.json': JSON.stringify({ keys: [signer.jwk] }) }
const methods = {
  basic: { passwordFile: 'passwords' },
  apiKey: { keyFile: 'keys', header },
  bearer: { tokenFile: 'tokens' },
  jwt: { issuer, jwksFile: 'jwks.json', audiences: [resource] },
}

const everyMethod = configFile(t, { auth: methods, listen: { webSocket: true } }, { ...files, ...jwks })
const any = await startTestSidecar(t, { flags: everyMethod })
const bothMethods = configFile(
  t,
  {
    auth: { require: 'all', basic: methods.basic, apiKey: methods.apiKey },
    listen: { webSocket: true },
  },
  files,
)
const all = await startTestSidecar(t, { flags: bothMethods })

t.test('the hash command prints a line for the password file, and nothing of the password', async (t) => {
  for (const { code, stdout, stderr } of lines) {
    t.equal(code, 0)
    t.match(stdout, /^(?:alice|bob):scrypt\$32768\$8\$3\$[\w-]{22}\$[\w-]{43}\n$/)
    t.equal(stderr, '')
  }
})

t.test('the hash command refuses what no file or client could use', async (t) => {
  const wrong = await Promise.all([
    hashed('alice', ''),
    hashed('alice', 'two\nlines'),
    hashed('alice', 'x'.repeat(1025)),
    ...['alice smith', '#alice', 'j\u00f6rg', ''].map((name) => hashed(name, 'a good password')),
  ])
  for (const { code, stdout, stderr } of wrong) {
    t.not(code, 0, stderr)
    t.equal(stdout, '')
    t.match(stderr, /^mcp-sidecar: \S.*\n$/, 'one sentence')
  }
})

t.test('the lines of the hash command let their owners in', async (t) => {
  const flags = configFile(t, { auth: { basic: methods.basic } }, { passwords: hashedFile })
  const { url } = await startTestSidecar(t, { flags })
  for (const name of ['alice', 'bob'] as const)
    t.equal((await send(url, 'DELETE', basic(name, passwords[name]))).status, 400, name)
  t.equal((await send(url, 'DELETE', basic('bob', 'pass'))).status, 401)
})

const callers: Record<string, Credential> = {
  'Basic, alice': basic('alice', passwords.alice),
  'Basic, bob': basic('bob', passwords.bob),
  'Basic, bob in two parts': basic('bob', passwords.bob.normalize('NFD')),
  'an API key': key(keys.cron),
  'a bearer token': bearer(token),
  'a JWT': bearer(jwt('carol')),
}

t.test('with any, each method lets its callers in on every transport and in both eras', async (t) => {
  for (const [who, credential] of Object.entries(callers)) {
    for (const voice of await openVoices(any, credential)) {
      const { json } = await voice.ask('tools/call', { name: 'echo', arguments: { text: who } })
      t.match(json, { result: { content: [{ text: who }] } }, `${who}, ${voice.name}`)
    }
  }
})

/** Credentials of which none is good, and what the log says of each. */
const wrong: Record<string, [Headers, RegExp]> = {
  'a wrong password': [basic('alice', 'wrong'), /^basic: a wrong password for alice$/],
  'the password of another': [basic('alice', passwords.bob), /a wrong password for alice/],
  'an unknown name': [basic('mallory', 'wrong'), /^basic: an unknown user name$/],
  'no password': [basic('alice', ''), /a wrong password for alice/],
  'no name': [basic('', passwords.alice), /an unknown user name/],
  'a name in another letter case': [basic('Alice', passwords.alice), /an unknown user name/],
  'a password and a line break': [basic('alice', `${passwords.alice}\n`), /control characters/],
  'a NUL after the name': [basic('alice\0', passwords.alice), /control characters/],
  'no colon': [
    { Authorization: `Basic ${Buffer.from('alice').toString('base64')}` },
    /the credentials have no colon/,
  ],
  'no base64': [{ Authorization: 'Basic alice:correct' }, /the credentials are not base64/],
  base64url: [{ Authorization: 'Basic YT8_Og' }, /the credentials are not base64/],
  'base64 of other bytes': [
    { Authorization: `Basic ${Buffer.from('alice:p\u00e4ss', 'latin1').toString('base64')}` },
    /the credentials are not UTF-8/,
  ],
  'a blank within': [
    { Authorization: `${basic('alice', passwords.alice).Authorization} x` },
    /the credentials are not base64/,
  ],
  'a password of 10 KB': [basic('alice', 'x'.repeat(10_000)), /bytes in the header authorization/],
  'an unknown key': [key('unknown-key-0123456789'), /apiKey: an unknown API key/],
  'a key without its last character': [key(keys.ci.slice(0, -1)), /an unknown API key/],
  'a name and its key': [key(`ci:${keys.ci}`), /an unknown API key/],
  'a token as the key': [key(token), /an unknown API key/],
}
/** Credentials that no method looks at. */
const unseen: Record<string, Headers> = {
  nothing: {},
  'the scheme alone': { Authorization: 'Basic' },
  'an empty key': key(''),
  'the key in another header': { 'X-API-Key': keys.ci },
  'the password without a scheme': { Authorization: passwords.alice },
  'another scheme': { Authorization: `Digest username="alice", response="${passwords.alice}"` },
}

t.test('all refusals look alike on every way in, and the log says which it was', async (t) => {
  const shapes = new Set<string>()
  const doors = waysInto(any.base)
  const first = Object.keys(doors)[0]
  for (const [what, [headers, why]] of Object.entries(wrong)) {
    for (const [name, knock] of Object.entries(doors)) {
      // A password costs a fifth of a second each time.
      if (name !== first && /password|name$|case$/.test(what) && what !== 'a wrong password') continue
      const told = name === first ? await explained(any.logs, () => knock(headers)) : undefined
      if (told !== undefined) t.match(told.why, why, what)
      const answer = told?.answer ?? (await knock(headers))
      refused(t, answer, 401, 'ERR_AUTH')
      shapes.add(shapeOf(answer))
    }
  }
  for (const [what, headers] of Object.entries(unseen))
    for (const [name, knock] of Object.entries(doors)) {
      const answer = await knock(headers)
      t.equal(answer.status, 401, `${what}, ${name}`)
      shapes.add(shapeOf(answer))
    }
  t.equal(shapes.size, 1, [...shapes].join('\n'))
  t.match([...shapes][0], /Basic realm=\\"mcp\\", charset=\\"UTF-8\\"/, 'the challenge of RFC 7617')
})

t.test('a header with a credential that stands twice is refused', async (t) => {
  const good = [`Authorization: ${basic('alice', passwords.alice).Authorization}`, `${header}: ${keys.ci}`]
  const port = Number(new URL(any.url).port)
  for (const line of good) {
    const text = `DELETE /mcp HTTP/1.1\r\nHost: localhost\r\n${line}\r\n`
    const once = await new RawConnection(port).write(`${text}\r\n`).answer()
    t.equal(once.status, 400, 'one is good: past the door, where a session is missing')
    const { answer, why } = await explained(any.logs, () =>
      new RawConnection(port).write(`${text}${line}\r\n\r\n`).answer(),
    )
    t.equal(answer.status, 401)
    t.match(why, /^two (?:authorization|x-team-key) headers$/)
  }
})

t.test('the same name proven in another way is somebody else', async (t) => {
  const same = configFile(
    t,
    { auth: { basic: methods.basic, apiKey: methods.apiKey, bearer: methods.bearer } },
    { ...files, keys: `alice:${keys.ci}\n`, tokens: `alice:${token}\n` },
  )
  const { url, logs } = await startTestSidecar(t, { flags: same })
  const identities = [basic('alice', passwords.alice), key(keys.ci), bearer(token)]
  for (const mine of identities) {
    const session = await openSession(url, { headers: mine })
    for (const other of identities.filter((each) => each !== mine)) {
      const { 'Mcp-Session-Id': id = '', 'MCP-Protocol-Version': version = '' } = session
      const foreign = { ...other, 'Mcp-Session-Id': id, 'MCP-Protocol-Version': version }
      refused(t, await post(url, call(1, 'echo'), foreign), 404, 'ERR_SESSION_UNKNOWN', 1)
    }
    t.equal((await post(url, call(1, 'echo'), session)).status, 200)
  }
  const principals = new Set(logs.flatMap(({ fields }) => fields['principal'] ?? []))
  t.same([...principals].toSorted(), ['apiKey:alice', 'basic:alice', 'bearer:alice'])
})

t.test('with all, nothing less than every credential lets anybody in', async (t) => {
  const good = { ...basic('alice', passwords.alice), ...key(keys.ci) }
  for (const voice of await openVoices(all, good)) {
    const { json } = await voice.ask('tools/call', { name: 'echo', arguments: { text: voice.name } })
    t.match(json, { result: { content: [{ text: voice.name }] } })
  }
  const shapes = new Set<string>()
  const lacking: Record<string, Credential> = {
    'the password alone': basic('alice', passwords.alice),
    'the key alone': key(keys.ci),
    'a wrong password and the key': { ...basic('alice', 'wrong'), ...key(keys.ci) },
    'the password and a wrong key': { ...basic('alice', passwords.alice), ...key('wrong-0123456789') },
    'both wrong': { ...basic('alice', 'wrong'), ...key('wrong-0123456789') },
    'a bearer token and the key': { ...bearer(token), ...key(keys.ci) },
    nothing: {},
  }
  for (const [what, headers] of Object.entries(lacking)) {
    for (const [name, knock] of Object.entries(waysInto(all.base))) {
      const answer = await knock(headers)
      t.equal(answer.status, 401, `${what}, ${name}`)
      shapes.add(shapeOf(answer))
    }
  }
  t.equal(shapes.size, 1, [...shapes].join('\n'))
})

t.test('with all, the password names the principal, and the session wants both each time', async (t) => {
  const good = { ...basic('alice', passwords.alice), ...key(keys.ci) }
  const session = await openSession(all.url, { headers: good })
  t.ok(all.logs.some(({ fields }) => fields['principal'] === 'all:basic:alice & apiKey:ci'))
  const without = (name: string): Credential =>
    Object.fromEntries(Object.entries(session).filter(([each]) => each !== name))
  for (const name of ['Authorization', header])
    t.equal((await post(all.url, call(1, 'echo'), without(name))).status, 401, `without ${name}`)
  const other = { ...session, ...basic('bob', passwords.bob) }
  refused(t, await post(all.url, call(1, 'echo'), other), 404, 'ERR_SESSION_UNKNOWN', 1)
  t.equal((await post(all.url, call(1, 'echo'), session)).status, 200)
})

/**
 * Milliseconds of the fastest of some requests of two kinds, which take turns. What other processes take from this one only
 * adds to them: while the two are not alike, there are more.
 */
async function fastest(
  alike: (first: number, second: number) => boolean,
  url: string,
  ...kinds: readonly [() => Credential, () => Credential]
): Promise<[number, number]> {
  const best: [number, number] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY]
  for (let round = 0; round < 6 || (round < 60 && !alike(...best)); round++) {
    for (const kind of [0, 1] as const) {
      const start = performance.now()
      t.equal((await post(url, initialize(), kinds[kind]())).status, 401)
      best[kind] = Math.min(best[kind], performance.now() - start)
    }
  }
  return best
}

t.test('an unknown name takes as long as a wrong password', async (t) => {
  let n = 0
  const alike = (known: number, unknown: number): boolean => unknown > known / 3 && unknown < known * 3
  const [known, unknown] = await fastest(
    alike,
    any.url,
    () => basic('bob', `wrong ${++n}`),
    () => basic(`nobody${++n}`, `wrong ${n}`),
  )
  t.ok(known > 5, `a wrong password is worked on: ${known} ms`)
  t.ok(alike(known, unknown), `${unknown} ms, not far from ${known} ms`)
})

t.test('with all, the time of a refusal does not tell that the password was right', async (t) => {
  let n = 0
  const bad = key('wrong-0123456789')
  const alike = (wrong: number, right: number): boolean => right > wrong / 3
  const [wrong, right] = await fastest(
    alike,
    all.url,
    () => ({ ...basic('eve', `wrong ${++n}`), ...bad }),
    () => ({ ...basic('eve', 'eve has one'), ...bad }),
  )
  t.ok(alike(wrong, right), `${right} ms with the right password, ${wrong} ms with a wrong one`)
})

t.test('who has failed too often is not worked for, and static secrets go on', async (t) => {
  const flags = configFile(t, { auth: { basic: methods.basic, apiKey: methods.apiKey } }, files)
  const { url, logs } = await startTestSidecar(t, { flags, failedAttempts: 3 })
  t.equal((await send(url, 'DELETE', basic('bob', passwords.bob))).status, 400, 'bob was verified before')
  for (let i = 0; i < 3; i++)
    refused(t, await post(url, initialize(), basic('alice', `guess ${i}`)), 401, 'ERR_AUTH')
  for (const headers of [basic('alice', passwords.alice), basic('alice', 'guess'), key('wrong-0123456789')]) {
    const { answer, why } = await explained(logs, () => post(url, initialize(), headers))
    t.match(why, /; 3 or more failed attempts of 127\.0\.0\.1$/)
    refused(t, answer, 429, 'ERR_RATE_LIMITED')
    t.match(answer.headers['retry-after'], /^[1-9]\d?$/)
  }
  t.equal((await send(url, 'DELETE', key(keys.ci))).status, 400, 'an API key costs next to nothing')
  t.equal((await send(url, 'DELETE', basic('bob', passwords.bob))).status, 400, 'nor does what is known')
})

/** The sidecar with this section `auth`, whose files a test rewrites. */
async function reloadable(t: Test, auth: object) {
  const flags = configFile(t, { auth, listen: { webSocket: true } }, files)
  const options: TestOptions = { flags, config: { server: { warmSpares: 0 } } }
  const started = await startTestSidecar(t, options)
  return {
    ...started,
    write: async (name: string, text: string): Promise<void> => {
      writeFileSync(join(dirname(flags.config), name), text)
      await started.sidecar.reload(await testConfig(options))
    },
  }
}

async function everyStream(url: string, base: string, headers: Credential) {
  const session = await openSession(url, { headers })
  const get = follow(await open(url, 'GET', { ...session, Accept: 'text/event-stream' }))
  const sse = await openSse(base, { headers, version: '2024-11-05' })
  const socket = await openSocket(base, { headers, version: '2025-06-18' })
  return {
    session,
    open: () => [!get.isClosed(), !sse.isClosed(), socket.closed() === undefined],
    cut: () => {
      get.cut()
      sse.cut()
      socket.close()
    },
  }
}

const reloads = [
  {
    what: 'passwords',
    auth: { basic: methods.basic },
    gone: basic('alice', passwords.alice),
    stays: basic('bob', passwords.bob),
    comes: basic('carol', 'carol has one'),
    text: bobsLine + cheapLine('carol', 'carol has one'),
  },
  {
    what: 'keys',
    auth: { apiKey: methods.apiKey },
    gone: key(keys.ci),
    stays: key(keys.cron),
    comes: key('new-key-0123456789'),
    text: `cron:${keys.cron}\nnew:new-key-0123456789\n`,
  },
]

t.test('a changed file lets others in, and ends what was opened with what is gone from it', async (t) => {
  for (const { what, auth, gone, stays, comes, text } of reloads) {
    const { url, base, write } = await reloadable(t, auth)
    const ended = await everyStream(url, base, gone)
    const kept = await everyStream(url, base, stays)
    t.equal((await post(url, initialize(), comes)).status, 401, 'not yet')
    await write(what, text)
    t.equal((await post(url, call(1, 'echo'), ended.session)).status, 401, `${what}: gone`)
    await until(() => !ended.open().includes(true), `${what}: its streams end`)
    t.same(kept.open(), [true, true, true], `${what}: those of others stay`)
    t.equal((await post(url, call(1, 'echo'), kept.session)).status, 200)
    t.equal((await send(url, 'DELETE', comes)).status, 400, `${what}: let in`)
    kept.cut()
  }
})

t.test('another password of the same name ends what the old one opened', async (t) => {
  const { url, base, write } = await reloadable(t, { basic: methods.basic })
  const old = await everyStream(url, base, basic('alice', passwords.alice))
  await write('passwords', cheapLine('alice', 'another one'))
  t.equal((await post(url, call(1, 'echo'), old.session)).status, 401, 'nothing is remembered of it')
  await until(() => !old.open().includes(true), 'its streams end')
  t.equal((await send(url, 'DELETE', basic('alice', 'another one'))).status, 400)
})

t.test('a file that cannot be used changes nothing, and is named with its line', async (t) => {
  const bad = {
    passwords: ['alice:plain text', 'alice:scrypt$1024$8$1$AAAA$BBBB', `${passwordFile}${passwordFile}`, ''],
    keys: [
      'ci:short',
      `ci:${keys.ci}\nxy:${keys.ci}`,
      `ci:${keys.ci}\nci:${keys.cron}`,
      'ci:sp ace sp ace sp ace',
      '',
    ],
  }
  for (const { what, auth, gone } of reloads) {
    const { url, write } = await reloadable(t, auth)
    for (const text of bad[what as keyof typeof bad]) {
      const problem = await write(what, text).then(
        () => undefined,
        (thrown: unknown) => thrown as Error,
      )
      t.ok(problem instanceof StartError, JSON.stringify(text))
      t.match(
        problem?.message,
        text === '' ? /there is no (?:user|API key) in it/ : /(?:passwords|keys):\d+: /,
      )
      for (const secret of [...Object.values(keys), 'plain text', 'short'])
        t.notOk(problem?.message.includes(secret), 'it repeats no secret')
      t.equal((await send(url, 'DELETE', gone)).status, 400, 'the old file is in force')
    }
  }
})

t.test('what no request could satisfy is refused when it is loaded, with its place', async (t) => {
  const { basic, bearer, apiKey, jwt } = methods
  const secret = { issuer, secretFile: 'tokens', audiences: [resource] }
  const impossible: Record<string, [object, RegExp]> = {
    'a password and a token': [{ basic, bearer }, /both bearer.* and basic.*header authorization/],
    'a password and a JWT': [{ basic, jwt }, /both basic.* and jwt.*header authorization/],
    'a token and a JWT': [{ bearer, jwt }, /a static bearer token.* a token of an issuer/],
    'JWT of two issuers': [{ jwt: [jwt, { ...jwt, issuer: 'https://b.example' }] }, /a token has one issuer/],
    'a shared secret and a private key': [{ jwt: [jwt, secret] }, /a shared secret or with a private key/],
    'three, of which two contradict each other': [{ apiKey, basic, bearer }, /header authorization/],
  }
  for (const [what, [auth, why]] of Object.entries(impossible)) {
    const flags = configFile(t, { auth: { ...auth, require: 'all' } }, { ...files, ...jwks })
    const thrown = await testConfig({ flags }).catch((error: unknown) => error)
    t.ok(thrown instanceof ConfigError, what)
    const [problem] = (thrown as ConfigError).problems
    t.match(problem?.message, why, what)
    t.match(problem?.where, /config\.yaml:\d+:\d+$/, what)
    const ways = configFile(t, { auth: { ...auth, require: 'any' } }, { ...files, ...jwks })
    await t.resolves(testConfig({ flags: ways }), `${what}: either is fine`)
  }
})

t.test('a method that is configured wrongly is refused with its place', async (t) => {
  const faults: Record<string, [object, RegExp]> = {
    'a header that is none': [{ apiKey: { keyFile: 'keys', header: 'X Key' } }, /header/],
    'a header that others use': [{ apiKey: { keyFile: 'keys', header: 'Cookie' } }, /header/],
    'a header of the protocol': [{ apiKey: { keyFile: 'keys', header: 'Mcp-Session-Id' } }, /header/],
    'no file': [{ basic: {} }, /passwordFile/],
    'a misspelt key': [{ basic: { passwordFil: 'passwords' } }, /passwordFile/],
    'a choice that is none': [{ apiKey: methods.apiKey, require: 'some' }, /any.*all/],
  }
  for (const [what, [auth, why]] of Object.entries(faults)) {
    const thrown = await testConfig({ flags: configFile(t, { auth }, files) }).catch(
      (error: unknown) => error,
    )
    t.ok(thrown instanceof ConfigError, what)
    for (const { where } of (thrown as ConfigError).problems ?? [])
      t.match(where, /config\.yaml:\d+:\d+$/, what)
    t.match((thrown as ConfigError).message + JSON.stringify((thrown as ConfigError).problems), why, what)
  }
})

/** The client configuration of a start report, with real credentials where it leaves them open. */
function filledIn(headers: Credential): Credential {
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [
      name,
      value
        .replace('YOUR-TOKEN', token)
        .replace('YOUR-KEY', keys.ci)
        .replace(
          'YOUR-NAME-AND-PASSWORD-IN-BASE64',
          Buffer.from(`alice:${passwords.alice}`).toString('base64'),
        ),
    ]),
  )
}

t.test('the start report names the methods, and its client configuration lets a client in', async (t) => {
  const { basic, apiKey, bearer } = methods
  const reports: [object, string][] = [
    [{ basic }, 'authentication: Basic'],
    [{ apiKey }, 'authentication: API keys'],
    [{ apiKey: { keyFile: 'keys' } }, 'authentication: API keys'],
    [{ bearer }, 'authentication: static bearer tokens'],
    [{ basic, apiKey, bearer }, 'authentication: static bearer tokens or API keys or Basic'],
    [{ basic, apiKey, require: 'all' }, 'authentication: API keys and Basic'],
  ]
  for (const [auth, enforced] of reports) {
    const { sidecar } = await startTestSidecar(t, { flags: configFile(t, { auth }, files) })
    const { fields, lines } = startReport(sidecar)
    const what = JSON.stringify(auth)
    t.ok((fields['enforced'] as string[]).includes(enforced), `${what}: ${fields['enforced']}`)
    t.ok(lines.some((line) => line.includes(enforced)))
    const text = lines.slice(lines.findIndex((line) => line.includes('Client configuration')) + 1).join('\n')
    t.same(JSON.parse(text), fields['clientConfig'], 'the same for people and programs')
    const { url, headers } = JSON.parse(text).mcpServers.sidecar
    const answer = await post(url, initialize(), filledIn(headers))
    t.equal(answer.status, 200, `${what}: ${JSON.stringify(headers)}`)
  }
})

t.test('the program takes changed files by itself, a bad one not, and says so', async (t) => {
  // It is asked until a file is taken, however often.
  const failures = { attempts: 1_000_000 }
  const flags = configFile(t, { auth: { basic: methods.basic, apiKey: methods.apiKey, failures } }, files)
  const place = dirname(flags.config)
  const cli = await startCli(t, ['--config', flags.config])
  const status = async (headers: Credential): Promise<number> =>
    (await send(cli.url, 'DELETE', headers)).status
  t.same(await status(basic('alice', passwords.alice)), 400)
  for (const { what, gone, comes, text } of reloads) {
    t.equal(await status(comes), 401)
    writeFileSync(join(place, what), text)
    await until(async () => (await status(comes)) === 400, `${what} are taken`)
    t.equal(await status(gone), 401, `${what}: gone`)
    writeFileSync(join(place, what), 'nonsense: x\n')
    const refusal = await cli.logged(
      'the new configuration was not taken; the old one stays in force',
      (line) => String(line['why']).includes(what),
    )
    t.match(refusal['reason'], new RegExp(`${what}:1: `))
    t.equal(await status(comes), 400, `${what}: the last good ones are in force`)
    writeFileSync(join(place, what), text)
  }
  const everything = JSON.stringify(cli.lines) + cli.stderr
  for (const secret of [...Object.values(keys), ...Object.values(passwords), 'new-key-0123456789'])
    t.notOk(everything.includes(secret), 'no secret is logged')
})

t.test('no password, key or hash is in any log line or metric', async (t) => {
  const everything =
    JSON.stringify([...any.logs, ...all.logs]) + (await any.metrics()) + (await all.metrics())
  t.ok(any.logs.length > 50)
  const secrets = [...Object.values(keys), ...Object.values(passwords), token, 'unknown-key-0123456789']
  const encoded = Object.values(callers).flatMap((each) => Object.values(each).map((value) => value.slice(7)))
  for (const secret of [...secrets, ...encoded]) t.notOk(everything.includes(secret), secret)
  t.notMatch(everything, /scrypt\$/)
  t.equal(readFileSync(join(dirname(everyMethod.config), 'passwords'), 'utf8'), passwordFile, 'read only')
})

t.test('a stranger with a wrong password is refused before any of the body is there', async (t) => {
  const port = Number(new URL(any.url).port)
  const head = [
    'POST /mcp HTTP/1.1',
    'Host: localhost',
    'Content-Type: application/json',
    `Accept: ${accept}`,
    `Authorization: ${basic('alice', 'wrong').Authorization}`,
    'Content-Length: 1000',
  ]
  const connection = new RawConnection(port).write(`${head.join('\r\n')}\r\n\r\n`)
  t.equal((await connection.answer()).status, 401)
  connection.close()
})
