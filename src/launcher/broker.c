/* The broker's loop: receives calls, hands them to their part, answers them. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "broker_parts.h"

/* Events and milliseconds of one broker_run: the supervisor's other work waits no longer. */
#define TURNS 64
#define TURNS_MS 20

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

/* Whether the broker decides about such calls. */
static bool decides(int nr) {
  switch (nr) {
    case SYS_connect:
    case SYS_bind:
    case SYS_kill:
    case SYS_tkill:
    case SYS_tgkill:
    case SYS_rt_sigqueueinfo:
    case SYS_rt_tgsigqueueinfo:
    case CALL_PIDFD_SEND_SIGNAL:
      return true;
    default:
      return false;
  }
}

/* The kernel goes on with a call that is only watched. It reads the arguments anew, so this would decide nothing. */
static void go_on(struct broker *broker, const struct call *call) {
  memset(broker->answer, 0, broker->sizes.answer);
  broker->answer->id = call->id;
  broker->answer->flags = NOTIFY_CONTINUE;
  ioctl(broker->options.listener, NOTIFY_SEND, broker->answer);
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
  if (broker->options.observe != NULL) {
    const int outcome = broker->options.observe(broker, call);
    if (outcome == BROKER_CONTINUE && !decides(call->nr)) {
      go_on(broker, call);
      return;
    }
    if (outcome != BROKER_SERVE) {
      broker_answer(broker, call, outcome == BROKER_CONTINUE ? EACCES : outcome);
      return;
    }
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
  while (broker->first != NULL) dial_drop(broker, broker->first);
  dial_drop_spare(broker);
}

void broker_sweep(struct broker *broker, int64_t now) {
  broker->next_sweep = now + BROKER_SWEEP_MS;
  for (struct dial *dial = broker->first, *next; dial != NULL; dial = next) {
    next = dial->next;
    if (!broker_waits(broker, &dial->call)) dial_drop(broker, dial);
  }
}

static void hand_over_again(struct broker *broker, int64_t until) {
  for (struct dial *dial = broker->first, *next; dial != NULL && broker_now() <= until; dial = next) {
    next = dial->next;
    if (dial->state == DIAL_HANDING_OVER) dial_continue(broker, dial);
  }
  broker->next_attempt = broker_now() + BROKER_ATTEMPT_MS;
}

/* One event at a time: handling one may end a connection that a second one speaks of. False for none. */
static bool serve_one(struct broker *broker, int wait, bool *ended) {
  struct epoll_event event;
  if (epoll_wait(broker->epoll, &event, 1, wait) != 1) return false;
  if (event.data.ptr == broker) {
    *ended = true;
  } else if (event.data.ptr != NULL) {
    dial_continue(broker, event.data.ptr);
  } else if (event.events & EPOLLIN) {
    receive(broker);
  } else {
    end(broker);
  }
  return true;
}

static void keep_time(struct broker *broker) {
  const int64_t now = broker_now();
  while (broker->first != NULL && broker->first->deadline <= now) {
    struct dial *late = broker->first;
    broker_answer(broker, &late->call, ETIMEDOUT);
    dial_drop(broker, late);
  }
  if (now >= broker->next_sweep) broker_sweep(broker, now);
  if (broker->handing_over > 0 && now >= broker->next_attempt) hand_over_again(broker, now + TURNS_MS);
}

bool broker_serve(struct broker *broker, int wait) {
  bool ended = false;
  if (serve_one(broker, wait, &ended)) {
    /* With nobody else's work to come back to, the next event is waited for at once, in one call. */
    const int64_t until = broker_now() + TURNS_MS;
    for (int turn = 1; wait == 0 && turn < TURNS && broker_now() <= until; turn++)
      if (!serve_one(broker, 0, &ended)) break;
  }
  if (broker->first != NULL) keep_time(broker);
  return !ended;
}

int broker_next(const struct broker *broker) {
  if (broker->first == NULL) return -1;
  const int64_t deadline = broker->first->deadline;
  int64_t next = deadline < broker->next_sweep ? deadline : broker->next_sweep;
  if (broker->handing_over > 0 && broker->next_attempt < next) next = broker->next_attempt;
  const int64_t left = next - broker_now();
  return left <= 0 ? 0 : (int)left;
}

void broker_run(struct broker *broker) {
  if (!broker->threaded) broker_serve(broker, 0);
}

int broker_timeout(const struct broker *broker) {
  return broker->threaded ? -1 : broker_next(broker);
}

int broker_descriptor(const struct broker *broker) {
  return broker->threaded ? broker->wake : broker->epoll;
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
  if (!hand_over_prepare()) return -1;
  /* A caller waits for the broker and the broker for the caller, so they may share a processor: waking another one takes
   * longer than all the rest. Without Linux 6.6 it is only slower. */
  ioctl(broker->options.listener, NOTIFY_SET_FLAGS, NOTIFY_SYNC_WAKE_UP);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
  if (epoll_ctl(broker->epoll, EPOLL_CTL_ADD, broker->options.listener, &event) != 0) return -1;
  /* An observer is the supervisor's own code, and expects its thread. */
  return broker->options.observe != NULL || thread_start(broker) ? 0 : -1;
}

static void free_parts(struct broker *broker) {
  if (broker->epoll >= 0) close(broker->epoll);
  if (broker->wake >= 0) close(broker->wake);
  dial_drop_spare(broker);
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
  broker->wake = -1;
  broker->spare = -1;
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
  return broker;
}

void broker_close(struct broker *broker) {
  if (broker == NULL || !thread_end(broker)) return;
  while (broker->first != NULL) dial_drop(broker, broker->first);
  close(broker->options.listener);
  free_parts(broker);
}
