/* The broker's loop: receives calls, hands them to their part, answers them. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "broker_parts.h"

/* Events of one broker_run: the supervisor's other work waits no longer than they take. */
#define TURNS 64

/* Milliseconds in which an interrupted caller is expected back: its signal handler runs in between. */
#define DONE_MS 1000

int64_t broker_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

bool broker_waits(const struct broker *broker, const struct call *call) {
  uint64_t id = call->id;
  return ioctl(broker->options.listener, NOTIFY_ID_VALID, &id) == 0;
}

bool broker_answer(struct broker *broker, const struct call *call, int error) {
  if (error == CALLER_GONE) return false;
  memset(broker->answer, 0, broker->sizes.answer);
  broker->answer->id = call->id;
  broker->answer->error = -error;
  int result;
  do {
    result = ioctl(broker->options.listener, NOTIFY_SEND, broker->answer);
  } while (result != 0 && errno == EINTR);
  if (result == 0) return true;
  if (error == 0) {
    struct done_call *done = &broker->done[broker->next_done++ % DONE_CALLS];
    done->tid = call->tid;
    done->nr = call->nr;
    memcpy(done->args, call->args, sizeof done->args);
    done->until = broker_now() + DONE_MS;
  }
  return false;
}

/* Whether the call was done already, and is only started again. */
static bool was_done(struct broker *broker, const struct call *call) {
  for (unsigned i = 0; i < DONE_CALLS; i++) {
    struct done_call *done = &broker->done[i];
    if (done->until == 0 || done->tid != call->tid) continue;
    const bool same = done->nr == call->nr && memcmp(done->args, call->args, sizeof done->args) == 0;
    const bool fresh = broker_now() <= done->until;
    /* A thread is in one call at a time: any other call of it means that the former is over. */
    done->until = 0;
    if (same && fresh) return true;
  }
  return false;
}

/* 0, an errno, or CALLER_GONE. */
static int put(const struct broker *broker, const struct call *call, int descriptor, const struct caller_socket *place) {
  const int number = (int)(uint32_t)call->args[0];
  struct caller_socket now;
  const int found = target_socket(broker, call, number, &now);
  if (found != 0) return found == ENOTSOCK ? EBADF : found;
  /* Another thread has closed or replaced it: what stands there now is not ours to take away. */
  if (now.inode != place->inode) return now.installed ? EISCONN : EBADF;

  const int flags = fcntl(descriptor, F_GETFL);
  const int wanted = (flags & ~O_NONBLOCK) | (now.flags & O_NONBLOCK);
  if (flags < 0 || fcntl(descriptor, F_SETFL, wanted) != 0) return EAGAIN;
  /* The mark by which target_socket knows it again. A program that marks a socket of its own so fools itself only. */
  if (fchmod(descriptor, S_IRUSR | S_IWUSR) != 0) return EAGAIN;

  struct notify_addfd add = {
      .id = call->id,
      .flags = NOTIFY_ADDFD_SETFD,
      .source = (uint32_t)descriptor,
      .target = (uint32_t)number,
      .target_flags = (uint32_t)(now.flags & O_CLOEXEC),
  };
  int result;
  do {
    result = ioctl(broker->options.listener, NOTIFY_ADDFD, &add);
  } while (result < 0 && errno == EINTR);
  if (result >= 0) return 0;
  return errno == ENOENT || errno == ESRCH || errno == EINPROGRESS ? CALLER_GONE : EBADF;
}

void broker_install(struct broker *broker, const struct call *call, int descriptor, const struct caller_socket *place) {
  const int result = put(broker, call, descriptor, place);
  close(descriptor);
  broker_answer(broker, call, result);
}

static void serve(struct broker *broker, const struct call *call) {
  /* A thread waits in one call: an older one of it has been interrupted. dial_begin goes on with its connection. */
  if (was_done(broker, call)) {
    broker_answer(broker, call, 0);
    return;
  }
  if (call->tid <= 0) {
    broker_answer(broker, call, EACCES);
    return;
  }
  switch (call->nr) {
    case SYS_connect:
      if (!broker->options.connects) break;
      dial_begin(broker, call);
      return;
    case SYS_bind:
      if (!broker->options.binds) break;
      bind_serve(broker, call);
      return;
    case SYS_kill:
    case SYS_tkill:
    case SYS_tgkill:
    case SYS_rt_sigqueueinfo:
    case SYS_rt_tgsigqueueinfo:
    case CALL_PIDFD_SEND_SIGNAL:
      if (!broker->options.signals) break;
      signal_serve(broker, call);
      return;
    default:
      break;
  }
  broker_answer(broker, call, EACCES);
}

/* Reads one call. The kernel would block only if none were there: epoll has just said that one is, and should its caller
 * have died since, the answer is ENOENT. */
