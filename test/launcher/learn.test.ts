/** What a watched server does is told, once and by its real name, and happens as if nobody had looked. */
import {
  chmodSync,
  chownSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { launch, noLauncher, type Status, uids } from '../support/launcher.ts'

const skip = noLauncher === undefined ? {} : { skip: noLauncher }

/** A policy that watches; the self-test wants a proxy that it can connect to. */
async function watching(t: Test, ...more: string[]): Promise<string[]> {
  const proxy = createServer((socket) => socket.on('error', () => {}))
  await new Promise<void>((resolve) => {
    proxy.listen(0, '127.0.0.1', resolve)
  })
  t.teardown(() => new Promise((resolve) => proxy.close(resolve)))
  const { port } = proxy.address() as AddressInfo
  const fs = more.some((record) => record.startsWith('fs ')) ? [] : ['fs open']
  const basics = ['v 1', ...fs, 'proc all', 'net broker', 'filter on', 'token t']
  return [...basics, `proxy 127.0.0.1:${port}`, 'learn 1', ...more]
}

function folderOf(t: Test, uid: number): string {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'mcp-sidecar-watched-')))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  if (process.getuid?.() === 0) chownSync(folder, uid, uid)
  return folder
}

/** `ACCESS PATH` of what was told, as far as it lies in a folder, with the folder cut off; sorted. */
function told(status: readonly Status[], folder: string): string[] {
  return status
    .filter(({ event, path }) => event === 'file' && String(path).startsWith(folder))
    .map(({ access, path }) => `${access} ${path.slice(folder.length)}`)
    .toSorted()
}

for (const uid of uids) {
  t.test(`files are told by their real paths, each once, as uid ${uid}`, skip, async (t) => {
    const folder = folderOf(t, uid)
    const script = `
      cd ${folder}; mkdir data; cd data; echo one > a; cat a ./a ../data/a > /dev/null; ln -s a link; cat link > /dev/null
      mv a b; echo more >> b; ls . > /dev/null; cat missing; rm b; mkdir sub; rmdir sub; ln -s ${folder} up; echo x > up/c
      (cat c) 2>/dev/null; ln up/c d; truncate -s 0 d; cat /proc/self/status > /dev/null; true`
    const { code, err, status } = await launch(t, await watching(t), ['/bin/sh', '-c', script], {
      uid,
    }).done()
    t.equal(code, 0, err)
    t.strictSame(
      told(status, folder),
      [
        ...['create /c', 'create /data', 'create /data/a', 'create /data/b', 'create /data/d'],
        ...['create /data/link', 'create /data/sub', 'create /data/up', 'list /data', 'read /data/a'],
        ...['remove /data/a', 'remove /data/b', 'remove /data/sub', 'write /data/b', 'write /data/d'],
      ].toSorted(),
    )
    t.ok(
      status.some(({ path, access }) => access === 'execute' && /\/(?:dash|bash|sh|busybox)$/.test(path)),
      'the program itself is among them',
    )
    t.ok(
      status.some(({ path }) => path === '/proc/self/status'),
      'a process that it started used its own part of /proc',
    )
  })

  t.test(`what this user may not do is not told as if it were done, as uid ${uid}`, skip, async (t) => {
    const folder = folderOf(t, uid)
    const closed = join(folder, 'closed')
    writeFileSync(closed, 'x')
    mkdirSync(join(folder, 'fixed'))
    chmodSync(closed, 0)
    chmodSync(join(folder, 'fixed'), 0o555)
    for (const path of uid === 0 ? [] : [closed, join(folder, 'fixed')]) chownSync(path, uid, uid)
    const script = `cd ${folder}; cat closed; echo x > closed; mkdir fixed/new; true`
    const { status } = await launch(t, await watching(t), ['/bin/sh', '-c', script], { uid }).done()
    t.strictSame(told(status, folder), [])
  })
}

t.test('the interpreter of a script is told, which only the kernel opens', skip, async (t) => {
  const folder = folderOf(t, 0)
  copyFileSync(realpathSync('/bin/sh'), join(folder, 'shell'))
  chmodSync(join(folder, 'shell'), 0o755)
  writeFileSync(join(folder, 'outer'), `#! ${folder}/inner first\n`, { mode: 0o755 })
  writeFileSync(join(folder, 'inner'), `#!${folder}/shell\n:\n`, { mode: 0o755 })
  const { code, err, status } = await launch(t, await watching(t), [join(folder, 'outer')]).done()
  t.equal(code, 0, err)
  t.strictSame(told(status, folder), ['execute /inner', 'execute /outer', 'execute /shell', 'read /inner'])
})

