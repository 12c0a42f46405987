/* The child between fork and exec: gives up everything the server must not have, tests it, and becomes the server. */
#include "launcher.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Of one process, in bytes; what Linux gave everybody before 5.16, and enough for keys. Pages of files that are locked count
 * nowhere, and this much in each process is little. */
#define LOCKED_BYTES (64 * 1024)

/* Of the descriptors that this process may have, so many are beyond what the server may: see limit_files. */
#define SPARE_FILES 512

/* Where the socket pair to the supervisor lies while everything above it is closed. */
#define CONTROL 3

static struct child_message message;

_Noreturn static void fail(int control, enum mechanism mechanism, int error, const char *what) {
  message.word = CHILD_FAILED;
  message.mechanism = mechanism;
  message.error = error;
  if (what != message.what) snprintf(message.what, sizeof message.what, "%s", what);
  if (send(control, &message, sizeof message, MSG_NOSIGNAL) < 0) _exit(EXIT_REFUSED);
  _exit(EXIT_REFUSED);
}

/* Handlers do not survive exec, but what is ignored and what is blocked does: Node ignores SIGPIPE. */
static void reset_signals(void) {
  struct sigaction standard;
  memset(&standard, 0, sizeof standard);
  standard.sa_handler = SIG_DFL;
  for (int number = 1; number < NSIG; number++)
    if (number != SIGKILL && number != SIGSTOP) sigaction(number, &standard, NULL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
}

static void prefer_for_oom(void) {
  int descriptor = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (descriptor < 0) return;
  if (write(descriptor, "1000", 4) < 0) { /* a help to the kernel's choice, nothing that is promised */
  }
  close(descriptor);
}

static int apply_limit(int resource, const struct limit *limit, rlim_t extra) {
  if (!limit->set) return 0;
  struct rlimit now;
  if (getrlimit(resource, &now) != 0) return errno;
  rlim_t soft = (rlim_t)limit->value, hard = soft + extra;
  if (now.rlim_max != RLIM_INFINITY && hard > now.rlim_max) hard = now.rlim_max;
  if (soft > hard) soft = hard;
  return setrlimit(resource, &(struct rlimit){soft, hard}) == 0 ? 0 : errno;
}

/* Descriptors on the way between processes count for the user, and who sends is held against its own limit: a server with the
 * same as the launchers of other sessions could have so many on the way that none of those hands its listener over. */
static int limit_files(const struct limit *limit) {
  struct rlimit now;
  if (!limit->set) return 0;
  if (getrlimit(RLIMIT_NOFILE, &now) != 0) return errno;
  const rlim_t most = now.rlim_max - (now.rlim_max / 2 < SPARE_FILES ? now.rlim_max / 2 : SPARE_FILES);
  const struct limit files = {true, now.rlim_max != RLIM_INFINITY && limit->value > most ? most : limit->value};
  return apply_limit(RLIMIT_NOFILE, &files, 0);
}

static void apply_limits(const struct start *start, int control) {
  const struct policy *policy = start->policy;
  struct limit none = {true, 0}, locked = {policy->filter, LOCKED_BYTES}, nproc = policy->nproc;
  nproc.value += start->nproc_now;
  int error = apply_limit(RLIMIT_CORE, &none, 0);
  if (error == 0) error = apply_limit(RLIMIT_DATA, &policy->data, 0);
  /* Else, where the environment allows it, a server could take the processor from the supervisor and the sidecar. */
  if (error == 0) error = apply_limit(RLIMIT_RTPRIO, &none, 0);
  if (error == 0) error = apply_limit(RLIMIT_NICE, &none, 0);
  if (error == 0) error = apply_limit(RLIMIT_MEMLOCK, &locked, 0);
  if (error == 0) error = apply_limit(RLIMIT_FSIZE, &policy->fsize, 0);
  /* SIGXCPU first, KILL a second later. */
  if (error == 0) error = apply_limit(RLIMIT_CPU, &policy->cpu, 1);
  if (error == 0) error = apply_limit(RLIMIT_NPROC, &nproc, 0);
  if (error != 0) fail(control, M_RLIMITS, error, "setrlimit");
}

static void drop_capabilities(int control) {
  struct cap_header header = {CAP_VERSION_3, 0};
  struct cap_set none[2];
  memset(none, 0, sizeof none);
  if (syscall(NR_capset, &header, none) != 0) fail(control, M_CAPS, errno, "capset");
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) fail(control, M_NNP, errno, "no_new_privs");
}

