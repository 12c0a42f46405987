/* Landlock: which files, TCP ports and processes the child reaches. The ruleset is built before the fork out of paths that
 * are opened once; the child adds its own /proc directory and applies it. */
#include "launcher.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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
    case GRANT_RX:
    case GRANT_PROGRAM: return READ_RIGHTS | LL_EXECUTE;
    case GRANT_R: return READ_RIGHTS;
    case GRANT_RW: return WRITE_RIGHTS;
    case GRANT_DEV: return LL_READ_FILE | LL_WRITE_FILE | LL_TRUNCATE | LL_IOCTL_DEV;
  }
  abort();
}

static const char *grant_key(enum grant_kind kind) {
  static const char *const keys[] = {"fs.rx", "fs.r", "fs.rw", "fs.dev", "fs.program"};
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

/* Whether something may be written at, below or around `path`: rights add up downwards. */
static bool writable(const struct granted *granted, size_t count, const char *path) {
  for (size_t i = 0; i < count; i++)
    if (granted[i].kind == GRANT_RW && (path_contains(path, granted[i].target) || path_contains(granted[i].target, path))) return true;
  return false;
}

static bool exec_writable(const struct granted *granted, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (granted[i].kind == GRANT_RX && writable(granted, count, granted[i].target)) return true;
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

/* What no grant may open, and the directories that the server may write, as they are at this start. */
static struct surroundings {
  struct places hidden, readonly, written;
} around;

/* A server may have put a link where one of its grants leads through a directory that it writes: it would be given whatever
 * that points to at its next start. So links are followed one by one, and none that lies in such a directory and leads out
 * of it. 0, or errno. */
static int follow(const struct places *written, const char *path, char *out, const char **planted) {
  char rest[PATH_MAX] = "", here[PATH_MAX] = "";
  static bool through[MAX_PLACES];
  memset(through, 0, sizeof through);
  snprintf(rest, sizeof rest, "%s", path);
  for (int links = 0; rest[0] != '\0';) {
    size_t slashes = strspn(rest, "/"), length = strcspn(rest + slashes, "/");
    char part[PATH_MAX], target[PATH_MAX], next[PATH_MAX];
    snprintf(part, sizeof part, "%.*s", (int)length, rest + slashes);
    memmove(rest, rest + slashes + length, strlen(rest + slashes + length) + 1);
    if (length == 0 || strcmp(part, ".") == 0) continue;
    if (strcmp(part, "..") == 0) {
      char *slash = strrchr(here, '/');
      if (slash != NULL) *slash = '\0';
      continue;
    }
    struct stat found;
    if (snprintf(next, sizeof next, "%s/%s", here, part) >= (int)sizeof next) return ENAMETOOLONG;
    if (lstat(next, &found) != 0) return errno;
    if (!S_ISLNK(found.st_mode)) {
      strcpy(here, next);
      continue;
    }
    for (size_t i = 0; i < written->count; i++) through[i] = through[i] || path_contains(written->all[i].path, next);
    ssize_t size = ++links > 40 ? -1 : readlink(next, target, sizeof target - 1);
    if (size < 0) return links > 40 ? ELOOP : errno;
    target[size] = '\0';
    if (target[0] == '/') here[0] = '\0';
    if (snprintf(part, sizeof part, "%s", rest) >= (int)sizeof part) return ENAMETOOLONG;
    if (snprintf(rest, sizeof rest, "%s%s", target, part) >= (int)sizeof rest) return ENAMETOOLONG;
  }
  snprintf(out, PATH_MAX, "%s", here[0] == '\0' ? "/" : here);
  for (size_t i = 0; i < written->count; i++)
    if (through[i] && !path_contains(written->all[i].path, out)) *planted = written->all[i].path;
  return 0;
}

static int open_grant(const struct policy *policy, const char *key, const char *path) {
  if (policy->no_links) return open_real(path, O_PATH);
  char real[PATH_MAX];
  const char *planted = NULL;
  int error = follow(&around.written, path, real, &planted);
  if (planted != NULL)
    refuse(EXIT_REFUSED, "landlock.fs", "name what is meant itself", "%s %s: leads to %s, out of %s, which the server may write", key, path, real,
           planted);
  if (error == 0) return open_real(real, O_PATH);
  errno = error;
  return -1;
}

/* The name that a grant would open, and by which the policy knows it. */
static const char *named(const struct place *place) {
  static char text[2 * PATH_MAX + 32];
  if (place->of == NULL) return place->path;
  snprintf(text, sizeof text, "%s, another mount of %s", place->path, place->of);
  return text;
}

static void keep_protected(enum grant_kind kind, const char *path, const char *target) {
  const char *key = grant_key(kind), *beside = "grant the directories beside the protected path";
  const struct place *below = places_below(&around.hidden, target), *cover = places_covering(&around.hidden, target);
  if (below != NULL) refuse(EXIT_REFUSED, "landlock.fs", beside, "%s %s: contains the protected path %s", key, path, named(below));
  if (cover != NULL) refuse(EXIT_REFUSED, "landlock.fs", beside, "%s %s: belongs to the protected path %s", key, path, named(cover));
  if (kind != GRANT_RW) return;
  const struct place *own = places_below(&around.readonly, target);
  if (own == NULL) own = places_around(&around.readonly, target);
  if (own != NULL)
    refuse(EXIT_REFUSED, "landlock.fs", "grant the directories beside it", "%s %s: would let the server change %s, which belongs to the sidecar", key,
           path, named(own));
}

/* Read and execute for a program and what it consists of, without what is hidden, and without what is written: that is
 * executed only where the program itself lies in it. */
static void add_program(int ruleset, int descriptor, const char *target, struct notes *notes) {
  static struct expansion expansion;
  memset(&expansion, 0, sizeof expansion);
  expansion.ruleset = ruleset;
  expansion.allowed = READ_RIGHTS | LL_EXECUTE;
  expansion.listing = true;
  for (size_t i = 0; i < around.hidden.count; i++) expansion.hidden.all[expansion.hidden.count++] = around.hidden.all[i];
  bool inside = false;
  for (size_t i = 0; i < around.written.count && expansion.hidden.count < MAX_PLACES; i++) {
    if (path_contains(around.written.all[i].path, target)) {
      inside = true;
      continue;
    }
    expansion.hidden.all[expansion.hidden.count] = around.written.all[i];
    /* Who writes there may list it, too; and what only begins with its name is none of it. */
    expansion.hidden.all[expansion.hidden.count].listed = true;
    expansion.hidden.all[expansion.hidden.count++].directory = true;
  }
  if (inside && places_covering(&around.hidden, target) == NULL) notes->exec_writable = true;
  /* The one that was looked at, so that nothing else takes its place; its parts are opened without following links. */
  if (places_covering(&expansion.hidden, target) == NULL && places_below(&expansion.hidden, target) == NULL) {
    struct stat found;
    bool directory = fstat(descriptor, &found) == 0 && S_ISDIR(found.st_mode);
    int error = landlock_allow(ruleset, descriptor, directory ? expansion.allowed : expansion.allowed & FILE_RIGHTS);
    if (error != 0) refuse(EXIT_REFUSED, "landlock.fs", NO_FILES, "fs.program %s: no rule possible: %s", target, strerror(error));
  } else {
    expand(&expansion, target);
  }
}

/* Opens one granted path and adds its rule. False: skipped. */
static bool add_grant(const struct policy *policy, uint64_t known, int ruleset, const struct grant *grant,
                      char *target, struct notes *notes) {
  const char *key = grant_key(grant->kind);
  int descriptor = open_grant(policy, key, grant->path);
  if (descriptor < 0) {
    /* What this uid cannot reach, the server cannot either: to it, it is not there. */
    /* A link that should have been followed already led nowhere then, or has been made since: it is not followed now. */
    bool missing = errno == ENOENT || errno == ENOTDIR || errno == EACCES || errno == ELOOP;
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
  note_link(notes, grant->path, target);
  if (grant->kind == GRANT_PROGRAM) {
    add_program(ruleset, descriptor, target, notes);
    close(descriptor);
    return true;
  }
  keep_protected(grant->kind, grant->path, target);
  uint64_t rights = rights_of(grant->kind) & known & (S_ISDIR(found.st_mode) ? ~0ULL : FILE_RIGHTS);
  int error = landlock_allow(ruleset, descriptor, rights);
  /* A rule is bound to an inode, and those of /proc are made anew once nobody holds them: the supervisor does. */
  if (!in_proc(descriptor)) close(descriptor);
  if (error != 0) refuse(EXIT_REFUSED, "landlock.fs", NO_FILES, "%s %s: no rule possible: %s", key, grant->path, strerror(error));
  return true;
}

/* The directory of the command, or the file alone where that directory is /. */
static void add_command(const struct policy *policy, int ruleset, const char *path, struct notes *notes) {
  char directory[4096], target[4096];
  snprintf(directory, sizeof directory, "%s", path);
  char *slash = strrchr(directory, '/');
  bool whole = slash != NULL && slash != directory;
  if (whole) *slash = '\0';
  int descriptor = open_grant(policy, "fs.command", whole ? directory : path);
  if (descriptor < 0) return;
  if (real_path(descriptor, target, sizeof target)) add_program(ruleset, descriptor, target, notes);
  close(descriptor);
}

/* Where a server writes, links followed: those among them that it planted are refused later. */
static void written_places(const struct policy *policy, struct places *written) {
  char real[PATH_MAX];
  for (size_t i = 0; i < policy->grant_count; i++)
    if (policy->grants[i].kind == GRANT_RW && realpath(policy->grants[i].path, real) != NULL && !places_add(written, real))
      refuse(EXIT_REFUSED, "landlock.fs", "", "out of memory");
}

static void add_grants(const struct policy *policy, uint64_t known, int ruleset, const struct command *command,
                       struct notes *notes) {
  static char target[4096];
  struct granted *granted = calloc(policy->grant_count + 1, sizeof *granted);
  size_t count = 0;
  if (granted == NULL) refuse(EXIT_REFUSED, "landlock.fs", "", "out of memory");
  places_of(policy, &around.hidden, &around.readonly);
  written_places(policy, &around.written);
  for (size_t i = 0; i < policy->grant_count; i++) {
    if (!add_grant(policy, known, ruleset, &policy->grants[i], target, notes)) continue;
    granted[count].kind = policy->grants[i].kind;
    granted[count].target = strdup(target);
    if (granted[count++].target == NULL) refuse(EXIT_REFUSED, "landlock.fs", "", "out of memory");
  }
  if (policy->command_directory) {
    /* The way to the program must be none that the server laid, either. */
    char real[PATH_MAX];
    const char *planted = NULL;
    if (!policy->no_links && follow(&around.written, command->path, real, &planted) == 0 && planted != NULL)
      refuse(EXIT_REFUSED, "landlock.fs", "name the program itself", "fs.command %s: leads to %s, out of %s, which the server may write",
             command->path, real, planted);
    /* Both where it was found and where its file is: programs look for their parts beside either. */
    add_command(policy, ruleset, command->path, notes);
    add_command(policy, ruleset, command->target, notes);
  }
  notes->exec_writable |= exec_writable(granted, count);
  for (size_t i = 0; i < count; i++) free(granted[i].target);
  free(granted);
}

static void add_everything(const struct policy *policy, uint64_t known, int ruleset) {
  static struct expansion expansion;
  places_of(policy, &around.hidden, &around.readonly);
  places_add_kernel(&around.readonly);
  expansion.ruleset = ruleset;
  expansion.allowed = known;
  expansion.hidden = around.hidden;
  expansion.readonly = around.readonly;
  /* What may be read of it is granted later. Written, it would change the sidecar: its place with the OOM killer, say, and
   * for root the settings of the kernel. */
  places_add_proc(&expansion.hidden);
  expand(&expansion, "/");
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
  if (layers->fs) layers->hidden = &around.hidden;
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

int landlock_apply(const struct policy *policy, struct layers *layers) {
  if (layers->ruleset < 0) return 0;
  if (layers->fs && (policy->proc_self || policy->proc_all)) {
    int proc = open(policy->proc_all ? "/proc" : "/proc/self", O_PATH | O_CLOEXEC);
    /* Without /proc there is nothing to grant; the report says so. */
    if (proc >= 0) {
      int error = landlock_allow(layers->ruleset, proc, READ_RIGHTS);
      close(proc);
      if (error != 0) return error;
    }
  }
  if (syscall(NR_landlock_restrict_self, layers->ruleset, 0) != 0) return errno;
  close(layers->ruleset);
  layers->ruleset = -1;
  return 0;
}
