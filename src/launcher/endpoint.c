/* Addresses in the one form that is compared and asked for. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "broker_parts.h"

/* Shortest sockaddr_in6 that the kernel takes: without the scope. */
#define IN6_LENGTH_MIN 24U

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

bool endpoint_same(const struct endpoint *one, const struct endpoint *other) {
  return one->family == other->family && one->port == other->port &&
         memcmp(one->address, other->address, sizeof one->address) == 0;
}

socklen_t endpoint_address(const struct endpoint *endpoint, struct sockaddr_storage *address) {
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
