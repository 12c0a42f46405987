/* One connection of mode `serve`: frames on the socket, pipes to one supervisor and its server.
 * A frame: type, length (4 bytes, big-endian, at most 64 KiB), payload.
 *   to here   P policy, once and first; I stdin; C end of stdin; K signal: one byte, SIGTERM, SIGINT or SIGKILL
 *   from here R report or refusal, O stdout (empty: its end), E stderr, X exit; R and X as the lines of mode `exec`
 * What is not sent yet stops the reading of the pipes; stdin that is not taken stops the reading of the socket, also of a K
 * behind it. The end of the connection is seen all the same: it is a SIGTERM, and after the grace time the end of the tree. */
#include "relay.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sys.h"

#define HEADER 5
#define PAYLOAD (64 * 1024)
#define POLICY_MS 10000
#define LINGER_MS 2000

enum source { STATUS, OUT, ERR, SOURCES };

static struct relay {
  int connection; /* -1: gone */
  int input;      /* to the server's stdin; -1: closed */
  int sources[SOURCES];
  int signals;
  pid_t supervisor;
  bool ended; /* the supervisor */
  int exit_status;
  bool exit_told;
  /* from the socket: a frame that is being read; its payload may wait for the stdin pipe */
  unsigned char in[HEADER + PAYLOAD];
  size_t in_length;
  size_t in_written;
  bool stalled; /* a whole frame waits for the stdin pipe */
  /* to the socket */
  unsigned char out[HEADER + PAYLOAD];
  size_t out_length;
  size_t out_sent;
  char status[PAYLOAD];
  size_t status_length;
} relay;

static struct policy policy;

static uint32_t frame_size(const unsigned char *frame) {
  return (uint32_t)frame[1] << 24 | (uint32_t)frame[2] << 16 | (uint32_t)frame[3] << 8 | frame[4];
}

static void put_frame(char type, size_t length) {
  relay.out[0] = (unsigned char)type;
  for (int i = 0; i < 4; i++) relay.out[1 + i] = (unsigned char)(length >> (24 - 8 * i));
  relay.out_length = HEADER + length;
  relay.out_sent = 0;
}

static void put_text(char type, const char *text, size_t length) {
  memcpy(relay.out + HEADER, text, length);
  put_frame(type, length);
}

/* The sidecar is gone, or does not keep to the frames. */
static void hang_up(void) {
  if (relay.connection < 0) return;
  close(relay.connection);
  relay.connection = -1;
  relay.out_length = relay.out_sent = 0;
  if (relay.input >= 0) close(relay.input);
  relay.input = -1;
  if (relay.supervisor > 0 && !relay.ended) kill(relay.supervisor, SIGTERM);
}

/* Reads on until a frame is whole. False: not yet, or gone. */
static bool read_frame(void) {
  for (;;) {
    size_t want = HEADER;
    if (relay.in_length >= HEADER) {
      uint32_t size = frame_size(relay.in);
      if (size > PAYLOAD) {
        hang_up();
        return false;
      }
      want += size;
      if (relay.in_length == want) return true;
    }
    ssize_t got = read(relay.connection, relay.in + relay.in_length, want - relay.in_length);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return false;
    if (got <= 0) {
      hang_up();
      return false;
    }
    relay.in_length += (size_t)got;
  }
}

/* Closing a socket that holds something unread resets the connection: what was said last would be lost with it. */
_Noreturn static void leave(int exit_code) {
  uint64_t end = now_ms() + LINGER_MS;
  if (relay.connection < 0 || shutdown(relay.connection, SHUT_WR) != 0) _exit(exit_code);
  for (uint64_t now = now_ms(); now < end; now = now_ms()) {
    struct pollfd ready = {relay.connection, POLLIN, 0};
    if (poll(&ready, 1, (int)(end - now)) < 0 && errno != EINTR) break;
    ssize_t got = read(relay.connection, relay.in, sizeof relay.in);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) break;
  }
  _exit(exit_code);
}

/* Before there is a supervisor: everything is sent at once, and the connection ends. */
_Noreturn static void turn_away(const char *reason) {
  status_descriptor = -1;
  complain("serve: %s", reason);
  char line[700] = "{\"event\":\"refused\",\"mechanism\":\"policy\",\"reason\":\"";
  size_t length = strlen(line);
  for (const char *at = reason; *at != '\0' && length < 600; at++) {
    if (*at == '"' || *at == '\\') line[length++] = '\\';
    line[length++] = (unsigned char)*at < 0x20 ? '?' : *at;
  }
  memcpy(line + length, "\",\"wayOut\":\"\"}", 15);
  put_text('R', line, length + 14);
  write_all(relay.connection, relay.out, relay.out_length);
  leave(EXIT_BAD_INPUT);
}

