import fc from 'fast-check'
import t from 'tap'
import {
  BASE_ENVIRONMENT,
  dangerousVariable,
  envAllow,
  envSet,
  overlaps,
} from '../../src/config/environment.ts'
import { good, type Parsed } from '../../src/config/parsed.ts'

function message(parsed: Parsed<unknown>): string | undefined {
  return parsed.ok
    ? undefined
    : parsed.faults.map((fault) => [...fault.path, fault.message].join(' ')).join('; ')
}

t.test('names and beginnings of names can be passed', async (t) => {
  t.same(envAllow.parse(['API_KEY', 'AWS_*', '_x']), good(['API_KEY', 'AWS_*', '_x']))
  t.same(envAllow.parseText('A, B_*'), good(['A', 'B_*']))
  t.equal(envAllow.show([]), 'the base set')
  t.equal(envAllow.show(['A', 'B']), 'the base set, A, B')
})

t.test('what is not a name, or would pass the sidecar’s own variables, is refused', async (t) => {
  const own = 'would pass variables of the sidecar itself (MCP_SIDECAR_*)'
  const notName = 'is not a variable name (letters, digits and _, a * only at the end)'
  const cases: [string, string][] = [
    ['*', '"*" would pass everything, the secrets of the sidecar too: name the variables'],
    ['API_KEY=hunter2', 'only names stand here: write API_KEY, values go into server.env.set'],
    ['a b=hunter2', 'only names stand here: write the name, values go into server.env.set'],
    ['A-B', `"A-B" ${notName}`],
    ['1A', `"1A" ${notName}`],
    ['A*B', `"A*B" ${notName}`],
    ['A**', `"A**" ${notName}`],
    ['MCP_SIDECAR_BEARER_TOKEN_FILE', `"MCP_SIDECAR_BEARER_TOKEN_FILE" ${own}`],
    ['MCP_SIDECAR_*', `"MCP_SIDECAR_*" ${own}`],
    ['MCP_*', `"MCP_*" ${own}`],
    ['M*', `"M*" ${own}`],
  ]
  for (const [name, expected] of cases) t.equal(message(envAllow.parse([name])), `0 ${expected}`, name)
  t.ok(envAllow.parse(['MCP_SERVER_KEY', 'MCP_SIDECAR']).ok, 'other names that begin alike are fine')
})

t.test('variables are set to text, and to nothing else', async (t) => {
  t.same(envSet.parse({ A: '1', B: '' }), good({ A: '1', B: '' }))
  t.equal(message(envSet.parse({ PORT: 8080 })), 'PORT must be text, not a number: put quotes around it')
  t.equal(message(envSet.parse({ A: null })), 'A must be text, not nothing: put quotes around it')
  t.equal(message(envSet.parse({ 'A-B': 'x' })), 'A-B "A-B" is not a variable name (letters, digits and _)')
  t.equal(message(envSet.parse({ A: 'hunter2\0' })), 'A must not contain a NUL character')
  t.equal(message(envSet.parse(['A=hunter2'])), 'must be a section of NAME: value, not a list')
  t.equal(message(envSet.parse('A=hunter2')), 'must be a section of NAME: value, not text')
  t.equal(message(envSet.parseText('A=hunter2')), 'can be set only in the file')
})

t.test('a variable named like a member of every object is one like the others', async (t) => {
  const parsed = envSet.parse(JSON.parse('{"__proto__":"x"}'))
  t.ok(parsed.ok && Object.hasOwn(parsed.value, '__proto__'))
})

t.test('values that are set are never shown', async (t) => {
  t.equal(envSet.show({ A: 'hunter2', B: '' }), 'A=(not shown), B=(not shown)')
  t.equal(envSet.show({}), 'none')
})

t.test('variables that change what code runs are known, also behind a beginning', async (t) => {
  const dangerous = [
    'LD_PRELOAD',
    'LD_LIBRARY_PATH',
    'DYLD_INSERT_LIBRARIES',
    'NODE_OPTIONS',
    'PYTHONPATH',
    'PYTHONSTARTUP',
    'PERL5OPT',
    'RUBYOPT',
    'JAVA_TOOL_OPTIONS',
    'BASH_ENV',
    'ENV',
    'GLIBC_TUNABLES',
    'GCONV_PATH',
  ]
  for (const name of dangerous) t.ok(dangerousVariable(name), name)
  for (const name of ['LD_*', 'LD*', 'L*', 'NODE_*', 'PYTHON*', 'LD_PRE*'])
    t.ok(dangerousVariable(name), name)
  for (const name of ['PATH', 'LDAP_URL', 'NODE_ENV', 'ENVIRONMENT', 'AWS_*', 'LC_*', 'NODE_EXTRA_CA_CERTS'])
    t.notOk(dangerousVariable(name), name)
  t.notOk(BASE_ENVIRONMENT.some(dangerousVariable), 'none of them is in the base set')
})

t.test('two patterns overlap exactly when some name fits both', async () => {
  const pattern = fc.tuple(
    fc.string({ unit: fc.constantFrom('A', 'B'), maxLength: 3 }),
    fc.constantFrom('', '*'),
  )
  const names = ['', 'A', 'B'].flatMap((a) =>
    ['', 'A', 'B'].flatMap((b) => ['', 'A', 'B'].flatMap((c) => ['', 'A', 'B'].map((d) => a + b + c + d))),
  )
  const fits = (name: string, [start, star]: readonly [string, string]): boolean =>
    star === '*' ? name.startsWith(start) : name === start
  fc.assert(
    fc.property(pattern, pattern, (a, b) => {
      const some = names.some((name) => fits(name, a) && fits(name, b))
      return overlaps(a.join(''), b.join('')) === some
    }),
  )
})
