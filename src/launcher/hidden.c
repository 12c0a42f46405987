/* What belongs to the sidecar. Landlock only adds rights, so a directory with something hidden in it becomes the siblings
 * along the way to that; the directories on the way get no right to it, else what is created in them later would be open. */
#include "launcher.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sys.h"

#define FILE_RIGHTS (LL_EXECUTE | LL_WRITE_FILE | LL_READ_FILE | LL_TRUNCATE | LL_IOCTL_DEV)
#define READ_RIGHTS (LL_READ_FILE | LL_READ_DIR | LL_EXECUTE)
#define MOST_RULES 65536

bool path_contains(const char *outer, const char *inner) {
  size_t length = strlen(outer);
  if (length == 1) return true;
  return strncmp(outer, inner, length) == 0 && (inner[length] == '\0' || inner[length] == '/');
}

/* A path as it really is: its longest existing part without symlinks, then the rest. */
static bool resolve(const char *path, char *out, size_t size) {
  char existing[PATH_MAX], real[PATH_MAX];
  if (strlen(path) >= sizeof existing) return false;
  strcpy(existing, path);
  while (realpath(existing, real) == NULL) {
    char *slash = strrchr(existing, '/');
    if (slash == NULL || slash == existing) {
      strcpy(real, "/");
      existing[1] = '\0';
      break;
    }
    *slash = '\0';
  }
  size_t prefix = strlen(existing) == 1 ? 0 : strlen(existing);
  if (strlen(real) == 1) real[0] = '\0';
  const char *rest = path + prefix;
  int length = snprintf(out, size, "%s%s", real, rest[0] == '\0' && real[0] == '\0' ? "/" : rest);
  return length > 0 && (size_t)length < size;
}

/* The same of the directory around it alone: what lies at the path may itself be a symlink. */
static bool resolve_place(const char *path, char *out, size_t size) {
  char parent[PATH_MAX], real[PATH_MAX];
  const char *slash = strrchr(path, '/');
  if (slash == path || strlen(path) >= sizeof parent) return (size_t)snprintf(out, size, "%s", path) < size;
  snprintf(parent, sizeof parent, "%.*s", (int)(slash - path), path);
  if (!resolve(parent, real, sizeof real)) return false;
  int length = snprintf(out, size, "%s%s", real[1] == '\0' ? "" : real, slash);
  return length > 0 && (size_t)length < size;
}

bool places_add(struct places *places, const char *path) {
  if (places->count == MAX_PLACES) return false;
  struct place *place = &places->all[places->count];
  struct stat found;
  place->path = strdup(path);
  place->directory = stat(path, &found) == 0 && S_ISDIR(found.st_mode);
  place->listed = !place->directory;
  place->of = NULL;
  if (place->path == NULL) return false;
  places->count++;
  return true;
}

static void add_resolved(struct places *places, const char *key, const char *path, bool (*how)(const char *, char *, size_t)) {
  char real[PATH_MAX];
  if (!how(path, real, sizeof real) || !places_add(places, real))
    refuse(EXIT_REFUSED, "landlock.fs", "name fewer or shorter paths", "%s %s: cannot be resolved", key, path);
}

static void add_names(struct places *places, size_t from, bool hidden) {
  if (mounts_add_names(places, from, hidden)) return;
  refuse(EXIT_REFUSED, "landlock.fs", "mount /proc, and mount what is protected less often",
         "whether the protected paths are mounted a second time cannot be told");
}

void places_of(const struct policy *policy, struct places *hidden, struct places *readonly) {
  for (size_t i = 0; i < policy->hidden_count; i++) add_resolved(hidden, "fs.hide", policy->hidden[i], resolve);
  for (size_t i = 0; i < policy->readonly_count; i++) add_resolved(readonly, "fs.readonly", policy->readonly[i], resolve_place);
  add_names(hidden, 0, true);
  add_names(readonly, 0, false);
}

void places_add_proc(struct places *hidden) {
  size_t before = hidden->count;
  if (!places_add(hidden, "/proc")) refuse(EXIT_REFUSED, "landlock.fs", "", "out of memory");
  /* Without it there is nothing of it to hide, either. */
  if (access("/proc/self", F_OK) == 0) add_names(hidden, before, true);
}

void places_add_kernel(struct places *readonly) {
  if (!places_add(readonly, "/sys")) refuse(EXIT_REFUSED, "landlock.fs", "", "out of memory");
  if (access("/proc/self", F_OK) == 0 && !mounts_add_kernel(readonly))
    refuse(EXIT_REFUSED, "landlock.fs", "mount them less often", "where the file systems of the kernel are mounted cannot be told");
}

