/** Each start of a server is held against what the sidecar found when it tried the profile out. */
import { existsSync, mkdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { findLauncher } from '../../src/sandbox/launcher.ts'
import { startConfigured } from '../support/callers.ts'
import { folder } from '../support/processes.ts'
import { until } from '../support/sidecar.ts'
import { call, openSession, post, send } from '../support/wire.ts'

const attacker = fileURLToPath(new URL('../fixtures/escape/attacker-server.mjs', import.meta.url))
const launcher = findLauncher()
const skip = launcher === undefined ? 'there is no launcher: no C compiler when it was built' : false

/** Reports what the real one does, but for what the sed script in the file makes of it. */
const altering = (script: string): string => `#!/bin/sh
[ -e '${script}' ] || exec '${launcher}' "$@"
# The end of a group begins with SIGQUIT, and the launcher has to outlive it.
trap : QUIT
exec 6>&1
'${launcher}' "$@" 4>&1 >&6 6>&- | (trap '' QUIT; exec sed -u -f '${script}' >&4)
`

t.test('a start that holds less than was found is ended before it gets a message', { skip }, async (t) => {
  const base = realpathSync(folder(t))
  const [data, audit, own, script] = ['data', 'audit.jsonl', 'launcher', 'script'].map((name) =>
    join(base, name),
  ) as [string, string, string, string]
  mkdirSync(data)
  writeFileSync(own, altering(script), { mode: 0o755 })
  const got = join(data, 'got')
  const server = `tee -a '${got}' | env -u NODE_OPTIONS '${process.execPath}' '${attacker}'`
  const settings = {
    server: { era: 'legacy', warmSpares: 0 },
    audit: { destination: audit },
    permissions: { filesystem: { read: [dirname(attacker)], write: [data] } },
  }
  const sidecar = await startConfigured(t, JSON.stringify(settings), {
    ...{ command: ['/bin/sh', '-c', server], launcher: own },
  })
  const { url, adminUrl } = sidecar
  const enforcement = async () => JSON.parse((await send(`${adminUrl}/readyz`, 'GET')).body).enforcement
  await openSession(url)
  // `tee` hands each message on before it writes it down.
  const noted = (what: string): boolean => existsSync(got) && readFileSync(got, 'utf8').includes(what)
  await until(() => noted('"initialize"'), 'the server notes what it gets')

  const lies: readonly (readonly [script: string, told: RegExp])[] = [
    [
      's/\\("mechanism":"seccomp","requested":true,"active":\\)true/\\1false/',
      /^seccomp: it is missing, unlike/,
    ],
    ['s/"mechanism":"landlock.fs"/"mechanism":"env"/', /^landlock\.fs: it is missing, unlike/],
    ['s/"selfTest":"pass"/"selfTest":"fail"/', /its self-test fails, unlike/],
    ['s/"selfTest":"pass"/"selfTest":"not-run"/', /its self-test was not run, unlike/],
    ['s/"covers":\\["read",/"covers":[/', /^landlock\.fs: it does not cover read, unlike/],
    ['s/"gaps":\\["metadata"/"gaps":["network-open"/', /network-open: the network is open, unlike/],
  ]
  for (const [lie, told] of lies) {
    rmSync(got)
    writeFileSync(script, `${lie}\n`)
    let found = await enforcement()
    // Each failure has the sidecar try the server on a process of its own, whose report may be the later one.
    await until(async () => {
      await t.rejects(openSession(url), /ERR_UPSTREAM_EXIT/)
      found = await enforcement()
      return found.verdict === 'refused' && told.test(found.refused)
    }, `it is told: ${lie}`)
    const inAudit = (): boolean =>
      existsSync(audit) &&
      readFileSync(audit, 'utf8')
        .split('\n')
        .some((line) => line.includes('"sandbox_report"') && line.includes(found.refused))
    await until(inAudit, 'the audit log has it')
    rmSync(script)
    t.notOk(noted('"test"'), 'it got nothing of the client')
    await until(async () => {
      const answer = await post(url, call(1, 'eval', { code: 'return 1' }), await openSession(url))
      t.equal(answer.status, 200, 'the next one serves')
      return (await enforcement()).verdict !== 'refused'
    }, 'nothing is refused any more')
  }

  writeFileSync(script, 's/^{"event":"report"/{"event":"sermon"/\n')
  await t.rejects(openSession(url), /ERR_UPSTREAM_EXIT/)
  t.ok(
    sidecar.logs.some(({ fields }) => /its launcher cannot be understood/.test(String(fields['detail']))),
    'a report that cannot be read is none',
  )
})
