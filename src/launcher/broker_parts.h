/* What the parts of the broker share: broker.c (loop, answers), broker_thread.c, target.c (looks into the caller),
 * hand_over.c (the caller's descriptor), endpoint.c, dial.c and tunnel.c (connect), bind.c, signals.c. */
#ifndef BROKER_PARTS_H
#define BROKER_PARTS_H

#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker.h"
#include "broker_kernel.h"

/* Besides 0 and an errno: the caller no longer waits (it died, or a signal interrupted it), so nobody is to be answered. */
#define CALLER_GONE (-1)

/* The caller's thread did not run in time to take a descriptor over. To be tried again. */
#define CALLER_LATE (-3)

/* Neither a result nor an error yet. */
#define UNDER_WAY (-2)

/* One call that a thread of the tree waits in. */
struct call {
  uint64_t id;
  pid_t tid;
  int nr;
  uint64_t args[6];
};

enum socket_kind {
  SOCKET_UNKNOWN, /* the kernel would not say; the filter allows TCP, netlink and unix pairs only */
  SOCKET_TCP4,
  SOCKET_TCP6,
  SOCKET_NETLINK,
  SOCKET_OTHER,
};

/* A socket in the caller's descriptor table. */
struct caller_socket {
  enum socket_kind kind;
  uint64_t inode;
  bool installed; /* by us: it is connected, or bound */
  int flags;      /* O_NONBLOCK and O_CLOEXEC of it */
};

/* Where to: IPv4-mapped IPv6 unwrapped. */
struct endpoint {
  int family;
  uint16_t port;
  uint8_t address[16]; /* the first 4 for AF_INET */
};

/* Where the answer of the proxy is, read byte by byte. */
struct head {
  char start[12];  /* HTTP/1.1 200 */
  uint16_t length; /* bytes seen */
  uint8_t ending;  /* of CR LF CR LF, so many */
};

/* DIAL_HANDING_OVER: the connection is made, and its caller did not run yet to take it. */
enum dial_state { DIAL_CONNECTING, DIAL_SENDING, DIAL_READING, DIAL_HANDING_OVER };
enum dial_class { DIAL_TUNNEL, DIAL_RESOLVER, DIAL_DIRECT };

/* A connection under way. */
struct dial {
  struct call call;
  struct endpoint to;
  struct caller_socket socket;
  enum dial_class class;
  enum dial_state state;
  int descriptor; /* ours, to the proxy */
  bool spare;     /* which was made before the call */
  uint32_t watched; /* epoll events it is registered for; 0: not registered */
  uint32_t sent;    /* bytes of the request */
  struct head head;
  int64_t deadline;
  struct dial *previous; /* in order of deadlines */
  struct dial *next;     /* there, or in the list of free ones */
};

/* A call that is done, but whose caller had left the wait when it was answered: a signal without SA_RESTART gives it EINTR,
 * with SA_RESTART the kernel starts the call again, which must not be done twice. */
struct done_call {
  pid_t tid;
  int nr;
  uint64_t args[6];
  int64_t until; /* 0: none */
};

#define DONE_CALLS 16

/* Milliseconds for which a connection to the proxy is kept ready. The proxy closes one that says nothing after 10 s. */
#define SPARE_MS 5000

/* Milliseconds after which connections of callers that no longer wait are found and closed. */
#define BROKER_SWEEP_MS 250

/* Milliseconds between attempts to hand a connection over. */
#define BROKER_ATTEMPT_MS 10

struct broker {
  struct broker_options options;
  struct endpoint proxy;
  char token[BROKER_TOKEN_MAX + 1];
  pid_t self;
  int epoll;
  bool threaded;
  pthread_t thread;
  int wake; /* eventfd: readable when the thread is to end; -1 without one */
  struct notify_sizes sizes;
  struct notify_request *request;
  struct notify_answer *answer;
  struct dial *first; /* earliest deadline */
  struct dial *last;
  struct dial *free;
  int spare; /* a connection to the proxy for whoever calls next; -1 for none */
  int64_t spare_until;
  int64_t next_sweep;
  unsigned handing_over; /* connections in that state */
  int64_t next_attempt;  /* at these */
  struct done_call done[DONE_CALLS];
  unsigned next_done;
  struct dial dials[BROKER_PENDING];
};

/* broker_thread.c */
/* False with errno. */
bool thread_start(struct broker *broker);
/* False when it is held up so long that what it uses must be left to it. */
bool thread_end(struct broker *broker);

/* broker.c */
/* broker_run, in whichever thread serves, which waits so many ms for the first event (-1: as long as it takes). False when the
 * thread is to end. */
bool broker_serve(struct broker *broker, int wait);
int broker_next(const struct broker *broker);    /* broker_timeout, there */
int64_t broker_now(void); /* ms, monotonic */
bool broker_waits(const struct broker *broker, const struct call *call);
/* 0 or an errno is the result of the call; CALLER_GONE is passed over. False when the caller no longer waited. */
bool broker_answer(struct broker *broker, const struct call *call, int error);
void broker_sweep(struct broker *broker, int64_t now);

/* hand_over.c */
bool hand_over_prepare(void); /* false with errno */
/* Puts our socket in the place of the caller's descriptor, and answers nothing yet: 0, an errno, CALLER_GONE, CALLER_LATE. */
int hand_over(const struct broker *broker, const struct call *call, int descriptor, const struct caller_socket *place);

/* target.c; each returns 0, an errno to answer with, or CALLER_GONE */
int target_memory(const struct broker *broker, const struct call *call, uint64_t from, void *into, size_t length);
int target_socket(const struct broker *broker, const struct call *call, int descriptor, struct caller_socket *socket);
/* Whether the same socket still stands there: EISCONN when one of ours does meanwhile, EBADF for anything else. */
int target_same(const struct broker *broker, const struct call *call, int descriptor, const struct caller_socket *socket);
/* Process behind a pidfd of the caller. */
int target_pidfd(const struct broker *broker, const struct call *call, int descriptor, pid_t *pid);

/* A file below /proc, read into a buffer and ended with NUL; its length, or -1. */
ssize_t target_file(char *into, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The number behind a key such as `PPid:` at the start of a line; -1 when there is none. */
long target_number(const char *text, const char *key, int base);

/* endpoint.c */
/* 0, EINVAL for what is too short, EACCES for any other family. */
int endpoint_of(const struct sockaddr_storage *address, size_t length, struct endpoint *endpoint);
bool endpoint_same(const struct endpoint *one, const struct endpoint *other);
/* Its length. */
socklen_t endpoint_address(const struct endpoint *endpoint, struct sockaddr_storage *address);

/* tunnel.c; each returns 0 when it is done, UNDER_WAY, or an errno for the caller */
int tunnel_ask(const struct broker *broker, struct dial *dial);
int tunnel_answer(struct dial *dial);

/* dial.c */
void dial_begin(struct broker *broker, const struct call *call);
void dial_continue(struct broker *broker, struct dial *dial);
void dial_drop(struct broker *broker, struct dial *dial);
void dial_drop_spare(struct broker *broker);

/* bind.c */
void bind_serve(struct broker *broker, const struct call *call);

/* signals.c */
void signal_serve(struct broker *broker, const struct call *call);

#endif
