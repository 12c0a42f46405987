/** The whole list. Row 62 is a setting of the proxy, row 83 a mode of the launcher: their own tests have them. */
import type { Attempt } from './attempt.ts'
import { egressRows } from './rows-egress.ts'
import { fileRows } from './rows-files.ts'
import { kernelRows } from './rows-kernel.ts'
import { limitRows } from './rows-limits.ts'
import { networkRows } from './rows-network.ts'
import { processRows } from './rows-processes.ts'
import { pythonRows } from './rows-python.ts'

export const attempts: readonly Attempt[] = [
  ...fileRows,
  ...kernelRows,
  ...networkRows,
  ...egressRows,
  ...limitRows,
  ...pythonRows,
  // Last, since they could end who is needed for the others.
  ...processRows,
]
