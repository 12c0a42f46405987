import fc from 'fast-check'
import t from 'tap'
import { messageOf, trustedResult } from '../../src/core/local.ts'
import { maxDepth } from '../../src/core/scan.ts'
import {
  allNeeds,
  answersOf,
  inputRequired,
  isAccepted,
  maxQuestions,
  missingCapability,
  type Question,
  questionOf,
  urlQuestions,
} from '../../src/era/questions.ts'
import { type Json, membersAt } from '../support/modern-calls.ts'
import { nameOf, oddMembers, perhaps, shownMember, shuffled, valueText } from '../support/odd-json.ts'
import { holds, objectText } from '../support/property.ts'

const asked = (method: string, params?: string, id = '1'): Question | undefined => {
  const rest = params === undefined ? '' : `,"params":${params}`
  return questionOf(messageOf(`{"jsonrpc":"2.0","id":${id},"method":"${method}"${rest}}`), 'q1')
}

t.test('what a server may ask', async (t) => {
  t.match(asked('elicitation/create', '{"message":"m"}', '"a"'), {
    ...{ key: 'q1', idText: '"a"', kind: 'elicitation' },
    text: '{"method":"elicitation/create","params":{"message":"m"}}',
  })
  t.match(asked('sampling/createMessage', '{}'), { kind: 'sampling' })
  t.match(asked('roots/list'), { kind: 'roots', text: '{"method":"roots/list"}' })
  for (const method of [
    'ping',
    'elicitation/Create',
    'tools/list',
    '__proto__',
    'constructor',
    'toString',
    '',
  ]) {
    t.equal(asked(method, '{}'), undefined, method)
  }
})

t.test('what a client must be able to do', async (t) => {
  const cases: [string, string | undefined, object][] = [
    ['elicitation/create', '{}', { elicitation: { form: {} } }],
    ['elicitation/create', '{"mode":"form"}', { elicitation: { form: {} } }],
    ['elicitation/create', '{"mode":"url"}', { elicitation: { url: {} } }],
    ['elicitation/create', '{"mode":"\\u0075rl"}', { elicitation: { url: {} } }],
    ['elicitation/create', '{"mode":["url"]}', { elicitation: { form: {} } }],
    ['sampling/createMessage', '{}', { sampling: {} }],
    ['sampling/createMessage', '{"tools":[]}', { sampling: {} }],
    ['sampling/createMessage', '{"tools":[{}]}', { sampling: { tools: {} } }],
    ['sampling/createMessage', '{"tools":{}}', { sampling: {} }],
    ['roots/list', undefined, { roots: {} }],
  ]
  for (const [method, params, needs] of cases)
    t.same(asked(method, params)?.needs, needs, `${method} ${params}`)
})

t.test('who has what is needed', async (t) => {
  const form = { elicitation: { form: {} } }
  const url = { elicitation: { url: {} } }
  const tools = { sampling: { tools: {} } }
  const cases: [object, object, boolean][] = [
    [form, {}, false],
    [form, { elicitation: {} }, true],
    [form, { elicitation: { form: {} } }, true],
    [form, { elicitation: { url: {} } }, false],
    [form, { elicitation: { form: {}, url: {} } }, true],
    [form, { elicitation: null }, false],
    [form, { elicitation: true }, false],
    [form, { sampling: {} }, false],
    [url, { elicitation: {} }, false],
    [url, { elicitation: { form: {} } }, false],
    [url, { elicitation: { url: {} } }, true],
    [url, JSON.parse('{"elicitation":{"__proto__":{"url":{}}}}'), false],
    [tools, { sampling: {} }, false],
    [tools, { sampling: { tools: {} } }, true],
    [{ sampling: {} }, { sampling: { context: {} } }, true],
    [{ sampling: {} }, { elicitation: {} }, false],
    [{ roots: {} }, { roots: {} }, true],
    [{ roots: {} }, JSON.parse('{"__proto__":{"roots":{}}}'), false],
    [{}, {}, true],
  ]
  for (const [needs, declared, has] of cases) {
    t.equal(
      missingCapability(needs as Question['needs'], declared as Question['needs']) === undefined,
      has,
      `${JSON.stringify(needs)} of ${JSON.stringify(declared)}`,
    )
  }
  const question = (needs: object): Question => ({
    ...(asked('roots/list') as Question),
    needs: { ...needs },
  })
  t.same(allNeeds([form, url, tools, { sampling: {} }].map(question)), {
    elicitation: { form: {}, url: {} },
    sampling: { tools: {} },
  })
})

