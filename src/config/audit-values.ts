import { auditTypes } from '../core/policy.ts'
import { defaulted, object, optional, type TypeOf } from './object.ts'
import { choice, flag, list, path, size, type ValueType } from './values.ts'
import { word } from './words.ts'

const file = path('output')

/** The word `stdout`, or the path of a file. */
const destination: ValueType<string> = {
  ...file,
  name: '`stdout` or path of a file',
  mapPaths: (value, visit, at) => (value === 'stdout' ? value : visit(value, 'output', at)),
}

const eventType: ValueType<string> = choice(...auditTypes)

export const auditType = object({
  destination: defaulted(
    destination,
    'stdout',
    'Where the lines go. A file is made with the rights 0600 and only added to.',
  ),
  eventTypes: defaulted(list(eventType), [], 'Types of events to write. Empty: all.'),
  excludeEventTypes: defaulted(list(eventType), [], 'Types of events to leave out.'),
  includeRequestData: defaulted(flag, false, 'Writes the arguments of calls, redacted and cut to `maxData`.'),
  includeResponseData: defaulted(flag, false, 'Writes the results of calls, redacted and cut to `maxData`.'),
  maxData: defaulted(size('64B', '1MiB'), '1KiB', 'Longest piece of arguments or results in one line.'),
  redact: defaulted(
    list(word('text')),
    [],
    'Names of members whose values are never written, besides the built-in ones.',
  ),
  onFailure: defaulted(
    choice('block', 'continue'),
    'block',
    'When a line cannot be written: `block` refuses calls until it works again, `continue` counts what was lost.',
  ),
  component: optional(
    word('text'),
    'the name of the MCPServer document, else `mcp-sidecar`',
    'Names this sidecar in each line.',
  ),
})

export interface AuditSettings {
  readonly audit: TypeOf<typeof auditType> | undefined
}
