/* Mode `serve`: a unix socket; each connection gets one process of its own (relay.c), so a crash affects one connection.
 * Only the sidecar may connect: by its uid, and by its pid, which is 0 here when it lives in another PID namespace. */
#include "relay.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sys.h"

#define MOST_CONNECTIONS 256

static struct serving {
  const char *path;
  uid_t uid;
  bool shared_pids;
  size_t most;
  struct floor floor;
  pid_t relays[MOST_CONNECTIONS];
  size_t count;
} serving;

static bool read_floor(const char *list, struct floor *floor) {
  while (*list != '\0') {
    size_t length = strcspn(list, ",");
    if (length == 8 && strncmp(list, "landlock", length) == 0) floor->landlock = true;
    else if (length == 7 && strncmp(list, "seccomp", length) == 0) floor->seccomp = true;
    else if (length == 6 && strncmp(list, "broker", length) == 0) floor->broker = true;
    else return false;
    list += length + (list[length] == ',' ? 1U : 0U);
  }
  return true;
}

static bool read_number(const char *text, unsigned long most, unsigned long *value) {
  char *end = NULL;
  if (text[0] < '0' || text[0] > '9') return false;
  errno = 0;
  *value = strtoul(text, &end, 10);
  return errno == 0 && *end == '\0' && *value <= most;
}

static bool read_options(int count, char **words) {
  serving.uid = geteuid();
  serving.most = 64;
  for (int i = 0; i < count; i++) {
    unsigned long value = 0;
    const char *next = i + 1 < count ? words[i + 1] : NULL;
    if (strcmp(words[i], "--shared-pid-namespace") == 0) {
      serving.shared_pids = true;
      continue;
    }
    if (next == NULL) return false;
    i++;
    if (strcmp(words[i - 1], "--socket") == 0) serving.path = next;
    else if (strcmp(words[i - 1], "--uid") == 0 && read_number(next, 0xFFFFFFFEUL, &value)) serving.uid = (uid_t)value;
    else if (strcmp(words[i - 1], "--max-connections") == 0 && read_number(next, MOST_CONNECTIONS, &value) && value > 0) serving.most = value;
    else if (strcmp(words[i - 1], "--require") == 0 && read_floor(next, &serving.floor)) continue;
    else return false;
  }
  return serving.path != NULL && serving.path[0] == '/';
}

/* A socket that nobody listens on any more is left from before; anything else at its place is not ours to remove. */
static bool clear_place(const struct sockaddr_un *address) {
  struct stat found;
  if (lstat(address->sun_path, &found) != 0) return errno == ENOENT;
  if (!S_ISSOCK(found.st_mode)) return false;
  int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  bool dead = probe >= 0 && connect(probe, (const struct sockaddr *)address, sizeof *address) != 0 && errno == ECONNREFUSED;
  if (probe >= 0) close(probe);
  return dead && unlink(address->sun_path) == 0;
}

/* It comes to its place listening: who finds it there can connect, and the next launcher does not take it for one left from before. */
static int open_socket(void) {
  struct sockaddr_un place = {.sun_family = AF_UNIX}, first = {.sun_family = AF_UNIX};
  const int folder = (int)(strrchr(serving.path, '/') - serving.path);
  const int beside = snprintf(first.sun_path, sizeof first.sun_path, "%.*s/.%d", folder, serving.path, getpid());
  if (strlen(serving.path) >= sizeof place.sun_path || beside >= (int)sizeof first.sun_path) {
    complain("serve: socket path above %zu bytes, or its folder above 98", sizeof place.sun_path - 1);
    return -1;
  }
  strcpy(place.sun_path, serving.path);
  if (!clear_place(&place) || !clear_place(&first)) {
    complain("serve: %s is in use", serving.path);
    return -1;
  }
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  mode_t before = umask(0117);
  bool listens = listener >= 0 && bind(listener, (struct sockaddr *)&first, sizeof first) == 0 && listen(listener, 64) == 0;
  umask(before);
  /* Not every file system has links; a rename would take the place of another's socket. */
  bool placed = listens && (link(first.sun_path, place.sun_path) == 0 || (errno != EEXIST && rename(first.sun_path, place.sun_path) == 0));
  int error = errno;
  if (listens) unlink(first.sun_path);
  if (placed) return listener;
  complain("serve: %s: %s", serving.path, strerror(error));
  return -1;
}

