/* The processes below the supervisor. It is their subreaper, so whatever loses its parent becomes its own child. */
#include "launcher.h"
#include "sys.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST_PIDS 16384
/* How long one attempt to stop everybody may take: who is not stopped by then is killed while it runs. */
#define FREEZE_MS 250

/* What /proc/<pid>/stat says. `start`, in clock ticks since boot, tells a process from a later one with its number: numbers
 * do not come round within a tick. */
struct identity {
  char state;
  pid_t parent;
  unsigned long long start;
};

static bool identify(const char *path, struct identity *found) {
  char stat[1024];
  if (read_small(AT_FDCWD, path, stat, sizeof stat) <= 0) return false;
  const char *behind = strrchr(stat, ')');
  return behind != NULL && sscanf(behind + 1, " %c %d %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu",
                                  &found->state, &found->parent, &found->start) == 3;
}

static bool identify_pid(pid_t pid, struct identity *found) {
  char path[40];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  return identify(path, found);
}

/* Children of `parent` out of /proc/<pid>/stat of everybody: for kernels without CONFIG_PROC_CHILDREN. */
static size_t children_by_scan(pid_t parent, pid_t *into, size_t most) {
  DIR *proc = opendir("/proc");
  if (proc == NULL) return 0;
  size_t count = 0;
  const struct dirent *entry;
  while (count < most && (entry = readdir(proc)) != NULL) {
    struct identity found;
    if (!isdigit((unsigned char)entry->d_name[0])) continue;
    pid_t pid = atoi(entry->d_name);
    if (identify_pid(pid, &found) && found.parent == parent) into[count++] = pid;
  }
  closedir(proc);
  return count;
}

/* Children of all threads of `parent`: a thread that forked is the one that has them. `running`, unless NULL, becomes true
 * when one of the threads may still do something: it runs, or waits without being stopped. */
