import t from 'tap'
import { type ErrorCode, errorTable, SidecarError } from '../../src/core/errors.ts'
import { auditOutcomeOf, auditTypeOf } from '../../src/observe/audit-type.ts'

t.test('messages of clients have the types of ToolHive', async (t) => {
  const types = Object.fromEntries(
    [
      ...[
        'initialize',
        'tools/call',
        'tools/list',
        'resources/read',
        'resources/list',
        'prompts/get',
        'ping',
      ],
      ...[
        'resources/templates/list',
        'prompts/list',
        'logging/setLevel',
        'completion/complete',
        'other',
        'toString',
      ],
    ].map((method) => [method, auditTypeOf({ kind: 'request', method })]),
  )
  t.strictSame(types, {
    initialize: 'mcp_initialize',
    'tools/call': 'mcp_tool_call',
    'tools/list': 'mcp_tools_list',
    'resources/read': 'mcp_resource_read',
    'resources/list': 'mcp_resources_list',
    'resources/templates/list': 'mcp_resources_list',
    'prompts/get': 'mcp_prompt_get',
    'prompts/list': 'mcp_prompts_list',
    ping: 'mcp_ping',
    'logging/setLevel': 'mcp_logging',
    'completion/complete': 'mcp_completion',
    other: 'mcp_request',
    toString: 'mcp_request',
  })
  t.equal(auditTypeOf({ kind: 'notification', method: 'tools/call' }), 'mcp_notification')
  t.equal(auditTypeOf({ kind: 'response', method: '' }), 'mcp_response')
})

t.test('answers end in success, failure, an application error, or were cancelled', async (t) => {
  t.equal(auditOutcomeOf('ok', undefined, false), 'success')
  t.equal(auditOutcomeOf('ok', undefined, true), 'application_error')
  t.equal(auditOutcomeOf('error', undefined, false), 'failure')
  t.equal(auditOutcomeOf('cancelled', undefined, false), 'cancelled')
})

t.test('every error of the table has its outcome', async (t) => {
  const outcomes: Record<string, string[]> = {}
  for (const code of Object.keys(errorTable) as ErrorCode[]) {
    const outcome = auditOutcomeOf(code, new SidecarError(code), false)
    outcomes[outcome] ??= []
    outcomes[outcome].push(code)
  }
  t.same(outcomes['denied']?.toSorted(), [
    ...['ERR_AUTH_INVALID', 'ERR_AUTH_MISSING', 'ERR_DENIED', 'ERR_HOST', 'ERR_ORIGIN', 'ERR_SCOPE'],
    'ERR_TOOL_UNKNOWN',
  ])
  t.same(outcomes['rate_limited'], ['ERR_RATE_LIMITED'])
  t.same(outcomes['timeout']?.toSorted(), ['ERR_SLOW', 'ERR_TIMEOUT'])
  t.ok(outcomes['error']?.includes('ERR_AUDIT'))
  t.ok(outcomes['error']?.includes('ERR_UPSTREAM_EXIT'))
  t.ok(outcomes['failure']?.includes('ERR_PARSE'))
  t.same(Object.keys(outcomes).toSorted(), ['denied', 'error', 'failure', 'rate_limited', 'timeout'])
  const verdict = { layer: 'capabilities', ids: [] }
  t.equal(
    auditOutcomeOf('ERR_UNSUPPORTED', new SidecarError('ERR_UNSUPPORTED', { verdict }), false),
    'denied',
  )
})
