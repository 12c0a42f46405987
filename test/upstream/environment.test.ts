import fc from 'fast-check'
import t from 'tap'
import { BASE_ENVIRONMENT } from '../../src/config/environment.ts'
import { serverEnvironment } from '../../src/upstream/environment.ts'
import { holds } from '../support/property.ts'

const name = fc.oneof(
  fc.constantFrom('PATH', 'HOME', 'LC_ALL', 'LC_', 'LC', 'A', 'AB', 'A*', '*', '__proto__', 'constructor'),
  fc.stringMatching(/^[A-Z_]{1,6}$/),
)
const variables = fc.dictionary(name, fc.option(fc.string(), { nil: undefined }))
const pattern = fc.oneof(
  name,
  name.map((text) => `${text}*`),
)

t.test('a variable passes if its name or a prefix of it is allowed, and not otherwise', async (t) => {
  holds(
    t,
    fc.property(variables, fc.array(pattern, { maxLength: 4 }), (source, allow) => {
      const result = serverEnvironment(source, allow, {})
      return Object.keys(source).every((name) => {
        const value = source[name]
        const allowed = allow.some((each) =>
          each.endsWith('*') ? name.startsWith(each.slice(0, -1)) : each === name,
        )
        return allowed && value !== undefined
          ? name === '__proto__' || result[name] === value
          : !Object.hasOwn(result, name)
      })
    }),
    500,
  )
})

t.test('nothing passes that was not there, and without allowance nothing at all', async (t) => {
  holds(
    t,
    fc.property(variables, fc.array(pattern, { maxLength: 4 }), (source, allow) =>
      Object.entries(serverEnvironment(source, allow, {})).every(([name, value]) => source[name] === value),
    ),
  )
  holds(
    t,
    fc.property(variables, (source) => Object.keys(serverEnvironment(source, [], {})).length === 0),
  )
})

t.test('values that are set win, allowed or not', async (t) => {
  t.same(serverEnvironment({ A: 'mine', B: 'mine' }, ['A', 'B'], { A: 'set', C: 'set' }), {
    A: 'set',
    B: 'mine',
    C: 'set',
  })
  const set: Record<string, string> = JSON.parse('{"__proto__":"x"}')
  t.ok(Object.hasOwn(serverEnvironment({}, [], set), '__proto__'), 'even an odd name')
})

t.test('by default neither our own variables nor those of tools reach the server', async (t) => {
  const foreign = {
    MCP_SIDECAR_BEARER_TOKEN_FILE: '/run/secrets/tokens',
    NODE_OPTIONS: '--import=file:///x.mjs',
    TAP_CHILD_ID: '1',
    TAP: '1',
    _TAPJS_PROCESSINFO_EXTERNAL_ID_: 'x',
    AWS_SECRET_ACCESS_KEY: 'x',
    GITHUB_TOKEN: 'x',
    LD_PRELOAD: '/x.so',
    PATHS: 'x',
    HOMES: 'x',
    path: 'x',
  }
  t.same(serverEnvironment({ ...foreign, PATH: '/bin', LC_TIME: 'C' }, BASE_ENVIRONMENT, {}), {
    PATH: '/bin',
    LC_TIME: 'C',
  })
})

t.test('nothing of this test run itself reaches the server', async (t) => {
  const passed = Object.keys(serverEnvironment(process.env, BASE_ENVIRONMENT, {}))
  t.same(
    passed.filter((name) => /TAP|NODE|NPM|npm/.test(name)),
    [],
  )
})

t.test('a star alone passes everything, a star inside a name is no pattern', async (t) => {
  const source = { A: '1', AXB: '2' }
  t.same(serverEnvironment(source, ['*'], {}), source)
  t.same(serverEnvironment(source, ['A*B'], {}), {})
})
