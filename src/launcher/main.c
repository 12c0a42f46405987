/* mcp-sidecar-launcher: starts one program with only the rights that a policy gives it, and ends everything it started.
 * Modes: exec (policy on descriptor 3, status on 4), serve (a socket, one process per connection), probe, --version. */
#include "launcher.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define POLICY_DESCRIPTOR 3
#define STATUS_DESCRIPTOR 4

extern char **environ;

static int usage(void) {
  complain("usage: mcp-sidecar-launcher exec -- COMMAND ARG... | serve --socket PATH | probe | calls | --version");
  return EXIT_BAD_INPUT;
}

/* To the end of what the sidecar sends; more than the limit is as bad as none. */
static char *read_policy(size_t *length) {
  char *text = malloc(POLICY_BYTES + 2);
  if (text == NULL) return NULL;
  *length = 0;
  while (*length <= POLICY_BYTES) {
    ssize_t got = read(POLICY_DESCRIPTOR, text + *length, POLICY_BYTES + 1 - *length);
    if (got == 0) break;
    if (got > 0) {
      *length += (size_t)got;
    } else if (errno == EAGAIN) {
      struct pollfd ready = {POLICY_DESCRIPTOR, POLLIN, 0};
      poll(&ready, 1, -1);
    } else if (errno != EINTR) {
      complain("policy: %s", strerror(errno));
      exit(EXIT_BAD_INPUT);
    }
  }
  close(POLICY_DESCRIPTOR);
  return text;
}

static int exec_mode(int count, char **words) {
  if (count < 2 || strcmp(words[0], "--") != 0) return usage();
  for (int descriptor = 0; descriptor <= STATUS_DESCRIPTOR; descriptor++)
    if (fcntl(descriptor, F_GETFD) < 0) {
      if (descriptor != STDERR_FILENO) complain("descriptor %d is not open: 0 to 2 are the server's, 3 is the policy, 4 the status", descriptor);
      return EXIT_BAD_INPUT;
    }
  status_descriptor = STATUS_DESCRIPTOR;
  fcntl(STATUS_DESCRIPTOR, F_SETFD, FD_CLOEXEC);
  if (syscall(NR_close_range, STATUS_DESCRIPTOR + 1U, ~0U, 0U) != 0)
    refuse(EXIT_REFUSED, "launcher", "use Linux 5.9 or later", "close_range: %s", strerror(errno));
  static struct policy policy;
  char problem[512];
  size_t length = 0;
  /* A parent that died before main() asked to be told of it: nobody reads the status any more. */
  struct pollfd reader = {STATUS_DESCRIPTOR, 0, 0};
  char *text = read_policy(&length);
  if (text == NULL) return EXIT_REFUSED;
  if (!policy_read(&policy, text, length, false, problem, sizeof problem)) {
    complain("policy: %s", problem);
    return EXIT_BAD_INPUT;
  }
  if (poll(&reader, 1, 0) != 0) return EXIT_REFUSED;
  return supervise(&policy, words + 1, environ);
}

int main(int count, char **words) {
  /* Nobody of the same uid reads the policy out of this memory; and when the sidecar dies, so does what it started. */
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  if (count >= 2 && strcmp(words[1], "exec") == 0) {
    prctl(PR_SET_PDEATHSIG, SIGPWR, 0, 0, 0);
    return exec_mode(count - 2, words + 2);
  }
  if (count == 2 && strcmp(words[1], "probe") == 0) return probe_mode();
  if (count == 2 && strcmp(words[1], "calls") == 0) {
    seccomp_list();
    return 0;
  }
  if (count == 2 && strcmp(words[1], "--version") == 0) return printf("mcp-sidecar-launcher " LAUNCHER_VERSION " " ARCH_NAME "\n") > 0 ? 0 : 1;
  if (count >= 2 && strcmp(words[1], "serve") == 0) return serve_mode(count - 2, words + 2);
  return usage();
}
