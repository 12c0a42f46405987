/* The kernel's user notification interface, as structures of our own: headers of a build machine may be older than the
 * kernel. Source: include/uapi/linux/seccomp.h; ADDFD needs Linux 5.9. */
#ifndef BROKER_KERNEL_H
#define BROKER_KERNEL_H

#include <stdint.h>
#include <sys/ioctl.h>

#define NOTIFY_GET_SIZES 3U /* operation of seccomp(2) */

/* Bytes of the kernel's own structures, which may be longer than ours. */
struct notify_sizes {
  uint16_t request;
  uint16_t answer;
  uint16_t data;
};

struct notify_request {
  uint64_t id;
  uint32_t tid; /* thread that called, in our PID namespace; 0: not visible there */
  uint32_t flags;
  int32_t nr;
  uint32_t arch;
  uint64_t instruction;
  uint64_t args[6];
};

struct notify_answer {
  uint64_t id;
  int64_t value;
  int32_t error;  /* negative errno */
  uint32_t flags; /* 0, or NOTIFY_CONTINUE for a call that is only watched */
};

struct notify_addfd {
  uint64_t id;
  uint32_t flags;
  uint32_t source;
  uint32_t target;
  uint32_t target_flags; /* O_CLOEXEC or 0 */
};

#define NOTIFY_ADDFD_SETFD 1U
#define NOTIFY_CONTINUE 1U

#define NOTIFY_RECV _IOWR('!', 0, struct notify_request)
#define NOTIFY_SEND _IOWR('!', 1, struct notify_answer)
#define NOTIFY_ID_VALID _IOW('!', 2, uint64_t)
#define NOTIFY_ADDFD _IOW('!', 3, struct notify_addfd)
#define NOTIFY_SET_FLAGS _IOW('!', 4, uint64_t) /* Linux 6.6 */
#define NOTIFY_SYNC_WAKE_UP 1U

/* sockaddr_nl of include/uapi/linux/netlink.h */
struct netlink_address {
  uint16_t family;
  uint16_t zero;
  uint32_t port;
  uint32_t groups;
};
#define NETLINK_PROTOCOL_ROUTE 0

/* system calls without a wrapper in older C libraries; the same numbers on x86_64 and arm64 */
#define CALL_PIDFD_SEND_SIGNAL 424
#define CALL_PIDFD_OPEN 434

#endif
