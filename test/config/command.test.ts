import t from 'tap'
import { command } from '../../src/config/command.ts'
import { good, type Parsed } from '../../src/config/parsed.ts'

function message(parsed: Parsed<unknown>): string | undefined {
  return parsed.ok
    ? undefined
    : parsed.faults.map((fault) => [...fault.path, fault.message].join(' ')).join('; ')
}

t.test('a list of words is a command', async (t) => {
  t.same(command.parse(['node', 'server.js', '']), good(['node', 'server.js', '']))
})

t.test('what is not a list of words is refused', async (t) => {
  const cases: [unknown, string][] = [
    [[], 'is empty: it needs at least a program, as in [node, server.js]'],
    ['node server.js', 'must be a list of words: write [node, server.js], each argument an item'],
    [null, 'must be a list of words, not nothing'],
    [{ program: 'node' }, 'must be a list of words, not a section'],
    [['node', 8080], '1 each word must be text: put quotes around a number'],
    [
      ['node', true, null],
      '1 each word must be text: put quotes around true or false; 2 each word must be text: put quotes around nothing',
    ],
    [[' '], '0 the program is empty'],
    [['node', 'a\0b'], '1 must not contain a NUL character'],
  ]
  for (const [input, expected] of cases)
    t.equal(message(command.parse(input)), expected, JSON.stringify(input))
})

t.test('a variable holds a JSON array or words between blanks', async (t) => {
  const cases: [string, string[]][] = [
    ['["node","my server.js","--name=\\"x\\""]', ['node', 'my server.js', '--name="x"']],
    ['  node   server.js\t--port 1 ', ['node', 'server.js', '--port', '1']],
    ['npx -y @scope/server ./data', ['npx', '-y', '@scope/server', './data']],
  ]
  for (const [input, words] of cases) t.same(command.parseText(input), good(words), input)
})

t.test('quotes, backslashes and broken JSON in a variable are refused with the way out', async (t) => {
  const quotes =
    'has quotes or backslashes, which are not interpreted: use the JSON form ["node","server.js"]'
  const cases: [string, string][] = [
    [`node 'my server.js'`, quotes],
    ['node "my server.js"', quotes],
    ['node my\\ server.js', quotes],
    ['["node", hunter2]', 'starts with [ and is not valid JSON: write the JSON form ["node","server.js"]'],
    ['["node", 1]', '1 each word must be text: put quotes around a number'],
    ['[]', 'is empty: it needs at least a program, as in [node, server.js]'],
    ['  ', 'is empty: it needs at least a program, as in [node, server.js]'],
  ]
  for (const [input, expected] of cases) t.equal(message(command.parseText(input)), expected, input)
})

t.test('it is shown so that words with blanks can be told apart', async (t) => {
  t.equal(command.show(['node', 'my server.js', '']), 'node "my server.js" ""')
})
