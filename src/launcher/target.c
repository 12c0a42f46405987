/* Looks into a thread that waits in a call. After each look the call must still wait: only then was the number that the
 * kernel gave us that of the same thread all the time. What is read is the broker's copy; the caller may change the original
 * as it likes. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "broker_parts.h"

int target_memory(const struct broker *broker, const struct call *call, uint64_t from, void *into, size_t length) {
  const struct iovec here = {.iov_base = into, .iov_len = length};
  const struct iovec there = {.iov_base = (void *)(uintptr_t)from, .iov_len = length};
  const ssize_t size = process_vm_readv(call->tid, &here, 1, &there, 1, 0);
  if (!broker_waits(broker, call)) return CALLER_GONE;
  /* A bad pointer, or a process that made itself undumpable. */
  return size == (ssize_t)length ? 0 : EACCES;
}

ssize_t target_file(char *into, size_t size, const char *format, ...) {
  char path[64];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(path, sizeof path, format, arguments);
  va_end(arguments);
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return -1;
  const ssize_t length = read(file, into, size - 1);
  close(file);
  if (length < 0) return -1;
  into[length] = '\0';
  return length;
}

long target_number(const char *text, const char *key, int base) {
  const size_t length = strlen(key);
  for (const char *line = text; line != NULL && *line != '\0';) {
    if (strncmp(line, key, length) == 0) return strtol(line + length, NULL, base);
    line = strchr(line, '\n');
    if (line != NULL) line++;
  }
  return -1;
}

/* Kind of a socket by the name of its protocol, which sockfs shows as an attribute. */
static enum socket_kind kind_of(const char *path) {
  char name[32];
  const ssize_t length = getxattr(path, "system.sockprotoname", name, sizeof name - 1);
  if (length <= 0) return errno == ERANGE ? SOCKET_OTHER : SOCKET_UNKNOWN;
  name[length] = '\0';
  if (strcmp(name, "TCP") == 0) return SOCKET_TCP4;
  if (strcmp(name, "TCPv6") == 0) return SOCKET_TCP6;
  if (strcmp(name, "NETLINK") == 0) return SOCKET_NETLINK;
  return SOCKET_OTHER;
}

/* `pinned` is an O_PATH descriptor: whatever the caller does to its table, the questions are about one and the same file. */
static int examine(int pinned, struct caller_socket *socket) {
  char path[32];
  char link[16];
  snprintf(path, sizeof path, "/proc/self/fd/%d", pinned);
  /* The link comes first and asks no file system: a file of a dead server must not hold up everybody. */
  const ssize_t length = readlink(path, link, sizeof link);
  if (length < 8 || strncmp(link, "socket:[", 8) != 0) return ENOTSOCK;
  struct stat facts;
  if (fstat(pinned, &facts) != 0) return EACCES;
  socket->inode = facts.st_ino;
  socket->installed = (facts.st_mode & 0777) == (S_IRUSR | S_IWUSR);
  socket->kind = kind_of(path);
  return 0;
}

static int look(pid_t tid, int descriptor, struct caller_socket *socket) {
  if (descriptor < 0) return EBADF;
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)tid, descriptor);
  const int pinned = open(path, O_PATH | O_CLOEXEC);
  if (pinned < 0) return errno == ENOENT ? EBADF : errno == EMFILE || errno == ENFILE ? EAGAIN : EACCES;
  const int error = examine(pinned, socket);
  close(pinned);
  if (error != 0) return error;
  char info[256];
  if (target_file(info, sizeof info, "/proc/%d/fdinfo/%d", (int)tid, descriptor) < 0) return EBADF;
  const long flags = target_number(info, "flags:", 8);
  if (flags < 0) return EACCES;
  socket->flags = (int)flags & (O_NONBLOCK | O_CLOEXEC);
  return 0;
}

int target_socket(const struct broker *broker, const struct call *call, int descriptor, struct caller_socket *socket) {
  const int error = look(call->tid, descriptor, socket);
  return broker_waits(broker, call) ? error : CALLER_GONE;
}

int target_same(const struct broker *broker, const struct call *call, int descriptor, const struct caller_socket *socket) {
  char path[64], link[32], expected[32];
  snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)call->tid, descriptor);
  const ssize_t length = readlink(path, link, sizeof link - 1);
  const int wanted = snprintf(expected, sizeof expected, "socket:[%llu]", (unsigned long long)socket->inode);
  if (length == wanted && memcmp(link, expected, (size_t)wanted) == 0) return broker_waits(broker, call) ? 0 : CALLER_GONE;
  struct caller_socket now;
  const int found = target_socket(broker, call, descriptor, &now);
  if (found != 0) return found == ENOTSOCK ? EBADF : found;
  return now.installed ? EISCONN : EBADF;
}

int target_pidfd(const struct broker *broker, const struct call *call, int descriptor, pid_t *pid) {
  char info[512];
  ssize_t length = -1;
  if (descriptor >= 0) length = target_file(info, sizeof info, "/proc/%d/fdinfo/%d", (int)call->tid, descriptor);
  if (!broker_waits(broker, call)) return CALLER_GONE;
  if (length < 0 || strstr(info, "\nPid:") == NULL) return EBADF;
  *pid = (pid_t)target_number(info, "Pid:", 10);
  return *pid > 0 ? 0 : ESRCH;
}