static void read_first(const struct floor *floor) {
  static char text[POLICY_BYTES + 1];
  uint64_t end = now_ms() + POLICY_MS;
  while (!read_frame()) {
    uint64_t now = now_ms();
    struct pollfd ready = {relay.connection, POLLIN, 0};
    if (relay.connection < 0 || now >= end) _exit(EXIT_BAD_INPUT);
    poll(&ready, 1, (int)(end - now));
  }
  if (relay.in[0] != 'P') turn_away("the first frame is not a policy");
  size_t length = relay.in_length - HEADER;
  memcpy(text, relay.in + HEADER, length);
  explicit_bzero(relay.in, relay.in_length);
  relay.in_length = 0;
  char problem[512];
  if (!policy_read(&policy, text, length, true, problem, sizeof problem)) turn_away(problem);
  for (size_t i = 0; i < floor->own_count; i++) policy.readonly[policy.readonly_count++] = floor->own[i];
  if (floor->landlock && policy.fs == FS_OPEN) turn_away("this launcher requires landlock: fs confined or all");
  if (floor->seccomp && !policy.filter) turn_away("this launcher requires seccomp: filter on");
  if (floor->broker && policy.net != NET_BROKER && policy.net != NET_NONE) turn_away("this launcher requires the broker: net broker or none");
}

_Noreturn static void supervisor_run(int in, int out, int err, int status, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGPWR, 0, 0, 0);
  if (getppid() != parent) _exit(EXIT_REFUSED);
  /* Above the numbers that they go to, so that none is overwritten before it was moved. */
  int from[4] = {fcntl(in, F_DUPFD, 10), fcntl(out, F_DUPFD, 10), fcntl(err, F_DUPFD, 10), fcntl(status, F_DUPFD, 10)};
  const int to[4] = {0, 1, 2, 4};
  for (int i = 0; i < 4; i++)
    if (from[i] < 0 || dup2(from[i], to[i]) < 0) _exit(EXIT_REFUSED);
  close(3);
  syscall(NR_close_range, 5U, ~0U, 0U);
  fcntl(4, F_SETFD, FD_CLOEXEC);
  status_descriptor = 4;
  _exit(supervise(&policy, policy.arguments, policy.environment));
}

static void start(void) {
  int in[2], out[2], err[2], status[2];
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0 || pipe2(status, O_CLOEXEC) != 0)
    turn_away("no pipes");
  pid_t parent = getpid();
  relay.supervisor = fork();
  if (relay.supervisor == 0) supervisor_run(in[0], out[1], err[1], status[1], parent);
  if (relay.supervisor < 0) turn_away("no process");
  explicit_bzero(policy.token, sizeof policy.token);
  close(in[0]);
  close(out[1]);
  close(err[1]);
  close(status[1]);
  relay.input = in[1];
  relay.sources[STATUS] = status[0];
  relay.sources[OUT] = out[0];
  relay.sources[ERR] = err[0];
  fcntl(relay.input, F_SETFL, O_NONBLOCK);
  for (int i = 0; i < SOURCES; i++) fcntl(relay.sources[i], F_SETFL, O_NONBLOCK);
}

static void close_input(void) {
  if (relay.input >= 0) close(relay.input);
  relay.input = -1;
}

/* A whole frame of the sidecar; stays where it is while the stdin pipe is full. */
static void handle_frame(void) {
  size_t end = relay.in_length;
  bool good = true;
  switch (relay.in[0]) {
    case 'I':
      while (relay.input >= 0 && HEADER + relay.in_written < end) {
        ssize_t written = write(relay.input, relay.in + HEADER + relay.in_written, end - HEADER - relay.in_written);
        if (written > 0) relay.in_written += (size_t)written;
        else if (written < 0 && errno == EAGAIN) {
          relay.stalled = true;
          return;
        } else if (written < 0 && errno != EINTR) close_input();
      }
      break;
    case 'C':
      close_input();
      break;
    case 'K':
      good = end == HEADER + 1 && (relay.in[HEADER] == SIGTERM || relay.in[HEADER] == SIGINT || relay.in[HEADER] == SIGKILL);
      /* The supervisor outlives the kill: it says how the server ended. */
      if (good && !relay.ended) kill(relay.supervisor, relay.in[HEADER] == SIGKILL ? SIGQUIT : relay.in[HEADER]);
      break;
    default:
      good = false;
  }
  relay.in_length = relay.in_written = 0;
  relay.stalled = false;
  if (!good) hang_up();
}

static void flush_out(void) {
  while (relay.connection >= 0 && relay.out_sent < relay.out_length) {
    ssize_t sent = send(relay.connection, relay.out + relay.out_sent, relay.out_length - relay.out_sent, MSG_NOSIGNAL);
    if (sent > 0) relay.out_sent += (size_t)sent;
    else if (sent < 0 && errno == EAGAIN) return;
    else if (sent < 0 && errno != EINTR) hang_up();
  }
  relay.out_length = relay.out_sent = 0;
}

