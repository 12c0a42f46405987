import fc from 'fast-check'
import t from 'tap'
import { compileToolsFilter } from '../../src/authz/tools-filter.ts'
import { rpcErrorText, SidecarError } from '../../src/core/errors.ts'
import { operationOf } from '../../src/core/operation.ts'
import { decoded } from '../support/authz.ts'
import { holds } from '../support/property.ts'

function refusal(
  filters: readonly (readonly string[])[],
  method: string,
  params: object,
): SidecarError | undefined {
  try {
    compileToolsFilter(filters).permit(operationOf(decoded(method, params).message))
    return undefined
  } catch (thrown) {
    if (thrown instanceof SidecarError) return thrown
    throw thrown
  }
}

t.test('a tool is there if every filter has its exact name', async (t) => {
  const filters = [
    ['a', 'b', 'a*'],
    ['b', 'c', 'a'],
  ]
  const filter = compileToolsFilter(filters)
  for (const name of ['a', 'b', 'c', 'A', 'a*', 'ab', '', 'toString']) {
    const there = name === 'a' || name === 'b'
    t.equal(filter.has(name), there, name)
    t.equal(refusal(filters, 'tools/call', { name })?.code, there ? undefined : 'ERR_TOOL_UNKNOWN', name)
  }
  t.ok(compileToolsFilter([['a']]).has('a'))
  const three = compileToolsFilter([['a', 'b'], ['a', 'b'], ['a']])
  t.same([three.has('a'), three.has('b')], [true, false])
  t.notOk(compileToolsFilter([[]]).has('a'), 'a filter without names has no tools')
})

t.test('a call without a name, or with one that is no string, calls no tool', async (t) => {
  for (const params of [{}, { name: 1 }, { name: null }, { name: ['a'] }]) {
    t.equal(refusal([['a']], 'tools/call', params)?.code, 'ERR_TOOL_UNKNOWN')
  }
})

t.test('only calls of tools are its business', async (t) => {
  for (const [method, params] of [
    ['prompts/get', { name: 'x' }],
    ['resources/read', { uri: 'x' }],
    ['tools/list', {}],
    ['ping', {}],
    ['x/unknown', { name: 'x' }],
  ] as const) {
    t.equal(refusal([['a']], method, params), undefined, method)
  }
})

t.test('every name outside is answered alike', async (t) => {
  const shown = (name: string): string => {
    const error = refusal([['a']], 'tools/call', { name }) as SidecarError
    t.match(error.verdict, { layer: 'tools-filter' })
    return `${error.httpStatus(true)} ${JSON.stringify(error.headers)} ${rpcErrorText(error, '1', 'r')}`
  }
  holds(
    t,
    fc.property(fc.string(), (name) => name === 'a' || shown(name) === shown('hidden')),
  )
})
