/** Every example of the documentation is a whole file that works, with files of the names it mentions. */
import { generateKeyPairSync } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { hashPassword } from '../src/authn/password-hash.ts'
import { loadConfig } from '../src/config/load.ts'
import { checkWorld } from '../src/world.ts'
import { authority } from './support/pki.ts'

const page = readFileSync(fileURLToPath(new URL('../docs/security.md', import.meta.url)), 'utf8')
const examples = [...page.matchAll(/^(#+ .*)$|^```yaml\n([\s\S]*?)^```$/gm)]

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
  let heading = ''
  let count = 0
  for (const [, title, text] of examples) {
    if (title !== undefined) heading = title
    if (text === undefined) continue
    const file = join(folder, `example-${++count}.yaml`)
    writeFileSync(file, text)
    const loaded = await loadConfig({ flags: { config: file }, env: {}, cwd: folder, command: [] })
    await t.resolves(checkWorld(loaded.config), heading)
  }
  t.ok(count >= 10, 'they were found')
})
