/* What is said with the proxy: CONNECT with the child's token, and the answer up to the empty line. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "broker_parts.h"

/* Bytes of the proxy's answer up to the empty line. */
#define HEAD_MAX 4096

/* Bytes of our request: the token and some 200. */
#define REQUEST_MAX (BROKER_TOKEN_MAX + 256)

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

int tunnel_answer(struct dial *dial) {
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

int tunnel_ask(const struct broker *broker, struct dial *dial) {
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
