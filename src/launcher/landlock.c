/* Landlock: which files, TCP ports and processes the child reaches. The ruleset is built before the fork out of paths that
 * are opened once; the child adds its own /proc directory and applies it. */
#include "launcher.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#define FS_ABI_1 ((LL_MAKE_SYM << 1) - 1)
#define READ_RIGHTS (LL_READ_FILE | LL_READ_DIR)
#define WRITE_RIGHTS                                                                                                  \
  (READ_RIGHTS | LL_WRITE_FILE | LL_TRUNCATE | LL_REMOVE_DIR | LL_REMOVE_FILE | LL_MAKE_DIR | LL_MAKE_REG |           \
   LL_MAKE_FIFO | LL_MAKE_SYM | LL_REFER)
#define FILE_RIGHTS (LL_EXECUTE | LL_WRITE_FILE | LL_READ_FILE | LL_TRUNCATE | LL_IOCTL_DEV)
#define NO_FILES "name paths that exist, or mark them optional"

int landlock_abi(int *error) {
  long abi = syscall(NR_landlock_create_ruleset, NULL, 0, LL_VERSION);
  *error = abi < 0 ? errno : 0;
  return abi < 0 ? 0 : (int)abi;
}

int landlock_allow(int ruleset, int descriptor, uint64_t allowed) {
  struct ll_path_beneath rule = {allowed, descriptor};
  return syscall(NR_landlock_add_rule, ruleset, LL_PATH_BENEATH, &rule, 0) == 0 ? 0 : errno;
}

/* The rights that this ABI knows. */
static uint64_t known_rights(int abi) {
  uint64_t rights = FS_ABI_1;
  if (abi >= 2) rights |= LL_REFER;
  if (abi >= 3) rights |= LL_TRUNCATE;
  if (abi >= 5) rights |= LL_IOCTL_DEV;
  return rights;
}

static uint64_t rights_of(enum grant_kind kind) {
  switch (kind) {
    case GRANT_RX: return READ_RIGHTS | LL_EXECUTE;
    case GRANT_R: return READ_RIGHTS;
    case GRANT_RW: return WRITE_RIGHTS;
    case GRANT_DEV: return LL_READ_FILE | LL_WRITE_FILE | LL_TRUNCATE | LL_IOCTL_DEV;
  }
  abort();
}

static const char *grant_key(enum grant_kind kind) {
  static const char *const keys[] = {"fs.rx", "fs.r", "fs.rw", "fs.dev"};
  return keys[kind];
}

static bool real_path(int descriptor, char *out, size_t size) {
  char link[40];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = readlink(link, out, size - 1);
  if (length < 0) return false;
  out[length] = '\0';
  return true;
}

static bool in_proc(int descriptor) {
  struct statfs system;
  return fstatfs(descriptor, &system) != 0 || system.f_type == PROC_MAGIC;
}

/* /proc/<pid> of anybody is no path to grant: `self` would be the launcher's own. */
static bool of_a_process(int descriptor, const char *target) {
  return strncmp(target, "/proc/", 6) == 0 && target[6] >= '0' && target[6] <= '9' && in_proc(descriptor);
}

struct granted {
  char *target;
  enum grant_kind kind;
};

/* Whether a write path lies in a directory where programs may be run: rights add up downwards. */
static bool writable_below(const struct granted *granted, size_t count, const char *directory) {
  for (size_t i = 0; i < count; i++)
    if (granted[i].kind == GRANT_RW && path_contains(directory, granted[i].target)) return true;
  return false;
}

static bool exec_writable(const struct granted *granted, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (granted[i].kind == GRANT_RX && writable_below(granted, count, granted[i].target)) return true;
  return false;
}

static void note_link(struct notes *notes, const char *path, const char *target) {
  if (strcmp(path, target) == 0) return;
  if (notes->link_count == MAX_NOTES) {
    notes->truncated = true;
    return;
  }
  notes->link_path[notes->link_count] = path;
  notes->link_target[notes->link_count++] = strdup(target);
}

static void refuse_hidden(const char *key, const char *path, const char *hidden) {
  refuse(EXIT_REFUSED, "landlock.fs", "grant the directories beside the protected path", "%s %s: contains the protected path %s", key,
         path, hidden);
}

/* A server may have put a link where one of its grants leads through a folder that it writes: it would be given whatever it
 * points to at its next start. */
static int open_grant(const char *path, bool no_links) {
  if (!no_links) return open(path, O_PATH | O_CLOEXEC);
  struct {
    uint64_t flags, mode, resolve;
  } how = {.flags = O_PATH | O_CLOEXEC, .resolve = 0x04 /* RESOLVE_NO_SYMLINKS */};
  return (int)syscall(NR_openat2, AT_FDCWD, path, &how, sizeof how);
}