/* One whole line of the supervisor becomes a frame. The exit waits until all output was sent. */
static void status_frame(bool exit_too) {
  const char *end = memchr(relay.status, '\n', relay.status_length);
  if (end == NULL || relay.out_length > 0) return;
  size_t length = (size_t)(end - relay.status);
  static const char exit_start[] = "{\"event\":\"exit\"";
  bool is_exit = length >= sizeof exit_start - 1 && memcmp(relay.status, exit_start, sizeof exit_start - 1) == 0;
  if (is_exit && !exit_too) return;
  relay.exit_told = relay.exit_told || is_exit;
  if (relay.connection >= 0) put_text(is_exit ? 'X' : 'R', relay.status, length);
  memmove(relay.status, end + 1, relay.status_length - length - 1);
  relay.status_length -= length + 1;
}

static void close_source(enum source source) {
  close(relay.sources[source]);
  relay.sources[source] = -1;
}

static void read_source(enum source source) {
  bool status = source == STATUS;
  void *into = status ? (void *)(relay.status + relay.status_length) : (void *)(relay.out + HEADER);
  size_t room = status ? sizeof relay.status - relay.status_length : PAYLOAD;
  if (room == 0) return;
  ssize_t got = read(relay.sources[source], into, room);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    close_source(source);
    /* It can say no more, but may still live. */
    if (source == OUT && relay.connection >= 0) put_frame('O', 0);
  }
  else if (status) relay.status_length += (size_t)got;
  /* Without a connection the server still runs for its grace time: its output goes nowhere, but does not block it. */
  else if (relay.connection >= 0) put_frame(source == OUT ? 'O' : 'E', (size_t)got);
}

static void read_signals(void) {
  struct signalfd_siginfo found;
  while (read(relay.signals, &found, sizeof found) == (ssize_t)sizeof found) {
    if (found.ssi_signo == SIGTERM) hang_up();
    if (found.ssi_signo != SIGCHLD) continue;
    if (waitpid(relay.supervisor, &relay.exit_status, WNOHANG) == relay.supervisor) relay.ended = true;
  }
}

/* Sources in their order while there is room for one frame. True: something was read. */
static bool read_sources(void) {
  for (int i = 0; i < SOURCES && relay.out_length == 0; i++) {
    struct pollfd ready = {relay.sources[i], POLLIN, 0};
    if (relay.sources[i] < 0 || poll(&ready, 1, 0) != 1) continue;
    read_source((enum source)i);
    if (i == STATUS) status_frame(false);
    return true;
  }
  return false;
}

/* A supervisor that could not say it: it was killed, or refused. */
static void tell_exit(void) {
  status_frame(true);
  if (relay.exit_told || relay.out_length > 0 || relay.connection < 0) return;
  relay.exit_told = true;
  char line[80];
  int code = WIFEXITED(relay.exit_status) ? WEXITSTATUS(relay.exit_status) : EXIT_REFUSED;
  int length = snprintf(line, sizeof line, "{\"event\":\"exit\",\"code\":%d,\"unclean\":%s}", code, WIFEXITED(relay.exit_status) ? "false" : "true");
  put_text('X', line, (size_t)length);
}

static void wait_for_something(void) {
  bool blocked = relay.out_length > 0, waiting = relay.stalled && relay.input >= 0;
  struct pollfd ready[SOURCES + 3] = {
      {relay.signals, POLLIN, 0},
      {relay.connection, (short)(POLLRDHUP | (waiting ? 0 : POLLIN) | (blocked ? POLLOUT : 0)), 0},
      {waiting ? relay.input : -1, POLLOUT, 0},
  };
  for (int i = 0; i < SOURCES; i++) ready[3 + i] = (struct pollfd){blocked ? -1 : relay.sources[i], POLLIN, 0};
  poll(ready, SOURCES + 3, -1);
  if ((ready[1].revents & (POLLHUP | POLLERR | POLLRDHUP)) != 0 && (ready[1].revents & POLLIN) == 0) hang_up();
}

void relay_run(int connection, const struct floor *floor) {
  relay.connection = connection;
  relay.input = -1;
  setsid();
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, NULL);
  relay.signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
  read_first(floor);
  start();
  for (bool more = false;;) {
    if (!more) wait_for_something();
    read_signals();
    flush_out();
    if (relay.stalled) handle_frame();
    while (relay.connection >= 0 && !relay.stalled && read_frame()) handle_frame();
    more = relay.out_length == 0 && read_sources();
    flush_out();
    if (!relay.ended || more || relay.out_length > 0) continue;
    /* Nothing left to read: the tree is gone, or what is left of it says nothing. */
    tell_exit();
    flush_out();
    if (relay.connection < 0 || (relay.exit_told && relay.out_length == 0)) leave(0);
    more = relay.out_length == 0;
  }
}
