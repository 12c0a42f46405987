/* Further names of a path. Several mounts may show one and the same file; Landlock's rules are bound to the file, while what is
 * hidden is left out of them by its name. */
#include "launcher.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct mount {
  const char *device, *root, *point, *type;
};
/* As they are at the start. */
static struct mount *mounts;
static size_t mount_count;

/* Blanks, line ends and backslashes are written as three octal digits. */
static const char *unescaped(char *text) {
  char *to = text;
  for (const char *from = text; *from != '\0';) {
    bool code = from[0] == '\\' && strspn(from + 1, "01234567") >= 3;
    *to++ = code ? (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + from[3] - '0') : *from;
    from += code ? 4 : 1;
  }
  *to = '\0';
  return text;
}

/* `line` is kept. */
static bool read_line(char *line, struct mount *mount) {
  char *rest = line, *fields[5];
  for (size_t i = 0; i < 5; i++)
    if ((fields[i] = strsep(&rest, " ")) == NULL) return false;
  /* Options and what else there may be end with a dash. */
  char *behind = rest == NULL ? NULL : strstr(rest, " - ");
  if (behind == NULL) return false;
  behind += strlen(" - ");
  *mount = (struct mount){fields[2], unescaped(fields[3]), unescaped(fields[4]), strsep(&behind, " ")};
  return true;
}

static bool read_mounts(void) {
  if (mounts != NULL) return true;
  FILE *file = fopen("/proc/self/mountinfo", "re");
  if (file == NULL) return false;
  char *line = NULL;
  size_t room = 0, size = 0;
  bool good = true;
  for (; good && getline(&line, &size, file) > 0; line = NULL, size = 0) {
    if (mount_count == room) mounts = reallocarray(mounts, room += 256, sizeof *mounts);
    good = mounts != NULL && read_line(line, &mounts[mount_count++]);
  }
  good = good && mounts != NULL && ferror(file) == 0;
  fclose(file);
  return good;
}

/* `path`, which lies in `from`, moved to where that is `to`. */
static bool moved(const char *path, const char *from, const char *to, char *out) {
  const char *rest = from[1] == '\0' ? path : path + strlen(from);
  if (strcmp(rest, "/") == 0) rest = "";
  const char *start = to[1] == '\0' && rest[0] != '\0' ? "" : to;
  return snprintf(out, PATH_MAX, "%s%s", start, rest) < PATH_MAX;
}

/* Adds the name that what lies at `inside`, within the file system of `mount`, has through that. False: no room. */
static bool add_name(struct places *places, size_t place, const char *inside, bool hidden, const struct mount *mount) {
  const struct place at = {.path = (char *)inside, .directory = places->all[place].directory};
  char name[PATH_MAX];
  if (path_contains(mount->root, inside)) {
    if (!moved(inside, mount->root, mount->point, name)) return false;
  } else if (place_covers(&at, mount->root, hidden)) {
    snprintf(name, sizeof name, "%s", mount->point);
  } else {
    return true;
  }
  struct stat found;
  /* Who starts the server does not get there, and so neither does the server. */
  if (lstat(name, &found) != 0 && errno == EACCES) return true;
  if (places_around(places, name) != NULL) return true;
  if (!places_add(places, name)) return false;
  places->all[places->count - 1].of = places->all[place].path;
  return true;
}

bool mounts_add_names(struct places *places, size_t from, bool hidden) {
  size_t end = places->count;
  if (from == end) return true;
  if (!read_mounts()) return false;
  for (size_t i = from; i < end; i++)
    for (size_t under = 0; under < mount_count; under++) {
      const char *path = places->all[i].path;
      char inside[PATH_MAX];
      /* Not only the mount on top, which is hard to tell: a name too many hides nothing that anybody misses. */
      if (!path_contains(mounts[under].point, path)) continue;
      if (!moved(path, mounts[under].point, mounts[under].root, inside)) return false;
      for (size_t other = 0; other < mount_count; other++)
        if (strcmp(mounts[under].device, mounts[other].device) == 0 && !add_name(places, i, inside, hidden, &mounts[other])) return false;
    }
  return true;
}

bool mounts_add_kernel(struct places *places) {
  static const char *const types[] = {"sysfs", "cgroup", "cgroup2", "debugfs", "tracefs", "configfs", "securityfs", "bpf",
                                      "efivarfs", "pstore", "resctrl", "fusectl", "selinuxfs", "smackfs"};
  if (!read_mounts()) return false;
  for (size_t i = 0; i < mount_count; i++)
    for (size_t type = 0; type < sizeof types / sizeof types[0]; type++)
      if (strcmp(mounts[i].type, types[type]) == 0 && places_around(places, mounts[i].point) == NULL && !places_add(places, mounts[i].point))
        return false;
  return true;
}