/* Whether `pid` is below this process: then it belongs to a server, which has no business here. */
static bool descends(pid_t pid) {
  for (int depth = 0; pid > 1 && depth < 1024; depth++) {
    if (pid == getpid()) return true;
    char path[40], stat[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    if (read_small(AT_FDCWD, path, stat, sizeof stat) <= 0) return true;
    const char *behind = strrchr(stat, ')');
    int parent = 0;
    if (behind == NULL || sscanf(behind + 1, " %*c %d", &parent) != 1) return true;
    pid = parent;
  }
  return pid == getpid();
}

static bool welcome(int connection) {
  struct {
    pid_t pid;
    uid_t uid;
    gid_t gid;
  } peer = {-1, (uid_t)-1, (gid_t)-1};
  socklen_t length = sizeof peer;
  if (getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0 || length != sizeof peer) return false;
  const char *why = NULL;
  if (peer.uid != serving.uid) why = "its uid is not the sidecar's";
  else if (peer.pid != 0 && !serving.shared_pids) why = "it is a process of this container";
  else if (peer.pid != 0 && descends(peer.pid)) why = "it belongs to a server";
  else if (serving.count >= serving.most) why = "there are too many connections";
  if (why != NULL) complain("serve: connection of pid %d, uid %u refused: %s", peer.pid, peer.uid, why);
  return why == NULL;
}

static void take(int listener, int signals) {
  int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (connection < 0) return;
  if (welcome(connection)) {
    pid_t parent = getpid(), relay = fork();
    if (relay == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
      if (getppid() != parent) _exit(EXIT_REFUSED);
      close(listener);
      close(signals);
      relay_run(connection, &serving.floor);
    }
    if (relay > 0) serving.relays[serving.count++] = relay;
    else complain("serve: fork: %s", strerror(errno));
  }
  close(connection);
}

static void reap(void) {
  for (pid_t pid; (pid = waitpid(-1, NULL, WNOHANG)) > 0;)
    for (size_t i = 0; i < serving.count; i++)
      if (serving.relays[i] == pid) {
        serving.relays[i] = serving.relays[--serving.count];
        break;
      }
}

int serve_mode(int count, char **words) {
  if (!read_options(count, words)) {
    complain("usage: serve --socket /PATH [--uid N] [--require landlock,seccomp,broker] [--max-connections N] [--shared-pid-namespace]");
    return EXIT_BAD_INPUT;
  }
  if (syscall(NR_close_range, 3U, ~0U, 0U) != 0) {
    complain("serve: close_range: %s", strerror(errno));
    return EXIT_REFUSED;
  }
  int listener = open_socket();
  if (listener < 0) return EXIT_REFUSED;
  static char program[PATH_MAX];
  ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
  if (length > 0) serving.floor.own[serving.floor.own_count++] = program;
  serving.floor.own[serving.floor.own_count++] = serving.path;
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, NULL);
  int signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
  bool stopping = false;
  while (!stopping || serving.count > 0) {
    struct pollfd ready[2] = {{signals, POLLIN, 0}, {stopping ? -1 : listener, POLLIN, 0}};
    if (poll(ready, 2, -1) < 0 && errno != EINTR) break;
    struct signalfd_siginfo found;
    while (read(signals, &found, sizeof found) == (ssize_t)sizeof found) {
      if (found.ssi_signo == SIGCHLD) reap();
      if (found.ssi_signo != SIGTERM && found.ssi_signo != SIGINT) continue;
      stopping = true;
      unlink(serving.path);
      for (size_t i = 0; i < serving.count; i++) kill(serving.relays[i], SIGTERM);
    }
    if (!stopping && ready[1].revents != 0) take(listener, signals);
  }
  return 0;
}
