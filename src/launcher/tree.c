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
  pid_t parent, group;
  unsigned long long start;
};

static bool identify(const char *path, struct identity *found) {
  char stat[1024];
  if (read_small(AT_FDCWD, path, stat, sizeof stat) <= 0) return false;
  const char *behind = strrchr(stat, ')');
  return behind != NULL && sscanf(behind + 1, " %c %d %d %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu",
                                  &found->state, &found->parent, &found->group, &found->start) == 4;
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

/* What the busiest thread of a process is at. Who is in an uninterruptible wait stops, or dies, when that is over. */
enum motion { STOPPED, HELD, RUNNING };

static enum motion motion_of(char state) {
  if (state == 'R' || state == 'S') return RUNNING;
  return strchr("TtZX", state) != NULL ? STOPPED : HELD;
}

/* Children of all threads of `parent`: a thread that forked is the one that has them. `motion`, unless NULL, is of each
 * thread before its children were read. */
static size_t children_of(pid_t parent, pid_t *into, size_t most, enum motion *motion) {
  static char text[MOST_PIDS * 8];
  char path[320];
  if (motion != NULL) *motion = STOPPED;
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
    if (motion != NULL && identify(path, &thread) && motion_of(thread.state) > *motion) *motion = motion_of(thread.state);
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
  pid_t pid, group;
  unsigned long long start;
  bool direct; /* a child of this process */
  bool still;  /* it was stopped when its children were read: it has made no more since, unless somebody woke it */
};
static struct member members[MOST_PIDS];
static size_t member_count;

/* A bit for each number that a process can have. */
typedef unsigned char numbers[(1 << 22) / 8];
static numbers known, known_groups;

static bool has(const numbers set, pid_t number) { return (set[number / 8] >> (number % 8) & 1) != 0; }
static void add(numbers set, pid_t number) { set[number / 8] |= (unsigned char)(1 << number % 8); }

static void forget_members(void) {
  while (member_count > 0) {
    const struct member *member = &members[--member_count];
    known[member->pid / 8] = known_groups[member->group / 8] = 0;
  }
}

static void send_to(int process, int number) { syscall(NR_pidfd_send_signal, process, number, NULL, 0U); }

static int open_process(pid_t pid) { return (int)syscall(NR_pidfd_open, pid, 0U); }

/* A child of this process keeps its number until it is reaped here. Deeper ones are reaped by others, and their numbers may be
 * somebody else's at any time. So the descriptor comes first, then the look at who has the number now: is what the descriptor
 * stands for still there, it is what was looked at; else the signal goes nowhere. */
static void signal_member(const struct member *member, int number) {
  if (member->direct) {
    kill(member->pid, number);
    return;
  }
  struct identity now;
  int process = open_process(member->pid);
  if (process >= 0 && identify_pid(member->pid, &now) && now.start == member->start) send_to(process, number);
  if (process >= 0) close(process);
}

/* All at once, those included that are being made: a bomb makes thousands while they are stopped one by one. A server is in a
 * session of its own, whose groups nobody else can join. */
static void stop_group(pid_t group) {
  if (group <= 1 || group == getpgrp() || has(known_groups, group)) return;
  add(known_groups, group);
  kill(-group, SIGSTOP);
}

/* Stops and lists a child of `parent`, NULL for this process. False: it may not be stopped yet, or is no child any more.
 *
 * Looked at is also whether the parent is still who it was. Who was below once stays below: the reaper of orphans is this
 * process, or below it. */
static bool stop(pid_t pid, const struct member *parent) {
  struct identity own = {'?', 0, 0, 0}, above;
  int process = parent == NULL ? -1 : open_process(pid);
  bool seen = identify_pid(pid, &own);
  bool ours = parent == NULL || (process >= 0 && seen && own.parent == parent->pid && own.start >= parent->start &&
                                 identify_pid(parent->pid, &above) && above.start == parent->start);
  if (ours && own.state != 'T') stop_group(own.group);
  if (ours && own.state != 'T' && parent == NULL) kill(pid, SIGSTOP);
  if (ours && own.state != 'T' && parent != NULL) send_to(process, SIGSTOP);
  if (process >= 0) close(process);
  if (!ours) return false;
  members[member_count++] = (struct member){pid, own.group, own.start, parent == NULL, false};
  add(known, pid);
  return own.state == 'T';
}

/* True: all of these are stopped. */
static bool stop_children(const pid_t *pids, size_t count, const struct member *parent) {
  bool stopped = true;
  for (size_t i = 0; i < count; i++) {
    if (has(known, pids[i])) continue;
    if (member_count == MOST_PIDS) return false;
    if (!stop(pids[i], parent)) stopped = false;
  }
  return stopped;
}

/* Stops everybody from the top down and lists them, parents first. Those that were still are passed over, so that new ones
 * are found sooner than they are made; unless `all`, as somebody may have woken them, or left them a child. True: nobody runs. */
static bool stop_members(bool all) {
  static pid_t pids[MOST_PIDS];
  size_t met = member_count;
  bool stopped = stop_children(pids, children_of(getpid(), pids, MOST_PIDS, NULL), NULL);
  for (size_t at = 0; at < member_count; at++) {
    struct member *member = &members[at];
    if (member->still && !all) continue;
    enum motion motion;
    size_t found = children_of(member->pid, pids, MOST_PIDS, &motion);
    /* It was woken. */
    if (at < met && motion == RUNNING) signal_member(member, SIGSTOP);
    member->still = motion == STOPPED;
    if (motion == RUNNING) stopped = false;
    if (!stop_children(pids, found, member)) stopped = false;
  }
  return stopped;
}

/* True: nobody can run. */
static bool freeze(void) {
  uint64_t end = now_ms() + FREEZE_MS;
  forget_members();
  while (!stop_members(false) || !stop_members(true)) {
    if (now_ms() >= end) return false;
    sched_yield();
  }
  return true;
}

bool tree_kill(unsigned ms, pid_t child, int *status) {
  uint64_t end = now_ms() + ms;
  for (;;) {
    bool any = false;
    /* Who is killed one by one while others fork has new ones sooner than the next is found, and each death makes room under
     * the limit of processes. Members can wake each other for ever, so it is not waited for. */
    bool frozen = freeze();
    /* From the bottom up: the orphans of one that dies would be elsewhere in the tree than where they were found. */
    for (size_t i = member_count; i-- > 0;) signal_member(&members[i], SIGKILL);
    /* Without /proc nobody is listed. */
    if (member_count == 0 && child > 0) kill(child, SIGKILL);
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
    if (now_ms() >= end && frozen) return false;
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
