import { accessRules, capabilitiesType, cedarType, impliedScopesType, scopeDemand } from './authz-values.ts'
import type { FieldsOf } from './field.ts'
import { choice, list } from './values.ts'
import { word } from './words.ts'

/** What callers may do. */
export const authzFields: FieldsOf<'authorization'> = {
  'authorization.rules': {
    file: 'authorization.rules',
    type: accessRules,
    absent: undefined,
    means: 'no rules',
    doc: 'Who may do what. What no rule permits is denied.',
  },
  'authorization.ruleEvaluation': {
    file: 'authorization.ruleEvaluation',
    type: choice('any', 'all'),
    default: 'any',
    doc: '`any`: one rule that permits is enough. `all`: each of them must permit.',
  },
  'authorization.scopes': {
    file: 'authorization.scopes',
    type: list(scopeDemand, 1),
    absent: undefined,
    means: 'none but those of the methods',
    doc: 'Scopes that tokens need for some operations. A caller that lacks one is told which (RFC 6750, `insufficient_scope`).',
  },
  'authorization.impliedScopes': {
    file: 'authorization.impliedScopes',
    type: impliedScopesType,
    absent: undefined,
    means: 'each scope stands for itself',
    doc: 'Scopes that stand for others, too: `admin: [read, write]`.',
  },
  'authorization.cedar': {
    file: 'authorization.cedar',
    type: cedarType,
    absent: undefined,
    means: 'no Cedar policies',
    doc: 'Cedar policies, which must permit besides the rules. The vocabulary is that of ToolHive.',
  },
  'authorization.toolsFilter': {
    file: 'authorization.toolsFilter',
    type: list(word('text'), 1),
    absent: undefined,
    means: 'all tools',
    doc: 'The only tools there are, for any caller; others answer as if they did not exist.',
  },
  'authorization.capabilities': {
    file: 'authorization.capabilities',
    type: capabilitiesType,
    absent: undefined,
    means: 'all capabilities',
    doc: 'The only capabilities of the server that are served.',
  },
}
