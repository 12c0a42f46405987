import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
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
      writeFileSync(at('program'), '#!/bin/sh\n', { mode: 0o755 })
      const beside = await launched(
        t,
        [...confined, 'fs.command 1', `fs.rw ${at('write')}`],
        [at('program')],
        { uid },
      )
      t.ok(mechanism(beside.status[0], 'landlock.fs').gaps.includes('exec-writable'))
    })
  })
}
