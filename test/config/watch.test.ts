import { spawnSync } from 'node:child_process'
import fs, { writeFileSync } from 'node:fs'
import { mkdir, rename, rm, symlink, unlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import { watchFiles } from '../../src/config/watch.ts'

/** Long enough for a change to have been seen, had there been one to see. */
const QUIET_MS = 400

interface Watched {
  readonly calls: (readonly string[])[]
  /** Resolves when `onChange` was called `count` times in all. */
  readonly called: (count: number) => Promise<void>
}

function watching(t: { teardown: (fn: () => void) => void }, ...paths: string[]): Watched {
  const calls: (readonly string[])[] = []
  const { close } = watchFiles(paths, (changed) => calls.push(changed))
  t.teardown(close)
  const called = async (count: number): Promise<void> => {
    for (let look = 0; calls.length < count && look < 400; look++) await wait(20)
  }
  return { calls, called }
}

t.test('a file written in place is reported once', async (t) => {
  const file = join(t.testdir({ a: '1', b: '1' }), 'a')
  const { calls, called } = watching(t, file, join(dirname(file), 'b'))
  writeFileSync(file, '2')
  await called(1)
  await wait(QUIET_MS)
  t.same(calls, [[file]])
})

t.test('a file replaced by renaming, as editors do, is reported, again and again', async (t) => {
  const folder = t.testdir({ a: '1' })
  const { calls, called } = watching(t, join(folder, 'a'))
  for (const text of ['2', '3']) {
    writeFileSync(join(folder, 'a.tmp'), text)
    await rename(join(folder, 'a.tmp'), join(folder, 'a'))
    await called(Number(text) - 1)
  }
  t.equal(calls.length, 2)
})

t.test('a mounted ConfigMap, whose ..data link is swapped, is reported', async (t) => {
  const folder = t.testdir({ '..1': { a: '1' }, '..2': { a: '2' }, '..3': { a: '3' } })
  await symlink('..1', join(folder, '..data'))
  await symlink('..data/a', join(folder, 'a'))
  const { calls, called } = watching(t, join(folder, 'a'))
  for (const version of [2, 3]) {
    await symlink(`..${version}`, join(folder, '..data_tmp'))
    await rename(join(folder, '..data_tmp'), join(folder, '..data'))
    await rm(join(folder, `..${version - 1}`), { recursive: true })
    await called(version - 1)
  }
  t.equal(calls.length, 2)
})

t.test('a change behind a link into another folder is reported', async (t) => {
  const folder = t.testdir({ real: { a: '1' }, linked: {} })
  await symlink('../real/a', join(folder, 'linked', 'a'))
  const { calls, called } = watching(t, join(folder, 'linked', 'a'))
  writeFileSync(join(folder, 'real', 'a'), '2')
  await called(1)
  t.same(calls, [[join(folder, 'linked', 'a')]])
})

t.test('the same content and other files of the folder are no change', async (t) => {
  const folder = t.testdir({ a: '1' })
  const { calls } = watching(t, join(folder, 'a'))
  writeFileSync(join(folder, 'a'), '1')
  writeFileSync(join(folder, 'other'), '1')
  await wait(QUIET_MS)
  t.same(calls, [])
})

t.test('several changes at once are one call', async (t) => {
  const folder = t.testdir({ a: '1', b: '1' })
  const files = [join(folder, 'a'), join(folder, 'b')]
  const { calls, called } = watching(t, ...files)
  for (const file of files) writeFileSync(file, '2')
  await called(1)
  await wait(QUIET_MS)
  t.same(calls, [files])
})

t.test('a folder that is never quiet does not hold a change back', async (t) => {
  const folder = t.testdir({ a: '1' })
  const { calls, called } = watching(t, join(folder, 'a'))
  writeFileSync(join(folder, 'a'), '2')
  const busy = setInterval(() => writeFileSync(join(folder, 'log'), String(performance.now())), 30)
  await called(1)
  clearInterval(busy)
  t.equal(calls.length, 1)
})

t.test('a file that vanishes is no change; it is one when it comes back with other content', async (t) => {
  const file = join(t.testdir({ a: '1' }), 'a')
  const { calls, called } = watching(t, file)
  await unlink(file)
  await wait(QUIET_MS)
  writeFileSync(file, '1')
  await wait(QUIET_MS)
  t.same(calls, [], 'the same content as before')
  await unlink(file)
  await wait(QUIET_MS)
  writeFileSync(file, '2')
  await called(1)
  t.equal(calls.length, 1)
})

t.test('a file and folders that are not there yet are waited for', async (t) => {
  const folder = t.testdir({})
  const file = join(folder, 'x', 'y', 'a')
  const { calls, called } = watching(t, file)
  await mkdir(dirname(file), { recursive: true })
  await wait(QUIET_MS)
  writeFileSync(file, '1')
  await called(1)
  t.same(calls, [[file]])
})

t.test('a folder that is removed and made again is still watched', async (t) => {
  const folder = t.testdir({ x: { a: '1' } })
  const file = join(folder, 'x', 'a')
  const { calls, called } = watching(t, file)
  for (const text of ['2', '3']) {
    await rm(dirname(file), { recursive: true })
    await mkdir(dirname(file))
    writeFileSync(file, text)
    await called(Number(text) - 1)
  }
  t.equal(calls.length, 2)
})

t.test('a file that is emptied before it is filled is one change, to what it is filled with', async (t) => {
  const file = join(t.testdir({ a: '1' }), 'a')
  const { calls, called } = watching(t, file)
  writeFileSync(file, '')
  await wait(QUIET_MS)
  t.same(calls, [])
  writeFileSync(file, '2')
  await called(1)
  await wait(QUIET_MS)
  t.same(calls, [[file]])
})

t.test('a file that stays empty is a change, also beside a file that is never quiet', async (t) => {
  const file = join(t.testdir({ a: '1' }), 'a')
  const { calls, called } = watching(t, file)
  const busy = setInterval(() => writeFileSync(`${file}.log`, String(performance.now())), 150)
  const start = performance.now()
  writeFileSync(file, '')
  await called(1)
  clearInterval(busy)
  t.same(calls, [[file]])
  t.ok(performance.now() - start >= 1000, 'but not at once')
})

t.test('a folder that cannot be watched is looked at from time to time', async (t) => {
  const file = join(t.testdir({ a: '1' }), 'a')
  let attempts = 0
  const watch = (): never => {
    attempts += 1
    throw Object.assign(new Error('no watches left'), { code: 'ENOSPC' })
  }
  const module = '../../src/config/watch.ts'
  const mocked = await t.mockImport<typeof import('../../src/config/watch.ts')>(module, {
    'node:fs': { ...fs, watch },
  })
  const calls: (readonly string[])[] = []
  t.teardown(mocked.watchFiles([file], (changed) => calls.push(changed)).close)
  writeFileSync(file, '2')
  for (let look = 0; calls.length < 1 && look < 1000; look++) await wait(20)
  t.same(calls, [[file]])
  t.equal(attempts, 2, 'and a watch is tried again each time')
})

t.test('after close nothing is reported, not even what was about to be', async (t) => {
  const file = join(t.testdir({ a: '1' }), 'a')
  const calls: unknown[] = []
  const { close } = watchFiles([file], (changed) => calls.push(changed))
  writeFileSync(file, '2')
  await wait(20)
  close()
  await wait(QUIET_MS)
  t.same(calls, [])
})

t.test('watching keeps no process alive', async (t) => {
  const watch = new URL('../../src/config/watch.ts', import.meta.url).href
  const file = join(t.testdir({ a: '1' }), 'a')
  const script = `
    const { watchFiles } = await import(${JSON.stringify(watch)})
    const { writeFileSync } = await import('node:fs')
    watchFiles([${JSON.stringify(file)}], () => {})
    writeFileSync(${JSON.stringify(file)}, '2')
  `
  const args = [...process.execArgv, '--input-type=module', '-e', script]
  const { status, signal } = spawnSync(process.execPath, args, { timeout: 30_000 })
  t.same({ status, signal }, { status: 0, signal: null })
})

t.test('other files can be named without losing a change of those that stay', async (t) => {
  const folder = t.testdir({ a: '1', b: '1', c: '1' })
  const [a, b, c] = ['a', 'b', 'c'].map((name) => join(folder, name)) as [string, string, string]
  const calls: (readonly string[])[] = []
  const watcher = watchFiles([a, b], (changed) => calls.push(changed))
  t.teardown(() => watcher.close())
  writeFileSync(a, '2')
  // Before anybody has looked: it must not count as what is known of the file.
  watcher.update([a, c])
  for (let look = 0; calls.length < 1 && look < 400; look++) await wait(20)
  t.same(calls, [[a]])
  writeFileSync(b, '2')
  writeFileSync(c, '2')
  for (let look = 0; calls.length < 2 && look < 400; look++) await wait(20)
  await wait(QUIET_MS)
  t.same(calls, [[a], [c]], 'the new one is watched, the one that was left out is not')
})
