/* What a watched server means by its paths, and that each thing is told once. */
#include "learn.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Different things that are told; how many places there are for them, and how many of those are used at most. */
#define PLACES 32768
#define MOST_TOLD 16384

static struct {
  bool lost;
  pid_t child;
  size_t count;
  uint64_t told[PLACES];
} self;

void seen_begin(pid_t child) { self.child = child; }

static uint64_t hash(uint64_t start, const char *text) {
  uint64_t sum = start;
  for (; *text != '\0'; text++) sum = (sum ^ (unsigned char)*text) * 1099511628211ULL; /* FNV-1a */
  return sum;
}

static bool is_new(const char *what, const char *more) {
  uint64_t key = hash((hash(14695981039346656037ULL, what) ^ 0xFFU) * 1099511628211ULL, more);
  if (key == 0) key = 1;
  size_t at = (size_t)(key % PLACES);
  for (; self.told[at] != 0; at = (at + 1) % PLACES)
    if (self.told[at] == key) return false;
  if (self.count == MOST_TOLD) {
    if (!self.lost) report_lost();
    self.lost = true;
    return false;
  }
  self.told[at] = key;
  self.count++;
  return true;
}

static void tell(const char *access, const char *path) {
  if (is_new(access, path)) report_file(access, path);
}

void seen_attempt(const char *what, int port) {
  char more[16];
  snprintf(more, sizeof more, "%d", port);
  if (is_new(what, more)) report_tried(what, port);
}

/* A text out of the caller's memory, never over the end of a page before its own end was looked for. */
bool seen_text(const struct broker *broker, const struct call *call, uint64_t from, char *into, size_t size) {
  for (size_t length = 0; length < size;) {
    size_t piece = 4096 - (size_t)((from + length) % 4096);
    if (piece > size - length) piece = size - length;
    if (target_memory(broker, call, from + length, into + length, piece) != 0) return false;
    if (memchr(into + length, '\0', piece) != NULL) return into[0] != '\0';
    length += piece;
  }
  return false;
}

/* What the caller means by a path, as a path that means the same here. */
static bool seen_from_here(const struct call *call, int directory, const char *path, char *into, size_t size) {
  static const char *const own[] = {"/proc/self", "/proc/thread-self"};
  int written = -1;
  for (size_t i = 0; i < 2 && written < 0; i++) {
    size_t length = strlen(own[i]);
    if (strncmp(path, own[i], length) == 0 && (path[length] == '/' || path[length] == '\0'))
      written = snprintf(into, size, "/proc/%d%s", (int)call->tid, path + length);
  }
  if (written >= 0) return (size_t)written < size;
  /* These lead to descriptors of whoever asks. */
  if (strncmp(path, "/dev/fd", 7) == 0 || strncmp(path, "/dev/std", 8) == 0) return false;
  if (path[0] == '/') written = snprintf(into, size, "%s", path);
  else if (directory == AT_FDCWD) written = snprintf(into, size, "/proc/%d/cwd/%s", (int)call->tid, path);
  else written = snprintf(into, size, "/proc/%d/fd/%d/%s", (int)call->tid, directory, path);
  return written > 0 && (size_t)written < size;
}

/* The path behind a descriptor, all links followed; false for what has none any more, or is no file. */
static bool real_path(int descriptor, char *into, size_t size) {
  char link[40];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = readlink(link, into, size - 1);
  if (length <= 0 || into[0] != '/') return false;
  into[length] = '\0';
  struct stat found;
  return fstat(descriptor, &found) == 0 && found.st_nlink > 0;
}

bool seen_may(int descriptor, int mode) {
  char link[40];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  return access(link, mode) == 0;
}

