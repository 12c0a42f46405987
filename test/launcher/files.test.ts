import { spawnSync } from 'node:child_process'
import {
  accessSync,
  chmodSync,
  chownSync,
  existsSync,
  constants as fsConstants,
  linkSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  compiled,
  confined,
  launch,
  launched,
  mechanism,
  noLauncher,
  openFolder,
  outcomes,
  uids,
} from '../support/launcher.ts'

if (noLauncher !== undefined) {
  t.plan(0, noLauncher)
  process.exit(0)
}

const { EACCES, EPERM } = constants.errno

/** A folder with `read/file`, `write/file` and `secret/file`, all of them `uid`'s own. */
function folders(t: Test, uid: number): { readonly root: string; at(path: string): string } {
  const root = openFolder(t)
  for (const name of ['read', 'write', 'secret', 'secret/deep']) {
    mkdirSync(join(root, name))
    chmodSync(join(root, name), 0o777)
    const file = join(root, name, 'file')
    writeFileSync(file, `in ${name}`)
    if (process.getuid?.() === 0) chownSync(file, uid, uid)
  }
  return { root, at: (path) => join(root, path) }
}

const shell = (script: string): string[] => ['/bin/sh', '-c', script]

for (const uid of uids) {
  t.test(`as uid ${uid}`, async (t) => {
    t.test('only what is granted is read, listed and run', async (t) => {
      const { at } = folders(t, uid)
      const records = [...confined, `fs.r ${at('read')}`]
      const { out, err } = await launched(
        t,
        records,
        shell(
          `cat ${at('read/file')}; ls ${at('read')}; cat ${at('secret/file')}; ls ${at('secret')}; cat /etc/passwd; ls /`,
        ),
        { uid },
      )
      t.equal(out, 'in readfile\n')
      t.equal(err.match(/Permission denied/g)?.length, 4, err)
    })

    t.test(
      'a read path is not written to, and a program in it runs only where that is granted',
      async (t) => {
        const { at } = folders(t, uid)
        writeFileSync(at('read/program'), '#!/bin/sh\necho ran\n', { mode: 0o755 })
        const script = shell(
          `${at('read/program')}; echo x > ${at('read/file')}; rm ${at('read/file')}; mkdir ${at('read/new')}`,
        )
        const plain = await launched(t, [...confined, `fs.r ${at('read')}`], script, { uid })
        t.equal(plain.out, '')
        t.equal((await launched(t, [...confined, `fs.rx ${at('read')}`], script, { uid })).out, 'ran\n')
        t.equal(readFileSync(at('read/file'), 'utf8'), 'in read')
        t.notOk(existsSync(at('read/new')))
      },
    )

    t.test(
      'below a write path everything is done but running programs and making devices or sockets',
      async (t) => {
        const { at } = folders(t, uid)
        const program = compiled(t, 'attempts')
        const { out, err, status } = await launched(
          t,
          [...confined, `fs.rw ${at('write')}`, `fs.rx ${program}`],
          shell(`cd ${at('write')} && mkdir -p a/b && echo new > a/b/f && mv a/b/f g && cat g && rm -r a && : > file && ln -s g l &&
               printf '#!/bin/sh\\necho ran' > p && chmod 700 p && ./p;
               ${program} mkfifo=${at('write/fifo')} mknod-device=${at('write/device')} mknod-socket=${at('write/socket')}`),
          { uid },
        )
        t.match(out, /^new\n/)
        t.match(err, /p: Permission denied/)
        const made = outcomes(out.slice(4))
        t.equal(made['mkfifo'], 0)
        t.equal(made['mknod-socket'], EACCES)
        t.ok([EACCES, EPERM].includes(made['mknod-device'] ?? 0))
        t.equal(readFileSync(at('write/file'), 'utf8'), '')
        t.notOk(mechanism(status[0], 'landlock.fs').gaps.includes('exec-writable'))
      },
    )

    t.test(
      'no symlink, hard link, rename or descriptor leads from a write path to what is not granted',
      async (t) => {
        const { at } = folders(t, uid)
        symlinkSync(at('secret'), at('write/link'))
        const { out, err } = await launched(
          t,
          [...confined, `fs.rw ${at('write')}`, `fs.r ${at('read')}`],
          shell(`cd ${at('write')}; cat link/file; ln -s ${at('secret/file')} s; cat s; cat ../secret/file;
               ln ${at('secret/file')} h; mv ${at('read/file')} r; mv ${at('secret/file')} r; cat /proc/self/root${at('secret/file')}; ls`),
          { uid },
        )
        t.equal(out, 'file\nlink\ns\n')
        t.notMatch(out, /in secret/)
        t.ok((err.match(/\n/g)?.length ?? 0) >= 7, err)
        t.equal(readFileSync(at('secret/file'), 'utf8'), 'in secret')
      },
    )

    t.test('a grant may be one file; its folder stays closed', async (t) => {
      const { at } = folders(t, uid)
      const { out, err } = await launched(
        t,
        [...confined, `fs.rw ${at('write/file')}`],
        shell(
          `echo more >> ${at('write/file')}; cat ${at('write/file')}; ls ${at('write')}; echo > ${at('write/other')}`,
        ),
        { uid },
      )
      t.equal(out, 'in writemore\n')
      t.equal(err.split('\n').length, 3, err)
    })

    t.test('a granted symlink is followed once, at the start, and reported with its target', async (t) => {
      const { at } = folders(t, uid)
      symlinkSync(at('read'), at('granted'))
      const { out, status } = await launched(
        t,
        [...confined, `fs.r ${at('granted')}`],
        shell(`cat ${at('granted/file')} ${at('read/file')}`),
        { uid },
      )
      t.equal(out, 'in readin read')
      t.ok(
        status[0].links.some(
          (link: { path: string; target: string }) =>
            link.path === at('granted') && link.target === at('read'),
        ),
      )
    })

    t.test('a missing path is a refusal, or skipped and reported where it is optional', async (t) => {
      const { at } = folders(t, uid)
      const refused = await launched(t, [...confined, `fs.r ${at('nowhere')}`], shell('echo ran'), { uid })
      t.equal(refused.code, 126)
      t.equal(refused.out, '')
      t.match(refused.status, [
        {
          event: 'refused',
          mechanism: 'landlock.fs',
          reason: `fs.r ${at('nowhere')}: No such file or directory`,
        },
      ])
      const skipped = await launched(t, [...confined, `fs.r? ${at('nowhere')}`], shell('echo ran'), { uid })
      t.equal(skipped.out, 'ran\n')
      t.ok(skipped.status[0].skipped.includes(at('nowhere')))
    })

    t.test('where links were followed already, one that is there all the same leads nowhere', async (t) => {
      const { at } = folders(t, uid)
      symlinkSync(at('gone'), at('dangling'))
      symlinkSync(at('secret'), at('link'))
      for (const path of [at('dangling'), at('dangling/x'), at('link/none'), at('link/file')]) {
        const records = [...confined.filter((each) => !/ \/(lib|lib64|bin|sbin)$/.test(each)), 'fs.nolinks 1']
        for (const name of ['/lib', '/lib64', '/bin', '/sbin'])
          if (existsSync(name)) records.push(`fs.rx? ${realpathSync(name)}`)
        const script = shell(`cat ${at('link/file')}; echo ran`)
        const skipped = await launched(t, [...records, `fs.r? ${path}`], script, { uid })
        t.equal(skipped.out, 'ran\n', path)
        t.ok(skipped.status[0].skipped.includes(path))
        const refused = await launched(t, [...records, `fs.r ${path}`], script, { uid })
        t.same([refused.code, refused.out], [126, ''])
      }
    })

    t.test(
      'of /proc it sees itself, or everything; the environment of another process it never sees',
      async (t) => {
        const program = shell(
          'read -r line < /proc/self/status; echo $line; head -c 4 /proc/1/status; echo; cat /proc/$PPID/environ /proc/$PPID/maps',
        )
        const self = await launched(
          t,
          confined,
          [
            '/bin/sh',
            '-c',
            'read -r line < /proc/$$/status; echo $line; cat /proc/1/status; cat /proc/$PPID/environ',
          ],
          { uid },
        )
        t.equal(self.out, 'Name: sh\n')
        const all = await launched(t, [...confined, 'proc all'], program, { uid })
        t.match(all.out, /^Name: sh\nName\n$/)
        t.ok(mechanism(all.status[0], 'landlock.fs').gaps.includes('proc-all'))
        t.equal(all.status[0].verdict, 'weakened')
      },
    )

    t.test(
      'what is granted of /proc stays readable when the kernel drops its caches',
      { skip: uid !== 0 || !existsSync('/proc/sys/vm/drop_caches') ? 'only root drops caches' : false },
      async (t) => {
        const look = 'read -r line < /proc/$$/status; echo $line; head -c 8 /proc/meminfo; echo'
        const running = launch(
          t,
          [...confined, 'fs.r /proc/meminfo'],
          shell(`${look}; echo ready; read -r go; ${look}`),
          { uid },
        )
        await running.said('ready')
        // What was used lately is only dropped in a later round.
        for (let round = 0; round < 8; round++) writeFileSync('/proc/sys/vm/drop_caches', '2')
        running.child.stdin.end('\n')
        t.equal((await running.done()).out, 'Name: sh\nMemTotal\nready\nName: sh\nMemTotal\n')
      },
    )

    t.test('the directory of the command is granted, but neither / nor what has a hidden path', async (t) => {
      const { at } = folders(t, uid)
      writeFileSync(at('read/program'), `#!/bin/sh\ncat ${at('read/file')}\n`, { mode: 0o755 })
      const plain = await launched(t, [...confined, 'fs.command 1'], [at('read/program')], { uid })
      t.equal(plain.out, 'in read')
      const without = await launched(t, confined, [at('read/program')], { uid })
      t.equal(without.code, 126)
      t.match(without.status.at(-1), { event: 'refused', mechanism: 'exec' })
      const hidden = await launched(
        t,
        [...confined, 'fs.command 1', `fs.hide ${at('read/file')}`],
        [at('read/program')],
        { uid },
      )
      t.equal(hidden.out, '')
      t.match(hidden.err, /Permission denied/)
    })

    t.test('everything but the hidden paths', async (t) => {
      const { root, at } = folders(t, uid)
      const records = [
        'v 1',
        'fs all',
        'net none',
        'filter on',
        'proc self',
        `fs.hide ${at('secret/deep')}`,
        `fs.hide ${at('gone/later')}`,
      ]
      const { out, err, status } = await launched(
        t,
        records,
        shell(`cat ${at('read/file')} ${at('secret/file')}; echo new > ${at('write/made')}; cat ${at('secret/deep/file')}; ls ${at('secret/deep')};
               echo > ${at('made')}; mkdir ${at('gone')}; head -c 4 /etc/passwd; cat /proc/$PPID/status`),
        { uid },
      )
      t.equal(out, `in readin secret${readFileSync('/etc/passwd', 'utf8').slice(0, 4)}`)
      t.equal(err.split('\n').length, 6, err)
      t.notOk(existsSync(at('made')))
      t.ok(existsSync(at('write/made')))
      t.ok(mechanism(status[0], 'landlock.fs').gaps.includes('fs-open'))
      t.equal(mechanism(status[0], 'landlock.fs').selfTest, 'pass')
      // A hidden path behind a symlink is hidden where it really is.
      symlinkSync(at('secret/deep'), join(root, 'alias'))
      const aliased = await launched(
        t,
        [...records.slice(0, 5), `fs.hide ${at('alias')}`],
        shell(`cat ${at('secret/deep/file')}`),
        { uid },
      )
      t.equal(aliased.out, '')
    })

    t.test('a grant above a protected path is refused, and so is the /proc of one process', async (t) => {
      const { root, at } = folders(t, uid)
      for (const [record, reason] of [
        [`fs.r ${root}`, `fs.r ${root}: contains the protected path ${at('secret')}`],
        [`fs.rw ${at('secret')}`, `fs.rw ${at('secret')}: contains the protected path ${at('secret')}`],
        ['fs.r /proc/self', 'fs.r /proc/self: is of a single process'],
        [`fs.dev ${at('read/file')}`, `fs.dev ${at('read/file')}: not a character device`],
      ] as const) {
        const { code, status } = await launched(
          t,
          [...confined, `fs.hide ${at('secret')}`, record],
          shell('echo ran'),
          { uid },
        )
        t.equal(code, 126)
        t.match(status, [{ event: 'refused', mechanism: 'landlock.fs', reason }])
      }
    })

    t.test('a write path where programs may be run is reported', async (t) => {
      const { root, at } = folders(t, uid)
      const { status } = await launched(
        t,
        [...confined, `fs.rx ${root}`, `fs.rw ${at('write')}`],
        ['/bin/true'],
        { uid },
      )
      t.ok(mechanism(status[0], 'landlock.fs').gaps.includes('exec-writable'))
      for (const path of [at('write/deep'), at('write/program')]) {
        if (path === at('write/deep')) mkdirSync(path)
        else writeFileSync(path, '#!/bin/sh\n', { mode: 0o755 })
        const below = await launched(
          t,
          [...confined, `fs.rw ${at('write')}`, `fs.rx ${path}`],
          ['/bin/true'],
          {
            uid,
          },
        )
        t.ok(mechanism(below.status[0], 'landlock.fs').gaps.includes('exec-writable'), path)
      }
      writeFileSync(at('program'), '#!/bin/sh\n', { mode: 0o755 })
      const beside = await launched(
        t,
        [...confined, 'fs.command 1', `fs.rw ${at('write')}`],
        [at('program')],
        { uid },
      )
      t.notOk(
        mechanism(beside.status[0], 'landlock.fs').gaps.includes('exec-writable'),
        'the folder of the command is no reason to run what was written in it',
      )
      writeFileSync(at('write/program'), '#!/bin/sh\n', { mode: 0o755 })
      const inside = await launched(
        t,
        [...confined, 'fs.command 1', `fs.rw ${at('write')}`],
        [at('write/program')],
        { uid },
      )
      t.equal(inside.code, 0)
      t.ok(mechanism(inside.status[0], 'landlock.fs').gaps.includes('exec-writable'))
    })

    t.test('a grant below a protected folder is refused, wherever a link to it lies', async (t) => {
      const { at } = folders(t, uid)
      symlinkSync(at('secret/deep'), at('link'))
      writeFileSync(at('secret/file.1'), 'rotated')
      for (const [hidden, record, path] of [
        ['secret', `fs.r ${at('secret/deep')}`, 'secret'],
        ['secret', `fs.r? ${at('secret/deep/file')}`, 'secret'],
        ['secret', `fs.r ${at('link')}`, 'secret'],
        ['secret/file', `fs.r ${at('secret/file.1')}`, 'secret/file'],
      ] as const) {
        const hide = `fs.hide ${at(hidden)}`
        const { code, out, status } = await launched(t, [...confined, hide, record], shell('echo ran'), {
          uid,
        })
        t.same([code, out], [126, ''])
        const reason = `${record} belongs to the protected path ${at(path)}`.replace('fs.r?', 'fs.r')
        t.match(status, [
          { event: 'refused', mechanism: 'landlock.fs', reason: reason.replace(/ belongs/, ': belongs') },
        ])
      }
    })

    t.test('what is made of a hidden file is hidden with it', async (t) => {
      const { at } = folders(t, uid)
      for (const name of ['log', 'log.1', 'log-2026.gz', 'lo'])
        writeFileSync(at(`read/${name}`), `in ${name};`)
      const records = ['v 1', 'fs all', 'net none', 'filter on', 'proc self', `fs.hide ${at('read/log')}`]
      const { out, err } = await launched(
        t,
        records,
        shell(`cd ${at('read')}; cat log log.1 log-2026.gz lo; mv log.1 other`),
        { uid },
      )
      t.equal(out, 'in lo;')
      t.equal(err.match(/Permission denied/g)?.length, 4, err)
    })

    t.test(
      'what is kept from being changed is read and run, and neither it nor the way to it is replaced',
      async (t) => {
        const { at } = folders(t, uid)
        for (const name of ['code', 'code/dist', 'code/beside']) {
          mkdirSync(at(name))
          chmodSync(at(name), 0o777)
        }
        writeFileSync(at('code/dist/main'), '#!/bin/sh\necho runs\n')
        chmodSync(at('code/dist/main'), 0o777)
        symlinkSync(at('code/dist'), at('write/way'))
        const records = [
          'v 1',
          'fs all',
          'net none',
          'filter on',
          'proc self',
          `fs.readonly ${at('code/dist')}`,
        ]
        const { out, err } = await launched(
          t,
          [...records, `fs.readonly ${at('write/way')}`],
          shell(`${at('code/dist/main')}; echo x >> ${at('code/dist/main')}; rm ${at('code/dist/main')}; echo x > ${at('code/dist/new')};
               mv ${at('code/dist')} ${at('code/beside/dist')}; mv ${at('code')} ${at('moved')}; mv ${at('code')} ${at('read/code')};
               rm ${at('write/way')}; mv ${at('write')} ${at('read/write')}; echo x > ${at('code/new')};
               ls ${at('code')}; echo fine > ${at('code/beside/new')} && cat ${at('code/beside/new')}; echo more >> ${at('write/file')} && cat ${at('write/file')}`),
          { uid },
        )
        t.equal(out, 'runs\nbeside\ndist\nfine\nin writemore\n')
        t.equal(err.trim().split('\n').length, 9, err)
        t.equal(readFileSync(at('code/dist/main'), 'utf8'), '#!/bin/sh\necho runs\n')
        t.ok(existsSync(at('write/way')))
      },
    )

    t.test('a write path at, around or below it is refused, and a read path is not', async (t) => {
      const { root, at } = folders(t, uid)
      symlinkSync(at('secret'), at('link'))
      const keep = [`fs.readonly ${at('secret')}`, `fs.readonly ${at('link')}`]
      for (const [path, own] of [
        [at('secret'), at('secret')],
        [at('secret/deep'), at('secret')],
        [at('link'), at('secret')],
        [root, at('secret')],
      ] as const) {
        const { code, status } = await launched(
          t,
          [...confined, ...keep, `fs.rw ${path}`],
          shell('echo ran'),
          { uid },
        )
        t.equal(code, 126)
        const reason = `fs.rw ${path}: would let the server change ${own}, which belongs to the sidecar`
        t.match(status, [{ event: 'refused', mechanism: 'landlock.fs', reason }])
      }
      const read = await launched(
        t,
        [...confined, ...keep, `fs.r ${root}`],
        shell(`cat ${at('secret/file')}`),
        { uid },
      )
      t.equal(read.out, 'in secret')
    })

    t.test(
      'a program has its folder, but what is hidden in it, and runs nothing that was written',
      async (t) => {
        const { root, at } = folders(t, uid)
        writeFileSync(at('main'), '#!/bin/sh\necho ran\n', { mode: 0o755 })
        writeFileSync(at('conf.yaml'), 'secret')
        writeFileSync(at('write/made'), '#!/bin/sh\necho made\n', { mode: 0o755 })
        const records = [
          ...confined,
          `fs.program ${root}`,
          `fs.hide ${at('conf.yaml')}`,
          `fs.rw ${at('write')}`,
        ]
        const script = `${at('main')}; cat ${at('read/file')}; cat ${at('conf.yaml')}; ${at('write/made')}; ls ${root}; echo > ${at('read/new')}`
        const { out, err, status } = await launched(t, records, shell(script), { uid })
        t.equal(out, 'ran\nin readconf.yaml\nmain\nread\nsecret\nwrite\n')
        t.equal(err.match(/Permission denied/g)?.length, 3, err)
        t.notOk(mechanism(status[0], 'landlock.fs').gaps.includes('exec-writable'))
        const folder = await launched(
          t,
          [...records, `fs.hide ${at('secret')}`],
          shell(`ls ${root}; ls ${at('secret')}; cat ${at('read/file')}`),
          { uid },
        )
        t.equal(folder.out, 'in read', 'names in a hidden folder do not show')
        const whole = await launched(
          t,
          [...confined, `fs.program ${at('secret/deep')}`, `fs.hide ${at('secret')}`],
          shell(`cat ${at('secret/deep/file')}`),
          { uid },
        )
        t.same([whole.code, whole.out], [1, ''], 'what is hidden stays hidden')
      },
    )

    t.test('a program in a folder that is written runs nothing out of another one', async (t) => {
      const { at } = folders(t, uid)
      for (const name of ['write/app', 'write/app/data']) {
        mkdirSync(at(name))
        chmodSync(at(name), 0o777)
      }
      for (const name of ['write/app/main', 'write/app/data/made'])
        writeFileSync(at(name), '#!/bin/sh\necho ran\n', { mode: 0o755 })
      const { out, err, status } = await launched(
        t,
        [
          ...confined,
          `fs.rw ${at('write')}`,
          `fs.rw ${at('write/app/data')}`,
          `fs.program ${at('write/app')}`,
        ],
        shell(`${at('write/app/main')}; ${at('write/app/data/made')}`),
        { uid },
      )
      t.equal(out, 'ran\n')
      t.match(err, /made: Permission denied/)
      t.ok(mechanism(status[0], 'landlock.fs').gaps.includes('exec-writable'))
    })

    t.test('each hidden path is tried before the server runs, by all its names', async (t) => {
      const { at } = folders(t, uid)
      linkSync(at('secret/deep/file'), at('secret/deep/linked'))
      for (const scope of ['all', 'confined']) {
        const records = ['v 1', `fs ${scope}`, ...confined.slice(2), `fs.hide ${at('read')}`]
        if (scope === 'confined') records.push(`fs.r ${at('secret/deep/linked')}`)
        const { code, out, status } = await launched(
          t,
          [...records, `fs.hide ${at('secret/deep/file')}`],
          shell('echo ran'),
          { uid },
        )
        t.same([code, out], [126, ''], scope)
        const reason = `self-test: opening the protected path ${at('secret/deep/file')}: expected Permission denied, got success`
        t.match(status, [{ event: 'refused', mechanism: 'landlock.fs', reason }])
      }
    })

    t.test('no link is followed on the way to what is hidden', async (t) => {
      const { root, at } = folders(t, uid)
      const part = 'x'.repeat(200)
      const way = Array(12).fill(part).join('/')
      // Longer than a path may be: nobody can say what it really is, but it leads there.
      for (const half of ['secret', 'rest']) mkdirSync(at(`${half}/${way}`), { recursive: true })
      writeFileSync(at(`rest/${way}/far`), 'far')
      renameSync(at(`rest/${part}`), at(`secret/${way}/${part}`))
      t.teardown(() => renameSync(at(`secret/${way}/${part}`), at(`rest/${part}`)))
      symlinkSync(way, at(`secret/${way}/next`))
      symlinkSync(at(`secret/${way}/next`), at('way'))
      t.equal(readFileSync(at('way/far'), 'utf8'), 'far')
      const { out, err } = await launched(
        t,
        ['v 1', 'fs all', ...confined.slice(2, 5), `fs.hide ${at('secret')}`, `fs.hide ${at('way/later')}`],
        shell(`cat ${at('way/far')}; cat ${join(root, 'read/file')}`),
        { uid },
      )
      t.equal(out, 'in read')
      t.match(err, /Permission denied/)
    })

    t.test('a link that the server may have laid is not followed out of where it writes', async (t) => {
      const { at } = folders(t, uid)
      mkdirSync(at('write/v1'))
      writeFileSync(at('write/v1/file'), 'in v1')
      symlinkSync(at('write/v1'), at('write/inside'))
      symlinkSync(at('secret'), at('write/outside'))
      symlinkSync(at('write/outside'), at('way'))
      symlinkSync(at('write/outside/program'), at('write/program'))
      writeFileSync(at('secret/program'), '#!/bin/sh\necho ran\n', { mode: 0o755 })
      const records = [...confined, `fs.rw ${at('write')}`]
      const good = await launched(
        t,
        [...records, `fs.r ${at('write/inside')}`],
        shell(`cat ${at('write/inside/file')}`),
        { uid },
      )
      t.equal(good.out, 'in v1')
      for (const path of [at('write/outside'), at('write/outside/deep'), at('way')]) {
        const { code, status } = await launched(t, [...records, `fs.r? ${path}`], shell('echo ran'), { uid })
        t.equal(code, 126, path)
        t.match(
          status[0].reason,
          /^fs\.r .*: leads to .*\/secret.*, out of .*\/write, which the server may write$/,
        )
      }
      const command = await launched(t, [...records, 'fs.command 1'], [at('write/program')], { uid })
      t.same([command.code, command.out], [126, ''])
      t.match(command.status[0].reason, /^fs\.command .*: leads to .*\/secret/)
    })
  })
}

