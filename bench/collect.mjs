/** Preloaded, with --expose-gc, into contestants whose memory is read: SIGUSR2 makes them collect their garbage first. */
process.on('SIGUSR2', () => globalThis.gc())
