/* connect(2): reads where the caller wants to go, asks the proxy, and gives the caller the connection that it allowed.
 *
 * The proxy's own address is dialled directly (a program that uses the proxy variables), port 53 is the resolver whatever
 * the address, everything else is a tunnel. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker_parts.h"

/* Bytes of the proxy's answer up to the empty line. */
#define HEAD_MAX 4096

/* Bytes of our request: the token and some 200. */
#define REQUEST_MAX (BROKER_TOKEN_MAX + 256)

/* Neither a result nor an error yet. */
#define UNDER_WAY (-2)

/* Shortest sockaddr_in6 that the kernel takes: without the scope. */
#define IN6_LENGTH_MIN 24U

#define DNS_PORT 53

int endpoint_of(const struct sockaddr_storage *address, size_t length, struct endpoint *endpoint) {
  memset(endpoint, 0, sizeof *endpoint);
  if (address->ss_family == AF_INET) {
    if (length < sizeof(struct sockaddr_in)) return EINVAL;
    const struct sockaddr_in *in = (const struct sockaddr_in *)address;
    endpoint->family = AF_INET;
    endpoint->port = ntohs(in->sin_port);
    memcpy(endpoint->address, &in->sin_addr, 4);
    return 0;
  }
  if (address->ss_family == AF_INET6) {
    if (length < IN6_LENGTH_MIN) return EINVAL;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;
    endpoint->port = ntohs(in6->sin6_port);
    if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
      endpoint->family = AF_INET;
      memcpy(endpoint->address, &in6->sin6_addr.s6_addr[12], 4);
    } else {
      endpoint->family = AF_INET6;
      memcpy(endpoint->address, &in6->sin6_addr, 16);
    }
    return 0;
  }
  /* AF_UNSPEC too, which would take a connection apart and leave a socket that may be connected anew. */
  return EACCES;
}

static bool same_endpoint(const struct endpoint *one, const struct endpoint *other) {
  return one->family == other->family && one->port == other->port &&
         memcmp(one->address, other->address, sizeof one->address) == 0;
}

static socklen_t address_of(const struct endpoint *endpoint, struct sockaddr_storage *address) {
  memset(address, 0, sizeof *address);
  address->ss_family = (sa_family_t)endpoint->family;
  if (endpoint->family == AF_INET) {
    struct sockaddr_in *in = (struct sockaddr_in *)address;
    in->sin_port = htons(endpoint->port);
    memcpy(&in->sin_addr, endpoint->address, 4);
    return sizeof *in;
  }
  struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)address;
  in6->sin6_port = htons(endpoint->port);
  memcpy(&in6->sin6_addr, endpoint->address, 16);
  return sizeof *in6;
}

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

static int result_of(int status) {
  switch (status) {
    case 200:
      return 0;
    case 400: /* no such target can be */
    case 403:
      return EACCES;
    case 503:
      return EAGAIN;
    case 504:
      return ETIMEDOUT;
    default: /* 407, 502; and what no proxy of ours says */
      return ECONNREFUSED;
  }
}

/* One byte of the proxy's answer: UNDER_WAY, 0 at the end of a 200, or an errno as soon as it is clear. */
static int read_byte(struct head *head, char byte) {
  static const char version[] = "HTTP/1.";
  const unsigned at = head->length++;
  if (at >= HEAD_MAX) return ECONNREFUSED;
  if (at < sizeof head->start) {
    head->start[at] = byte;
    const bool digit = byte >= '0' && byte <= '9';
    if (at < 7 ? byte != version[at] : at == 8 ? byte != ' ' : !digit) return ECONNREFUSED;
    if (at != sizeof head->start - 1) return UNDER_WAY;
    const char *status = &head->start[9];
    const int number = (status[0] - '0') * 100 + (status[1] - '0') * 10 + (status[2] - '0');
    return number == 200 ? UNDER_WAY : result_of(number);
  }
  if (at == sizeof head->start && byte != ' ' && byte != '\r') return ECONNREFUSED;
  if (byte == '\r') {
    head->ending = head->ending == 2 ? 3 : 1;
  } else if (byte == '\n') {
    head->ending = head->ending == 1 ? 2 : head->ending == 3 ? 4 : 0;
  } else {
    head->ending = 0;
  }
  return head->ending == 4 ? 0 : UNDER_WAY;
}

