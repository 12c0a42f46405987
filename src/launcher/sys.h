/* Kernel interfaces that the launcher uses, as constants and structures of its own: headers of a build machine may be
 * older than the kernel. Sources: include/uapi/linux/{landlock,seccomp,filter,audit,prctl,capability}.h. */
#ifndef SYS_H
#define SYS_H

#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the filter reads the low 32-bit word of arguments where little-endian machines keep it"
#endif

#if defined(__x86_64__) && !defined(__ILP32__)
#include "syscalls_x86_64.h"
#define ARCH_NAME "x86_64"
#define ARCH_AUDIT 0xC000003EU
/* Calls of the x32 ABI carry this bit on top of x86_64's architecture. */
#define X32_BIT 0x40000000U
#elif defined(__aarch64__)
#include "syscalls_arm64.h"
#define ARCH_NAME "arm64"
#define ARCH_AUDIT 0xC00000B7U
#else
#error "the launcher knows the system calls of x86_64 and arm64 only"
#endif

/* file_setattr, Linux 6.17. What the kernel adds later is answered with ENOSYS until it is added to the tables here. */
#define NEWEST_SYSCALL 469U

/* Landlock */
#define LL_VERSION 1U
#define LL_PATH_BENEATH 1
#define LL_NET_PORT 2
#define LL_EXECUTE (1ULL << 0)
#define LL_WRITE_FILE (1ULL << 1)
#define LL_READ_FILE (1ULL << 2)
#define LL_READ_DIR (1ULL << 3)
#define LL_REMOVE_DIR (1ULL << 4)
#define LL_REMOVE_FILE (1ULL << 5)
#define LL_MAKE_CHAR (1ULL << 6)
#define LL_MAKE_DIR (1ULL << 7)
#define LL_MAKE_REG (1ULL << 8)
#define LL_MAKE_SOCK (1ULL << 9)
#define LL_MAKE_FIFO (1ULL << 10)
#define LL_MAKE_BLOCK (1ULL << 11)
#define LL_MAKE_SYM (1ULL << 12)
#define LL_REFER (1ULL << 13)     /* ABI 2 */
#define LL_TRUNCATE (1ULL << 14)  /* ABI 3 */
#define LL_IOCTL_DEV (1ULL << 15) /* ABI 5 */
#define LL_BIND_TCP (1ULL << 0)   /* ABI 4 */
#define LL_CONNECT_TCP (1ULL << 1)
#define LL_SCOPE_ABSTRACT_UNIX (1ULL << 0) /* ABI 6 */
#define LL_SCOPE_SIGNAL (1ULL << 1)

struct ll_ruleset {
  uint64_t fs;
  uint64_t net;
  uint64_t scoped;
};

struct ll_path_beneath {
  uint64_t allowed;
  int32_t parent;
} __attribute__((packed));

struct ll_net_port {
  uint64_t allowed;
  uint64_t port;
};

/* seccomp */
#define SC_SET_MODE_FILTER 1U
#define SC_GET_ACTION_AVAIL 2U
#define SC_FLAG_NEW_LISTENER (1UL << 3)
#define SC_FLAG_WAIT_KILLABLE (1UL << 5) /* Linux 5.19 */
/* TSYNC, LOG, SPEC_ALLOW, TSYNC_ESRCH: what a program may ask of a filter of its own. */
#define SC_HARMLESS_FLAGS 0x17U
#define SC_KILL_PROCESS 0x80000000U
#define SC_ERRNO 0x00050000U
#define SC_USER_NOTIF 0x7FC00000U
#define SC_ALLOW 0x7FFF0000U

struct sc_instruction {
  uint16_t code;
  uint8_t jump_true;
  uint8_t jump_false;
  uint32_t k;
};

struct sc_program {
  uint16_t length;
  const struct sc_instruction *code;
};

struct sc_addfd {
  uint64_t id;
  uint32_t flags;
  uint32_t source;
  uint32_t target;
  uint32_t target_flags;
};
#define SC_IOCTL_ADDFD 0x40182103UL

/* capabilities */
#define CAP_VERSION_3 0x20080522U
struct cap_header {
  uint32_t version;
  int32_t pid;
};
struct cap_set {
  uint32_t effective;
  uint32_t permitted;
  uint32_t inheritable;
};

#define PROC_MAGIC 0x9FA0
#define AT_EMPTY 0x1000

#endif
