/**
 * Preloaded, with --expose-gc, into contestants whose memory is compared: SIGUSR2 makes them collect their garbage and
 * write down what is left.
 */
import { writeFileSync } from 'node:fs'

process.on('SIGUSR2', () => {
  globalThis.gc()
  writeFileSync(process.env.BENCH_MEMORY_FILE, JSON.stringify(process.memoryUsage()))
})
