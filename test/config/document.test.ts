import t from 'tap'
import { type Document, readDocument, readDocuments } from '../../src/config/document.ts'

function read(text: string): Document {
  const document = readDocument(text, 'c.yaml')
  if (!('value' in document)) throw new Error(JSON.stringify(document))
  return document
}

t.test('each value and key is found at its line and column', async (t) => {
  const document = read('# first\nlisten:\n  hosts: [a, "b"]\n  none:\n  flow: { x: 1 }\n')
  const cases: [(string | number)[], 'key' | undefined, string][] = [
    [[], undefined, 'c.yaml:2:1'],
    [['listen'], 'key', 'c.yaml:2:1'],
    [['listen'], undefined, 'c.yaml:3:3'],
    [['listen', 'hosts'], 'key', 'c.yaml:3:3'],
    [['listen', 'hosts', 0], undefined, 'c.yaml:3:11'],
    [['listen', 'hosts', 1], undefined, 'c.yaml:3:14'],
    [['listen', 'none'], undefined, 'c.yaml:4:3'],
    [['listen', 'flow', 'x'], undefined, 'c.yaml:5:14'],
    [['listen', 'absent', 'deeper'], undefined, 'c.yaml:3:3'],
    [['listen', 'hosts', 9], undefined, 'c.yaml:3:10'],
    [['listen', 'hosts', 0, 'deeper'], undefined, 'c.yaml:3:11'],
  ]
  for (const [path, key, where] of cases)
    t.equal(document.where(document.offset(path, key)), where, `${path.join('.')} ${key ?? ''}`)
})

t.test('an empty file, or one of comments, is an empty configuration', async (t) => {
  for (const text of ['', '\n', '# nothing\n', '---\n', '\ufeff'])
    t.same(read(text).value, {}, JSON.stringify(text))
  t.equal(read('').where(0), 'c.yaml:1:1')
})

t.test('a few aliases may share a value', async (t) => {
  const document = read('a: &x [1]\nb: *x\n')
  t.same(document.value, { a: [1], b: [1] })
  t.equal(document.where(document.offset(['b', 0])), 'c.yaml:2:4', 'a fault in it is placed at the alias')
})

t.test('yes, no and other words of YAML 1.1 stay text, whatever the directive', async (t) => {
  t.same(read('a: no\n').value, { a: 'no' })
  t.same(read('%YAML 1.1\n---\na: no\nb: 1:30\n').value, { a: 'no', b: '1:30' })
})

t.test('what is not one plain YAML document is refused at its place', async (t) => {
  const syntax = 'not valid YAML: '
  const cases: [string, string, string][] = [
    ['a: 1\na: 2\n', 'c.yaml:2:1', 'this key is there twice: keep one of the two'],
    ['a: {b: 1, b: 2}\n', 'c.yaml:1:11', 'this key is there twice: keep one of the two'],
    [
      'a: 1\n---\nb: 1\n',
      'c.yaml:2:1',
      'a second document begins here (---): the file holds only one; OME documents are named with --manifest',
    ],
    ['a: !env X\n', 'c.yaml:1:4', 'tags (!name) are not supported: write the plain value'],
    ['a: !!binary aGk=\n', 'c.yaml:1:4', 'tags (!name) are not supported: write the plain value'],
    ['? [a]\n: b\n', 'c.yaml:1:3', 'a key must be plain text'],
    ['a:\n\tb: 1\n', 'c.yaml:2:1', `${syntax}a tab indents this line, use spaces`],
    [
      'a: b: hunter2\n',
      'c.yaml:1:4',
      `${syntax}a second key on this line, put quotes around the value or start a new line`,
    ],
    [
      'a: [1, 2\n',
      'c.yaml:2:1',
      `${syntax}the indentation does not fit the lines around it, or a bracket is not closed`,
    ],
    [
      'a: "hunter2\n',
      'c.yaml:2:1',
      `${syntax}a colon, comma, quote, bracket or blank is missing here or just before`,
    ],
    [
      'a: @hunter2\n',
      'c.yaml:1:4',
      `${syntax}a value cannot start with this character, put quotes around it`,
    ],
    [
      'a: "\\q"\n',
      'c.yaml:1:5',
      `${syntax}there is no such backslash escape, use single quotes or double the backslash`,
    ],
    [
      'a: 1\nhunter2\n',
      'c.yaml:2:1',
      `${syntax}a colon, comma, quote, bracket or blank is missing here or just before`,
    ],
    [
      'a: "x" hunter2\n',
      'c.yaml:1:8',
      `${syntax}this does not belong here, look for a missing quote, comma or colon before it`,
    ],
    [
      'a:\n    b: 1\n  c: 2\n',
      'c.yaml:3:1',
      `${syntax}the indentation does not fit the lines around it, or a bracket is not closed`,
    ],
    [
      'a: *x\n',
      'c.yaml:1:4',
      'aliases (*name) point nowhere or stand for more than 100 nodes: write the values out, and put quotes around text that begins with *',
    ],
  ]
  for (const [text, where, message] of cases) {
    const problems = readDocument(text, 'c.yaml')
    t.match(problems, [{ where, message }], JSON.stringify(text.slice(0, 40)))
    t.notMatch(JSON.stringify(problems), 'hunter2')
  }
})

