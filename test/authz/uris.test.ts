import fc from 'fast-check'
import t from 'tap'
import { isTreacherous, spellings } from '../../src/authz/uris.ts'
import { holds, shown } from '../support/property.ts'

t.test('a URI that climbs is found in every spelling', async (t) => {
  const found = [
    ...['file:///public/../secret', 'file:///public/..', '../x', '..', 'file:..', 'file:///a/../'],
    ...['file:///public/%2e%2e/secret', 'file:///public/.%2E/secret', 'file:///public/%2e./x'],
    ...['file:///public/..%2fsecret', 'file:///public%2F..%2Fsecret', 'file:///public\\..\\secret'],
    ...['file:///public/..%5csecret', 'file:///public/%252e%252e%252fsecret', 'x:/a/..?b', 'x:/a/..#b'],
    ...['x:/a/..%00/b', 'x:/a/.%09./b', 'x:/a/.%250a./b', 'x:/a/b%7f', 'x:/a/..;/b', 'x:/a/..%3bp/b'],
    ...['x:/a/.. ', 'x:/a/.. /b', 'x:/a/..%20/b', 'x:/a/..%3fb', 'x:/a/..%23b'],
    ...['file:///public/.\t./secret', 'file:///public/.\n./secret', 'file:///a\0', 'x:\x7f'],
  ]
  for (const uri of found) t.ok(isTreacherous(uri), shown(uri))
})

t.test('dots that do not climb are nothing special', async (t) => {
  const harmless = [
    ...['file:///public/a.txt', 'git://repo?range=a..b', 'x:/a/...', 'x:/a/..b', 'x:/a../b', 'x:/./a', ''],
    ...[
      'https://example.com/a%20b',
      'x:/%2e',
      'x:/a.%2etxt',
      'x:/a;b/..c',
      'x:/.. b',
      'demo://resource/dynamic/text/1',
      '%',
    ],
  ]
  for (const uri of harmless) t.notOk(isTreacherous(uri), uri)
})

t.test('where the URL parser leaves a directory, it was found to be treacherous', async (t) => {
  const part = fc.constantFrom('.', '..', '%2e', '%2E', '/', '\\', 'a', '\t', '\n', '?', '#', '%2f', 'b.c')
  holds(
    t,
    fc.property(fc.array(part, { maxLength: 8 }), (parts) => {
      const uri = `file:///public/${parts.join('')}`
      return isTreacherous(uri) || new URL(uri).href.startsWith('file:///public/')
    }),
    2000,
  )
})

t.test('a URI has the spellings that servers may read', async (t) => {
  t.same(spellings('file:///a'), ['file:///a'])
  t.ok(spellings('file:///secre%74').includes('file:///secret'))
  t.ok(spellings('FILE://localhost/secret').includes('file:///secret'))
  t.ok(spellings('file:/secret').includes('file:///secret'))
  t.same(spellings('no uri %zz'), ['no uri %zz'])
})

t.test('every spelling of a URI leads to its normal form', async (t) => {
  for (const normal of [
    'demo://docs/a/b.md',
    'https://example.com/a/b.md?q=1',
    'file:///a/b.md',
    'r:1',
    'a/b',
  ]) {
    t.same(spellings(normal), [normal])
  }
  for (const uri of [
    'DEMO://docs/a.md',
    'demo://DOCS/a.md',
    'demo://docs/./a.md',
    'demo://docs//a.md',
    'demo://docs/.//./a.md',
    'demo://docs/%61.md',
    'demo://docs/%2561.md',
    'demo://docs/a.md#',
    'demo://docs/a.md?',
    'demo://docs/a.md?#',
    'demo://docs/a.md#x',
    'demo://docs/a.md%23x',
    'demo://docs/%61.md#%ff',
    'DEMO://Docs/.//%61.md?#x',
  ]) {
    t.ok(spellings(uri).includes('demo://docs/a.md'), uri)
  }
  t.ok(spellings('DEMO://Docs/a').includes('demo://Docs/a'), 'a host that is compared letter by letter')
  t.notOk(spellings('demo://docs/a?x=//y').includes('demo://docs/a?x=/y'), 'a query is no path')
})