static void send_listener(int control, int listener) {
  message.word = CHILD_LISTENER;
  struct iovec bytes = {&message, sizeof message};
  union {
    char space[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
  } ancillary;
  memset(&ancillary, 0, sizeof ancillary);
  struct msghdr header = {.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = ancillary.space, .msg_controllen = sizeof ancillary.space};
  struct cmsghdr *descriptor = CMSG_FIRSTHDR(&header);
  descriptor->cmsg_level = SOL_SOCKET;
  descriptor->cmsg_type = SCM_RIGHTS;
  descriptor->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(descriptor), &listener, sizeof listener);
  if (sendmsg(control, &header, MSG_NOSIGNAL) < 0) fail(control, M_BROKER, errno, "handing the listener over");
  close(listener);
}

static void apply_layers(const struct start *start, int control) {
  struct layers *layers = start->layers;
  if (start->policy->self_test) selftest_prepare(start->policy, layers);
  int error = landlock_apply(start->policy, layers);
  if (error != 0) fail(control, M_FS, error, "landlock_restrict_self");
  if (!layers->filter) return;
  int listener = seccomp_apply(start->policy, layers);
  if (listener == -2) {
    bool taken = errno == EBUSY;
    fail(control, taken ? M_BROKER : M_SECCOMP, errno, taken ? "another listener is already installed" : "installing the filter");
  }
  if (listener >= 0) send_listener(control, listener);
}

_Noreturn void child_run(const struct start *start, int control) {
  explicit_bzero(start->policy->token, sizeof start->policy->token);
  reset_signals();
  /* Its own /proc files are its uid's again. */
  prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
  if (setsid() < 0) fail(control, M_CAPS, errno, "setsid");
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (getppid() != start->supervisor) _exit(EXIT_REFUSED);
  prefer_for_oom();
  apply_limits(start, control);
  drop_capabilities(control);
  apply_layers(start, control);
  /* After the listener was handed over: the kernel holds descriptors on the way, which all processes of a user share, against
   * this limit of the sender, and another server may have many on the way. */
  int error = limit_files(&start->policy->nofile);
  if (error != 0) fail(control, M_RLIMITS, error, "setrlimit");
  /* The supervisor answers once the report is written: nothing of the server runs before. */
  memset(&message, 0, sizeof message);
  if (start->policy->self_test && !selftest_run(start, &message)) fail(control, message.mechanism, message.error, message.what);
  message.word = CHILD_TESTED;
  char go = 0;
  if (send(control, &message, sizeof message, MSG_NOSIGNAL) < 0 || recv(control, &go, 1, 0) != 1) _exit(EXIT_REFUSED);
  if (start->policy->directory != NULL && chdir(start->policy->directory) != 0) {
    message.exec = true;
    fail(control, M_CAPS, errno, "working directory");
  }
  if (start->policy->check) _exit(0);
  if (control != CONTROL && dup3(control, CONTROL, O_CLOEXEC) < 0) fail(control, M_CAPS, errno, "dup3");
  if (syscall(NR_close_range, CONTROL + 1U, ~0U, 0U) != 0) fail(CONTROL, M_CAPS, errno, "close_range");
  execve(start->command->path, start->arguments, start->environment);
  message.exec = true;
  fail(CONTROL, M_CAPS, errno, "exec");
}
