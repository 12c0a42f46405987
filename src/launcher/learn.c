/* Learning a profile: tells which files a watched server uses. This is observation and nothing else: the calls are read out
 * of the caller's memory, told, and then done by the kernel, which reads its arguments anew. A server that changes them in
 * between deceives whoever reads the profile that is made of it, so only servers that one would trust anyway are watched, and
 * nothing here decides on what is allowed. */
#include "launcher.h"
#include "broker_parts.h"
#include "learn.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Scripts whose interpreter is a script. */
#define INTERPRETERS 4

enum kind { K_OPEN, K_CREAT, K_OPENAT2, K_EXECUTE, K_MAKE, K_RENAME, K_LINK, K_REMOVE, K_TRUNCATE, K_SOCKET, K_LISTEN, K_BIND };

/* Which arguments are paths: a directory's descriptor (-1: none) and the path, one or two of them. */
struct watched {
  int call;
  enum kind kind;
  int8_t directory, path, second_directory, second_path;
};

static const struct watched watched[] = {
    {SYS_openat, K_OPEN, 0, 1, -1, -1},
    {NR_openat2, K_OPENAT2, 0, 1, -1, -1},
    {SYS_execve, K_EXECUTE, -1, 0, -1, -1},
    {SYS_execveat, K_EXECUTE, 0, 1, -1, -1},
    {SYS_mkdirat, K_MAKE, 0, 1, -1, -1},
    {SYS_mknodat, K_MAKE, 0, 1, -1, -1},
    {SYS_symlinkat, K_MAKE, 1, 2, -1, -1},
    {SYS_linkat, K_LINK, 0, 1, 2, 3},
    {SYS_unlinkat, K_REMOVE, 0, 1, -1, -1},
    {SYS_renameat2, K_RENAME, 0, 1, 2, 3},
#ifdef SYS_renameat
    {SYS_renameat, K_RENAME, 0, 1, 2, 3},
#endif
    {SYS_truncate, K_TRUNCATE, -1, 0, -1, -1},
#ifdef SYS_open
    {SYS_open, K_OPEN, -1, 0, -1, -1},
    {SYS_creat, K_CREAT, -1, 0, -1, -1},
    {SYS_mkdir, K_MAKE, -1, 0, -1, -1},
    {SYS_mknod, K_MAKE, -1, 0, -1, -1},
    {SYS_symlink, K_MAKE, -1, 1, -1, -1},
    {SYS_link, K_LINK, -1, 0, -1, 1},
    {SYS_unlink, K_REMOVE, -1, 0, -1, -1},
    {SYS_rmdir, K_REMOVE, -1, 0, -1, -1},
    {SYS_rename, K_RENAME, -1, 0, -1, 1},
#endif
    /* What the filter hands over by rules of its own. */
    {SYS_socket, K_SOCKET, -1, -1, -1, -1},
    {SYS_listen, K_LISTEN, -1, -1, -1, -1},
    {SYS_bind, K_BIND, -1, -1, -1, -1},
};

static const uint32_t calls[] = {
    SYS_openat, NR_openat2, SYS_execve, SYS_execveat, SYS_mkdirat, SYS_mknodat, SYS_symlinkat, SYS_linkat, SYS_unlinkat,
    SYS_renameat2, SYS_truncate,
#ifdef SYS_renameat
    SYS_renameat,
#endif
#ifdef SYS_open
    SYS_open, SYS_creat, SYS_mkdir, SYS_mknod, SYS_symlink, SYS_link, SYS_unlink, SYS_rmdir, SYS_rename,
#endif
};
const uint32_t *const learn_calls = calls;
const size_t learn_call_count = sizeof calls / sizeof calls[0];

static struct {
  bool begun;
  bool truncations;
} self;

void learn_begin(pid_t child, bool truncations) {
  self.begun = true;
  self.truncations = truncations;
  seen_begin(child);
}

static void told_entry(const struct call *call, int directory, const char *path, const char *access, bool must_exist, bool must_not) {
  char real[PATH_ROOM];
  bool exists = false;
  if (!seen_entry(call, directory, path, real, &exists)) return;
  if ((must_exist && !exists) || (must_not && exists)) return;
  seen_file(call, access, real);
}

static void told_open(const struct call *call, int directory, const char *path, uint64_t flags) {
  if ((flags & O_PATH) != 0) return;
  const bool writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0;
  char real[PATH_ROOM];
  struct stat found;
  const int descriptor = seen_target(call, directory, path, real, &found);
  if (descriptor < 0) {
    if (errno == ENOENT && (flags & O_CREAT) != 0) told_entry(call, directory, path, "create", false, true);
    return;
  }
  const bool folder = S_ISDIR(found.st_mode);
  if (folder && (flags & O_TMPFILE) == O_TMPFILE) {
    const size_t length = strlen(real);
    if (length + 10 < sizeof real && seen_may(descriptor, W_OK)) {
      snprintf(real + length, sizeof real - length, "/unnamed");
      seen_file(call, "create", real);
    }
  } else if ((flags & O_CREAT) != 0 && (flags & O_EXCL) != 0) {
    /* It exists, so the call fails. */
  } else if (writes && !folder) {
    if (seen_may(descriptor, W_OK)) seen_file(call, "write", real);
    if (seen_may(descriptor, R_OK) && (flags & O_ACCMODE) == O_RDWR) seen_file(call, "read", real);
  } else if (seen_may(descriptor, R_OK)) {
    seen_file(call, folder ? "list" : "read", real);
  }
  close(descriptor);
}

