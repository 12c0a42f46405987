/* The thread that serves the calls.
 *
 * Reading a caller's memory takes locks of its address space. A program can keep such a lock with a thread of the lowest
 * priority while it gives the processors to others, and so hold up whoever reads, for seconds. That may be the program's own
 * connects; it must not be the supervisor, who ends the tree when its time has come. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "broker_parts.h"

/* Bytes; what is not used takes no memory. */
#define STACK_SIZE (256U * 1024U)

/* Seconds to wait for it at the end. */
#define END_S 1

static void *serve(void *argument) {
  struct broker *broker = argument;
  while (broker_serve(broker, broker_next(broker))) continue;
  return NULL;
}

bool thread_start(struct broker *broker) {
  broker->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (broker->wake < 0) return false;
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = broker};
  if (epoll_ctl(broker->epoll, EPOLL_CTL_ADD, broker->wake, &event) != 0) return false;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, STACK_SIZE);
  /* Signals are for the supervisor. */
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int error = pthread_create(&broker->thread, &attributes, serve, broker);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  broker->threaded = error == 0;
  errno = error;
  return broker->threaded;
}

bool thread_end(struct broker *broker) {
  if (!broker->threaded) return true;
  const uint64_t one = 1;
  if (write(broker->wake, &one, sizeof one) != sizeof one) return false;
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += END_S;
  return pthread_timedjoin_np(broker->thread, NULL, &until) == 0;
}