static void receive(struct broker *broker) {
  memset(broker->request, 0, broker->sizes.request);
  if (ioctl(broker->options.listener, NOTIFY_RECV, broker->request) != 0) return;
  const struct notify_request *request = broker->request;
  struct call call = {.id = request->id, .tid = (pid_t)request->tid, .nr = request->nr};
  memcpy(call.args, request->args, sizeof call.args);
  serve(broker, &call);
}

/* Nobody is left whom the filter binds. */
static void end(struct broker *broker) {
  epoll_ctl(broker->epoll, EPOLL_CTL_DEL, broker->options.listener, NULL);
  broker->listening = false;
  while (broker->first != NULL) dial_drop(broker, broker->first);
}

void broker_sweep(struct broker *broker, int64_t now) {
  broker->next_sweep = now + BROKER_SWEEP_MS;
  for (struct dial *dial = broker->first, *next; dial != NULL; dial = next) {
    next = dial->next;
    if (!broker_waits(broker, &dial->call)) dial_drop(broker, dial);
  }
}

void broker_run(struct broker *broker) {
  /* One event at a time: handling one may end a connection that a second one speaks of. */
  for (int turn = 0; turn < TURNS; turn++) {
    struct epoll_event event;
    if (epoll_wait(broker->epoll, &event, 1, 0) != 1) break;
    if (event.data.ptr != NULL) {
      dial_continue(broker, event.data.ptr);
    } else if (event.events & EPOLLIN) {
      receive(broker);
    } else {
      end(broker);
    }
  }
  if (broker->first == NULL) return;
  const int64_t now = broker_now();
  while (broker->first != NULL && broker->first->deadline <= now) {
    struct dial *late = broker->first;
    broker_answer(broker, &late->call, ETIMEDOUT);
    dial_drop(broker, late);
  }
  if (now >= broker->next_sweep) broker_sweep(broker, now);
}

int broker_timeout(const struct broker *broker) {
  if (broker->first == NULL) return -1;
  const int64_t deadline = broker->first->deadline;
  const int64_t next = deadline < broker->next_sweep ? deadline : broker->next_sweep;
  const int64_t left = next - broker_now();
  return left <= 0 ? 0 : (int)left;
}

int broker_descriptor(const struct broker *broker) {
  return broker->epoll;
}

/* Whether it can stand in a header line. */
static bool token_fits(const char *token) {
  if (token == NULL) return false;
  const size_t length = strnlen(token, BROKER_TOKEN_MAX + 1);
  if (length == 0 || length > BROKER_TOKEN_MAX) return false;
  for (size_t i = 0; i < length; i++) {
    if (token[i] <= ' ' || token[i] > '~') return false;
  }
  return true;
}

static int open_parts(struct broker *broker) {
  if (syscall(SYS_seccomp, NOTIFY_GET_SIZES, 0, &broker->sizes) != 0) return -1;
  if (broker->sizes.request < sizeof(struct notify_request)) broker->sizes.request = sizeof(struct notify_request);
  if (broker->sizes.answer < sizeof(struct notify_answer)) broker->sizes.answer = sizeof(struct notify_answer);
  broker->request = calloc(1, broker->sizes.request);
  broker->answer = calloc(1, broker->sizes.answer);
  if (broker->request == NULL || broker->answer == NULL) return -1;
  broker->epoll = epoll_create1(EPOLL_CLOEXEC);
  if (broker->epoll < 0) return -1;
  if (fcntl(broker->options.listener, F_SETFD, FD_CLOEXEC) != 0) return -1;
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
  return epoll_ctl(broker->epoll, EPOLL_CTL_ADD, broker->options.listener, &event);
}

static void free_parts(struct broker *broker) {
  if (broker->epoll >= 0) close(broker->epoll);
  explicit_bzero(broker->token, sizeof broker->token);
  free(broker->request);
  free(broker->answer);
  free(broker);
}

struct broker *broker_open(const struct broker_options *options) {
  struct endpoint proxy = {0};
  if (options->connects) {
    const bool known = endpoint_of(&options->proxy, options->proxy_length, &proxy) == 0 && proxy.port != 0;
    if (!known || !token_fits(options->token)) {
      errno = EINVAL;
      return NULL;
    }
  }
  struct broker *broker = calloc(1, sizeof *broker);
  if (broker == NULL) return NULL;
  broker->options = *options;
  broker->options.token = NULL;
  broker->proxy = proxy;
  broker->epoll = -1;
  broker->self = getpid();
  if (options->connects) memcpy(broker->token, options->token, strlen(options->token));
  for (int i = BROKER_PENDING - 1; i >= 0; i--) {
    broker->dials[i].next = broker->free;
    broker->free = &broker->dials[i];
  }
  if (open_parts(broker) != 0) {
    const int error = errno;
    free_parts(broker);
    errno = error;
    return NULL;
  }
  broker->listening = true;
  return broker;
}

void broker_close(struct broker *broker) {
  if (broker == NULL) return;
  while (broker->first != NULL) dial_drop(broker, broker->first);
  close(broker->options.listener);
  free_parts(broker);
}
