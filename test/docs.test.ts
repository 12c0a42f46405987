/** Every example of the documentation is a whole file that works, with files of the names it mentions. */
import { generateKeyPairSync } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, extname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { hashPassword } from '../src/authn/password-hash.ts'
import { type LoadedConfig, loadConfig } from '../src/config/load.ts'
import { checkWorld } from '../src/world.ts'
import { authority } from './support/pki.ts'

interface Example {
  readonly heading: string
  readonly yaml: string
}

function examplesOf(page: string): readonly Example[] {
  const text = readFileSync(fileURLToPath(new URL(`../${page}`, import.meta.url)), 'utf8')
  let heading = ''
  return [...text.matchAll(/^(#+ .*)$|^```yaml\n([\s\S]*?)^```$/gm)].flatMap(([, title, yaml]) => {
    if (title !== undefined) heading = title
    return yaml === undefined ? [] : [{ heading, yaml }]
  })
}

/** The example with the absolute paths it names in a folder of the test, where they then exist. */
function withFiles(yaml: string, root: string): string {
  return yaml.replaceAll(/(?<=[[,{:\s])\/[\w./-]+/g, (path) => {
    const own = join(root, path)
    mkdirSync(extname(path) === '' ? own : dirname(own), { recursive: true })
    if (extname(path) !== '') writeFileSync(own, '')
    return own
  })
}

/** Loads it as the sidecar would and looks at all that can be looked at without starting. */
async function loaded(file: string, yaml: string): Promise<LoadedConfig> {
  writeFileSync(file, yaml)
  const found = await loadConfig({ flags: { config: file }, env: {}, cwd: dirname(file), command: [] })
  await checkWorld(found.config)
  return found
}

async function files(folder: string): Promise<void> {
  const ca = authority('docs')
  const server = ca.issue({ cn: 'mcp.example.com', dns: ['mcp.example.com'], usage: 'server' })
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const contents: Record<string, string> = {
    tokens: 'alice:0123456789abcdef0123\nbob:3210fedcba9876543210\n',
    'api-keys': 'script:0123456789abcdef0123\n',
    passwords: `alice:${await hashPassword('a password')}\n`,
    'jwks.json': JSON.stringify({
      keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'k1', alg: 'ES256' }],
    }),
    'client-secret': 'not-a-real-secret\n',
    'redis-password': 'not-a-real-password\n',
    token: 'the.kubelets.token',
    'tls.crt': server.certificate,
    'tls.key': server.key,
    'ca.crt': ca.certificate,
    'ca.crl': ca.revocationList(),
    'policies.cedar':
      '@id("dev") permit(principal in THVGroup::"dev", action == Action::"call_tool", resource == Tool::"search");',
  }
  for (const [name, text] of Object.entries(contents))
    writeFileSync(join(folder, name), text, { mode: 0o600 })
}

t.test('the examples of docs/security.md', async (t) => {
  const folder = t.testdir()
  await files(folder)
  const examples = examplesOf('docs/security.md')
  for (const [index, { heading, yaml }] of examples.entries())
    await t.resolves(loaded(join(folder, `example-${index}.yaml`), yaml), heading)
  t.ok(examples.length >= 10, 'they were found')
})

t.test('the examples of docs/permissions.md, which are the part of a file about permissions', async (t) => {
  const folder = t.testdir()
  const examples = examplesOf('docs/permissions.md')
  for (const [index, { heading, yaml }] of examples.entries()) {
    const whole = `server: { command: [some-mcp-server] }\n${withFiles(yaml, join(folder, 'root'))}`
    const { config } = await loaded(join(folder, `example-${index}.yaml`), whole)
    const { read, write } = config.permissions?.filesystem ?? { read: [], write: [] }
    t.ok(
      [...read, ...write].some(({ path }) => path.startsWith(folder)),
      `${heading} grants files`,
    )
  }
  t.ok(examples.length >= 3, 'they were found')
})

t.test('the examples of README.md, with the profile that they name', async (t) => {
  const folder = t.testdir()
  await files(folder)
  const examples = examplesOf('README.md')
  const [profile, ...more] = examples.filter(({ yaml }) => yaml.startsWith('# profile.yaml\n'))
  t.same(more, [])
  writeFileSync(join(folder, 'profile.yaml'), withFiles(profile?.yaml ?? '', join(folder, 'root')))
  const configurations = examples.filter((example) => example !== profile)
  for (const [index, { heading, yaml }] of configurations.entries()) {
    const { config } = await loaded(join(folder, `example-${index}.yaml`), yaml)
    t.equal(config.permissions?.network.mode, 'allowlist', heading)
  }
  t.ok(configurations.length >= 2, 'they were found')
})
