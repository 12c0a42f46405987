import { mkdirSync, realpathSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { resolvedPaths } from '../src/confinement.ts'
import { testConfig } from './support/sidecar.ts'

t.test('what a configuration leads to changes with its links, and with nothing else', async (t) => {
  const server = () => ({ 'package.json': JSON.stringify({ name: 'a-server' }), 'server.js': '' })
  const base = realpathSync(
    t.testdir({
      ...{ v1: server(), v2: server(), g1: {}, g2: {}, s1: {}, s2: {}, data: {} },
      mount: { '..1': { key: '' } },
    }),
  )
  const at = (path: string): string => join(base, path)
  const lay = (target: string, path: string): void => {
    symlinkSync(target, at('laid'))
    renameSync(at('laid'), at(path))
  }
  lay('g1', 'current')
  lay('v1', 'app')
  lay('s1', 'secret')
  lay('..1', 'mount/..data')
  lay('..data/key', 'mount/key')
  writeFileSync(at('profile.json'), JSON.stringify({ filesystem: { read: [at('current')] } }))
  const flags = { permissions: at('profile.json') }
  const command = [process.execPath, at('app/server.js')]
  const config = {
    ...(await testConfig({ command, flags })),
    protectedPaths: [at('mount/key'), at('secret')],
  }
  let before = resolvedPaths(config, {})
  const changes = (): boolean => {
    const now = resolvedPaths(config, {})
    const same = JSON.stringify(now) === JSON.stringify(before)
    before = now
    return !same
  }
  t.notOk(changes())
  mkdirSync(at('mount/..2'))
  writeFileSync(at('mount/..2/key'), '')
  lay('..2', 'mount/..data')
  t.notOk(changes(), 'a mounted Secret that is renewed: all of its folder is hidden')
  writeFileSync(at('data/new'), '')
  t.notOk(changes())
  lay('g2', 'current')
  t.ok(changes(), 'a grant')
  lay('v2', 'app')
  t.ok(changes(), 'the program')
  lay('s2', 'secret')
  t.ok(changes(), 'what is hidden')
  t.same(resolvedPaths({ ...config, permissions: undefined }, {}), [])
})
