/** Permission profiles through the whole sidecar. What a server may try is in test/escape; here is what people see. */
import {
  cpSync,
  linkSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import tap, { type Test } from 'tap'
import { startReport } from '../../src/report.ts'
import { findLauncher } from '../../src/sandbox/launcher.ts'
import { placeFor, run, start, uids } from '../support/learning.ts'
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

tap.test(
  'where a server does not come up under a profile, the log says where to look; without one, it does not',
  { skip },
  async (t) => {
    const { folder } = world(t, () => ({}))
    const program = join(folder, 'data/needs.mjs')
    writeFileSync(
      program,
      "import { readFileSync } from 'node:fs'\nreadFileSync('../secret/b.txt')\nprocess.exit(1)\n",
    )
    for (const permissions of ['none', 'full-access']) {
      const { logs } = await startTestSidecar(t, { command: [...plain, program], flags: { permissions } })
      const failure = () => logs.find(({ text }) => text.startsWith('the MCP server does not answer'))
      await until(() => failure() !== undefined, 'it does not come up')
      const hint = permissions === 'none' ? /^the permission profile none .*`mcp-sidecar learn`/ : undefined
      t.match(failure()?.fields, { reason: /it exited with code 1/, hint })
    }
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

for (const uid of uids)
  tap.test(
    `the first try with the strictest profile starts, as uid ${uid}: a script, its package, nothing of the sidecar in it`,
    { skip },
    async (t) => {
      const place = placeFor(t, uid)
      for (const name of ['app', 'app/src', 'app/node_modules', 'app/node_modules/dep', 'other']) {
        mkdirSync(join(place.folder, name))
        place.own(join(place.folder, name))
      }
      const put = (path: string, text: string): string => {
        const file = join(place.folder, path)
        writeFileSync(file, text)
        return place.own(file)
      }
      put('app/package.json', JSON.stringify({ name: 'app', type: 'module' }))
      put('app/node_modules/dep/package.json', JSON.stringify({ name: 'dep', main: 'main.cjs' }))
      put('app/node_modules/dep/main.cjs', 'module.exports = 1')
      const script = put('app/src/server.js', `import 'dep'\nimport './attacker.mjs'\n`)
      for (const name of ['attacker-server.mjs', 'probes.mjs'])
        put(`app/src/${name.replace('-server', '')}`, readFileSync(join(dirname(attacker), name), 'utf8'))
      const files = [
        put('app/data.txt', 'x'),
        put('app/sidecar.yaml', 'log: { level: info }\n'),
        put('other/file', 'x'),
      ]
      const flags = [
        '--port',
        '0',
        '--admin-port',
        '0',
        '--config',
        files[1] as string,
        '--permissions',
        'none',
      ]
      const { url } = await start(t, place, [...flags, '--', process.execPath, script])
      const tried = await post(
        url,
        call(1, 'eval', { code: outcomesOf('readFileSync', files) }),
        await openSession(url),
      )
      t.match(tried.body, /ok EACCES EACCES/)
    },
  )

tap.test('no profile lets a server change what enforces it', { skip }, async (t) => {
  const root = fileURLToPath(new URL('../..', import.meta.url)).slice(0, -1)
  const { file } = world(t, () => ({ filesystem: { read: [scriptedServer], write: [join(root, 'src')] } }))
  const refused = startTestSidecar(t, { command: [...plain, scriptedServer], flags: { permissions: file } })
  await t.rejects(refused, /\/src would let the server change/)

  const { url } = await startTestSidecar(t, {
    command: [...plain, attacker],
    flags: { permissions: 'full-access' },
  })
  const session = await openSession(url)
  const own = [
    'src/main.ts',
    'package.json',
    'node_modules/zod/package.json',
    'dist/launcher/mcp-sidecar-launcher',
  ]
  const files = [...own.map((path) => join(root, path)), process.execPath]
  const read = await post(url, call(1, 'eval', { code: outcomesOf('readFileSync', files) }), session)
  t.match(read.body, /ok ok ok ok ok/)
  // Opened, not changed: the sidecar under test is the one in this folder.
  const written = await post(url, call(2, 'eval', { code: outcomesOf('openSync', files, 'a') }), session)
  t.match(written.body, /EACCES EACCES EACCES E\w+ E\w+/)
  const moved = `try { require('fs').renameSync(${JSON.stringify(join(root, 'src/core'))}, ${JSON.stringify(join(root, 'src/core-moved'))}); return 'ok' } catch (error) { return error.code }`
  t.match((await post(url, call(3, 'eval', { code: moved }), session)).body, /EACCES/)
})

tap.test(
  'links that were switched are followed anew at a reload, also of a configuration that has not changed',
  { skip },
  async (t) => {
    const { folder, file } = world(t, (base) => ({
      filesystem: { read: [dirname(attacker), join(base, 'current')] },
    }))
    const lay = (target: string): void => {
      symlinkSync(target, join(folder, 'laid'))
      renameSync(join(folder, 'laid'), join(folder, 'current'))
    }
    for (const name of ['v1', 'v2']) {
      mkdirSync(join(folder, name))
      writeFileSync(join(folder, name, 'x'), name)
    }
    lay('v1')
    const { url, sidecar, config, logs } = await startTestSidecar(t, {
      command: [...plain, attacker],
      flags: { permissions: file },
      config: { server: { warmSpares: 0, era: 'legacy' } },
    })
    const read = async (): Promise<string> => {
      const code = `try { return require('fs').readFileSync(${JSON.stringify(join(folder, 'current/x'))}, 'utf8') } catch (error) { return error.code }`
      return (await post(url, call(1, 'eval', { code }), await openSession(url))).body
    }
    t.match(await read(), /v1/)
    lay('v2')
    t.match(await read(), /EACCES/)
    await sidecar.reload(config)
    t.match(await read(), /v2/)

    lay('own')
    await sidecar.reload(config)
    t.ok(
      logs.some(({ text, fields }) => /as before$/.test(text) && /belongs to/.test(String(fields['reason']))),
      'what cannot be used is told, and keeps nothing from being reloaded',
    )
    lay('v1')
    rmSync(join(folder, 'v2'), { recursive: true })
    await openSession(url).catch(() => {})
    await until(() => sidecar.enforcement.verdict === 'refused', 'what a link led to is gone')
    t.match(sidecar.enforcement.refusal?.wayOut, /; or reload the sidecar if a link was switched$/)
    await sidecar.reload(config)
    t.match(await read(), /v1/)
  },
)

tap.test(
  'a sidecar whose files have other names, as pnpm installs it, says so where a server may write',
  { skip },
  async (t) => {
    const place = placeFor(t, process.getuid?.() ?? 0)
    const root = fileURLToPath(new URL('../..', import.meta.url))
    const at = (path: string): string => join(place.folder, path)
    cpSync(join(root, 'dist'), at('sidecar/dist'), { recursive: true })
    cpSync(join(root, 'package.json'), at('sidecar/package.json'))
    symlinkSync(modules, at('sidecar/node_modules'))
    mkdirSync(at('data'))
    writeFileSync(at('profile.yaml'), `filesystem: { write: [${at('data')}] }\n`)
    const doctor = async (permissions: string): Promise<string> => {
      const args = ['doctor', '--permissions', permissions, '--', process.execPath, '-e', '0']
      return (await run(place, args, { program: at('sidecar/dist/bin/mcp-sidecar.js') })).stdout
    }
    t.notMatch(await doctor(at('profile.yaml')), /own-code-linked/)
    linkSync(at('sidecar/package.json'), at('package.json'))
    for (const permissions of [at('profile.yaml'), 'full-access'])
      t.match(await doctor(permissions), /weakened {2}own-code-linked/)
    t.notMatch(await doctor('none'), /own-code-linked/)
  },
)

/** Code that tells for each file what came of opening it. */
function outcomesOf(how: string, files: readonly string[], flag = 'r'): string {
  return `return ${JSON.stringify(files)}.map((file) => { try { require('fs').${how}(file, ${JSON.stringify(how === 'openSync' ? flag : null)}); return 'ok' } catch (error) { return error.code } }).join(' ')`
}