const noMounts: string | false =
  process.getuid?.() !== 0
    ? 'only root mounts'
    : spawnSync('unshare', ['-m', 'true']).status === 0
      ? false
      : 'no mount namespace can be made here'

const controls = ['/sys/kernel/mm/transparent_hugepage/enabled', '/sys/power/state'].filter((path) => {
  try {
    accessSync(path, fsConstants.R_OK | fsConstants.W_OK)
    return true
  } catch {
    return false
  }
})

t.test(
  'by the files of the kernel nothing is changed, wherever they are mounted',
  { skip: noMounts || (controls.length === 0 && 'there are none that could be') },
  async (t) => {
    const { at } = folders(t, 0)
    mkdirSync(at('kernel'))
    const paths = controls.flatMap((path) => [path, path.replace('/sys', at('kernel'))])
    const script = paths
      .map((path) => `head -c 0 ${path} && echo read; (: >> ${path}) && echo opened`)
      .join('\n')
    const { out, err } = await launched(
      t,
      ['v 1', 'fs all', ...confined.slice(2, 5), `fs.hide ${at('secret')}`],
      shell(script),
      {
        mounts: `mount --bind /sys ${at('kernel')}`,
      },
    )
    t.equal(out, 'read\n'.repeat(paths.length), err)
  },
)

