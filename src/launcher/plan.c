/* What a policy comes to on this kernel: which layers are applied, or why the server is not started. */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "plan.h"

#define NEEDS_LANDLOCK                                                                                                \
  "run on Linux 5.13 or later with landlock in the list of security modules, or accept allowDegraded: [no-enforcement]"

void plan_layers(const struct policy *policy, const struct facts *facts, struct layers *layers) {
  memset(layers, 0, sizeof *layers);
  layers->ruleset = -1;
  if (!policy->filter) return;
  int abi = facts->abi;
  if (policy->fs != FS_OPEN && abi == 0)
    refuse(EXIT_REFUSED, "landlock.fs", NEEDS_LANDLOCK, "this kernel has no Landlock%s",
           facts->abi_error == EOPNOTSUPP ? ": it was switched off at boot" : "");
  if (policy->net == NET_BROKER && !facts->user_notify)
    refuse(EXIT_REFUSED, "broker", "run on Linux 5.9 or later, or accept allowDegraded: [net-port-only]",
           "this kernel has no seccomp user notification");
  if (policy->net == NET_PORT_ONLY && abi < 4)
    refuse(EXIT_REFUSED, "landlock.net", "run on Linux 6.7 or later, or use the broker", "net port-only needs Landlock ABI 4, found %d", abi);
  if (policy->require_container_seccomp && facts->container_seccomp != 2)
    refuse(EXIT_REFUSED, "seccomp", "start the container with its runtime's default seccomp profile, or accept allowDegraded: [container-seccomp-off]",
           "the container has no seccomp profile of its own");
  bool writes = policy->fs != FS_CONFINED;
  for (size_t i = 0; i < policy->grant_count; i++) writes = writes || policy->grants[i].kind == GRANT_RW;
  layers->filter = true;
  layers->learn = policy->learn;
  layers->fs = policy->fs != FS_OPEN;
  layers->net = abi >= 4 && policy->net != NET_OPEN;
  layers->scope = abi >= 6;
  layers->domain = abi >= 1;
  layers->metadata_rule = !writes;
  layers->truncate_rule = layers->fs && abi < 3;
  layers->signal_rule = abi < 6;
  layers->signals = layers->signal_rule && facts->user_notify;
  layers->connects = policy->net == NET_BROKER;
  layers->binds = policy->net == NET_BROKER && (abi < 4 || policy->learn);
}

static bool is_program(const char *path) {
  struct stat found;
  return stat(path, &found) == 0 && S_ISREG(found.st_mode) && access(path, X_OK) == 0;
}

/* execve() with the path that is found here, never a search by name: what is tested and granted is what runs. */
static bool find_command(const char *name, const char *search, struct command *command) {
  if (strchr(name, '/') != NULL) {
    if (name[0] == '/') snprintf(command->path, sizeof command->path, "%s", name);
    else if (realpath(name, command->path) == NULL) return false;
    return strlen(name) < sizeof command->path && access(command->path, F_OK) == 0;
  }
  for (const char *at = search; *at != '\0' && name[0] != '\0';) {
    size_t length = strcspn(at, ":");
    int written = snprintf(command->path, sizeof command->path, "%.*s/%s", (int)length, at, name);
    /* A relative directory in PATH would depend on where the sidecar was started. */
    if (at[0] == '/' && written > 0 && (size_t)written < sizeof command->path && is_program(command->path)) return true;
    at += length + (at[length] == ':' ? 1U : 0U);
  }
  return false;
}

void plan_command(const char *name, char **environment, struct command *command) {
  const char *search = "/usr/local/bin:/usr/bin:/bin";
  for (char **each = environment; *each != NULL; each++)
    if (strncmp(*each, "PATH=", 5) == 0) search = *each + 5;
  char real[PATH_MAX];
  if (!find_command(name, search, command))
    refuse(EXIT_NOT_FOUND, "exec", "name the program by its path, or set PATH", "command not found: %s", name);
  snprintf(command->target, sizeof command->target, "%s", realpath(command->path, real) != NULL ? real : command->path);
}

static bool can_fork(rlim_t soft, rlim_t hard) {
  if (setrlimit(RLIMIT_NPROC, &(struct rlimit){soft, hard}) != 0) return false;
  pid_t child = vfork();
  if (child == 0) _exit(0);
  if (child < 0) return false;
  while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {
  }
  return true;
}

/* The kernel counts the tasks of a uid over all containers of the machine, and tells nobody. So the smallest limit under
 * which a fork succeeds is looked for. */
uint64_t plan_processes_now(bool *inert) {
  struct rlimit before;
  *inert = false;
  if (getrlimit(RLIMIT_NPROC, &before) != 0) return 0;
  rlim_t hard = before.rlim_max, most = hard == RLIM_INFINITY || hard > (1U << 22) ? 1U << 22 : hard;
  rlim_t fails = 0, works = 64;
  *inert = can_fork(0, hard);
  while (!*inert && works < most && !can_fork(works, hard)) {
    fails = works;
    works *= 2;
  }
  if (works > most) works = most;
  while (!*inert && works - fails > 1) {
    rlim_t middle = fails + (works - fails) / 2;
    if (can_fork(middle, hard)) works = middle;
    else fails = middle;
  }
  setrlimit(RLIMIT_NPROC, &before);
  return *inert ? 0 : works - 1;
}
