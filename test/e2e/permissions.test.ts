/** Permission profiles through the whole sidecar. What a server may try is in test/escape; here is what people see. */
import { mkdirSync, realpathSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import tap, { type Test } from 'tap'
import { startReport } from '../../src/report.ts'
import { findLauncher } from '../../src/sandbox/launcher.ts'
import { scriptedServer, startTestSidecar, type TestSidecar, until } from '../support/sidecar.ts'
import { call, openSession, post, send } from '../support/wire.ts'

const modules = fileURLToPath(new URL('../../node_modules', import.meta.url))
const fileServer = join(modules, '@modelcontextprotocol/server-filesystem/dist/index.js')
const attacker = fileURLToPath(new URL('../fixtures/escape/attacker-server.mjs', import.meta.url))
const plain = ['/usr/bin/env', '-u', 'NODE_OPTIONS', process.execPath]

const skip = findLauncher() === undefined ? 'there is no launcher: no C compiler when it was built' : false

/** Folders `data` and `secret`, and a profile in a file beside them. */
function world(t: Test, profile: (folder: string) => object): { folder: string; file: string } {
  const folder = realpathSync(
    t.testdir({ data: { 'a.txt': 'hello' }, secret: { 'b.txt': 'a secret' }, own: {} }),
  )
  const file = join(folder, 'own', 'profile.json')
  writeFileSync(file, JSON.stringify(profile(folder)))
  return { folder, file }
}

const readiness = async ({ adminUrl }: Pick<TestSidecar, 'adminUrl'>) =>
  JSON.parse((await send(`${adminUrl}/readyz`, 'GET')).body)

tap.test(
  'a file server reads and writes the folder it was given, and no other that it believes to have',
  { skip },
  async (t) => {
    const { folder, file } = world(t, (base) => ({
      filesystem: { read: [modules], write: [join(base, 'data')] },
    }))
    const [data, secret] = [join(folder, 'data'), join(folder, 'secret')]
    symlinkSync(secret, join(data, 'link'))
    const sidecar = await startTestSidecar(t, {
      command: [...plain, fileServer, data, secret],
      flags: { permissions: file },
    })
    const { url } = sidecar
    const session = await openSession(url)
    const read = async (path: string): Promise<string> =>
      (await post(url, call(1, 'read_text_file', { path }), session)).body
    t.match(await read(join(data, 'a.txt')), /hello/)
    const written = await post(
      url,
      call(2, 'write_file', { path: join(data, 'c.txt'), content: 'new' }),
      session,
    )
    t.notMatch(written.body, /isError/)
    t.match(await read(join(data, 'c.txt')), /new/)
    for (const path of [join(secret, 'b.txt'), join(data, 'link/b.txt'), join(data, '../secret/b.txt')])
      t.match(await read(path), /EACCES/, path)
    const { ready, enforcement } = await readiness(sidecar)
    t.equal(ready, true)
    t.match(enforcement, { profile: 'profile.json', active: [/./], verdict: /^(?:enforced|weakened)$/ })
    t.ok(['landlock.fs', 'seccomp', 'caps', 'nnp'].every((each) => enforcement.active.includes(each)))
  },
)

tap.test(
  'a link that the server put where one of its grants was is not followed at its next start',
  { skip },
  async (t) => {
    const { folder, file } = world(t, (base) => ({
      filesystem: { read: [scriptedServer, join(base, 'data/sub')], write: [join(base, 'data')] },
    }))
    const sub = join(folder, 'data/sub')
    mkdirSync(sub)
    const sidecar = await startTestSidecar(t, {
      command: [...plain, scriptedServer],
      flags: { permissions: file },
      config: { server: { warmSpares: 0, era: 'legacy' } },
    })
    await openSession(sidecar.url)
    renameSync(sub, `${sub}-away`)
    symlinkSync(join(folder, 'secret'), sub)
    await openSession(sidecar.url).catch(() => {})
    await until(
      () =>
        sidecar.logs.some(
          ({ fields }) => fields['verdict'] === 'refused' && /data\/sub/.test(String(fields['refused'])),
        ),
      'the refusal is logged with the path',
    )
    t.match((await readiness(sidecar)).enforcement, {
      verdict: 'refused',
      refused: /^landlock\.fs: .*data\/sub/,
    })
    rmSync(sub)
    renameSync(`${sub}-away`, sub)
    await until(
      async () =>
        (await post(sidecar.url, call(1, 'echo', { text: 'x' }), await openSession(sidecar.url))).status ===
        200,
      'it serves again',
    )
  },
)

tap.test(
  'a start says what is enforced; a profile that cannot be is a refusal with file and line',
  { skip },
  async (t) => {
    const { folder, file } = world(t, () => ({ filesystem: { read: [scriptedServer] } }))
    const command = [...plain, scriptedServer]
    const { sidecar } = await startTestSidecar(t, { command, flags: { permissions: file } })
    const { lines, fields } = startReport(sidecar)
    t.match(fields['permissions'], { profile: 'profile.json' })
    t.match(lines.join('\n'), /enforced +permissions: profile profile\.json \(/)

    writeFileSync(file, JSON.stringify({ filesystem: { read: [scriptedServer, join(folder, 'missing')] } }))
    await t.rejects(
      startTestSidecar(t, { command, flags: { permissions: file } }),
      /missing does not exist: create it/,
    )
    writeFileSync(file, JSON.stringify({ filesystem: { read: [scriptedServer, folder] } }))
    await t.rejects(startTestSidecar(t, { command, flags: { permissions: file } }), /belongs to the sidecar/)
  },
)

tap.test('what a server tries to reach is counted, logged and refused', { skip }, async (t) => {
  const { file } = world(t, () => ({
    filesystem: { read: [dirname(attacker)] },
    network: { allowHost: ['ok.example.com'], allowPort: [443] },
  }))
  const sidecar = await startTestSidecar(t, { command: [...plain, attacker], flags: { permissions: file } })
  const { port } = new URL(sidecar.adminUrl)
  const code = `return await new Promise((resolve) => require('node:net').connect(${port}, '127.0.0.1').on('connect', () => resolve('in')).on('error', (error) => resolve(error.code)))`
  const tried = await post(sidecar.url, call(1, 'eval', { code }), await openSession(sidecar.url))
  t.match(tried.body, /EACCES|ECONNREFUSED/)
  t.ok((await sidecar.metric('mcp_sidecar_egress_total{protocol="broker",verdict="denied"}')) >= 1)
  const kept = ({ text, fields }: (typeof sidecar.logs)[number]): boolean =>
    text === 'the server was kept from connecting' && fields['host'] === '127.0.0.1'
  t.ok(sidecar.logs.some(kept))
})