t.test('what is mounted a second time', { skip: noMounts }, async (t) => {
  const { root, at } = folders(t, 0)
  for (const name of ['again', 'part', 'a second']) mkdirSync(at(name))
  writeFileSync(at('alone'), '')
  const mounts = `mount --bind ${at('secret')} ${at('again')}; mount --bind ${at('secret/deep')} ${at('part')}
    mount --bind ${at('secret/deep')} '${at('a second')}'; mount --bind ${at('secret/deep/file')} ${at('alone')}`
  const all = ['v 1', 'fs all', ...confined.slice(2, 5)]
  const hide = `fs.hide ${at('secret/deep')}`

  t.test('is hidden by each of its names, and nothing else is', async (t) => {
    const files = [
      at('secret/deep/file'),
      at('again/deep/file'),
      at('part/file'),
      at('a second/file'),
      at('alone'),
    ]
    const read = shell(
      `for file in ${files.map((file) => `'${file}'`).join(' ')}; do cat "$file"; done; cat ${at('again/file')} ${at('read/file')}`,
    )
    const { out, err } = await launched(t, [...all, hide], read, { mounts })
    t.equal(out, 'in secretin read')
    t.equal(err.match(/Permission denied/g)?.length, files.length, err)
    // One of its names, hidden, hides the others.
    const other = await launched(t, [...all, `fs.hide ${at('part')}`], read, { mounts })
    t.equal(other.out, 'in secretin read')
    t.equal(other.err.match(/Permission denied/g)?.length, files.length, other.err)
    const file = await launched(t, [...all, `fs.hide ${at('secret/deep/file')}`], read, { mounts })
    t.equal(file.out, 'in secretin read')
    t.equal(file.err.match(/Permission denied/g)?.length, files.length, file.err)
  })

  t.test('does not matter where nobody of this user gets to', async (t) => {
    mkdirSync(at('closed'), { mode: 0o700 })
    mkdirSync(at('closed/again'))
    const closed = `mount --bind ${at('secret')} ${at('closed/again')}
      set -- setpriv --reuid 65534 --regid 65534 --clear-groups "$@"`
    const { out, err } = await launched(
      t,
      [...all, hide],
      shell(`cat ${at('secret/deep/file')}; cat ${at('closed/again/deep/file')}; cat ${at('read/file')}`),
      { mounts: closed },
    )
    t.equal(out, 'in read')
    t.equal(err.match(/Permission denied/g)?.length, 2, err)
  })

  t.test('is kept from being changed by each of its names', async (t) => {
    const write = shell(
      `echo x > ${at('again/deep/file')}; echo x > ${at('part/file')}; echo x > ${at('alone')}; cat ${at('part/file')}`,
    )
    const { out, err } = await launched(t, [...all, `fs.readonly ${at('secret/deep')}`], write, { mounts })
    t.equal(out, 'in secret/deep')
    t.equal(err.match(/Permission denied/g)?.length, 3, err)
  })

  t.test('is granted by none of its names', async (t) => {
    for (const [key, path, name] of [
      ['fs.r', at('again'), at('again/deep')],
      ['fs.r', at('again/deep/file'), at('again/deep')],
      ['fs.r', at('part'), at('part')],
      ['fs.rx', at('a second'), at('a second')],
      ['fs.r', at('alone'), at('alone')],
      ['fs.rw', root, undefined],
    ] as const) {
      const { code, out, status } = await launched(
        t,
        [...confined, hide, `${key} ${path}`],
        shell('echo ran'),
        {
          mounts,
        },
      )
      t.same([code, out], [126, ''], path)
      const word = name !== undefined && path.startsWith(`${name}/`) ? 'belongs to' : 'contains'
      const named = name === undefined ? at('secret/deep') : `${name}, another mount of ${at('secret/deep')}`
      t.match(status, [
        {
          event: 'refused',
          mechanism: 'landlock.fs',
          reason: `${key} ${path}: ${word} the protected path ${named}`,
        },
      ])
    }
    const own = await launched(
      t,
      [...confined, `fs.readonly ${at('secret/deep')}`, `fs.rw ${at('part')}`],
      shell('echo ran'),
      {
        mounts,
      },
    )
    t.match(own.status, [
      {
        event: 'refused',
        reason: `fs.rw ${at('part')}: would let the server change ${at('part')}, another mount of ${at('secret/deep')}, which belongs to the sidecar`,
      },
    ])
  })
})
