/** Why an address could not be listened on, and what would be right. */
export function listenReason(error: unknown, portFlag: string): string {
  const { code, message } = error as NodeJS.ErrnoException
  if (code === 'EADDRINUSE') return `it is in use; choose another with ${portFlag}`
  if (code === 'EACCES')
    return `this user may not use the port; choose one of 1024 or more with ${portFlag}, or give the process CAP_NET_BIND_SERVICE`
  if (code === 'EADDRNOTAVAIL')
    return 'it is no address of this machine; 0.0.0.0 or :: stands for all that it has'
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return 'the name leads to no address'
  return message
}
