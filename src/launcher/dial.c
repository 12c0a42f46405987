/* connect(2): reads where the caller wants to go, asks the proxy, and gives the caller the connection that it allowed.
 *
 * The proxy's own address is dialled directly (a program that uses the proxy variables), port 53 is the resolver whatever
 * the address, everything else is a tunnel. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker_parts.h"

#define DNS_PORT 53

static void unlink_dial(struct broker *broker, struct dial *dial) {
  if (dial->previous != NULL) dial->previous->next = dial->next;
  else broker->first = dial->next;
  if (dial->next != NULL) dial->next->previous = dial->previous;
  else broker->last = dial->previous;
  dial->previous = NULL;
  dial->next = broker->free;
  broker->free = dial;
}

void dial_drop(struct broker *broker, struct dial *dial) {
  if (dial->state == DIAL_HANDING_OVER) broker->handing_over--;
  if (dial->descriptor >= 0) close(dial->descriptor);
  dial->descriptor = -1;
  unlink_dial(broker, dial);
}

/* What the program is told when the proxy cannot be reached. */
static int unreachable(int error) {
  switch (error) {
    case EADDRNOTAVAIL: /* no local port is free */
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
      return EAGAIN;
    case ETIMEDOUT:
      return ETIMEDOUT;
    default:
      return ECONNREFUSED;
  }
}

