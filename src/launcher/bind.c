/* bind(2) below Landlock ABI 4, where nothing else keeps a program from taking a port. The C library binds a netlink socket
 * to list interfaces; it gets one that the broker has bound. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker_parts.h"

static int read_call(const struct broker *broker, const struct call *call, struct caller_socket *place,
                     struct netlink_address *to) {
  int error = target_socket(broker, call, (int)(uint32_t)call->args[0], place);
  if (error != 0) return error;
  const int length = (int)(uint32_t)call->args[2];
  if (length < (int)sizeof to->family || length > (int)sizeof(struct sockaddr_storage)) return EINVAL;
  const size_t size = (size_t)length < sizeof *to ? (size_t)length : sizeof *to;
  error = target_memory(broker, call, call->args[1], to, size);
  if (error != 0) return error;
  const bool netlink = place->kind == SOCKET_NETLINK || place->kind == SOCKET_UNKNOWN;
  if (!netlink || to->family != AF_NETLINK) return EACCES;
  if (size < sizeof *to || place->installed) return EINVAL;
  return 0;
}

void bind_serve(struct broker *broker, const struct call *call) {
  struct caller_socket place;
  struct netlink_address to = {0};
  int error = read_call(broker, call, &place, &to);
  if (error != 0) {
    broker_answer(broker, call, error);
    return;
  }
  /* The kernel judges what is sent through it by its opener and its sender: the broker's rights do not come with it. */
  const int descriptor = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_PROTOCOL_ROUTE);
  if (descriptor < 0) {
    broker_answer(broker, call, EAGAIN);
    return;
  }
  error = bind(descriptor, (struct sockaddr *)&to, sizeof to) == 0 ? 0 : errno;
  if (error == 0) error = hand_over(broker, call, descriptor, &place);
  close(descriptor);
  /* Nothing has been taken over then, so the program can simply try again. */
  broker_answer(broker, call, error == CALLER_LATE ? EAGAIN : error);
}
