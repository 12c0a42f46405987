/* Signals below Landlock ABI 6, where the kernel lets them pass between all processes of one uid: sent by the broker, and to
 * processes of the tree only. Others get EPERM, a number that nobody has ESRCH.
 *
 * What is addressed to a thread goes to this thread. The receiver sees the broker as the sender (si_pid), unless the caller
 * wrote the information itself (sigqueue). glibc's pthread_cancel and setuid look at the sender, so they have no effect in
 * processes that the server forked; in the server itself the filter lets signals to its own pid pass. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "broker_parts.h"

/* Generations between a process and the broker; a tree of more is no tree of ours. */
#define DEPTH_MAX 1024

/* What a call wants. */
struct wish {
  pid_t process; /* 0: whichever the thread belongs to */
  pid_t thread;  /* 0: the process as a whole */
  int signal;
  bool informed; /* information is the caller's */
  siginfo_t information;
};

/* A number out of /proc/PID/status; -1 when there is no such process. */
static pid_t status_number(pid_t pid, const char *key) {
  char status[1024];
  if (target_file(status, sizeof status, "/proc/%d/status", (int)pid) < 0) return -1;
  return (pid_t)target_number(status, key, 10);
}

static int open_process(pid_t pid) {
  return (int)syscall(CALL_PIDFD_OPEN, pid, 0);
}

static bool lives(int pidfd) {
  return syscall(CALL_PIDFD_SEND_SIGNAL, pidfd, 0, NULL, 0) == 0;
}

/* Whether `pid`, held by `pidfd`, descends from the broker's process. That is so for as long as a process lives or never:
 * orphans of the tree come to the subreaper, strangers do not. Each parent is held before its child is asked once more who
 * the parent is, so that a number used anew in between deceives nobody. */
static bool descends(const struct broker *broker, pid_t pid, int pidfd) {
  int held = dup(pidfd);
  bool found = false;
  for (int depth = 0; depth < DEPTH_MAX && held >= 0; depth++) {
    const pid_t parent = status_number(pid, "PPid:");
    if (parent <= 0) break;
    const int next = open_process(parent);
    const bool certain = next >= 0 && status_number(pid, "PPid:") == parent && lives(held);
    close(held);
    held = next;
    if (!certain) break;
    if (parent == broker->self) {
      found = true;
      break;
    }
    pid = parent;
  }
  if (held >= 0) close(held);
  return found;
}

static int read_information(const struct broker *broker, const struct call *call, uint64_t from, struct wish *wish) {
  if (from == 0) return 0;
  const int error = target_memory(broker, call, from, &wish->information, sizeof wish->information);
  if (error != 0) return error == EACCES ? EFAULT : error;
  /* The kernel's rule for everybody: what looks like the kernel's own, or like kill(2), cannot be made up. */
  if (wish->information.si_code >= 0 || wish->information.si_code == SI_TKILL) return EPERM;
  wish->information.si_signo = wish->signal;
  wish->informed = true;
  return 0;
}

static int read_call(const struct broker *broker, const struct call *call, struct wish *wish) {
  const int first = (int)(uint32_t)call->args[0];
  const int second = (int)(uint32_t)call->args[1];
  const int third = (int)(uint32_t)call->args[2];
  switch (call->nr) {
    case SYS_kill:
      /* Groups and everybody: their members cannot be held while they are judged. */
      if (first <= 0) return EPERM;
      *wish = (struct wish){.process = first, .signal = second};
      return 0;
    case SYS_tkill:
      *wish = (struct wish){.thread = first, .signal = second};
      return first <= 0 ? EINVAL : 0;
    case SYS_tgkill:
      *wish = (struct wish){.process = first, .thread = second, .signal = third};
      return first <= 0 || second <= 0 ? EINVAL : 0;
    case SYS_rt_sigqueueinfo:
      *wish = (struct wish){.process = first, .signal = second};
      return first <= 0 ? EPERM : call->args[2] == 0 ? EFAULT : read_information(broker, call, call->args[2], wish);
    case SYS_rt_tgsigqueueinfo:
      *wish = (struct wish){.process = first, .thread = second, .signal = third};
      if (first <= 0 || second <= 0) return EINVAL;
      return call->args[3] == 0 ? EFAULT : read_information(broker, call, call->args[3], wish);
    default: {
      *wish = (struct wish){.signal = second};
      if ((uint32_t)call->args[3] != 0) return EINVAL;
      const int error = target_pidfd(broker, call, first, &wish->process);
      return error != 0 ? error : read_information(broker, call, call->args[2], wish);
    }
  }
}

/* By number: no pidfd of a thread exists before Linux 6.9. The process is held and was alive just now, and the kernel
 * compares both numbers; a stranger would have to get both of them within microseconds. */
static long send_to_thread(pid_t process, const struct wish *wish) {
  if (wish->informed) {
    return syscall(SYS_rt_tgsigqueueinfo, process, wish->thread, wish->signal, &wish->information);
  }
  return syscall(SYS_tgkill, process, wish->thread, wish->signal);
}

static int deliver(const struct broker *broker, const struct call *call, const struct wish *wish) {
  if (wish->signal < 0 || wish->signal > SIGRTMAX) return EINVAL;
  /* kill(2) takes the number of any thread for its process. */
  const pid_t named = wish->thread != 0 ? wish->thread : wish->process;
  const pid_t process = status_number(named, "Tgid:");
  if (process <= 0) return ESRCH;
  if (wish->thread != 0 && wish->process != 0 && wish->process != process) return ESRCH;
  const int pidfd = open_process(process);
  if (pidfd < 0) return ESRCH;
  int error = EPERM;
  if (process != broker->self && descends(broker, process, pidfd)) {
    if (!broker_waits(broker, call)) {
      error = CALLER_GONE;
    } else if (status_number(named, "Tgid:") != process || !lives(pidfd)) {
      error = ESRCH;
    } else {
      const siginfo_t *information = wish->informed ? &wish->information : NULL;
      const long sent = wish->thread != 0
                            ? send_to_thread(process, wish)
                            : syscall(CALL_PIDFD_SEND_SIGNAL, pidfd, wish->signal, information, 0);
      error = sent == 0 ? 0 : errno;
    }
  }
  close(pidfd);
  return error;
}

void signal_serve(struct broker *broker, const struct call *call) {
  struct wish wish;
  const int error = read_call(broker, call, &wish);
  broker_answer(broker, call, error != 0 ? error : deliver(broker, call, &wish));
}