/* Files of a process are told as its own where they are: every process may use its own, if it is the first. */
void seen_file(const struct call *call, const char *access, const char *real) {
  if (strncmp(real, "/proc/", 6) != 0) {
    tell(access, real);
    return;
  }
  char *rest = NULL;
  const long pid = strtol(real + 6, &rest, 10);
  if (rest == real + 6 || (*rest != '/' && *rest != '\0')) {
    tell(access, real);
    return;
  }
  char status[1024], told[PATH_ROOM];
  const bool known = target_file(status, sizeof status, "/proc/%d/status", (int)call->tid) > 0;
  const pid_t process = known ? (pid_t)target_number(status, "Tgid:", 10) : -1;
  const bool own = pid == call->tid || pid == process || pid == getpid();
  if (own && process == self.child) return;
  snprintf(told, sizeof told, "/proc/%s%s", own ? "self" : "PID", rest);
  tell(access, told);
}

/* What stands at a path and is used through it. */
int seen_target(const struct call *call, int directory, const char *path, char *real, struct stat *found) {
  char here[PATH_ROOM];
  if (!seen_from_here(call, directory, path, here, sizeof here)) return -1;
  const int descriptor = open(here, O_PATH | O_CLOEXEC);
  if (descriptor < 0) return -1;
  if (fstat(descriptor, found) == 0 && real_path(descriptor, real, PATH_ROOM)) return descriptor;
  close(descriptor);
  errno = EINVAL;
  return -1;
}

/* An entry of a directory, which need not exist. False when its directory cannot be changed. */
bool seen_entry(const struct call *call, int directory, const char *path, char *real, bool *exists) {
  char here[PATH_ROOM];
  if (!seen_from_here(call, directory, path, here, sizeof here)) return false;
  size_t length = strlen(here);
  while (length > 1 && here[length - 1] == '/') here[--length] = '\0';
  char *name = strrchr(here, '/');
  if (name == NULL) return false;
  *name++ = '\0';
  if (*name == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) return false;
  const int parent = open(here[0] == '\0' ? "/" : here, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (parent < 0) return false;
  struct stat found;
  bool usable = real_path(parent, real, PATH_ROOM) && seen_may(parent, W_OK);
  *exists = fstatat(parent, name, &found, AT_SYMLINK_NOFOLLOW) == 0;
  close(parent);
  length = strlen(real);
  if (!usable || length + strlen(name) + 2 > PATH_ROOM) return false;
  if (length == 1) length = 0; /* the root directory */
  snprintf(real + length, PATH_ROOM - length, "/%s", name);
  return true;
}

/* The loader that an ELF program names; false for programs without one. */
static bool elf_loader(int file, const char *head, ssize_t size, char *into) {
  Elf64_Ehdr header;
  if (size < (ssize_t)sizeof header || memcmp(head, ELFMAG, SELFMAG) != 0 || head[EI_CLASS] != ELFCLASS64) return false;
  memcpy(&header, head, sizeof header);
  for (unsigned i = 0; i < header.e_phnum && i < 64; i++) {
    Elf64_Phdr part;
    if (pread(file, &part, sizeof part, (off_t)(header.e_phoff + (uint64_t)i * sizeof part)) != (ssize_t)sizeof part) return false;
    if (part.p_type != PT_INTERP) continue;
    if (part.p_filesz < 2 || part.p_filesz > PATH_MAX) return false;
    if (pread(file, into, part.p_filesz, (off_t)part.p_offset) != (ssize_t)part.p_filesz) return false;
    return into[part.p_filesz - 1] == '\0' && into[0] == '/';
  }
  return false;
}

/* What the kernel opens itself to run a file: the interpreter of a script, the loader of a program. */
bool seen_interpreter(const char *real, char *into) {
  const int file = open(real, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (file < 0) return false;
  char head[257];
  const ssize_t size = pread(file, head, sizeof head - 1, 0);
  bool found = false;
  if (size > 2 && head[0] == '#' && head[1] == '!') {
    head[size] = '\0';
    const char *start = head + 2 + strspn(head + 2, " \t");
    const size_t length = strcspn(start, " \t\n");
    found = length > 0 && start[0] == '/';
    if (found) snprintf(into, PATH_ROOM, "%.*s", (int)length, start);
  } else if (size > 0) {
    found = elf_loader(file, head, size, into);
  }
  close(file);
  return found;
}