/* Opens one granted path and adds its rule. False: skipped. */
static bool add_grant(const struct policy *policy, uint64_t known, int ruleset, const struct grant *grant, char *target,
                      struct notes *notes) {
  const char *key = grant_key(grant->kind);
  int descriptor = open_grant(grant->path, policy->no_links);
  if (descriptor < 0) {
    /* What this uid cannot reach, the server cannot either: to it, it is not there. */
    bool missing = errno == ENOENT || errno == ENOTDIR || errno == EACCES;
    if (!missing || !grant->optional) refuse(EXIT_REFUSED, "landlock.fs", NO_FILES, "%s %s: %s", key, grant->path, strerror(errno));
    if (notes->skipped_count < MAX_NOTES) notes->skipped[notes->skipped_count++] = grant->path;
    else notes->truncated = true;
    return false;
  }
  struct stat found;
  if (fstat(descriptor, &found) != 0) refuse(EXIT_REFUSED, "landlock.fs", NO_FILES, "%s %s: %s", key, grant->path, strerror(errno));
  if (grant->kind == GRANT_DEV && !S_ISCHR(found.st_mode))
    refuse(EXIT_REFUSED, "landlock.fs", "name a character device", "%s %s: not a character device", key, grant->path);
  if (!real_path(descriptor, target, 4096)) snprintf(target, 4096, "%s", grant->path);
  if (of_a_process(descriptor, target))
    refuse(EXIT_REFUSED, "landlock.fs", "use `proc self` or `proc all`", "%s %s: is of a single process", key, grant->path);
  for (size_t i = 0; i < policy->hidden_count; i++) {
    char hidden[4096];
    if (!hidden_resolve(policy->hidden[i], hidden, sizeof hidden) || path_contains(target, hidden))
      refuse_hidden(key, grant->path, policy->hidden[i]);
  }
  note_link(notes, grant->path, target);
  uint64_t rights = rights_of(grant->kind) & known & (S_ISDIR(found.st_mode) ? ~0ULL : FILE_RIGHTS);
  int error = landlock_allow(ruleset, descriptor, rights);
  /* A rule is bound to an inode, and those of /proc are made anew once nobody holds them: the supervisor does. */
  if (!in_proc(descriptor)) close(descriptor);
  if (error != 0) refuse(EXIT_REFUSED, "landlock.fs", NO_FILES, "%s %s: no rule possible: %s", key, grant->path, strerror(error));
  return true;
}

/* Read and execute for the directory of a program; for the program alone where the directory is / or has something hidden.
 * True: what may be written lies below it. */
static bool add_program(const struct policy *policy, int ruleset, const char *path, const struct granted *granted, size_t count) {
  char directory[4096];
  snprintf(directory, sizeof directory, "%s", path);
  char *slash = strrchr(directory, '/');
  bool whole = slash != NULL && slash != directory;
  if (whole) *slash = '\0';
  for (size_t i = 0; whole && i < policy->hidden_count; i++) {
    char hidden[4096];
    whole = hidden_resolve(policy->hidden[i], hidden, sizeof hidden) && !path_contains(directory, hidden);
  }
  int descriptor = open(whole ? directory : path, O_PATH | O_CLOEXEC);
  if (descriptor < 0) return false;
  struct stat found;
  bool is_directory = fstat(descriptor, &found) == 0 && S_ISDIR(found.st_mode);
  int error = landlock_allow(ruleset, descriptor, is_directory ? READ_RIGHTS | LL_EXECUTE : LL_READ_FILE | LL_EXECUTE);
  close(descriptor);
  if (error != 0) refuse(EXIT_REFUSED, "landlock.fs", NO_FILES, "fs.command %s: no rule possible: %s", path, strerror(error));
  return writable_below(granted, count, whole ? directory : path);
}

static void add_grants(const struct policy *policy, uint64_t known, int ruleset, const struct command *command,
                       struct notes *notes) {
  static char target[4096];
  struct granted *granted = calloc(policy->grant_count + 1, sizeof *granted);
  size_t count = 0;
  if (granted == NULL) refuse(EXIT_REFUSED, "landlock.fs", "", "out of memory");
  for (size_t i = 0; i < policy->grant_count; i++) {
    if (!add_grant(policy, known, ruleset, &policy->grants[i], target, notes)) continue;
    granted[count].kind = policy->grants[i].kind;
    granted[count].target = strdup(target);
    if (granted[count++].target == NULL) refuse(EXIT_REFUSED, "landlock.fs", "", "out of memory");
  }
  if (policy->command_directory) {
    /* Both where it was found and where its file is: programs look for their parts beside either. */
    notes->exec_writable |= add_program(policy, ruleset, command->path, granted, count);
    notes->exec_writable |= add_program(policy, ruleset, command->target, granted, count);
  }
  notes->exec_writable |= exec_writable(granted, count);
  for (size_t i = 0; i < count; i++) free(granted[i].target);
  free(granted);
}