static void told_run(const struct call *call, int directory, const char *path) {
  char next[PATH_ROOM], real[PATH_ROOM];
  snprintf(next, sizeof next, "%s", path);
  for (int depth = 0; depth < INTERPRETERS; depth++) {
    struct stat found;
    const int descriptor = seen_target(call, depth == 0 ? directory : AT_FDCWD, next, real, &found);
    if (descriptor < 0) return;
    const bool runs = S_ISREG(found.st_mode) && seen_may(descriptor, X_OK);
    close(descriptor);
    if (!runs) return;
    seen_file(call, "execute", real);
    if (!seen_interpreter(real, next)) return;
  }
}

/* execveat() of a descriptor itself. */
static void told_run_descriptor(const struct call *call, int descriptor) {
  char path[40];
  snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
  told_run(call, AT_FDCWD, path);
}

static int told_truncate(const struct call *call, int directory, const char *path) {
  told_open(call, directory, path, O_WRONLY);
  return self.truncations ? EACCES : BROKER_CONTINUE;
}

/* Families and types are those of the filter: whatever arrives here is refused to every server. */
static int told_socket(const struct call *call) {
  const int family = (int)(uint32_t)call->args[0], type = (int)(uint32_t)call->args[1] & 0xF;
  const bool internet = family == AF_INET || family == AF_INET6;
  seen_attempt(family == AF_UNIX ? "unix" : internet && type == SOCK_DGRAM ? "udp" : "socket", 0);
  return EACCES;
}

static int told_bind(const struct broker *broker, const struct call *call) {
  struct sockaddr_in address = {0};
  if (call->args[2] < 4 || target_memory(broker, call, call->args[1], &address, 4) != 0) return BROKER_SERVE;
  if (address.sin_family == AF_INET || address.sin_family == AF_INET6) seen_attempt("bind", ntohs(address.sin_port));
  return BROKER_SERVE;
}

static const struct watched *known(int call) {
  for (size_t i = 0; i < sizeof watched / sizeof watched[0]; i++)
    if (watched[i].call == call) return &watched[i];
  return NULL;
}

static int descriptor_at(const struct call *call, int index) { return index < 0 ? AT_FDCWD : (int)(uint32_t)call->args[index]; }

static int told_files(const struct broker *broker, const struct call *call, const struct watched *watch) {
  char path[PATH_MAX], second[PATH_MAX];
  const int directory = descriptor_at(call, watch->directory);
  if (!seen_text(broker, call, call->args[watch->path], path, sizeof path)) {
    if (watch->kind == K_EXECUTE && watch->directory >= 0 && (call->args[4] & AT_EMPTY) != 0) told_run_descriptor(call, directory);
    return BROKER_CONTINUE;
  }
  if (watch->second_path >= 0 && !seen_text(broker, call, call->args[watch->second_path], second, sizeof second)) return BROKER_CONTINUE;
  const int second_directory = descriptor_at(call, watch->second_directory);
  uint64_t flags = call->args[watch->path + 1];
  switch (watch->kind) {
    case K_OPENAT2:
      if (self.truncations) return ENOSYS;
      if (target_memory(broker, call, call->args[2], &flags, sizeof flags) != 0) return BROKER_CONTINUE;
      told_open(call, directory, path, flags);
      return BROKER_CONTINUE;
    case K_OPEN:
      told_open(call, directory, path, flags & 0xFFFFFFFFU);
      return self.truncations && (flags & O_TRUNC) != 0 && ((flags & O_ACCMODE) == O_RDONLY || (flags & O_ACCMODE) == O_ACCMODE)
                 ? EACCES
                 : BROKER_CONTINUE;
    case K_CREAT:
      told_open(call, directory, path, O_CREAT | O_WRONLY | O_TRUNC);
      return BROKER_CONTINUE;
    case K_EXECUTE:
      told_run(call, directory, path);
      return BROKER_CONTINUE;
    case K_MAKE:
      told_entry(call, directory, path, "create", false, true);
      return BROKER_CONTINUE;
    case K_REMOVE:
      told_entry(call, directory, path, "remove", true, false);
      return BROKER_CONTINUE;
    case K_RENAME:
      told_entry(call, directory, path, "remove", true, false);
      told_entry(call, second_directory, second, "create", false, false);
      return BROKER_CONTINUE;
    case K_LINK:
      told_entry(call, directory, path, "create", true, false);
      told_entry(call, second_directory, second, "create", false, true);
      return BROKER_CONTINUE;
    case K_TRUNCATE:
      return told_truncate(call, directory, path);
    default:
      return BROKER_CONTINUE;
  }
}

int learn_observe(struct broker *broker, const struct call *call) {
  const struct watched *watch = known(call->nr);
  if (watch == NULL) return BROKER_SERVE;
  const bool refused = watch->kind == K_SOCKET || watch->kind == K_LISTEN;
  /* Before the program runs, it is our own child that tests itself. */
  if (!self.begun) return refused ? EACCES : watch->kind == K_BIND ? BROKER_SERVE : BROKER_CONTINUE;
  switch (watch->kind) {
    case K_SOCKET:
      return told_socket(call);
    case K_LISTEN:
      seen_attempt("listen", 0);
      return EACCES;
    case K_BIND:
      return told_bind(broker, call);
    default:
      return told_files(broker, call, watch);
  }
}
