/**
 * Formats times as `2026-01-02T03:04:05.678Z`, where most are of the same second as the one before: that part is made
 * once a second.
 *
 * @param epoch whole milliseconds since 1970, from the year 0 to 9999
 */
export function isoTimes(): (epoch: number) => string {
  let second = -1
  let prefix = ''
  return (epoch) => {
    const ms = ((epoch % 1000) + 1000) % 1000
    if (epoch - ms !== second) {
      second = epoch - ms
      prefix = new Date(second).toISOString().slice(0, 20)
    }
    return `${prefix}${ms < 10 ? '00' : ms < 100 ? '0' : ''}${ms}Z`
  }
}
