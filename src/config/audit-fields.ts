import { auditType } from './audit-values.ts'
import type { FieldsOf } from './field.ts'

/** The audit log. */
export const auditFields: FieldsOf<'audit'> = {
  audit: {
    file: 'audit',
    type: auditType,
    absent: undefined,
    means: 'no audit log',
    doc: 'Writes a JSON line for each decision and outcome, chained by hashes; `{}` takes all the defaults.',
  },
}
