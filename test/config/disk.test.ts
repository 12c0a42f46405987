import { chmod } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { explainReadError, MAX_FILE_BYTES, missing, readTextFile } from '../../src/config/disk.ts'

const root = process.getuid?.() === 0

t.test('a file of up to 1 MiB is read whole', async (t) => {
  const text = `ü${'x'.repeat(MAX_FILE_BYTES - 2)}`
  const folder = t.testdir({ full: text, over: `${text}x`, empty: '', bom: '\ufeffa: 1' })
  t.equal(await readTextFile(join(folder, 'full')), text)
  t.equal(await readTextFile(join(folder, 'empty')), '')
  t.equal(await readTextFile(join(folder, 'bom')), 'a: 1')
  await t.rejects(readTextFile(join(folder, 'over')), { message: 'is larger than 1 MiB' })
})

t.test('a file without an end is given up at the limit', async (t) => {
  await t.rejects(readTextFile('/dev/zero'), { message: 'is larger than 1 MiB' })
})

t.test('what is not UTF-8 is refused', async (t) => {
  const folder = t.testdir({ latin: Buffer.from([0x61, 0xfc, 0x62]) })
  await t.rejects(readTextFile(join(folder, 'latin')), { message: 'is not UTF-8 text' })
})

t.test('every refusal of the file system is a sentence', async (t) => {
  const folder = t.testdir({ file: '' })
  const reason = (path: string): Promise<string> => readTextFile(path).then(() => 'read', explainReadError)
  t.equal(await reason(join(folder, 'none')), 'does not exist')
  t.equal(await reason(join(folder, 'file', 'x')), 'does not exist: a part of the path is not a folder')
  t.equal(await reason(folder), 'is a folder: name a file in it')
  t.equal(explainReadError({ code: 'EACCES' }), 'may not be read by this user')
  t.equal(explainReadError({ code: 'EIO' }), 'cannot be read (EIO)')
  t.equal(explainReadError(undefined), 'cannot be read (unknown reason)')
})

t.test('a named file or folder is looked for', async (t) => {
  const folder = t.testdir({ file: '', sub: {} })
  t.equal(await missing('file', join(folder, 'file')), undefined)
  t.equal(await missing('folder', join(folder, 'sub')), undefined)
  t.equal(await missing('file', join(folder, 'none')), 'does not exist')
  t.equal(await missing('file', folder), 'is a folder: name a file in it')
  t.equal(await missing('folder', join(folder, 'file')), 'is not a folder')
})

t.test(
  'a file this user may not read is found out',
  { skip: root && 'root may read everything' },
  async (t) => {
    const folder = t.testdir({ file: '' })
    await chmod(join(folder, 'file'), 0)
    t.equal(await missing('file', join(folder, 'file')), 'may not be read by this user')
  },
)
