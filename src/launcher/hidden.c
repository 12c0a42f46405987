/* Everything but some protected paths. Landlock only adds rights, so `/` becomes the siblings along each protected path;
 * the directories on the way get no right at all, else what is created in them later would be open, too. */
#include "launcher.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sys.h"

#define FILE_RIGHTS (LL_EXECUTE | LL_WRITE_FILE | LL_READ_FILE | LL_TRUNCATE | LL_IOCTL_DEV)
#define MOST_RULES 65536

bool path_contains(const char *outer, const char *inner) {
  size_t length = strlen(outer);
  if (length == 1) return true;
  return strncmp(outer, inner, length) == 0 && (inner[length] == '\0' || inner[length] == '/');
}

bool hidden_resolve(const char *path, char *out, size_t size) {
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

struct expansion {
  int ruleset;
  uint64_t allowed;
  const char *const *hidden;
  size_t count;
  size_t rules;
};

/* 2: hidden itself; 1: something below it is; 0: neither. */
static int relation(const struct expansion *expansion, const char *path) {
  int found = 0;
  for (size_t i = 0; i < expansion->count; i++) {
    if (path_contains(expansion->hidden[i], path)) return 2;
    if (path_contains(path, expansion->hidden[i])) found = 1;
  }
  return found;
}

static void allow_one(struct expansion *expansion, const char *path) {
  int descriptor = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (descriptor < 0) return;
  struct stat found;
  /* A symlink needs no rule: what it leads to has its own, or none. */
  if (fstat(descriptor, &found) == 0 && !S_ISLNK(found.st_mode)) {
    if (++expansion->rules > MOST_RULES)
      refuse(EXIT_REFUSED, "landlock.fs", "move the protected paths into directories with few entries",
             "more than %d files and directories beside the protected paths", MOST_RULES);
    uint64_t allowed = S_ISDIR(found.st_mode) ? expansion->allowed : expansion->allowed & FILE_RIGHTS;
    int error = landlock_allow(expansion->ruleset, descriptor, allowed);
    if (error != 0 && error != EBADFD)
      refuse(EXIT_REFUSED, "landlock.fs", "", "%s: no rule possible: %s", path, strerror(error));
  }
  close(descriptor);
}

static void walk(struct expansion *expansion, const char *path) {
  DIR *directory = opendir(path);
  if (directory == NULL) {
    if (errno == ENOENT || errno == ENOTDIR) return;
    refuse(EXIT_REFUSED, "landlock.fs", "let the launcher list the directories above the protected paths", "%s: %s", path, strerror(errno));
  }
  const struct dirent *entry;
  while ((entry = readdir(directory)) != NULL) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    char below[PATH_MAX];
    int length = snprintf(below, sizeof below, "%s/%s", path[1] == '\0' ? "" : path, entry->d_name);
    if (length < 0 || (size_t)length >= sizeof below) continue;
    int how = relation(expansion, below);
    if (how == 0) allow_one(expansion, below);
    if (how == 1) walk(expansion, below);
  }
  closedir(directory);
}

void hidden_expand(int ruleset, uint64_t allowed, const char *const *hidden, size_t count) {
  struct expansion expansion = {ruleset, allowed, hidden, count, 0};
  if (relation(&expansion, "/") == 1) walk(&expansion, "/");
}
