import { auditFields } from './audit-fields.ts'
import { authFields } from './auth-fields.ts'
import { authzFields } from './authz-fields.ts'
import type { Field, FieldsOf, SettingKey, ValueOf } from './field.ts'
import { limitFields, rateFields } from './limit-fields.ts'
import { listenFields } from './listen-fields.ts'
import { manifestFields } from './manifest-fields.ts'
import { permissionsFields } from './permissions-fields.ts'
import { serverFields } from './server-fields.ts'
import { choice, duration, LOG_LEVELS } from './values.ts'

const processFields: FieldsOf<'shutdownGraceMs' | 'log'> = {
  shutdownGraceMs: {
    file: 'shutdownGrace',
    type: duration('0s', '1h'),
    default: '10s',
    doc: 'Time to answer what is in flight before the server processes are ended.',
  },
  'log.level': {
    file: 'log.level',
    type: choice(...LOG_LEVELS),
    default: 'info',
    flag: 'log-level',
    placeholder: 'LEVEL',
    doc: `Least important level to log: ${LOG_LEVELS.join(', ')}.`,
  },
  'log.format': {
    file: 'log.format',
    type: choice('auto', 'json', 'pretty'),
    default: 'auto',
    flag: 'log-format',
    placeholder: 'FORMAT',
    doc: 'Form of the log: auto, json or pretty. `auto` is pretty on a terminal and JSON elsewhere.',
  },
}

/**
 * The one table of the configuration, in parts. The checks of file, flags and variables, their names, the JSON Schema and
 * docs/configuration.md all come from it. The order is the order of the reference and of `--help`.
 */
export const FIELDS: { readonly [K in SettingKey]: Field<ValueOf<K>> } = {
  ...serverFields,
  ...permissionsFields,
  ...listenFields,
  ...authFields,
  ...authzFields,
  ...limitFields,
  ...rateFields,
  ...auditFields,
  ...manifestFields,
  ...processFields,
}

const POLICY_KEYS: ReadonlySet<string> = new Set([
  ...Object.keys(authFields).filter((key) => key !== 'auth.none' && key !== 'auth.bearerTokenFile'),
  ...Object.keys({ ...authzFields, ...rateFields, ...auditFields }),
])

/** Whether a value goes only into `Config.policy`. */
export function isPolicyKey(key: SettingKey): boolean {
  return POLICY_KEYS.has(key)
}

/** Every field with its key, in the order of the table. */
export const fieldList: readonly (readonly [SettingKey, Field<unknown>])[] = Object.entries(FIELDS) as never