static size_t children_of(pid_t parent, pid_t *into, size_t most, bool *running) {
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
    struct identity thread;
    snprintf(path, sizeof path, "/proc/%d/task/%s/stat", parent, entry->d_name);
    /* In an uninterruptible wait it stops, or dies, when that is over. */
    if (running != NULL && identify(path, &thread) && (thread.state == 'R' || thread.state == 'S')) *running = true;
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

/* Somebody below, and that it is: `start` is of the process that was found to be one. */
struct member {
  pid_t pid;
  unsigned long long start;
};
static struct member members[MOST_PIDS];

static void send_to(int process, int number) { syscall(NR_pidfd_send_signal, process, number, NULL, 0U); }

static int open_process(pid_t pid) { return (int)syscall(NR_pidfd_open, pid, 0U); }

/* Stops a child of `parent`, NULL for this process, and fills `member`. False: it is none any more.
 *
 * A child of this process keeps its number until it is reaped here. Deeper ones are reaped by others, and their numbers may
 * be somebody else's at any time. So the descriptor comes first, then the look at who has the number now, and at whether
 * the parent is still who it was: is what the descriptor stands for still there, it is what was looked at; else the signal
 * goes nowhere. Who was below once stays below: the reaper of orphans is this process, or below it. */
static bool stop(pid_t pid, const struct member *parent, struct member *member) {
  struct identity own = {'?', 0, 0}, above;
  int process = parent == NULL ? -1 : open_process(pid);
  bool seen = identify_pid(pid, &own);
  bool ours = parent == NULL || (process >= 0 && seen && own.parent == parent->pid && own.start >= parent->start &&
                                 identify_pid(parent->pid, &above) && above.start == parent->start);
  if (ours && own.state != 'T' && parent == NULL) kill(pid, SIGSTOP);
  if (ours && own.state != 'T' && parent != NULL) send_to(process, SIGSTOP);
  if (process >= 0) close(process);
  *member = (struct member){pid, seen ? own.start : 0};
  return ours;
}

/* Stops everybody from the top down and lists them, parents first: a stopped process makes no more. `direct`: so many, at the
 * start of the list, are children of this process. `running`: somebody may not have been stopped yet, or is not listed. */
static size_t stop_all(size_t *direct, bool *running) {
  static pid_t pids[MOST_PIDS];
  size_t count = 0, found = children_of(getpid(), pids, MOST_PIDS, NULL);
  for (size_t i = 0; i < found; i++) stop(pids[i], NULL, &members[count++]);
  *direct = count;
  *running = false;
  for (size_t at = 0; at < count; at++) {
    struct member parent = members[at];
    found = children_of(parent.pid, pids, MOST_PIDS, running);
    for (size_t i = 0; i < found && count < MOST_PIDS; i++)
      if (stop(pids[i], &parent, &members[count])) count++;
  }
  *running = *running || count == MOST_PIDS;
  return count;
}

/* From the bottom up: the orphans of one that dies would be elsewhere in the tree than where they were found. */
static void kill_all(size_t count, size_t direct) {
  while (count-- > direct) {
    struct identity now;
    int process = open_process(members[count].pid);
    if (process >= 0 && identify_pid(members[count].pid, &now) && now.start == members[count].start) send_to(process, SIGKILL);
    if (process >= 0) close(process);
  }
  for (size_t i = 0; i < direct; i++) kill(members[i].pid, SIGKILL);
}

bool tree_kill(unsigned ms, pid_t child, int *status) {
  uint64_t end = now_ms() + ms;
  for (;;) {
    size_t count, direct;
    bool running, any = false;
    /* Who is killed one by one while others fork has new ones sooner than the next is found, and each death makes room under
     * the limit of processes. Members can wake each other for ever, so it is not waited for. */
    uint64_t freeze_end = now_ms() + FREEZE_MS;
    do {
      count = stop_all(&direct, &running);
      if (running) sched_yield();
    } while (running && now_ms() < freeze_end);
    kill_all(count, direct);
    /* Without /proc nobody is listed. */
    if (count == 0 && child > 0) kill(child, SIGKILL);
    pid_t reaped;
    int ended = 0;
    while ((reaped = waitpid(-1, &ended, WNOHANG | __WALL)) > 0) {
      any = true;
      if (reaped != child) continue;
      *status = ended;
      child = 0;
    }
    if (reaped < 0 && errno == ECHILD) return true;
    /* Left are those that the kernel holds in a wait, killed already. Who can still run is not left alone. */
    if (now_ms() >= end && !running) return false;
    if (!any) nanosleep(&(struct timespec){0, 200000}, NULL);
  }
}

static uint64_t number_of(const char *status, const char *name) {
  const char *line = strstr(status, name);
  return line == NULL ? 0 : strtoull(line + strlen(name), NULL, 10);
}

/* The status of a process, with its memory. False: it is gone. A first thread that ended has none, while the others go on. */
static bool read_status(pid_t pid, char *status, size_t size) {
  char path[320];
  snprintf(path, sizeof path, "/proc/%d/status", pid);
  if (read_small(AT_FDCWD, path, status, size) <= 0) return false;
  if (number_of(status, "\nThreads:") <= 1 || strstr(status, "\nVmPTE:") != NULL) return true;
  snprintf(path, sizeof path, "/proc/%d/task", pid);
  DIR *tasks = opendir(path);
  const struct dirent *entry;
  while (tasks != NULL && (entry = readdir(tasks)) != NULL) {
    snprintf(path, sizeof path, "/proc/%d/task/%s/status", pid, entry->d_name);
    if (isdigit((unsigned char)entry->d_name[0]) && read_small(AT_FDCWD, path, status, size) > 0 && strstr(status, "\nVmPTE:") != NULL) break;
  }
  if (tasks != NULL) closedir(tasks);
  return true;
}

/* Threads of one process, and its memory in bytes: what is its own, wherever it lies, and the tables that it needs. Pages of
 * files are the kernel's to take back. */
static void add_size(pid_t pid, struct tree_size *size) {
  static const char *const parts[] = {"\nRssAnon:", "\nRssShmem:", "\nVmPTE:", "\nVmSwap:", "\nHugetlbPages:"};
  /* A user may be in thousands of groups, which come first. */
  static char status[256 * 1024];
  if (!read_status(pid, status, sizeof status)) return;
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) size->memory += number_of(status, parts[i]) * 1024;
  size->threads += number_of(status, "\nThreads:");
}

struct tree_size tree_measure(void) {
  static pid_t queue[MOST_PIDS];
  struct tree_size size = {0, 0, 0};
  size_t count = children_of(getpid(), queue, MOST_PIDS, NULL);
  for (size_t at = 0; at < count; at++) {
    add_size(queue[at], &size);
    count += children_of(queue[at], queue + count, MOST_PIDS - count, NULL);
  }
  size.processes = count;
  return size;
}