const dropped = ['_meta', 'elicitationId', 'task']

t.test('a question is shown as it was asked, but for what only the server has a use for', async (t) => {
  const params = shuffled(oddMembers, ...dropped.map((name) => perhaps(name, valueText))).chain((members) =>
    fc.record({ members: fc.constant(members), text: objectText(members) }),
  )
  const kinds = fc.constantFrom('elicitation/create', 'sampling/createMessage', 'roots/list')
  holds(
    t,
    fc.property(params, kinds, fc.string(), ({ members, text }, method, state) => {
      const line = (whole: string): string => whole.replace(/[\r\n]/g, ' ')
      const meta = members.some((each) => nameOf(each) === '_meta')
      // A _meta that is none would not be read.
      if (meta && /"progressToken"|modelcontextprotocol/.test(text)) return true
      const question = asked(method, text) as Question
      const shown = membersAt(question.text, 'params')
      const kept = members.filter((each) => !dropped.includes(nameOf(each)))
      if (shown.join('\n') !== kept.map(shownMember).map(line).join('\n')) return false
      const oracle = Object.entries(JSON.parse(line(text)) as object).filter(
        ([key]) => !dropped.includes(key),
      )
      const request = JSON.parse(question.text) as Json
      if (JSON.stringify(request.params) !== JSON.stringify(Object.fromEntries(oracle))) return false
      // In the answer to the client it stands under its key, untouched.
      const answer = inputRequired([question, { ...question, key: '__proto__' }], state)
      const [type, requests, last] = membersAt(answer)
      if (type !== '"resultType":"input_required"' || last !== `"requestState":${JSON.stringify(state)}`)
        return false
      return requests === `"inputRequests":{"q1":${question.text},"__proto__":${question.text}}`
    }),
    1000,
  )
})

t.test('a question of any depth fits into the answer that carries it', async (t) => {
  const nested = (levels: number): string => '['.repeat(levels) + ']'.repeat(levels)
  // The deepest that a server may send.
  const question = asked('elicitation/create', `{"a":${nested(maxDepth - 2)}}`) as Question
  const result = inputRequired([question], 's')
  t.doesNotThrow(() => JSON.parse(trustedResult('0', result).wire as string))
})

const retry = (responses: string): ReturnType<typeof messageOf> =>
  messageOf(
    `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"inputResponses":${responses},"name":"x"}}`,
  )
const of = (kind: Question['kind'], key: string): Question => ({
  ...{ key, kind, idText: '1', needs: {}, text: '{}' },
})
const three = [of('elicitation', 'q1'), of('sampling', 'q2'), of('roots', 'q3')]

t.test('answers are taken as they are spelled, by their key', async (t) => {
  const accept = '{ "action" : "accept", "content":{"n":9007199254740993,"m":1.0} }'
  const said = '{"role":"assistant","content":{"type":"text","text":"\\u00e9"},"model":"m","x":1e2}'
  const roots = '{"roots":[ ],"__proto__":1.0}'
  const answers = answersOf(
    retry(`{"q2": ${said} ,"\\u00711":${accept},"q3":${roots},"q4":{},"__proto__":{},"":1}`),
    three,
  )
  t.same(
    [...answers],
    [
      ['q2', said],
      ['q1', accept],
      ['q3', roots],
    ],
  )
})