/* What begins with the name of a hidden file was made of it: a log that was rotated, a backup. */
bool place_covers(const struct place *place, const char *path, bool hidden) {
  if (path_contains(place->path, path)) return true;
  return hidden && !place->directory && strncmp(place->path, path, strlen(place->path)) == 0;
}

const struct place *places_covering(const struct places *hidden, const char *path) {
  for (size_t i = 0; i < hidden->count; i++)
    if (place_covers(&hidden->all[i], path, true)) return &hidden->all[i];
  return NULL;
}

const struct place *places_below(const struct places *places, const char *path) {
  for (size_t i = 0; i < places->count; i++)
    if (path_contains(path, places->all[i].path)) return &places->all[i];
  return NULL;
}

const struct place *places_around(const struct places *places, const char *path) {
  for (size_t i = 0; i < places->count; i++)
    if (path_contains(places->all[i].path, path)) return &places->all[i];
  return NULL;
}

int open_real(const char *path, int flags) {
  struct {
    uint64_t flags, mode, resolve;
  } how = {.flags = (uint64_t)flags | O_CLOEXEC, .resolve = 0x04 /* RESOLVE_NO_SYMLINKS */};
  return (int)syscall(NR_openat2, AT_FDCWD, path, &how, sizeof how);
}

static void allow_one(struct expansion *expansion, const char *path, uint64_t allowed) {
  /* A symlink needs no rule: what it leads to has its own, or none. */
  int descriptor = open_real(path, O_PATH);
  if (descriptor < 0) return;
  struct stat found;
  if (fstat(descriptor, &found) == 0) {
    if (++expansion->rules > MOST_RULES)
      refuse(EXIT_REFUSED, "landlock.fs", "move the protected paths into directories with few entries",
             "more than %d files and directories beside the protected paths", MOST_RULES);
    int error = landlock_allow(expansion->ruleset, descriptor, S_ISDIR(found.st_mode) ? allowed : allowed & FILE_RIGHTS);
    if (error != 0 && error != EBADFD)
      refuse(EXIT_REFUSED, "landlock.fs", "", "%s: no rule possible: %s", path, strerror(error));
  }
  close(descriptor);
}

/* Names of what is below may be seen where nothing of it is a hidden directory: the right to list goes down to it, too. */
static bool may_list(const struct expansion *expansion, const char *path) {
  for (size_t i = 0; i < expansion->hidden.count; i++)
    if (path_contains(path, expansion->hidden.all[i].path) && !expansion->hidden.all[i].listed) return false;
  return true;
}

static void walk(struct expansion *expansion, const char *path, bool must);

static void visit(struct expansion *expansion, const char *path) {
  if (places_covering(&expansion->hidden, path) != NULL) return;
  if (places_below(&expansion->hidden, path) != NULL) {
    if (expansion->listing && may_list(expansion, path)) allow_one(expansion, path, LL_READ_DIR);
    walk(expansion, path, true);
  } else if (places_around(&expansion->readonly, path) != NULL) {
    allow_one(expansion, path, expansion->allowed & READ_RIGHTS);
  } else if (places_below(&expansion->readonly, path) != NULL) {
    allow_one(expansion, path, expansion->allowed & READ_RIGHTS);
    walk(expansion, path, false);
  } else {
    allow_one(expansion, path, expansion->allowed);
  }
}

/* `must`: what cannot be listed would leave the server without what it may have; else it keeps what it has already. */
static void walk(struct expansion *expansion, const char *path, bool must) {
  int descriptor = open_real(path, O_RDONLY | O_DIRECTORY);
  DIR *directory = descriptor < 0 ? NULL : fdopendir(descriptor);
  if (directory == NULL) {
    /* A link there leads to what has its own rules, or none. */
    if (!must || errno == ENOENT || errno == ENOTDIR || errno == ELOOP) return;
    refuse(EXIT_REFUSED, "landlock.fs", "let the launcher list the directories above the protected paths", "%s: %s", path, strerror(errno));
  }
  const struct dirent *entry;
  while ((entry = readdir(directory)) != NULL) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    char below[PATH_MAX];
    int length = snprintf(below, sizeof below, "%s/%s", path[1] == '\0' ? "" : path, entry->d_name);
    if (length > 0 && (size_t)length < sizeof below) visit(expansion, below);
  }
  closedir(directory);
}

void expand(struct expansion *expansion, const char *from) { visit(expansion, from); }