static int read_answer(struct dial *dial) {
  for (;;) {
    /* Looked at first: a byte behind the empty line is the program's, who reads it from this same socket. */
    char part[512];
    const ssize_t there = recv(dial->descriptor, part, sizeof part, MSG_PEEK | MSG_DONTWAIT);
    if (there < 0 && errno == EINTR) continue;
    if (there < 0 && errno == EAGAIN) return UNDER_WAY;
    if (there <= 0) return ECONNREFUSED;
    int result = UNDER_WAY;
    ssize_t used = 0;
    while (used < there && result == UNDER_WAY) result = read_byte(&dial->head, part[used++]);
    if (recv(dial->descriptor, part, (size_t)used, MSG_DONTWAIT) != used) return ECONNREFUSED;
    if (result != UNDER_WAY) return result;
  }
}

/* Length of the request; it holds the token. */
static size_t request_of(const struct broker *broker, const struct dial *dial, char *into, size_t size) {
  char target[INET6_ADDRSTRLEN + 16] = "dns:53";
  if (dial->class == DIAL_TUNNEL) {
    char address[INET6_ADDRSTRLEN];
    inet_ntop(dial->to.family, dial->to.address, address, sizeof address);
    const char *format = dial->to.family == AF_INET6 ? "[%s]:%u" : "%s:%u";
    snprintf(target, sizeof target, format, address, (unsigned)dial->to.port);
  }
  /* The thread behind a non-blocking socket is a whole event loop: it waits for the verdict, not for the dial. */
  const char *mode = dial->socket.flags & O_NONBLOCK ? "early" : "wait";
  const int length = snprintf(into, size,
                              "CONNECT %s HTTP/1.1\r\nHost: %s\r\nProxy-Authorization: Bearer %s\r\n"
                              "Mcp-Sidecar-Broker: %s\r\n\r\n",
                              target, target, broker->token, mode);
  return (size_t)length;
}

static int send_request(const struct broker *broker, struct dial *dial) {
  char request[REQUEST_MAX];
  const size_t length = request_of(broker, dial, request, sizeof request);
  ssize_t sent;
  do {
    sent = send(dial->descriptor, request + dial->sent, length - dial->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  const int error = errno;
  explicit_bzero(request, sizeof request);
  if (sent < 0) return error == EAGAIN ? UNDER_WAY : ECONNREFUSED;
  dial->sent += (uint32_t)sent;
  return dial->sent == length ? 0 : UNDER_WAY;
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
      result = send_request(broker, dial);
      if (result != 0) return result;
      dial->state = DIAL_READING;
      /* fall through */
    case DIAL_READING:
      return read_answer(dial);
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

static void settle(struct broker *broker, struct dial *dial) {
  int result = advance(broker, dial);
  if (result == UNDER_WAY) result = watch(broker, dial);
  if (result == UNDER_WAY) return;
  const struct call call = dial->call;
  const struct caller_socket place = dial->socket;
  const int descriptor = dial->descriptor;
  /* Closing ours would not end the registration: the caller is about to have the same open socket. */
  if (dial->watched != 0) epoll_ctl(broker->epoll, EPOLL_CTL_DEL, descriptor, NULL);
  if (result == 0) dial->descriptor = -1;
  dial_drop(broker, dial);
  if (result == 0) broker_install(broker, &call, descriptor, &place);
  else broker_answer(broker, &call, result);
}

void dial_continue(struct broker *broker, struct dial *dial) {
  settle(broker, dial);
}

/* A socket that is on its way to the proxy, or minus an errno. */
static int dial_proxy(const struct broker *broker) {
  const int descriptor = socket(broker->proxy.family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return -unreachable(errno);
  const int on = 1;
  setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(descriptor, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  struct sockaddr_storage address;
  const socklen_t length = address_of(&broker->proxy, &address);
  if (connect(descriptor, (struct sockaddr *)&address, length) != 0 && errno != EINPROGRESS) {
    const int error = unreachable(errno);
    close(descriptor);
    return -error;
  }
  return descriptor;
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
    if (error == 0 && dial->socket.inode == place.inode && same_endpoint(&dial->to, &to)) {
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
  const int descriptor = dial == NULL ? -EAGAIN : dial_proxy(broker);
  if (descriptor < 0) {
    broker_answer(broker, call, -descriptor);
    return;
  }
  const int64_t now = broker_now();
  if (broker->first == NULL) broker->next_sweep = now + BROKER_SWEEP_MS;
  broker->free = dial->next;
  *dial = (struct dial){
      .call = *call,
      .to = to,
      .socket = place,
      .class = same_endpoint(&to, &broker->proxy) ? DIAL_DIRECT : to.port == DNS_PORT ? DIAL_RESOLVER : DIAL_TUNNEL,
      .descriptor = descriptor,
      .deadline = now + BROKER_DEADLINE_MS,
      .previous = broker->last,
  };
  if (broker->last != NULL) broker->last->next = dial;
  else broker->first = dial;
  broker->last = dial;
  settle(broker, dial);
}