t.test('nesting beyond 32 levels is refused before it can exhaust the stack', async (t) => {
  const message = 'nested more than 32 levels deep'
  const cases: [string, string][] = [
    ['['.repeat(200_000), 'c.yaml:1:33'],
    [`${'['.repeat(33)}${']'.repeat(33)}`, 'c.yaml:1:33'],
    ['{a: '.repeat(100_000), 'c.yaml:1:129'],
    ['- '.repeat(200_000), 'c.yaml:1:65'],
    ['? '.repeat(200_000), 'c.yaml:1:65'],
    [Array.from({ length: 1000 }, (_, depth) => `${' '.repeat(depth)}a:\n`).join(''), 'c.yaml:33:33'],
    [`a: 1\n---\n${'['.repeat(33)}`, 'c.yaml:3:33'],
  ]
  for (const [text, where] of cases)
    t.same(readDocument(text, 'c.yaml'), [{ where, message }], text.slice(0, 4))
  t.match(readDocument(`${'['.repeat(32)}${']'.repeat(32)}`, 'c.yaml'), { value: [] })
})

t.test(
  'more keys and items than a configuration can need are refused, not compared for minutes',
  async (t) => {
    const keys = (count: number): string => Array.from({ length: count }, (_, i) => `k${i}: 1\n`).join('')
    const message = 'more than 5000 keys and list items'
    t.same(readDocument(keys(5001), 'c.yaml'), [{ where: 'c.yaml:1:1', message }])
    t.same(readDocument(`a:\n  b: [${'1,'.repeat(100_000)}]\n`, 'c.yaml'), [{ where: 'c.yaml:2:6', message }])
    t.ok('value' in readDocument(keys(1000), 'c.yaml'))
  },
)

t.test('aliases cannot multiply without bound', async (t) => {
  const levels = Array.from(
    { length: 12 },
    (_, i) => `l${i + 1}: &l${i + 1} [${Array(9).fill(`*l${i}`).join(', ')}]`,
  )
  const bomb = ['l0: &l0 [x]', ...levels].join('\n')
  t.match(readDocument(bomb, 'c.yaml'), [{ where: 'c.yaml:2:10', message: /more than 100 nodes/ }])
})

t.test('every duplicate key is reported, other syntax errors only once', async (t) => {
  t.match(readDocument('a: 1\na: 2\nb: 1\nb: 2\n', 'c.yaml'), { length: 2 })
  t.match(readDocument('a: [\nb: {\nc: "\n', 'c.yaml'), { length: 1 })
})

t.test('several documents are read on their own, empty ones left out', async (t) => {
  const read = readDocuments('# nothing\n---\na: 1\n---\n---\nb: [1, 2]\n...\n', 'm.yaml')
  if ('problems' in read) throw new Error('it was refused')
  t.same(
    read.map(({ value }) => value),
    [{ a: 1 }, { b: [1, 2] }],
  )
  t.equal(read[1]?.where(read[1].offset(['b', 1])), 'm.yaml:6:8')
})

t.test(
  'what is wrong in any of several documents is reported, and too much is too much for all together',
  async (t) => {
    t.same(readDocuments('a: 1\na: 2\n---\nb: !x 1\n', 'm.yaml'), {
      problems: [
        { where: 'm.yaml:2:1', message: 'this key is there twice: keep one of the two' },
        { where: 'm.yaml:4:4', message: 'tags (!name) are not supported: write the plain value' },
      ],
    })
    const many = `- ${'x\n- '.repeat(2600)}x\n`
    t.match(readDocuments(`${many}---\n${many}`, 'm.yaml'), { problems: [{ message: /more than 5000/ }] })
    const laughs =
      'a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: &d [*c, *c]\ne: &e [*d, *d]\nf: [*e, *e, *e, *e]\n'
    t.match(readDocuments(`a: 1\n---\n${laughs}`, 'm.yaml'), { problems: [{ message: /aliases/ }] })
  },
)
