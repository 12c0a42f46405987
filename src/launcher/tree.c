/* The processes below the supervisor. It is their subreaper, so whatever loses its parent becomes its own child. */
#include "launcher.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST_PIDS 16384

/* Children of `parent` out of /proc/<pid>/stat of everybody: for kernels without CONFIG_PROC_CHILDREN. */
static size_t children_by_scan(pid_t parent, pid_t *into, size_t most) {
  DIR *proc = opendir("/proc");
  if (proc == NULL) return 0;
  size_t count = 0;
  const struct dirent *entry;
  while (count < most && (entry = readdir(proc)) != NULL) {
    if (!isdigit((unsigned char)entry->d_name[0])) continue;
    char path[300], stat[512];
    snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
    if (read_small(AT_FDCWD, path, stat, sizeof stat) <= 0) continue;
    const char *behind = strrchr(stat, ')');
    int found = 0;
    if (behind != NULL && sscanf(behind + 1, " %*c %d", &found) == 1 && found == parent) into[count++] = atoi(entry->d_name);
  }
  closedir(proc);
  return count;
}

/* Children of all threads of `parent`: a thread that forked is the one that has them. */
static size_t children_of(pid_t parent, pid_t *into, size_t most) {
  static char text[MOST_PIDS * 8];
  char path[320];
  snprintf(path, sizeof path, "/proc/%d/task", parent);
  DIR *tasks = opendir(path);
  if (tasks == NULL) return 0;
  size_t count = 0;
  bool known = true;
  const struct dirent *entry;
  while ((entry = readdir(tasks)) != NULL) {
    if (!isdigit((unsigned char)entry->d_name[0])) continue;
    snprintf(path, sizeof path, "/proc/%d/task/%s/children", parent, entry->d_name);
    if (read_small(AT_FDCWD, path, text, sizeof text) < 0) {
      known = errno != ENOENT;
      continue;
    }
    char *at = text;
    for (long pid; count < most && (pid = strtol(at, &at, 10)) > 0;) into[count++] = (pid_t)pid;
  }
  closedir(tasks);
  if (!known && access("/proc/self/task", F_OK) == 0 && access("/proc/thread-self/children", F_OK) != 0)
    return children_by_scan(parent, into, most);
  return count;
}

bool tree_kill(unsigned ms, pid_t child, int *status) {
  static pid_t pids[MOST_PIDS];
  uint64_t end = now_ms() + ms;
  for (;;) {
    /* Only direct children: until they are reaped here, their pids cannot become anybody else's. */
    size_t count = children_of(getpid(), pids, MOST_PIDS);
    for (size_t i = 0; i < count; i++) kill(pids[i], SIGKILL);
    pid_t reaped;
    bool any = false;
    int ended = 0;
    while ((reaped = waitpid(-1, &ended, WNOHANG | __WALL)) > 0) {
      any = true;
      if (reaped == child) *status = ended;
    }
    if (reaped < 0 && errno == ECHILD) return true;
    if (now_ms() >= end) return false;
    if (!any) nanosleep(&(struct timespec){0, 200000}, NULL);
  }
}

/* Private and shared memory of one process, in bytes; pages of files are the kernel's to take back. */
static uint64_t rss_of(pid_t pid) {
  char path[64], status[4096];
  snprintf(path, sizeof path, "/proc/%d/status", pid);
  if (read_small(AT_FDCWD, path, status, sizeof status) <= 0) return 0;
  unsigned long long anonymous = 0, shared = 0;
  const char *line = strstr(status, "\nRssAnon:");
  if (line != NULL) sscanf(line + 9, "%llu", &anonymous);
  line = strstr(status, "\nRssShmem:");
  if (line != NULL) sscanf(line + 10, "%llu", &shared);
  return (anonymous + shared) * 1024;
}

struct tree_size tree_measure(void) {
  static pid_t queue[MOST_PIDS];
  struct tree_size size = {0, 0};
  size_t count = children_of(getpid(), queue, MOST_PIDS);
  for (size_t at = 0; at < count; at++) {
    size.rss += rss_of(queue[at]);
    count += children_of(queue[at], queue + count, MOST_PIDS - count);
  }
  size.processes = count;
  return size;
}
