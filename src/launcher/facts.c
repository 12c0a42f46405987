/* What this kernel and this container are, asked from the kernel itself. */
#include "launcher.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

static int read_yama(void) {
  char text[16];
  return read_small(AT_FDCWD, "/proc/sys/kernel/yama/ptrace_scope", text, sizeof text) > 0 ? atoi(text) : -1;
}

static bool has_action(uint32_t action) { return syscall(NR_seccomp, SC_GET_ACTION_AVAIL, 0UL, &action) == 0; }

void facts_read(struct facts *facts, const struct policy *policy) {
  memset(facts, 0, sizeof *facts);
  struct utsname name;
  if (uname(&name) == 0) snprintf(facts->release, sizeof facts->release, "%s", name.release);
  facts->abi = landlock_abi(&facts->abi_error);
  facts->user_notify = has_action(SC_USER_NOTIF);
  facts->yama = read_yama();
  int mode = prctl(PR_GET_SECCOMP, 0, 0, 0, 0);
  facts->container_seccomp = mode < 0 ? 0 : mode;
  facts->uid = geteuid();
  if (policy == NULL) return;
#ifdef TEST_SEAMS
  if (policy->test_abi >= 0 && policy->test_abi < facts->abi) facts->abi = policy->test_abi;
  if (policy->test_abi == 0) facts->abi_error = ENOSYS;
  if (policy->test_no_notify) facts->user_notify = false;
#endif
}

/* In a child: makes a listener, and asks it for a descriptor of a notification that does not exist.
 * Bit 0: listener; bit 1: ADDFD is known. */
static int try_listener(void) {
  pid_t child = fork();
  if (child == 0) {
    struct sc_instruction code[] = {{0x20, 0, 0, 0}, {0x15, 0, 1, NR_vhangup}, {0x06, 0, 0, SC_USER_NOTIF}, {0x06, 0, 0, SC_ALLOW}};
    struct sc_program program = {4, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    int listener = (int)syscall(NR_seccomp, SC_SET_MODE_FILTER, SC_FLAG_NEW_LISTENER, &program);
    if (listener < 0) _exit(errno == EBUSY ? 4 : 0);
    struct sc_addfd nobody = {.id = 1, .source = 0};
    bool known = ioctl(listener, SC_IOCTL_ADDFD, &nobody) < 0 && errno == ENOENT;
    _exit(known ? 3 : 1);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) return 0;
  return WEXITSTATUS(status);
}

static const char *truth(bool value) { return value ? "true" : "false"; }

int probe_mode(void) {
  struct facts facts;
  facts_read(&facts, NULL);
  struct cap_header header = {CAP_VERSION_3, 0};
  struct cap_set caps[2] = {{0, 0, 0}, {0, 0, 0}};
  syscall(NR_capget, &header, caps);
  int listener = try_listener();
  char yama[16] = "null";
  if (facts.yama >= 0) snprintf(yama, sizeof yama, "%d", facts.yama);
  printf("{\"release\":\"%s\",\"arch\":\"" ARCH_NAME "\",\"landlockAbi\":%d,\"landlock\":\"%s\",\"userNotify\":%s,\"addfd\":%s,"
         "\"listenerTaken\":%s,\"seccomp\":%s,\"uid\":%u,\"caps\":\"%08x%08x\",\"yama\":%s,\"containerSeccomp\":%d,\"procChildren\":%s,"
         "\"noNewPrivs\":%s}\n",
         facts.release, facts.abi,
         facts.abi > 0                        ? "on"
         : facts.abi_error == EOPNOTSUPP ? "switched off at boot"
                                              : "not in this kernel",
         truth((listener & 1) != 0), truth((listener & 2) != 0), truth(listener == 4), truth(has_action(SC_ERRNO)), facts.uid,
         caps[1].permitted, caps[0].permitted, yama, facts.container_seccomp,
         truth(access("/proc/thread-self/children", F_OK) == 0), truth(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1));
  return fflush(stdout) == 0 ? 0 : EXIT_REFUSED;
}
