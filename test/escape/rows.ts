/** The attempts of a server behind a sidecar; those of rows-starts.ts and rows-serve.ts have no server. */
import type { Attempt } from './attempt.ts'
import { egressRows } from './rows-egress.ts'
import { fileRows } from './rows-files.ts'
import { kernelRows } from './rows-kernel.ts'
import { limitRows } from './rows-limits.ts'
import { nameRows } from './rows-names.ts'
import { networkRows } from './rows-network.ts'
import { ownRows } from './rows-own.ts'
import { processRows } from './rows-processes.ts'
import { pythonRows } from './rows-python.ts'

export const attempts: readonly Attempt[] = [
  ...fileRows,
  ...kernelRows,
  ...networkRows,
  ...egressRows,
  ...nameRows,
  ...limitRows,
  ...pythonRows,
  ...ownRows,
  // Last, since they could end who is needed for the others.
  ...processRows,
]