static void add_everything(const struct policy *policy, uint64_t known, int ruleset) {
  const char *hidden[MAX_GRANTS + 1] = {NULL};
  size_t count = 0;
  for (; count < policy->hidden_count; count++) {
    char *path = malloc(4096);
    if (path == NULL || !hidden_resolve(policy->hidden[count], path, 4096))
      refuse(EXIT_REFUSED, "landlock.fs", "name a shorter path", "fs.hide %s: cannot be resolved", policy->hidden[count]);
    hidden[count] = path;
  }
  if (!policy->proc_all) hidden[count++] = strdup("/proc");
  hidden_expand(ruleset, known, hidden, count);
  for (size_t i = 0; i < count; i++) free((void *)(uintptr_t)hidden[i]);
}

/* A ruleset whose only file rule restricts nothing: a domain is wanted, for its ptrace scope. Moving files between
 * directories is the one right that every file domain denies, so it is handled and given back. */
static void add_nothing(int ruleset, int abi) {
  int root = open("/", O_PATH | O_CLOEXEC);
  int error = root < 0 ? errno : landlock_allow(ruleset, root, LL_MAKE_BLOCK | (abi >= 2 ? LL_REFER : 0));
  if (root >= 0) close(root);
  if (error != 0) refuse(EXIT_REFUSED, "landlock.fs", "", "no rule for /: %s", strerror(error));
}

void landlock_build(const struct policy *policy, const struct facts *facts, struct layers *layers,
                    const struct command *command, struct notes *notes) {
  layers->ruleset = -1;
  if (!layers->domain) return;
  uint64_t known = known_rights(facts->abi);
  bool bare = !layers->fs && !layers->net && !layers->scope;
  struct ll_ruleset attributes = {
      .fs = layers->fs ? known : bare ? LL_MAKE_BLOCK | (facts->abi >= 2 ? LL_REFER : 0) : 0,
      .net = layers->net ? LL_BIND_TCP | LL_CONNECT_TCP : 0,
      .scoped = layers->scope ? LL_SCOPE_ABSTRACT_UNIX | LL_SCOPE_SIGNAL : 0,
  };
  size_t size = facts->abi >= 6 ? 24 : facts->abi >= 4 ? 16 : 8;
  int ruleset = (int)syscall(NR_landlock_create_ruleset, &attributes, size, 0);
  if (ruleset < 0) refuse(EXIT_REFUSED, "landlock.fs", "", "landlock_create_ruleset: %s", strerror(errno));
  layers->ruleset = ruleset;
  if (layers->fs && policy->fs == FS_CONFINED) add_grants(policy, known, ruleset, command, notes);
  if (layers->fs && policy->fs == FS_ALL) add_everything(policy, known, ruleset);
  if (bare) add_nothing(ruleset, facts->abi);
  /* The child's own is opened after the fork; whether there is one shows here as well. */
  if (layers->fs && (policy->proc_self || policy->proc_all) && access("/proc/self", F_OK) != 0 && notes->skipped_count < MAX_NOTES)
    notes->skipped[notes->skipped_count++] = "/proc";
  if (policy->net == NET_PORT_ONLY) {
    /* The port is at the same place in both families. */
    const struct sockaddr_in *proxy = (const struct sockaddr_in *)&policy->proxy;
    struct ll_net_port rule = {LL_CONNECT_TCP, (uint64_t)ntohs(proxy->sin_port)};
    if (syscall(NR_landlock_add_rule, ruleset, LL_NET_PORT, &rule, 0) != 0)
      refuse(EXIT_REFUSED, "landlock.net", "", "no rule for the proxy's port: %s", strerror(errno));
  }
}

int landlock_apply(const struct policy *policy, const struct facts *facts, struct layers *layers) {
  if (layers->ruleset < 0) return 0;
  if (layers->fs && (policy->proc_self || policy->proc_all)) {
    int proc = open(policy->proc_all ? "/proc" : "/proc/self", O_PATH | O_CLOEXEC);
    /* Without /proc there is nothing to grant; the report says so. */
    if (proc >= 0) {
      bool everything = policy->fs == FS_ALL && policy->proc_all;
      int error = landlock_allow(layers->ruleset, proc, everything ? known_rights(facts->abi) : READ_RIGHTS);
      close(proc);
      if (error != 0) return error;
    }
  }
  if (syscall(NR_landlock_restrict_self, layers->ruleset, 0) != 0) return errno;
  close(layers->ruleset);
  layers->ruleset = -1;
  return 0;
}