t.test('what is refused to everybody is told, and refused', skip, async (t) => {
  const program = `
    const net = require('node:net'), dgram = require('node:dgram')
    const said = (emitter) => new Promise((done) => emitter.once('error', ({ code }) => done(code)))
    const udp = () => { try { const s = dgram.createSocket('udp4'); s.bind(0); return said(s) } catch (e) { return e.code } }
    ;(async () => console.log([await said(net.connect('/none.sock')), await said(net.createServer().listen(8123)), await udp()].join(' ')))()`
  const { out, status } = await launch(t, await watching(t), [process.execPath, '-e', program]).done()
  t.equal(out, 'EACCES EACCES EACCES\n')
  const attempts = status.filter(({ event }) => event === 'tried').map(({ what, port }) => [what, port])
  t.strictSame(attempts.toSorted(), [
    ['bind', 8123],
    ['udp', undefined],
    ['unix', undefined],
  ])
})

t.test('interfaces can be listed while it is watched', skip, async (t) => {
  const program = 'console.log(Object.keys(require("node:os").networkInterfaces()).includes("lo"))'
  const { out } = await launch(t, await watching(t), [process.execPath, '-e', program]).done()
  t.equal(out, 'true\n')
})

t.test('what is hidden stays closed, on kernels that see no truncation, too', skip, async (t) => {
  for (const abi of ['7', '2']) {
    const folder = folderOf(t, 0)
    const hidden = join(folder, 'hidden')
    writeFileSync(hidden, 'secret')
    const records = await watching(t, 'fs all', `fs.hide ${hidden}`, `test.abi ${abi}`)
    const script = `cat ${hidden}; truncate -s 0 ${hidden}; perl -e 'truncate("${hidden}", 0)' ; wc -c < /dev/null; true`
    const { err } = await launch(t, records, ['/bin/sh', '-c', script]).done()
    t.match(err, 'Permission denied', abi)
    const { readFileSync } = await import('node:fs')
    t.equal(readFileSync(hidden, 'utf8'), 'secret', abi)
  }
})

t.test(
  'of a flood of files as many are told as there is room for, and that there were more',
  skip,
  async (t) => {
    const folder = folderOf(t, 0)
    const program = `const fs = require('node:fs')
    for (let i = 0; i < 9000; i++) fs.rmSync(\`${folder}/\${fs.mkdirSync(\`${folder}/\${i}\`) ?? i}\`, { recursive: true })`
    const { code, status } = await launch(t, await watching(t), [process.execPath, '-e', program]).done()
    t.equal(code, 0)
    t.equal(status.filter(({ event }) => event === 'lost').length, 1)
    const files = status.filter(({ event }) => event === 'file').length
    t.ok(files > 16_000 && files <= 16_384, `${files} files`)
  },
)

t.test('it is told how large it has become', skip, async (t) => {
  const launched = launch(t, await watching(t), [
    process.execPath,
    '-e',
    'globalThis.kept = Buffer.alloc(50_000_000, 1); process.stdin.on("end", () => {}).resume()',
  ])
  for (;;) {
    if (launched.status.some(({ event, rss }) => event === 'size' && rss > 50_000_000)) break
    await new Promise((resolve) => {
      launched.child.stdio[4]?.once('data', resolve)
    })
  }
  launched.child.stdin.end()
  t.equal((await launched.done()).code, 0)
})

t.test('without notifications nothing can be watched, and nothing is started', skip, async (t) => {
  const { code, status } = await launch(t, await watching(t, 'test.no-notify 1'), ['/bin/true']).done()
  t.equal(code, 126)
  t.match(status, [{ event: 'refused', mechanism: 'broker', reason: /user notification/ }])
})

t.test('only what is otherwise open can be watched', skip, async (t) => {
  const bad = [
    ['v 1', 'fs confined', 'net broker', 'proxy 127.0.0.1:9', 'token t', 'filter on', 'learn 1'],
    ['v 1', 'fs open', 'net open', 'filter on', 'learn 1'],
    ['v 1', 'fs open', 'net open', 'filter off', 'learn 1'],
    ['v 1', 'fs open', 'net broker', 'proxy 127.0.0.1:9', 'token t', 'filter on', 'learn yes'],
  ]
  for (const records of bad) {
    const { code, err } = await launch(t, records, ['/bin/true']).done()
    t.equal(code, 125, records.join(', '))
    t.match(err, /policy: learn/)
  }
})
