import t from 'tap'
import { ConfigError, type Flags, loadConfig, type Problem } from '../../src/config/load.ts'
import * as documents from './manifest/documents.ts'

async function problems(file: string, flags: Flags = {}, command = ['node']): Promise<readonly Problem[]> {
  const input = { flags: { config: 'c.yaml', ...flags }, env: {}, cwd: '/', command }
  try {
    await loadConfig({ ...input, readFile: async () => file })
    return []
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
}

/** Addresses that other machines may reach. */
const outside = ['0.0.0.0', '::', '10.1.2.3', 'example.com', '128.0.0.1', '::ffff:10.0.0.1']

t.test('a server to run must be named somewhere', async (t) => {
  t.match(await problems('', {}, []), [
    { where: 'command line', message: /^no server to run: write its command after --/ },
  ])
})

t.test('an address other machines can reach needs a choice of authentication', async (t) => {
  const advice =
    'can be reached from other machines and there is no authentication: name a token file (--bearer-token-file FILE) or accept every caller (--auth none)'
  for (const host of outside) {
    const file = `listen:\n  host: '${host}'\npermissions: none\n`
    t.same(await problems(file), [{ where: 'c.yaml:2:9', message: `listen.host ${host} ${advice}` }], host)
    t.same(await problems(`${file}auth: none\n`), [], `${host} with auth: none`)
  }
  t.match(await problems('permissions: none\n', { host: '0.0.0.0' }), [{ where: '--host' }])
})

t.test('an address other machines can reach needs a choice of permissions', async (t) => {
  const advice =
    'can be reached from other machines, and nothing says what the server may touch: choose --permissions none, network, full-access or the file of a profile'
  const choices = ['none', 'network', 'network-only', 'full-access', '{ filesystem: { read: [/data] } }']
  for (const host of outside) {
    const file = `listen:\n  host: '${host}'\nauth: none\n`
    t.same(await problems(file), [{ where: 'c.yaml:2:9', message: `listen.host ${host} ${advice}` }], host)
    for (const choice of choices)
      t.same(await problems(`${file}permissions: ${choice}\n`), [], `${host} with ${choice}`)
    t.same(await problems(file, { permissions: 'none' }), [], `${host} with the flag`)
    // The file is read once more, as a profile.
    const wrong = await problems(`${file}permissions: ./p.yaml\n`)
    t.notOk(
      wrong.some(({ message }) => message.includes(advice)),
      'a profile that cannot be read is a choice',
    )
    t.not(wrong.length, 0)
  }
  t.match(await problems('auth: none\n', { host: '0.0.0.0' }), [{ where: '--host' }])
})

t.test('where a choice of permissions is required, no address does without', async (t) => {
  const message =
    'a choice is required here, and nothing says what the server may touch: choose --permissions none, network, full-access or the file of a profile'
  t.same(await problems('requirePermissions: true\n'), [{ where: 'c.yaml:1:21', message }])
  t.same(await problems('requirePermissions: true\npermissions: none\n'), [])
  const variable = 'MCP_SIDECAR_REQUIRE_PERMISSIONS'
  const input = { flags: {}, cwd: '/', command: ['node'] }
  const refusal = new ConfigError([{ where: variable, message }])
  await t.rejects(loadConfig({ ...input, env: { [variable]: 'true' } }), refusal)
  const { config } = await loadConfig({
    ...input,
    env: { [variable]: 'true' },
    flags: { permissions: 'none' },
  })
  t.notOk('requirePermissions' in config, 'it says nothing beyond that')
})

t.test('the profile of an MCPServer is such a choice', async (t) => {
  const config = 'auth: none\nlisten: { host: 0.0.0.0 }\n'
  const found = (profile: string): Promise<string[]> =>
    documents.problems(t, [documents.server(profile)], { config })
  t.match(await found(''), [/nothing says what the server may touch/])
  for (const profile of [
    '{ builtin: none }',
    '{ builtin: full-access }',
    '{ inline: { allow: [{ network: { allowHost: [a.b] } }] } }',
  ])
    t.same(await found(`permissionProfile: ${profile}`), [], profile)
  const missing = await found('permissionProfile: { configMap: { name: p, key: k } }')
  t.match(missing, [/ConfigMap p, key/], 'one that is not there is all that is wrong')
})

t.test('both choices are asked for at once', async (t) => {
  t.match(await problems('', { host: '0.0.0.0' }), [
    { where: '--host', message: /--auth none/ },
    { where: '--host', message: /--permissions none/ },
  ])
})

t.test('a loopback address needs neither', async (t) => {
  for (const host of ['127.0.0.1', '127.8.9.1', '::1', 'localhost', 'LOCALHOST', '::ffff:127.0.0.1'])
    t.same(await problems(`listen: { host: '${host}' }\n`), [], host)
})

t.test('auth none and a token file exclude each other, wherever they come from', async (t) => {
  const folder = t.testdir({ tokens: '' })
  const tokenFile = `${folder}/tokens`
  t.same(await problems('auth: none\n', { bearerTokenFile: tokenFile }), [
    {
      where: '--bearer-token-file',
      message: 'a token file is named here, and auth is none (c.yaml:1:7): keep one of the two',
    },
  ])
  t.same(await problems(`auth: { bearer: { tokenFile: ${tokenFile} } }\n`, { auth: 'none' }), [
    {
      where: 'c.yaml:1:30',
      message: 'a token file is named here, and auth is none (--auth): keep one of the two',
    },
  ])
})

t.test('variables that change what code runs need an explicit permission', async (t) => {
  const why = 'changes what code runs: remove it, or set server.env.allowDangerous: true in the file'
  const env = 'allow: [HOME, LD_PRELOAD, NODE_*], set: { PYTHONPATH: x, A: b }'
  t.same(await problems(`server: { env: { ${env} } }\n`), [
    {
      where: 'c.yaml:1:32',
      message: `LD_PRELOAD ${why}`,
    },
    { where: 'c.yaml:1:44', message: `NODE_* lets NODE_OPTIONS through, which ${why}` },
    { where: 'c.yaml:1:72', message: `PYTHONPATH ${why}` },
  ])
  t.same(await problems(`server: { env: { allowDangerous: true, ${env} } }\n`), [])
  t.same(await problems('', { passEnv: ['A', 'BASH_ENV'] }), [
    { where: '--pass-env', message: `BASH_ENV ${why}` },
  ])
  t.same(await problems('server: { env: { allowDangerous: true } }\n', { passEnv: ['BASH_ENV'] }), [])
})

t.test('one request may not take longer than the longest', async (t) => {
  const longer = (a: string, b: string) =>
    `limits.requestTimeout ${a} is longer than limits.maxRequestTimeout ${b}`
  t.same(await problems('limits:\n  requestTimeout: 20m\n'), [
    { where: 'c.yaml:2:19', message: longer('20m', '10m') },
  ])
  t.same(await problems('limits:\n  maxRequestTimeout: 30s\n'), [
    { where: 'c.yaml:2:22', message: longer('1m', '30s') },
  ])
  t.same(await problems('limits: { requestTimeout: 5m, maxRequestTimeout: 5m }\n'), [])
})

t.test('spares fit into the processes', async (t) => {
  t.same(await problems('limits: { processes: 2 }\nserver: { warmSpares: 3 }\n'), [
    { where: 'c.yaml:2:23', message: 'server.warmSpares 3 is more than limits.processes 2' },
  ])
})

t.test('two listeners need two ports', async (t) => {
  const message = 'listen and admin both use port 9090: give one of them another port'
  t.same(await problems('listen: { port: 9090 }\n'), [{ where: 'c.yaml:1:17', message }])
  t.same(await problems('listen: { port: 9090 }\n', { adminPort: '9090' }), [
    { where: '--admin-port', message },
  ])
  t.same(await problems("listen: { port: 9090 }\nadmin: { host: '0.0.0.0' }\n"), [
    { where: 'c.yaml:1:17', message },
  ])
  t.same(await problems('listen: { port: 9090 }\nadmin: { host: 127.0.0.2 }\n'), [], 'other addresses')
  t.same(await problems('listen: { port: 0 }\nadmin: { port: 0 }\n'), [], 'any free ports')
})

t.test('some way in is open', async (t) => {
  const message = 'streamableHttp, httpSse and webSocket are all off: nobody could reach the server'
  const off = 'listen: { streamableHttp: false, httpSse: false }\n'
  t.same(await problems(off), [{ where: 'c.yaml:1:27', message }])
  t.same(await problems(off, { webSocket: true }), [])
})

t.test('a rule is silent about values that are wrong in themselves', async (t) => {
  const outer = 'listen: { host: 0.0.0.0 }\n'
  t.match(await problems(`${outer}permissions: none\nauht: none\n`), { length: 1 }, 'auth was meant')
  t.match(await problems(`${outer}auth: none\npermisions: none\n`), { length: 1 }, 'permissions was meant')
  t.match(await problems(`${outer}auth: none\npermissions: nome\n`), { length: 1 }, 'an unknown profile')
  t.match(await problems('limits: { requestTimeout: 20m, maxRequestTimeout: 30 }\n'), { length: 1 })
  t.match(await problems('limits: { requestTimeout: 20m, maxRequestTimout: 30m }\n'), { length: 1 })
  t.match(await problems('limits: 5\n', { adminPort: '8080' }), { length: 2 }, 'but not about others')
  t.match(
    await problems('{\n', { host: '0.0.0.0' }),
    { length: 1 },
    'nor when the file might have said anything',
  )
})
