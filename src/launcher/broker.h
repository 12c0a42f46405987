/* The broker: answers the calls of a confined tree of processes that the seccomp filter hands over (user notification).
 *
 * connect(2)  an IPv4 or IPv6 TCP target is reached through the egress proxy; the connection that the proxy allowed takes
 *             the place of the caller's socket. No call is ever continued by the kernel, which would read the address anew.
 * bind(2)     of a netlink socket, below Landlock ABI 4: a bound NETLINK_ROUTE socket takes its place.
 * kill(2) ... below Landlock ABI 6: sent by the broker, to processes of the tree only.
 *
 * One epoll, one state for each connection that is under way: none waits for another one. A thread of the broker's own
 * serves the calls. Only with an observer it is the caller's thread that does, in broker_run.
 *
 * What a program can notice: options set before connect are lost; getpeername shows the proxy; an AF_INET6 socket may
 * become AF_INET; other descriptors of the same socket (dup, fork) keep the unconnected one; an epoll registration made
 * before connect is gone; a non-blocking connect succeeds at once, and a dial that fails later shows as a reset. */
#ifndef BROKER_H
#define BROKER_H

#include <sys/socket.h>
#include <sys/types.h>

/* Connections under way at a time; one more is answered EAGAIN. */
#ifndef BROKER_PENDING
#define BROKER_PENDING 256
#endif

/* Milliseconds from the call to the proxy's answer; then ETIMEDOUT. */
#ifndef BROKER_DEADLINE_MS
#define BROKER_DEADLINE_MS 10000
#endif

/* Bytes of a token. */
#define BROKER_TOKEN_MAX 512

#define BROKER_SERVE (-2)
#define BROKER_CONTINUE (-3)

struct broker;
struct call;

struct broker_options {
  int listener;                  /* seccomp user notification descriptor; the broker's own once broker_open succeeded */
  struct sockaddr_storage proxy; /* AF_INET or AF_INET6; needed for connects */
  socklen_t proxy_length;
  const char *token; /* of the child, for the proxy: 1 to BROKER_TOKEN_MAX printable characters, copied; needed for connects */
  int connects;      /* serve connect(2) */
  int binds;         /* serve bind(2): the netlink route socket only (ABI < 4) */
  int signals;       /* serve kill, tkill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo, pidfd_send_signal (ABI < 6) */
  /* Sees each call first; NULL: nobody does. 0 or an errno answers it, BROKER_SERVE has the broker serve it, and
   * BROKER_CONTINUE lets the kernel go on with it: for calls that are only watched, never for one that is decided here. */
  int (*observe)(struct broker *broker, const struct call *call);
  pid_t child;       /* root of the tree. The caller of broker_open must be its parent and the subreaper of the tree */
};

/* NULL with errno: EINVAL for a proxy or a token that cannot be, ENOMEM, EMFILE, ENOSYS. The listener is then still the
 * caller's. Calls that are not served are answered EACCES. Takes SIGALRM, which the caller must have blocked, and the
 * process's real-time timer (setitimer). */
struct broker *broker_open(const struct broker_options *options);

/* Readable when broker_run has something to do; never for a broker with a thread. */
int broker_descriptor(const struct broker *broker);

/* Handles what is ready, at most 64 events or some 30 ms at a time, and waits for no peer. To be called when the descriptor
 * is readable and when broker_timeout has passed. Nothing for a broker with a thread. */
void broker_run(struct broker *broker);

/* Milliseconds until broker_run has to be called although the descriptor is not readable; -1 for none. */
int broker_timeout(const struct broker *broker);

/* Ends what is under way (the callers get ENOSYS from the kernel), closes the listener, wipes the token. A thread that a
 * caller holds up is waited for one second, then everything is left as it is: end the tree first. */
void broker_close(struct broker *broker);

#endif