t.test('what is no answer to its question is none', async (t) => {
  const wrong: Record<string, readonly string[]> = {
    q1: [
      'null',
      '1',
      '"accept"',
      '[]',
      '{}',
      '{"action":"yes"}',
      '{"action":["accept"]}',
      '{"Action":"accept"}',
    ],
    q2: [
      ...[
        'null',
        '{}',
        '{"role":"user"}',
        '{"role":"user","content":"x","model":"m"}',
        '{"action":"accept"}',
      ],
      ...['{"role":1,"content":{},"model":"m"}', '{"role":"user","content":null,"model":"m"}'],
      '{"role":"user","content":{}}',
    ],
    q3: ['null', '[]', '{}', '{"roots":{}}', '{"roots":null}', '{"action":"cancel"}'],
  }
  for (const [key, values] of Object.entries(wrong)) {
    for (const value of values) {
      t.equal(answersOf(retry(`{"${key}":${value}}`), three).size, 0, `${key} ${value}`)
    }
  }
  for (const value of ['null', '[]', '"q1"', '1', '[{"q1":{"action":"accept"}}]'])
    t.equal(answersOf(retry(value), three).size, 0, value)
  t.equal(answersOf(messageOf('{"jsonrpc":"2.0","id":1,"method":"tools/call"}'), three).size, 0, 'no params')
})

t.test('refusals are answers, too', async (t) => {
  for (const action of ['accept', 'decline', 'cancel']) {
    const text = `{"action":"${action}"}`
    t.equal(answersOf(retry(`{"q1":${text}}`), three).get('q1'), text)
    t.equal(isAccepted(text), action === 'accept')
  }
  t.notOk(isAccepted('{}'))
})

t.test('an answer that was taken can be told the server', async (t) => {
  const odd = [
    '{"action":"accept","_meta":{},"_meta":{}}',
    '{"action":"accept","resultType":"x","resultType":"y"}',
    '{"action":"accept","requestState":1,"requestState":1}',
  ]
  for (const each of odd) {
    for (const [, text] of answersOf(retry(`{"q1":${each}}`), three))
      t.match(Buffer.from(trustedResult('7', text).wire as string, 'latin1').toString(), text, each)
  }
  t.equal(
    trustedResult('"\\u0061"', '{ "action":"accept" , "n":1.0}').wire,
    '{"jsonrpc":"2.0","id":"\\u0061","result":{ "action":"accept" , "n":1.0}}',
  )
})

const refusal = (data: string): ReturnType<typeof messageOf> =>
  messageOf(`{"jsonrpc":"2.0","id":1,"error":{"code":-32042,"message":"m"${data}}}`)

t.test('URLs that a user must visit become questions', async (t) => {
  const questions = urlQuestions(
    refusal(
      ',"data":{"elicitations":[{"mode":"url","elicitationId":"e","url":"https://a","message":"do"},{"url":"\\u0062"}]}',
    ),
  )
  t.same(
    questions?.map(({ key, idText, text }) => [key, idText, JSON.parse(text)]),
    [
      [
        ...['q1', undefined],
        { method: 'elicitation/create', params: { mode: 'url', message: 'do', url: 'https://a' } },
      ],
      ['q2', undefined, { method: 'elicitation/create', params: { mode: 'url', message: '', url: 'b' } }],
    ],
  )
  t.same(questions?.[0]?.needs, { elicitation: { url: {} } })
})

t.test('entries without a URL leave no gap in the keys', async (t) => {
  const questions = urlQuestions(
    refusal(',"data":{"elicitations":[{"url":"a"},{"message":"?"},{"url":"c"}]}'),
  )
  t.same(
    questions?.map(({ key }) => key),
    ['q1', 'q2'],
  )
})

t.test('an error without URLs asks nothing', async (t) => {
  const cases = ['', ',"data":null', ',"data":[]', ',"data":{}', ',"data":{"elicitations":{}}']
  for (const data of [...cases, ',"data":{"elicitations":[]}', ',"data":{"elicitations":[1,{"url":2},[]]}'])
    t.equal(urlQuestions(refusal(data)), undefined, data)
  const many = `,"data":{"elicitations":[${Array.from({ length: maxQuestions + 1 }, () => '{"url":"a"}').join()}]}`
  t.equal(urlQuestions(refusal(many))?.length, maxQuestions)
})