/* A socket that is on its way to the proxy, or minus an errno. */
static int dial_proxy(const struct broker *broker) {
  const int descriptor = socket(broker->proxy.family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return -unreachable(errno);
  const int on = 1;
  setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(descriptor, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  struct sockaddr_storage address;
  const socklen_t length = endpoint_address(&broker->proxy, &address);
  if (connect(descriptor, (struct sockaddr *)&address, length) != 0 && errno != EINPROGRESS) {
    const int error = unreachable(errno);
    close(descriptor);
    return -error;
  }
  return descriptor;
}

void dial_drop_spare(struct broker *broker) {
  if (broker->spare >= 0) close(broker->spare);
  broker->spare = -1;
}

/* Making a connection, and above all having it accepted, takes longer than all that is said on it. So a program that
 * connects finds one that was made after its last connect; one that does so seldom waits for its own. */
static int take_spare(struct broker *broker, int64_t now) {
  const int descriptor = broker->spare;
  broker->spare = -1;
  if (descriptor < 0) return -1;
  char byte;
  const bool silent = recv(descriptor, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
  if (silent && now < broker->spare_until) return descriptor;
  close(descriptor);
  return -1;
}

static void make_spare(struct broker *broker) {
  if (broker->spare >= 0) return;
  const int descriptor = dial_proxy(broker);
  if (descriptor < 0) return;
  broker->spare = descriptor;
  broker->spare_until = broker_now() + SPARE_MS;
}

static int finish_connect(const struct dial *dial) {
  struct sockaddr_storage peer;
  socklen_t length = sizeof peer;
  if (getpeername(dial->descriptor, (struct sockaddr *)&peer, &length) == 0) return 0;
  int error = 0;
  length = sizeof error;
  if (getsockopt(dial->descriptor, SOL_SOCKET, SO_ERROR, &error, &length) != 0) return ECONNREFUSED;
  return error == 0 ? UNDER_WAY : unreachable(error);
}

/* As far as it goes without waiting. */
static int advance(const struct broker *broker, struct dial *dial) {
  int result;
  switch (dial->state) {
    case DIAL_CONNECTING:
      result = finish_connect(dial);
      if (result != 0 || dial->class == DIAL_DIRECT) return result;
      dial->state = DIAL_SENDING;
      /* fall through */
    case DIAL_SENDING:
      result = tunnel_ask(broker, dial);
      if (result != 0) return result;
      dial->state = DIAL_READING;
      return UNDER_WAY;
    case DIAL_READING:
      return tunnel_answer(dial);
    case DIAL_HANDING_OVER:
      return 0;
  }
  return ECONNREFUSED;
}

static int watch(const struct broker *broker, struct dial *dial) {
  const uint32_t events = dial->state == DIAL_READING ? EPOLLIN : EPOLLOUT;
  if (dial->watched == events) return UNDER_WAY;
  struct epoll_event event = {.events = events, .data.ptr = dial};
  const int operation = dial->watched == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
  if (epoll_ctl(broker->epoll, operation, dial->descriptor, &event) != 0) return EAGAIN;
  dial->watched = events;
  return UNDER_WAY;
}

/* The connection is there; the caller may have to be waited for. */
static void deliver(struct broker *broker, struct dial *dial) {
  const int result = hand_over(broker, &dial->call, dial->descriptor, &dial->socket);
  if (result == CALLER_LATE) {
    if (dial->state == DIAL_HANDING_OVER) return;
    dial->state = DIAL_HANDING_OVER;
    if (broker->handing_over++ == 0) broker->next_attempt = broker_now() + BROKER_ATTEMPT_MS;
    return;
  }
  const struct call call = dial->call;
  dial_drop(broker, dial);
  broker_answer(broker, &call, result);
  if (result == 0) make_spare(broker);
}

/* The proxy may close a connection that says nothing, at the moment in which it is taken. The caller then gets one of its own. */
static bool dial_afresh(const struct broker *broker, struct dial *dial) {
  if (!dial->spare || dial->head.length > 0 || dial->state == DIAL_HANDING_OVER) return false;
  const int descriptor = dial_proxy(broker);
  if (descriptor < 0) return false;
  close(dial->descriptor);
  dial->descriptor = descriptor;
  dial->state = DIAL_CONNECTING;
  dial->watched = dial->sent = 0;
  dial->spare = false;
  return true;
}

void dial_continue(struct broker *broker, struct dial *dial) {
  int result = advance(broker, dial);
  if (result == ECONNREFUSED && dial_afresh(broker, dial)) result = advance(broker, dial);
  if (result == UNDER_WAY) result = watch(broker, dial);
  if (result == UNDER_WAY) return;
  /* Closing ours would not end the registration: the caller is about to have the same open socket. */
  if (dial->watched != 0) epoll_ctl(broker->epoll, EPOLL_CTL_DEL, dial->descriptor, NULL);
  dial->watched = 0;
  if (result == 0) {
    deliver(broker, dial);
    return;
  }
  const struct call call = dial->call;
  dial_drop(broker, dial);
  broker_answer(broker, &call, result);
}

static struct dial *dial_of(const struct broker *broker, pid_t tid) {
  for (struct dial *dial = broker->first; dial != NULL; dial = dial->next) {
    if (dial->call.tid == tid) return dial;
  }
  return NULL;
}

/* The caller's descriptor and where it wants to go: 0, an errno, or CALLER_GONE. In the order of the kernel's own checks. */
static int read_call(const struct broker *broker, const struct call *call, struct caller_socket *place, struct endpoint *to) {
  int error = target_socket(broker, call, (int)(uint32_t)call->args[0], place);
  if (error != 0) return error;
  const int length = (int)(uint32_t)call->args[2];
  struct sockaddr_storage address = {0};
  if (length < (int)sizeof address.ss_family || length > (int)sizeof address) return EINVAL;
  error = target_memory(broker, call, call->args[1], &address, (size_t)length);
  if (error != 0) return error;
  error = endpoint_of(&address, (size_t)length, to);
  if (error != 0) return error;
  if (place->kind == SOCKET_NETLINK || place->kind == SOCKET_OTHER) return EACCES;
  const enum socket_kind needed = address.ss_family == AF_INET ? SOCKET_TCP4 : SOCKET_TCP6;
  if (place->kind != SOCKET_UNKNOWN && place->kind != needed) return EAFNOSUPPORT;
  return place->installed ? EISCONN : 0;
}

void dial_begin(struct broker *broker, const struct call *call) {
  struct caller_socket place;
  struct endpoint to;
  const int error = read_call(broker, call, &place, &to);
  struct dial *dial = dial_of(broker, call->tid);
  if (dial != NULL) {
    /* A signal has interrupted the call and the kernel has started it again. A program that is interrupted more often than
     * the proxy answers gets its connection all the same. */
    if (error == 0 && dial->socket.inode == place.inode && endpoint_same(&dial->to, &to)) {
      dial->call = *call;
      return;
    }
    dial_drop(broker, dial);
  }
  if (error != 0) {
    broker_answer(broker, call, error);
    return;
  }
  if (broker->free == NULL) broker_sweep(broker, broker_now());
  dial = broker->free;
  const int64_t now = broker_now();
  int descriptor = dial == NULL ? -EAGAIN : take_spare(broker, now);
  const bool spare = descriptor >= 0;
  if (dial != NULL && !spare) descriptor = dial_proxy(broker);
  if (descriptor < 0) {
    broker_answer(broker, call, -descriptor);
    return;
  }
  if (broker->first == NULL) broker->next_sweep = now + BROKER_SWEEP_MS;
  broker->free = dial->next;
  *dial = (struct dial){
      .call = *call,
      .to = to,
      .socket = place,
      .class = endpoint_same(&to, &broker->proxy) ? DIAL_DIRECT : to.port == DNS_PORT ? DIAL_RESOLVER : DIAL_TUNNEL,
      .descriptor = descriptor,
      .spare = spare,
      .deadline = now + BROKER_DEADLINE_MS,
      .previous = broker->last,
  };
  if (broker->last != NULL) broker->last->next = dial;
  else broker->first = dial;
  broker->last = dial;
  dial_continue(broker, dial);
}
